//! Owners of connections, so that one client's connections are counted together.

use std::net::IpAddr;

use peersock::overlay::{NodeId, Prefix};

use crate::overlay::Overlay;

/// The owner of connections and flows that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A member of a network, at any of its addresses: it may have two, and a whole block if it is a gateway.
    /// Its programs with their own nodes are this member, too.
    Member(NodeId),
    /// A client on the system's network, for IPv6 the whole /64, or a member that the node no longer knows.
    Address(IpAddr),
}

impl Owner {
    /// Returns the owner of an overlay address.
    pub fn of_member(overlay: &Overlay, address: IpAddr) -> Owner {
        overlay.member_at(address).map_or(Owner::Address(address), Owner::Member)
    }

    /// Returns the owner of a client's address, on the overlay or the system's network. Returns `None` for
    /// programs of this machine, because they share one address and cannot exclude other clients.
    pub(crate) fn of_client(overlay: &Overlay, is_overlay: bool, address: IpAddr) -> Option<Owner> {
        match is_overlay {
            true => Some(Owner::of_member(overlay, address)),
            false => (!address.to_canonical().is_loopback()).then(|| Owner::Address(host_of(address))),
        }
    }
}

/// Returns the part that all addresses of one host share, because an IPv6 host can use any number of
/// addresses, often in a /64 of one host.
pub(crate) fn host_of(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    match address {
        IpAddr::V6(_) => Prefix::new(address, 64).expect("IPv6 has more bits").address(),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use peersock::{IdentitySource, Interfaces, Node};

    use super::*;

    #[test]
    fn clients_of_this_machine_are_nobody_s_and_others_have_their_addresses() {
        let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = node.start().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (is_overlay, client, owner) in [
            (false, "127.0.0.1", None),
            (false, "::ffff:127.0.0.1", None),
            (false, "::1", None),
            (false, "::ffff:192.0.2.1", Some("192.0.2.1")),
            (false, "fe80::1", Some("fe80::")),
            (false, "2001:db8::5:1", Some("2001:db8::")),
            (false, "2001:db8::ffff:ffff:ffff:ffff", Some("2001:db8::")),
            (true, "10.1.2.3", Some("10.1.2.3")),
        ] {
            let owner = owner.map(|owner| Owner::Address(address(owner)));
            assert_eq!(
                Owner::of_client(&Overlay::from(&node), is_overlay, address(client)),
                owner,
                "{client}"
            );
        }
    }
}
