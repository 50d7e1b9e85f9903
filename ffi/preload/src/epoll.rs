//! Descriptors that were added to an epoll set before they connect or listen; after conversion to overlay
//! sockets they must be added again.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, epoll_event};
use peersock_bsd::epoll_sets::find;

use crate::fork_lock::ForkLock;
use crate::kernel::{borrow, int_option};

/// Maximum number of registrations remembered; beyond it the oldest is forgotten, and looked up when needed.
const MAX_REGISTRATIONS: usize = 4096;

pub(crate) struct Registration {
    epoll: RawFd,
    fd: RawFd,
    /// Inode of the socket, because the number may be reused by now.
    inode: u64,
    event: epoll_event,
}

/// Set once a registration was forgotten. Then the kernel must be asked (proc(5)), which takes time for each
/// descriptor of the program.
static HAS_FORGOTTEN: AtomicBool = AtomicBool::new(false);

pub(crate) static REGISTRATIONS: ForkLock<Vec<Registration>> = ForkLock::new(Vec::new());

/// Notes a successful call of epoll_ctl(2).
pub(crate) fn note(epoll: RawFd, operation: c_int, fd: RawFd, event: Option<epoll_event>) {
    let forget = |known: &mut Vec<Registration>| known.retain(|known| known.epoll != epoll || known.fd != fd);
    // The type of the descriptor does not matter here, and some programs remove descriptors after each
    // message.
    if operation == libc::EPOLL_CTL_DEL {
        return forget(&mut REGISTRATIONS.lock());
    }
    let family = int_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN);
    if !matches!(family, Some(libc::AF_INET | libc::AF_INET6)) {
        return;
    }
    let Some(inode) = inode(fd) else { return };
    // A connected socket is never converted.
    let is_connected = borrow(fd).is_some_and(|fd| rustix::net::getpeername(fd).is_ok());
    let mut known = REGISTRATIONS.lock();
    forget(&mut known);
    if let Some(event) = event
        && !is_connected
    {
        if known.len() >= MAX_REGISTRATIONS {
            known.remove(0);
            HAS_FORGOTTEN.store(true, Ordering::Relaxed);
        }
        known.push(Registration { epoll, fd, inode, event });
    }
}

/// Removes and returns the registrations of `fd`, which is about to become another socket.
pub(crate) fn take(fd: RawFd) -> Vec<(RawFd, epoll_event)> {
    let Some(inode) = inode(fd) else { return Vec::new() };
    let mut taken = Vec::new();
    REGISTRATIONS.lock().retain(|known| {
        let mine = known.fd == fd;
        if mine && known.inode == inode {
            taken.push((known.epoll, known.event));
        }
        !mine
    });
    if HAS_FORGOTTEN.load(Ordering::Relaxed) {
        let is_known = |epoll: RawFd| taken.iter().any(|(known, _)| *known == epoll);
        let forgotten: Vec<_> = find(fd).into_iter().filter(|(epoll, _)| !is_known(*epoll)).collect();
        taken.extend(forgotten);
    }
    taken
}

fn inode(fd: RawFd) -> Option<u64> {
    Some(rustix::fs::fstat(borrow(fd)?).ok()?.st_ino)
}
