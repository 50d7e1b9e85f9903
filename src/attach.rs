//! Interface for crates that offer a node's sockets in another form: a handle of the node, sockets that never
//! wait, and the engine thread to run in.
//!
//! `peersock-socket-server` builds on it; programs use [`net`](crate::net) and [`blocking`](crate::blocking).
//! Types of the stack and the data path are those of `peersock-stack` and `peersock-datapath`.
//!
//! ```
//! use std::sync::{Arc, mpsc};
//! use std::time::Instant;
//!
//! use peersock::attach::{Attached, NodeHandle, PollEvent};
//! use peersock::{IdentitySource, Interfaces, Node};
//!
//! struct Bell(mpsc::Sender<()>);
//!
//! impl Attached for Bell {
//!     fn run(&self, _: &[PollEvent]) {
//!         let _ = self.0.send(());
//!     }
//!
//!     fn deadline(&self) -> Option<Instant> {
//!         None
//!     }
//! }
//!
//! let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
//! let handle = NodeHandle::of(&node);
//! let _user = handle.task_user();
//! let (ring, rings) = mpsc::channel();
//! handle.attach(Some(Arc::new(Bell(ring))));
//! handle.kick();
//! rings.recv().expect("the engine thread runs it");
//! handle.attach(None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Instant;

use peersock_datapath::Datapath;
use peersock_overlay::{Lookup, NodeId};
use peersock_stack::{Error, Flow, InterfaceId, TcpOptions};

pub use crate::driver::Attached;
use crate::node::{Inner, Node};
pub use crate::node::{Linger, Patience, Remaining, loss_text, say_loss};
pub use crate::socket::{Acceptor, Connection, Place, TaskUser, Waited, port_refusal_text};
pub use crate::sys::poll::Wakeup;
pub use crate::sys::poller::Poller;
/// Types of rustix, as epoll(7) returns them.
pub use crate::sys::poller::{Event as PollEvent, EventFlags};
pub use crate::sys::process::at_exit;

/// Handle of a running node, which it keeps running, as a [`Node`] does.
///
/// ```
/// # use peersock::{IdentitySource, Interfaces, Node};
/// # use peersock::attach::NodeHandle;
/// # let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let handle = NodeHandle::of(&node);
/// assert!(handle.datapath().networks().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct NodeHandle(Arc<Inner>);

impl NodeHandle {
    /// Returns the handle of a node.
    pub fn of(node: &Node) -> NodeHandle {
        NodeHandle(Arc::clone(&node.inner))
    }

    /// Returns a handle that does not keep the node running.
    pub fn downgrade(&self) -> WeakNodeHandle {
        WeakNodeHandle(Arc::downgrade(&self.0))
    }

    /// Returns the node's data path, with its stack.
    pub fn datapath(&self) -> &Datapath {
        &self.0.driver.datapath
    }

    /// Returns the poller of the engine thread, to which descriptors are added.
    pub fn poller(&self) -> &Arc<Poller> {
        &self.0.driver.poller
    }

    /// Returns the member of a joined network that has `address`, if the node knows it.
    pub fn member_at(&self, address: IpAddr) -> Option<NodeId> {
        let datapath = self.datapath();
        let networks = datapath.networks();
        let mut leading =
            networks.iter().filter(|one| one.routes.iter().any(|route| route.contains(address)));
        leading.find_map(|network| match datapath.find(Instant::now(), network, address) {
            Lookup::Peer(peer) => Some(*peer.id()),
            _ => None,
        })
    }

    /// Fails once the node is shut down.
    ///
    /// # Errors
    /// `NetworkDown` (ENETDOWN).
    pub fn check_up(&self) -> io::Result<()> {
        self.0.check_up()
    }

    /// Wakes the engine thread: it runs due work, calls [`Attached::run`], and polls the deadline again.
    pub fn kick(&self) {
        self.0.driver.kick();
    }

    /// Makes the engine thread also run `attached`, in place of an earlier attachment; `None` ends that. A
    /// node has one such slot, which a server of descriptors takes: a second one stops the first, and
    /// dropping either empties it.
    pub fn attach(&self, attached: Option<Arc<dyn Attached>>) {
        self.0.driver.attach(attached);
    }

    /// Shuts down like [`Node::shutdown`], with `patience` in place of a time. [`Node::undelivered`] returns
    /// the losses.
    pub fn shutdown(&self, patience: &mut Patience) -> bool {
        self.0.shutdown(patience)
    }

    /// Counts a user that waits as a task: while there is one, the engine thread reads the UDP sockets.
    pub fn task_user(&self) -> TaskUser {
        TaskUser::new(&self.0)
    }

    /// Begins a connection, from `local` if given, and only over one interface if given.
    /// [`Connection::check_connected`] tells when it is established.
    ///
    /// # Errors
    /// Returns the errors of [`Stack::tcp_connect`](peersock_stack::Stack::tcp_connect);
    /// [`Error::NetworkUnreachable`] if no network, or not this one, has a route.
    pub fn connect(
        &self,
        interface: Option<InterfaceId>,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Connection, Error> {
        Connection::open(&self.0, interface, local, remote, options)
    }

    /// Takes an address and a port, only on one interface if given; connections come after
    /// [`Acceptor::listen`].
    ///
    /// # Errors
    /// Returns the errors of [`Stack::tcp_bind`](peersock_stack::Stack::tcp_bind) and of
    /// [`interface_within`](Self::interface_within).
    pub fn reserve(
        &self,
        interface: Option<InterfaceId>,
        local: SocketAddr,
        options: TcpOptions,
    ) -> Result<Acceptor, Error> {
        Acceptor::reserve(&self.0, interface, local, options)
    }

    /// Registers a socket whose waiters are woken when the node is shut down. Connections need no such call,
    /// because they fail by themselves.
    pub fn add_socket<S: Waited + 'static>(&self, socket: &Arc<S>) {
        self.0.add_socket(socket);
    }

    /// Returns the closed connections with undelivered data.
    pub fn closing(&self) -> Vec<Arc<Flow>> {
        self.0.closing()
    }

    /// Returns the interface of a local address, for a socket that may already be bound to one; `None` for a
    /// wildcard address, which means all. Group addresses have no owner.
    ///
    /// # Errors
    /// Returns [`Error::AddrNotAvailable`] if it is not an address of this node, or of another interface.
    pub fn interface_within(
        &self,
        local: IpAddr,
        bound: Option<InterfaceId>,
    ) -> Result<Option<InterfaceId>, Error> {
        crate::socket::interface_within(&self.0, local, bound)
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").finish_non_exhaustive()
    }
}

/// Handle of a node that does not keep it running; [`NodeHandle::downgrade`] returns one.
#[derive(Clone)]
pub struct WeakNodeHandle(Weak<Inner>);

impl WeakNodeHandle {
    /// Returns the handle, if the node still exists.
    pub fn upgrade(&self) -> Option<NodeHandle> {
        self.0.upgrade().map(NodeHandle)
    }
}

impl fmt::Debug for WeakNodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakNodeHandle").finish_non_exhaustive()
    }
}
