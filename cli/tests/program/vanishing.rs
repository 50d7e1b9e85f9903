//! A node that is killed on one of two machines, or whose machine fails: its peers notice.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cable::{Cable, ip};
use crate::common::{Lab, PATIENCE, PORT, Running, address_of, lacks, vanish};

/// Time limits while the machine still answers, and while it does not.
const ANSWERED: Duration = Duration::from_secs(2);
const SILENT: Duration = Duration::from_secs(30);

/// Number of tries, because a machine may pause.
const ATTEMPTS: usize = 3;

/// Idle time before a process is killed.
const IDLE: Duration = Duration::from_secs(4);

/// Program that accepts connections, and waits.
const SERVER: &str = "
import socket, sys, time
server = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6)
print('listens', flush=True)
connections = [server.accept()[0] for _ in range(int(sys.argv[2]))]
for connection in connections: connection.sendall(b'x')
time.sleep(1000)
";

/// Program that prints the error that ends its connection, and when it began to wait.
const CLIENT: &str = "
import errno, socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
if 'asks' in sys.argv:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (socket.TCP_KEEPIDLE, 9), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 9):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
assert connection.recv(1) == b'x'
print('ready', flush=True)
if 'sends' in sys.argv:
    sys.stdin.readline()
    connection.sendall(bytes(5000))
try: connection.recv(1)
except OSError as error: print(errno.errorcode[error.errno], flush=True)
else: print('an end', flush=True)
";

/// A connected pair of `dial` and `listen`: one is killed, and the other must notice.
struct Talk {
    victim: Running,
    witness: Running,
}

impl Talk {
    /// Starts a pair with the victim at the first end of the cable.
    fn begin(cable: &Cable, lab: &Lab, victim_listens: bool, name: &str) -> Talk {
        let (one, other) = if victim_listens { (0, 1) } else { (1, 0) };
        let [listening, dialing] = ["listener", "dialer"].map(|role| format!("{name}-{role}"));
        let listener = cable.inside(one, lab, &listening, &["listen", "0"]);
        let target = listener.wait_for_target();
        let patience = PATIENCE.as_secs().to_string();
        let mut dialer = cable.inside(other, lab, &dialing, &["dial", &target, "--timeout", &patience]);
        dialer.send(b"here\n");
        listener.wait_for_stdout("here\n");
        let (victim, witness) = if victim_listens { (listener, dialer) } else { (dialer, listener) };
        Talk { victim, witness }
    }
}

/// The kernel of the victim's machine sends each other machine at most one error per second, so each witness
/// has a separate machine.
#[test]
fn a_node_that_is_killed_on_another_machine_is_noticed_within_two_seconds() {
    for is_busy in [false, true] {
        thread::scope(|scope| {
            scope.spawn(move || is_noticed(|| kill_one_of_a_talk(true, is_busy)));
            scope.spawn(move || is_noticed(|| kill_one_of_a_talk(false, is_busy)));
            scope.spawn(move || is_noticed(|| kill_a_launcher(is_busy)));
        });
    }
}

/// Checks that one of the tries keeps the promise.
fn is_noticed(kill: impl Fn() -> Option<Duration>) {
    let took: Vec<_> = (0..ATTEMPTS).map_while(|_| kill().filter(|took| *took >= ANSWERED)).collect();
    assert!(took.len() < ATTEMPTS, "{took:?}");
}

/// Returns the time until the other one notices. `None` if the test cannot run here.
fn kill_one_of_a_talk(victim_listens: bool, is_busy: bool) -> Option<Duration> {
    let name = format!("k-{}{}", u8::from(victim_listens), u8::from(is_busy));
    let cable = Cable::lay(&name, &["10.98.7.1/24", "10.98.7.2/24"])?;
    let lab = Lab::new();
    let Talk { victim, mut witness } = Talk::begin(&cable, &lab, victim_listens, &name);
    thread::sleep(IDLE);
    vanish(Signal::KILL, victim.id());
    let killed = Instant::now();
    if is_busy {
        witness.send(b"to nobody\n");
    }
    witness.wait_for_end().failure(1, &["the connection broke: the peer has reset it"]);
    let took = killed.elapsed();
    eprintln!("{name}: {took:?}");
    Some(took)
}

