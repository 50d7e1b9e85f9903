//! A peer that restarts while connections to it are idle. Its earlier process is stopped, so that only the
//! new instance reveals the restart. Tests of several crates include this file, beside `process`.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{Ping, TcpListener};
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed};
use rustix::process::Signal;

use super::process::{self, Process};

/// Promised time until waiters on the earlier instance get an error, once the new instance is reached.
pub(crate) const PROMISED: Duration = Duration::from_secs(1);

/// Timeout longer than anything takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A peer that accepts one connection, sends a byte, and is silent.
pub(crate) struct Peer<'a> {
    test: &'a str,
    network: &'a str,
    process: Process,
}

impl<'a> Peer<'a> {
    /// Starts the peer. `test` is the test that calls [`be_one`].
    pub(crate) fn start(test: &'a str, network: &'a str) -> Peer<'a> {
        Peer { test, network, process: Process::start(test, network) }
    }

    /// Returns the address on which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// Kills the peer.
    #[allow(dead_code, reason = "not all who include this do so")]
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops the peer and starts it again. Returns the new process, and the time at which the witness
    /// answered it. From then on the witness knows the new instance.
    pub(crate) fn restart(&self, witness: IpAddr) -> (Process, Instant) {
        self.process.signal(Signal::STOP);
        let again = Process::start(self.test, &format!("{} {witness}", self.network));
        (again, Instant::now())
    }
}

/// Acts as the peer if this is its process, else does nothing.
pub(crate) fn be_one() {
    let Some(order) = process::order() else { return };
    let (network, witness) = order.split_once(' ').map_or((&*order, None), |(id, at)| (id, Some(at)));
    let builder = Node::builder().identity(IdentitySource::Seed(Seed([0x5e; 32])));
    let node = builder.interfaces(Interfaces::Loopback).start().expect("a node");
    let joined = node.join(Network::ad_hoc(network.parse().expect("a network ID"))).expect("joined");
    match witness {
        None => serve_one(&node, &joined),
        Some(witness) => ask(&node, witness.parse().expect("an address")),
    }
    // The parent ends this process.
    thread::sleep(2 * TEST_TIMEOUT);
}

fn serve_one(node: &Node, joined: &Joined) {
    let listener = TcpListener::bind_on(node, (joined.address(), 0)).expect("a port");
    process::say(listener.local_addr().expect("an address"));
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.write_all(b"x").expect("room");
    thread::sleep(2 * TEST_TIMEOUT);
}

/// Pings the witness until it answers. An answer may go to the earlier instance while that exists.
fn ask(node: &Node, witness: IpAddr) {
    let ping = Ping::open_on(node, witness).expect("a socket");
    let deadline = Instant::now() + TEST_TIMEOUT;
    let mut sequence = 0;
    while ping.ping(sequence, b"", Duration::from_millis(100)).is_err() {
        assert!(Instant::now() < deadline, "no answer from {witness}");
        sequence += 1;
    }
    process::say(SocketAddr::new(witness, 0));
}
