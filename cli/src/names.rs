//! Names of a network's members for messages.

use std::net::IpAddr;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use peersock::attach::NodeHandle;
use peersock::overlay::{NetworkId, StaticMember};
use peersock::{Network, Node};

use crate::failure::{Failure, Outcome};

/// Returns the member that the network's file lists with this address.
pub(crate) fn member_at(network: &Network, address: IpAddr) -> Option<&StaticMember> {
    let has_it = |member: &&StaticMember| {
        network.addresses_of(&member.identity).is_some_and(|its| its.contains(&address))
    };
    network.members().iter().find(has_it)
}

/// Longest wait for a controller's word about a name.
const FIND_FOR: Duration = Duration::from_secs(6);

/// Pause between two looks for a name.
const FIND_POLL: Duration = Duration::from_millis(20);

/// Addresses of a name, as far as a node knows.
pub(crate) enum Named {
    /// Addresses of the member, at least one.
    Found(Vec<IpAddr>),
    /// The network's controllers have said that no member has the name.
    Absent,
    /// No controller has answered yet.
    Unknown,
}

/// Asks a node for the addresses of a member of a managed network.
pub(crate) fn ask(node: &Node, network: &Network, name: &str) -> Named {
    let handle = NodeHandle::of(node).within(&[network.id()]);
    match handle.addresses_named(name) {
        found if !found.is_empty() => Named::Found(found),
        _ if handle.search_name(name) => Named::Unknown,
        // The node does not ask for a name while it asks for too many others.
        _ if handle.is_name_absent(&format!("{name}.{}", network.id())) => Named::Absent,
        _ => Named::Unknown,
    }
}

/// Returns the addresses of a member of a managed network, which `ask` asks a node for.
pub(crate) fn find(
    network: &Network,
    name: &str,
    within: Duration,
    mut ask: impl FnMut() -> io::Result<Named>,
) -> Outcome<Vec<IpAddr>> {
    let begun = Instant::now();
    loop {
        match ask()? {
            Named::Found(addresses) => return Ok(addresses),
            Named::Absent => return Err(no_member_named(network, name)),
            Named::Unknown if begun.elapsed() >= within.min(FIND_FOR) => {
                return Err(no_controller_said(network.id(), name));
            }
            Named::Unknown => thread::sleep(FIND_POLL),
        }
    }
}

/// Returns the failure for a name about which no controller of a managed network has answered.
pub(crate) fn no_controller_said(network: NetworkId, name: &str) -> Failure {
    Failure::new(
        format_args!("no controller of network {network} has said who is called `{name}`"),
        "check that its controller runs, or give the member's address",
    )
}

/// Returns the failure for a name that no member of a managed network has.
pub(crate) fn no_member_named(network: &Network, name: &str) -> Failure {
    Failure::usage(
        format_args!("no member of network {} is called `{name}`", network.id()),
        format_args!("list those that this machine knows with `peersock members -n {}`", network.id()),
    )
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
