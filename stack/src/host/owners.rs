//! Ownership of addresses by peers.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use crate::host::stack::Shared;
use crate::tcp::Share;
use crate::{InterfaceId, Stack};

/// Assignment of addresses to peers, so that limits for a peer cover all its addresses. A member that leads
/// to another network sends from any address in it.
///
/// ```
/// use std::net::IpAddr;
/// use std::sync::Arc;
/// use std::time::Instant;
/// use peersock_stack::{Config, InterfaceId, Owners, Stack};
///
/// /// What begins with 10.7 is behind 10.7.0.1.
/// struct OneRouter;
///
/// impl Owners for OneRouter {
///     fn owner(&self, _: InterfaceId, address: IpAddr) -> Option<IpAddr> {
///         let IpAddr::V4(v4) = address else { return None };
///         v4.octets().starts_with(&[10, 7]).then_some(IpAddr::from([10, 7, 0, 1]))
///     }
/// }
///
/// let stack = Stack::new(Config::default(), [7; 32], Instant::now());
/// stack.set_owners(Arc::new(OneRouter));
/// ```
pub trait Owners: Send + Sync {
    /// Returns the representative address of the peer that has `address`, which is the same for all its
    /// addresses. `None` if the peer is unknown; the address then represents itself.
    ///
    /// The stack calls it when a connection begins, for fragments, and for ICMP errors that it sends. It must
    /// not call the stack.
    fn owner(&self, interface: InterfaceId, address: IpAddr) -> Option<IpAddr>;

    /// Notes who is at the other end of a connection that has just been established. `context` is the
    /// connection's [`Flow::context`](crate::Flow::context).
    ///
    /// The stack calls it once for each connection, while it handles the packet of `remote` that completes
    /// the handshake. It must not call the stack.
    fn established(
        &self,
        interface: InterfaceId,
        remote: IpAddr,
        context: &OnceLock<Arc<dyn Any + Send + Sync>>,
    ) {
        let _ = (interface, remote, context);
    }
}

impl Stack {
    /// Applies limits for a peer to all addresses that belong to it. Without this call each address counts as
    /// a peer. Only the first call has an effect; it must come before the first packet.
    pub fn set_owners(&self, owners: Arc<dyn Owners>) {
        // A second call has no effect.
        let _ = self.shared.owners.set(owners);
    }
}

impl Shared {
    /// Returns the account of the peer that has `address`.
    pub(crate) fn share(&self, interface: InterfaceId, address: IpAddr) -> Arc<Share> {
        let owner = self.owner(interface, address);
        self.flows.share(interface, address, owner, &self.memory)
    }

    /// Returns the representative address of the peer that has `address`.
    pub(crate) fn owner(&self, interface: InterfaceId, address: IpAddr) -> IpAddr {
        self.owners.get().and_then(|owners| owners.owner(interface, address)).unwrap_or(address)
    }
}
