//! Multicast options of kernel sockets: the side that they select, and memberships to repeat on the other
//! side.
//!
//! An option whose interface is an address or an index of the overlay selects the overlay. So does one
//! without an interface if the kernel has no interface for it. Memberships of a socket that becomes an
//! overlay socket later are repeated there. They are remembered, because the kernel does not report them.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::slice;

use libc::{c_int, c_void, socklen_t};
use peersock_bsd::{Errno, Rules, Socket, kernel};
use peersock_fd::network_of_index;

use crate::convert::convert_and_set;
use crate::fork_lock::ForkLock;
use crate::kernel::cookie;

// Linux constants that the `libc` crate lacks.
const MCAST_JOIN_GROUP: c_int = 42;
const MCAST_LEAVE_GROUP: c_int = 45;
const MCAST_JOIN_SOURCE_GROUP: c_int = 46;
const MCAST_LEAVE_SOURCE_GROUP: c_int = 47;

/// Maximum number of memberships remembered; beyond it the oldest is forgotten.
const MAX_MEMBERSHIPS: usize = 1024;

/// A membership that names no interface.
pub(crate) struct Membership {
    /// Cookie of the socket (SO_COOKIE), because the number may be reused by now.
    cookie: u64,
    level: c_int,
    join: c_int,
    value: Vec<u8>,
}

pub(crate) static MEMBERSHIPS: ForkLock<Vec<Membership>> = ForkLock::new(Vec::new());

/// Action of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The join that the option performs.
    Join,
    Leave(c_int),
    /// Selects the interface for sending to groups.
    Choose,
}

/// The interface that an option names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InterfaceRef {
    Any,
    Address(Ipv4Addr),
    /// A kernel interface, or a network.
    Index(u32),
}

/// Calls setsockopt(2) for a kernel socket that the overlay supports.
///
/// # Safety
/// As setsockopt(2).
pub(crate) unsafe fn set(
    rules: &Rules,
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's pointer goes to the kernel as it is.
    let by_kernel = || unsafe { kernel::setsockopt(fd, level, name, value, length) };
    let Some(act) = act(level, name).filter(|_| !value.is_null() && length <= 1024) else {
        return by_kernel();
    };
    // SAFETY: the caller says that this many bytes are there.
    let bytes = unsafe { slice::from_raw_parts(value.cast::<u8>(), length as usize) };
    let interface = interface(level, name, bytes);
    // SAFETY: the caller's.
    let by_overlay = || unsafe { convert_and_set(&rules.client, fd, (level, name), value, length) };
    // A bound socket stays in the kernel.
    let is_free = || peersock_bsd::bound(fd).is_none_or(|bound| bound.port() == 0);
    let names_overlay = match interface {
        Some(InterfaceRef::Address(ip)) => rules.is_overlays(ip.into()) == Some(true),
        Some(InterfaceRef::Index(index)) => network_of_index(index).is_some(),
        Some(InterfaceRef::Any) | None => false,
    };
    if names_overlay && is_free() {
        return by_overlay();
    }
    let done = by_kernel();
    match (act, interface, done) {
        (Act::Join, Some(InterfaceRef::Any), Err(Errno::NODEV)) if is_free() => return by_overlay(),
        (Act::Join, Some(InterfaceRef::Any), Ok(_)) => remember(fd, level, name, bytes),
        (Act::Leave(join), Some(InterfaceRef::Any), Ok(_)) => forget(fd, level, join, bytes),
        _ => {}
    }
    done
}

/// Repeats on the overlay the memberships that the kernel socket `old` has joined without naming an
/// interface.
pub(crate) fn repeat(old: RawFd, new: &Socket<'_>) {
    let Some(cookie) = cookie(old) else { return };
    let mine: Vec<_> = MEMBERSHIPS.lock().extract_if(.., |known| known.cookie == cookie).collect();
    for Membership { level, join, value, .. } in mine {
        let length = value.len() as socklen_t;
        // SAFETY: the value is as long as the given length. Errors are ignored.
        let _ = unsafe { peersock_bsd::setsockopt(new, level, join, value.as_ptr().cast(), length) };
    }
}

fn remember(fd: RawFd, level: c_int, join: c_int, value: &[u8]) {
    let Some(cookie) = cookie(fd) else { return };
    let membership = Membership { cookie, level, join, value: value.to_vec() };
    let mut known = MEMBERSHIPS.lock();
    if known.len() >= MAX_MEMBERSHIPS {
        known.remove(0);
    }
    known.push(membership);
}

fn forget(fd: RawFd, level: c_int, join: c_int, value: &[u8]) {
    let Some(cookie) = cookie(fd) else { return };
    MEMBERSHIPS.lock().retain(|known| {
        (known.cookie, known.level, known.join, &known.value[..]) != (cookie, level, join, value)
    });
}

fn act(level: c_int, name: c_int) -> Option<Act> {
    Some(match (level, name) {
        (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP | libc::IP_ADD_SOURCE_MEMBERSHIP)
        | (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP)
        | (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_JOIN_GROUP | MCAST_JOIN_SOURCE_GROUP) => Act::Join,
        (libc::IPPROTO_IP, libc::IP_DROP_SOURCE_MEMBERSHIP) => Act::Leave(libc::IP_ADD_SOURCE_MEMBERSHIP),
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_LEAVE_SOURCE_GROUP) => {
            Act::Leave(MCAST_JOIN_SOURCE_GROUP)
        }
        (libc::IPPROTO_IP, libc::IP_DROP_MEMBERSHIP) => Act::Leave(libc::IP_ADD_MEMBERSHIP),
        (libc::IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP) => Act::Leave(libc::IPV6_ADD_MEMBERSHIP),
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_LEAVE_GROUP) => Act::Leave(MCAST_JOIN_GROUP),
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) => Act::Choose,
        _ => return None,
    })
}

/// Parses the interface; `None` if the value is too short.
fn interface(level: c_int, name: c_int, value: &[u8]) -> Option<InterfaceRef> {
    let four = |at: usize| value.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    // Offsets of the address and the index.
    let (address, index) = match (level, name) {
        (_, MCAST_JOIN_GROUP | MCAST_LEAVE_GROUP | MCAST_JOIN_SOURCE_GROUP | MCAST_LEAVE_SOURCE_GROUP) => {
            (None, Some(four(0)?))
        }
        // In `ip_mreq_source` the source follows the interface.
        (libc::IPPROTO_IP, libc::IP_ADD_SOURCE_MEMBERSHIP | libc::IP_DROP_SOURCE_MEMBERSHIP) => {
            (Some(four(4)?), None)
        }
        (libc::IPPROTO_IPV6, _) => (None, Some(four(16)?)),
        // `in_addr` alone, or behind the group: `ip_mreq`, or `ip_mreqn` with an index.
        (_, libc::IP_MULTICAST_IF) if value.len() < 8 => (Some(four(0)?), None),
        _ => (Some(four(4)?), four(8)),
    };
    let address = address.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from);
    Some(match (index.map_or(0, u32::from_ne_bytes), address) {
        (0, Ipv4Addr::UNSPECIFIED) => InterfaceRef::Any,
        (0, address) => InterfaceRef::Address(address),
        (index, _) => InterfaceRef::Index(index),
    })
}
