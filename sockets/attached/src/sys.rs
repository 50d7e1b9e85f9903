//! Operations that all sockets have in common.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use peersock_bsd::{epoll_sets, make_private};
use peersock_fd::{Client, Errno, Family, Kind, Socket, SocketFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Opens a socket.
pub(crate) fn open(client: &Client, family: Family, kind: Kind) -> io::Result<OwnedFd> {
    Ok(peersock_fd::open(client, family, kind, SocketFlags::CLOEXEC)?)
}

/// Opens a socket that has a local address. No other program of this machine can connect to it.
pub(crate) fn bound(client: &Client, local: SocketAddr, kind: Kind) -> io::Result<OwnedFd> {
    let fd = open(client, Family::of(local.ip()), kind)?;
    let socket = overlay(fd.as_fd())?;
    socket.bind(local)?;
    make_private(&socket, epoll_sets::find)?;
    Ok(fd)
}

/// Returns the overlay socket of a descriptor that is one.
pub(crate) fn overlay(fd: BorrowedFd<'_>) -> Result<Socket<'_>, Errno> {
    Socket::of(fd).ok_or(Errno::BADF)
}

/// Waits for an event. Returns false after the timeout; `None` is for ever.
pub(crate) fn wait(fd: BorrowedFd<'_>, events: PollFlags, within: Option<Duration>) -> io::Result<bool> {
    let until = within.and_then(|within| Instant::now().checked_add(within));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::from_borrowed_fd(fd, events)], left.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Repeats a call that a signal has interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
