//! Errors as Python exceptions.

use std::ffi::CStr;
use std::io;

use peersock::state::StateError;
use peersock_bsd::Errno;
use pyo3::exceptions::{PyOSError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;

/// Text of ENETDOWN; the text of the system leads people to their cables. The exception has no subclass of
/// `OSError`: asyncio ignores `ConnectionAbortedError` in `accept()`, and its server would end unseen.
const NETWORK_DOWN: &str =
    "Network is down: the peersock node has ended, or it has left the network, so this session is over";

/// Makes the exception of an `errno`: Python's subclass of `OSError`, such as `ConnectionRefusedError`.
pub(crate) fn os_error(py: Python<'_>, errno: i32) -> PyErr {
    described(py, errno, text(errno))
}

/// Returns the text of an `errno`, as `os.strerror` does for errors that mean the same here.
#[pyfunction]
#[pyo3(name = "strerror")]
pub(crate) fn text(errno: i32) -> String {
    if errno == libc::ENETDOWN {
        return NETWORK_DOWN.to_owned();
    }
    let mut text = [0 as libc::c_char; 128];
    // SAFETY: the buffer has the given length; the function ends what it writes with a zero.
    let failed = unsafe { libc::strerror_r(errno, text.as_mut_ptr(), text.len()) };
    match failed {
        // SAFETY: as above.
        0 => unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned(),
        _ => String::new(),
    }
}

/// Makes the exception of a failed call.
pub(crate) fn errno(py: Python<'_>, error: Errno) -> PyErr {
    os_error(py, error.raw_os_error())
}

/// Makes the exception of a failure in the node: its `errno` if it has one, else its text.
pub(crate) fn io_error(py: Python<'_>, error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => os_error(py, number),
        None if error.kind() == io::ErrorKind::TimedOut => PyTimeoutError::new_err(error.to_string()),
        None => {
            let number = match error.kind() {
                io::ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
                io::ErrorKind::NetworkDown => libc::ENETDOWN,
                io::ErrorKind::NotFound => libc::ENODEV,
                io::ErrorKind::PermissionDenied => libc::EACCES,
                _ => libc::EIO,
            };
            described(py, number, error)
        }
    }
}

/// Makes an exception of the number's class, with a more specific text.
pub(crate) fn described(py: Python<'_>, number: i32, error: impl std::fmt::Display) -> PyErr {
    // With both arguments the class returns an object of the right subclass.
    match py.get_type::<PyOSError>().call1((number, error.to_string())) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Makes the exception of an unusable file or directory.
pub(crate) fn state_error(py: Python<'_>, error: &StateError) -> PyErr {
    let number = match error {
        StateError::NoDefaultPath => libc::ENOENT,
        StateError::InUse { .. } => libc::EBUSY,
        StateError::Exposed { .. }
        | StateError::Changeable { .. }
        | StateError::WritableByOthers { .. }
        | StateError::ForeignOwner { .. } => libc::EACCES,
        StateError::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        _ => libc::EINVAL,
    };
    described(py, number, error)
}

/// Makes the timeout exception with the text of CPython's sockets.
pub(crate) fn timed_out() -> PyErr {
    PyTimeoutError::new_err("timed out")
}

/// Makes the exception of an invalid setting.
pub(crate) fn invalid(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
