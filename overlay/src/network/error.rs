//! Errors in a network that a user has named or described.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::Prefix;
use crate::id::{NetworkId, NodeId};

/// Reason why an ID alone does not describe a joinable network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkIdError {
    /// A file must list the members.
    #[error("{0} is the ID of a static network: only its TOML file lists the members")]
    NeedsFile(NetworkId),
    /// Nodes use the ID for sessions with roots.
    #[error("{0} is no network: nodes use it for their roots")]
    Reserved(NetworkId),
}

/// Reason why a network's description is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkConfigError {
    /// The ID's first byte names another kind of network.
    #[error("network ID {0} is of another kind: ad-hoc IDs begin with ff, static ones with fe")]
    Kind(NetworkId),
    /// The pre-shared key is the publicly known one, or was made from an empty passphrase.
    #[error("a key of zeros or an empty passphrase is no secret: leave it out for an open network")]
    OpenKey,
    /// A member is listed twice.
    #[error("node {0} is listed twice")]
    DuplicateMember(NodeId),
    /// Two members have the same name, ignoring case.
    #[error("the name `{0}` is given twice")]
    DuplicateName(String),
    /// Two members claim one address.
    #[error("address {0} is given twice")]
    DuplicateAddress(IpAddr),
    /// The address is unspecified, loopback or multicast.
    #[error("address {0} cannot belong to a member")]
    UnusableAddress(IpAddr),
    /// The address lies in the network's self-certifying prefix.
    #[error("address {0} is in the network's own prefix, where every address follows from a node ID")]
    CertifiedAddress(IpAddr),
    /// The block covers everything, is loopback or multicast, or is larger than a site's: less than 8 bits of
    /// IPv4 or 16 of IPv6.
    #[error("the block {0} cannot lie behind a member")]
    UnusableRoute(Prefix),
    /// The block contains addresses of the network's self-certifying prefix.
    #[error("the block {0} overlaps the network's own prefix, where every address follows from a node ID")]
    CertifiedRoute(Prefix),
    /// Two members claim one block.
    #[error("the block {0} is given twice")]
    DuplicateRoute(Prefix),
    /// A managed network was given a secret. Its credentials protect it.
    #[error("network {0} has no secret, because its controllers admit the members")]
    NoSecret(NetworkId),
    /// The network lists no members, so its description allows none to lead others to the Internet.
    #[error("network {0} has no exit, because no file says which member to trust")]
    NoExits(NetworkId),
    /// The node is not a member, or the list does not allow it to lead others to the Internet.
    #[error("node {0} may not be an exit, because the network's file gives it no default route")]
    NotAnExit(NodeId),
    /// The address does not belong to a single host: see [`is_endpoint`](crate::is_endpoint).
    #[error("{0} is not an endpoint: a datagram to it goes to no single host")]
    UnusableEndpoint(SocketAddr),
}
