//! Servers at several addresses.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;

use peersock::Node;
use peersock::interfaces::Interface;
use peersock_primitives::sync;

use crate::callbacks::{self, CallbackId, MessageCallback, MessageCallbacks, StateCallbacks};
use crate::{Message, Options, Pipe, PipeError, Proto, Target};

/// Several servers that share callbacks.
///
/// ```
/// use peersock_pipe::{Daemon, Message, Pipe, Proto, Target};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let daemon = Daemon::new().async_msg_cb(|message: Message, pipe: Pipe| async move {
///     let _ = pipe.send_to(&message, message.from()).await;
/// });
/// daemon.listen_all([Target::loopback()], [0], [Proto::Tcp, Proto::Udp]).await?;
/// assert_eq!(daemon.servers().len(), 4);
/// daemon.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Daemon {
    options: Options,
    node: Option<Node>,
    msg_cbs: Mutex<MessageCallbacks>,
    up_cbs: StateCallbacks,
    end_cbs: StateCallbacks,
    servers: Mutex<Vec<Pipe>>,
}

impl Daemon {
    /// Makes a daemon without callbacks.
    pub fn new() -> Daemon {
        Daemon::default()
    }

    /// Sets the options of the pipes.
    pub fn options(mut self, options: Options) -> Daemon {
        self.options = options;
        self
    }

    /// Sets the node at whose overlay addresses the daemon listens, instead of the process's node.
    pub fn node(mut self, node: &Node) -> Daemon {
        self.node = Some(node.clone());
        self
    }

    /// Adds a callback for each message: see [`Pipe::add_msg_cb`].
    pub fn msg_cb(self, callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> Daemon {
        self.add_message_callback(callbacks::of_messages(callback));
        self
    }

    /// Adds an asynchronous callback as [`msg_cb`](Self::msg_cb) does.
    pub fn async_msg_cb<F>(self, callback: impl Fn(Message, Pipe) -> F + Send + Sync + 'static) -> Daemon
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add_message_callback(callbacks::async_of_messages(callback));
        self
    }

    /// Adds a callback for each client that connects.
    pub fn up_cb(mut self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> Daemon {
        self.up_cbs.push((CallbackId::next(), callbacks::of_state(callback)));
        self
    }

    /// Adds a callback for the end of a client or a server.
    pub fn end_cb(mut self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> Daemon {
        self.end_cbs.push((CallbackId::next(), callbacks::of_state(callback)));
        self
    }

    /// Adds a callback for the messages of all present and future servers.
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
        let servers = {
            let mut msg_cbs = sync::lock(&self.msg_cbs);
            msg_cbs.push((id, callback.clone()));
            // A server that is added later takes the callback from this list.
            self.servers()
        };
        for server in servers {
            server.add_message_callback(id, callback.clone());
        }
        id
    }

    /// Removes such a callback. Returns false if it does not exist.
    pub fn del_msg_cb(&self, id: CallbackId) -> bool {
        let (removed, servers) = {
            let mut msg_cbs = sync::lock(&self.msg_cbs);
            let at = msg_cbs.iter().position(|(other, _)| *other == id);
            (at.map(|at| msg_cbs.remove(at)), self.servers())
        };
        for server in servers {
            server.del_cb(id);
        }
        removed.is_some()
    }

    /// Returns the pipes of the servers.
    pub fn servers(&self) -> Vec<Pipe> {
        sync::lock(&self.servers).clone()
    }

    /// Listens at one address. Returns the server's pipe.
    ///
    /// # Errors
    /// If the address cannot be used: EADDRINUSE if another socket listens there.
    pub async fn add_listener(&self, proto: Proto, at: SocketAddr) -> Result<Pipe, PipeError> {
        let mut opening = Pipe::listen(proto, at).options(self.options.clone());
        if let Some(node) = &self.node {
            opening = opening.node(node);
        }
        let callbacks = sync::lock(&self.msg_cbs).clone();
        opening = opening.message_callbacks(&callbacks);
        let server = opening.state_callbacks(self.up_cbs.clone(), self.end_cbs.clone()).await?;
        // Callbacks may have been added and removed in the meantime. None is dropped under the lock.
        let msg_cbs = sync::lock(&self.msg_cbs);
        sync::lock(&self.servers).push(server.clone());
        server.update_message_callbacks(&callbacks, &msg_cbs);
        drop(msg_cbs);
        Ok(server)
    }

    /// Listens at each address of the targets, on each port, by each protocol. Returns the new servers'
    /// pipes. If one server cannot listen, this call's other servers are closed again. Port 0 is any free
    /// port.
    ///
    /// # Errors
    /// [`PipeError::NoAddress`] if the targets have none, and the errors of
    /// [`add_listener`](Self::add_listener).
    pub async fn listen_all(
        &self,
        targets: impl IntoIterator<Item = impl Into<Target>>,
        ports: impl IntoIterator<Item = u16>,
        protos: impl IntoIterator<Item = Proto>,
    ) -> Result<Vec<Pipe>, PipeError> {
        let targets: Vec<Target> = targets.into_iter().map(Into::into).collect();
        let addresses: Vec<SocketAddr> =
            targets.into_iter().flat_map(|target| target.addresses().to_vec()).collect();
        let (ports, protos): (Vec<_>, Vec<_>) = (ports.into_iter().collect(), protos.into_iter().collect());
        if addresses.is_empty() {
            return Err(PipeError::NoAddress);
        }
        let mut opened = Vec::new();
        for mut at in addresses {
            for (port, proto) in ports.iter().flat_map(|port| protos.iter().map(move |proto| (*port, *proto)))
            {
                at.set_port(port);
                match self.add_listener(proto, at).await {
                    Ok(server) => opened.push(server),
                    Err(error) => {
                        for server in opened {
                            self.forget(&server);
                            server.close().await;
                        }
                        return Err(error);
                    }
                }
            }
        }
        Ok(opened)
    }

    /// Listens at the loopback addresses of both families.
    ///
    /// # Errors
    /// The errors of [`listen_all`](Self::listen_all).
    pub async fn listen_loopback(&self, proto: Proto, port: u16) -> Result<Vec<Pipe>, PipeError> {
        self.listen_all([Target::loopback()], [port], [proto]).await
    }

    /// Listens at an interface's private IPv4 address and its link-local IPv6 address, if it has them.
    ///
    /// # Errors
    /// The errors of [`listen_all`](Self::listen_all).
    pub async fn listen_local(
        &self,
        proto: Proto,
        port: u16,
        interface: &Interface,
    ) -> Result<Vec<Pipe>, PipeError> {
        self.listen_all([Target::local(interface)], [port], [proto]).await
    }

    /// Closes all servers, and the pipes of their clients. Dropping the daemon does so too, even if other
    /// handles of the pipes exist.
    pub async fn close(&self) {
        let servers = std::mem::take(&mut *sync::lock(&self.servers));
        for server in &servers {
            server.inner().shut();
        }
        for server in &servers {
            server.close().await;
        }
    }

    fn forget(&self, server: &Pipe) {
        let is_it = |other: &mut Pipe| std::sync::Arc::ptr_eq(other.inner(), server.inner());
        let removed: Vec<Pipe> = sync::lock(&self.servers).extract_if(.., is_it).collect();
        drop(removed);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.servers().iter().for_each(|server| server.inner().shut());
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("servers", &self.servers()).finish_non_exhaustive()
    }
}
