//! Table of the applications' sockets, with their bindings and phases.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use peersock::attach::{Acceptor, NodeHandle};
use peersock_fd::{Errno, Family, SocketId, Which};

use crate::addresses::{canonical, errno, shown};
use crate::closings::Watch;
use crate::families::bind_families;
use crate::options::Options;
use crate::private_name::PrivateName;
use crate::transport::Transport;
use crate::wakers::Key;

/// Number of opened sockets below which none are swept.
const MIN_SWEPT_SOCKETS: usize = 64;

/// A socket that an application has opened and announced.
pub(crate) struct Opened {
    pub(crate) socket: peersock_fd::Opened,
    /// The address and port that it is bound to; IPv6's wildcard address has one entry per family.
    pub(crate) reserved: Vec<Acceptor>,
    /// The transport a datagram socket is bound to.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) options: Options,
    /// Its private kernel name, if it has no abstract one.
    pub(crate) private: Option<Arc<PrivateName>>,
    /// The inode of the application's descriptor, once the node has seen one.
    pub(crate) inode: Option<u64>,
    /// The watch by which the kernel reports its closing, if there is one.
    pub(crate) watch: Option<Watch>,
    /// SO_ERROR.
    pub(crate) error: Option<Errno>,
    /// Set once the node has left the network that it is bound to.
    pub(crate) is_down: bool,
    pub(crate) phase: Phase,
}

/// Phase of a socket's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// New: may connect or listen.
    Fresh,
    Listening(Key),
    Connecting(Key),
    Connected(Key),
    /// Bound, for datagrams.
    Datagrams(Key),
}

impl Opened {
    fn new(socket: peersock_fd::Opened) -> Self {
        let options = Options::default();
        let (reserved, phase) = (Vec::new(), Phase::Fresh);
        let (transport, private, inode, watch, error) = (None, None, None, None, None);
        Self { socket, reserved, transport, options, private, inode, watch, error, is_down: false, phase }
    }

    /// Returns the address that it is bound to, as the application sees it.
    pub(crate) fn bound(&self) -> Option<SocketAddr> {
        let reserved = self.reserved.first().map(|acceptor| acceptor.local_addr());
        let bound = reserved.or_else(|| self.transport.as_ref().map(|transport| transport.local()));
        bound.map(|bound| self.shown_local(bound))
    }

    /// Returns a local address as a socket of this family shows it: IPv4's wildcard address becomes IPv6's.
    fn shown_local(&self, address: SocketAddr) -> SocketAddr {
        match self.socket.family {
            Family::V6 if address.ip().is_unspecified() => {
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port())
            }
            family => shown(family, address),
        }
    }

    /// Handles bind(2).
    pub(crate) fn bind(&mut self, node: &NodeHandle, local: SocketAddr) -> Result<(), Errno> {
        if !self.reserved.is_empty() || self.phase != Phase::Fresh {
            return Err(Errno::INVAL);
        }
        let options = &self.options;
        let reserve = |local: SocketAddr| {
            let own = options.tcp(local.is_ipv4());
            node.reserve(options.interface(), local, own)
        };
        let port = |acceptor: &Acceptor| acceptor.local_addr().port();
        self.reserved =
            bind_families(canonical(local), options.v6_only, reserve, port, drop).map_err(errno)?;
        Ok(())
    }
}

/// The sockets that applications have opened and announced, and the connections that listeners have accepted.
pub(crate) struct Sockets {
    opened: HashMap<SocketId, Opened>,
    accepted: HashMap<SocketId, Key>,
    /// Number of opened sockets from which the next sweep is worthwhile.
    sweep_at: usize,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { opened: HashMap::new(), accepted: HashMap::new(), sweep_at: MIN_SWEPT_SOCKETS }
    }
}

impl Sockets {
    /// Returns the socket, registered if it is new.
    pub(crate) fn open(&mut self, socket: peersock_fd::Opened) -> &mut Opened {
        self.opened.entry(socket.id).or_insert_with(|| Opened::new(socket))
    }

    /// Returns true if a sweep is due before one more socket is added. Sweeping takes system calls, so it is
    /// due only once the number has doubled since the last sweep.
    pub(crate) fn is_time_to_sweep(&self, one_more: SocketId) -> bool {
        self.opened.len() >= self.sweep_at && !self.opened.contains_key(&one_more)
    }

    /// Notes that closed sockets were swept.
    pub(crate) fn note_sweep(&mut self) {
        self.sweep_at = MIN_SWEPT_SOCKETS.max(2 * self.opened.len());
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&Opened> {
        self.opened.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Opened> {
        self.opened.get_mut(&id)
    }

    pub(crate) fn phase(&self, id: SocketId) -> Option<Phase> {
        self.opened.get(&id).map(|opened| opened.phase)
    }

    pub(crate) fn remove(&mut self, id: SocketId) -> Option<Opened> {
        self.opened.remove(&id)
    }

    /// Returns the number of sockets that applications have opened.
    pub(crate) fn len(&self) -> usize {
        self.opened.len()
    }

    /// Returns the sockets that applications have opened.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Opened> {
        self.opened.values()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Opened> {
        self.opened.values_mut()
    }

    /// Notes that a listener has accepted a connection.
    pub(crate) fn note_accepted(&mut self, id: SocketId, key: Key) {
        self.accepted.insert(id, key);
    }

    /// Forgets an accepted connection that has ended.
    pub(crate) fn forget_accepted(&mut self, id: SocketId) {
        self.accepted.remove(&id);
    }

    /// Returns the key of a connected socket's stream.
    pub(crate) fn stream(&self, which: Which) -> Option<Key> {
        match which {
            Which::Accepted(id) => self.accepted.get(&id).copied(),
            Which::Opened(socket) => match self.phase(socket.id)? {
                Phase::Connected(key) => Some(key),
                _ => None,
            },
        }
    }

    /// Returns the same for a socket that was opened or accepted.
    pub(crate) fn stream_of(&self, id: SocketId) -> Option<Key> {
        match self.phase(id) {
            Some(Phase::Connected(key)) => Some(key),
            _ => self.accepted.get(&id).copied(),
        }
    }
}
