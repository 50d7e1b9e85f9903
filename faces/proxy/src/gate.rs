//! Access control of targets: members are reached over the overlay, other hosts by the system if that is
//! allowed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use peersock::Node;
use peersock_net::{Conn, Dialer, SocketError};

use crate::datagrams::Datagrams;
use crate::error::DialError;
use crate::overlay::{Overlay, unspecified};
use crate::stream::Link;
use crate::target::{Host, Target};

/// Decides about targets and connects to them.
#[derive(Clone)]
pub(crate) struct Gate {
    overlay: Overlay,
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
    pub(crate) fn new(overlay: &Overlay, direct: bool, timeout: Duration) -> Gate {
        Gate { overlay: overlay.clone(), direct, timeout }
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Decides the route to a target, or that it must not be reached.
    pub(crate) fn route(&self, target: &Target) -> Result<Route, DialError> {
        // When the node has ended, traffic that may be meant for the overlay must not leave elsewhere.
        self.overlay.check_up()?;
        let addresses = match &target.host {
            Host::Ip(address) if self.overlay.contains(*address) => vec![*address],
            Host::Ip(_) => Vec::new(),
            Host::Name(name) => self.overlay.addresses_named(name)?,
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

    /// Returns the timeout of connecting to a target.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects to a target.
    pub(crate) async fn dial(&self, target: &Target) -> Result<Dialed, DialError> {
        let connect = async {
            match self.route(target)? {
                Route::Overlay(addresses) => {
                    let (connection, local) = self.overlay.connect(&addresses).await?;
                    Ok(Dialed { link: Link::new(connection), local })
                }
                Route::System => self.dial_elsewhere(target).await,
            }
        };
        tokio::time::timeout(self.timeout, connect).await.map_err(|_| DialError::TimedOut)?
    }

    /// Connects by the system. A name of the system's may have an address of the overlay, which is reached
    /// there.
    async fn dial_elsewhere(&self, target: &Target) -> Result<Dialed, DialError> {
        let node = self.overlay.own();
        if node.is_none() {
            let found = target.resolve().await.map_err(|_| DialError::UnknownName)?;
            let members: Vec<_> = found.into_iter().filter(|at| self.overlay.contains(at.ip())).collect();
            if !members.is_empty() {
                let (connection, local) = self.overlay.connect(&members).await?;
                return Ok(Dialed { link: Link::new(connection), local });
            }
        }
        dial_system(node, target).await
    }

    /// Makes a socket for datagrams to targets on this route, of the family of `like`.
    pub(crate) async fn datagrams(&self, is_overlay: bool, like: IpAddr) -> io::Result<Datagrams> {
        Ok(match is_overlay {
            true => self.overlay.client(like).await?,
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
