//! Whose an address is.

use std::net::IpAddr;
use std::sync::Arc;

use crate::host::stack::Shared;
use crate::tcp::Share;
use crate::{InterfaceId, Stack};

/// Tells a stack which addresses belong to one peer, so that limits for a peer hold for all of them together:
/// a member that leads to a network of its own sends from any address in it.
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
    /// An address that stands for whoever has `address`: the same for all that are his. `None` if nobody is
    /// known to have it; it then stands for itself.
    ///
    /// The stack asks when a connection begins, about fragments, and about ICMP errors that it sends. It must
    /// not be called from here.
    fn owner(&self, interface: InterfaceId, address: IpAddr) -> Option<IpAddr>;
}

impl Stack {
    /// Has limits for a peer hold for all addresses that belong to it. Without this each address counts as a
    /// peer. The first call counts; it is to come before the first packet.
    pub fn set_owners(&self, owners: Arc<dyn Owners>) {
        // What was set before stays.
        let _ = self.shared.owners.set(owners);
    }
}

impl Shared {
    /// The account of the peer that has `address`.
    pub(crate) fn share(&self, interface: InterfaceId, address: IpAddr) -> Arc<Share> {
        let owner = self.owner(interface, address);
        self.flows.share(interface, address, owner, &self.memory)
    }

    /// The address that stands for the peer that has `address`.
    pub(crate) fn owner(&self, interface: InterfaceId, address: IpAddr) -> IpAddr {
        self.owners.get().and_then(|owners| owners.owner(interface, address)).unwrap_or(address)
    }
}
