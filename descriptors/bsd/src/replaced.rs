//! Threads that wait on a datagram socket of the kernel's while another one turns it into one of the
//! overlay's: they would wait on the old socket for ever.
//!
//! They are woken by shutdown(2) of the old one: their calls receive nothing, and those who make them look
//! here whether they are to try again. Who waits in poll(2) is woken, too, and goes on waiting: the kernel
//! then looks at what the descriptor stands for now, but waits on what it stood for.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use peersock_fd::high_copy;
use rustix::net::Shutdown;

use crate::kernel::{borrow, int_option};

/// How many sockets were replaced so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A number that is another one after a call if a socket was replaced while it waited.
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// A copy of the datagram socket that `fd` is, which is about to be replaced. `None` if no thread can wait on
/// it: copies in other processes would hear the end of a socket that stays theirs.
pub fn keep(fd: RawFd) -> Option<OwnedFd> {
    let is_stream = int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM);
    // A folder has a link for itself, one from above, and one from each folder in it: one for each thread
    // here.
    let is_alone = rustix::fs::stat("/proc/self/task").is_ok_and(|tasks| tasks.st_nlink <= 3);
    if is_stream || is_alone {
        return None;
    }
    high_copy(borrow(fd)?)
}

/// Wakes who waits on a socket that was replaced.
pub fn wake(old: &OwnedFd) {
    // Before they wake: they have to see it.
    COUNT.fetch_add(1, Ordering::Release);
    // That it is not connected is said afterwards.
    let _ = rustix::net::shutdown(old.as_fd(), Shutdown::Read);
}
