//! `listen` and `dial` when the other end fails, and their messages meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ::peersock::blocking::TcpStream;
use ::peersock::{IdentitySource, Interfaces, Network, Node};
use rustix::process::Signal;

use crate::common::{Lab, PATIENCE, PORT, Running, address_of, peersock, run, signal, vanish};
use crate::delivery::fed;

#[test]
fn a_second_client_of_a_listener_for_one_is_refused_while_the_first_is_served() {
    let lab = Lab::new();
    let mut listening = lab.listen(&[&PORT.to_string()]);
    listening.running.end_stdin();
    let mut first = lab.dial(&listening.target, &[]);
    first.send(b"first");
    listening.running.wait_for_stdout("first");
    let input = lab.dir.path().join("input");
    fs::write(&input, "lost").unwrap();
    let second = lab.node("second", &["dial", &listening.target]);
    Running::start(fed(second, &input)).finish().failure(1, &["nothing listens"]);
    first.finish().success();
    assert_eq!(listening.running.finish().success().text(), "first");
}

#[test]
fn a_client_that_does_nothing_or_is_stopped_or_dead_holds_up_nobody() {
    let lab = Lab::new();
    let mut listening = lab.listen(&["-k", &PORT.to_string()]);
    let dial = |name: &str| Running::start(lab.node(name, &["dial", &listening.target]));
    let mut idle = dial("idle");
    idle.send(b"idle\n");
    listening.running.wait_for_stdout("idle\n");
    for (name, sent) in [("stopped", Signal::STOP), ("dead", Signal::KILL)] {
        let mut client = dial(name);
        client.send(format!("{name}\nhalf a line").as_bytes());
        listening.running.wait_for_stdout(name);
        vanish(sent, client.id());
        let mut other = dial("other");
        other.send(format!("beside {name}\n").as_bytes());
        other.finish().success();
        listening.running.wait_for_stdout(&format!("\nbeside {name}\n"));
    }
    // Stdin goes to the client connected longest.
    listening.running.send(b"answer");
    idle.wait_for_stdout("answer");
    idle.finish().success();
    listening.running.interrupt().failure(130, &[]);
}

/// A member with more connections than its share does not block others; its excess connections wait or are
/// refused, and a message says so.
#[test]
fn one_member_with_many_connections_does_not_shut_out_the_others() {
    const SERVED: usize = 64;
    const WAITING: usize = 64;
    let lab = Lab::new();
    let listening = lab.listen(&["-k", "--receive-only", &PORT.to_string()]);
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.start().unwrap();
    let joined = node.join(Network::ad_hoc(lab.network.parse().unwrap())).unwrap();
    let target: SocketAddr = listening.target.parse().unwrap();
    joined.wait_peer(target.ip(), PATIENCE).unwrap();
    let open = |number: usize| {
        let stream = TcpStream::connect_timeout_on(&node, &target, PATIENCE).unwrap();
        // Writes in one piece, because data of a lone client is shown at once and other lines follow it.
        (&stream).write_all(format!("client {number}.\n").as_bytes()).unwrap();
        stream
    };
    // Connections may be accepted in another order than opened. One exceeds the limits.
    let mut greedy: BTreeMap<usize, TcpStream> =
        (0..=SERVED + WAITING).map(|number| (number, open(number))).collect();
    let wait_until_served = |count: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = listening.running.shown();
            let numbers = shown.lines().filter_map(|line| line.strip_prefix("client ")?.strip_suffix('.'));
            let served: BTreeSet<usize> = numbers.map(|number| number.parse().expect("a number")).collect();
            if served.len() >= count {
                assert_eq!(served.len(), count);
                return served;
            }
            assert!(Instant::now() < deadline, "{} of {count} are served", served.len());
            thread::sleep(Duration::from_millis(10));
        }
    };
    let served = wait_until_served(SERVED);
    let said = listening.running.wait_for_stderr(&format!("a connection of {} ", joined.address()));
    assert!(said.starts_with("waits for its turn: 64 of one peer"), "{said}");
    listening.running.wait_for_stderr("is refused: 64 of one peer wait already");
    let is_refused = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        stream.read(&mut [0]).expect_err("nothing is sent").kind() == io::ErrorKind::ConnectionReset
    };
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        let found = greedy.iter_mut().find_map(|(number, stream)| is_refused(stream).then_some(*number));
        if let Some(number) = found {
            break number;
        }
        assert!(Instant::now() < deadline, "none is reset");
    };
    assert!(!served.contains(&refused), "{refused}");

    let mut other = lab.dial(&listening.target, &[]);
    other.send(b"somebody else\n");
    other.finish().success();
    listening.running.wait_for_stdout("somebody else\n");
    assert_eq!(wait_until_served(SERVED), served);
    // Waiting clients are served when others end.
    greedy.retain(|number, _| !served.contains(number));
    assert!(!wait_until_served(SERVED + WAITING).contains(&refused));
    drop(greedy);
    listening.running.interrupt().failure(130, &[]);
}

