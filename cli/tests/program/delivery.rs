//! Every delivery of the table in `tests/delivery`, with `dial` and with `listen` as the sender: exit status
//! 0 only if everything was read.

#[path = "../../../tests/delivery/receiver.rs"]
mod receiver;
#[path = "../../../tests/delivery/scenario.rs"]
mod scenario;
#[path = "../../../tests/delivery/victim.rs"]
mod victim;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Network, Node};
use rustix::process::Signal;

use self::receiver::receive;
use self::scenario::{Outcome, Scenario, Step, content, judge, table};
use self::victim::process::Process;
use crate::common::{Finished, Lab, PATIENCE, Running, vanish};

/// Silence after which a peer is considered dead.
const SILENCE: Duration = Duration::from_secs(1);

#[test]
fn dial_tells_by_its_exit_status() {
    let lab = Lab::new();
    let (node, own) = member(&lab);
    play("dial", |scenario, size| {
        let listener = TcpListener::bind_on(&node, own).expect("bind");
        let target = listener.local_addr().expect("address").to_string();
        let (connected, is_connected) = mpsc::channel();
        let run =
            move || receive(scenario, size, listener, &is_connected, |listener| Ok(listener.accept()?.0));
        let dial = lab.dial_command(&target, &["--timeout", "60"]);
        let dial = || Running::start(fed(dial, &input(&lab, size))).finish();
        if scenario.steps == [Step::Refuse] {
            return (run(), dial());
        }
        thread::scope(|scope| {
            let read = scope.spawn(run);
            let waits = scenario.steps.contains(&Step::Unlisten);
            let (node, connected) = (node.clone(), connected.clone());
            scope.spawn(move || {
                while waits && node.status().flows.total == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                // Most scenarios do not wait for this.
                let _ = connected.send(());
            });
            let finished = dial();
            (read.join().expect("the receiver"), finished)
        })
    });
}

#[test]
fn listen_tells_by_its_exit_status() {
    let lab = Lab::new();
    let (node, _) = member(&lab);
    play("listen", |scenario, size| {
        let listen = fed(lab.node("listener", &["listen", "0"]), &input(&lab, size));
        let listening = Running::start(listen);
        let target: SocketAddr = listening.wait_for_target().parse().expect("an address");
        let (_, is_connected) = mpsc::channel();
        let read = receive(scenario, size, (), &is_connected, |()| TcpStream::connect_on(&node, target));
        (read, listening.finish())
    });
}

/// `listen -k` serves several clients, so its exit status does not tell; it reports failed deliveries on
/// stderr. It is done with a client that has closed its side, so scenarios in which a receiver does so first
/// are left out. Data of stdin that is not read by then goes to the next client, and is not lost.
#[test]
fn listen_that_keeps_on_tells_by_what_it_says() {
    let lab = Lab::new();
    let (node, _) = member(&lab);
    play_outcomes("listen -k", |scenario, size| {
        if scenario.steps.contains(&Step::ShutdownWrite) {
            return None;
        }
        let listen = fed(lab.node("listener", &["listen", "-k", "-v", "0"]), &input(&lab, size));
        let listening = Running::start(listen);
        let target: SocketAddr = listening.wait_for_target().parse().expect("an address");
        let (_, is_connected) = mpsc::channel();
        let read = receive(scenario, size, (), &is_connected, |()| TcpStream::connect_on(&node, target));
        let told = said_of_client(&listening);
        if told == Outcome::Delivered && scenario.outcome != Some(Outcome::Delivered) {
            assert_eq!(read.len(), taken(&listening), "{}, {size} bytes: lost in silence", scenario.name);
            listening.interrupt().failure(130, &[]);
            return None;
        }
        listening.interrupt().failure(130, &[]);
        Some((told, read))
    });
}

