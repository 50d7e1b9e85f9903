//! Tests of the root as its clients see it: real handshakes and sessions, in virtual time.

mod draining;
mod handshake;
mod lookup;
mod nicknames;
mod node;
mod reflection;
mod registration;
mod relay;
mod roaming;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::Node;
use peersock_overlay::Identity;

use crate::{Config, Root, Source};

const SECOND: Duration = Duration::from_secs(1);

/// Returns an arbitrary point in time, because the core takes time as an argument.
#[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
fn instant() -> Instant {
    Instant::now()
}

fn udp(address: &str) -> Source {
    Source::Udp { socket: 0, remote: address.parse().expect("an address") }
}

/// Returns a different source for each number.
fn source(number: u32) -> Source {
    let [.., a, b, c] = number.to_be_bytes();
    Source::Udp { socket: 0, remote: SocketAddr::from(([10, a, b, c], 4000)) }
}

fn config() -> Config {
    Config::new(Arc::new(Identity::from_seed(&[200; 32])))
}

/// Root with the current time.
struct World {
    root: Root,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let now = instant();
        Self { root: Root::new(config, &[9; 32], now, Duration::from_secs(1_800_000_000)), now }
    }

    /// Hands in one datagram and returns the resulting ones.
    fn send(&mut self, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.root.handle_datagram(self.now, from, datagram);
        self.drain()
    }

    fn drain(&mut self) -> Vec<(Source, Vec<u8>)> {
        let mut out = Vec::new();
        let transmits = std::iter::from_fn(|| Some((self.root.poll_transmit(&mut out)?, out.clone())));
        transmits.collect()
    }

    /// Advances time, and runs the root's timers.
    fn pass(&mut self, time: Duration) -> Vec<(Source, Vec<u8>)> {
        let end = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.root.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.root.handle_timeout(self.now);
            sent.extend(self.drain());
        }
        self.now = end;
        sent
    }

    /// Returns a node with a session.
    fn connected(&mut self, seed: u8, from: Source) -> Node {
        let mut node = Node::new(seed, from);
        node.connect(self);
        node
    }

    /// Returns a registered node.
    fn registered(&mut self, seed: u8, from: Source) -> Node {
        let mut node = self.connected(seed, from);
        node.register(self, 600);
        node
    }
}
