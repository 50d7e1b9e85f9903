//! Interfaces: the networks are listed behind the machine's own, so that programs that bind to each address
//! of the machine serve the overlay, too. This module replaces the C library's functions. For programs that
//! ask the kernel, see `netlink` and `peersock_bsd::interface_requests`.

use std::ffi::{CStr, CString};
use std::mem::{offset_of, zeroed};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::{ptr, slice};

use libc::{c_char, c_int, c_uint, c_void, ifaddrs, sockaddr, sockaddr_storage, socklen_t};
use peersock_bsd::interface::{FLAGS, netmask};
use peersock_bsd::{Errno, Rules, kernel, name_index, write_address};
use peersock_fd::{Interface, Route};

use crate::convert::convert_and_set;
use crate::kernel::{quietly, set_errno};
use crate::names::next;
use crate::rules;

type GetIfAddrs = unsafe extern "C" fn(*mut *mut ifaddrs) -> c_int;
type FreeIfAddrs = unsafe extern "C" fn(*mut ifaddrs);
type IfNameIndex = unsafe extern "C" fn() -> *mut libc::if_nameindex;
type FreeNameIndex = unsafe extern "C" fn(*mut libc::if_nameindex);
type NameToIndex = unsafe extern "C" fn(*const c_char) -> c_uint;
type IndexToName = unsafe extern "C" fn(c_uint, *mut c_char) -> *mut c_char;

/// An entry of this library in a list of getifaddrs(3). Its name lies right behind the public part. That
/// distinguishes it from the C library's entries, whose addresses lie there.
#[repr(C)]
struct Entry {
    shown: ifaddrs,
    name: [c_char; libc::IF_NAMESIZE],
    address: sockaddr_storage,
    netmask: sockaddr_storage,
}

impl Entry {
    fn allocate(name: &str, of: &Route) -> Box<Self> {
        // SAFETY: zeros are null pointers, empty names and addresses of no family.
        let mut entry: Box<Self> = Box::new(unsafe { zeroed() });
        for (to, byte) in entry.name[..libc::IF_NAMESIZE - 1].iter_mut().zip(name.bytes()) {
            *to = byte as c_char;
        }
        put(of.address, &mut entry.address);
        put(netmask(of), &mut entry.netmask);
        entry.shown.ifa_name = entry.name.as_mut_ptr();
        entry.shown.ifa_flags = FLAGS as c_uint;
        entry.shown.ifa_addr = (&raw mut entry.address).cast::<sockaddr>();
        entry.shown.ifa_netmask = (&raw mut entry.netmask).cast::<sockaddr>();
        entry
    }

    /// # Safety
    /// It is an entry of a list of getifaddrs(3).
    unsafe fn is_ours(shown: *const ifaddrs) -> bool {
        // SAFETY: the caller's.
        unsafe { (*shown).ifa_name }.addr() == shown.addr() + offset_of!(Entry, name)
    }
}

fn put(ip: IpAddr, to: &mut sockaddr_storage) {
    let mut length = size_of::<sockaddr_storage>() as socklen_t;
    // SAFETY: there are this many bytes.
    let written = unsafe { write_address((ip, 0).into(), ptr::from_mut(to).cast(), &raw mut length) };
    debug_assert_eq!(written, Ok(()), "any address fits");
}

/// # Safety
/// As getifaddrs(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getifaddrs(list: *mut *mut ifaddrs) -> c_int {
    quietly(
        |error| *error == 0,
        || {
            let Some(next) = next!(GetIfAddrs, c"getifaddrs") else {
                set_errno(libc::ENOSYS);
                return -1;
            };
            // SAFETY: the program's pointer, as it must pass it to getifaddrs(3).
            let error = unsafe { next(list) };
            if error == 0 {
                let mut end = list;
                // SAFETY: the C library has just made the list, which ends with null; what is appended is
                // new.
                unsafe {
                    while !(*end).is_null() {
                        end = &raw mut (**end).ifa_next;
                    }
                    for interface in &networks() {
                        for address in &interface.addresses {
                            *end = Box::into_raw(Entry::allocate(&interface.name, address)).cast();
                            end = &raw mut (**end).ifa_next;
                        }
                    }
                }
            }
            error
        },
    )
}

