//! gethostbyname(3), gethostbyaddr(3) and related functions, which some programs still call: members' names
//! take precedence, as with getaddrinfo(3).

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;
use std::thread::LocalKey;

use libc::{c_char, c_int, c_void, hostent, size_t, socklen_t};
use peersock_bsd::Errno;

use crate::kernel::quietly;
use crate::names::{look_up, name_of, next};
use crate::rules;

type ByName = unsafe extern "C" fn(*const c_char) -> *mut hostent;
type ByName2 = unsafe extern "C" fn(*const c_char, c_int) -> *mut hostent;
type Reentrant = unsafe extern "C" fn(
    *const c_char,
    c_int,
    *mut hostent,
    *mut c_char,
    size_t,
    *mut *mut hostent,
    *mut c_int,
) -> c_int;

type ByAddress = unsafe extern "C" fn(*const c_void, socklen_t, c_int) -> *mut hostent;
type ByAddressReentrant = unsafe extern "C" fn(
    *const c_void,
    socklen_t,
    c_int,
    *mut hostent,
    *mut c_char,
    size_t,
    *mut *mut hostent,
    *mut c_int,
) -> c_int;

/// `h_errno`: there is no such host.
const HOST_NOT_FOUND: c_int = 1;
/// `h_errno`: the resolver cannot answer now.
const TRY_AGAIN: c_int = 2;
/// `h_errno`: the host has no such address.
const NO_DATA: c_int = 4;
/// `h_errno`: `errno` has the error.
const NETDB_INTERNAL: c_int = -1;

unsafe extern "C" {
    fn __h_errno_location() -> *mut c_int;
}

/// Result of a lookup by name.
enum Answer {
    Addresses(Vec<IpAddr>),
    /// The system's resolver must answer.
    Next,
    /// No resolver must be asked; the number is for `h_errno`.
    Failed(c_int),
}

/// # Safety
/// `name` is a C string.
unsafe fn answer(name: *const c_char, family: c_int) -> Answer {
    // SAFETY: the caller's.
    let name = unsafe { CStr::from_ptr(name) };
    let mut addresses = match look_up(name) {
        Ok(addresses) => addresses,
        Err(Errno::NOENT) => return Answer::Failed(HOST_NOT_FOUND),
        Err(_) => return Answer::Failed(TRY_AGAIN),
    };
    if addresses.is_empty() {
        let is_literal = name.to_str().is_ok_and(|name| name.parse::<IpAddr>().is_ok());
        return match !is_literal && rules().is_some_and(|rules| rules.only) {
            true => Answer::Failed(HOST_NOT_FOUND),
            false => Answer::Next,
        };
    }
    addresses.retain(|ip| ip.is_ipv4() == (family == libc::AF_INET));
    if addresses.is_empty() { Answer::Failed(NO_DATA) } else { Answer::Addresses(addresses) }
}

/// Writes a result into the caller's buffer: the list of addresses, the empty list of aliases, and the bytes.
/// Returns `None` if it does not fit.
///
/// # Safety
/// `entry` can be written to, and `room` bytes at `buf`.
unsafe fn fill(
    name: &CStr,
    family: c_int,
    addresses: &[IpAddr],
    entry: *mut hostent,
    buf: *mut c_char,
    room: size_t,
) -> Option<()> {
    let pointer = size_of::<*mut c_char>();
    let length = if family == libc::AF_INET { size_of::<Ipv4Addr>() } else { size_of::<Ipv6Addr>() };
    let name = name.to_bytes_with_nul();
    let pad = buf.align_offset(pointer);
    let pointers = addresses.len() + 2;
    if pad.checked_add(pointers * pointer + addresses.len() * length + name.len())? > room {
        return None;
    }
    // SAFETY: that much room is there, as was just computed, here and below.
    let list = unsafe { buf.add(pad) }.cast::<*mut c_char>();
    // SAFETY: see above.
    let mut bytes = unsafe { list.add(pointers) }.cast::<c_char>();
    for (at, ip) in addresses.iter().enumerate() {
        let (v4, v6);
        let octets: &[u8] = match ip {
            IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        // SAFETY: see above.
        unsafe {
            ptr::copy_nonoverlapping(octets.as_ptr().cast(), bytes, length);
            *list.add(at) = bytes;
            bytes = bytes.add(length);
        }
    }
    // SAFETY: see above; the entry is the caller's.
    unsafe {
        *list.add(addresses.len()) = ptr::null_mut();
        let aliases = list.add(addresses.len() + 1);
        *aliases = ptr::null_mut();
        ptr::copy_nonoverlapping(name.as_ptr().cast(), bytes, name.len());
        *entry = hostent {
            h_name: bytes,
            h_aliases: aliases,
            h_addrtype: family,
            h_length: length as c_int,
            h_addr_list: list,
        };
    }
    Some(())
}

/// # Safety
/// As gethostbyname2_r(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    entry: *mut hostent,
    buf: *mut c_char,
    room: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    let get = || {
        // SAFETY: the program's pointers, as it must pass them to gethostbyname2_r(3).
        unsafe { get_into(name, family, entry, buf, room, result, error) }
    };
    quietly(|error| *error == 0, get)
}

