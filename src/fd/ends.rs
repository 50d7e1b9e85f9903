//! The node's ends of datagram sockets: an AF_UNIX socket for each remote address, whose name says which.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::poller::EventFlags;
use peersock_fd::{Details, Errno, Name, NodeTag, Remote, address, name_of};
use rustix::net::{RecvFlags, SendFlags, SocketType};

use super::datagram::Datagrams;
use super::ready::Key;
use super::server::{Entry, ServerState, unix};

/// Ends that one socket may have; beyond, those go that were not used for longest. They come back when they
/// are needed.
const MOST_PER_SOCKET: usize = 1024;
/// Ends that all sockets may have together.
const MOST: usize = 8192;

/// What the name of an end says: a remote address as the application names it, and details.
pub(super) type Place = (SocketAddr, Option<Details>);

/// One of the node's ends.
pub(super) struct End {
    /// The socket that it belongs to.
    pub(super) owner: Key,
    pub(super) place: Place,
    name: Remote,
    /// Connected to the application's end.
    pub(super) fd: OwnedFd,
    /// Whether nobody else can send to it: while the application's end is connected to another, it cannot be
    /// connected.
    is_private: bool,
    /// When it was last used, in an order of all uses.
    used: AtomicU64,
}

impl End {
    pub(super) fn note_use(&self, uses: &mut u64) {
        *uses += 1;
        self.used.store(*uses, Ordering::Relaxed);
    }

    /// Connects it to the application's end, if that is connected to no other.
    pub(super) fn connect(&self, tag: NodeTag, socket: peersock_fd::Opened) -> Result<(), Errno> {
        rustix::net::connect(&self.fd, &address(&Name::Opened(tag, socket)))
    }

    /// Takes what the application has sent; 0 bytes of what others have.
    pub(super) fn receive(
        &self,
        socket: peersock_fd::Opened,
        buf: &mut [u8],
    ) -> Result<Option<usize>, Errno> {
        if self.is_private {
            return rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT).map(|(_, length)| Some(length));
        }
        let (_, length, from) = rustix::net::recvfrom(&self.fd, buf, RecvFlags::DONTWAIT)?;
        // Nobody else can have the name while the application has it.
        let by_application = matches!(from.and_then(name_of), Some(Name::Opened(_, from)) if from == socket);
        Ok(by_application.then_some(length))
    }

    /// Makes the kernel report ECONNRESET to the application's end, which is connected to this one: it does
    /// when this one goes away with something unread. The application asks the node what that means.
    pub(super) fn report_error(&self, tag: NodeTag, socket: peersock_fd::Opened) {
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

impl ServerState {
    /// The end of a socket for one place, made if there is none.
    pub(super) fn end(&mut self, owner: Key, place: Place) -> Result<Key, Errno> {
        let Some(Entry::Datagrams(mut datagrams)) = self.remove(owner) else { return Err(Errno::INVAL) };
        let end = self.end_of(owner, &mut datagrams, place);
        self.insert(owner, Entry::Datagrams(datagrams));
        end
    }

    /// As above, of a socket that is being looked at.
    pub(super) fn end_of(
        &mut self,
        owner: Key,
        datagrams: &mut Datagrams,
        place: Place,
    ) -> Result<Key, Errno> {
        if let Some(&key) = datagrams.ends.get(&place)
            && let Some(Entry::End(end)) = self.entries.get(&key)
        {
            end.note_use(&mut self.uses);
            return Ok(key);
        }
        if datagrams.ends.len() >= MOST_PER_SOCKET {
            let own: Vec<Key> = datagrams.ends.values().copied().collect();
            self.evict(own, datagrams);
        } else if self.ends >= MOST {
            self.evict_any(datagrams);
        }
        let name = self.name_key.remote(datagrams.socket.id, place.0, place.1);
        let (fd, is_private) = match self.make_end(datagrams.socket, name) {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.evict_any(datagrams);
                self.make_end(datagrams.socket, name)?
            }
            fd => fd?,
        };
        let key = self.new_key();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        self.watch(fd.as_fd(), key, flags).map_err(|_| Errno::NOMEM)?;
        let end = End { owner, place, name, fd, is_private, used: AtomicU64::new(0) };
        end.note_use(&mut self.uses);
        self.insert(key, Entry::End(end));
        datagrams.ends.insert(place, key);
        Ok(key)
    }

    fn make_end(&self, socket: peersock_fd::Opened, name: Remote) -> Result<(OwnedFd, bool), Errno> {
        let fd = unix(SocketType::DGRAM)?;
        // Connected before it has a name: nobody but the application's end can send to it.
        let is_private = match rustix::net::connect(&fd, &address(&Name::Opened(self.tag, socket))) {
            Ok(()) => true,
            // The application's end is connected to another.
            Err(Errno::PERM) => false,
            Err(error) => return Err(error),
        };
        rustix::net::bind(&fd, &address(&Name::Remote(self.tag, name)))?;
        Ok((fd, is_private))
    }

    /// Makes room among all ends.
    fn evict_any(&mut self, current: &mut Datagrams) {
        let ends = self.entries.iter().filter(|(_, entry)| matches!(entry, Entry::End(_)));
        let keys = ends.map(|(key, _)| *key).collect();
        self.evict(keys, current);
    }

    /// Removes the eighth of some ends that was not used for longest; those that a socket is connected to
    /// stay.
    fn evict(&mut self, keys: Vec<Key>, current: &mut Datagrams) {
        let mut order: Vec<(u64, Key)> = keys
            .into_iter()
            .filter_map(|key| match self.entries.get(&key) {
                Some(Entry::End(end)) => Some((end.used.load(Ordering::Relaxed), key)),
                _ => None,
            })
            .collect();
        order.sort_unstable();
        let count = (order.len() / 8).max(1);
        for (_, key) in order.into_iter().take(count) {
            let Some(Entry::End(end)) = self.entries.get(&key) else { continue };
            let (owner, place) = (end.owner, end.place);
            let owner = match self.entries.get_mut(&owner) {
                Some(Entry::Datagrams(owner)) => owner,
                // The one that is being looked at is not in the table.
                _ => &mut *current,
            };
            if owner.peer.is_none_or(|peer| (peer, None) != place) && owner.ends.get(&place) == Some(&key) {
                owner.ends.remove(&place);
                // What the application has just sent is not lost.
                self.handle(key, super::server::Readiness { readable: true, ..Default::default() });
                self.remove(key);
            }
        }
    }
}
