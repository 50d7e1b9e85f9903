//! System calls that the kernel denies to a program and its descendants (seccomp(2)), because a preloaded
//! library cannot see them.
//!
//! io_uring_setup(2) fails as in kernels without it, so that programs make ordinary calls instead. If only
//! the overlay is allowed, socket(2) fails for Internet families. Then even the C library's resolver, static
//! programs and programs with a clean environment cannot bypass the library.

use std::io;

use crate::failure::{Failure, Outcome};

/// Filters the system calls of the calling thread and of all processes it starts from now on. They can no
/// longer gain privileges (PR_SET_NO_NEW_PRIVS), because the kernel requires that.
///
/// Fails if `only` is set and the kernel cannot filter. Otherwise filters as far as possible.
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

/// Makes a supervisor handle the socket calls of the calling thread and of processes it starts later.
/// Fails if the kernel does not support it, because the program's calls would not be handled.
pub(super) fn notify(filter: peersock_seccomp::Filter) -> Outcome {
    filter.install().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::ResourceBusy => {
                "this process is already supervised in the same way, as in some containers: run it outside, \
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
