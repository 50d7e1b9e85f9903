//! The node's ends of datagram sockets: one AF_UNIX socket per remote address, whose name encodes the
//! address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use peersock_fd::{Details, Errno, Name, NodeTag, Remote, address, name_of};
use rustix::net::{RecvFlags, SendFlags, SocketType};

use crate::ancillary::DatagramOptions;
use crate::end_index::EndIndex;
use crate::passed_fds;
use crate::unix::unix;
use crate::wakers::Key;

/// Maximum number of ends per socket; beyond it the least recently used ends go. They are remade when needed.
pub(crate) const MAX_ENDS_PER_SOCKET: usize = 1024;
/// Maximum number of ends of all sockets together.
pub(crate) const MAX_ENDS: usize = 8192;

/// Content of an end's name: a remote address as the application names it, and details.
pub(crate) type Place = (SocketAddr, Option<Details>);

/// One of the node's ends.
pub(crate) struct End {
    pub(crate) place: Place,
    /// Options of datagrams sent through it (extension headers); the place contains their digest.
    pub(crate) asked: Option<Box<DatagramOptions>>,
    name: Remote,
    /// Connected to the application's end.
    pub(crate) fd: OwnedFd,
    /// True if only the application can send to it. An end cannot be connected while the application's end is
    /// connected to another.
    is_private: bool,
    /// Sequence number of its last use.
    used: u64,
}

impl End {
    /// Makes an end for the application's end of a socket.
    pub(crate) fn new(
        tag: NodeTag,
        socket: peersock_fd::Opened,
        place: Place,
        name: Remote,
    ) -> Result<Self, Errno> {
        let fd = unix(SocketType::DGRAM)?;
        passed_fds::refuse(fd.as_fd());
        // Connect before naming it, so that only the application's end can send to it.
        let is_private = match rustix::net::connect(&fd, &address(&Name::Opened(tag, socket))) {
            Ok(()) => true,
            // The application's end is connected to another.
            Err(Errno::PERM) => false,
            Err(error) => return Err(error),
        };
        rustix::net::bind(&fd, &address(&Name::Remote(tag, name)))?;
        Ok(Self { place, asked: None, name, fd, is_private, used: 0 })
    }

    /// Connects it to the application's end, if that is connected to no other.
    pub(crate) fn connect(&self, tag: NodeTag, socket: peersock_fd::Opened) -> Result<(), Errno> {
        rustix::net::connect(&self.fd, &address(&Name::Opened(tag, socket)))
    }

    /// Receives what the application has sent. Returns `None` for datagrams of other senders.
    pub(crate) fn receive(
        &self,
        (tag, socket): (NodeTag, peersock_fd::Opened),
        buf: &mut [u8],
    ) -> Result<Option<usize>, Errno> {
        if self.is_private {
            return rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT).map(|(_, length)| Some(length));
        }
        let (_, length, from) = rustix::net::recvfrom(&self.fd, buf, RecvFlags::DONTWAIT)?;
        // No other process can have the name while the application has it.
        let by_application = from.and_then(name_of) == Some(Name::Opened(tag, socket));
        Ok(by_application.then_some(length))
    }

    /// Makes the kernel report ECONNRESET to the application's end, which is connected to this one. The
    /// kernel does so when this end disconnects with unread data. The application then asks the node what the
    /// error means.
    pub(crate) fn report_error(&self, tag: NodeTag, socket: peersock_fd::Opened) {
        let own = address(&Name::Remote(tag, self.name));
        // An end can send to itself only while it is not connected, and only pending data can be left unread.
        let reported = rustix::net::connect_unspec(&self.fd)
            .and_then(|()| rustix::net::sendto(&self.fd, &[], SendFlags::DONTWAIT, &own))
            .and_then(|_| self.connect(tag, socket))
            .and_then(|()| rustix::net::connect_unspec(&self.fd))
            .and_then(|()| self.connect(tag, socket));
        if let Err(error) = reported {
            tracing::debug!(%error, "an error was not reported");
        }
    }
}

/// The ends of one datagram socket.
#[derive(Default)]
pub(crate) struct Ends {
    by_key: HashMap<Key, End>,
    by_place: HashMap<Place, Key>,
}

impl Ends {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn get(&self, key: Key) -> Option<&End> {
        self.by_key.get(&key)
    }

    pub(crate) fn set_asked(&mut self, key: Key, asked: DatagramOptions) {
        if let Some(end) = self.by_key.get_mut(&key) {
            end.asked = Some(Box::new(asked));
        }
    }

    pub(crate) fn at(&self, place: Place) -> Option<Key> {
        self.by_place.get(&place).copied()
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.by_key.keys().copied().collect()
    }

    pub(crate) fn insert(&mut self, key: Key, end: End) {
        self.by_place.insert(end.place, key);
        self.by_key.insert(key, end);
    }

    pub(crate) fn remove(&mut self, key: Key) {
        if let Some(end) = self.by_key.remove(&key) {
            self.by_place.remove(&end.place);
        }
    }

    pub(crate) fn note_use(&mut self, key: Key, index: &mut EndIndex) {
        if let Some(end) = self.by_key.get_mut(&key) {
            end.used = index.next_use();
        }
    }

    /// Returns the sequence number of each end's last use.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (u64, Key)> {
        self.by_key.iter().map(|(key, end)| (end.used, *key))
    }
}

/// Returns the least recently used eighth of `ends`.
pub(crate) fn least_used<T: Ord>(mut ends: Vec<(u64, T)>) -> impl Iterator<Item = T> {
    ends.sort_unstable();
    let count = (ends.len() / 8).max(1);
    ends.into_iter().take(count).map(|(_, end)| end)
}
