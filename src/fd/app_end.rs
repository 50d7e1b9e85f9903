//! The application's end of a descriptor, for the moment in which something is done to it that only its owner can do.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fd::RawFd;
use rustix::net::{SendFlags, SocketAddrAny};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// Descriptors of a process that are looked at.
const MOST: usize = 4096;

/// Makes the kernel report ECONNRESET to the application once it has read what there is, if `end` is closed next.
///
/// An AF_UNIX socket that is closed with data unread does that to its peer. If there is none, it is written from the
/// application's own end. Where that cannot be found (the application has passed it to a process that we do not know of,
/// or the system does not let us look), the application sees the end of the stream instead.
pub(super) fn poison(end: BorrowedFd<'_>, process: i32) {
    if rustix::io::ioctl_fionread(end).is_ok_and(|unread| unread > 0) {
        return;
    }
    match find(end, process) {
        Some(other) => {
            let sent = rustix::net::send(&other, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            if let Err(error) = sent {
                tracing::debug!(%error, "a reset looks like an end to the application");
            }
        }
        None => {
            tracing::debug!(process, "a reset looks like an end: the application's descriptor was not found")
        }
    }
}

/// A copy of the descriptor that `end` is connected to.
fn find(end: BorrowedFd<'_>, process: i32) -> Option<OwnedFd> {
    let wanted = addresses(end)?;
    let pid = Pid::from_raw(process)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let listed = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    listed.flatten().take(MOST).find_map(|listed| {
        let target = fs::read_link(listed.path()).ok()?;
        let number: RawFd = listed.file_name().to_str()?.parse().ok()?;
        if !target.to_str()?.starts_with("socket:") {
            return None;
        }
        let fd = rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()?;
        let (own, other) = addresses(fd.as_fd())?;
        // One end's name is the other end's peer.
        ((other, own) == wanted).then_some(fd)
    })
}

/// The names of a socket and of its peer.
fn addresses(fd: BorrowedFd<'_>) -> Option<(SocketAddrAny, SocketAddrAny)> {
    Some((rustix::net::getsockname(fd).ok()?, rustix::net::getpeername(fd).ok()??))
}
