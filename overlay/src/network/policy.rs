//! The questions that every kind of network answers.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{NetworkConfig, Prefix, StaticMember};
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk};

/// What one network decides about its members.
///
/// Answers may change while the network lives, so they are asked for when they are needed and not kept.
/// [`NetworkConfig::policy`] makes one.
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
    /// The network's ID.
    fn id(&self) -> NetworkId;

    /// The pre-shared key that is mixed into each handshake, if the network has one.
    fn psk(&self) -> Option<&Psk>;

    /// Derives the key under which members find each other on a local network.
    fn discovery_key(&self) -> DiscoveryKey;

    /// The TCP and UDP ports on which services may be offered and reached.
    fn ports(&self) -> RangeInclusive<u16>;

    /// Whether anyone may be a member who knows the ID, and the key if there is one.
    fn admits_anyone(&self) -> bool;

    /// Whether a node may be a member, as far as can be told before its handshake proves the pre-shared key.
    /// A node ID is the hash of both public keys of the node, so no other keys have it.
    fn admits(&self, node: &NodeId) -> bool;

    /// The members that are known without having been heard of, this node perhaps among them.
    fn members(&self) -> Vec<&StaticMember>;

    /// The addresses that belong to a node in the network now, the self-certifying one first.
    fn addresses_of(&self, node: &NodeId) -> Vec<IpAddr>;

    /// The blocks of addresses behind a node, to which it passes packets on.
    fn routes_of(&self, node: &NodeId) -> Vec<Prefix> {
        let _ = node;
        Vec::new()
    }

    /// Gives a node other addresses, in place of all that it has besides the self-certifying one. The
    /// endpoint calls this when they change ([`Endpoint::set_addresses`](crate::Endpoint::set_addresses)),
    /// and with none when it forgets a node that is not kept.
    fn set_addresses(&mut self, node: &NodeId, addresses: &[IpAddr]);

    /// The addresses that lie in the network, whether somebody has them or not: a packet to one of them shall
    /// leave by no other way. The self-certifying prefix comes first.
    fn prefixes(&self) -> Vec<Prefix>;

    /// Whether a member that is not known yet may have an address, so that it is worth being looked for.
    fn may_exist(&self, address: IpAddr) -> bool;

    /// The name of a member.
    fn name_of(&self, node: &NodeId) -> Option<&str>;

    /// The member that has a name. Upper and lower case are the same.
    fn node_named(&self, name: &str) -> Option<NodeId>;

    /// Whether a member remains one though nothing is heard of it. Others are forgotten after a while, or
    /// when there are too many.
    fn keeps(&self, node: &NodeId) -> bool;

    /// Whether joining the network by `config` would give this policy again.
    fn is_described_by(&self, config: &NetworkConfig) -> bool;

    /// What people and scripts are told of the network.
    fn summary(&self) -> NetworkSummary;
}

/// What people and scripts are told of a network, joined or not. The program, C and Python all show this.
///
/// ```
/// use peersock_overlay::{NetworkConfig, NetworkId};
///
/// let summary = NetworkConfig::by_id(NetworkId::ad_hoc(80..=90)?)?.policy().summary();
/// assert_eq!((summary.kind, summary.secret, summary.ports), ("ad-hoc", false, 80..=90));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkSummary {
    /// What kind it is of, in one word.
    pub kind: &'static str,
    /// Whether a passphrase or pre-shared key is needed to take part.
    pub secret: bool,
    /// Whether only certain nodes are admitted: then it matters which identity a node has.
    pub closed: bool,
    /// Whether a file describes the network: then its ID alone is not enough to join it.
    pub by_file: bool,
    /// The TCP and UDP ports on which services may be offered and reached.
    pub ports: RangeInclusive<u16>,
    /// The addresses that lie in the network; see [`Policy::prefixes`].
    pub prefixes: Vec<Prefix>,
}
