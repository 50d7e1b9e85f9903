//! `peersock network reserve` and `unreserve`: addresses that wait for a machine.

use std::net::IpAddr;

use peersock::overlay::membership::MemberName;
use peersock_controller::{ChangeError, Controller, Holder, MIN_NODE_DIGITS, Member};

use super::super::{now, who};
use super::{OfNetwork, refused};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Reserve an address of the pool for a member, or for the machine that gets a name later
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network reserve 10.77.0.9 beta
  peersock network settings                   # lists the reserved addresses")]
pub(crate) struct ReserveArgs {
    /// Address of the network's pool
    address: IpAddr,

    /// Name of a member, now or later, or beginning of its node ID, at least six digits
    ///
    /// A reservation for a member's name follows the member when its name changes.
    member: String,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn reserve(args: &ReserveArgs) -> Outcome {
    let (mut controller, address) = (args.of.open()?, args.address);
    let holder = holder(&controller, &args.member)?;
    controller.reserve(now(), &who(), address, &holder).map_err(refused)?;
    let name = shown(&controller, &holder);
    print(format_args!("{address} is reserved for {name}"))?;
    let member = controller.find(&args.member).ok();
    let others = member.iter().flat_map(|member| member.grant.addresses());
    if let Some(other) = others.into_iter().find(|one| one.is_ipv4() == address.is_ipv4() && *one != address)
    {
        stdio::note(format_args!("{name} keeps {other} until it is removed and joins again"));
    }
    Ok(())
}

/// Returns for whom a person reserves an address.
fn holder(controller: &Controller, text: &str) -> Outcome<Holder> {
    let found = controller.find(text);
    // A machine that replaces another one gets its name, and the address with it.
    match (text.parse::<MemberName>(), found) {
        (Ok(name), Ok(member)) if member.grant.name == name => Ok(Holder::Name(name)),
        (_, Ok(member)) => Ok(Holder::Node(member.grant.node)),
        (Ok(name), Err(ChangeError::NotFound(_))) if is_like_node_id(text) => Err(Failure::usage(
            format_args!("no node ID begins with `{name}`, which looks like one"),
            "check the digits with `peersock network members --json`; a machine of such a name can have the \
             address once it is a member",
        )),
        (Ok(name), Err(ChangeError::NotFound(_) | ChangeError::FewDigits(_))) => Ok(Holder::Name(name)),
        (_, Err(error)) => Err(refused(error)),
    }
}

/// Returns true for what is rather the beginning of a node ID than a name.
fn is_like_node_id(text: &str) -> bool {
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal && text.len() >= MIN_NODE_DIGITS && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// End the reservation of an address
///
/// A member that has the address keeps it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network unreserve 10.77.0.9")]
pub(crate) struct UnreserveArgs {
    /// Address that is reserved
    address: IpAddr,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn unreserve(args: &UnreserveArgs) -> Outcome {
    let (mut controller, address) = (args.of.open()?, args.address);
    controller.end_reservation(now(), &who(), address).map_err(refused)?;
    print(format_args!("{address} is not reserved any more"))
}

pub(super) fn all(controller: &Controller) -> Outcome<Vec<(IpAddr, Holder)>> {
    controller.reservations().map_err(refused)
}

/// Returns the addresses that are reserved for a member.
pub(super) fn of(controller: &Controller, member: &Member) -> Outcome<Vec<IpAddr>> {
    let (node, name) = (Holder::Node(member.grant.node), Holder::Name(member.grant.name.clone()));
    let reserved = all(controller)?.into_iter();
    Ok(reserved
        .filter(|(_, holder)| *holder == node || *holder == name)
        .map(|(address, _)| address)
        .collect())
}

/// Returns the name of whom an address is reserved for, or the node ID.
pub(super) fn shown(controller: &Controller, holder: &Holder) -> String {
    match holder {
        Holder::Name(name) => name.to_string(),
        Holder::Node(node) => {
            let node = node.to_string();
            controller.find(&node).map_or(node, |member| member.grant.name.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_a_node_id_are_told_from_a_name() {
        for id in ["1f3870", "1f3870be274f", "ABC123"] {
            assert!(is_like_node_id(id), "{id}");
        }
        for name in ["facade", "db1", "db-0001", "web000", "beta"] {
            assert!(!is_like_node_id(name), "{name}");
        }
    }
}