/// Returns the outcome of the first client from the output of `listen -k -v`.
fn said_of_client(listening: &Running) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = listening.said();
        match said.lines().find(|line| line.contains("warning: ") || line.contains("finished")) {
            Some(line) if line.contains("warning: ") => return Outcome::Error,
            Some(_) => return Outcome::Delivered,
            None => assert!(Instant::now() < deadline, "nothing is said of the client: {said}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns how much of its stdin, which is a file, a program has read.
fn taken(running: &Running) -> usize {
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/0", running.id())).expect("it runs");
    let position = info.lines().find_map(|line| line.strip_prefix("pos:")).expect("a position");
    position.trim().parse().expect("a number")
}

#[test]
fn listen_that_keeps_on_tells_that_the_receiver_has_died_or_stopped() {
    let lab = Lab::new();
    play_victims("listen -k", &lab, |order| {
        let listen = ephemeral(&lab, &["listen", "-k", "-v", "0"]);
        let listening = Running::start(fed(listen, &input(&lab, order.size)));
        let _victim = victim_of(&listening, order);
        let told = said_of_client(&listening);
        listening.interrupt().failure(130, &[]);
        told
    });
}

#[test]
fn dial_tells_that_the_receiver_has_died_or_stopped() {
    let lab = Lab::new();
    play_victims("dial", &lab, |order| {
        let victim = order.start(None);
        let dial = ephemeral(&lab, &["dial", &victim.address.to_string(), "--timeout", "60"]);
        told(&Running::start(fed(dial, &input(&lab, order.size))).finish())
    });
}

#[test]
fn listen_tells_that_the_receiver_has_died_or_stopped() {
    let lab = Lab::new();
    play_victims("listen", &lab, |order| {
        let listen = ephemeral(&lab, &["listen", "-v", "0"]);
        let listening = Running::start(fed(listen, &input(&lab, order.size)));
        let _victim = victim_of(&listening, order);
        told(&listening.finish())
    });
}

/// Returns a receiver that is connected to `listen -v`, which has accepted it.
fn victim_of(listening: &Running, order: &victim::Order<'_>) -> Process {
    let mut victim = order.start(Some(listening.wait_for_target().parse().expect("an address")));
    listening.wait_for_stderr("connected client=");
    victim.go_on();
    victim
}

fn play_victims(face: &str, lab: &Lab, send: impl Fn(&victim::Order<'_>) -> Outcome + Sync) {
    let (_, sizes) = table();
    // Creates the files before they are needed concurrently.
    sizes.iter().for_each(|&size| drop(input(lab, size)));
    victim::play(face, "delivery::receiver_of_the_others", &lab.network, send);
}

/// Returns a command with a separate node in the lab's network, so that several may run at once.
fn ephemeral(lab: &Lab, words: &[&str]) -> Command {
    let mut command = crate::common::peersock(words);
    command.args(["--ephemeral", "--interface", "lo", "--peer-timeout", "5", "--network", &lab.network]);
    command
}

/// The receiver that dies or stops. It does nothing unless another test orders it.
#[test]
fn receiver_of_the_others() {
    victim::be_one();
}

/// The receiver dies or stops after the sender's first byte, or after all data and the sender's end.
#[test]
fn a_sender_is_told_when_its_peer_dies_or_stops() {
    kill_receivers(&["0"], &[false, true]);
}

#[test]
fn a_sender_is_told_when_its_peer_that_keeps_on_dies_or_stops() {
    // At that point it has written everything, and is done.
    kill_receivers(&["0", "-k"], &[false]);
}

fn kill_receivers(listen: &[&str], stages: &[bool]) {
    let lab = Lab::new();
    let (node, _) = member(&lab);
    let (_, sizes) = table();
    for signal in [Signal::KILL, Signal::STOP] {
        for &size in &sizes {
            for &at_the_end in stages {
                let mut listening = lab.listen(listen);
                let target: SocketAddr = listening.target.parse().expect("an address");
                let mut stream = TcpStream::connect_on(&node, target).expect("connect");
                let data = vec![b'x'; size + 1];
                let first = if at_the_end { data.len() } else { 1 };
                stream.write_all(&data[..first]).expect("somebody reads");
                if at_the_end {
                    stream.shutdown(Shutdown::Write).expect("the end");
                    stream.wait_delivered(Some(PATIENCE)).expect("it is acknowledged");
                }
                listening.running.wait_for_stdout("x");
                vanish(signal, listening.running.id());
                stream.set_keepalive(Some(SILENCE / 9)).expect("keep-alives");
                stream.set_user_timeout(Some(SILENCE)).expect("a timeout");
                // Its stdin is still open, so it has not closed its side.
                let told = stream
                    .write_all(&data[first..])
                    .and_then(|()| if at_the_end { Ok(()) } else { stream.shutdown(Shutdown::Write) })
                    .and_then(|()| stream.read_to_end(&mut Vec::new()).map(drop))
                    .and_then(|()| stream.wait_delivered(Some(PATIENCE)));
                let error = told.expect_err("the peer did not say that it was done");
                let kinds = [ErrorKind::TimedOut, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                let which = format!("{signal:?}, {size} bytes, at the end: {at_the_end}: {error}");
                assert!(kinds.contains(&error.kind()), "{which}");
                assert!(at_the_end || stream.unacked() > 0, "{which}");
                listening.running.stdin = None;
            }
        }
    }
}

/// The end of a listener that only receives means that all sent data is written. A dialer at a terminal,
/// which stops at the peer's end, can still send.
#[test]
fn a_listener_that_only_receives_ends_its_side_when_all_is_written() {
    let lab = Lab::new();
    let (node, _) = member(&lab);
    for options in [&["0", "--receive-only"][..], &["0", "--receive-only", "-k"]] {
        for ends_first in [false, true] {
            let listening = lab.listen(options);
            let target: SocketAddr = listening.target.parse().expect("an address");
            let stream = TcpStream::connect_on(&node, target).expect("connect");
            let mut writer = &stream;
            thread::scope(|scope| {
                let end = scope.spawn(|| (&stream).read_to_end(&mut Vec::new()));
                for line in ["first\n", "second\n"] {
                    writer.write_all(line.as_bytes()).expect("somebody reads");
                    listening.running.wait_for_stdout(line);
                }
                assert!(!end.is_finished(), "{options:?}: it ends its side, and there may be more to come");
                if ends_first {
                    stream.shutdown(Shutdown::Write).expect("the end");
                    assert_eq!(end.join().expect("it reads").expect("an end in order"), 0);
                } else {
                    listening.running.interrupt().failure(130, &[]);
                    end.join().expect("it reads").expect_err("nobody has said that everything is written");
                }
            });
        }
    }
}

/// Plays the scenarios in which the connection is accepted, or for `dial` all of them.
fn play(face: &str, run: impl Fn(&Scenario, usize) -> (Vec<u8>, Finished)) {
    play_outcomes(face, |scenario, size| {
        let (read, finished) = run(scenario, size);
        Some((told(&finished), read))
    });
}

/// Plays scenarios; `run` returns `None` if it has judged the scenario itself or cannot run it.
fn play_outcomes(face: &str, run: impl Fn(&Scenario, usize) -> Option<(Outcome, Vec<u8>)>) {
    let (scenarios, sizes) = table();
    // The receivers here have no separate process.
    for scenario in scenarios.iter().filter(|scenario| !scenario.ends_process()) {
        if face != "dial" && scenario.steps[0] != Step::Accept {
            continue;
        }
        for &size in &sizes {
            if let Some((told, read)) = run(scenario, size) {
                judge(scenario, size, face, told, &read);
            }
        }
    }
}

fn told(finished: &Finished) -> Outcome {
    match finished.status.code() {
        Some(0) => Outcome::Delivered,
        Some(1) => Outcome::Error,
        other => panic!("exit status {other:?}: {}", finished.stderr),
    }
}

/// Returns a private node of this test in the lab's network, and its address with any port.
pub(crate) fn member(lab: &Lab) -> (Node, SocketAddr) {
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    // Half of the largest size must exceed the receive buffer, which grows with reads.
    let node = builder.tcp_buffers(16 << 20, 1 << 18).start().expect("a node");
    let network = Network::ad_hoc(lab.network.parse().expect("an ad-hoc network"));
    let joined = node.join(network).expect("joined");
    (node, SocketAddr::new(joined.address().into(), 0))
}

/// Returns a file with the content to send.
fn input(lab: &Lab, size: usize) -> PathBuf {
    let path = lab.dir.path().join(format!("{size}-bytes"));
    if !path.exists() {
        fs::write(&path, content(size)).expect("written");
    }
    path
}

/// Returns the command with a file as its stdin.
pub(crate) fn fed(command: Command, input: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec "$@" < "$0""#]).arg(input);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_remove("PEERSOCK_SECRET").env_remove("PEERSOCK_LOG");
    shell
}
