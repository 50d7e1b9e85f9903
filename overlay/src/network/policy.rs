//! Questions that every kind of network answers.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Membership, NetworkConfig, Prefix, Programs, StaticMember};
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk, PublicIdentity};
use crate::membership::{MemberName, ProcessCertificate, Refusal};

/// Decisions of one network about its members.
///
/// Answers may change while the network exists, so callers ask when needed and do not store them.
/// [`NetworkConfig::policy`] creates a policy.
///
/// ```
/// use peersock_overlay::{NetworkConfig, NetworkId, Policy};
///
/// /// Says for people where services may be offered.
/// fn ports(network: &dyn Policy) -> String {
///     format!("{}: ports {:?}", network.id(), network.ports())
/// }
///
/// let policy = NetworkConfig::by_id(NetworkId::ad_hoc(80..=90)?)?.policy();
/// assert_eq!(ports(&*policy), "ff0050005a000000: ports 80..=90");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Policy: fmt::Debug + Send + Sync {
    /// Returns the network's ID.
    fn id(&self) -> NetworkId;

    /// Returns the pre-shared key mixed into each handshake, if the network has one.
    fn psk(&self) -> Option<&Psk>;

    /// Derives the key under which members find each other on a local network.
    fn discovery_key(&self) -> DiscoveryKey;

    /// Returns the TCP and UDP ports on which services may be offered and reached.
    fn ports(&self) -> RangeInclusive<u16>;

    /// Returns true if any node may be a member that knows the ID, and the key if there is one.
    fn admits_anyone(&self) -> bool;

    /// Returns true if a node may be a member, as far as known before its handshake proves the pre-shared
    /// key. A node ID is the hash of both public keys of the node, so no other keys have it.
    fn admits(&self, node: &NodeId) -> bool;

    /// Returns the members known in advance, which may include this node.
    fn members(&self) -> Vec<&StaticMember>;

    /// Returns the present addresses of a node in the network, the self-certifying one first.
    fn addresses_of(&self, node: &NodeId) -> Vec<IpAddr>;

    /// Returns the blocks of addresses behind a node, to which it forwards packets.
    fn routes_of(&self, node: &NodeId) -> Vec<Prefix> {
        let _ = node;
        Vec::new()
    }

    /// Replaces all addresses of a node except the self-certifying one. The endpoint calls this when they
    /// change ([`Endpoint::set_addresses`](crate::Endpoint::set_addresses)), and with none when it forgets a
    /// node that is not kept.
    fn set_addresses(&mut self, node: &NodeId, addresses: &[IpAddr]);

    /// Returns the addresses that belong to the network, in use or not: packets to them must leave by no
    /// other way. The self-certifying prefix comes first.
    fn prefixes(&self) -> Vec<Prefix>;

    /// Returns true if a member that is not known yet may have this address, so that looking for it is
    /// worthwhile.
    fn may_exist(&self, address: IpAddr) -> bool;

    /// Returns the name of a member.
    fn name_of(&self, node: &NodeId) -> Option<&str>;

    /// Returns the nodes to which a name leads, ignoring case: the member with this name first.
    fn nodes_named(&self, name: &str) -> Vec<NodeId>;

    /// Returns true if a silent member stays a member. Others are forgotten after a while, or when there are
    /// too many.
    fn keeps(&self, node: &NodeId) -> bool;

    /// Returns true if joining the network by `config` would give the same policy.
    fn is_described_by(&self, config: &NetworkConfig) -> bool;

    /// Returns the description of the network for people and scripts.
    fn summary(&self) -> NetworkSummary;

    /// Returns the member beside whose node a node is, if that is the node of a program with its own keys.
    fn machine_of(&self, _: &NodeId) -> Option<&PublicIdentity> {
        None
    }

    /// Returns the label under which such a program alone is addressed.
    fn label_of(&self, _: &NodeId) -> Option<&MemberName> {
        None
    }

    /// Returns the membership of a network whose nodes show credentials to each other before anything else
    /// passes; `None` if the network's description says who is a member.
    fn membership(&self) -> Option<&Membership> {
        None
    }

    /// Returns the same for changes.
    fn membership_mut(&mut self) -> Option<&mut Membership> {
        None
    }

    /// Returns the known programs of listed members; `None` if no member's key admits anybody here.
    fn programs(&self) -> Option<&Programs> {
        None
    }

    /// Returns the same for changes.
    fn programs_mut(&mut self) -> Option<&mut Programs> {
        None
    }

    /// Admits a node as a program of a member, by the certificate that it has shown, or that the member has
    /// named. `unix_time` is the system's clock.
    ///
    /// # Errors
    /// Returns the reason if the certificate does not count, as in all networks that list no members.
    fn introduce(
        &mut self,
        program: &NodeId,
        certificate: ProcessCertificate,
        is_shown: bool,
        unix_time: Duration,
    ) -> Result<(), Refusal> {
        let _ = (program, certificate, is_shown, unix_time);
        Err(Refusal::OtherNetwork)
    }
}

/// Description of a network for people and scripts, joined or not. The program, C and Python all show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkSummary {
    /// Kind of the network, in one word.
    pub kind: &'static str,
    /// True if a passphrase or pre-shared key is needed to take part.
    pub secret: bool,
    /// True if only certain nodes are admitted, so that the node's identity matters.
    pub closed: bool,
    /// True if a file describes the network, so that its ID alone is not enough to join it.
    pub by_file: bool,
    /// TCP and UDP ports on which services may be offered and reached.
    pub ports: RangeInclusive<u16>,
    /// Addresses that belong to the network; see [`Policy::prefixes`].
    pub prefixes: Vec<Prefix>,
}
