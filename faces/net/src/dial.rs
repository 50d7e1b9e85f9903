//! Dialing: connections to addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr as Ip, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use peersock::Node;

use crate::addr::Place;
use crate::conn::Core;
use crate::members::Members;
use crate::network::{Family, Kind};
use crate::race::{DELAY, first_connected, interleaved};
use crate::resolve::Resolver;
use crate::socket::{Socket, connect_ip, connect_unix, unbound_unixgram};
use crate::{
    Addr, AddressError, Conn, IntoNetwork, IpAddr, ListenConfig, Network, SocketError, TcpAddr, TcpConn,
    UdpAddr, UdpConn, UnixAddr, UnixConn,
};

/// Settings for dialing. The free functions of the same names dial with the defaults.
///
/// Addresses and names of members go over the overlay, through the given node, or else through the process's
/// node if it was started. All others go to the kernel. After a given node is shut down, this dialer reaches
/// only loopback addresses.
///
/// ```
/// use std::time::Duration;
///
/// use peersock_net::Dialer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = peersock_net::listen("127.0.0.1:0", "tcp").await?;
/// # let address = listener.addr().to_string();
/// let dialer = Dialer::new().timeout(Duration::from_secs(10));
/// let conn = dialer.dial(&address, "tcp4").await?;
/// # drop(conn);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    local: Option<Addr>,
    timeout: Option<Duration>,
    node: Option<Node>,
}

impl Dialer {
    /// Returns the default settings.
    pub fn new() -> Dialer {
        Dialer::default()
    }

    /// Sets the local address to connect from. By default the system chooses.
    pub fn local(mut self, addr: impl Into<Addr>) -> Dialer {
        self.local = Some(addr.into());
        self
    }

