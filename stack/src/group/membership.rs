//! Memberships of sockets in multicast groups (RFC 1112, RFC 3493 5.2).
//!
//! A packet to a group is accepted if any socket of the node has joined the group on the interface, and is
//! delivered to those sockets. The stack reports nothing to other hosts. The driver reads changes from
//! [`Batch::memberships`](crate::Batch::memberships) and reports them as necessary.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::host::stack::Shared;
use crate::sync;
use crate::{Error, GroupChange, InterfaceId, Scope, SourceFilter, Stack};

/// Maximum number of groups of one socket, as Linux (`igmp_max_memberships`).
const MAX_GROUPS_PER_SOCKET: usize = 20;
/// Maximum number of pending changes, for a driver that does not read them; [`Stack::memberships`] is
/// complete in any case.
const MAX_PENDING_CHANGES: usize = 4096;

/// Change of the node's membership: its first socket has joined a group, or its last one has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MembershipChange {
    /// Interface of the membership.
    pub interface: InterfaceId,
    /// Address of the group.
    pub group: IpAddr,
    /// True if the node is a member now.
    pub joined: bool,
}

/// Groups of all sockets.
#[derive(Default)]
pub(crate) struct Memberships {
    table: Mutex<Table>,
    /// True if there are changes; readable without the lock.
    changed: AtomicBool,
}

#[derive(Default)]
struct Table {
    /// Number of sockets that have joined each group.
    members: BTreeMap<(InterfaceId, IpAddr), usize>,
    /// New state of the groups about which the driver must be informed.
    changes: BTreeMap<(InterfaceId, IpAddr), bool>,
}

impl Memberships {
    /// Returns true if packets to `group` are for this node.
    pub(crate) fn contains(&self, interface: InterfaceId, group: IpAddr) -> bool {
        is_all_nodes(group) || self.lock().members.contains_key(&(interface, group))
    }

    /// Returns true if [`take_changes`](Self::take_changes) has any.
    pub(crate) fn changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    pub(crate) fn take_changes(&self, changes: &mut Vec<MembershipChange>) {
        if self.changed() {
            let mut table = self.lock();
            let taken = std::mem::take(&mut table.changes).into_iter();
            changes.extend(taken.map(|((interface, group), joined)| MembershipChange {
                interface,
                group,
                joined,
            }));
            self.changed.store(false, Ordering::Release);
        }
    }

    /// Removes the memberships of a removed interface.
    pub(crate) fn remove_interface(&self, interface: InterfaceId) {
        let mut table = self.lock();
        // The interface is gone, so its memberships need no report.
        table.members.retain(|(known, _), _| *known != interface);
        table.changes.retain(|(known, _), _| *known != interface);
        self.changed.store(!table.changes.is_empty(), Ordering::Release);
    }

    fn join(&self, key: (InterfaceId, IpAddr)) {
        let mut table = self.lock();
        let members = table.members.entry(key).or_default();
        *members += 1;
        // Peers are told of the node's membership, not of each socket's.
        if *members == 1 {
            self.note(&mut table, key, true);
        }
    }

    fn leave(&self, key: (InterfaceId, IpAddr)) {
        let mut table = self.lock();
        let Some(members) = table.members.get_mut(&key) else { return };
        *members -= 1;
        if *members == 0 {
            table.members.remove(&key);
            self.note(&mut table, key, false);
        }
    }

    /// Records a change. A change that is undone before the driver reads it cancels out.
    fn note(&self, table: &mut Table, key: (InterfaceId, IpAddr), joined: bool) {
        // A join and a leave between two reads cancel out, and nothing is reported.
        if table.changes.remove(&key).is_none() && table.changes.len() < MAX_PENDING_CHANGES {
            table.changes.insert(key, joined);
        }
        self.changed.store(!table.changes.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        sync::lock(&self.table)
    }
}

/// Groups of one socket with their source filters.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<(InterfaceId, IpAddr), SourceFilter>);

impl Groups {
    pub(crate) fn leave_all(&mut self, shared: &Shared) {
        std::mem::take(&mut self.0).into_keys().for_each(|key| shared.memberships.leave(key));
    }

    /// Returns true if a packet from `source` to `group` is for this socket.
    pub(crate) fn takes(&self, interface: InterfaceId, group: IpAddr, source: IpAddr) -> bool {
        match self.0.get(&(interface, group)) {
            Some(filter) => filter.passes(source),
            // RFC 1112 section 4 and RFC 4291 2.8: every node is a member of it.
            None => is_all_nodes(group),
        }
    }

    /// Applies a change to `group` on one interface of the scope: the given one, or else the scope's own, or
    /// else `usual`, or else any with an address of the family.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if `group` is no group, [`Error::AddressFamily`] if the group or a source is
    /// not of the socket's family, [`Error::NetworkUnreachable`] if there is no such interface, and the
    /// errors of joining, leaving and filters.
    pub(crate) fn change(
        &mut self,
        shared: &Shared,
        ipv6: bool,
        (interface, (scope, usual)): (Option<InterfaceId>, (&Scope, Option<InterfaceId>)),
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error> {
        if !group.is_multicast() {
            return Err(Error::InvalidInput);
        }
        let stranger = matches!(change, GroupChange::Source(_, source) if source.is_ipv6() != ipv6);
        if group.is_ipv6() != ipv6 || stranger {
            return Err(Error::AddressFamily);
        }
        let named = interface.or(scope.device()).or(usual);
        let found = match named {
            Some(id) => shared.interfaces.find(id).filter(|_| scope.shows(id)),
            None => shared.interfaces.first_with(scope, group),
        };
        let key = (found.ok_or(Error::NetworkUnreachable)?.id, group);
        let member = self.0.get(&key);
        let is_new = member.is_none();
        match change.apply(member.cloned())? {
            Some(_) if is_new && self.0.len() == MAX_GROUPS_PER_SOCKET => return Err(Error::OutOfMemory),
            Some(filter) => drop(self.0.insert(key, filter)),
            None => drop(self.0.remove(&key)),
        }
        match (is_new, self.0.contains_key(&key)) {
            (true, true) => shared.memberships.join(key),
            (false, false) => shared.memberships.leave(key),
            _ => {}
        }
        Ok(())
    }
}

/// Returns true for the groups that contain every node: 224.0.0.1 (RFC 1112), ff01::1 and ff02::1 (RFC 4291
/// 2.7.1).
fn is_all_nodes(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4 == Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(v6) => matches!(v6.segments(), [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1]),
    }
}

impl Stack {
    /// Returns the groups that sockets have joined on an interface, in order. The groups of all nodes are
    /// omitted unless a socket has joined them.
    pub fn memberships(&self, interface: InterfaceId) -> Vec<IpAddr> {
        let table = self.shared.memberships.lock();
        let first = (interface, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        // Identifiers order first, so one range holds all groups of the interface.
        let last = (interface, IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
        table.members.range(first..=last).map(|((_, group), _)| *group).collect()
    }
}
