//! Where own descriptors are: programs find the low numbers where they expect them.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;

/// Own descriptors get numbers from here on.
const LOWEST: RawFd = 400;

/// Copies a descriptor to a number that programs do not expect to be theirs, and that is no standard stream's
/// in any case. It is closed on exec. `None` if no number is left.
pub fn high_copy(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    [LOWEST, 3].into_iter().find_map(|least| fcntl_dupfd_cloexec(fd, least).ok())
}
