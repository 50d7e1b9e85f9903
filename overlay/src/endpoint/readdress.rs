//! Peers whose addresses change while they live.
//!
//! The self-certifying address stays. The others come from whoever describes the network, and so do the
//! blocks of addresses behind a peer. A change is in force at once for what arrives
//! ([`Peer::owns`](crate::Peer::owns)) and for what is sent ([`Routes`](crate::Routes));
//! [`Event::AddressesChanged`] tells the layers above what was lost, so that they end what still uses it.

use std::sync::Arc;

use thiserror::Error;

use super::Endpoint;
use crate::id::NodeId;
use crate::link::Event;
use crate::network::{NetworkIndex, Prefix};
use crate::routes::Route;

/// Addresses and blocks that one peer may have besides its self-certifying address.
const MAX_PREFIXES: usize = 64;

impl Endpoint {
    /// Gives a peer other addresses, and blocks of addresses behind it, in place of those that it has besides
    /// the self-certifying one. At most 64.
    ///
    /// For a source that the user trusts with the whole network: nothing here asks whether the peer should
    /// have them.
    ///
    /// # Errors
    /// The peer keeps what it has, for a reason that [`AddressError`] gives.
    pub fn set_addresses(
        &mut self,
        network: NetworkIndex,
        node: &NodeId,
        prefixes: &[Prefix],
    ) -> Result<(), AddressError> {
        let joined = self.networks.get(&network).ok_or(AddressError::NotAPeer(*node))?;
        let key = joined.by_node.get(node).ok_or(AddressError::NotAPeer(*node))?;
        let peer = self.peers.get(*key).ok_or(AddressError::NotAPeer(*node))?;
        if prefixes.len() > MAX_PREFIXES {
            return Err(AddressError::TooMany);
        }
        let certified = joined.id.certified_prefix();
        for &prefix in prefixes {
            // Whoever has a longer prefix in a block keeps it, since the longest decides. But nobody is given
            // a part of the network's own prefix: there every address follows from a node ID.
            let (address, length) = (prefix.address(), prefix.length());
            let in_certified = length >= certified.length() && certified.contains(address);
            if in_certified || address.is_multicast() || address.is_loopback() {
                return Err(AddressError::Unusable(prefix));
            }
            if address.is_unspecified() && prefix == address.into() {
                return Err(AddressError::Unusable(prefix));
            }
            match self.routes.exact(network, prefix) {
                None => {}
                Some(Route::Peer(owner)) if Arc::ptr_eq(&owner, &peer.link.handle) => {}
                Some(_) => return Err(AddressError::Taken(prefix)),
            }
        }

        let handle = Arc::clone(&peer.link.handle);
        let before = handle.prefixes();
        let mut after = vec![before[0]];
        for &prefix in prefixes {
            if !after.contains(&prefix) {
                after.push(prefix);
            }
        }
        let gained: Vec<Prefix> = after.iter().copied().filter(|prefix| !before.contains(prefix)).collect();
        let lost: Arc<[Prefix]> = before.iter().copied().filter(|prefix| !after.contains(prefix)).collect();
        if gained.is_empty() && lost.is_empty() {
            return Ok(());
        }
        handle.set_prefixes(after.into());
        if let Some(joined) = self.networks.get_mut(&network) {
            joined.policy.set_addresses(node, &handle.addresses()[1..]);
        }
        self.routes.publish(network, &gained, &Route::Peer(Arc::clone(&handle)));
        self.routes.withdraw(network, &lost);
        self.core.emit(Event::AddressesChanged(handle, lost));
        Ok(())
    }
}

/// Why a peer's addresses were not changed.
///
/// ```
/// use peersock_overlay::AddressError;
///
/// let refused = AddressError::Taken("10.0.0.1".parse::<std::net::IpAddr>()?.into());
/// assert_eq!(refused.to_string(), "10.0.0.1/32 belongs to another member");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The node is not known as a peer in the network, or the network is not joined.
    #[error("node {0} is not known in the network")]
    NotAPeer(NodeId),
    /// More than 64.
    #[error("a member has at most {MAX_PREFIXES} addresses and blocks")]
    TooMany,
    /// The address is unspecified, loopback or multicast, or in the prefix where addresses follow from node
    /// IDs.
    #[error("{0} cannot be given to a member")]
    Unusable(Prefix),
    /// Another peer or this node has it.
    #[error("{0} belongs to another member")]
    Taken(Prefix),
}
