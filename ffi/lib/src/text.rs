//! Texts and arrays that cross the boundary.

use std::ffi::{CStr, CString};
use std::ptr;

use libc::{c_char, size_t};

use crate::result::{Answer, Failure, PEERSOCK_E_SPACE};

/// Reads a text of the caller.
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

/// Passes ownership of a text to the caller, who frees it with `peersock_string_free()`.
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

/// Writes a value to the caller's location.
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

/// Writes as many values as fit, and their total number.
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

/// Writes as many structures as fit, `size` bytes apart, and their total number.
///
/// `size` is the size of the caller's structure, which begins like ours. A program built with an older header
/// has a shorter one, and gets the beginning of ours. One with a newer header gets zeros for members that
/// this library does not know.
///
/// # Errors
/// `PEERSOCK_E_INVALID` for an unaligned size, or one below `least`, the size of the first such structure.
///
/// # Safety
/// `array` is null or has room for `capacity` structures of that size, `count` is null or has room for one.
pub(crate) unsafe fn put_sized<T: Copy>(
    values: &[T],
    array: *mut T,
    (size, least): (size_t, size_t),
    capacity: size_t,
    count: *mut size_t,
) -> Answer {
    if array.is_null() && capacity > 0 {
        return Err(Failure::invalid("the array is NULL"));
    }
    if capacity > 0 && (size < least || !size.is_multiple_of(align_of::<T>())) {
        return Err(Failure::invalid(format!("the size is {size}, and must be that of the structure")));
    }
    // SAFETY: the caller's.
    unsafe { put(values.len(), count, "the count") }?;
    let known = size.min(size_of::<T>());
    for (at, value) in values.iter().take(capacity).enumerate() {
        // SAFETY: `at` is less than `capacity`, and each has `size` bytes.
        unsafe {
            let place = array.cast::<u8>().add(at * size);
            ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), place, known);
            ptr::write_bytes(place.add(known), 0, size - known);
        }
    }
    Ok(())
}

/// Converts a text to an array of the library, truncated if it does not fit.
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
        // SAFETY: the sizes do not exceed the buffer.
        unsafe {
            assert!(write("1234567", buf.as_mut_ptr(), 8).is_ok());
            assert_eq!(read(buf.as_ptr(), "it").ok(), Some("1234567"));
            assert!(write("12345678", buf.as_mut_ptr(), 8).is_err());
            assert!(write("", buf.as_mut_ptr(), 0).is_err());
            assert!(write("", ptr::null_mut(), 8).is_err());
        }
    }

    #[test]
    fn a_structure_of_another_version_gets_its_beginning_or_zeros() {
        let values = [[1_u64, 2, 3], [4, 5, 6]];
        let both = |words: usize, size: usize, capacity: usize| {
            let (mut room, mut count) = ([9_u64; 10], 0);
            // SAFETY: the room is larger than the requests below.
            let put = unsafe {
                let array = room.as_mut_ptr().cast::<[u64; 3]>();
                put_sized(&values, array, (size, 16), capacity, &raw mut count)
            };
            put.is_ok().then(|| (room[..words].to_vec(), count))
        };
        assert_eq!(both(7, 24, 2), Some((vec![1, 2, 3, 4, 5, 6, 9], 2)));
        // Older, and newer.
        assert_eq!(both(5, 16, 2), Some((vec![1, 2, 4, 5, 9], 2)));
        assert_eq!(both(9, 32, 2), Some((vec![1, 2, 3, 0, 4, 5, 6, 0, 9], 2)));
        assert_eq!(both(4, 24, 1), Some((vec![1, 2, 3, 9], 2)));
        // Sizes of no version.
        for size in [0, 8, 15, 23, 33] {
            assert_eq!(both(0, size, 2), None, "{size}");
        }
        assert_eq!(both(1, 0, 0), Some((vec![9], 2)));
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
