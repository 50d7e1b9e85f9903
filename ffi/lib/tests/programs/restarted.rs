//! A C program that waits for a peer, while the peer is started again.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::build::{Mode, Program};
use crate::delivery::network;
use crate::delivery::victim::process::{self, Process};

#[path = "../../../../tests/delivery/restarted.rs"]
mod peer;

use peer::{PROMISED, Peer};

/// Time limit on a responsive machine.
const KILLED: Duration = Duration::from_secs(2);

/// Time after which nothing is in flight any more.
const IDLE: Duration = Duration::from_secs(4);

#[test]
fn who_only_waits_for_a_peer_that_is_started_again_hears_of_it() {
    wait(|peer, own| {
        let (again, reached) = peer.restart(own);
        // It ends with the test.
        (Some(again), reached + PROMISED)
    });
}

#[test]
fn who_only_waits_for_a_peer_that_is_killed_hears_of_it() {
    wait(|peer, _| {
        thread::sleep(IDLE);
        peer.kill();
        (None, Instant::now() + KILLED)
    });
}

/// Makes a C program wait for a peer, which `end` ends. The program must learn of it by the time that `end`
/// returns.
fn wait(end: impl FnOnce(&mut Peer<'_>, IpAddr) -> (Option<Process>, Instant)) {
    let Some(program) = Program::new("waiter.c").build(Mode::Plain) else { return };
    let network = network();
    let mut peer = Peer::start("restarted::the_peer", &network);
    let (address, port) = (peer.address().ip().to_string(), peer.address().port().to_string());
    let mut command = Command::new(&program.path);
    command.args([&network, &address, &port]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut waiter = command.spawn().expect("the program was just built");
    let mut lines = BufReader::new(waiter.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let own: IpAddr = line().parse().expect("its address");
    let (_again, deadline) = end(&mut peer, own);
    assert_eq!(line(), "ECONNRESET");
    assert!(Instant::now() < deadline, "{:?} late", deadline.elapsed());
    drop(waiter.stdin.take());
    assert!(waiter.wait().expect("it is our child").success());
}

/// The other process. It does nothing unless requested.
#[test]
fn the_peer() {
    peer::be_one();
}
