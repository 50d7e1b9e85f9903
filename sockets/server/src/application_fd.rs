//! Access to the application's end of a descriptor, for operations that only its owner can do.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use peersock_fd::{Kind, NodeTag, Opened, Shutdown, Socket, events_of};
use rustix::event::PollFlags;
use rustix::fd::RawFd;
use rustix::net::{SendFlags, SocketAddrAny, SocketAddrUnix, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use serde::{Deserialize, Serialize};

use crate::process::numbers_in;
use crate::searches::Searches;

/// Maximum number of descriptors inspected per search, because peers decide how often a search runs.
const MAX_DESCRIPTORS_PER_SEARCH: usize = 4096;
/// The same limit for the end of a node, which happens once.
const MAX_DESCRIPTORS_AT_END: usize = 1 << 20;

/// Budget of this process's searches.
static SEARCHES: Searches = Searches::new();

/// Processes among which an application's descriptor is searched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    /// The process that most likely has it.
    pub(crate) process: i32,
    /// The process that has started the applications, and adopts daemons if it is their reaper.
    pub(crate) launcher: i32,
}

/// Abstract names of a socket and of its peer; empty without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    own: Vec<u8>,
    peer: Vec<u8>,
}

/// Makes the kernel report ECONNRESET to the application once it has read the pending data, if `end` is
/// closed next.
///
/// The kernel does that to the peer of an AF_UNIX socket closed with unread data. If there is none, because
/// the application has never written, this function writes a byte from the application's own end.
///
/// Returns false if the application will see the end of the stream instead. That happens if the application
/// has passed its end to an unknown process, the system denies the search, or there were too many searches
/// lately. It also happens if the application has shut down its sending direction.
pub(crate) fn poison(end: BorrowedFd<'_>, holder: Holder) -> bool {
    has_unread(end) || names(end).is_some_and(|names| poison_named(&names, holder))
}

/// Returns true if the application has written something that the node has not read, so that closing `end`
/// is a reset for it.
pub(crate) fn has_unread(end: BorrowedFd<'_>) -> bool {
    rustix::io::ioctl_fionread(end).is_ok_and(|unread| unread > 0)
}

/// Does the same as [`poison`] for the connection whose node's end has these names.
pub(crate) fn poison_named(wanted: &Names, holder: Holder) -> bool {
    let search = SEARCHES.begin(Instant::now());
    let found = search.and_then(|search| {
        let found = find(wanted, holder);
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
            let process = holder.process;
            tracing::debug!(process, "a reset looks like an end: the application's descriptor was not found");
            false
        }
    }
}

