//! Lookup of members' names before the system's resolver. The resolver is not asked where only the overlay is
//! allowed, nor about names and addresses that the node cannot be asked about.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::ptr;

use libc::{AI_NUMERICHOST, addrinfo, c_char, c_int, sockaddr, socklen_t};
use peersock_bsd::address_list::{self, GetAddrInfo};
use peersock_bsd::{Errno, Rules, member_names, read_address};

use crate::kernel::quietly;
use crate::{interfaces, rules};

type GetNameInfo = unsafe extern "C" fn(
    *const sockaddr,
    socklen_t,
    *mut c_char,
    socklen_t,
    *mut c_char,
    socklen_t,
    c_int,
) -> c_int;

/// Finds the C library's function of a name, once.
macro_rules! next {
    ($type:ty, $name:literal) => {{
        static FUNCTION: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        // SAFETY: the name is a C string.
        let find = || unsafe { libc::dlsym(libc::RTLD_NEXT, $name.as_ptr()) } as usize;
        let address = *FUNCTION.get_or_init(find) as *mut libc::c_void;
        // SAFETY: the C library's function of that name has this type.
        (!address.is_null()).then(|| unsafe { std::mem::transmute::<*mut libc::c_void, $type>(address) })
    }};
}
pub(crate) use next;

/// # Safety
/// As getaddrinfo(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to getaddrinfo(3).
    quietly(|error| *error == 0, || unsafe { get_addresses(node, service, hints, result) })
}

/// # Safety
/// As getaddrinfo(3).
unsafe fn get_addresses(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    let Some(next) = next!(GetAddrInfo, c"getaddrinfo") else { return libc::EAI_SYSTEM };
    // SAFETY: the caller's.
    let name = if node.is_null() { None } else { Some(unsafe { CStr::from_ptr(node) }) };
    // SAFETY: the caller's.
    let is_numeric = unsafe { hints.as_ref() }.is_some_and(|hints| hints.ai_flags & AI_NUMERICHOST != 0);
    let addresses = match name {
        Some(name) => match overlays_literal(name) {
            Some(ip) => Ok(vec![ip]),
            None if is_numeric => Ok(Vec::new()),
            None => look_up(name),
        },
        None => Ok(Vec::new()),
    };
    let (ours, is_absent) = (addresses.as_deref().unwrap_or_default(), addresses == Err(Errno::NOENT));
    let is_answered = addresses.is_ok() || is_absent;
    let list = match name.filter(|_| !ours.is_empty()) {
        // SAFETY: the caller's.
        Some(name) => unsafe {
            address_list::of_addresses(next, name, ours, service, hints, interfaces::networks)
        },
        None => ptr::null_mut(),
    };
    if !list.is_null() {
        // SAFETY: the program guarantees room for the list.
        unsafe { *result = list };
        return 0;
    }
    let is_systems = addresses.is_ok() && ours.is_empty() && !rules().is_some_and(|rules| rules.only);
    if name.is_none() || is_systems {
        // SAFETY: as above.
        return unsafe { next(node, service, hints, result) };
    }
    // The resolver would ask other hosts, partly by ways that this library cannot block.
    // SAFETY: as above.
    unsafe { address_list::of_literal(next, node, service, hints, result, is_answered) }
}

/// Parses a literal overlay address.
fn overlays_literal(text: &CStr) -> Option<IpAddr> {
    let ip = text.to_str().ok()?.parse().ok()?;
    rules()?.is_overlays(ip).filter(|is_overlays| *is_overlays).map(|_| ip)
}

/// Replaces getnameinfo(3). Names of overlay addresses are never queried outside the overlay.
///
/// # Safety
/// As getnameinfo(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getnameinfo(
    address: *const sockaddr,
    length: socklen_t,
    host: *mut c_char,
    host_room: socklen_t,
    service: *mut c_char,
    service_room: socklen_t,
    flags: c_int,
) -> c_int {
    let get = || {
        // SAFETY: the program's pointers, as it must pass them to getnameinfo(3).
        unsafe { get_names(address, length, host, host_room, service, service_room, flags) }
    };
    quietly(|error| *error == 0, get)
}

/// # Safety
/// As getnameinfo(3).
unsafe fn get_names(
    address: *const sockaddr,
    length: socklen_t,
    host: *mut c_char,
    host_room: socklen_t,
    service: *mut c_char,
    service_room: socklen_t,
    flags: c_int,
) -> c_int {
    let Some(next) = next!(GetNameInfo, c"getnameinfo") else { return libc::EAI_SYSTEM };
    let wants_name = !host.is_null() && host_room > 0 && flags & libc::NI_NUMERICHOST == 0;
    // SAFETY: the caller's.
    let ip = match unsafe { read_address(address, length) } {
        Ok(Some(address)) if wants_name => Some(address.ip().to_canonical()),
        _ => None,
    };
    let ours = ip.zip(rules()).filter(|(ip, rules)| rules.only || rules.is_overlays(*ip) != Some(false));
    let Some((ip, rules)) = ours else {
        // SAFETY: as above.
        return unsafe { next(address, length, host, host_room, service, service_room, flags) };
    };
    let name = match name_of(rules, ip) {
        Ok(Some(name)) => name,
        Ok(None) if flags & libc::NI_NAMEREQD != 0 => return libc::EAI_NONAME,
        Err(_) if flags & libc::NI_NAMEREQD != 0 => return libc::EAI_AGAIN,
        _ => {
            let flags = flags | libc::NI_NUMERICHOST;
            // SAFETY: as above.
            return unsafe { next(address, length, host, host_room, service, service_room, flags) };
        }
    };
    let name = name.as_bytes_with_nul();
    if name.len() > host_room as usize {
        return libc::EAI_OVERFLOW;
    }
    // SAFETY: the program guarantees that much room.
    unsafe { ptr::copy_nonoverlapping(name.as_ptr().cast(), host, name.len()) };
    if service.is_null() || service_room == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { next(address, length, ptr::null_mut(), 0, service, service_room, flags & !libc::NI_NAMEREQD) }
}

/// Returns the addresses of a member; none if the name is no member's.
///
/// # Errors
/// Those of [`member_names::addresses_of`].
pub(crate) fn look_up(name: &CStr) -> Result<Vec<IpAddr>, Errno> {
    let (Some(rules), Ok(name)) = (rules(), name.to_str()) else { return Ok(Vec::new()) };
    member_names::addresses_of(&rules.client, name)
}

/// Returns the name of a member; `None` if the address is no member's.
///
/// # Errors
/// The node has not answered.
pub(crate) fn name_of(rules: &Rules, ip: IpAddr) -> Result<Option<CString>, Errno> {
    Ok(member_names::name_of(&rules.client, ip)?.and_then(|name| CString::new(name).ok()))
}
