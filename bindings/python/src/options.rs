//! Socket options.

use std::os::fd::RawFd;

use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::calls::overlay;
use crate::wait::at_once;

/// Maximum length in bytes of a requested value, CPython's limit.
const MAX_VALUE: usize = 1024;

/// getsockopt(2). Returns an int if `room` is 0, else bytes.
#[pyfunction]
pub(crate) fn getsockopt(
    py: Python<'_>,
    fd: RawFd,
    level: i32,
    name: i32,
    room: usize,
) -> PyResult<Bound<'_, PyAny>> {
    let (value, length) = at_once(py, || {
        let mut value = [0u8; MAX_VALUE];
        let asked = if room == 0 { size_of::<i32>() } else { room.min(MAX_VALUE) };
        let mut length = asked as libc::socklen_t;
        let socket = overlay(fd)?;
        // SAFETY: both pointers are to live variables of the given lengths.
        unsafe {
            peersock_bsd::getsockopt(&socket, level, name, value.as_mut_ptr().cast(), &raw mut length)
        }?;
        Ok((value, length as usize))
    })?;
    match room {
        0 => i32::from_ne_bytes([value[0], value[1], value[2], value[3]]).into_bound_py_any(py),
        _ => Ok(PyBytes::new(py, &value[..length.min(MAX_VALUE)]).into_any()),
    }
}

/// Returns true if a kernel socket must refuse an option, because it may become an overlay socket, which
/// lacks that option.
#[pyfunction]
pub(crate) fn is_refused_early(fd: RawFd, level: i32, name: i32, value: &[u8]) -> bool {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the value has the given length.
    unsafe { peersock_bsd::is_refused_early(fd, level, name, value.as_ptr().cast(), length) }
}

/// setsockopt(2).
#[pyfunction]
pub(crate) fn setsockopt(py: Python<'_>, fd: RawFd, level: i32, name: i32, value: &[u8]) -> PyResult<()> {
    at_once(py, || {
        let socket = overlay(fd)?;
        // SAFETY: the value has the given length.
        unsafe {
            peersock_bsd::setsockopt(
                &socket,
                level,
                name,
                value.as_ptr().cast(),
                value.len() as libc::socklen_t,
            )
        }
    })
    .map(drop)
}
