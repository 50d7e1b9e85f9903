//! High numbers for the library's descriptors, because programs expect certain low numbers to be theirs.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;

/// First choice for the lowest number of a library descriptor.
const PREFERRED_LOWEST: RawFd = 400;

/// Copies a descriptor to a number that programs do not expect to be theirs, and that is never a standard
/// stream's. The copy is closed on exec. Returns `None` if no number is left.
pub fn high_copy(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    [PREFERRED_LOWEST, 3].into_iter().find_map(|least| fcntl_dupfd_cloexec(fd, least).ok())
}