/// Does the same as [`poison`] for all connections of a process to a node whose ends are closed next.
pub(crate) fn poison_all(tag: NodeTag, process: i32) {
    for fd in sockets(process, &mut { MAX_DESCRIPTORS_AT_END }) {
        let is_connection = Socket::of(fd.as_fd()).is_some_and(|socket| {
            socket.tag() == tag
                && socket.kind() == Kind::Stream
                && rustix::net::getpeername(&fd).is_ok_and(|peer| peer.is_some())
        });
        // A socket that has seen an orderly end gets no other.
        if is_connection && !has_ended(fd.as_fd()) {
            let _ = rustix::net::send(&fd, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

/// Returns true if the socket will receive nothing more.
fn has_ended(fd: BorrowedFd<'_>) -> bool {
    events_of(fd, PollFlags::RDHUP).is_ok_and(|events| events.contains(PollFlags::RDHUP))
}

/// Returns a copy of the application's descriptor of a connection. It searches the process, its descendants,
/// and the launcher's.
fn find(wanted: &Names, Holder { process, launcher }: Holder) -> Option<OwnedFd> {
    let mut left = MAX_DESCRIPTORS_PER_SEARCH;
    let is_users = |candidate| candidate != launcher || process == launcher;
    let mut processes = vec![launcher, process];
    let mut seen = Vec::new();
    while let Some(candidate) = processes.pop()
        && left > 0
    {
        if seen.contains(&candidate) {
            continue;
        }
        seen.push(candidate);
        if is_users(candidate)
            && let Some(found) = find_in(candidate, wanted, &mut left)
        {
            return Some(found);
        }
        // Depth first: children first, the launcher's own children last.
        let tasks = fs::read_dir(format!("/proc/{candidate}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children =
            |list: String| list.split(' ').filter_map(|pid| pid.parse::<i32>().ok()).collect::<Vec<_>>();
        processes.extend(lists.take(left).flat_map(children));
    }
    None
}

/// Searches the descriptors of one process, at most `left`.
fn find_in(process: i32, wanted: &Names, left: &mut usize) -> Option<OwnedFd> {
    sockets(process, left).find(|fd| is_other(wanted, fd.as_fd()))
}

/// Returns true if a descriptor is the other end of the socket that has these names.
pub(crate) fn is_other(names_of_one: &Names, fd: BorrowedFd<'_>) -> bool {
    // One end's name is the other end's peer.
    names(fd).is_some_and(|names| (&names.peer, &names.own) == (&names_of_one.own, &names_of_one.peer))
}

/// Ends pending calls of a process on the unconnected sockets of a dead node, because neither connections nor
/// datagrams will arrive. Connected descriptors see the end of their peer.
pub(crate) fn shut(tag: NodeTag, process: i32) {
    shut_where(process, |socket| socket.tag() == tag);
}

/// Like [`shut`], for all processes. Returns the processes that have sockets of the node.
pub(crate) fn shut_everywhere(tag: NodeTag) -> Vec<u32> {
    let processes = numbers_in("/proc").unwrap_or_default();
    processes
        .into_iter()
        .filter(|process| shut_where(*process, |socket| socket.tag() == tag))
        .map(i32::cast_unsigned)
        .collect()
}

/// Does [`poison_all`] and [`shut`] for all processes.
pub(crate) fn break_everywhere(tag: NodeTag) {
    for process in numbers_in("/proc").unwrap_or_default() {
        poison_all(tag, process);
        shut_where(process, |socket| socket.tag() == tag);
    }
}

/// Returns the processes that have sockets of the node.
pub(crate) fn holders(tag: NodeTag) -> Vec<u32> {
    let has_some = |process: &i32| {
        sockets(*process, &mut { MAX_DESCRIPTORS_AT_END })
            .any(|fd| Socket::of(fd.as_fd()).is_some_and(|socket| socket.tag() == tag))
    };
    numbers_in("/proc").unwrap_or_default().into_iter().filter(has_some).map(i32::cast_unsigned).collect()
}

/// Returns true if a shutdown has ended the receiving direction.
fn is_shut(fd: BorrowedFd<'_>) -> bool {
    events_of(fd, PollFlags::RDHUP).is_ok_and(|events| events.contains(PollFlags::RDHUP))
}

/// Like [`shut`], for one socket.
pub(crate) fn shut_one(tag: NodeTag, opened: Opened, process: i32) {
    shut_where(process, |socket| socket.tag() == tag && socket.opened() == opened);
}

/// Shuts the sockets that `wanted` accepts. Returns true if the process has any.
fn shut_where(process: i32, wanted: impl Fn(&Socket<'_>) -> bool) -> bool {
    let mut has_some = false;
    for fd in sockets(process, &mut { MAX_DESCRIPTORS_AT_END }) {
        let Some(socket) = Socket::of(fd.as_fd()).filter(|socket| wanted(socket)) else { continue };
        has_some = true;
        let waits = socket.kind() != Kind::Stream || sockopt::socket_acceptconn(&fd).unwrap_or(false);
        // A second shutdown would wake event loops again.
        if waits && !is_shut(fd.as_fd()) {
            // Waiting callers return. A shutdown that fails is ignored.
            let _ = rustix::net::shutdown(&fd, Shutdown::Both);
        }
    }
    has_some
}

/// Returns copies of a process's sockets, as far as the system allows, from at most `left` descriptors.
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

/// Returns the names of a connected AF_UNIX socket.
pub(crate) fn names(fd: BorrowedFd<'_>) -> Option<Names> {
    let name = |address: SocketAddrAny| {
        let address = SocketAddrUnix::try_from(address).ok()?;
        Some(address.abstract_name().unwrap_or_default().to_vec())
    };
    Some(Names {
        own: name(rustix::net::getsockname(fd).ok()?)?,
        peer: name(rustix::net::getpeername(fd).ok()??)?,
    })
}
