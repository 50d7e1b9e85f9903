//! Lists of addresses in the form of getaddrinfo(3), made of the C library's entries.

use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::ptr;

use libc::{AI_ADDRCONFIG, AI_ALL, AI_CANONNAME, AI_NUMERICHOST, AI_V4MAPPED, addrinfo, c_char, c_int};
use peersock_fd::Interface;

/// getaddrinfo(3).
pub type GetAddrInfo =
    unsafe extern "C" fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;

/// Returns the list for known overlay addresses: the addresses of a member called `name`, or one that the
/// program has written as a literal. Returns null if no address is wanted. `interfaces` returns the networks
/// that this node has joined.
///
/// The C library makes the entries, but it sees only the machine's interfaces. For AI_ADDRCONFIG the
/// addresses of a network count as configured, independent of the machine's own (RFC 3493 6.1).
///
/// # Safety
/// `get` is getaddrinfo(3), and `service` and `hints` are valid arguments of it.
pub unsafe fn of_addresses(
    get: GetAddrInfo,
    name: &CStr,
    addresses: &[IpAddr],
    service: *const c_char,
    hints: *const addrinfo,
    interfaces: impl FnOnce() -> Vec<Interface>,
) -> *mut addrinfo {
    // SAFETY: the caller's; zeros are an `addrinfo`, which means the same as none but for its flags.
    let wanted = unsafe { hints.as_ref().copied().unwrap_or_else(|| std::mem::zeroed()) };
    let chosen = choose(&wanted, addresses, interfaces);
    let numeric = addrinfo { ai_flags: wanted.ai_flags & !AI_ADDRCONFIG | AI_NUMERICHOST, ..wanted };
    let mut list: *mut addrinfo = ptr::null_mut();
    for ip in chosen.iter().rev() {
        let Ok(literal) = CString::new(ip.to_string()) else { continue };
        let mut found: *mut addrinfo = ptr::null_mut();
        // An address of another family than wanted gives no result.
        // SAFETY: the caller's, and our own.
        if unsafe { get(literal.as_ptr(), service, &raw const numeric, &raw mut found) } == 0 {
            // SAFETY: both lists are the C library's.
            list = unsafe { join(found, list) };
        }
    }
    if !list.is_null() {
        // SAFETY: the list is the C library's.
        unsafe { set_canonical_name(list, name, hints) };
    }
    list
}

/// Calls getaddrinfo(3) for a name about which no resolver must be asked, so that only literals are found. If
/// the name is none, the error is EAI_NONAME, or EAI_AGAIN if the node has not answered.
///
/// # Safety
/// `get` is getaddrinfo(3), and all others but the last one are valid arguments of it.
pub unsafe fn of_literal(
    get: GetAddrInfo,
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
    is_answered: bool,
) -> c_int {
    // SAFETY: the caller's; zeros are an `addrinfo`, which means the same as none but for its flags.
    let mut hints = unsafe { hints.as_ref().copied().unwrap_or_else(|| std::mem::zeroed()) };
    hints.ai_flags |= AI_NUMERICHOST;
    // SAFETY: the caller's.
    match unsafe { get(node, service, &raw const hints, result) } {
        libc::EAI_NONAME if !is_answered => libc::EAI_AGAIN,
        found => found,
    }
}

/// Returns the addresses of a host that the flags admit.
fn choose(
    wanted: &addrinfo,
    addresses: &[IpAddr],
    interfaces: impl FnOnce() -> Vec<Interface>,
) -> Vec<IpAddr> {
    let mut chosen = addresses.to_vec();
    if wanted.ai_flags & AI_ADDRCONFIG != 0 {
        let own: Vec<_> = interfaces().into_iter().flat_map(|interface| interface.addresses).collect();
        chosen.retain(|ip| own.iter().any(|own| own.address.is_ipv4() == ip.is_ipv4()));
    }
    // RFC 3493 6.1: IPv4 addresses are mapped if there are no others, or if all are wanted.
    let is_mapped = wanted.ai_family == libc::AF_INET6 && wanted.ai_flags & AI_V4MAPPED != 0;
    if is_mapped && wanted.ai_flags & AI_ALL == 0 && chosen.iter().any(IpAddr::is_ipv6) {
        chosen.retain(IpAddr::is_ipv6);
    }
    chosen
}

/// Appends one list to another. The C library allocates and frees its lists entry by entry.
///
/// # Safety
/// Both are lists of the C library; the second may be null.
unsafe fn join(first: *mut addrinfo, second: *mut addrinfo) -> *mut addrinfo {
    let mut last = first;
    // SAFETY: the caller's; a list ends with null.
    unsafe {
        while !(*last).ai_next.is_null() {
            last = (*last).ai_next;
        }
        (*last).ai_next = second;
    }
    first
}

