//! Detection of closed application sockets: inotify(7) reports the close of a socket's last descriptor.
//!
//! An AF_UNIX socket reports its closing to the other end only while connected, and a datagram socket never
//! does. But every socket is a file, and inotify reports the last close of a file. That comes after all
//! copies are closed, including those in other processes and those in flight in other sockets. It comes
//! before the socket's name is free again, and takes no further descriptor.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use peersock_fd::SocketId;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Identifier of one watched socket.
pub(crate) type Watch = i32;

/// The last close of a file, whatever it was open for.
const LAST_CLOSE: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::CLOSE_NOWRITE);

/// Size of the buffer for events, bytes.
const EVENTS_BUFFER_BYTES: usize = 4096;

/// The watched sockets, and those already closed.
pub(crate) struct Closings {
    /// `None` where the system grants no instance, because their number is limited per user.
    inotify: Option<OwnedFd>,
    watched: HashMap<Watch, SocketId>,
    closed: Vec<SocketId>,
    has_missed: bool,
}

impl Closings {
    /// Creates an instance that watches nothing.
    pub(crate) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.inspect_err(|error| tracing::debug!(%error, "closed sockets are looked for"));
        Self { inotify: inotify.ok(), watched: HashMap::new(), closed: Vec::new(), has_missed: false }
    }

    /// Returns the descriptor that is readable when there is news.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches a socket. Returns `None` where the system does not allow it: without proc(5), and beyond the
    /// user's limit of watches.
    pub(crate) fn watch(&mut self, socket: SocketId, fd: BorrowedFd<'_>) -> Option<Watch> {
        // Use thread-self because the node's threads may have a separate descriptor table.
        let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
        let watch = inotify::add_watch(self.inotify.as_ref()?, path, LAST_CLOSE);
        let watch = watch.inspect_err(|error| tracing::debug!(%error, "a socket is not watched")).ok()?;
        self.watched.insert(watch, socket);
        Some(watch)
    }

    /// Stops watching a socket.
    pub(crate) fn unwatch(&mut self, watch: Watch) {
        if self.watched.remove(&watch).is_some()
            && let Some(inotify) = &self.inotify
        {
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// Returns true if a watched socket is still open.
    pub(crate) fn is_open(&mut self, watch: Watch) -> bool {
        self.read();
        self.watched.contains_key(&watch)
    }

    /// Returns true if there are closings that no caller has taken.
    pub(crate) fn has_news(&self) -> bool {
        self.has_missed || !self.closed.is_empty()
    }

    /// Returns a socket that was closed.
    pub(crate) fn next_closed(&mut self) -> Option<SocketId> {
        if self.closed.is_empty() {
            self.read();
        }
        self.closed.pop()
    }

    /// Returns true if the kernel queue has overflowed since the last call, so that some closings were not
    /// reported. All watches stay.
    pub(crate) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    fn read(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let mut buf = [MaybeUninit::uninit(); EVENTS_BUFFER_BYTES];
        let mut events = Reader::new(inotify, &mut buf);
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.has_missed = true;
            } else if let Some(socket) = self.watched.remove(&event.wd()) {
                // The file is gone; this removes the rest of its watch.
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
