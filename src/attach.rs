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
//! let bell: Arc<dyn Attached> = Arc::new(Bell(ring));
//! handle.attach(Arc::clone(&bell));
//! handle.kick();
//! rings.recv().expect("the engine thread runs it");
//! handle.detach(&bell);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use peersock_datapath::{Datapath, JoinedNetwork};
use peersock_overlay::{Lookup, NetworkId, NodeId, PeerDescription};
use peersock_stack::{Error, Flow, InterfaceId, Scope, TcpOptions, Visible};

use crate::config::Network;
pub use crate::driver::Attached;
use crate::node::{Among, Closing, Inner, LocalNames, Node};
pub use crate::node::{Linger, Patience, Remaining, loss_text, say_loss};
pub use crate::socket::{Acceptor, Connection, Place, TaskUser, Waited, port_refusal_text};
use crate::sync;
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
pub struct NodeHandle {
    inner: Arc<Inner>,
    /// The part of the node that exists for the handle's sockets; `None` for all of it.
    part: Option<Part>,
}

/// Part of a node that one program uses.
#[derive(Clone)]
struct Part {
    /// Interfaces of its networks.
    visible: Visible,
    /// Its closed connections.
    closing: Arc<Closing>,
    /// Names that it gives to its networks.
    names: Arc<Mutex<LocalNames>>,
}

impl NodeHandle {
    /// Returns the handle of a node.
    pub fn of(node: &Node) -> NodeHandle {
        NodeHandle { inner: Arc::clone(&node.inner), part: None }
    }

    /// Returns a handle that does not keep the node running.
    pub fn downgrade(&self) -> WeakNodeHandle {
        WeakNodeHandle { inner: Arc::downgrade(&self.inner), part: self.part.clone() }
    }

