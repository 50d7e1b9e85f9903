//! Opening pipes.

use std::future::IntoFuture;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use peersock::Node;
use peersock_net::{Conn, Dialer, ListenConfig, Listener, Side, SocketError, TcpAddr, UdpAddr};
use peersock_primitives::sync;

use crate::address::{resolve, within};
use crate::callbacks::{self, CallbackId, MessageCallback, MessageCallbacks, StateCallbacks};
use crate::overlay::is_overlays;
use crate::pipe::{Inner, Wire, start_datagrams, start_server, start_stream};
use crate::{Message, Options, Pipe, PipeError, Proto};

/// A pipe that is about to be opened: awaiting it returns the pipe. From [`Pipe::connect`] and
/// [`Pipe::listen`].
///
/// ```
/// use peersock_pipe::{Options, Pipe, Proto};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let server = Pipe::listen(Proto::Tcp, "[::1]:0").options(Options::new().max_clients(10)).await?;
/// let client = Pipe::connect(Proto::Tcp, server.local_addr()).route("[::1]:0".parse().expect("an address"));
/// let client = client.msg_cb(|message, _| println!("{} bytes", message.len())).await?;
/// assert!(client.local_addr().ip().is_loopback());
/// # Ok(())
/// # }
/// ```
#[must_use = "it is opened when it is awaited"]
pub struct Opening {
    proto: Proto,
    place: Place,
    route: Option<SocketAddr>,
    side: Side,
    node: Option<Node>,
    options: Options,
    /// True if the pipe keeps its own queue although it has callbacks for messages.
    always_queues: bool,
    msg_cbs: MessageCallbacks,
    up_cbs: StateCallbacks,
    end_cbs: StateCallbacks,
}

/// The remote end of a client, or the local address of a server.
enum Place {
    To(String),
    At(String),
}

impl Opening {
    pub(crate) fn to(proto: Proto, dest: String) -> Opening {
        Opening::new(proto, Place::To(dest))
    }

    pub(crate) fn at(proto: Proto, at: String) -> Opening {
        Opening::new(proto, Place::At(at))
    }

    fn new(proto: Proto, place: Place) -> Opening {
        Opening {
            proto,
            place,
            route: None,
            side: Side::default(),
            node: None,
            options: Options::default(),
            always_queues: false,
            msg_cbs: Vec::new(),
            up_cbs: Vec::new(),
            end_cbs: Vec::new(),
        }
    }

    /// Sets the local address of a client, with a port, which may be 0; without a route the system chooses
    /// one. For a route of [`peersock::interfaces`] it is `route.bind(0, None)?.address()`.
    pub fn route(mut self, route: SocketAddr) -> Opening {
        self.route = Some(route);
        self
    }

    /// Sets the options.
    pub fn options(mut self, options: Options) -> Opening {
        self.options = options;
        self
    }

    /// Sets the node through which members are reached, or in whose networks a server is reachable, instead
    /// of the process's node.
    pub fn node(mut self, node: &Node) -> Opening {
        self.node = Some(node.clone());
        self
    }

    /// Sets the side from which a server without a specific address is reachable, if there is a node.
    /// Default: the overlay only.
    pub fn side(mut self, side: Side) -> Opening {
        self.side = side;
        self
    }

