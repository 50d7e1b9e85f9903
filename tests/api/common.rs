//! Nodes for tests: ephemeral identities, the loopback interface only, and a network that no other test has.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use peersock::{IdentitySource, Interfaces, Joined, Network, NetworkId, Node};

/// Longer than anything takes; tests do not depend on speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An ad-hoc network with a random port range that includes 1000 to 2000.
pub(crate) fn network() -> NetworkId {
    let random = RandomState::new().hash_one(());
    let first = random % 1000;
    let last = 2000 + (random >> 16) % 60_000;
    format!("ff{first:04x}{last:04x}000000").parse().expect("an ad-hoc network ID")
}

pub(crate) fn node() -> Node {
    Node::builder()
        .identity(IdentitySource::Ephemeral)
        .interfaces(Interfaces::Loopback)
        .start()
        .expect("a node starts on the loopback interface")
}

/// A node that has joined `network`.
pub(crate) fn member(network: NetworkId) -> (Node, Joined) {
    let node = node();
    let joined = node.join(Network::ad_hoc(network)).expect("the network is joined");
    (node, joined)
}

/// Two nodes on one network.
pub(crate) fn pair() -> [(Node, Joined); 2] {
    let network = network();
    [member(network), member(network)]
}

/// `len` bytes that differ from place to place and from `seed` to `seed`.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| step()).collect()
}
