//! Resolution of text addresses: literals and members' names here, all other names by the system.

use std::ffi::OsStr;

use dns_lookup::{AddrInfoHints, getaddrinfo};
use peersock::Node;
use peersock_primitives::blocking;

use crate::host_port::numeric_port;
use crate::members::Members;
use crate::network::{Family, Kind};
use crate::{
    Addr, AddressError, IntoNetwork, IpAddr, Network, SocketError, TcpAddr, UdpAddr, UnixAddr,
    split_host_port,
};

/// A resolver of addresses. The free functions of the same names use the process's node.
///
/// A host is an IP address, the name of a member of a joined network, another name, or empty. A port is a
/// number or a service name. Of several addresses the first IPv4 one is returned, unless the host is in
/// brackets or the network requires IPv6; [`dial`](crate::dial()) tries all addresses.
///
/// ```
/// use peersock_net::{Resolver, TcpAddr};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let addr = Resolver::new().resolve_tcp_addr("[::1]:80", "tcp6").await?;
/// assert_eq!(addr, "[::1]:80".parse::<TcpAddr>()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    node: Option<Node>,
}

impl Resolver {
    /// Returns a resolver that knows the members of the process's node, if it was started. Starts no node.
    pub fn new() -> Resolver {
        Resolver::default()
    }

    /// Uses the members of this node instead.
    pub fn node(mut self, node: &Node) -> Resolver {
        self.node = Some(node.clone());
        self
    }

    pub(crate) fn of(node: Option<&Node>) -> Resolver {
        Resolver { node: node.cloned() }
    }

    /// Resolves `host:port` to a TCP address, of the networks `tcp`, `tcp4` and `tcp6`.
    ///
    /// # Errors
    /// [`SocketError::Address`] if the text is malformed, the host or service is unknown, or the host has no
    /// address in that network; [`SocketError::UnknownNetwork`] for another network.
    pub async fn resolve_tcp_addr(
        &self,
        address: &str,
        network: impl IntoNetwork,
    ) -> Result<TcpAddr, SocketError> {
        let network = network.into_network()?.among(&[Kind::Tcp])?;
        let (port, hosts) = self.host_and_port(address, network).await?;
        Ok(TcpAddr::new(preferred(hosts, address.contains('[')), port))
    }

    /// Resolves `host:port` to a UDP address, of the networks `udp`, `udp4` and `udp6`.
    /// Errors: see [`Resolver::resolve_tcp_addr`].
    pub async fn resolve_udp_addr(
        &self,
        address: &str,
        network: impl IntoNetwork,
    ) -> Result<UdpAddr, SocketError> {
        let network = network.into_network()?.among(&[Kind::Udp])?;
        let (port, hosts) = self.host_and_port(address, network).await?;
        Ok(UdpAddr::new(preferred(hosts, address.contains('[')), port))
    }

    /// Resolves a host without a port to an IP address, of the networks `ip`, `ip4` and `ip6`.
    /// Errors: see [`Resolver::resolve_tcp_addr`].
    pub async fn resolve_ip_addr(
        &self,
        address: &str,
        network: impl IntoNetwork,
    ) -> Result<IpAddr, SocketError> {
        let network = network.into_network()?.among(&[Kind::Ip])?;
        Ok(preferred(self.hosts(address, network, address).await?, address.contains(':')))
    }

    /// Resolves a text with the function for the network.
    /// Errors: see [`Resolver::resolve_tcp_addr`].
    pub async fn resolve_addr(&self, address: &str, network: impl IntoNetwork) -> Result<Addr, SocketError> {
        let network = network.into_network()?;
        Ok(match network.kind() {
            Kind::Tcp => self.resolve_tcp_addr(address, network).await?.into(),
            Kind::Udp => self.resolve_udp_addr(address, network).await?.into(),
            Kind::Ip => self.resolve_ip_addr(address, network).await?.into(),
            Kind::Unix => UnixAddr::new(OsStr::new(address), network.is_stream())?.into(),
        })
    }

    /// Returns all addresses of a text, in the order in which the system would try them (RFC 6724).
    pub(crate) async fn lookup(&self, address: &str, network: Network) -> Result<Vec<Addr>, SocketError> {
        if network.kind() == Kind::Unix {
            return Ok(vec![UnixAddr::new(OsStr::new(address), network.is_stream())?.into()]);
        }
        let (port, hosts) = self.host_and_port(address, network).await?;
        let address = |ip: IpAddr| match network.kind() {
            Kind::Tcp => Addr::Tcp(TcpAddr::new(ip, port)),
            _ => Addr::Udp(UdpAddr::new(ip, port)),
        };
        Ok(hosts.into_iter().map(address).collect())
    }

    async fn host_and_port(
        &self,
        address: &str,
        network: Network,
    ) -> Result<(u16, Vec<IpAddr>), SocketError> {
        let (host, service) = split_host_port(address)?;
        let port = match numeric_port(service)? {
            Some(port) => port,
            None => service_port(service, network).await?,
        };
        Ok((port, self.hosts(host, network, address).await?))
    }

    /// Returns the host's addresses that fit the network, at least one.
    async fn hosts(&self, host: &str, network: Network, address: &str) -> Result<Vec<IpAddr>, AddressError> {
        if host.is_empty() {
            return Ok(vec![IpAddr::default()]);
        }
        let found = match is_literal(host) {
            true => vec![host.parse::<IpAddr>()?],
            false => self.named(host, network, address).await?,
        };
        let mut fitting: Vec<IpAddr> = Vec::new();
        for ip in found {
            if network.family().is_none_or(|family| ip.is_ipv6() == (family == Family::V6))
                && !fitting.contains(&ip)
            {
                fitting.push(ip);
            }
        }
        if fitting.is_empty() {
            return Err(AddressError::new(format!("no address of the network {network}"), address));
        }
        Ok(fitting)
    }

