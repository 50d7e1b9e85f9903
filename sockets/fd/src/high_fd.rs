//! High numbers for the library's descriptors, because programs expect certain low numbers to be theirs.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;

/// First choice for the lowest number of a library descriptor.
const PREFERRED_LOWEST: RawFd = 400;

/// Copies a descriptor to a number that programs do not expect to be theirs, and that is never a standard
/// stream's. The copy is closed on exec. Returns `None` if no number is left.
pub fn high_copy(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    [PREFERRED_LOWEST, 3].into_iter().find_map(|least| fcntl_dupfd_cloexec(fd, least).ok())
}

/// Lets the process have descriptors with such numbers. Call this while the process has one thread: then it
/// takes microseconds. With more threads, the kernel waits some 10 to 30 ms for them (an RCU grace period)
/// when the first high number makes it replace the table of descriptors.
pub fn prepare_high_numbers() {
    // Without a descriptor, or without a high number, later copies are slower or low, and nothing else.
    if let Ok(any) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        drop(high_copy(any.as_fd()));
    }
}
