//! Nodes: pipes to and from the members of networks, by an address text.

mod nicknames;
mod text;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock::interfaces::{Family, Interface};
use peersock::{Joined, Nickname, Node};
use peersock_primitives::{blocking, sync};

pub use self::text::{NodeAddress, NodeAddressError};
use crate::callbacks::{self, CallbackId, MessageCallback, MessageCallbacks};
use crate::error::of_system;
use crate::{Message, Options, Pipe, PipeError, Proto};

/// The default port of nodes, the same as P2PD's.
pub const NODE_PORT: u16 = 10001;

/// Default time for which a node looks for another one.
const DEFAULT_FIND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which a thread waits for a node in one step, so that a cancelled call blocks no thread for
/// longer.
const WAIT_STEP: Duration = Duration::from_millis(250);

/// Settings of a [`P2pNode`].
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_pipe::{Options, P2pNode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// node.join(Network::ad_hoc("ff0001ffff000000".parse()?))?;
/// let p2p = P2pNode::builder(&node).port(0).options(Options::new().max_clients(50)).start().await?;
/// assert!(p2p.address()?.to_string().starts_with("peersock-node:1:"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct P2pNodeBuilder {
    node: Node,
    port: u16,
    options: Options,
    interfaces: Vec<Interface>,
    msg_cbs: MessageCallbacks,
}

impl P2pNodeBuilder {
    /// Sets the overlay port that accepts connections; 0 is any. Default: [`NODE_PORT`].
    pub fn port(mut self, port: u16) -> P2pNodeBuilder {
        self.port = port;
        self
    }

    /// Sets the options of the pipes.
    pub fn options(mut self, options: Options) -> P2pNodeBuilder {
        self.options = options;
        self
    }

    /// Sets the machine's interfaces that the address text lists, at most 64. Default: none.
    pub fn interfaces(mut self, interfaces: impl IntoIterator<Item = Interface>) -> P2pNodeBuilder {
        self.interfaces = interfaces.into_iter().collect();
        self
    }

    /// Adds a callback that is active from the first connection on: see [`P2pNode::add_msg_cb`]. A callback
    /// that is added after the start misses earlier messages.
    pub fn msg_cb(mut self, callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> P2pNodeBuilder {
        self.msg_cbs.push((CallbackId::next(), callbacks::of_messages(callback)));
        self
    }

    /// Adds an asynchronous callback as [`msg_cb`](Self::msg_cb) does.
    pub fn async_msg_cb<F>(
        mut self,
        callback: impl Fn(Message, Pipe) -> F + Send + Sync + 'static,
    ) -> P2pNodeBuilder
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.msg_cbs.push((CallbackId::next(), callbacks::async_of_messages(callback)));
        self
    }

    /// Listens at all addresses of the node in its networks.
    ///
    /// # Errors
    /// If the port is in use (EADDRINUSE), or a network does not allow it.
    pub async fn start(self) -> Result<P2pNode, PipeError> {
        let at = format!(":{}", self.port);
        let listening = Pipe::listen(Proto::Tcp, at).node(&self.node).options(self.options.clone());
        let server = listening.message_callbacks(&self.msg_cbs).await?;
        Ok(P2pNode {
            node: self.node,
            options: self.options,
            interfaces: self.interfaces,
            server,
            own: Arc::new(Mutex::new(Own { msg_cbs: self.msg_cbs, ..Own::default() })),
        })
    }
}

impl fmt::Debug for P2pNodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut builder = f.debug_struct("P2pNodeBuilder");
        builder.field("node", &self.node).field("port", &self.port).field("options", &self.options);
        builder.field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

/// A member of networks that accepts connections from other members, and connects to them by their address
/// text. Connections use the overlay, which finds the path, directly or through NATs or roots, and encrypts.
///
/// A node with callbacks keeps the pipes of members that connect; without callbacks, the program must accept
/// them. The node keeps the pipes that it opens. Dropping it closes all these pipes, even if other handles
/// exist; the underlying [`Node`] continues.
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_pipe::{Message, P2pNode, Pipe};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// node.join(Network::ad_hoc("ff0001ffff000000".parse()?))?;
/// let pong = |message: Message, pipe: Pipe| async move {
///     if &message[..] == b"PING" {
///         let _ = pipe.send("PONG").await;
///     }
/// };
/// let p2p = P2pNode::builder(&node).port(0).async_msg_cb(pong).start().await?;
/// // To be given to another node; this one finds itself as well.
/// let text = p2p.address()?.to_string();
/// let pipe = p2p.connect(&text.parse()?).await?;
/// pipe.send("PING").await?;
/// assert_eq!(pipe.recv().await?.as_deref(), Some(&b"PONG"[..]));
/// p2p.close().await;
/// # Ok(())
/// # }
/// ```
pub struct P2pNode {
    node: Node,
    options: Options,
    interfaces: Vec<Interface>,
    server: Pipe,
    own: Arc<Mutex<Own>>,
}

