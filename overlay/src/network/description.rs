//! Facts about a node by which programs decide who may do something.

use super::Policy;
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::membership::{MemberName, Tag};

/// Node at the other end of a connection, as its network describes it.
///
/// The session has proved the keys of `node`. In a managed network a controller has signed the rest, apart
/// from the label, which the machine has signed for its program. A static network's file gives names. In an
/// ad-hoc network no node vouches for another one, so only the keys are known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerDescription {
    /// Network of the connection.
    pub network: NetworkId,
    /// ID of the node, which is the hash of its keys.
    pub node: NodeId,
    /// ID of the member's node: another one than `node` if that is a program with its own keys.
    pub machine: NodeId,
    /// True if the other end is a machine without peersock, for which the member forwards packets. The
    /// network knows the member alone.
    pub is_gateway: bool,
    /// Name of the member, if the network gives it one.
    pub name: Option<String>,
    /// Label of such a program, under which it alone is addressed.
    pub label: Option<MemberName>,
    /// Tags of the member, in ascending order.
    pub tags: Vec<Tag>,
    /// Bytes for programs that the controller has signed; at most
    /// [`Grant::MAX_CLAIMS_LEN`](crate::membership::Grant::MAX_CLAIMS_LEN).
    pub claims: Vec<u8>,
}

impl PeerDescription {
    /// Returns the description of a node of which only the keys are known.
    pub(crate) fn unknown(network: NetworkId, node: NodeId) -> Self {
        Self {
            network,
            node,
            machine: node,
            is_gateway: false,
            name: None,
            label: None,
            tags: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// Returns the present description of a node by a network.
    pub(crate) fn of(policy: &dyn Policy, node: &NodeId) -> Self {
        let mut described = Self::unknown(policy.id(), *node);
        described.machine = policy.machine_of(node).map_or(*node, PublicIdentity::node_id);
        described.name = policy.name_of(node).map(str::to_owned);
        described.label = policy.label_of(node).cloned();
        if let Some(grant) = policy.membership().and_then(|known| known.grant_of(node)) {
            described.tags.clone_from(&grant.tags);
            described.claims.clone_from(&grant.claims);
        }
        described
    }
}
