//! Closed sockets of applications: inotify(7) tells when the last descriptor of one goes.
//!
//! An AF_UNIX socket tells its other end of its closing only where it is connected, and a datagram socket
//! never does. But whatever is closed is a file: the kernel tells of its last close, after all copies, those
//! of other processes and those under way in other sockets included, and before its name is free again. It
//! takes no further descriptor.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use peersock_fd::SocketId;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Names one socket that is watched.
pub(crate) type Watch = i32;

/// The last close of a file that was open for whatever.
const CLOSED: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::CLOSE_NOWRITE);

/// Bytes of events that are read at once.
const EVENTS: usize = 4096;

/// The sockets that are watched, and those of them that were closed.
pub(crate) struct Closings {
    /// `None` where the system has none to give: each user may have so many.
    inotify: Option<OwnedFd>,
    watched: HashMap<Watch, SocketId>,
    closed: Vec<SocketId>,
    has_missed: bool,
}

impl Closings {
    /// Nothing is watched.
    pub(crate) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.inspect_err(|error| tracing::debug!(%error, "closed sockets are looked for"));
        Self { inotify: inotify.ok(), watched: HashMap::new(), closed: Vec::new(), has_missed: false }
    }

    /// Returns the descriptor that is readable when there is news.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches a socket. `None` where the system does not let us: without proc(5), and beyond what a user may
    /// watch.
    pub(crate) fn watch(&mut self, socket: SocketId, fd: BorrowedFd<'_>) -> Option<Watch> {
        // The node's threads may have descriptors of their own.
        let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
        let watch = inotify::add_watch(self.inotify.as_ref()?, path, CLOSED);
        let watch = watch.inspect_err(|error| tracing::debug!(%error, "a socket is not watched")).ok()?;
        self.watched.insert(watch, socket);
        Some(watch)
    }

    /// Watches it no more.
    pub(crate) fn unwatch(&mut self, watch: Watch) {
        if self.watched.remove(&watch).is_some()
            && let Some(inotify) = &self.inotify
        {
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// Returns true if a socket that is watched was not closed until now.
    pub(crate) fn is_open(&mut self, watch: Watch) -> bool {
        self.read();
        self.watched.contains_key(&watch)
    }

    /// Returns true if there is news that nobody has taken.
    pub(crate) fn has_news(&self) -> bool {
        self.has_missed || !self.closed.is_empty()
    }

    /// One that was closed until now.
    pub(crate) fn next_closed(&mut self) -> Option<SocketId> {
        if self.closed.is_empty() {
            self.read();
        }
        self.closed.pop()
    }

    /// Returns true if some were closed, since it was asked last, of which the kernel does not tell: there
    /// were more at once than it keeps. What is watched stays watched.
    pub(crate) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    fn read(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let mut buf = [MaybeUninit::uninit(); EVENTS];
        let mut events = Reader::new(inotify, &mut buf);
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.has_missed = true;
            } else if let Some(socket) = self.watched.remove(&event.wd()) {
                // The file is gone, and what is kept of it goes with this.
                let _ = inotify::remove_watch(inotify, event.wd());
                self.closed.push(socket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::SocketType;

    use super::*;
    use crate::unix::unix;

    #[test]
    fn the_last_descriptor_counts() {
        let mut closings = Closings::new();
        let sockets = [1, 2, 3].map(|id| (SocketId(id), unix(SocketType::DGRAM).unwrap()));
        let watches = sockets.each_ref().map(|(id, fd)| closings.watch(*id, fd.as_fd()).unwrap());
        let [(_, first), (second_id, second), (_, third)] = sockets;
        let copy = rustix::io::dup(&first).unwrap();
        drop(first);
        assert_eq!(closings.next_closed(), None, "a copy is open");
        drop(second);
        assert_eq!(watches.map(|watch| closings.is_open(watch)), [true, false, true]);
        assert!(closings.has_news());
        assert_eq!(closings.next_closed(), Some(second_id));
        closings.unwatch(watches[2]);
        drop((copy, third));
        assert_eq!((closings.next_closed(), closings.next_closed()), (Some(SocketId(1)), None));
        assert!(!closings.take_missed() && closings.watched.is_empty());
    }
}