/// The pipes and nicknames of this node, and the callbacks of new pipes.
#[derive(Default)]
struct Own {
    opened: Vec<Pipe>,
    /// The nicknames that the node has claimed.
    nicknames: Vec<Nickname>,
    msg_cbs: MessageCallbacks,
    is_closed: bool,
}

impl P2pNode {
    /// Starts building a node in the networks of an overlay node, which it does not shut down.
    pub fn builder(node: &Node) -> P2pNodeBuilder {
        P2pNodeBuilder {
            node: node.clone(),
            port: NODE_PORT,
            options: Options::default(),
            interfaces: Vec::new(),
            msg_cbs: Vec::new(),
        }
    }

    /// Returns the underlying node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the port that accepts connections.
    pub fn port(&self) -> u16 {
        self.server.local_addr().port()
    }

    /// Returns the open pipes, to and from other nodes.
    pub fn pipes(&self) -> Vec<Pipe> {
        let mut pipes = self.server.clients();
        pipes.extend(sync::lock(&self.own).opened.iter().cloned());
        pipes
    }

    /// Returns the node's current address. Its text is the input of [`connect`](Self::connect), here and in
    /// Python. The text contains no secrets, but it shows the machine's addresses. The last interfaces are
    /// omitted if the text would exceed 16,384 characters.
    ///
    /// # Errors
    /// [`PipeError::NoCommonNetwork`] if the node is shut down or in no network.
    pub fn address(&self) -> Result<NodeAddress, PipeError> {
        let networks: Vec<Joined> = self.node.networks();
        if networks.is_empty() {
            return Err(PipeError::NoCommonNetwork);
        }
        let status = self.node.status();
        let contact = status.contact.iter().flat_map(|contact| &contact.candidates);
        let mut candidates: Vec<SocketAddr> = contact.map(|candidate| candidate.address).collect();
        for endpoint in status.endpoints {
            match endpoint.ip().is_unspecified() {
                true => candidates.extend(self.interface_addresses(endpoint)),
                false => candidates.push(endpoint),
            }
        }
        Ok(NodeAddress {
            id: self.node.id(),
            public_key: self.node.public_identity(),
            networks: networks.iter().map(|joined| (joined.id(), joined.addresses())).collect(),
            port: self.port(),
            candidates,
            interfaces: self.interfaces.clone(),
            roots: status.roots.iter().map(|root| root.id).collect(),
        }
        .bounded())
    }

    /// Returns the addresses at which a wildcard socket is reachable.
    fn interface_addresses(&self, endpoint: SocketAddr) -> Vec<SocketAddr> {
        let family = if endpoint.is_ipv4() { Family::Ip4 } else { Family::Ip6 };
        let routes = self.interfaces.iter().flat_map(|interface| interface.rp(family).routes());
        let blocks = routes.flat_map(|route| route.nic_ips().iter().chain(route.ext_ips()));
        let ips = blocks.filter(|block| !block.is_link_local()).filter_map(|block| block.nth(0));
        ips.map(|ip| SocketAddr::new(ip, endpoint.port())).collect()
    }

    /// Adds a callback for messages, also on connections that this node makes. To get the first messages as
    /// well, use [`P2pNodeBuilder::msg_cb`].
    pub fn add_msg_cb(&self, callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> CallbackId {
        self.add_message_callback(callbacks::of_messages(callback))
    }

    /// Adds an asynchronous callback as [`add_msg_cb`](Self::add_msg_cb) does.
    pub fn add_async_msg_cb<F>(
        &self,
        callback: impl Fn(Message, Pipe) -> F + Send + Sync + 'static,
    ) -> CallbackId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add_message_callback(callbacks::async_of_messages(callback))
    }

    fn add_message_callback(&self, callback: MessageCallback) -> CallbackId {
        let id = CallbackId::next();
        let opened = {
            let mut own = sync::lock(&self.own);
            own.msg_cbs.push((id, callback.clone()));
            own.opened.clone()
        };
        for pipe in opened.iter().chain([&self.server]) {
            pipe.add_message_callback(id, callback.clone());
        }
        id
    }

