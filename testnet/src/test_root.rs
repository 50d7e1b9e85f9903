use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::PublicIdentity;
use peersock_root::Source;

use crate::{FakeRoot, Lies, RealRoot};

/// A root of a test network: the one that serves nodes, or one that lies to them.
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
    /// Serves, with the limits and budgets that it has by default.
    Real(Box<RealRoot>),
    /// Has no limits, and lies if it is told to.
    Fake(Box<FakeRoot>),
}

impl TestRoot {
    /// Its keys.
    pub fn identity(&self) -> &PublicIdentity {
        match self {
            Self::Real(root) => root.root().identity(),
            Self::Fake(root) => root.identity(),
        }
    }

    /// Takes a datagram and gives those that it answers with or passes on.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        match self {
            Self::Real(root) => root.handle(now, from, datagram),
            Self::Fake(root) => root.handle(now, from, datagram),
        }
    }

    /// The same for a datagram that may come by a stream, as the answers may go by one. The one that lies
    /// knows UDP alone.
    pub fn hear(&mut self, now: Instant, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        match self {
            Self::Real(root) => root.hear(now, from, datagram),
            Self::Fake(root) => by_udp(root.handle(now, from.remote(), datagram)),
        }
    }

    /// A stream has ended.
    pub fn lose(&mut self, source: Source) {
        if let Self::Real(root) = self {
            root.lose(source);
        }
    }

    /// As [`Self::handle_timeout`], and says which datagrams go by streams.
    pub fn pass_time(&mut self, now: Instant) -> Vec<(Source, Vec<u8>)> {
        match self {
            Self::Real(root) => root.pass_time(now),
            Self::Fake(_) => Vec::new(),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Real(root) => root.root().poll_timeout(),
            Self::Fake(_) => None,
        }
    }

    /// Does what is due, and gives what it sends.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        match self {
            Self::Real(root) => root.handle_timeout(now),
            Self::Fake(_) => Vec::new(),
        }
    }

    /// Forgets everything but its keys.
    pub fn restart(&mut self, now: Instant) {
        match self {
            Self::Real(root) => root.restart(now),
            Self::Fake(root) => root.restart(),
        }
    }

    /// How many datagrams it has relayed, and their bytes without the header of the relay.
    pub fn relayed(&self) -> (u64, u64) {
        match self {
            Self::Real(root) => root.relayed(),
            Self::Fake(root) => (root.relayed.0 as u64, root.relayed.1 as u64),
        }
    }

    /// Look-ups that came in since its start.
    pub fn look_ups(&self) -> u64 {
        match self {
            Self::Real(root) => root.root().counters().look_ups.get(),
            Self::Fake(root) => root.look_ups as u64,
        }
    }

    /// How it lies.
    ///
    /// # Panics
    /// It is the real one, which does not.
    pub fn lies(&mut self) -> &mut Lies {
        &mut self.fake().lies
    }

    /// The one that lies.
    ///
    /// # Panics
    /// It is the real one.
    pub fn fake(&mut self) -> &mut FakeRoot {
        match self {
            Self::Real(_) => panic!("the real root does not lie"),
            Self::Fake(root) => root,
        }
    }

    /// The one that serves.
    ///
    /// # Panics
    /// It is one that lies.
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
