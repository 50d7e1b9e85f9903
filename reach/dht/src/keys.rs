//! The keys of stored items, derived from a network's meeting key, the nodes, and the hour.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use blake2::Blake2sMac;
use blake2::digest::consts::U32;
use blake2::digest::{FixedOutput, KeyInit, Update};
use ed25519_dalek::{Signer, SigningKey};
use peersock_overlay::{BlindedKey, DiscoveryKey, Identity, NodeId, PublicIdentity};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Lifetime of one set of keys.
pub const EPOCH: Duration = Duration::from_secs(3600);

/// Largest difference between the clocks of two nodes.
pub const SKEW: Duration = Duration::from_secs(300);

/// The first ten bytes of a node ID, which are the end of the node's self-certifying addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeTail(pub(crate) [u8; 10]);

impl NodeTail {
    /// Returns the tail of a node's addresses.
    pub fn of(node: &NodeId) -> Self {
        Self(*node.as_bytes().first_chunk().expect("a node ID has 32 bytes"))
    }

    /// Returns the tail of an address. It is meaningful only for a self-certifying address.
    pub fn of_address(address: &Ipv6Addr) -> Self {
        Self(*address.octets().last_chunk().expect("an address has 16 bytes"))
    }
}

/// The number of an hour, counted for each node from a different second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Returns the number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A location in the DHT, with what is stored there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// A node's record, found by its address. Every member can write there.
    Open(NodeTail),
    /// The same record, found by its identity. Only the node can write there.
    Own(PublicIdentity),
    /// A slot of a node's mailbox. Every member can write there.
    Slot {
        /// The owner of the mailbox.
        owner: NodeTail,
        /// The number of the slot, from 0.
        index: u8,
    },
    /// Knocks of one node at another. Only the knocking node can write there.
    Pair {
        /// The node that knocks.
        writer: PublicIdentity,
        /// The node that reads the knocks.
        reader: NodeTail,
    },
}

impl Location {
    /// Returns the node whose epochs apply there; for mailboxes and knocks, the reader.
    pub fn owner(&self) -> NodeTail {
        match self {
            Self::Open(owner) | Self::Slot { owner, .. } | Self::Pair { reader: owner, .. } => *owner,
            Self::Own(node) => NodeTail::of(&node.node_id()),
        }
    }
}

/// All keys of one network. They are erased on drop and never printed.
///
/// ```
/// use std::time::Duration;
/// use peersock_dht::{Location, MeetingKeys, NodeTail};
/// use peersock_overlay::{DiscoveryKey, Identity, NetworkId};
///
/// let keys = MeetingKeys::new(&DiscoveryKey::new(NetworkId::ad_hoc(80..=80)?, None, None));
/// let node = Identity::from_seed(&[1; 32]);
/// let own = Location::Own(*node.public());
/// let epoch = keys.epoch(&own.owner(), Duration::from_secs(1_700_000_000));
/// let signer = keys.signer(&own, epoch, &node).expect("the node's own");
/// assert_eq!(signer.public(), keys.public(&own, epoch));
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MeetingKeys {
    meeting: [u8; 32],
}

impl MeetingKeys {
    /// Derives the keys of the network with that discovery key.
    pub fn new(key: &DiscoveryKey) -> Self {
        Self { meeting: *key.meeting_key() }
    }

    /// Returns the node's epoch at `unix`, the time since the Unix epoch.
    pub fn epoch(&self, node: &NodeTail, unix: Duration) -> Epoch {
        // Each node changes its keys at a different second, so that no wave of changes reveals the members of
        // one network.
        let phase = self.derive(b"peersock dht phase v1", &[&node.0]);
        let phase = u32::from_be_bytes(*phase.first_chunk().expect("32 bytes"));
        let phase = u64::from(phase) % EPOCH.as_secs();
        Epoch(unix.as_secs().saturating_add(phase) / EPOCH.as_secs())
    }

    /// Returns the epochs that a clock within [`SKEW`] of `unix` can be in: one or two.
    pub fn epochs(&self, node: &NodeTail, unix: Duration) -> impl Iterator<Item = Epoch> + use<> {
        let first = self.epoch(node, unix.saturating_sub(SKEW)).0;
        let last = self.epoch(node, unix.saturating_add(SKEW)).0;
        (first..=last).map(Epoch)
    }

    /// Returns the public key under which the DHT stores the item of that location in that epoch.
    pub fn public(&self, location: &Location, epoch: Epoch) -> [u8; 32] {
        let derived = self.location(location, epoch);
        match location {
            Location::Open(_) | Location::Slot { .. } => {
                SigningKey::from_bytes(&derived).verifying_key().to_bytes()
            }
            Location::Own(node) => node.blinded(&derived),
            Location::Pair { writer, .. } => writer.blinded(&derived),
        }
    }

    /// Returns the signer for that location, or `None` if only another node can sign there.
    pub fn signer(&self, location: &Location, epoch: Epoch, own: &Identity) -> Option<ItemSigner> {
        let derived = self.location(location, epoch);
        match location {
            Location::Open(_) | Location::Slot { .. } => {
                Some(ItemSigner::Member(SigningKey::from_bytes(&derived)))
            }
            Location::Own(node) | Location::Pair { writer: node, .. } => {
                (node == own.public()).then(|| ItemSigner::Owner(own.blinded(&derived)))
            }
        }
    }

    /// Returns the key that seals items for or about the node in that epoch.
    pub(crate) fn seal_key(&self, node: &NodeTail, epoch: Epoch) -> Zeroizing<[u8; 32]> {
        self.derive(b"peersock dht seal v1", &[&node.0, &epoch.0.to_be_bytes()])
    }

