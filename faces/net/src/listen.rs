//! Listeners, and datagram sockets bound to an address.

use peersock::Node;

use crate::addr::Place;
use crate::conn::Core;
use crate::dial::{Failures, failed};
use crate::members::Members;
use crate::network::{Family, Kind};
use crate::resolve::Resolver;
use crate::socket::{self, Wanted};
use crate::{
    Addr, IntoNetwork, Listener, Network, SocketError, TcpAddr, TcpListener, UdpAddr, UdpConn, UnixAddr,
    UnixConn, UnixListener, UnknownNetworkError,
};

/// The side from which wildcard sockets can be reached if there is a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// The overlay only.
    #[default]
    Overlay,
    /// The machine's own networks only.
    Kernel,
    /// Both, at the same port.
    Both,
}

/// Settings for listening. The free functions of the same names listen with the defaults.
///
/// An address of this node on a joined network is on the overlay; all other addresses are on the kernel. The
/// wildcard means every local address, of both IPv4 and IPv6 if the network allows both. It is on the overlay
/// if there is a node, unless [`side`](Self::side) says otherwise, else on the kernel.
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_net::{Dialer, ListenConfig, join_host_port};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let listener = ListenConfig::new().node(&node).listen(":80", "tcp").await?;
/// let address = join_host_port(&network.address().to_string(), 80);
/// let conn = Dialer::new().node(&node).dial(&address, "tcp").await?;
/// assert_eq!(listener.accept().await?.local_addr()?, conn.remote_addr().expect("it is connected"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ListenConfig {
    side: Side,
    node: Option<Node>,
}

impl ListenConfig {
    /// Returns the default settings.
    pub fn new() -> ListenConfig {
        ListenConfig::default()
    }

    /// Sets the side from which wildcard sockets can be reached if there is a node.
    pub fn side(mut self, side: Side) -> ListenConfig {
        self.side = side;
        self
    }

    /// Sets the node whose networks reach the sockets, instead of the process's node if that was started.
    pub fn node(mut self, node: &Node) -> ListenConfig {
        self.node = Some(node.clone());
        self
    }

    /// Listens at an address: `host:port` or the path of a Unix domain socket.
    ///
    /// An empty host is every local address. With port 0 or no port the system chooses. If a name has several
    /// addresses, the first one that can be bound is used.
    ///
    /// # Errors
    /// [`SocketError::Address`] if the address is malformed or its host or service is unknown,
    /// [`SocketError::UnknownNetwork`] if the network is not `tcp`, `tcp4`, `tcp6` or `unix`. If no address
    /// can be bound, returns the first failure's error, such as EADDRINUSE; its text names all addresses.
    pub async fn listen(&self, address: &str, network: impl IntoNetwork) -> Result<Listener, SocketError> {
        let network = network.into_network()?.among(&[Kind::Tcp, Kind::Unix])?;
        if !network.is_stream() {
            return Err(UnknownNetworkError::from(network).into());
        }
        let found = Resolver::of(self.node.as_ref()).lookup(address, network).await?;
        self.listen_at(network, address, found)
    }

    /// Listens at a TCP address; without one, at every local address and a port that the system chooses.
    /// Errors: see [`ListenConfig::listen`].
    pub async fn listen_tcp(
        &self,
        laddr: Option<&TcpAddr>,
        network: impl IntoNetwork,
    ) -> Result<TcpListener, SocketError> {
        let network = network.into_network()?.among(&[Kind::Tcp])?;
        let laddr = Addr::Tcp(laddr.cloned().unwrap_or_default());
        match self.listen_at(network, &laddr.to_string(), vec![laddr])? {
            Listener::Tcp(listener) => Ok(listener),
            Listener::Unix(_) => Err(UnknownNetworkError::from(network).into()),
        }
    }

    /// Binds a UDP socket to an address; without one, to every local address and a port the system chooses.
    /// Errors: see [`ListenConfig::listen`], with the networks `udp`, `udp4` and `udp6`.
    pub async fn listen_udp(
        &self,
        laddr: Option<&UdpAddr>,
        network: impl IntoNetwork,
    ) -> Result<UdpConn, SocketError> {
        let network = network.into_network()?.among(&[Kind::Udp])?;
        let laddr = Addr::Udp(laddr.cloned().unwrap_or_default());
        let members = Members::of(self.node.as_ref());
        let operation = format!("listen {network} {laddr}");
        let wanted = self.wanted(network, &laddr)?;
        let socket = socket::bind_udp(members.as_ref(), wanted).await;
        let socket = socket.map_err(|error| SocketError::of_system(operation, error))?;
        Ok(UdpConn::new(Core::new(network, socket, None)))
    }

