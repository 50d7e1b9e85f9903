//! Lists of addresses as getaddrinfo(3) gives them, of the C library's entries.

use std::ffi::CStr;

use libc::{AI_CANONNAME, addrinfo};

/// Puts one list behind another. The C library allocates and frees its lists entry by entry.
///
/// # Safety
/// Both are lists of the C library's; the second may be null.
pub unsafe fn join(first: *mut addrinfo, second: *mut addrinfo) -> *mut addrinfo {
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

/// Has a member's own name be the canonical one in a list that was made of its addresses: POSIX has it in the
/// first entry alone, and there only if it was asked for. Where there is no memory, there is none.
///
/// # Safety
/// `list` is one of the C library's, not null; `hints` can be read, or is null.
pub unsafe fn set_canonical_name(list: *mut addrinfo, name: &CStr, hints: *const addrinfo) {
    // SAFETY: the caller's.
    let wanted = unsafe { hints.as_ref() }.is_some_and(|hints| hints.ai_flags & AI_CANONNAME != 0);
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: an entry of the list; the name is freed with it, by free(3).
        unsafe {
            libc::free((*entry).ai_canonname.cast());
            let is_named = wanted && entry == list;
            (*entry).ai_canonname = if is_named { libc::strdup(name.as_ptr()) } else { std::ptr::null_mut() };
            entry = (*entry).ai_next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_joined_list_has_the_name_of_the_member_once() {
        for flags in [0, AI_CANONNAME] {
            // SAFETY: zeros are an `addrinfo`.
            let hints = addrinfo {
                ai_flags: flags | libc::AI_NUMERICHOST,
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
            // SAFETY: lists of the C library's.
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