    /// Removes a callback. Returns false if it does not exist.
    pub fn del_msg_cb(&self, id: CallbackId) -> bool {
        let (removed, opened) = {
            let mut own = sync::lock(&self.own);
            let removed: Vec<_> = own.msg_cbs.extract_if(.., |(other, _)| *other == id).collect();
            (removed, own.opened.clone())
        };
        for pipe in opened.iter().chain([&self.server]) {
            pipe.del_cb(id);
        }
        !removed.is_empty()
    }

    /// Waits for the next node that connects, and returns its pipe.
    ///
    /// # Errors
    /// If the node is closed.
    pub async fn accept(&self) -> Result<Pipe, PipeError> {
        self.server.accept().await
    }

    /// Connects to the node with this address, and searches for it for up to 30 seconds. Its messages are
    /// queued for [`Pipe::recv`], and the node's callbacks get them, too.
    ///
    /// The connection leads only to the owner of the key in the text, because overlay addresses follow from
    /// the key.
    ///
    /// # Errors
    /// [`PipeError::NoCommonNetwork`], [`PipeError::NotFound`], the other node refuses the connection, or
    /// this node is closed.
    pub async fn connect(&self, to: &NodeAddress) -> Result<Pipe, PipeError> {
        self.connect_within(to, DEFAULT_FIND_TIMEOUT).await
    }

    /// Connects as [`connect`](Self::connect) does, with this search time; `Duration::MAX` means no limit.
    ///
    /// # Errors
    /// The errors of [`connect`](Self::connect).
    pub async fn connect_within(&self, to: &NodeAddress, timeout: Duration) -> Result<Pipe, PipeError> {
        if sync::lock(&self.own).is_closed {
            return Err(PipeError::Closed);
        }
        let mut networks = self.node.networks().into_iter();
        let common = networks.find(|joined| to.networks.contains_key(&joined.id()));
        let joined = common.ok_or(PipeError::NoCommonNetwork)?;
        let address = joined.id().address_of(&to.id);
        find(&joined, address.into(), timeout).await?;
        self.open(SocketAddr::from((address, to.port))).await
    }

    /// Connects to a member that has been found.
    async fn open(&self, dest: SocketAddr) -> Result<Pipe, PipeError> {
        let callbacks = sync::lock(&self.own).msg_cbs.clone();
        let opening = Pipe::connect(Proto::Tcp, dest).node(&self.node).options(self.options.clone());
        let pipe = opening.message_callbacks(&callbacks).always_queues().await?;
        {
            let mut own = sync::lock(&self.own);
            if own.is_closed {
                pipe.inner().shut();
                return Err(PipeError::Closed);
            }
            own.opened.push(pipe.clone());
            // Callbacks may have been added and removed in the meantime. None is dropped under the lock.
            pipe.update_message_callbacks(&callbacks, &own.msg_cbs);
        }
        let own = Arc::downgrade(&self.own);
        pipe.add_end_cb(move |pipe| {
            let Some(own) = own.upgrade() else { return };
            let is_it = |other: &mut Pipe| Arc::ptr_eq(other.inner(), pipe.inner());
            let removed: Vec<Pipe> = sync::lock(&own).opened.extract_if(.., is_it).collect();
            drop(removed);
        });
        Ok(pipe)
    }

    /// Closes the node's pipes. Calling it again does nothing.
    pub async fn close(&self) {
        let opened = self.shut();
        for pipe in opened.iter().chain([&self.server]) {
            pipe.close().await;
        }
    }

    /// Begins to close the node's pipes. Returns the pipes that it has opened.
    fn shut(&self) -> Vec<Pipe> {
        let (opened, nicknames) = {
            let mut own = sync::lock(&self.own);
            own.is_closed = true;
            (own.opened.clone(), std::mem::take(&mut own.nicknames))
        };
        for nickname in &nicknames {
            self.node.release_nickname(nickname);
        }
        for pipe in opened.iter().chain([&self.server]) {
            pipe.inner().shut();
        }
        opened
    }
}

impl Drop for P2pNode {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for P2pNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P2pNode").field("port", &self.port()).finish_non_exhaustive()
    }
}

/// Waits until there is a session with a member.
async fn find(joined: &Joined, address: IpAddr, timeout: Duration) -> Result<(), PipeError> {
    // A deadline beyond the clock's range means no limit.
    let deadline = Instant::now().checked_add(timeout);
    loop {
        let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        let (joined, step) = (joined.clone(), left.min(WAIT_STEP));
        match blocking(move || joined.wait_peer(address, step)).await.flatten() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::TimedOut => {
                return Err(of_system("find the node", &error).into());
            }
            Err(_) if left <= WAIT_STEP => return Err(PipeError::NotFound),
            Err(_) => {}
        }
    }
}
