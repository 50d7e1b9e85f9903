//! Access control of targets: members are reached over the overlay, other hosts by the system if that is
//! allowed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use peersock::attach::NodeHandle;
use peersock::{Node, TcpStream};
use peersock_net::{Conn, Dialer, SocketError};

use crate::datagrams::Datagrams;
use crate::error::DialError;
use crate::stream::Link;
use crate::target::{Host, Target};

/// Decides about targets and connects to them.
#[derive(Clone)]
pub(crate) struct Gate {
    node: Node,
    handle: NodeHandle,
    /// True if hosts that are no members are reached by the system.
    direct: bool,
    timeout: Duration,
}

/// The route to a target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Over the overlay, to one of these addresses.
    Overlay(Vec<SocketAddr>),
    /// By the system.
    System,
}

impl Gate {
    pub(crate) fn new(node: &Node, direct: bool, timeout: Duration) -> Gate {
        Gate { node: node.clone(), handle: NodeHandle::of(node), direct, timeout }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Decides the route to a target, or that it must not be reached.
    pub(crate) fn route(&self, target: &Target) -> Result<Route, DialError> {
        // When the node has ended, traffic that may be meant for the overlay must not leave elsewhere.
        self.handle.check_up()?;
        let addresses = match &target.host {
            Host::Ip(address) if self.is_overlay(*address) => vec![*address],
            Host::Ip(_) => Vec::new(),
            Host::Name(name) => self.handle.addresses_named(name),
        };
        if !addresses.is_empty() {
            let place = |address| SocketAddr::new(address, target.port);
            return Ok(Route::Overlay(addresses.into_iter().map(place).collect()));
        }
        match (self.direct, &target.host) {
            (true, _) => Ok(Route::System),
            (false, Host::Ip(_)) => Err(DialError::ForeignAddress),
            (false, Host::Name(_)) => Err(DialError::ForeignName),
        }
    }

    /// Returns true if an address belongs to one of the networks. Loopback never does.
    pub(crate) fn is_overlay(&self, address: IpAddr) -> bool {
        let networks = self.handle.datapath().networks();
        !address.is_loopback()
            && networks.iter().any(|network| network.routes.iter().any(|route| route.contains(address)))
    }

    /// Returns the timeout of connecting to a target.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects to a target.
    pub(crate) async fn dial(&self, target: &Target) -> Result<Dialed, DialError> {
        let connect = async {
            match self.route(target)? {
                Route::Overlay(addresses) => {
                    let stream = TcpStream::connect_on(&self.node, &addresses[..]).await?;
                    let local = stream.local_addr()?;
                    Ok(Dialed { link: Link::new(stream), local })
                }
                Route::System => dial_system(Some(&self.node), target).await,
            }
        };
        tokio::time::timeout(self.timeout, connect).await.map_err(|_| DialError::TimedOut)?
    }

    /// Returns this node's address as a peer sees it, for listening.
    pub(crate) fn own_address(&self, peer: IpAddr) -> Option<IpAddr> {
        let networks = self.node.networks();
        let with_peer = networks.iter().find(|network| network.peer_at(peer).is_some());
        let addresses = with_peer.or(networks.first())?.addresses();
        let is_v4 = peer.is_ipv4() && !peer.is_unspecified();
        addresses.into_iter().find(|own| own.is_ipv4() == is_v4)
    }

    /// Makes a socket for datagrams to targets on this route, of the family of `like`.
    pub(crate) async fn datagrams(&self, is_overlay: bool, like: IpAddr) -> io::Result<Datagrams> {
        Ok(match is_overlay {
            true => Datagrams::Overlay(peersock::UdpSocket::client_on(&self.node, like).await?),
            false => Datagrams::System(tokio::net::UdpSocket::bind(unspecified(like)).await?),
        })
    }
}

/// A connection with its local address.
pub(crate) struct Dialed {
    pub(crate) link: Link,
    pub(crate) local: SocketAddr,
}

/// Connects by the system; a name that resolves to one of `node`'s addresses is reached over the overlay.
pub(crate) async fn dial_system(node: Option<&Node>, target: &Target) -> Result<Dialed, DialError> {
    let dialer = node.map_or_else(Dialer::new, |node| Dialer::new().node(node));
    let conn = dialer.dial(&target.to_string(), "tcp").await.map_err(|error| match error {
        SocketError::Address(_) => DialError::UnknownName,
        error => DialError::Failed(error.into()),
    })?;
    let Conn::Tcp(conn) = conn else { return Err(io::Error::from(io::ErrorKind::Unsupported).into()) };
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let local = conn.local_addr().to_string().parse().unwrap_or(any);
    Ok(Dialed { link: Link::new(conn), local })
}

/// Returns the unspecified address of the same family, with port 0.
pub(crate) fn unspecified(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
