//! The networks of the default node as interfaces.

use std::ffi::CString;
use std::ptr;

use libc::{c_char, c_uint};
use peersock_bsd::name_index;
use peersock_fd::Interface;

use crate::boundary::{guarded_or, set_errno};
use crate::registry::{PEERSOCK_DEFAULT, find};
use crate::text;

/// As if_nametoindex(3), for the networks of the default node, which are named `ps1`, `ps2` and so on.
/// Returns 0 and ENODEV if no network has this name.
///
/// # Safety
/// `name` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_if_nametoindex(name: *const c_char) -> c_uint {
    guarded_or(0, || {
        // SAFETY: the caller's.
        let name = unsafe { text::read(name, "the name") }.ok();
        let found = interfaces().into_iter().find(|interface| Some(interface.name.as_str()) == name);
        found.map_or_else(|| none(0, libc::ENODEV), |interface| interface.index)
    })
}

/// As if_indextoname(3), for the networks of the default node. `name` has room for IF_NAMESIZE bytes. Returns
/// NULL and ENXIO if no network has this index.
///
/// # Safety
/// `name` is NULL or has room for IF_NAMESIZE bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_if_indextoname(index: c_uint, name: *mut c_char) -> *mut c_char {
    guarded_or(ptr::null_mut(), || {
        let found = interfaces().into_iter().find(|interface| interface.index == index);
        match found {
            // SAFETY: the caller's.
            Some(found) if unsafe { text::write(&found.name, name, libc::IF_NAMESIZE) }.is_ok() => name,
            _ => none(ptr::null_mut(), libc::ENXIO),
        }
    })
}

/// As if_nameindex(3), for the networks of the default node. Free the array with
/// `peersock_if_freenameindex()`.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_if_nameindex() -> *mut libc::if_nameindex {
    guarded_or(ptr::null_mut(), || {
        let named = |found: Interface| (found.index, CString::new(found.name).unwrap_or_default());
        name_index::list(interfaces().into_iter().map(named))
    })
}

/// Frees an array from `peersock_if_nameindex()`. NULL is allowed.
///
/// # Safety
/// `list` is NULL or comes from `peersock_if_nameindex()` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_if_freenameindex(list: *mut libc::if_nameindex) {
    // SAFETY: the caller's.
    guarded_or((), || unsafe { name_index::free(list) });
}

fn interfaces() -> Vec<Interface> {
    find(PEERSOCK_DEFAULT).map(|node| node.client.interfaces()).unwrap_or_default()
}

fn none<T>(value: T, errno: i32) -> T {
    set_errno(errno);
    value
}
