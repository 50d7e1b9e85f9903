//! What the kernel refuses a program and its descendants (seccomp(2)), because no preloaded library sees it.
//!
//! io_uring_setup(2) fails as in kernels without it, so that programs make the ordinary calls instead. Where
//! nothing but the overlay is allowed, socket(2) fails for the Internet's families: so nobody gets past the
//! library, not the C library's resolver, a static program, or one with a clean environment.

use crate::failure::{Failure, Outcome};

/// Filters the calling thread's system calls and those of all that it starts from now on. They cannot gain
/// privileges any more (PR_SET_NO_NEW_PRIVS): that is the kernel's condition.
///
/// # Errors
/// When `only` the overlay is to be reached and the kernel does not filter. Otherwise it is done as far as it
/// goes.
pub(super) fn apply(only: bool) -> Outcome {
    let applied = peersock_bsd::filter::apply(only);
    match applied {
        Err(error) if only => Err(Failure::new(
            format_args!("--only cannot keep the program to the overlay: {error}"),
            "leave --only out, or use a kernel that filters system calls",
        )),
        Err(error) => {
            tracing::debug!(error, "system calls are not filtered");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
