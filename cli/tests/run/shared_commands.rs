//! `dial` and `listen` at the node that programs share.

use std::fs;
use std::io::Read as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::common::{PATIENCE, Running, peersock, run, signal, vanish};
use crate::lab::{Lab, behind};

/// UDP server that sends back what it gets, on port 7000.
const UDP_ECHO: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.77.0.1', 7000))
print('ready', flush=True)
while True: s.sendto(*s.recvfrom(2000))";

impl Lab {
    /// Returns a command as a member.
    pub(crate) fn as_member(&self, member: &str, words: &[&str]) -> Command {
        let mut command = peersock(words);
        command.args(["--interface", "lo", "--state"]).arg(self.path(member));
        command.arg("--network").arg(self.path("network.toml"));
        command
    }

    pub(crate) fn dial(&self, member: &str, words: &[&str]) -> Running {
        Running::start(self.as_member(member, &[&["dial"], words].concat()))
    }

    /// Starts a listener, and waits until it listens.
    pub(crate) fn listen(&self, member: &str, words: &[&str]) -> Running {
        let listening = Running::start(self.as_member(member, &[&["listen"], words].concat()));
        listening.wait_for_stderr("connect with: ");
        listening
    }

    /// Keeps a member's node.
    pub(crate) fn keep(&self, member: &str) -> Running {
        let mut keep = peersock(&["node", "--interface", "lo", "--state"]);
        keep.arg(self.path(member));
        let kept = Running::start(keep);
        kept.wait_for_stderr("programs under `peersock run` share it");
        kept
    }
}

/// Returns the number of descriptors of a process.
pub(crate) fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").count()
}

#[test]
fn a_setting_of_the_user_s_file_that_the_node_lacks_is_refused_with_the_file() {
    let Some(lab) = Lab::with("shared", &[]) else { return };
    let _kept = lab.keep("alpha");
    let file = lab.write("config.toml", "interfaces = \"lo\"\nbusy_poll = 7\n");
    let mut dial = lab.as_member("alpha", &["dial", "beta:7000", "--timeout", "0.1"]);
    dial.env("PEERSOCK_CONFIG", &file);
    run(dial)
        .failure(1, &["asks for --busy-poll 7", "--busy-poll is from", &file, "PEERSOCK_CONFIG= (empty)"]);
    let mut by_option = lab.as_member("alpha", &["dial", "beta:7000", "--busy-poll", "8"]);
    by_option.env("PEERSOCK_CONFIG", &file);
    let said = run(by_option);
    said.failure(1, &["asks for --busy-poll 8"]);
    assert!(!said.stderr.contains("config.toml"), "{}", said.stderr);
    let mut by_variable = lab.as_member("alpha", &["dial", "beta:7000"]);
    by_variable.env("PEERSOCK_CONFIG", &file).env("PEERSOCK_BUSY_POLL", "9");
    let said = run(by_variable);
    said.failure(1, &["asks for --busy-poll 9", "--busy-poll is from the variable PEERSOCK_BUSY_POLL"]);
    assert!(!said.stderr.contains("config.toml"), "{}", said.stderr);
}

#[test]
fn an_empty_variable_of_roots_is_told_to_the_program_that_has_it() {
    let Some(lab) = Lab::with("an_empty_variable_of_roots", &[]) else { return };
    let kept = lab.keep("alpha");
    let dial = |roots: Option<&str>| {
        let mut dial = lab.as_member("alpha", &["dial", "beta:7000", "--timeout", "0.1"]);
        roots.map(|roots| dial.env("PEERSOCK_ROOTS", roots));
        run(dial)
    };
    dial(Some("")).failure(1, &["has not answered", "PEERSOCK_ROOTS is set and empty"]);
    let unset = dial(None);
    assert!(!unset.stderr.contains("PEERSOCK_ROOTS"), "{}", unset.stderr);
    drop(kept);
    // The node's own variable is not the program's.
    let mut keep = peersock(&["node", "--interface", "lo", "--state"]);
    keep.arg(lab.path("alpha")).env("PEERSOCK_ROOTS", "");
    let kept = Running::start(keep);
    kept.wait_for_stderr("programs under `peersock run` share it");
    let unset = dial(None);
    assert!(!unset.stderr.contains("PEERSOCK_ROOTS"), "{}", unset.stderr);
}