    /// Returns bytes that enter every signature, so that none is valid in another network.
    pub(crate) fn binding(&self) -> [u8; 32] {
        *self.derive(b"peersock dht binding v1", &[])
    }

    /// Returns the slot that a writer uses at the given attempt.
    pub(crate) fn slot(&self, writer: &NodeId, owner: &NodeTail, attempt: u8, slots: u8) -> u8 {
        let hash = self.derive(b"peersock dht slot choice v1", &[writer.as_bytes(), &owner.0]);
        ((u32::from(hash[0]) + u32::from(attempt)) % u32::from(slots.max(1))) as u8
    }

    fn location(&self, location: &Location, epoch: Epoch) -> Zeroizing<[u8; 32]> {
        let epoch = epoch.0.to_be_bytes();
        match location {
            Location::Open(tail) => self.derive(b"peersock dht open v1", &[&tail.0, &epoch]),
            Location::Own(node) => self.derive(b"peersock dht own v1", &[node.node_id().as_bytes(), &epoch]),
            Location::Slot { owner, index } => {
                self.derive(b"peersock dht slot v1", &[&owner.0, &epoch, &[*index]])
            }
            Location::Pair { writer, reader } => {
                self.derive(b"peersock dht pair v1", &[writer.node_id().as_bytes(), &reader.0, &epoch])
            }
        }
    }

    fn derive(&self, label: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(keyed(&self.meeting, label, parts))
    }
}

impl fmt::Debug for MeetingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeetingKeys([redacted])")
    }
}

/// The signer of an item of the DHT. Its secrets are erased on drop and never printed.
#[derive(Debug)]
pub enum ItemSigner {
    /// A key that every member can derive.
    Member(SigningKey),
    /// A key that only the node has.
    Owner(BlindedKey),
}

impl ItemSigner {
    /// Returns the public key, which determines the item's place in the DHT.
    pub fn public(&self) -> [u8; 32] {
        match self {
            Self::Member(key) => key.verifying_key().to_bytes(),
            Self::Owner(key) => *key.public(),
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::Member(key) => key.sign(message).to_bytes(),
            Self::Owner(key) => key.sign(message),
        }
    }
}

/// Computes keyed BLAKE2s with 32 bytes of output over a label and the given parts.
pub(crate) fn keyed(key: &[u8; 32], label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2sMac::<U32>::new(key.into());
    state.update(label);
    for part in parts {
        state.update(part);
    }
    state.finalize_fixed().into()
}

#[cfg(test)]
mod tests {
    use peersock_overlay::{NetworkId, Psk};

    use super::*;

    fn keys(psk: u8) -> MeetingKeys {
        let network = NetworkId::ad_hoc(80..=80).expect("a port range");
        MeetingKeys::new(&DiscoveryKey::new(network, Some(&Psk::new([psk; 32])), None))
    }

    fn node(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    #[test]
    fn every_input_gives_another_key() {
        let (a, b) = (node(1), node(2));
        let locations = [
            Location::Open(NodeTail::of(&a.node_id())),
            Location::Open(NodeTail::of(&b.node_id())),
            Location::Own(*a.public()),
            Location::Own(*b.public()),
            Location::Slot { owner: NodeTail::of(&a.node_id()), index: 0 },
            Location::Slot { owner: NodeTail::of(&a.node_id()), index: 1 },
            Location::Slot { owner: NodeTail::of(&b.node_id()), index: 0 },
            Location::Pair { writer: *a.public(), reader: NodeTail::of(&b.node_id()) },
            Location::Pair { writer: *b.public(), reader: NodeTail::of(&a.node_id()) },
        ];
        let mut seen = Vec::new();
        for psk in [1, 2] {
            for epoch in [Epoch(1), Epoch(2)] {
                seen.extend(locations.iter().map(|location| keys(psk).public(location, epoch)));
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn nobody_signs_where_only_another_may() {
        let (a, b) = (node(1), node(2));
        let pair = Location::Pair { writer: *a.public(), reader: NodeTail::of(&b.node_id()) };
        for location in [Location::Own(*a.public()), pair] {
            assert!(keys(1).signer(&location, Epoch(1), &b).is_none());
            let signer = keys(1).signer(&location, Epoch(1), &a).expect("its own");
            assert_eq!(signer.public(), keys(1).public(&location, Epoch(1)));
        }
    }

    #[test]
    fn epochs_of_clocks_within_the_skew_overlap() {
        let tail = NodeTail::of(&node(1).node_id());
        for second in (1_700_000_000..1_700_003_600).step_by(7) {
            let here = Duration::from_secs(second);
            let epochs: Vec<_> = keys(1).epochs(&tail, here).collect();
            for there in [here - SKEW, here, here + SKEW] {
                assert!(epochs.contains(&keys(1).epoch(&tail, there)), "at {second}");
            }
        }
    }

    #[test]
    fn nodes_change_epochs_at_different_seconds() {
        let start = Duration::from_secs(1_700_000_000);
        let change = |seed| {
            let tail = NodeTail::of(&node(seed).node_id());
            let keys = keys(1);
            (0..3600).find(|s| keys.epoch(&tail, start + Duration::from_secs(*s)) != keys.epoch(&tail, start))
        };
        assert_ne!(change(1), change(2));
    }

    #[test]
    fn an_extreme_clock_does_no_harm() {
        let tail = NodeTail::of(&node(1).node_id());
        for unix in [Duration::ZERO, Duration::MAX, Duration::from_secs(1)] {
            assert!((1..=2).contains(&keys(1).epochs(&tail, unix).count()));
        }
    }
}
