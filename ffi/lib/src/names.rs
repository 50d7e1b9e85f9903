//! Names of members of the default node's networks, in addition to names that the system knows.

use std::ffi::CStr;
use std::net::IpAddr;
use std::ptr;

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};
use peersock_bsd::address_list;
use peersock_fd::{Interface, Reply, Request};

use crate::boundary::guarded_or;
use crate::registry::{PEERSOCK_DEFAULT, find};

/// As getaddrinfo(3). Names of members of the default node's networks come first, then the names that the
/// system resolves. Free the list with `peersock_freeaddrinfo()`.
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
        // SAFETY: the caller's.
        let name = if node.is_null() { None } else { Some(unsafe { CStr::from_ptr(node) }) };
        let addresses = name.map(|name| look_up(name, is_numeric)).unwrap_or_default();
        let list = match name.filter(|_| !addresses.is_empty()) {
            // SAFETY: the caller's pointers.
            Some(name) => unsafe {
                address_list::of_addresses(libc::getaddrinfo, name, &addresses, service, hints, interfaces)
            },
            None => ptr::null_mut(),
        };
        match list.is_null() {
            // SAFETY: the caller's pointers.
            true => unsafe { libc::getaddrinfo(node, service, hints, result) },
            false => {
                // SAFETY: `result` is not null; the rest is the caller's.
                unsafe { result.write(list) };
                0
            }
        }
    })
}

/// Frees a list from `peersock_getaddrinfo()`. NULL is allowed.
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

/// As getnameinfo(3). Members of the default node's networks have their names there.
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
        // SAFETY: the caller says that this many bytes are there.
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

/// Returns the addresses of a member, unless name lookup is off, or a literal address of the networks.
fn look_up(name: &CStr, is_numeric: bool) -> Vec<IpAddr> {
    let Ok(name) = name.to_str() else { return Vec::new() };
    if let Ok(ip) = name.parse::<IpAddr>() {
        return match ask(Request::Routes) {
            Some(Reply::Routes(routes)) if routes.iter().any(|route| route.contains(ip)) => vec![ip],
            _ => Vec::new(),
        };
    }
    if name.is_empty() || is_numeric {
        return Vec::new();
    }
    match ask(Request::Resolve(name.to_owned())) {
        Some(Reply::Resolved(ips)) => ips,
        _ => Vec::new(),
    }
}

fn interfaces() -> Vec<Interface> {
    match ask(Request::Interfaces) {
        Some(Reply::Interfaces(interfaces)) => interfaces,
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