#[test]
fn a_receiver_notices_that_its_silent_peer_is_dead() {
    let lab = Lab::new();
    let listening = lab.listen(&["--peer-timeout", "5", &PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    vanish(Signal::KILL, dialing.id());
    listening.running.finish().failure(1, &["the connection broke"]);
}

/// Connections with a peer's earlier instance end as soon as the new instance is heard, even if nothing shows
/// that the earlier one is gone.
#[test]
fn a_listener_sees_within_a_second_that_its_peer_has_restarted() {
    for (how, options) in
        [(Signal::KILL, &[][..]), (Signal::STOP, &[]), (Signal::KILL, &["-k"]), (Signal::STOP, &["-k"])]
    {
        let lab = Lab::new();
        let listening = lab.listen(&[options, &["--peer-timeout", "60", &PORT.to_string()]].concat());
        let mut dialing = lab.dial(&listening.target, &[]);
        dialing.send(b"x");
        listening.running.wait_for_stdout("x");
        vanish(how, dialing.id());
        let again = start_again(&lab, "dialer", ("listener", &listening.running));
        let heard = Instant::now();
        if options.is_empty() {
            listening.running.wait_for_end().failure(1, &["the connection broke", "the peer has reset it"]);
        } else {
            let said = listening.running.wait_for_stderr("warning: ");
            assert!(said.contains("the connection broke"), "{said}");
            listening.running.interrupt().failure(130, &[]);
        }
        assert!(heard.elapsed() < Duration::from_secs(1), "{how:?}, {options:?}: {:?}", heard.elapsed());
        again.interrupt();
    }
}

#[test]
fn who_has_dialed_sees_within_a_second_that_its_peer_has_restarted() {
    for how in [Signal::KILL, Signal::STOP] {
        let lab = Lab::new();
        let listening = lab.listen(&[&PORT.to_string()]);
        let mut dialing = lab.dial(&listening.target, &["--peer-timeout", "60"]);
        dialing.send(b"x");
        listening.running.wait_for_stdout("x");
        vanish(how, listening.running.id());
        let again = start_again(&lab, "listener", ("dialer", &dialing));
        let heard = Instant::now();
        dialing.wait_for_end().failure(1, &["the connection broke", "the peer has reset it"]);
        assert!(heard.elapsed() < Duration::from_secs(1), "{how:?}: {:?}", heard.elapsed());
        again.interrupt();
    }
}

/// Starts a node with the identity of another one, which has ended or is stopped, and waits until a third
/// node, the witness, has heard it.
fn start_again(lab: &Lab, earlier: &str, (witness, running): (&str, &Running)) -> Running {
    // A stopped node keeps its directory locked.
    fs::create_dir(lab.state("again")).unwrap();
    let [own, again] = [earlier, "again"].map(|node| lab.state(node).join("identity.key"));
    fs::copy(own, again).unwrap();
    let witness = address_of(lab, witness);
    let again = Running::start(lab.node("again", &["ping", "-c", "100", "-i", "0.1", &witness]));
    // While the earlier instance also exists, an answer may go to it. The witness may end, after seeing the
    // new instance, before it answers.
    let begun = Instant::now();
    while !again.shown().contains("from ") && !running.said().contains("the connection broke") {
        assert!(begun.elapsed() < PATIENCE, "nothing is heard: {}", again.said());
        thread::sleep(Duration::from_millis(5));
    }
    again
}

/// The peer sends nothing back, not even an error, and no data is sent that needs an acknowledgment.
#[test]
fn who_only_waits_notices_that_its_peer_has_vanished() {
    for is_dialing in [false, true] {
        let lab = Lab::new();
        let listening = lab.listen(&["--peer-timeout", "5", &PORT.to_string()]);
        let mut dialing = lab.dial(&listening.target, &["--peer-timeout", "5"]);
        dialing.send(b"x");
        listening.running.wait_for_stdout("x");
        let (waiting, gone) =
            if is_dialing { (dialing, listening.running) } else { (listening.running, dialing) };
        vanish(Signal::STOP, gone.id());
        let began = Instant::now();
        waiting.wait_for_end().failure(1, &["the connection broke", "does not answer any more"]);
        assert!(began.elapsed() < Duration::from_secs(10), "dialing {is_dialing}: {:?}", began.elapsed());
    }
}

#[test]
fn a_sender_notices_that_its_peer_is_stopped_and_says_how_much_is_lost() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &["--peer-timeout", "5"]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    vanish(Signal::STOP, listening.running.id());
    dialing.send(&[b'y'; 10_000]);
    dialing.finish().failure(1, &["does not answer", "10000 bytes were not acknowledged", "--peer-timeout"]);
}

#[test]
fn a_peer_that_was_stopped_for_a_while_is_told_of_and_gets_everything() {
    let lab = Lab::new();
    let mut listening = lab.listen(&["--peer-timeout", "30", &PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &["--peer-timeout", "30"]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    vanish(Signal::STOP, listening.running.id());
    // No data is sent; keepalives detect the silence.
    let told = dialing.wait_for_stderr("the peer has not answered for 1");
    assert!(told.contains("given up after 30 s (--peer-timeout)"), "{told}");
    dialing.send(b"y");
    signal(Signal::CONT, listening.running.id());
    let told = dialing.wait_for_stderr("the peer answers again after 1");
    assert!(told.ends_with("s of silence; the connection continues"), "{told}");
    listening.running.end_stdin();
    let dialing = dialing.finish().success();
    for line in ["has not answered", "answers again"] {
        assert_eq!(dialing.stderr.matches(line).count(), 1, "{}", dialing.stderr);
    }
    let listening = listening.running.finish().success();
    assert_eq!(listening.text(), "xy");
    // The process that was stopped does not mistake this for the other's silence.
    assert!(!listening.stderr.contains("has not answered"), "{}", listening.stderr);
}

#[test]
fn a_receiver_that_ends_early_is_told_from_one_that_died() {
    let lab = Lab::new();
    let listen = lab.node("listener", &["listen", &PORT.to_string()]);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#""$0" "$@" | head -c 5"#]).arg(listen.get_program()).args(listen.get_args());
    let listening = Running::start(shell);
    let target = listening.wait_for_target();
    let input = lab.dir.path().join("input");
    fs::write(&input, vec![b'x'; 10_000_000]).unwrap();
    let dialing = Running::start(fed(lab.dial_command(&target, &[]), &input));
    dialing.finish().failure(1, &["the peer has reset it"]);
    assert_eq!(listening.finish().text(), "xxxxx");
}

#[test]
fn whoever_is_interrupted_says_what_did_not_arrive() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    vanish(Signal::STOP, listening.running.id());
    // The size exceeds the pipe and one read of the dialer, so that its first data is sent when this returns.
    dialing.send(&vec![b'y'; (1 << 20) + (256 << 10) + 1000]);
    dialing.interrupt().failure(130, &["bytes were not acknowledged"]);
}

#[test]
fn listen_prints_the_command_that_connects() {
    let lab = Lab::new();
    let mut listening = lab.listen(&["0"]);
    let command = listening.running.wait_for_stderr("connect with: ");
    assert_eq!(command, format!("peersock dial --ephemeral -n {} '{}'", lab.network, listening.target));
    let open = format!("network {} is open: ", lab.network);
    assert!(listening.running.wait_for_stderr(&open).contains("--secret-file FILE closes it"));
    let command = command.replacen("peersock", &format!("'{}'", env!("CARGO_BIN_EXE_peersock")), 1);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("echo found | {command} --interface lo")]);
    listening.running.end_stdin();
    run(shell).success();
    assert_eq!(listening.running.finish().success().text(), "found\n");

    let udp = lab.listen(&["--udp", "0"]);
    assert!(udp.running.wait_for_stderr("connect with: ").starts_with("peersock dial --ephemeral --udp -n "));
}

#[test]
fn the_help_says_what_becomes_of_several_clients() {
    let help = run(peersock(&["listen", "--help"])).success();
    // Compares words, regardless of line breaks.
    let help = help.text().split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["256 at once", "mixed by lines", "connected longest", "--peer-timeout", "--quiet"] {
        assert!(help.contains(words), "{words}");
    }
}