    async fn named(&self, host: &str, network: Network, address: &str) -> Result<Vec<IpAddr>, AddressError> {
        let found = match Members::of(self.node.as_ref()) {
            Some(members) => members.named(host).await,
            None => Ok(Vec::new()),
        };
        let found = found.map_err(|error| AddressError::new(format!("no such host: {error}"), address))?;
        if !found.is_empty() {
            return Ok(found.into_iter().map(IpAddr::from).collect());
        }
        let family = match network.family() {
            None => libc::AF_UNSPEC,
            Some(Family::V4) => libc::AF_INET,
            Some(Family::V6) => libc::AF_INET6,
        };
        let hints =
            AddrInfoHints { address: family, socktype: libc::SOCK_STREAM, ..AddrInfoHints::default() };
        let owned = host.to_owned();
        let found = resolver(move || {
            let found = getaddrinfo(Some(&owned), None, Some(hints)).map_err(|error| error.to_string())?;
            Ok(found.flatten().map(|found| IpAddr::from(found.sockaddr)).collect())
        });
        found.await.map_err(|reason| AddressError::new(format!("no such host: {reason}"), address))
    }
}

/// Runs a blocking call of the system's resolver. Strips the prefix that all its error texts share.
async fn resolver<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = blocking(call).await.unwrap_or_else(|error| Err(error.to_string()));
    let prefix = "failed to lookup address information: ";
    done.map_err(|reason| reason.strip_prefix(prefix).map(str::to_owned).unwrap_or(reason))
}

/// Returns the port number of a service.
async fn service_port(service: &str, network: Network) -> Result<u16, AddressError> {
    let (name, socktype) = match network.kind() {
        Kind::Udp => ("udp", libc::SOCK_DGRAM),
        _ => ("tcp", libc::SOCK_STREAM),
    };
    let unknown = || AddressError::new(format!("unknown port of {name}"), service);
    // Rejects white space, because the C library skips it before numbers.
    if service.contains(char::is_whitespace) {
        return Err(unknown());
    }
    let wanted = service.to_lowercase();
    let hints = AddrInfoHints { socktype, ..AddrInfoHints::default() };
    let found = resolver(move || {
        let found = getaddrinfo(None, Some(&wanted), Some(hints)).map_err(|error| error.to_string())?;
        Ok(found.flatten().next().map(|found| found.sockaddr.port()))
    });
    found.await.ok().flatten().ok_or_else(unknown)
}

/// Returns true if the host is, or by its ending can only be, an IP address, which is never looked up.
fn is_literal(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let ends_as_number = !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit());
    host.contains([':', '%']) || ends_as_number
}

fn preferred(found: Vec<IpAddr>, wants_v6: bool) -> IpAddr {
    let at = found.iter().position(|ip| ip.is_ipv6() == wants_v6).unwrap_or(0);
    found.into_iter().nth(at).unwrap_or_default()
}

/// Resolves `host:port` to a TCP address: see [`Resolver::resolve_tcp_addr`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let addr = peersock_net::resolve_tcp_addr("127.0.0.1:http", "tcp").await?;
/// assert_eq!(addr.to_string(), "127.0.0.1:80");
/// # Ok(())
/// # }
/// ```
///
/// Errors: see [`Resolver::resolve_tcp_addr`].
pub async fn resolve_tcp_addr(address: &str, network: impl IntoNetwork) -> Result<TcpAddr, SocketError> {
    Resolver::new().resolve_tcp_addr(address, network).await
}

/// Resolves `host:port` to a UDP address: see [`Resolver::resolve_udp_addr`].
/// Errors: see [`Resolver::resolve_udp_addr`].
pub async fn resolve_udp_addr(address: &str, network: impl IntoNetwork) -> Result<UdpAddr, SocketError> {
    Resolver::new().resolve_udp_addr(address, network).await
}

/// Resolves a host to an IP address: see [`Resolver::resolve_ip_addr`].
/// Errors: see [`Resolver::resolve_ip_addr`].
pub async fn resolve_ip_addr(address: &str, network: impl IntoNetwork) -> Result<IpAddr, SocketError> {
    Resolver::new().resolve_ip_addr(address, network).await
}

/// Resolves a text to an address of any network: see [`Resolver::resolve_addr`].
/// Errors: see [`Resolver::resolve_addr`].
pub async fn resolve_addr(address: &str, network: impl IntoNetwork) -> Result<Addr, SocketError> {
    Resolver::new().resolve_addr(address, network).await
}

/// Returns the address of a Unix domain socket by its path, of the networks `unix` and `unixgram`.
///
/// # Errors
/// [`SocketError::Address`] if the path contains a NUL, [`SocketError::UnknownNetwork`] for another network.
pub fn resolve_unix_addr(path: &str, network: impl IntoNetwork) -> Result<UnixAddr, SocketError> {
    let network = network.into_network()?.among(&[Kind::Unix])?;
    Ok(UnixAddr::new(OsStr::new(path), network.is_stream())?)
}

/// Returns the address of a `unixgram` socket by its path; see [`resolve_unix_addr`].
///
/// # Errors
/// [`SocketError::Address`] if the path contains a NUL.
pub fn resolve_unixgram_addr(path: &str) -> Result<UnixAddr, SocketError> {
    resolve_unix_addr(path, Network::Unixgram)
}
