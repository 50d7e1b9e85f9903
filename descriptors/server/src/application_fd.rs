//! The application's end of a descriptor, for the moment in which something is done to it that only its owner
//! can do.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use peersock_fd::{Kind, NodeTag, Opened, Shutdown, Socket, events_of};
use rustix::event::PollFlags;
use rustix::fd::RawFd;
use rustix::net::{SendFlags, SocketAddrAny, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use crate::process::numbers_in;
use crate::searches::Searches;

/// Descriptors that are looked at: peers decide how often that happens.
const MOST: usize = 4096;
/// The same where a node ends, which happens once.
const ALL: usize = 1 << 20;

/// The searches of this process.
static SEARCHES: Searches = Searches::new();

/// Makes the kernel report ECONNRESET to the application once it has read what there is, if `end` is closed
/// next.
///
/// An AF_UNIX socket that is closed with data unread does that to its peer. If there is none, because the
/// application has never written anything, it is written from the application's own end. Where that cannot be
/// found (the application has passed it to a process that we do not know of, the system does not let us look,
/// or there were too many searches lately), and where the application has ended its direction, it sees the end
/// of the stream instead: then this is false.
pub(crate) fn poison(end: BorrowedFd<'_>, process: i32) -> bool {
    if rustix::io::ioctl_fionread(end).is_ok_and(|unread| unread > 0) {
        return true;
    }
    let search = SEARCHES.begin(Instant::now());
    let found = search.and_then(|search| {
        let found = find(end, process);
        SEARCHES.end(search, Instant::now());
        found
    });
    match found {
        Some(other) => {
            let sent = rustix::net::send(&other, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            if let Err(error) = sent {
                tracing::debug!(%error, "a reset looks like an end to the application");
            }
            sent.is_ok()
        }
        None => {
            tracing::debug!(process, "a reset looks like an end: the application's descriptor was not found");
            false
        }
    }
}

/// Does as [`poison`] for all connections that a process has to a node: the node's ends are closed next.
pub(crate) fn poison_all(tag: NodeTag, process: i32) {
    for fd in sockets(process, &mut { ALL }) {
        let is_connection = Socket::of(fd.as_fd()).is_some_and(|socket| {
            socket.tag() == tag
                && socket.kind() == Kind::Stream
                && rustix::net::getpeername(&fd).is_ok_and(|peer| peer.is_some())
        });
        // Who has seen the end in order gets no other.
        if is_connection && !has_ended(fd.as_fd()) {
            let _ = rustix::net::send(&fd, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

/// Whether nothing more comes to a socket.
fn has_ended(fd: BorrowedFd<'_>) -> bool {
    events_of(fd, PollFlags::RDHUP).is_ok_and(|events| events.contains(PollFlags::RDHUP))
}

/// A copy of the descriptor that `end` is connected to: from this process, from what has come of it, or from
/// what this process has started, daemons included if it is their reaper.
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
    sockets(process, left).find(|fd| {
        // One end's name is the other end's peer.
        addresses(fd.as_fd()).is_some_and(|(own, other)| (&other, &own) == (&wanted.0, &wanted.1))
    })
}

/// Ends what a process may wait for on the sockets of a node that is no more: connections and datagrams that
/// will not come. A descriptor that is connected sees its own end.
pub(crate) fn shut(tag: NodeTag, process: i32) {
    shut_where(process, |socket| socket.tag() == tag);
}

/// As [`shut`], for all processes that there are. Returns those that have sockets of the node.
pub(crate) fn shut_everywhere(tag: NodeTag) -> Vec<u32> {
    let processes = numbers_in("/proc").unwrap_or_default();
    processes
        .into_iter()
        .filter(|process| shut_where(*process, |socket| socket.tag() == tag))
        .map(i32::cast_unsigned)
        .collect()
}

/// As [`shut`], for one socket.
pub(crate) fn shut_one(tag: NodeTag, opened: Opened, process: i32) {
    shut_where(process, |socket| socket.tag() == tag && socket.opened() == opened);
}

/// Returns whether the process has sockets that are `wanted`.
fn shut_where(process: i32, wanted: impl Fn(&Socket<'_>) -> bool) -> bool {
    let mut has_some = false;
    for fd in sockets(process, &mut { ALL }) {
        let Some(socket) = Socket::of(fd.as_fd()).filter(|socket| wanted(socket)) else { continue };
        has_some = true;
        if socket.kind() != Kind::Stream || sockopt::socket_acceptconn(&fd).unwrap_or(false) {
            // Who waits returns; nothing can be done about what cannot be shut.
            let _ = rustix::net::shutdown(&fd, Shutdown::Both);
        }
    }
    has_some
}

/// Copies of the sockets that a process has, as far as the system lets us look, out of `left` descriptors.
fn sockets(process: i32, left: &mut usize) -> impl Iterator<Item = OwnedFd> + '_ {
    let pidfd = Pid::from_raw(process)
        .and_then(|process| rustix::process::pidfd_open(process, PidfdFlags::empty()).ok());
    let listed = fs::read_dir(format!("/proc/{process}/fd")).ok();
    let may_look = |_: &fs::DirEntry| match left.checked_sub(1) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    };
    listed.into_iter().flatten().flatten().take_while(may_look).filter_map(move |listed| {
        let target = fs::read_link(listed.path()).ok()?;
        let number: RawFd = listed.file_name().to_str()?.parse().ok()?;
        if !target.to_str()?.starts_with("socket:") {
            return None;
        }
        rustix::process::pidfd_getfd(pidfd.as_ref()?, number, PidfdGetfdFlags::empty()).ok()
    })
}

/// The names of a socket and of its peer.
fn addresses(fd: BorrowedFd<'_>) -> Option<(SocketAddrAny, SocketAddrAny)> {
    Some((rustix::net::getsockname(fd).ok()?, rustix::net::getpeername(fd).ok()??))
}