    /// Returns a handle for a program that uses only some of the node's networks, which must be joined. For
    /// its sockets, other networks do not exist: they have no route there, and receive nothing from there.
    ///
    /// ```
    /// # use peersock::{IdentitySource, Interfaces, Network, Node};
    /// # use peersock::attach::NodeHandle;
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
    /// let work = node.join(Network::ad_hoc("ff0001ffff000000".parse()?))?;
    /// let home = node.join(Network::ad_hoc("ff0002ffff000000".parse()?))?;
    /// let handle = NodeHandle::of(&node).within(&[home.id()]);
    /// assert_eq!(handle.networks().len(), 1);
    /// let [inside, outside] = [home.address(), work.address()].map(|address| (address, 8080).into());
    /// assert!(handle.reserve(None, inside, Default::default()).is_ok());
    /// assert!(handle.reserve(None, outside, Default::default()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn within(&self, networks: &[NetworkId]) -> NodeHandle {
        let visible = Visible::new(&self.interfaces_of(networks));
        let part = Part { visible, closing: Arc::default(), names: Arc::default() };
        NodeHandle { inner: Arc::clone(&self.inner), part: Some(part) }
    }

    /// Replaces the networks of a handle [`within`](Self::within) some, which must be joined. Its clones
    /// follow. Open sockets lose networks that are left out, and get no further ones, because other programs
    /// may have their ports there. Connections in other networks stay until they are reset. Does nothing for
    /// a handle of all networks.
    ///
    /// ```
    /// # use peersock::{IdentitySource, Interfaces, Network, Node};
    /// # use peersock::attach::NodeHandle;
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
    /// let handle = NodeHandle::of(&node).within(&[]);
    /// let home = node.join(Network::ad_hoc("ff0002ffff000000".parse()?))?;
    /// assert!(handle.networks().is_empty());
    /// handle.set_networks(&[home.id()]);
    /// assert_eq!(handle.networks().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_networks(&self, networks: &[NetworkId]) {
        if let Some(part) = &self.part {
            part.visible.set(&self.interfaces_of(networks));
        }
    }

    /// Replaces the names that the program of a handle [`within`](Self::within) some networks gives to them,
    /// as [`Network::with_local_name`] does for a node. Its clones follow. Does nothing for a handle of all
    /// networks.
    ///
    /// [`Network::with_local_name`]: crate::Network::with_local_name
    pub fn set_local_names<'a>(&self, networks: impl IntoIterator<Item = &'a Network>) {
        let Some(part) = &self.part else { return };
        let named = networks.into_iter().filter(|network| network.id().admits_programs());
        let mut names = LocalNames::new();
        for network in named {
            if let Some(name) = network.local_name() {
                names.entry(name.clone()).or_insert(network.id());
            }
        }
        *sync::lock(&part.names) = names;
    }

    /// Looks a name up in the networks that exist for the handle, by their names for its program.
    fn among<T>(&self, look: impl FnOnce(&Inner, Among<'_>) -> T) -> T {
        let names = match &self.part {
            Some(part) => sync::lock(&part.names).clone(),
            None => self.inner.local_names(),
        };
        look(&self.inner, (&self.networks(), &names))
    }

    fn interfaces_of(&self, networks: &[NetworkId]) -> Vec<InterfaceId> {
        let known = self.datapath().networks();
        let joined = known.iter().filter(|network| networks.contains(&network.id));
        joined.map(|network| network.interface).collect()
    }

    /// Returns the joined networks that exist for the handle's sockets, in the order of joining.
    pub fn networks(&self) -> Arc<[JoinedNetwork]> {
        let networks = self.datapath().networks();
        match &self.part {
            None => networks,
            Some(part) => {
                let visible = part.visible.list();
                let is_visible = |network: &&JoinedNetwork| visible.contains(&network.interface);
                networks.iter().filter(is_visible).cloned().collect()
            }
        }
    }

    /// Returns who has an address now in one of these networks; see [`Node::peer_at`].
    pub fn peer_at(&self, address: IpAddr) -> Option<Arc<PeerDescription>> {
        let networks = self.networks();
        networks.iter().find_map(|network| self.datapath().peer_at(network.interface, address))
    }

    /// Returns the interfaces that a socket may use, which may be bound to one.
    pub fn scope(&self, device: Option<InterfaceId>) -> Scope {
        let scope = Scope::from(device);
        match &self.part {
            Some(part) => scope.within(&part.visible),
            None => scope,
        }
    }

    /// Returns the addresses of the members with this name, in the networks that exist for the handle.
    pub fn addresses_named(&self, name: &str) -> Vec<IpAddr> {
        self.among(|node, among| crate::node::known_addresses(node, name, among))
    }

    /// Returns the addresses of the members with this name; none if no member has it, and the name may be
    /// another host's. Waits for the controllers of managed networks, for .8 s at most.
    ///
    /// # Errors
    /// `NotFound` if the name ends with the local name or the ID of a network, as `alpha.team` does, and no
    /// member has it: no other resolver must be asked.
    pub fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.among(|node, among| crate::node::addresses_named(node, name, among));
        match found.is_empty() && self.is_of_network(name) {
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no member of the network is named `{name}`"),
            )),
            false => Ok(found),
        }
    }

    /// Asks the controllers of managed networks for the member with a name, if one may have it. Returns false
    /// once they have said that none has it. The answer shows in [`Self::addresses_named`].
    pub fn search_name(&self, name: &str) -> bool {
        self.among(|node, among| crate::node::search_name(node, name, among))
    }

    /// Returns true if a controller has just said that no member or program has this name, which ends with
    /// the local name or the ID of a managed network.
    pub fn is_name_absent(&self, name: &str) -> bool {
        self.among(|node, among| crate::node::is_name_absent(node, name, among))
    }

    /// Returns true if a name ends with the local name or the ID of a network that exists for the handle, as
    /// `alpha.team` does. No other resolver knows it: a host that has the name elsewhere is another one.
    pub fn is_of_network(&self, name: &str) -> bool {
        self.among(|node, among| crate::node::of_network(node, name, among).is_some())
    }

    /// Returns the name of the member that has an address in a network that exists for the handle.
    pub fn name_at(&self, address: IpAddr) -> Option<String> {
        let networks = self.networks();
        self.datapath().name_at(address, |id| networks.iter().any(|network| network.id == id))
    }

    /// Returns the node's data path, with its stack.
    pub fn datapath(&self) -> &Datapath {
        &self.inner.driver.datapath
    }

    /// Returns the poller of the engine thread, to which descriptors are added.
    pub fn poller(&self) -> &Arc<Poller> {
        &self.inner.driver.poller
    }

    /// Returns the member of a joined network that has `address`, if the node knows it. For a program with
    /// its own keys it is the machine, which certifies any number of them.
    pub fn member_at(&self, address: IpAddr) -> Option<NodeId> {
        let (datapath, networks) = (self.datapath(), self.networks());
        let mut leading =
            networks.iter().filter(|one| one.routes.iter().any(|route| route.contains(address)));
        leading.find_map(|network| match datapath.find(Instant::now(), network, address) {
            Lookup::Peer(peer) => Some(peer.member()),
            _ => None,
        })
    }

    /// Notes the IPv4 address under which IPv4 sockets of programs see the member at an IPv6 address. The
    /// [status](Node::status) shows it, so that a log of such a program can be read.
    pub fn note_ipv4_alias(&self, of: Ipv6Addr, alias: Ipv4Addr) {
        self.inner.note_ipv4_alias(of, alias);
    }

    /// Fails once the node is shut down.
    ///
    /// # Errors
    /// `NetworkDown` (ENETDOWN).
    pub fn check_up(&self) -> io::Result<()> {
        self.inner.check_up()
    }

    /// Wakes the engine thread: it runs due work, calls [`Attached::run`], and polls the deadline again.
    pub fn kick(&self) {
        self.inner.driver.kick();
    }

    /// Makes the engine thread also run `attached`, until [`NodeHandle::detach`].
    pub fn attach(&self, attached: Arc<dyn Attached>) {
        self.inner.driver.attach(attached);
    }

    /// Ends an attachment. The engine thread may run it once more.
    pub fn detach(&self, attached: &Arc<dyn Attached>) {
        self.inner.driver.detach(attached);
    }

    /// Shuts down like [`Node::shutdown`], with `patience` in place of a time. [`Node::undelivered`] returns
    /// the losses.
    pub fn shutdown(&self, patience: &mut Patience) -> bool {
        self.inner.shutdown(patience)
    }

    /// Counts a user that waits as a task: while there is one, the engine thread reads the UDP sockets.
    pub fn task_user(&self) -> TaskUser {
        TaskUser::new(&self.inner)
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
        let connection = Connection::open(&self.inner, &self.scope(interface), local, remote, options)?;
        Ok(connection.counted_in(self.own_closing()))
    }

    /// Takes an address and a port, only on one interface if given; connections come after
    /// [`Acceptor::listen`].
    ///
    /// # Errors
    /// Returns the errors of [`Stack::tcp_bind`](peersock_stack::Stack::tcp_bind) and of
    /// [`scope_within`](Self::scope_within).
    pub fn reserve(
        &self,
        interface: Option<InterfaceId>,
        local: SocketAddr,
        options: TcpOptions,
    ) -> Result<Acceptor, Error> {
        let scope = self.scope_within(local.ip(), interface)?;
        Acceptor::reserve(&self.inner, scope, local, options, self.own_closing())
    }

    fn own_closing(&self) -> Option<Arc<Closing>> {
        self.part.as_ref().map(|part| Arc::clone(&part.closing))
    }

    /// Registers a socket whose waiters are woken when the node is shut down. Connections need no such call,
    /// because they fail by themselves.
    pub fn add_socket<S: Waited + 'static>(&self, socket: &Arc<S>) {
        self.inner.add_socket(socket);
    }

    /// Returns the closed connections with undelivered data: of a handle [`within`](Self::within) networks
    /// its own, else the node's.
    pub fn closing(&self) -> Vec<Arc<Flow>> {
        match &self.part {
            Some(part) => part.closing.flows(),
            None => self.inner.closing(),
        }
    }

    /// Returns the interfaces of a local address, for a socket that may already be bound to one: its owner,
    /// and for a wildcard or group address all.
    ///
    /// # Errors
    /// Returns [`Error::AddrNotAvailable`] if it is not an address of this node, or of another interface.
    pub fn scope_within(&self, local: IpAddr, bound: Option<InterfaceId>) -> Result<Scope, Error> {
        if local.is_unspecified() || local.is_multicast() {
            return Ok(self.scope(bound));
        }
        let networks = self.networks();
        let mut owners = networks.iter().filter(|network| network.addresses.contains(&local));
        let owner = owners.find(|network| bound.is_none_or(|bound| bound == network.interface));
        Ok(self.scope(Some(owner.ok_or(Error::AddrNotAvailable)?.interface)))
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").finish_non_exhaustive()
    }
}

/// Handle of a node that does not keep it running; [`NodeHandle::downgrade`] returns one.
#[derive(Clone)]
pub struct WeakNodeHandle {
    inner: Weak<Inner>,
    part: Option<Part>,
}

impl WeakNodeHandle {
    /// Returns the handle, if the node still exists.
    pub fn upgrade(&self) -> Option<NodeHandle> {
        let part = self.part.clone();
        self.inner.upgrade().map(|inner| NodeHandle { inner, part })
    }
}

impl fmt::Debug for WeakNodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakNodeHandle").finish_non_exhaustive()
    }
}
