use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{NetworkId, NodeId, Psk};
use crate::crypto::hash;

const LABEL: &[u8] = b"peersock discovery v1";
const MEMBERS_LABEL: &[u8] = b"peersock members v1";
const BEACON_LABEL: &[u8] = b"peersock beacon v1";
const HELLO_LABEL: &[u8] = b"peersock hello v1";
const MEETING_LABEL: &[u8] = b"peersock meeting v1";

/// Secret that the members of one network share for finding each other on a local network.
///
/// On an open network any node that knows the ID can derive it; a pre-shared key or a member list limits it
/// to nodes that have those. It proves membership to no node. It only distinguishes a network's beacons and
/// hellos from others, and hides the identities in hellos. Erased on drop, never printed.
///
/// ```
/// use peersock_overlay::{DiscoveryKey, NetworkId, Psk};
///
/// let network = NetworkId::ad_hoc(80..=80)?;
/// let open = DiscoveryKey::new(network, None, None);
/// let secret = DiscoveryKey::new(network, Some(&Psk::new([1; 32])), None);
/// assert_ne!(open.beacon_tag(&[0; 16]), secret.beacon_tag(&[0; 16]));
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DiscoveryKey {
    beacon: [u8; 32],
    hello: [u8; 32],
    meeting: [u8; 32],
}

impl DiscoveryKey {
    /// Derives the key of `network` with its pre-shared key and, for a static network, its members in any
    /// order.
    pub fn new(network: NetworkId, psk: Option<&Psk>, members: Option<&[NodeId]>) -> Self {
        let open = Psk::open();
        let psk = psk.unwrap_or(&open);
        let members = members.map_or([0; 32], hash_members);
        let network = network.as_u64().to_be_bytes();
        // Nodes with another secret or list do not even see that this network is here.
        let key = Zeroizing::new(hash::keyed(psk.as_bytes(), &[LABEL, &network, &members]));
        Self {
            // One key for each purpose, so that output of one protocol says nothing about another.
            beacon: hash::keyed(&key, &[BEACON_LABEL]),
            hello: hash::keyed(&key, &[HELLO_LABEL]),
            meeting: hash::keyed(&key, &[MEETING_LABEL]),
        }
    }

    /// Returns the tag for this network in a beacon with that salt.
    pub fn beacon_tag(&self, salt: &[u8; 16]) -> [u8; 16] {
        hash::mac16(&self.beacon, &[salt])
    }

    /// Returns the key that determines where the network's members meet in a public directory, and that seals
    /// their records there. It is as secret as the network's key.
    pub fn meeting_key(&self) -> &[u8; 32] {
        &self.meeting
    }

    /// Returns the key that seals hellos.
    pub(crate) fn hello_key(&self) -> &[u8; 32] {
        &self.hello
    }
}

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoveryKey([redacted])")
    }
}

fn hash_members(members: &[NodeId]) -> [u8; 32] {
    let mut members = members.to_vec();
    // The order and repetitions in a file must not matter, because all members need the same key.
    members.sort_unstable();
    members.dedup();
    let parts: Vec<&[u8]> =
        std::iter::once(MEMBERS_LABEL).chain(members.iter().map(|m| &m.as_bytes()[..])).collect();
    hash::hash(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(network: u64, psk: Option<&Psk>, members: Option<&[NodeId]>) -> [u8; 16] {
        let network = NetworkId::new(network).expect("a valid ID");
        DiscoveryKey::new(network, psk, members).beacon_tag(&[3; 16])
    }

    #[test]
    fn every_input_changes_the_key() {
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let psk = Psk::new([5; 32]);
        let tags = [
            tag(0xfe01 << 48, None, None),
            tag(0xfe02 << 48, None, None),
            tag(0xfe01 << 48, Some(&psk), None),
            tag(0xfe01 << 48, None, Some(&[])),
            tag(0xfe01 << 48, None, Some(&[a])),
            tag(0xfe01 << 48, None, Some(&[a, b])),
        ];
        for (i, one) in tags.iter().enumerate() {
            assert!(!tags[..i].contains(one), "tag {i} repeats");
        }
    }

    #[test]
    fn member_order_does_not_matter() {
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        assert_eq!(tag(0xfe01 << 48, None, Some(&[a, b])), tag(0xfe01 << 48, None, Some(&[b, a, a])));
    }
}
