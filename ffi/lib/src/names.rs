//! Names of members of the default node's networks, in addition to names that the system knows.

use std::ffi::CStr;
use std::net::IpAddr;
use std::ptr;
use std::sync::Arc;

use libc::{addrinfo, c_char, c_int, sockaddr, socklen_t};
use peersock_bsd::{Errno, address_list, member_names};
use peersock_fd::{Interface, Reply, Request};

use crate::boundary::guarded_or;
use crate::registry::{PEERSOCK_DEFAULT, Running, find};

/// As getaddrinfo(3). Names of members of the default node's networks come first, then the names that the
/// system resolves. When the node has ended or does not answer, the system is asked about `localhost` only:
/// the error for other names is EAI_AGAIN. The system is not asked, either, about names that end with the
/// local name or the ID of a network, such as `alpha.team`: if no member has one, the error is EAI_NONAME.
/// Free the list with `peersock_freeaddrinfo()`.
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
        let addresses = name.map_or(Ok(Vec::new()), |name| look_up(name, is_numeric));
        let (ours, is_absent) = (addresses.as_deref().unwrap_or_default(), addresses == Err(Errno::NOENT));
        let get = libc::getaddrinfo;
        let list = match name.filter(|_| !ours.is_empty()) {
            // SAFETY: the caller's pointers.
            Some(name) => unsafe { address_list::of_addresses(get, name, ours, service, hints, interfaces) },
            None => ptr::null_mut(),
        };
        match list.is_null() {
            // SAFETY: the caller's pointers.
            true if addresses.is_ok() && ours.is_empty() => unsafe { get(node, service, hints, result) },
            // SAFETY: the same.
            true => unsafe {
                let is_answered = addresses.is_ok() || is_absent;
                address_list::of_literal(get, node, service, hints, result, is_answered)
            },
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

/// As getnameinfo(3). Members of the default node's networks have their names there. The system is not asked
/// about other addresses of the networks, nor about any when the node has ended or does not answer; then the
/// error for NI_NAMEREQD is EAI_AGAIN.
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
        let called = match ip.filter(|_| wants_name) {
            Some(ip) => name_at(ip.to_canonical()),
            None => Called::Next,
        };
        let flags = match called {
            Called::Failed(error) if flags & libc::NI_NAMEREQD != 0 => return error,
            Called::Failed(_) => flags | libc::NI_NUMERICHOST,
            _ => flags,
        };
        let Called::Member(name) = called else {
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

/// Returns the addresses of a member, unless name lookup is off, or a literal address of the networks; none
/// for other names.
fn look_up(name: &CStr, is_numeric: bool) -> Result<Vec<IpAddr>, Errno> {
    let Ok(name) = name.to_str() else { return Ok(Vec::new()) };
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(if is_overlays(ip) == Ok(true) { vec![ip] } else { Vec::new() });
    }
    if name.is_empty() || is_numeric {
        return Ok(Vec::new());
    }
    match node() {
        Ok(running) => member_names::addresses_of(&running.client, name),
        Err(_) if member_names::is_localhost(name) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_overlays(ip: IpAddr) -> Result<bool, Errno> {
    match ask(Request::Routes)? {
        Reply::Routes(routes) => Ok(routes.iter().any(|route| route.contains(ip))),
        _ => Err(Errno::PROTO),
    }
}

fn interfaces() -> Vec<Interface> {
    match ask(Request::Interfaces) {
        Ok(Reply::Interfaces(interfaces)) => interfaces,
        _ => Vec::new(),
    }
}

/// Result of a lookup by address.
enum Called {
    Member(String),
    /// The system's resolver must answer.
    Next,
    /// There is no name, or no answer: the error if a name is required.
    Failed(c_int),
}

fn name_at(ip: IpAddr) -> Called {
    let name = node().and_then(|running| member_names::name_of(&running.client, ip));
    match name {
        Ok(Some(name)) => Called::Member(name),
        // Names of the machine itself are no other's.
        _ if ip.is_loopback() => Called::Next,
        Ok(None) => match is_overlays(ip) {
            Ok(false) => Called::Next,
            Ok(true) => Called::Failed(libc::EAI_NONAME),
            Err(_) => Called::Failed(libc::EAI_AGAIN),
        },
        Err(_) => Called::Failed(libc::EAI_AGAIN),
    }
}

fn node() -> Result<Arc<Running>, Errno> {
    find(PEERSOCK_DEFAULT).map_err(|_| Errno::NETDOWN)
}

fn ask(request: Request) -> Result<Reply, Errno> {
    node()?.client.ask(request)
}