#[test]
fn dials_use_the_node_of_a_running_program_and_leave_nothing_in_it() {
    let Some(lab) = Lab::with("dials_use_the_node_of_a_running_program", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let beside = lab.shared("beta", &["sleep", "1000"]);
    // By name, and by address; a program of the same node is reached as well.
    let node = {
        let begun = Instant::now();
        while !lab.path("beta").join("node.sock").exists() {
            assert!(begun.elapsed() < PATIENCE, "no node");
            thread::sleep(Duration::from_millis(5));
        }
        lab.node("beta")
    };
    let own = lab.echo("beta", "7001");
    let before = descriptors(node);
    let mut dials = [
        lab.dial("beta", &["alpha:7000"]),
        lab.dial("beta", &["10.77.0.1:7000"]),
        lab.dial("beta", &["beta:7001"]),
    ];
    for (number, dial) in dials.iter_mut().enumerate() {
        dial.send(format!("hello {number}\n").as_bytes());
    }
    for (number, dial) in dials.iter().enumerate() {
        dial.wait_for_stdout(&format!("hello {number}\n"));
    }
    dials.into_iter().for_each(|dial| drop(dial.finish().success()));
    // A killed one leaves nothing, either, and its peer does not take the end for a regular one.
    let mut killed = lab.dial("beta", &["alpha:7000"]);
    killed.send(b"to be killed\n");
    killed.wait_for_stdout("to be killed\n");
    vanish(Signal::KILL, killed.id());
    serving.wait_for_stdout("lost 104");
    let begun = Instant::now();
    while descriptors(node) > before {
        assert!(begun.elapsed() < PATIENCE, "{} descriptors, {before} before", descriptors(node));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(lab.node("beta"), node);
    drop((own, beside));
}

#[test]
fn a_command_starts_the_node_that_others_share() {
    let Some(lab) = Lab::with("a_command_starts_the_node", &["python3"]) else { return };
    let listening = lab.listen("alpha", &["7000"]);
    let node = lab.node("alpha");
    assert_ne!(node, listening.id());
    let serving = lab.echo("alpha", "7001");
    for place in ["alpha:7001", "10.77.0.1:7001"] {
        let mut dial = lab.dial("alpha", &[place]);
        dial.send(b"of one node\n");
        dial.wait_for_stdout("of one node\n");
        dial.finish().success();
    }
    // The command that has started it is killed, and others go on.
    vanish(Signal::KILL, listening.id());
    let mut dial = lab.dial("beta", &["alpha:7001"]);
    let of_beta = lab.node("beta");
    dial.send(b"from another\n");
    dial.wait_for_stdout("from another\n");
    assert_eq!(lab.node("alpha"), node);
    // The port of the killed command is free.
    drop(lab.listen("alpha", &["7000"]));
    dial.finish().success();
    lab.wait_for_end(of_beta);
    drop(serving);
    lab.wait_for_end(node);
    // Alone, it keeps the directory to itself.
    let own = lab.listen("alpha", &["--own-node", "7000"]);
    assert_eq!(lab.node("alpha"), own.id());
    let refused = run(lab.as_member("alpha", &["dial", "beta:7001"]));
    refused.failure(1, &["is in use by process", "start it again without --own-node"]);
    drop((own, listening));
}

#[test]
fn megabytes_pass_in_both_directions_and_a_stopped_dial_goes_on() {
    let Some(lab) = Lab::with("megabytes_pass_in_both_directions", &[]) else { return };
    let _kept = [lab.keep("alpha"), lab.keep("beta")];
    let (up, down) = (lab.write_random("up", 16 << 20), lab.write_random("down", (16 << 20) + 7));
    let mut listening = lab.listen("alpha", &["7000"]);
    let mut dialing = lab.dial("beta", &["alpha:7000"]);
    let process = dialing.id();
    thread::scope(|scope| {
        scope.spawn(|| {
            dialing.send(&up[..8 << 20]);
            vanish(Signal::STOP, process);
            // A member beside it is served.
            let mut beside = lab.listen("beta", &["7001"]);
            let mut other = lab.dial("alpha", &["beta:7001"]);
            other.send(b"beside");
            other.end_stdin();
            beside.end_stdin();
            assert_eq!(beside.finish().success().text(), "beside");
            other.finish().success();
            signal(Signal::CONT, process);
            dialing.send(&up[8 << 20..]);
            dialing.end_stdin();
        });
        listening.send(&down);
        listening.end_stdin();
    });
    assert!(dialing.finish().success().stdout == down, "what came down differs");
    assert!(listening.finish().success().stdout == up, "what came up differs");
}

#[test]
fn half_closing_keeps_the_other_direction_open() {
    let Some(lab) = Lab::with("half_closing_keeps_the_other_direction", &[]) else { return };
    let _kept = [lab.keep("alpha"), lab.keep("beta")];
    let mut listening = lab.listen("alpha", &["7000"]);
    let mut dialing = lab.dial("beta", &["[fd77::1]:7000"]);
    dialing.send(b"request\n");
    dialing.end_stdin();
    listening.wait_for_stdout("request\n");
    listening.send(b"first ");
    dialing.wait_for_stdout("first ");
    listening.send(b"second");
    assert_eq!(listening.finish().success().text(), "request\n");
    assert_eq!(dialing.finish().success().text(), "first second");
}

#[test]
fn failures_say_what_to_check() {
    let Some(lab) = Lab::with("failures_say_what_to_check", &["python3"]) else { return };
    let kept = lab.keep("beta");
    let serving = lab.echo("alpha", "7000");
    lab.dial("beta", &["alpha:7001"]).finish().failure(1, &["nothing listens on [fd", "or 10.77.0.1:7001"]);
    let nobody = lab.dial("beta", &["--timeout", "1", "gamma:7000"]).finish();
    nobody.failure(
        1,
        &["gamma (fd", "has not answered in network", "within 1 s", "with the same network file"],
    );
    lab.dial("beta", &["10.1.2.3:7000"]).finish().failure(2, &["no member of network"]);
    lab.dial("beta", &["delta:7000"]).finish().failure(2, &["`delta`"]);
    // Settings are the node's.
    let port = lab.dial("beta", &["--overlay-port", "7421", "alpha:7000"]).finish();
    port.failure(1, &["without --overlay-port", "7421", "--own-node --as NAME"]);
    // An ephemeral node is no other's.
    let adhoc = lab.ad_hoc();
    let mut own = peersock(&["dial", "--ephemeral", "--interface", "lo", "--timeout", "0.5", "-n", &adhoc]);
    own.arg("[fd00::1]:20000").arg("--state").arg(lab.path("beta"));
    run(own).failure(2, &["cannot be used with"]);
    drop((serving, kept));
}

#[test]
fn the_end_of_the_node_is_a_failure_that_says_so() {
    let Some(lab) = Lab::with("the_end_of_the_node_is_a_failure", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let udp = lab.shared("alpha", &["python3", "-c", UDP_ECHO]);
    udp.wait_for_stdout("ready");
    let kept = lab.keep("beta");
    let mut dialing = lab.dial("beta", &["alpha:7000"]);
    dialing.send(b"hello\n");
    dialing.wait_for_stdout("hello\n");
    let mut datagrams = lab.dial("beta", &["--udp", "-w", "1000", "10.77.0.1:7000"]);
    datagrams.send(b"hello\n");
    datagrams.wait_for_stdout("hello\n");
    let mut ended = lab.dial("beta", &["alpha:7000"]);
    ended.send(b"all\n");
    ended.end_stdin();
    ended.wait_for_stdout("all\n");
    ended.finish().success();
    let searching = lab.dial("beta", &["gamma:7000"]);
    searching.wait_for_stderr("looking for gamma");
    vanish(Signal::KILL, kept.id());
    for dialing in [dialing, datagrams, searching] {
        dialing.wait_for_end().failure(1, &["the node that programs share has ended"]);
    }
    drop((serving, udp));
}

#[test]
fn an_interrupted_dial_resets_its_peer() {
    let Some(lab) = Lab::with("an_interrupted_dial_resets_its_peer", &[]) else { return };
    let _kept = [lab.keep("alpha"), lab.keep("beta")];
    let mut listening = lab.listen("alpha", &["7000"]);
    let mut dialing = lab.dial("beta", &["alpha:7000"]);
    dialing.send(b"x");
    listening.wait_for_stdout("x");
    listening.send(b"y");
    dialing.wait_for_stdout("y");
    dialing.interrupt().failure(130, &[]);
    listening.finish().failure(1, &["the peer has reset it"]);
    // Also while it searches.
    let searching = lab.dial("beta", &["gamma:7000"]);
    searching.wait_for_stderr("looking for gamma");
    searching.interrupt().failure(130, &[]);
}

/// Bytes of which the node keeps the last ones until the command reads them.
const MUCH: usize = 2 << 20;

#[test]
fn an_interrupted_dial_writes_what_its_peer_knows_as_delivered() {
    let Some(lab) = Lab::with("an_interrupted_dial_writes_what_its_peer", &["python3", "bash", "mkfifo"])
    else {
        return;
    };
    let sends = format!(
        "
import fcntl, socket, termios, time
s = socket.create_server(('', 7000))
print('ready', flush=True)
c = s.accept()[0]
c.sendall(bytes({MUCH}))
while any(fcntl.ioctl(c, termios.TIOCOUTQ, bytes(4))): time.sleep(0.01)
print('acknowledged', flush=True)
try:
    while True: c.send(b'more'); time.sleep(0.01)
except OSError as error: print('error', error.errno, flush=True)"
    );
    let sending = lab.shared("alpha", &["python3", "-c", &sends]);
    sending.wait_for_stdout("ready");
    let _kept = lab.keep("beta");
    let fifo = lab.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("it is installed");
    assert!(made.success());
    let dial = lab.as_member("beta", &["dial", "--receive-only", "alpha:7000"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec \"$@\" >\"$FIFO\"", "bash"]).env("FIFO", &fifo);
    shell.arg(dial.get_program()).args(dial.get_args());
    let dialing = Running::start(shell);
    let mut output = fs::File::open(&fifo).expect("the shell writes to it");
    sending.wait_for_stdout("acknowledged");
    signal(Signal::INT, dialing.id());
    dialing.wait_for_stderr("writing what has arrived");
    let mut received = Vec::new();
    output.read_to_end(&mut received).expect("a pipe");
    assert!(received.len() >= MUCH, "{} of {MUCH} bytes", received.len());
    dialing.wait_for_end().failure(130, &[]);
    sending.wait_for_stdout("error ");
}

/// A client for which there is no descriptor waits for one.
#[test]
fn a_listener_outlasts_a_lack_of_descriptors() {
    let Some(lab) = Lab::with("a_listener_outlasts_a_lack_of_descriptors", &[]) else { return };
    let kept = lab.keep("alpha");
    let listening = lab.listen("alpha", &["-vv", "-k", "--receive-only", "7000"]);
    let process = Pid::from_raw(listening.id().cast_signed());
    let limit = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(process, Resource::Nofile, Rlimit { current: Some(current), maximum }).expect("our child")
    };
    // The first three are in use. A lower limit would also refuse poll(2).
    let before = limit(3);
    // The call that waits has reserved a descriptor, so only the next client finds none.
    let first = lab.dial("beta", &["alpha:7000"]);
    listening.wait_for_stderr("a client was not accepted");
    let mut dialing = lab.dial("gamma", &["alpha:7000"]);
    dialing.send(b"afterwards\n");
    limit(before.current.unwrap_or(1024));
    listening.wait_for_stdout("afterwards\n");
    dialing.finish().success();
    drop((first, kept));
}

#[test]
fn a_command_has_as_many_descriptors_as_it_may() {
    let Some(lab) = Lab::with("a_command_has_as_many_descriptors_as_it_may", &["prlimit"]) else { return };
    let kept = lab.keep("alpha");
    let listen = lab.as_member("alpha", &["listen", "-k", "7000"]);
    let listening = Running::start(behind(&["prlimit", "--nofile=64:"], &listen));
    listening.wait_for_stderr("connect with: ");
    let limits = fs::read_to_string(format!("/proc/{}/limits", listening.id())).expect("it runs");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let [soft, hard] = [0, 1].map(|at| limit.split_whitespace().nth(at).expect("two limits"));
    assert_eq!(soft, hard, "{limit}");
    drop(kept);
}

#[test]
fn lines_are_datagrams() {
    let Some(lab) = Lab::with("lines_are_datagrams", &["python3"]) else { return };
    let _kept = lab.keep("beta");
    let _serving = lab.echo("alpha", "7001");
    let mut listening = lab.listen("alpha", &["--udp", "-w", "1", "7000"]);
    let mut dialing = lab.dial("beta", &["--udp", "-w", "1", "alpha:7000"]);
    // The listener takes no other address.
    let target = listening.said();
    assert!(target.contains("alpha:7000"), "{target}");
    dialing.send(b"one\ntwo\n");
    listening.wait_for_stdout("two\n");
    listening.send(b"three\n");
    dialing.wait_for_stdout("three\n");
    assert_eq!(listening.finish().success().text(), "one\ntwo\n");
    assert_eq!(dialing.finish().success().text(), "three\n");
    let refused = lab.dial("beta", &["--udp", "-w", "1000", "alpha:7009"]);
    let mut refused = refused;
    refused.send(b"to nobody\n");
    refused.wait_for_end().failure(1, &["nothing listens on that UDP port"]);
}

/// Writes to a peer that reads nothing, until its own output fails: the peer gets no end that looks regular.
#[test]
fn what_a_failing_dial_has_sent_ends_with_a_reset() {
    let Some(lab) = Lab::with("what_a_failing_dial_has_sent_ends", &["python3", "bash"]) else { return };
    let reads_late = "
import socket, sys
s = socket.create_server(('', 7000))
print('ready', flush=True)
c = s.accept()[0]
sys.stdin.readline()
c.sendall(b'answer')
sys.stdin.readline()
try:
    while c.recv(65536): pass
    print('end', flush=True)
except OSError as error: print('lost', error.errno, flush=True)";
    let mut serving = lab.shared("alpha", &["python3", "-c", reads_late]);
    serving.wait_for_stdout("ready");
    let _kept = lab.keep("beta");
    let dial = lab.as_member("beta", &["dial", "alpha:7000"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec \"$@\" </dev/zero >/dev/full", "bash"]);
    shell.arg(dial.get_program()).args(dial.get_args());
    let dialing = Running::start(shell);
    // By then, nothing more fits.
    thread::sleep(Duration::from_secs(1));
    serving.send(b"\n");
    dialing.wait_for_end().failure(1, &["No space left"]);
    serving.send(b"\n");
    serving.wait_for_stdout("lost 104");
}

#[test]
fn a_port_belongs_to_one_program_of_a_node() {
    let Some(lab) = Lab::with("a_port_belongs_to_one_program", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let taken = run(lab.as_member("alpha", &["listen", "7000"]));
    taken.failure(1, &["cannot listen on", "choose another port"]);
    let foreign = run(lab.as_member("alpha", &["listen", "--bind", "10.77.0.9", "7001"]));
    foreign.failure(2, &["10.77.0.9 is not an address of this node; it has "]);
    // Many clients; a client that vanishes is given up.
    let mut listening = lab.listen("alpha", &["-k", "--peer-timeout", "3", "7001"]);
    let mut first = lab.dial("beta", &["alpha:7001"]);
    first.talk_to(&mut listening, "first", "answer");
    // Its node must not answer for it.
    let second = lab.as_member("gamma", &["dial", "--own-node", "alpha:7001"]);
    let mut second = Running::start(second);
    second.send(b"second\n");
    listening.wait_for_stdout("second\n");
    vanish(Signal::STOP, second.id());
    listening.wait_for_stderr("does not answer any more");
    vanish(Signal::KILL, second.id());
    first.finish().success();
    listening.interrupt().failure(130, &[]);
    drop(serving);
}