fn kill_a_launcher(is_busy: bool) -> Option<Duration> {
    if lacks("a_node_that_is_killed_on_another_machine_is_noticed_within_two_seconds", &["python3"]) {
        return None;
    }
    let name = format!("k-run{}", u8::from(is_busy));
    let cable = Cable::lay(&name, &["10.98.7.1/24", "10.98.7.2/24"])?;
    let lab = Lab::new();
    let port = PORT.to_string();
    // Its node has to be killed with it.
    let own = &["--own-node"];
    let server = cable.run(0, &lab, "server", own, &["python3", "-c", SERVER, &port, "1"]);
    server.wait_for_stdout("listens");
    let address = address_of(&lab, "server");
    let how = if is_busy { "sends" } else { "waits" };
    let mut client = cable.run(1, &lab, "client", &[], &["python3", "-c", CLIENT, &address, &port, how]);
    client.wait_for_stdout("ready");
    thread::sleep(IDLE);
    vanish(Signal::KILL, server.id());
    let killed = Instant::now();
    client.send(b"\n");
    client.wait_for_stdout("ECONNRESET");
    let took = killed.elapsed();
    eprintln!("{name}: {took:?}");
    Some(took)
}

#[test]
fn a_machine_that_is_gone_is_noticed_within_thirty_seconds_by_those_who_ask_for_it() {
    let test = "a_machine_that_is_gone_is_noticed_within_thirty_seconds_by_those_who_ask_for_it";
    if lacks(test, &["python3"]) {
        return;
    }
    let Some(cable) = Cable::lay("gone", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let lab = Lab::new();
    let port = PORT.to_string();
    let server = cable.run(0, &lab, "server", &[], &["python3", "-c", SERVER, &port, "3"]);
    server.wait_for_stdout("listens");
    let address = address_of(&lab, "server");
    let client = |node, how: &[&str]| {
        let words = [&["python3", "-c", CLIENT, &address, &port], how].concat();
        cable.run(1, &lab, node, &[], &words)
    };
    let waits = client("waits", &["asks"]);
    let mut sends = client("sends", &["asks", "sends"]);
    let mut outlives = client("outlives", &["sends"]);
    let talks = [(true, false), (true, true), (false, false), (false, true)].map(|(listens, is_busy)| {
        (Talk::begin(&cable, &lab, listens, &format!("{listens}-{is_busy}")), is_busy)
    });
    for client in [&waits, &sends, &outlives] {
        client.wait_for_stdout("ready");
    }
    // The machine loses its power.
    assert!(ip(["-n", &cable.ends[0], "link", "set", "eth0", "down"]));
    let gone = Instant::now();
    vanish(Signal::KILL, server.id());
    sends.send(b"\n");
    outlives.send(b"\n");
    let mut witnesses = Vec::new();
    for (Talk { victim, mut witness }, is_busy) in talks {
        vanish(Signal::KILL, victim.id());
        if is_busy {
            witness.send(b"to nobody\n");
        }
        witnesses.push((witness, victim));
    }
    for (witness, _victim) in witnesses {
        witness.wait_for_end().failure(1, &["the connection broke: the peer does not answer any more"]);
        assert!(gone.elapsed() < SILENT, "{:?}", gone.elapsed());
    }
    for client in [waits, sends] {
        client.wait_for_stdout("ETIMEDOUT");
        assert!(gone.elapsed() < SILENT, "{:?}", gone.elapsed());
    }
    // As with kernel sockets, a connection without keepalives survives an outage.
    assert_eq!(outlives.received(), "ready\n".len());
}
