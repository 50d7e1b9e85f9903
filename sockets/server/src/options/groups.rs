//! Multicast groups, joined and left at once, or when the socket is bound (RFC 3493 5.2, RFC 3678).

use std::net::IpAddr;

use libc::{IPPROTO_IP, IPPROTO_IPV6};
use peersock_fd::Errno;
use peersock_stack::{Error, GroupChange, InterfaceId, SourceChange, SourceFilter};

use super::value::{self, InterfaceRef};
use peersock_fd::option_table::{self as table, Row};

/// Maximum number of groups of an unbound socket, the same as the stack's.
const MAX_GROUPS: usize = 20;

/// A group that was joined before the socket was bound.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) interface: Option<InterfaceId>,
    pub(crate) group: IpAddr,
    pub(crate) filter: SourceFilter,
}

/// Returns the change an option makes to one source of a group.
fn source_change(number: i32) -> Option<SourceChange> {
    Some(match number {
        libc::IP_ADD_SOURCE_MEMBERSHIP | table::MCAST_JOIN_SOURCE_GROUP => SourceChange::Join,
        libc::IP_DROP_SOURCE_MEMBERSHIP | table::MCAST_LEAVE_SOURCE_GROUP => SourceChange::Leave,
        libc::IP_BLOCK_SOURCE | table::MCAST_BLOCK_SOURCE => SourceChange::Block,
        libc::IP_UNBLOCK_SOURCE | table::MCAST_UNBLOCK_SOURCE => SourceChange::Unblock,
        _ => return None,
    })
}

/// Parses an option's request: the group, the interface, and the change. Returns `None` if the option is not
/// about groups.
pub(super) fn request(row: &Row, value: &[u8]) -> Option<Result<(IpAddr, InterfaceRef, GroupChange), Errno>> {
    let from_source =
        |kind| move |(group, interface, source)| (group, interface, GroupChange::Source(kind, source));
    Some(match (row.level, row.number) {
        (IPPROTO_IP, libc::IP_ADD_MEMBERSHIP) => value::membership_v4(value).map(joined),
        (IPPROTO_IP, libc::IP_DROP_MEMBERSHIP) => value::membership_v4(value).map(left),
        (IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP) => value::membership_v6(value).map(joined),
        (IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP) => value::membership_v6(value).map(left),
        (IPPROTO_IP | IPPROTO_IPV6, table::MCAST_JOIN_GROUP) => value::membership_any(value).map(joined),
        (IPPROTO_IP | IPPROTO_IPV6, table::MCAST_LEAVE_GROUP) => value::membership_any(value).map(left),
        (IPPROTO_IP, number @ 37..=40) => value::source_v4(value).map(from_source(source_change(number)?)),
        (IPPROTO_IP | IPPROTO_IPV6, number @ (43 | 44 | 46 | 47)) => {
            value::source_any(value).map(from_source(source_change(number)?))
        }
        _ => return None,
    })
}

fn joined((group, interface): (IpAddr, InterfaceRef)) -> (IpAddr, InterfaceRef, GroupChange) {
    (group, interface, GroupChange::Join(SourceFilter::default()))
}

fn left((group, interface): (IpAddr, InterfaceRef)) -> (IpAddr, InterfaceRef, GroupChange) {
    (group, interface, GroupChange::Leave)
}

/// Changes the groups of an unbound socket as the stack does for bound ones.
pub(super) fn change_later(
    groups: &mut Vec<Membership>,
    interface: Option<InterfaceId>,
    group: IpAddr,
    change: GroupChange,
) -> Result<(), Error> {
    let at = groups.iter().position(|known| (known.interface, known.group) == (interface, group));
    let member = at.map(|at| groups[at].filter.clone());
    match (at, change.apply(member)?) {
        (Some(at), Some(filter)) => groups[at].filter = filter,
        (None, Some(_)) if groups.len() == MAX_GROUPS => return Err(Error::OutOfMemory),
        (None, Some(filter)) => groups.push(Membership { interface, group, filter }),
        (Some(at), None) => drop(groups.remove(at)),
        (None, None) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_before_binding_is_kept_as_the_stack_would_keep_it() {
        let mut groups = Vec::new();
        let (group, one) = (IpAddr::from([239, 1, 2, 3]), IpAddr::from([10, 0, 0, 1]));
        let mut change = |wanted| change_later(&mut groups, None, group, wanted);
        assert_eq!(change(GroupChange::Source(SourceChange::Block, one)), Err(Error::InvalidInput));
        assert_eq!(change(GroupChange::Source(SourceChange::Join, one)), Ok(()));
        assert_eq!(change(GroupChange::Join(SourceFilter::default())), Err(Error::AddrInUse));
        assert_eq!(change(GroupChange::Source(SourceChange::Leave, one)), Ok(()));
        assert_eq!(change(GroupChange::Leave), Err(Error::AddrNotAvailable));
        assert_eq!(change(GroupChange::Join(SourceFilter::default())), Ok(()));
        assert_eq!(change(GroupChange::Source(SourceChange::Block, one)), Ok(()));
        assert!(!groups[0].filter.passes(one));
        for host in 1..20 {
            let group = IpAddr::from([239, 1, 3, host]);
            change_later(&mut groups, None, group, GroupChange::Join(SourceFilter::default())).expect("room");
        }
        let beyond = change_later(&mut groups, None, one, GroupChange::Join(SourceFilter::default()));
        assert_eq!(beyond, Err(Error::OutOfMemory));
    }
}
