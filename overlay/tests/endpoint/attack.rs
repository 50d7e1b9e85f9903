//! An adversary with keys beside two honest nodes, and an account of the traffic to the addresses it forges.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{Identity, Path, RecvMeta, SocketIndex};
use peersock_testnet::{Adversary, Credit, Heard, Random};

use crate::net::{Net, UNIX_TIME, open_network};

/// The attack: node 0 is the target, and node 1 is its friend, with which it has a session. The adversary is
/// a member like them.
pub(crate) struct Attack {
    pub(crate) net: Net,
    pub(crate) adversary: Adversary,
    /// Messages that the adversary has received at home.
    pub(crate) heard: Vec<Heard>,
    credit: Credit,
    seen: usize,
}

/// Target's knowledge of the way to its friend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    path: Option<Path>,
    receive_limit: usize,
}

impl Attack {
    pub(crate) fn new() -> Self {
        let mut net = Net::connected_pair();
        // By then the search for the datagram size is over.
        net.run(Duration::from_secs(5));
        let target = *Identity::from_seed(&[1; 32]).public();
        let own = Arc::new(Identity::from_seed(&[66; 32]));
        let adversary = Adversary::new(own, &open_network(), target, UNIX_TIME, Random::from_seed(1));
        let seen = net.sent.len();
        Self { net, adversary, heard: Vec::new(), credit: Credit::default(), seen }
    }

    /// Creates the same with a session between the adversary and the target.
    pub(crate) fn with_session() -> Self {
        let mut attack = Self::new();
        let initiation = attack.adversary.initiate(attack.net.now);
        attack.send(home(), &initiation);
        assert_eq!(attack.adversary.sessions(), 1);
        attack.send_sealed(home(), &KEEPALIVE);
        attack.run(Duration::from_secs(2));
        attack
    }

    /// Delivers a datagram to the target from an address; all but [`home`] are forged.
    pub(crate) fn send(&mut self, from: SocketAddr, datagram: &[u8]) {
        let friend = self.net.nodes[1].socket;
        if from != home() && from != friend {
            self.credit.forge(from, datagram.len());
        }
        let meta = RecvMeta { remote: from, socket: SocketIndex(0), multicast: false, relay: None };
        self.net.deliver(0, meta, datagram);
        self.net.pump();
        self.account();
    }

    /// Delivers a plaintext in the same way, on the adversary's session.
    pub(crate) fn send_sealed(&mut self, from: SocketAddr, plaintext: &[u8]) {
        let datagram = self.adversary.seal(plaintext).expect("a session");
        self.send(from, &datagram);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.net.run(time);
        self.account();
    }

    /// Delivers the target's answers to the adversary, and records the traffic to victims.
    #[track_caller]
    fn account(&mut self) {
        let target = self.net.nodes[0].socket;
        for sent in &self.net.sent[self.seen..] {
            if sent.to == home() {
                self.heard.push(self.adversary.hear(&sent.bytes));
            } else if sent.from == target
                && let Err(overdrawn) = self.credit.spend(sent.to, sent.bytes.len())
            {
                panic!("{overdrawn}");
            }
        }
        self.seen = self.net.sent.len();
    }

    /// Returns the number of datagrams that victims got.
    pub(crate) fn answers(&self) -> usize {
        self.credit.answers()
    }

    /// Returns the target's path to the adversary.
    pub(crate) fn path(&self) -> Option<SocketAddr> {
        let peers = self.net.nodes[0].endpoint.peers();
        let own = self.adversary.id();
        Some(peers.into_iter().find(|info| info.peer.id() == own)?.peer.path()?.remote())
    }

    pub(crate) fn standing(&mut self) -> Standing {
        let friend = self.net.peer(0, 1);
        Standing { path: friend.path(), receive_limit: friend.receive_limit() }
    }

    /// Checks that the target and its friend can still talk.
    #[track_caller]
    pub(crate) fn expect_unharmed(&mut self, before: Standing) {
        assert_eq!(self.standing(), before);
        for (from, to) in [(0, 1), (1, 0)] {
            self.net.nodes[to].inbox.clear();
            self.net.send(from, to, b"still here");
            self.net.run(Duration::from_millis(10));
            assert_eq!(self.net.received(to), [b"still here".to_vec()]);
        }
    }
}

/// Returns the address where the adversary receives.
pub(crate) fn home() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 66], 6666))
}

/// Returns the address of an uninvolved third party, which never receives anything.
pub(crate) fn victim() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], 9))
}

/// Plaintext of a keepalive as nodes send it.
pub(crate) const KEEPALIVE: [u8; 10] = [0; 10];
