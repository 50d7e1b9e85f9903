//! Epoll sets that a descriptor is in: asyncio watches a datagram socket before it says where to send, and
//! nobody tells us of epoll_ctl(2).

use std::os::fd::RawFd;

pub(crate) use peersock_bsd::epoll_sets::find;

/// Takes `fd` out of all sets that it is in.
pub(crate) fn forget(fd: RawFd) {
    for (set, mut event) in find(fd) {
        // SAFETY: the event is a live variable. A set that is closed makes the call fail, which is as it
        // should be.
        unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, fd, &raw mut event) };
    }
}
