//! Lists of interfaces in the form of if_nameindex(3).

use std::ffi::CString;
use std::ptr;

use libc::{c_uint, if_nameindex};

/// Makes a list, which must be freed with [`free`].
pub fn list(interfaces: impl IntoIterator<Item = (c_uint, CString)>) -> *mut if_nameindex {
    let named = |(if_index, name): (_, CString)| if_nameindex { if_index, if_name: name.into_raw() };
    let end = if_nameindex { if_index: 0, if_name: ptr::null_mut() };
    let list: Vec<_> = interfaces.into_iter().map(named).chain([end]).collect();
    Box::into_raw(list.into_boxed_slice()).cast()
}

/// Frees a list. Null is allowed.
///
/// # Safety
/// `list` is null or comes from [`list()`], and was not freed.
pub unsafe fn free(list: *mut if_nameindex) {
    if list.is_null() {
        return;
    }
    let mut count = 0;
    loop {
        // SAFETY: the array ends with the first entry without a name, which has not been reached yet.
        let name = unsafe { (*list.add(count)).if_name };
        count += 1;
        if name.is_null() {
            break;
        }
        // SAFETY: made by `into_raw` above.
        drop(unsafe { CString::from_raw(name) });
    }
    // SAFETY: a boxed slice of `count` entries, as it was made above.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(list, count)) });
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_list_has_its_names_and_an_end() {
        let names = [(1, c"lo"), (16_777_217, c"ps1")].map(|(index, name)| (index, name.to_owned()));
        let all = list(names.clone());
        for (at, (index, name)) in names.iter().enumerate() {
            // SAFETY: there are as many entries.
            let entry = unsafe { &*all.add(at) };
            // SAFETY: it has a name.
            assert_eq!((entry.if_index, unsafe { CStr::from_ptr(entry.if_name) }), (*index, name.as_c_str()));
        }
        // SAFETY: the end is behind them.
        assert!(unsafe { (*all.add(names.len())).if_name }.is_null());
        // SAFETY: it was made here.
        unsafe { free(all) };
        // SAFETY: null is allowed.
        unsafe { free(ptr::null_mut()) };
    }
}