    /// Sets the timeout, which includes name resolution. By default only the system's timeouts apply.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Dialer {
        self.timeout = timeout.into();
        self
    }

    /// Sets the node through which members are reached, instead of the process's node.
    pub fn node(mut self, node: &Node) -> Dialer {
        self.node = Some(node.clone());
        self
    }

    /// Connects to an address: `host:port`, or the path of a Unix domain socket.
    ///
    /// If a name has several addresses, they are tried in the system's order, alternating families (RFC
    /// 8305). A new attempt starts every 250 ms, and at once after a failure; the first connection wins. An
    /// empty host is this machine.
    ///
    /// # Errors
    /// [`SocketError::Address`] if the address is malformed or its host or service is unknown,
    /// [`SocketError::UnknownNetwork`] if the network cannot be dialed, [`SocketError::Deadline`] after the
    /// timeout. If all addresses fail, returns the first failure's error; its text names all addresses.
    pub async fn dial(&self, address: &str, network: impl IntoNetwork) -> Result<Conn, SocketError> {
        let network = network.into_network()?.among(&[Kind::Tcp, Kind::Udp, Kind::Unix])?;
        let dialed = self.within(network, address, async {
            let found = Resolver::of(self.node.as_ref()).lookup(address, network).await?;
            self.connect(network, address, found, self.local.as_ref()).await
        });
        let core = dialed.await?;
        Ok(match network.kind() {
            Kind::Tcp => TcpConn::new(core).into(),
            Kind::Udp => UdpConn::new(core).into(),
            _ => UnixConn::new(core).into(),
        })
    }

    /// Connects to a TCP address of the networks `tcp`, `tcp4` and `tcp6`.
    /// Errors: see [`Dialer::dial`].
    pub async fn dial_tcp(&self, addr: &TcpAddr, network: impl IntoNetwork) -> Result<TcpConn, SocketError> {
        let network = network.into_network()?.among(&[Kind::Tcp])?;
        Ok(TcpConn::new(self.dial_addr(network, addr.clone().into()).await?))
    }

    /// Creates a UDP socket connected to an address of the networks `udp`, `udp4` and `udp6`.
    /// Errors: see [`Dialer::dial`].
    pub async fn dial_udp(&self, addr: &UdpAddr, network: impl IntoNetwork) -> Result<UdpConn, SocketError> {
        let network = network.into_network()?.among(&[Kind::Udp])?;
        Ok(UdpConn::new(self.dial_addr(network, addr.clone().into()).await?))
    }

    /// Connects to a path, as a stream (`unix`) or for datagrams (`unixgram`). A datagram sender needs a
    /// local address to get answers. Its path stays after closing, unless [`UnixConn::set_unlink_on_close`]
    /// is set.
    /// Errors: see [`Dialer::dial`].
    pub async fn dial_unix(
        &self,
        addr: &UnixAddr,
        network: impl IntoNetwork,
    ) -> Result<UnixConn, SocketError> {
        let network = network.into_network()?.among(&[Kind::Unix])?;
        Ok(UnixConn::new(self.dial_addr(network, addr.clone().into()).await?))
    }

    async fn dial_addr(&self, network: Network, addr: Addr) -> Result<Core, SocketError> {
        let connect = self.connect(network, &addr, vec![addr.clone()], self.local.as_ref());
        self.within(network, &addr, connect).await
    }

    async fn within(
        &self,
        network: Network,
        address: impl fmt::Display,
        dialed: impl Future<Output = Result<Core, SocketError>>,
    ) -> Result<Core, SocketError> {
        let Some(timeout) = self.timeout else { return dialed.await };
        let over = |_| SocketError::deadline(format!("dial {network} {address}"));
        tokio::time::timeout(timeout, dialed).await.map_err(over)?
    }

    /// Connects to the first reachable address.
    pub(crate) async fn connect(
        &self,
        network: Network,
        address: impl fmt::Display,
        found: Vec<Addr>,
        local: Option<&Addr>,
    ) -> Result<Core, SocketError> {
        for addr in found.iter().chain(local) {
            addr.check(network)?;
        }
        let operation = format!("dial {network} {address}");
        let done = match network.kind() {
            Kind::Unix => unix(network, &found, local).await?,
            _ => self.race(network, found, local).await?,
        };
        let (socket, remote) = done.map_err(|failures| failed(&operation, failures))?;
        Ok(Core::new(network, socket, Some(remote)))
    }

    async fn race(
        &self,
        network: Network,
        found: Vec<Addr>,
        local: Option<&Addr>,
    ) -> Result<Result<Connected, Failures>, AddressError> {
        let members = Members::of(self.node.as_ref());
        let own_ip = local.and_then(Addr::ip_addr).filter(|local| local.ip().is_some());
        let fits = |addr: &Addr| {
            own_ip.is_none_or(|own| addr.ip_addr().is_some_and(|ip| ip.is_ipv6() == own.is_ipv6()))
        };
        let here: Vec<Addr> = found.into_iter().map(|addr| here(network, addr)).filter(fits).collect();
        let Some(first) = here.first() else {
            let own = local.map(Addr::to_string).unwrap_or_default();
            return Err(AddressError::new("no address of the family of the own one", own));
        };
        let kind = first.network().kind();
        let local = local.map(socket_addr).transpose()?;
        let mut places = Vec::new();
        for addr in interleaved(here) {
            places.push((socket_addr(&addr)?, addr));
        }
        let begin = |(place, addr): &(SocketAddr, Addr)| {
            let (members, place, addr) = (members.as_ref(), *place, addr.clone());
            async move {
                let (socket, peer) = connect_ip(members, network.is_stream(), local, place).await?;
                // A wildcard's remote address is the one the system chose.
                let remote = if place.ip().is_unspecified() { Addr::of_socket(kind, peer) } else { addr };
                Ok((socket, remote))
            }
        };
        let done = first_connected(places, begin, || tokio::time::sleep(DELAY)).await;
        Ok(done.map_err(|failures| failures.into_iter().map(|((_, addr), e)| (addr, e)).collect()))
    }
}

type Connected = (Box<dyn Socket>, Addr);
/// Each address with its error.
pub(crate) type Failures = Vec<(Addr, io::Error)>;

/// Returns the first failure's error, which names all addresses if there are several.
pub(crate) fn failed(operation: &str, mut failures: Failures) -> SocketError {
    let texts: Vec<String> = failures.iter().map(|(addr, error)| format!("{addr}: {error}")).collect();
    if failures.is_empty() {
        return SocketError::errno(operation, libc::EADDRNOTAVAIL);
    }
    match (SocketError::of_system(operation, failures.swap_remove(0).1), texts.len()) {
        (SocketError::System { operation, kind, errno, written, .. }, 2..) => {
            SocketError::System { operation, reason: texts.join(", "), kind, errno, written }
        }
        (error, _) => error,
    }
}

