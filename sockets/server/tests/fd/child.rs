//! Forked children of a test.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A forked child, which is killed when it is dropped.
pub(crate) struct Child(pub(crate) libc::pid_t);

impl Child {
    /// Forks a child that runs `work` alone, and exits with 0 unless that panics.
    pub(crate) fn new(work: impl FnOnce()) -> Self {
        // SAFETY: the child has the test's memory, takes no lock that another thread may have held, and
        // leaves by _exit(2).
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "no child");
        if child == 0 {
            let done = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: it ends the process and does not return.
            unsafe { libc::_exit(i32::from(done.is_err())) };
        }
        Self(child)
    }

    /// Returns its status, as waitpid(2) does.
    pub(crate) fn wait(self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: the pointer is to a live variable.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(waited, self.0);
        std::mem::forget(self);
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: no pointers but a null one. It is our child, whose end was not waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