/// # Safety
/// As freeifaddrs(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn freeifaddrs(list: *mut ifaddrs) {
    let next = next!(FreeIfAddrs, c"freeifaddrs");
    let mut first = list;
    let mut end = &raw mut first;
    // SAFETY: a list of getifaddrs(3), which ends with null; the entries of this library are at its end, and
    // each is a box.
    unsafe {
        while !(*end).is_null() && !Entry::is_ours(*end) {
            end = &raw mut (**end).ifa_next;
        }
        let mut ours = std::mem::replace(&mut *end, ptr::null_mut());
        while !ours.is_null() {
            let entry = Box::from_raw(ours.cast::<Entry>());
            ours = entry.shown.ifa_next;
        }
        if let Some(next) = next.filter(|_| !first.is_null()) {
            next(first);
        }
    }
}

/// if_nameindex(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn if_nameindex() -> *mut libc::if_nameindex {
    quietly(
        |list: &*mut libc::if_nameindex| !list.is_null(),
        || {
            let Some(next) = next!(IfNameIndex, c"if_nameindex") else { return ptr::null_mut() };
            let Some(free) = next!(FreeNameIndex, c"if_freenameindex") else { return ptr::null_mut() };
            // SAFETY: it takes nothing.
            let machines = unsafe { next() };
            if machines.is_null() {
                return machines;
            }
            let mut all = Vec::new();
            let mut at = machines;
            // SAFETY: the array ends with the first entry without a name. It is copied, because the C
            // library's array cannot grow.
            unsafe {
                while !(*at).if_name.is_null() {
                    all.push(((*at).if_index, CStr::from_ptr((*at).if_name).to_owned()));
                    at = at.add(1);
                }
                free(machines);
            }
            let named = |found: Interface| (found.index, CString::new(found.name).unwrap_or_default());
            all.extend(networks().into_iter().map(named));
            name_index::list(all)
        },
    )
}

/// # Safety
/// As if_freenameindex(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn if_freenameindex(list: *mut libc::if_nameindex) {
    // SAFETY: made by `if_nameindex` above, or null.
    unsafe { name_index::free(list) };
}

/// # Safety
/// As if_nametoindex(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn if_nametoindex(name: *const c_char) -> c_uint {
    quietly(
        |index| *index != 0,
        || {
            // SAFETY: the program's pointer, as it must pass it to if_nametoindex(3).
            let machines = next!(NameToIndex, c"if_nametoindex").map_or(0, |next| unsafe { next(name) });
            if machines != 0 || name.is_null() {
                return machines;
            }
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            let ours = networks().into_iter().find(|interface| interface.name.as_bytes() == name);
            ours.map_or(0, |interface| interface.index)
        },
    )
}

/// # Safety
/// As if_indextoname(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn if_indextoname(index: c_uint, name: *mut c_char) -> *mut c_char {
    quietly(
        |name: &*mut c_char| !name.is_null(),
        || {
            let machines = next!(IndexToName, c"if_indextoname")
                // SAFETY: the program's pointer, as it must pass it to if_indextoname(3).
                .map_or(ptr::null_mut(), |next| unsafe { next(index, name) });
            if !machines.is_null() {
                return machines;
            }
            let Some(ours) = networks().into_iter().find(|interface| interface.index == index) else {
                return machines;
            };
            let bytes = &ours.name.as_bytes()[..ours.name.len().min(libc::IF_NAMESIZE - 1)];
            // SAFETY: the program guarantees room for IF_NAMESIZE bytes.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr().cast(), name, bytes.len());
                *name.add(bytes.len()) = 0;
            }
            name
        },
    )
}

/// Handles SO_BINDTODEVICE of a kernel socket that the overlay supports: the name of a network turns it into
/// an overlay socket.
///
/// # Safety
/// `value` points to `length` bytes.
pub(crate) unsafe fn bind_to(
    rules: &Rules,
    fd: RawFd,
    value: *const c_void,
    length: socklen_t,
) -> Result<c_int, Errno> {
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    let room = (length as usize).min(libc::IF_NAMESIZE);
    // SAFETY: the caller says that this many bytes are there.
    let bytes = if value.is_null() { &[][..] } else { unsafe { slice::from_raw_parts(value.cast(), room) } };
    // With or without its terminating zero.
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_networks = || networks().iter().any(|interface| interface.name.as_bytes() == name);
    if name.is_empty() || !is_networks() {
        // SAFETY: the caller's.
        return unsafe { kernel::setsockopt(fd, level, option, value, length) };
    }
    // SAFETY: the caller's.
    unsafe { convert_and_set(&rules.client, fd, (level, option), value, length) }
}

/// Returns the networks, if this process was started by `peersock run`.
pub(crate) fn networks() -> Vec<Interface> {
    rules().map(|rules| rules.client.interfaces()).unwrap_or_default()
}