/// # Safety
/// As gethostbyname2_r(3).
unsafe fn get_into(
    name: *const c_char,
    family: c_int,
    entry: *mut hostent,
    buf: *mut c_char,
    room: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's, here and below.
    match unsafe { answer(name, family) } {
        Answer::Addresses(addresses) => {
            // SAFETY: see above.
            unsafe { give(CStr::from_ptr(name), family, &addresses, (entry, buf, room), result, error) }
        }
        // SAFETY: see above.
        Answer::Failed(reason) => unsafe { refuse(reason, result, error) },
        Answer::Next => match next!(Reentrant, c"gethostbyname2_r") {
            // SAFETY: see above.
            Some(next) => unsafe { next(name, family, entry, buf, room, result, error) },
            None => libc::ENOSYS,
        },
    }
}

/// Returns a failure to the caller of a reentrant function: only one that may pass is an error there.
///
/// # Safety
/// `result` and `error` can be written to.
unsafe fn refuse(reason: c_int, result: *mut *mut hostent, error: *mut c_int) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        *result = ptr::null_mut();
        *error = reason;
    }
    if reason == TRY_AGAIN { libc::EAGAIN } else { 0 }
}

/// Returns a result to the caller of a reentrant function.
///
/// # Safety
/// Like [`fill`]; `result` and `error` can be written to.
unsafe fn give(
    name: &CStr,
    family: c_int,
    addresses: &[IpAddr],
    (entry, buf, room): (*mut hostent, *mut c_char, size_t),
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's.
    let filled = unsafe { fill(name, family, addresses, entry, buf, room) };
    // SAFETY: the caller's.
    unsafe {
        *result = if filled.is_some() { entry } else { ptr::null_mut() };
        *error = if filled.is_some() { 0 } else { NETDB_INTERNAL };
    }
    if filled.is_some() { 0 } else { libc::ERANGE }
}

/// # Safety
/// As gethostbyname_r(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    entry: *mut hostent,
    buf: *mut c_char,
    room: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { gethostbyname2_r(name, libc::AF_INET, entry, buf, room, result, error) }
}

/// # Safety
/// As gethostbyname2(3): the result lasts until the thread's next call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the program's pointer, as it must pass it to gethostbyname2(3).
    quietly(|found: &*mut hostent| !found.is_null(), || unsafe { get(name, family) })
}

/// # Safety
/// As gethostbyname2(3).
unsafe fn get(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the caller's.
    match unsafe { answer(name, family) } {
        // SAFETY: the caller's.
        Answer::Addresses(addresses) => keep(&BY_NAME, unsafe { CStr::from_ptr(name) }, family, &addresses),
        Answer::Failed(reason) => fail(reason),
        Answer::Next if family == libc::AF_INET => match next!(ByName, c"gethostbyname") {
            // SAFETY: as above.
            Some(next) => unsafe { next(name) },
            None => fail(NETDB_INTERNAL),
        },
        Answer::Next => match next!(ByName2, c"gethostbyname2") {
            // SAFETY: as above.
            Some(next) => unsafe { next(name, family) },
            None => fail(NETDB_INTERNAL),
        },
    }
}

/// Buffer of a thread, where a result lasts until the next call.
#[repr(align(16))]
struct Kept(hostent, [c_char; BUFFER_BYTES]);

/// Length of the buffer for a name and addresses, bytes.
const BUFFER_BYTES: usize = 4096;

thread_local! {
    // The buffer is on the heap, because the static thread-local memory of all libraries reduces each
    // thread's stack. A stack may have only 16 KiB (PTHREAD_STACK_MIN). Programs look up the name they have
    // got for an address, so each function has its own buffer.
    static BY_NAME: Room = const { Room(Cell::new(ptr::null_mut())) };
    static BY_ADDRESS: Room = const { Room(Cell::new(ptr::null_mut())) };
}

/// A thread's buffer, allocated at its first use, and freed when the thread ends.
struct Room(Cell<*mut MaybeUninit<Kept>>);