    /// Listens at the path of a Unix domain socket, of the network `unix`. The path must not exist yet;
    /// closing removes it.
    /// Errors: see [`ListenConfig::listen`].
    pub async fn listen_unix(
        &self,
        laddr: &UnixAddr,
        network: impl IntoNetwork,
    ) -> Result<UnixListener, SocketError> {
        let network = network.into_network()?.among(&[Kind::Unix])?;
        if !network.is_stream() {
            return Err(UnknownNetworkError::from(network).into());
        }
        match self.listen_at(network, &laddr.to_string(), vec![laddr.clone().into()])? {
            Listener::Unix(listener) => Ok(listener),
            Listener::Tcp(_) => Err(UnknownNetworkError::from(network).into()),
        }
    }

    /// Binds a Unix domain datagram socket to a path, of the network `unixgram`. The path must not exist yet.
    /// It stays after closing, unless [`UnixConn::set_unlink_on_close`] is set.
    /// Errors: see [`ListenConfig::listen`].
    pub async fn listen_unixgram(
        &self,
        laddr: &UnixAddr,
        network: impl IntoNetwork,
    ) -> Result<UnixConn, SocketError> {
        let network = network.into_network()?.among(&[Kind::Unix])?;
        if network.is_stream() {
            return Err(UnknownNetworkError::from(network).into());
        }
        let socket = socket::bind_unixgram(&laddr.place()?);
        let socket =
            socket.map_err(|error| SocketError::of_system(format!("listen {network} {laddr}"), error))?;
        Ok(UnixConn::new(Core::new(network, socket, None)))
    }

    /// Listens at the first address that can be bound.
    pub(crate) fn listen_at(
        &self,
        network: Network,
        address: &str,
        found: Vec<Addr>,
    ) -> Result<Listener, SocketError> {
        let members = Members::of(self.node.as_ref());
        let mut failures = Failures::new();
        for addr in found {
            let listener = match &addr {
                Addr::Unix(addr) => socket::listen_unix(&addr.place()?),
                _ => socket::listen_tcp(members.as_ref(), self.wanted(network, &addr)?),
            };
            match listener {
                Ok(socket) if network.kind() == Kind::Tcp => {
                    return Ok(TcpListener::new(network, socket)?.into());
                }
                Ok(socket) => return Ok(UnixListener::new(network, socket)?.into()),
                Err(error) => failures.push((addr, error)),
            }
        }
        Err(failed(&format!("listen {network} {address}"), failures))
    }

    fn wanted(&self, network: Network, addr: &Addr) -> Result<Wanted, SocketError> {
        addr.check(network)?;
        let (ip, place) = (addr.ip_addr().and_then(|addr| addr.ip()), addr.place()?);
        let Place::Ip(local) = place else { return Err(UnknownNetworkError::from(network).into()) };
        let of_ip = ip.map(|ip| if ip.is_ipv6() { Family::V6 } else { Family::V4 });
        Ok(Wanted { local, side: self.side, family: of_ip.or(network.family()) })
    }
}

/// Listens at an address: see [`ListenConfig::listen`].
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_net::SocketError> {
/// let listener = peersock_net::listen(":7000", "tcp").await?;
/// loop {
///     let conn = listener.accept().await?;
///     tokio::spawn(async move {
///         tokio::io::copy(&mut &conn, &mut &conn).await
///     });
/// }
/// # }
/// ```
///
/// Errors: see [`ListenConfig::listen`].
pub async fn listen(address: &str, network: impl IntoNetwork) -> Result<Listener, SocketError> {
    ListenConfig::new().listen(address, network).await
}

/// Listens at a TCP address: see [`ListenConfig::listen_tcp`].
/// Errors: see [`ListenConfig::listen_tcp`].
pub async fn listen_tcp(
    laddr: Option<&TcpAddr>,
    network: impl IntoNetwork,
) -> Result<TcpListener, SocketError> {
    ListenConfig::new().listen_tcp(laddr, network).await
}

/// Binds a UDP socket to an address: see [`ListenConfig::listen_udp`].
/// Errors: see [`ListenConfig::listen_udp`].
pub async fn listen_udp(laddr: Option<&UdpAddr>, network: impl IntoNetwork) -> Result<UdpConn, SocketError> {
    ListenConfig::new().listen_udp(laddr, network).await
}

/// Listens at the path of a Unix domain socket: see [`ListenConfig::listen_unix`].
/// Errors: see [`ListenConfig::listen_unix`].
pub async fn listen_unix(laddr: &UnixAddr, network: impl IntoNetwork) -> Result<UnixListener, SocketError> {
    ListenConfig::new().listen_unix(laddr, network).await
}

/// Binds a Unix domain datagram socket to a path: see [`ListenConfig::listen_unixgram`].
/// Errors: see [`ListenConfig::listen_unixgram`].
pub async fn listen_unixgram(laddr: &UnixAddr, network: impl IntoNetwork) -> Result<UnixConn, SocketError> {
    ListenConfig::new().listen_unixgram(laddr, network).await
}