    /// Adds a callback that is active from the first message on: see [`Pipe::add_msg_cb`]. The pipe then has
    /// no queue.
    pub fn msg_cb(self, callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> Opening {
        self.message_callback(CallbackId::next(), callbacks::of_messages(callback))
    }

    /// Adds an asynchronous callback as [`msg_cb`](Self::msg_cb) does.
    pub fn async_msg_cb<F>(self, callback: impl Fn(Message, Pipe) -> F + Send + Sync + 'static) -> Opening
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.message_callback(CallbackId::next(), callbacks::async_of_messages(callback))
    }

    fn message_callback(mut self, id: CallbackId, callback: MessageCallback) -> Opening {
        self.msg_cbs.push((id, callback));
        self
    }

    pub(crate) fn message_callbacks(mut self, callbacks: &MessageCallbacks) -> Opening {
        self.msg_cbs.extend(callbacks.iter().cloned());
        self
    }

    /// Makes the pipe keep its own queue, even with callbacks for messages.
    pub(crate) fn always_queues(mut self) -> Opening {
        self.always_queues = true;
        self
    }

    /// Adds a callback for when a client's pipe is open; for a server, it is called for each client.
    pub fn up_cb(mut self, callback: impl Fn(Pipe) + Send + Sync + 'static) -> Opening {
        self.up_cbs.push((CallbackId::next(), callbacks::of_state(callback)));
        self
    }

    /// Adds an asynchronous callback as [`up_cb`](Self::up_cb) does.
    pub fn async_up_cb<F>(mut self, callback: impl Fn(Pipe) -> F + Send + Sync + 'static) -> Opening
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.up_cbs.push((CallbackId::next(), callbacks::async_of_state(callback)));
        self
    }

    pub(crate) fn state_callbacks(mut self, up: StateCallbacks, end: StateCallbacks) -> Opening {
        self.up_cbs.extend(up);
        self.end_cbs.extend(end);
        self
    }

    pub(crate) fn of_conn(conn: Conn, options: Options) -> Result<Pipe, PipeError> {
        // Callbacks are added later, and the socket knows its address.
        match conn {
            Conn::Tcp(conn) => {
                let local = conn.local_addr().to_socket_addr().map_err(SocketError::from)?;
                let remote = conn.remote_addr().to_socket_addr().map_err(SocketError::from)?;
                Ok(Opening::of_stream(conn.into(), local, remote, options))
            }
            Conn::Udp(socket) => {
                let remote = socket.remote_addr().map(|addr| addr.to_socket_addr());
                let remote = remote.transpose().map_err(SocketError::from)?;
                let opening = Opening::to(Proto::Udp, String::new()).options(options.clone());
                start_datagrams(socket, remote, options, |inner| opening.prepare(inner))
            }
            Conn::Unix(_) => {
                let error = std::io::Error::new(std::io::ErrorKind::Unsupported, "pipes are of TCP and UDP");
                Err(crate::error::of_system("open", &error).into())
            }
        }
    }

    pub(crate) fn of_stream(wire: Wire, local: SocketAddr, remote: SocketAddr, options: Options) -> Pipe {
        let opening = Opening::to(Proto::Tcp, String::new()).options(options.clone());
        start_stream(wire, local, remote, options, None, |inner| opening.prepare(inner))
    }

    /// Adds the initial callbacks and queue, and calls the callbacks of pipes that are up.
    fn prepare(self, inner: &Arc<Inner>) {
        let is_server = self.proto == Proto::Tcp && matches!(self.place, Place::At(_));
        let up: Vec<_> = self.up_cbs.iter().map(|(_, callback)| Arc::clone(callback)).collect();
        {
            let mut state = sync::lock(&inner.state);
            if (self.msg_cbs.is_empty() || self.always_queues) && !is_server {
                state.queue_by_default(&inner.options);
            }
            state.msg_cbs = self.msg_cbs;
            state.up_cbs = self.up_cbs;
            state.end_cbs = self.end_cbs;
        }
        if matches!(self.place, Place::To(_)) {
            let later = inner.call_state(up);
            if !later.is_empty() {
                tokio::spawn(callbacks::finish(later));
            }
        }
    }

    async fn open(self) -> Result<Pipe, PipeError> {
        match (&self.place, self.proto) {
            (Place::To(dest), Proto::Tcp) => {
                let mut dialer = Dialer::new().timeout(self.options.con_timeout);
                if let Some(route) = self.route {
                    dialer = dialer.local(TcpAddr::from(route));
                }
                if let Some(node) = &self.node {
                    dialer = dialer.node(node);
                }
                let Conn::Tcp(conn) = dialer.dial(dest, "tcp").await? else {
                    return Err(PipeError::NoDestination);
                };
                let local = conn.local_addr().to_socket_addr().map_err(SocketError::from)?;
                let remote = conn.remote_addr().to_socket_addr().map_err(SocketError::from)?;
                let options = self.options.clone();
                let prepare = |inner: &Arc<Inner>| self.prepare(inner);
                Ok(start_stream(conn.into(), local, remote, options, None, prepare))
            }
            (Place::At(at), Proto::Tcp) => match self.listening().listen(at, "tcp").await? {
                Listener::Tcp(listener) => {
                    let options = self.options.clone();
                    start_server(listener, options, |inner| self.prepare(inner))
                }
                Listener::Unix(_) => Err(PipeError::NoAddress),
            },
            (Place::To(dest), Proto::Udp) => {
                let network = match self.route {
                    None => "udp",
                    Some(route) if route.is_ipv4() => "udp4",
                    Some(_) => "udp6",
                };
                let resolving = resolve(self.node.as_ref(), dest, network);
                let dest = within(self.options.dns_timeout, dest, resolving).await?;
                let is_overlays = |addr: SocketAddr| is_overlays(self.node.as_ref(), addr.ip());
                let bound = self.route.filter(|route| !route.ip().is_unspecified());
                if bound.is_some_and(|route| is_overlays(route) != is_overlays(dest)) {
                    return Err(PipeError::OtherNetwork);
                }
                let any = match dest {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let side = if is_overlays(dest) { Side::Overlay } else { Side::Kernel };
                let own = UdpAddr::from(self.route.unwrap_or(any));
                let socket = self.listening().side(side).listen_udp(Some(&own), "udp").await?;
                self.datagrams(socket, Some(dest))
            }
            (Place::At(at), Proto::Udp) => {
                let resolving = async { Ok(self.resolver().resolve_udp_addr(at, "udp").await?) };
                let own = within(self.options.dns_timeout, at, resolving).await?;
                let socket = self.listening().listen_udp(Some(&own), "udp").await?;
                self.datagrams(socket, None)
            }
        }
    }

    fn datagrams(self, socket: peersock_net::UdpConn, dest: Option<SocketAddr>) -> Result<Pipe, PipeError> {
        socket.set_broadcast(self.options.broadcast)?;
        let options = self.options.clone();
        start_datagrams(socket, dest, options, |inner| self.prepare(inner))
    }

    fn listening(&self) -> ListenConfig {
        let config = ListenConfig::new().side(self.side);
        match &self.node {
            Some(node) => config.node(node),
            None => config,
        }
    }

    fn resolver(&self) -> peersock_net::Resolver {
        crate::address::resolver(self.node.as_ref())
    }
}

impl IntoFuture for Opening {
    type Output = Result<Pipe, PipeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}