impl Room {
    fn get(&self) -> *mut MaybeUninit<Kept> {
        if self.0.get().is_null() {
            self.0.set(Box::into_raw(Box::<Kept>::new_uninit()));
        }
        self.0.get()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let kept = self.0.get();
        if !kept.is_null() {
            // SAFETY: `get` has made it from a box, and nothing uses it after its thread.
            drop(unsafe { Box::from_raw(kept) });
        }
    }
}

/// Writes a result into such a buffer.
fn keep(room: &'static LocalKey<Room>, name: &CStr, family: c_int, addresses: &[IpAddr]) -> *mut hostent {
    // The name may be in that buffer, from an earlier call.
    let name = &*name.to_owned();
    let filled = room.try_with(|room| {
        let kept = room.get().cast::<Kept>();
        // SAFETY: this thread's, and no other code uses it during the call.
        unsafe {
            let (entry, buf) = (&raw mut (*kept).0, (&raw mut (*kept).1).cast());
            fill(name, family, addresses, entry, buf, BUFFER_BYTES).map(|()| entry)
        }
    });
    // A thread that is ending no longer has the buffer.
    filled.ok().flatten().unwrap_or_else(|| fail(NETDB_INTERNAL))
}

/// # Safety
/// As gethostbyname(3): the result lasts until the thread's next call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: the caller's.
    unsafe { gethostbyname2(name, libc::AF_INET) }
}

/// Result of a lookup by address.
enum Called {
    /// A member.
    Member(CString, IpAddr),
    /// The system's resolver must answer.
    Next,
    /// There is no name, or no answer; the number is for `h_errno`. Other resolvers must not be asked about
    /// an overlay address.
    Failed(c_int),
}

/// Looks up the name of an address.
///
/// # Safety
/// `address` points to `length` bytes, or is null.
unsafe fn name_at(address: *const c_void, length: socklen_t, family: c_int) -> Called {
    let ip: IpAddr = match (family, length as usize) {
        _ if address.is_null() => return Called::Next,
        // SAFETY: the caller's: this many bytes are there.
        (libc::AF_INET, 4) => Ipv4Addr::from(unsafe { address.cast::<[u8; 4]>().read_unaligned() }).into(),
        // SAFETY: the same.
        (libc::AF_INET6, 16) => Ipv6Addr::from(unsafe { address.cast::<[u8; 16]>().read_unaligned() }).into(),
        _ => return Called::Next,
    };
    let ours = rules().filter(|rules| rules.only || rules.is_overlays(ip.to_canonical()) != Some(false));
    let Some(rules) = ours else { return Called::Next };
    match name_of(rules, ip.to_canonical()) {
        Ok(Some(name)) => Called::Member(name, ip),
        Ok(None) => Called::Failed(HOST_NOT_FOUND),
        Err(_) => Called::Failed(TRY_AGAIN),
    }
}

/// # Safety
/// As gethostbyaddr_r(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyaddr_r(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
    entry: *mut hostent,
    buf: *mut c_char,
    room: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    let get = || {
        // SAFETY: the program's pointers, as it must pass them to gethostbyaddr_r(3), here and below.
        match unsafe { name_at(address, length, family) } {
            // SAFETY: see above.
            Called::Member(name, ip) => unsafe {
                give(&name, family, &[ip], (entry, buf, room), result, error)
            },
            // SAFETY: see above.
            Called::Failed(reason) => unsafe { refuse(reason, result, error) },
            Called::Next => match next!(ByAddressReentrant, c"gethostbyaddr_r") {
                // SAFETY: see above.
                Some(next) => unsafe { next(address, length, family, entry, buf, room, result, error) },
                None => libc::ENOSYS,
            },
        }
    };
    quietly(|error| *error == 0, get)
}

/// # Safety
/// As gethostbyaddr(3): the result lasts until the thread's next call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gethostbyaddr(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> *mut hostent {
    let get = || {
        // SAFETY: the program's pointer, as it must pass it to gethostbyaddr(3), here and below.
        match unsafe { name_at(address, length, family) } {
            Called::Member(name, ip) => keep(&BY_ADDRESS, &name, family, &[ip]),
            Called::Failed(reason) => fail(reason),
            Called::Next => match next!(ByAddress, c"gethostbyaddr") {
                // SAFETY: see above.
                Some(next) => unsafe { next(address, length, family) },
                None => fail(NETDB_INTERNAL),
            },
        }
    };
    quietly(|found: &*mut hostent| !found.is_null(), get)
}

fn fail(error: c_int) -> *mut hostent {
    // SAFETY: the C library's variable of this thread.
    unsafe { *__h_errno_location() = error };
    ptr::null_mut()
}
