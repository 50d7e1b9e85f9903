//! Peers whose addresses change while they live.
//!
//! The self-certifying address stays. The other addresses, and the blocks behind a peer, come from the
//! network's description. A change takes effect at once for received packets
//! ([`Peer::owns`](crate::Peer::owns)) and sent ones ([`Routes`](crate::Routes)). [`Event::AddressesChanged`]
//! tells the layers above which addresses were lost, so that they end what still uses them.

use std::sync::Arc;

use thiserror::Error;

use super::Endpoint;
use crate::id::NodeId;
use crate::link::Event;
use crate::network::{NetworkIndex, Prefix};
use crate::routes::Route;

/// Maximum number of addresses and blocks of one peer besides its self-certifying address.
const MAX_PREFIXES: usize = 64;

impl Endpoint {
    /// Replaces a peer's addresses, except the self-certifying one, and the blocks of addresses behind it. At
    /// most 64.
    ///
    /// The caller must be trusted with the whole network, because nothing here checks whether the peer may
    /// have them.
    /// Fails with the reason as an [`AddressError`]; the peer then keeps what it has.
    pub fn set_addresses(
        &mut self,
        network: NetworkIndex,
        node: &NodeId,
        prefixes: &[Prefix],
    ) -> Result<(), AddressError> {
        let joined = self.networks.get(&network).ok_or(AddressError::NotAPeer(*node))?;
        let key = joined.by_node.get(node).ok_or(AddressError::NotAPeer(*node))?;
        let peer = self.peers.get(*key).ok_or(AddressError::NotAPeer(*node))?;
        // Every packet of the peer is checked against them.
        if prefixes.len() > MAX_PREFIXES {
            return Err(AddressError::TooMany);
        }
        let certified = joined.id.certified_prefix();
        for &prefix in prefixes {
            // A longer prefix inside a block stays with its owner, because the longest prefix wins. But the
            // network's own prefix cannot be given away, because there every address follows from a node ID.
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
        // The self-certifying address follows from the key, so it can be neither removed nor given away.
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
        // First the gained ones: an address that moves inside a block is never without an owner.
        self.routes.publish(network, &gained, &Route::Peer(Arc::clone(&handle)));
        self.routes.withdraw(network, &lost);
        self.core.emit(Event::AddressesChanged(handle, lost));
        Ok(())
    }
}

/// Reason why a peer's addresses were not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The node is not known as a peer in the network, or the network is not joined.
    #[error("node {0} is not known in the network")]
    NotAPeer(NodeId),
    /// The peer would have more than 64.
    #[error("a member has at most {MAX_PREFIXES} addresses and blocks")]
    TooMany,
    /// The address is unspecified, loopback or multicast, or in the prefix where addresses follow from node
    /// IDs.
    #[error("{0} cannot be given to a member")]
    Unusable(Prefix),
    /// Another peer or this node has the prefix.
    #[error("{0} belongs to another member")]
    Taken(Prefix),
}
