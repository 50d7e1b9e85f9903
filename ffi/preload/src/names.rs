//! Names of members: found before the system's resolver is asked.

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::OnceLock;

use libc::{addrinfo, c_char, c_int, c_void};
use peersock_fd::{Reply, Request};

use crate::rules;

type GetAddrInfo =
    unsafe extern "C" fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;

/// The C library's function.
fn next() -> Option<GetAddrInfo> {
    static NEXT: OnceLock<usize> = OnceLock::new();
    // SAFETY: the name is a C string.
    let address =
        *NEXT.get_or_init(|| unsafe { libc::dlsym(libc::RTLD_NEXT, c"getaddrinfo".as_ptr()) } as usize);
    let address = address as *mut c_void;
    // SAFETY: the C library's function of that name has this type.
    (!address.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, GetAddrInfo>(address) })
}

/// # Safety
/// As getaddrinfo(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    let Some(next) = next() else { return libc::EAI_SYSTEM };
    // SAFETY: the program's pointers, as it must pass them to getaddrinfo(3).
    let literals = if node.is_null() { Vec::new() } else { look_up(unsafe { CStr::from_ptr(node) }) };
    let mut list: *mut addrinfo = ptr::null_mut();
    for literal in literals.iter().rev() {
        let mut found: *mut addrinfo = ptr::null_mut();
        // An address of another family than wanted is no answer.
        // SAFETY: as above.
        if unsafe { next(literal.as_ptr(), service, hints, &raw mut found) } != 0 {
            continue;
        }
        // The C library's lists can be joined: it allocates and frees them entry by entry.
        let mut last = found;
        // SAFETY: the C library has just made the list, which ends with null.
        unsafe {
            while !(*last).ai_next.is_null() {
                last = (*last).ai_next;
            }
            (*last).ai_next = list;
        }
        list = found;
    }
    if list.is_null() {
        // SAFETY: as above.
        return unsafe { next(node, service, hints, result) };
    }
    // SAFETY: as above.
    unsafe { *result = list };
    0
}

/// The addresses of a member, as texts.
fn look_up(name: &CStr) -> Vec<CString> {
    let (Some(rules), Ok(name)) = (rules(), name.to_str()) else { return Vec::new() };
    if name.parse::<std::net::IpAddr>().is_ok() || name.is_empty() {
        return Vec::new();
    }
    match rules.client.ask(Request::Resolve(name.to_owned())) {
        Ok(Reply::Resolved(ips)) => ips.iter().filter_map(|ip| CString::new(ip.to_string()).ok()).collect(),
        _ => Vec::new(),
    }
}
