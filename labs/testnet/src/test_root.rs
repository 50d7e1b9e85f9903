use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::PublicIdentity;
use peersock_root::Source;

use crate::{FakeRoot, Lies, RealRoot};

/// A root of a test network: one that serves nodes, or one that lies to them.
///
/// ```
/// use peersock_overlay::Identity;
/// use peersock_testnet::{Random, RealRoot, TestRoot};
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let identity = Identity::from_seed(&[9; 32]);
/// let mut root = TestRoot::from(RealRoot::new(identity, now, Duration::ZERO, Random::from_seed(1)));
/// let from = "192.0.2.1:4000".parse().unwrap();
/// assert!(root.handle(now, from, b"not a message").is_empty());
/// ```
pub enum TestRoot {
    /// Serves with the default limits and budgets.
    Real(Box<RealRoot>),
    /// Has no limits, and lies on request.
    Fake(Box<FakeRoot>),
}

impl TestRoot {
    /// Returns the root's public keys.
    pub fn identity(&self) -> &PublicIdentity {
        match self {
            Self::Real(root) => root.root().identity(),
            Self::Fake(root) => root.identity(),
        }
    }

    /// Handles a datagram. Returns the answers and the relayed datagrams.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        match self {
            Self::Real(root) => root.handle(now, from, datagram),
            Self::Fake(root) => root.handle(now, from, datagram),
        }
    }

    /// Handles a datagram that may come by a stream. The results may go by a stream, too. A fake root
    /// supports only UDP.
    pub fn hear(&mut self, now: Instant, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        match self {
            Self::Real(root) => root.hear(now, from, datagram),
            Self::Fake(root) => by_udp(root.handle(now, from.remote(), datagram)),
        }
    }

    /// Tells the root that a stream has ended.
    pub fn lose(&mut self, source: Source) {
        if let Self::Real(root) = self {
            root.lose(source);
        }
    }

    /// Does [`Self::handle_timeout`], and returns the datagrams with their sockets or streams.
    pub fn pass_time(&mut self, now: Instant) -> Vec<(Source, Vec<u8>)> {
        match self {
            Self::Real(root) => root.pass_time(now),
            Self::Fake(_) => Vec::new(),
        }
    }

    /// Returns the time of the next [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Real(root) => root.root().poll_timeout(),
            Self::Fake(_) => None,
        }
    }

    /// Does the work that is due, and returns the resulting datagrams.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        match self {
            Self::Real(root) => root.handle_timeout(now),
            Self::Fake(_) => Vec::new(),
        }
    }

    /// Forgets everything but the keys.
    pub fn restart(&mut self, now: Instant) {
        match self {
            Self::Real(root) => root.restart(now),
            Self::Fake(root) => root.restart(),
        }
    }

    /// Returns the number of relayed datagrams, and their bytes without the relay header.
    pub fn relayed(&self) -> (u64, u64) {
        match self {
            Self::Real(root) => root.relayed(),
            Self::Fake(root) => (root.relayed.0 as u64, root.relayed.1 as u64),
        }
    }

    /// Returns the number of look-ups received since the start.
    pub fn look_ups(&self) -> u64 {
        match self {
            Self::Real(root) => root.root().counters().look_ups.get(),
            Self::Fake(root) => root.look_ups as u64,
        }
    }

    /// Returns the root's lies, for changes.
    ///
    /// # Panics
    /// The root is the real one, which does not lie.
    pub fn lies(&mut self) -> &mut Lies {
        &mut self.fake().lies
    }

    /// Returns the fake root.
    ///
    /// # Panics
    /// The root is the real one.
    pub fn fake(&mut self) -> &mut FakeRoot {
        match self {
            Self::Real(_) => panic!("the real root does not lie"),
            Self::Fake(root) => root,
        }
    }

    /// Returns the real root.
    ///
    /// # Panics
    /// The root is a fake one.
    pub fn real(&self) -> &RealRoot {
        match self {
            Self::Real(root) => root,
            Self::Fake(_) => panic!("this root lies"),
        }
    }
}

fn by_udp(sent: Vec<(SocketAddr, Vec<u8>)>) -> Vec<(Source, Vec<u8>)> {
    sent.into_iter().map(|(remote, datagram)| (Source::Udp { socket: 0, remote }, datagram)).collect()
}

impl From<RealRoot> for TestRoot {
    fn from(root: RealRoot) -> Self {
        Self::Real(Box::new(root))
    }
}

impl From<FakeRoot> for TestRoot {
    fn from(root: FakeRoot) -> Self {
        Self::Fake(Box::new(root))
    }
}
