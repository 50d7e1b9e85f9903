//! Texts and arrays that cross the boundary.

use std::ffi::{CStr, CString};
use std::ptr;

use libc::{c_char, size_t};

use crate::result::{Answer, Failure, PEERSOCK_E_SPACE};

/// Reads a text of the caller's.
///
/// # Safety
/// `text` is null or a C string that stays for `'a`.
pub(crate) unsafe fn read<'a>(text: *const c_char, what: &str) -> Answer<&'a str> {
    if text.is_null() {
        return Err(Failure::invalid(format!("{what} is NULL")));
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::invalid(format!("{what} is not UTF-8")))
}

/// Writes a text with its final zero to the caller's buffer.
///
/// # Safety
/// `buf` is null or has room for `size` bytes.
pub(crate) unsafe fn write(text: &str, buf: *mut c_char, size: size_t) -> Answer {
    if buf.is_null() {
        return Err(Failure::invalid("the buffer is NULL"));
    }
    if size <= text.len() {
        let needed = text.len() + 1;
        return Err(Failure::new(PEERSOCK_E_SPACE, format!("the text needs {needed} bytes, not {size}")));
    }
    // SAFETY: it fits, as was just seen.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), text.len());
        *buf.add(text.len()) = 0;
    }
    Ok(())
}

/// Gives a text of the library's away, which `peersock_string_free()` frees.
///
/// # Safety
/// `place` is null or has room for a pointer.
pub(crate) unsafe fn give(text: String, place: *mut *mut c_char) -> Answer {
    if place.is_null() {
        return Err(Failure::invalid("the place for the text is NULL"));
    }
    let text = CString::new(text).map_err(|error| Failure::invalid(error.to_string()))?;
    // SAFETY: the caller's.
    unsafe { place.write(text.into_raw()) };
    Ok(())
}

/// Writes a value to where the caller wants it.
///
/// # Safety
/// `place` is null or has room for it.
pub(crate) unsafe fn put<T>(value: T, place: *mut T, what: &str) -> Answer {
    if place.is_null() {
        return Err(Failure::invalid(format!("{what} is NULL")));
    }
    // SAFETY: the caller's.
    unsafe { place.write(value) };
    Ok(())
}

/// Writes as many values as fit, and how many there are.
///
/// # Safety
/// `array` is null or has room for `capacity` values, `count` is null or has room for one.
pub(crate) unsafe fn put_all<T>(
    values: Vec<T>,
    array: *mut T,
    capacity: size_t,
    count: *mut size_t,
) -> Answer {
    if array.is_null() && capacity > 0 {
        return Err(Failure::invalid("the array is NULL"));
    }
    // SAFETY: the caller's.
    unsafe { put(values.len(), count, "the count") }?;
    for (at, value) in values.into_iter().take(capacity).enumerate() {
        // SAFETY: `at` is less than `capacity`.
        unsafe { array.add(at).write(value) };
    }
    Ok(())
}

/// An array of the library's from a text; what does not fit is cut.
pub(crate) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array[..N - 1].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_do_not_fit_are_refused_whole() {
        let mut buf = [1 as c_char; 8];
        // SAFETY: the sizes are at most those of the buffer.
        unsafe {
            assert!(write("1234567", buf.as_mut_ptr(), 8).is_ok());
            assert_eq!(read(buf.as_ptr(), "it").ok(), Some("1234567"));
            assert!(write("12345678", buf.as_mut_ptr(), 8).is_err());
            assert!(write("", buf.as_mut_ptr(), 0).is_err());
            assert!(write("", ptr::null_mut(), 8).is_err());
        }
    }

    #[test]
    fn arrays_get_what_fits_and_the_whole_count() {
        let (mut array, mut count) = ([0; 2], 0);
        // SAFETY: the capacities are at most that of the array.
        unsafe {
            assert!(put_all(vec![1, 2, 3], array.as_mut_ptr(), 2, &raw mut count).is_ok());
            assert_eq!((array, count), ([1, 2], 3));
            assert!(put_all(vec![1], ptr::null_mut(), 0, &raw mut count).is_ok());
            assert!(put_all(vec![1], ptr::null_mut(), 1, &raw mut count).is_err());
            assert!(put_all(vec![1], array.as_mut_ptr(), 2, ptr::null_mut()).is_err());
        }
    }
}
