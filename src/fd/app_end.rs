//! The application's end of a descriptor, for the moment in which something is done to it that only its owner can do.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fd::RawFd;
use rustix::net::{SendFlags, SocketAddrAny};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// Descriptors that are looked at: peers decide how often that happens.
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

/// A copy of the descriptor that `end` is connected to: from this process, from what has come of it, or from what this
/// process has started, daemons included if it is their reaper.
fn find(end: BorrowedFd<'_>, process: i32) -> Option<OwnedFd> {
    let wanted = addresses(end)?;
    let mut left = MOST;
    let own = std::process::id() as i32;
    let is_users = |candidate| candidate != own || process == own;
    let mut processes = vec![own, process];
    let mut seen = Vec::new();
    while let Some(candidate) = processes.pop()
        && left > 0
    {
        if seen.contains(&candidate) {
            continue;
        }
        seen.push(candidate);
        if is_users(candidate)
            && let Some(found) = find_in(candidate, &wanted, &mut left)
        {
            return Some(found);
        }
        // As deep as it goes: children first, the own ones last.
        let tasks = fs::read_dir(format!("/proc/{candidate}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children =
            |list: String| list.split(' ').filter_map(|pid| pid.parse::<i32>().ok()).collect::<Vec<_>>();
        processes.extend(lists.take(left).flat_map(children));
    }
    None
}

/// Looks at the descriptors of one process, at most `left`.
fn find_in(process: i32, wanted: &(SocketAddrAny, SocketAddrAny), left: &mut usize) -> Option<OwnedFd> {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
    let listed = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    for listed in listed.flatten() {
        *left = left.checked_sub(1)?;
        let socket = fs::read_link(listed.path()).ok().and_then(|target| {
            let number: RawFd = listed.file_name().to_str()?.parse().ok()?;
            target.to_str()?.starts_with("socket:").then_some(number)
        });
        let Some(number) = socket else { continue };
        if let Ok(fd) = rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())
            && let Some((own, other)) = addresses(fd.as_fd())
            // One end's name is the other end's peer.
            && (&other, &own) == (&wanted.0, &wanted.1)
        {
            return Some(fd);
        }
    }
    None
}

/// The names of a socket and of its peer.
fn addresses(fd: BorrowedFd<'_>) -> Option<(SocketAddrAny, SocketAddrAny)> {
    Some((rustix::net::getsockname(fd).ok()?, rustix::net::getpeername(fd).ok()??))
}
