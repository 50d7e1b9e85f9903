//! Hosts by their names or addresses.

use std::fmt;
use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use peersock::Node;
use peersock_net::{Resolver, SocketError, join_host_port};
use tokio::time::timeout;

use crate::{Options, PipeError};

/// A host, by name or address, and a port. Names of the overlay's members are resolved first; the wildcard
/// addresses denote this machine.
///
/// ```
/// use peersock_pipe::Address;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let address = Address::new("::", 8080);
/// assert_eq!(address.to_string(), "[::]:8080");
/// assert_eq!(address.tups().await?, ["[::1]:8080".parse().expect("an address")]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Address {
    host: String,
    port: u16,
    node: Option<Node>,
    timeout: Option<Duration>,
}

impl Address {
    /// Makes an address from a name, or from an IPv4 or IPv6 address, which may have its interface after a
    /// `%`.
    pub fn new(host: impl Into<String>, port: u16) -> Address {
        Address { host: host.into(), port, node: None, timeout: Options::default().dns_timeout }
    }

    /// Sets the node whose members' names are known, instead of the process's node.
    pub fn node(mut self, node: &Node) -> Address {
        self.node = Some(node.clone());
        self
    }

    /// Sets the timeout for resolving the name; `None` waits forever. Default: 2 s.
    pub fn dns_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Address {
        self.timeout = timeout.into();
        self
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address to try first.
    ///
    /// # Errors
    /// If the name does not exist, or [`PipeError::Unresolved`].
    pub async fn tup(&self) -> Result<SocketAddr, PipeError> {
        self.of("udp").await
    }

    /// Returns the first IPv4 address.
    ///
    /// # Errors
    /// The errors of [`tup`](Self::tup), or the host has no IPv4 address.
    pub async fn v4(&self) -> Result<SocketAddr, PipeError> {
        self.of("udp4").await
    }

    /// Returns the first IPv6 address.
    ///
    /// # Errors
    /// The errors of [`tup`](Self::tup), or the host has no IPv6 address.
    pub async fn v6(&self) -> Result<SocketAddr, PipeError> {
        self.of("udp6").await
    }

    /// Returns the first address of each family that the host has. The address to try first comes first.
    ///
    /// # Errors
    /// The errors of [`tup`](Self::tup).
    pub async fn tups(&self) -> Result<Vec<SocketAddr>, PipeError> {
        let first = self.tup().await?;
        let other = if first.is_ipv4() { self.v6().await } else { self.v4().await };
        Ok([first].into_iter().chain(other.ok()).collect())
    }

    async fn of(&self, network: &str) -> Result<SocketAddr, PipeError> {
        let text = self.to_string();
        within(self.timeout, &text, resolve(self.node.as_ref(), &text, network)).await
    }
}

impl fmt::Display for Address {
    /// Writes the form of a destination: `HOST:PORT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join_host_port(&self.host, self.port))
    }
}

pub(crate) fn resolver(node: Option<&Node>) -> Resolver {
    match node {
        Some(node) => Resolver::new().node(node),
        None => Resolver::new(),
    }
}

/// Resolves a text to an address for sending.
pub(crate) async fn resolve(node: Option<&Node>, text: &str, network: &str) -> Result<SocketAddr, PipeError> {
    let found = resolver(node).resolve_udp_addr(text, network).await?;
    let mut addr = found.to_socket_addr().map_err(SocketError::from)?;
    if addr.ip().is_unspecified() {
        match &mut addr {
            SocketAddr::V4(addr) => addr.set_ip(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(addr) => addr.set_ip(Ipv6Addr::LOCALHOST),
        }
    }
    Ok(addr)
}

pub(crate) async fn within<T>(
    time: Option<Duration>,
    text: &str,
    resolving: impl Future<Output = Result<T, PipeError>>,
) -> Result<T, PipeError> {
    let late = || Err(PipeError::Unresolved(text.to_owned()));
    match time {
        None => resolving.await,
        // A timer would grant some time.
        Some(Duration::ZERO) => {
            let mut resolving = pin!(resolving);
            poll_fn(|cx| match resolving.as_mut().poll(cx) {
                Poll::Pending => Poll::Ready(late()),
                resolved => resolved,
            })
            .await
        }
        Some(time) => timeout(time, resolving).await.unwrap_or_else(|_| late()),
    }
}
