//! The node's ends of datagram sockets: an AF_UNIX socket for each remote address, whose name says which.

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

/// Ends that one socket may have; beyond, those go that were not used for longest. They come back when they
/// are needed.
pub(crate) const MOST_PER_SOCKET: usize = 1024;
/// Ends that all sockets may have together.
pub(crate) const MOST: usize = 8192;

/// What the name of an end says: a remote address as the application names it, and details.
pub(crate) type Place = (SocketAddr, Option<Details>);

/// One of the node's ends.
pub(crate) struct End {
    pub(crate) place: Place,
    /// What is sent through it asks for this, of which the place has the digest: extension headers.
    pub(crate) asked: Option<Box<DatagramOptions>>,
    name: Remote,
    /// Connected to the application's end.
    pub(crate) fd: OwnedFd,
    /// Whether nobody else can send to it: while the application's end is connected to another, it cannot be
    /// connected.
    is_private: bool,
    /// When it was last used, in an order of all uses.
    used: u64,
}

impl End {
    /// Makes one, for the application's end of a socket.
    pub(crate) fn new(
        tag: NodeTag,
        socket: peersock_fd::Opened,
        place: Place,
        name: Remote,
    ) -> Result<Self, Errno> {
        let fd = unix(SocketType::DGRAM)?;
        passed_fds::refuse(fd.as_fd());
        // Connected before it has a name: nobody but the application's end can send to it.
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

    /// Takes what the application has sent; `None` of what others have.
    pub(crate) fn receive(
        &self,
        (tag, socket): (NodeTag, peersock_fd::Opened),
        buf: &mut [u8],
    ) -> Result<Option<usize>, Errno> {
        if self.is_private {
            return rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT).map(|(_, length)| Some(length));
        }
        let (_, length, from) = rustix::net::recvfrom(&self.fd, buf, RecvFlags::DONTWAIT)?;
        // Nobody else can have the name while the application has it.
        let by_application = from.and_then(name_of) == Some(Name::Opened(tag, socket));
        Ok(by_application.then_some(length))
    }

    /// Makes the kernel report ECONNRESET to the application's end, which is connected to this one: it does
    /// when this one goes away with something unread. The application asks the node what that means.
    pub(crate) fn report_error(&self, tag: NodeTag, socket: peersock_fd::Opened) {
        let own = address(&Name::Remote(tag, self.name));
        // Only while it is not connected can it send to itself, and only what is here already is left unread.
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

    /// When each was used last.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (u64, Key)> {
        self.by_key.iter().map(|(key, end)| (end.used, *key))
    }
}

/// The eighth of some ends that was not used for longest.
pub(crate) fn least_used<T: Ord>(mut ends: Vec<(u64, T)>) -> impl Iterator<Item = T> {
    ends.sort_unstable();
    let count = (ends.len() / 8).max(1);
    ends.into_iter().take(count).map(|(_, end)| end)
}
