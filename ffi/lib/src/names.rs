//! Names of members of the default node's networks, beside those that the system knows.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::ptr;

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};
use peersock_bsd::address_list;
use peersock_fd::{Reply, Request};

use crate::boundary::guarded_or;
use crate::registry::{PEERSOCK_DEFAULT, find};

/// As getaddrinfo(3). Names of members of the default node's networks come first, then what the system knows.
/// Give the list to `peersock_freeaddrinfo()`.
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    guarded_or(libc::EAI_FAIL, || {
        if result.is_null() {
            return libc::EAI_FAIL;
        }
        // SAFETY: the caller's; null is allowed.
        let is_numeric =
            unsafe { hints.as_ref() }.is_some_and(|hints| hints.ai_flags & libc::AI_NUMERICHOST != 0);
        let literals = match node.is_null() || is_numeric {
            true => Vec::new(),
            // SAFETY: the caller's.
            false => look_up(unsafe { CStr::from_ptr(node) }),
        };
        let mut list: *mut addrinfo = ptr::null_mut();
        for literal in literals.iter().rev() {
            let mut found: *mut addrinfo = ptr::null_mut();
            // An address of another family than wanted is no answer.
            // SAFETY: the caller's pointers, and our own.
            if unsafe { libc::getaddrinfo(literal.as_ptr(), service, hints, &raw mut found) } == 0 {
                // SAFETY: both lists are the C library's.
                list = unsafe { address_list::join(found, list) };
            }
        }
        match list.is_null() {
            // SAFETY: the caller's pointers.
            true => unsafe { libc::getaddrinfo(node, service, hints, result) },
            false => {
                // SAFETY: the list is the C library's, and `result` not null; the rest is the caller's.
                unsafe {
                    address_list::set_canonical_name(list, CStr::from_ptr(node), hints);
                    result.write(list);
                }
                0
            }
        }
    })
}

/// Frees what `peersock_getaddrinfo()` has made. NULL is allowed.
///
/// # Safety
/// `list` is NULL or comes from `peersock_getaddrinfo()` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_freeaddrinfo(list: *mut addrinfo) {
    if !list.is_null() {
        // SAFETY: the caller's.
        guarded_or((), || unsafe { libc::freeaddrinfo(list) });
    }
}

/// As getnameinfo(3). Members of the default node's networks are known by their names there.
///
/// # Safety
/// Pointers must be what the call of the same name in POSIX asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_getnameinfo(
    address: *const sockaddr,
    length: socklen_t,
    host: *mut c_char,
    host_size: socklen_t,
    service: *mut c_char,
    service_size: socklen_t,
    flags: c_int,
) -> c_int {
    guarded_or(libc::EAI_FAIL, || {
        if address.is_null() {
            return libc::EAI_FAMILY;
        }
        let wants_name = !host.is_null() && host_size > 0 && flags & libc::NI_NUMERICHOST == 0;
        // SAFETY: the caller's.
        let ip =
            unsafe { peersock_bsd::read_address(address, length) }.ok().flatten().map(|found| found.ip());
        let name = if wants_name { ip.and_then(name_of) } else { None };
        let Some(name) = name else {
            // SAFETY: the caller's pointers.
            return unsafe {
                libc::getnameinfo(address, length, host, host_size, service, service_size, flags)
            };
        };
        // SAFETY: the caller says that so many bytes are there.
        if unsafe { crate::text::write(&name, host, host_size as usize) }.is_err() {
            return libc::EAI_OVERFLOW;
        }
        match service.is_null() || service_size == 0 {
            true => 0,
            // SAFETY: the caller's pointers.
            false => unsafe {
                libc::getnameinfo(address, length, ptr::null_mut(), 0, service, service_size, flags)
            },
        }
    })
}

/// As gai_strerror(3).
#[unsafe(no_mangle)]
pub extern "C" fn peersock_gai_strerror(error: c_int) -> *const c_char {
    // SAFETY: any number is allowed.
    unsafe { libc::gai_strerror(error) }
}

/// The addresses of a member, as texts.
fn look_up(name: &CStr) -> Vec<CString> {
    let Ok(name) = name.to_str() else { return Vec::new() };
    if name.parse::<IpAddr>().is_ok() || name.is_empty() {
        return Vec::new();
    }
    match ask(Request::Resolve(name.to_owned())) {
        Some(Reply::Resolved(ips)) => ips.iter().filter_map(|ip| CString::new(ip.to_string()).ok()).collect(),
        _ => Vec::new(),
    }
}

fn name_of(ip: IpAddr) -> Option<String> {
    match ask(Request::NameOf(ip)) {
        Some(Reply::Name(name)) => name,
        _ => None,
    }
}

fn ask(request: Request) -> Option<Reply> {
    find(PEERSOCK_DEFAULT).ok()?.client.ask(request).ok()
}
