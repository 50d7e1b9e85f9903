//! A cable that carries less than the smallest datagram: every command reports that within 15 s, and so do
//! programs under `peersock run`.
//!
//! Each test runs twice: with datagrams that cross the cable separately, and with batches that cross it as
//! one long packet. The second way also loses short datagrams of a batch.

use std::time::{Duration, Instant};

use crate::cable::Cable;
use crate::common::{Lab, PORT, address_of, lacks};

/// Promised time limit.
const ERROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum packet size in bytes that lets acknowledgments and keepalives pass.
const BYTES: usize = 150;

#[test]
fn dial_and_listen_say_that_the_cable_carries_too_little() {
    dial_and_listen("thin", true);
}

#[test]
fn dial_and_listen_say_it_where_datagrams_cross_the_cable_together() {
    dial_and_listen("thin-all", false);
}

fn dial_and_listen(name: &str, one_by_one: bool) {
    let Some(cable) = cable(name, one_by_one) else { return };
    let lab = Lab::new();
    let (listener, mut dialer) = cable.talk(&lab);
    dialer.send(b"over the cable");
    listener.wait_for_stdout("over the cable");
    cable.carries_at_most(BYTES);
    let began = Instant::now();
    dialer.send(&[b'x'; 5000]);
    let said = ["the path carries too little", "5000 bytes were not acknowledged", "246 bytes"];
    dialer.wait_for_end().failure(1, &said);
    assert!(began.elapsed() < ERROR_TIMEOUT, "{:?}", began.elapsed());
    listener.finish().failure(1, &["the peer has reset it"]);

    // Starts over with the narrow cable.
    let listener = cable.inside(0, &lab, "listener", &["listen", &PORT.to_string()]);
    let target = listener.wait_for_target();
    let dialer = cable.inside(1, &lab, "dialer", &["dial", &target]);
    let datagrams = cable.inside(1, &lab, "sender", &["dial", "--udp", &target]);
    let address = address_of(&lab, "listener");
    let ping = cable.inside(1, &lab, "pinger", &["ping", &address]);
    for command in [dialer, datagrams, ping] {
        command.finish().failure(1, &["answered in network", "within 15 s", "322 bytes"]);
    }
    listener.interrupt();
}

/// Datagrams are not acknowledged, so programs that wait for answers are told of each missing one.
#[test]
fn ping_and_datagrams_do_not_hang_on_a_cable_that_carries_too_little() {
    for (name, one_by_one) in [("ping-one", true), ("ping-all", false)] {
        let Some(cable) = cable(name, one_by_one) else { return };
        let lab = Lab::new();
        let listener = cable.inside(0, &lab, "listener", &["listen", "--udp", &PORT.to_string()]);
        let target = listener.wait_for_target();
        let address = address_of(&lab, "listener");
        let ping = cable.inside(1, &lab, "pinger", &["ping", "-W", "1", &address]);
        ping.wait_for_stdout("bytes from");
        let mut sender = cable.inside(1, &lab, "sender", &["dial", "--udp", &target]);
        sender.send(b"over the cable\n");
        listener.wait_for_stdout("over the cable\n");
        cable.carries_at_most(BYTES);
        let began = Instant::now();
        ping.wait_for_stdout("no reply to seq=");
        sender.send(&[b'x'; 5000]);
        let (sent, said) = (Instant::now(), ["the path carries too little", "246 bytes"]);
        sender.finish().failure(1, &said);
        assert!(sent.elapsed() < ERROR_TIMEOUT, "{:?}", sent.elapsed());
        ping.wait_for_end().failure(1, &said);
        assert!(began.elapsed() < ERROR_TIMEOUT, "{:?}", began.elapsed());
        listener.interrupt();
    }
}

const SERVER: &str = "
import errno, socket, sys
server = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6)
print('listens', flush=True)
connection = server.accept()[0]
connection.recv(5000, socket.MSG_WAITALL)
connection.sendall(b'x')
try: connection.recv(1)
except OSError as error: print(errno.errorcode[error.errno], flush=True)
";

const CLIENT: &str = "
import errno, socket, sys, time
def say(what, call):
    began = time.monotonic()
    try: call()
    except OSError as error: print(what, errno.errorcode[error.errno], time.monotonic() - began, flush=True)
    else: print(what, 'nothing', 0, flush=True)
to = sys.argv[1], int(sys.argv[2])
if sys.argv[3] == 'send':
    connection = socket.create_connection(to)
    connection.sendall(bytes(5000))
    assert connection.recv(1) == b'x'
    print('ready', flush=True)
    sys.stdin.readline()
    connection.sendall(bytes(5000))
    began = time.monotonic()
    say('recv', lambda: connection.recv(1))
    error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    print('so_error', errno.errorcode.get(error), time.monotonic() - began, flush=True)
else: say('connect', lambda: socket.create_connection(to))
";

#[test]
fn programs_are_told_that_the_cable_carries_too_little() {
    programs("run", true, "preload");
}

#[test]
fn programs_that_no_library_is_loaded_into_are_told_that_the_cable_carries_too_little() {
    programs("run-sec", true, "seccomp");
}

#[test]
fn programs_are_told_it_where_datagrams_cross_the_cable_together() {
    programs("run-all", false, "preload");
}

fn programs(name: &str, one_by_one: bool, mode: &str) {
    if lacks("programs_are_told_that_the_cable_carries_too_little", &["python3"]) {
        return;
    }
    let Some(cable) = cable(name, one_by_one) else { return };
    let lab = Lab::new();
    let port = PORT.to_string();
    let options = ["--mode", mode];
    let server = cable.run(0, &lab, "server", &options, &["python3", "-c", SERVER, &port]);
    server.wait_for_stdout("listens");
    let address = address_of(&lab, "server");
    let start =
        |node, what| cable.run(1, &lab, node, &options, &["python3", "-c", CLIENT, &address, &port, what]);
    let mut client = start("client", "send");
    client.wait_for_stdout("ready");
    cable.carries_at_most(BYTES);
    let newcomer = start("newcomer", "connect");
    client.send(b"\n");
    let told = |running: crate::common::Running, what: &str, errors: &[&str]| {
        let finished = running.finish();
        let said = finished.text().lines().find_map(|line| line.strip_prefix(what)).expect("a line");
        let (error, took) = said.trim().split_once(' ').expect("two words");
        assert!(errors.contains(&error), "{what}: {said}; {}", finished.stderr);
        assert!(took.parse::<f64>().expect("seconds") < ERROR_TIMEOUT.as_secs_f64(), "{what}: {said}");
        finished.stderr
    };
    // Without the library the kernel reports a reset, and SO_ERROR gives the reason.
    let by_call = if mode == "seccomp" { "so_error" } else { "recv" };
    told(client, by_call, &["EMSGSIZE"]);
    assert!(server.finish().text().ends_with("ECONNRESET\n"));
    let said = told(newcomer, "connect", &["EHOSTUNREACH", "ETIMEDOUT"]);
    assert!(said.contains("does not answer") && said.contains("IP packets of 322 bytes pass"), "{said}");
}

fn cable(name: &str, one_by_one: bool) -> Option<Cable> {
    let cable = Cable::with_filter(name)?;
    if one_by_one {
        cable.takes_datagrams_one_by_one();
    }
    Some(cable)
}
