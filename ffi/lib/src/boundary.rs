//! The boundary for calls from C: no panic crosses it, and every failure is reported.

use std::cell::RefCell;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::c_char;
use peersock_fd::Errno;

use crate::result::{Answer, Failure, PEERSOCK_E_BUG, PEERSOCK_OK, peersock_result};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Returns the text of the last failure on this thread, or an empty text. Covers node calls,
/// `peersock_dial()`, `peersock_listen_at()`, and a `peersock_bind()` or `peersock_listen()` on a port that
/// no network allows (EACCES). The text stays valid until the next such failure on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs the body of a node call.
pub(crate) fn answer(body: impl FnOnce() -> Answer) -> peersock_result {
    let before = errno();
    match guarded(body) {
        Ok(()) => {
            set_errno(before);
            PEERSOCK_OK
        }
        Err(failure) => {
            if let Some(errno) = failure.errno {
                set_errno(errno);
            }
            remember(&failure.text);
            failure.result
        }
    }
}

/// Runs the body of a socket call whose failure also has a text.
pub(crate) fn posix_with_text<T: From<i8>>(body: impl FnOnce() -> Answer<T>) -> T {
    let before = errno();
    let result = guarded(body);
    set_errno(before);
    result.unwrap_or_else(|failure| {
        remember(&failure.text);
        set_errno(failure.errno.unwrap_or(libc::ENETDOWN));
        T::from(-1)
    })
}

/// Runs the body of a socket call. On success `errno` is unchanged.
pub(crate) fn posix<T: From<i8>>(body: impl FnOnce() -> Result<T, Errno>) -> T {
    let before = errno();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => {
            set_errno(before);
            return value;
        }
        Ok(Err(error)) => set_errno(error.raw_os_error()),
        Err(_) => set_errno(libc::EIO),
    }
    T::from(-1)
}

/// Runs `body`, and returns `otherwise` if it panics.
pub(crate) fn guarded_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

fn guarded<T>(body: impl FnOnce() -> Answer<T>) -> Answer<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::new(PEERSOCK_E_BUG, format!("a mistake in peersock: {text}")))
    })
}

fn errno() -> i32 {
    // SAFETY: the C library's variable of this thread.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: i32) {
    // SAFETY: the C library's variable of this thread.
    unsafe { *libc::__errno_location() = errno };
}

pub(crate) fn remember(text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // A thread that is ending no longer has a text.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = text);
}
