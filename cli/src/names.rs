//! Names of a network's members for messages.

use std::net::IpAddr;

use peersock::Network;
use peersock::overlay::StaticMember;

/// Returns the member that the network's file lists with this address.
pub(crate) fn member_at(network: &Network, address: IpAddr) -> Option<&StaticMember> {
    let has_it = |member: &&StaticMember| {
        network.addresses_of(&member.identity).is_some_and(|its| its.contains(&address))
    };
    network.members().iter().find(has_it)
}

/// Returns an address with the member's name, if the network's file has one: `alpha (10.7.0.1)`.
pub(crate) fn called(network: &Network, address: IpAddr) -> String {
    match name_of(network, address) {
        Some(name) => format!("{name} ({address})"),
        None => address.to_string(),
    }
}

/// Returns the name of the member with an address, if the network's file has one.
pub(crate) fn name_of(network: &Network, address: IpAddr) -> Option<&str> {
    member_at(network, address)?.name.as_deref()
}