/// Makes a member's own name the canonical name in a list of its addresses. As POSIX requires, only the first
/// entry has it, and only on request. Without memory the name is left out.
///
/// # Safety
/// `list` is a list of the C library, not null; `hints` can be read, or is null.
unsafe fn set_canonical_name(list: *mut addrinfo, name: &CStr, hints: *const addrinfo) {
    // SAFETY: the caller's.
    let wanted = unsafe { hints.as_ref() }.is_some_and(|hints| hints.ai_flags & AI_CANONNAME != 0);
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: an entry of the list; the name is freed with it, by free(3).
        unsafe {
            libc::free((*entry).ai_canonname.cast());
            let is_named = wanted && entry == list;
            (*entry).ai_canonname = if is_named { libc::strdup(name.as_ptr()) } else { ptr::null_mut() };
            entry = (*entry).ai_next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use peersock_fd::Route;

    use super::*;

    /// Looks up a member with these addresses, on a node whose networks have addresses of these families.
    fn found(addresses: &[&str], own: &[&str], family: c_int, flags: c_int) -> Vec<IpAddr> {
        // SAFETY: zeros are an `addrinfo`.
        let zeros: addrinfo = unsafe { std::mem::zeroed() };
        let hints = addrinfo { ai_flags: flags, ai_family: family, ai_socktype: libc::SOCK_STREAM, ..zeros };
        let parse = |ip: &&str| ip.parse::<IpAddr>().unwrap();
        let route = |ip: &&str| Route { address: parse(ip), prefix: 16 };
        let interfaces =
            || vec![Interface { index: 1, name: "ps1".into(), addresses: own.iter().map(route).collect() }];
        let addresses: Vec<_> = addresses.iter().map(parse).collect();
        // SAFETY: C strings and hints.
        let mut list = unsafe {
            of_addresses(
                libc::getaddrinfo,
                c"alpha",
                &addresses,
                c"80".as_ptr(),
                &raw const hints,
                interfaces,
            )
        };
        let (begin, mut ips) = (list, Vec::new());
        // SAFETY: a list of the C library.
        while let Some(entry) = unsafe { list.as_ref() } {
            // SAFETY: as above.
            let ip = unsafe { crate::read_address(entry.ai_addr, entry.ai_addrlen) };
            ips.push(ip.unwrap().unwrap().ip());
            list = entry.ai_next;
        }
        if !begin.is_null() {
            // SAFETY: as above.
            unsafe { libc::freeaddrinfo(begin) };
        }
        ips
    }

    #[test]
    fn flags_are_about_the_networks_addresses_and_not_the_machine_s() {
        let both = ["fd77::1", "10.77.0.1"];
        let [six, four] = both.map(|ip| ip.parse::<IpAddr>().unwrap());
        let mapped = IpAddr::from("::ffff:10.77.0.1".parse::<Ipv6Addr>().unwrap());
        let (none, inet, inet6) = (libc::AF_UNSPEC, libc::AF_INET, libc::AF_INET6);
        assert_eq!(found(&both, &[], none, 0), [six, four]);
        // A node without an address of a family cannot reach the addresses of that family.
        assert_eq!(found(&both, &["fd77::2"], none, AI_ADDRCONFIG), [six]);
        assert_eq!(found(&both, &["10.77.0.2"], none, AI_ADDRCONFIG), [four]);
        assert_eq!(found(&both, &["fd77::2", "10.77.0.2"], none, AI_ADDRCONFIG), [six, four]);
        assert_eq!(found(&both, &["fd77::2"], inet, AI_ADDRCONFIG), [] as [IpAddr; 0]);
        assert_eq!(found(&both, &[], inet, 0), [four]);
        assert_eq!(found(&both, &[], inet6, 0), [six]);
        assert_eq!(found(&both, &[], inet6, AI_V4MAPPED), [six]);
        assert_eq!(found(&both, &[], inet6, AI_V4MAPPED | AI_ALL), [six, mapped]);
        assert_eq!(found(&["10.77.0.1"], &[], inet6, AI_V4MAPPED), [mapped]);
        assert_eq!(found(&["10.77.0.1"], &["10.77.0.2"], inet6, AI_V4MAPPED | AI_ADDRCONFIG), [mapped]);
        // The flag has an effect only together with the other.
        assert_eq!(found(&["10.77.0.1"], &[], inet6, AI_ALL), [] as [IpAddr; 0]);
    }

    #[test]
    fn a_joined_list_has_the_name_of_the_member_once() {
        for flags in [0, AI_CANONNAME] {
            // SAFETY: zeros are an `addrinfo`.
            let hints = addrinfo {
                ai_flags: flags | AI_NUMERICHOST,
                ai_socktype: libc::SOCK_STREAM,
                ..unsafe { std::mem::zeroed() }
            };
            let find = |literal: &CStr| {
                let mut list = ptr::null_mut();
                // SAFETY: C strings, an `addrinfo`, and room for the list.
                let error =
                    unsafe { libc::getaddrinfo(literal.as_ptr(), ptr::null(), &hints, &raw mut list) };
                assert_eq!(error, 0);
                list
            };
            // SAFETY: lists of the C library.
            let list = unsafe { join(find(c"127.0.0.1"), join(find(c"::1"), ptr::null_mut())) };
            // SAFETY: the same.
            unsafe { set_canonical_name(list, c"alpha", &hints) };
            // SAFETY: the same; it has two entries.
            let (first, second) = unsafe { (&*list, &*(*list).ai_next) };
            assert_eq!((first.ai_family, second.ai_family), (libc::AF_INET, libc::AF_INET6));
            assert_eq!(first.ai_canonname.is_null(), flags == 0);
            if flags != 0 {
                // SAFETY: the name that was set.
                assert_eq!(unsafe { CStr::from_ptr(first.ai_canonname) }, c"alpha");
            }
            assert!(second.ai_canonname.is_null() && second.ai_next.is_null());
            // SAFETY: all of it is the C library's.
            unsafe { libc::freeaddrinfo(list) };
        }
    }
}