async fn unix(
    network: Network,
    found: &[Addr],
    local: Option<&Addr>,
) -> Result<Result<Connected, Failures>, AddressError> {
    let Some(Addr::Unix(remote)) = found.first() else { return Ok(Err(Vec::new())) };
    let place = remote.place()?;
    let own = match local {
        Some(Addr::Unix(own)) => Some((own.place()?, own.path())),
        _ => None,
    };
    let own = own.as_ref().map(|(place, path)| (place, *path));
    let socket = connect_unix(network.is_stream(), own, &place).await;
    let remote = Addr::Unix(remote.clone());
    Ok(socket.map(|socket| (socket, remote.clone())).map_err(|error| vec![(remote, error)]))
}

fn socket_addr(addr: &Addr) -> Result<SocketAddr, AddressError> {
    match addr.place()? {
        Place::Ip(place) => Ok(place),
        Place::Unix(_) => Err(AddressError::new("it is no IP address", addr)),
    }
}

/// Returns the address to dial: an address without a host becomes loopback.
fn here(network: Network, addr: Addr) -> Addr {
    let loopback: Ip = match network.family() {
        Some(Family::V6) => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    match addr {
        Addr::Tcp(addr) if addr.ip().is_none() => TcpAddr::new(IpAddr::from(loopback), addr.port()).into(),
        Addr::Udp(addr) if addr.ip().is_none() => UdpAddr::new(IpAddr::from(loopback), addr.port()).into(),
        addr => addr,
    }
}

fn from(local: Option<impl Into<Addr>>) -> Dialer {
    Dialer { local: local.map(Into::into), ..Dialer::new() }
}

/// Connects to an address: see [`Dialer::dial`].
///
/// ```
/// use peersock_net as net;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), net::SocketError> {
/// # let listener = net::listen("127.0.0.1:0", "tcp").await?;
/// # let address = listener.addr().to_string();
/// let conn = net::dial(&address, "tcp").await?;
/// conn.write(b"hello").await?;
/// # Ok(())
/// # }
/// ```
///
/// Errors: see [`Dialer::dial`].
pub async fn dial(address: &str, network: impl IntoNetwork) -> Result<Conn, SocketError> {
    Dialer::new().dial(address, network).await
}

/// Connects to a TCP address, from `laddr` if it is given: see [`Dialer::dial_tcp`].
/// Errors: see [`Dialer::dial_tcp`].
pub async fn dial_tcp(
    laddr: Option<&TcpAddr>,
    raddr: &TcpAddr,
    network: impl IntoNetwork,
) -> Result<TcpConn, SocketError> {
    from(laddr.cloned()).dial_tcp(raddr, network).await
}

/// Creates a UDP socket, connected to `raddr` and bound to `laddr`. Without `raddr` it does the same as
/// [`listen_udp`](crate::listen_udp).
/// Errors: see [`Dialer::dial_udp`].
pub async fn dial_udp(
    laddr: Option<&UdpAddr>,
    raddr: Option<&UdpAddr>,
    network: impl IntoNetwork,
) -> Result<UdpConn, SocketError> {
    match raddr {
        Some(raddr) => from(laddr.cloned()).dial_udp(raddr, network).await,
        None => ListenConfig::new().listen_udp(laddr, network).await,
    }
}

/// Connects to a path, from `laddr` if it is given: see [`Dialer::dial_unix`]. Datagram sockets (`unixgram`)
/// need no `raddr`.
/// Errors: see [`Dialer::dial_unix`].
pub async fn dial_unix(
    laddr: Option<&UnixAddr>,
    raddr: Option<&UnixAddr>,
    network: impl IntoNetwork,
) -> Result<UnixConn, SocketError> {
    let network = network.into_network()?;
    match (laddr, raddr) {
        (_, Some(raddr)) => from(laddr.cloned()).dial_unix(raddr, network).await,
        (Some(laddr), None) => ListenConfig::new().listen_unixgram(laddr, network).await,
        (None, None) if network == Network::Unixgram => {
            let socket = unbound_unixgram();
            let socket = socket.map_err(|error| SocketError::of_system("listen unixgram", error))?;
            Ok(UnixConn::new(Core::new(network, socket, None)))
        }
        (None, None) => Err(crate::UnknownNetworkError::from(network).into()),
    }
}

#[cfg(test)]
mod tests;
