//! What the kernel refuses a program and its descendants (seccomp(2)), because no preloaded library sees it.
//!
//! io_uring_setup(2) fails as in kernels without it, so that programs make the ordinary calls instead. Where
//! nothing but the overlay is allowed, socket(2) fails for the Internet's families: so nobody gets past the
//! library, not the C library's resolver, a static program, or one with a clean environment.

use std::io;

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

/// Has socket calls of the calling thread and of all that it starts from now on be taken by a supervisor.
///
/// # Errors
/// When the kernel does not do it: then nobody would take the program's calls.
pub(super) fn notify(filter: peersock_seccomp::Filter) -> Outcome {
    filter.install().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::ResourceBusy => {
                "this process is supervised in the same way already, as in some containers: run it outside, \
                 or use `peersock dial` and `peersock listen`"
            }
            io::ErrorKind::PermissionDenied => {
                "allow seccomp(2) in the container's profile (Docker: --security-opt seccomp=unconfined), or \
                 use `peersock dial` and `peersock listen`"
            }
            _ => {
                "it takes Linux 5.14 on x86-64, AArch64 or RISC-V with CONFIG_SECCOMP_FILTER; use a \
                 dynamically linked build of the program, or `peersock dial` and `peersock listen`"
            }
        };
        Failure::new(
            format_args!("the kernel does not let us take the program's socket calls (seccomp): {error}"),
            hint,
        )
    })
}
