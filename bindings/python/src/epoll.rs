//! Epoll sets that contain a descriptor. asyncio watches a datagram socket before it names a destination, and
//! epoll_ctl(2) calls are not visible to the package.

use std::os::fd::RawFd;

pub(crate) use peersock_bsd::epoll_sets::find;

/// Removes `fd` from all sets that contain it.
pub(crate) fn forget(fd: RawFd) {
    for (set, mut event) in find(fd) {
        // SAFETY: the event is a live variable. The call fails on a closed set, which is correct.
        unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, fd, &raw mut event) };
    }
}
