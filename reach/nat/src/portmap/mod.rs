//! Ports that a router opens on request: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD. For an IPv6 address
//! the router opens its firewall (a *pinhole*), by PCP or UPnP.
//!
//! [`find`] asks which protocols the router has. [`map`] opens a port once, and a [`PortMapper`] keeps it
//! open. It renews the mapping at half of its lifetime, opens it again when the router has lost it, and
//! closes it at the end.
//!
//! A router's answer is trusted only for the port. Answers come only from the router itself (UPnP: from an
//! address of the local network), and have limits of size and time. An external address is a candidate like
//! any other, which peers prove before use. An address that no host can have (0.0.0.0, loopback, multicast)
//! is no mapping. A private one is, because peers may be behind the same outer NAT.

mod exchange;
#[doc(hidden)]
pub mod fuzzing;
mod keeper;
mod natpmp;
mod pcp;
mod router;
#[cfg(test)]
mod tests;
mod upnp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock_primitives::beside;
use serde::Serialize;
use thiserror::Error;

pub use keeper::PortMapper;
pub use router::{Found, Gateway, Protocol};

/// The transport of the mapped port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A UDP port.
    Udp,
    /// A TCP port.
    Tcp,
}

impl Transport {
    /// Returns the number of the protocol in IP headers.
    fn number(self) -> u8 {
        match self {
            Transport::Udp => 17,
            Transport::Tcp => 6,
        }
    }
}

/// Reasons for having no mapping.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// No answer arrives, or no datagram leaves.
    #[error("the router does not answer by {protocol}: {source}")]
    Silent {
        /// The protocol of the request.
        protocol: Protocol,
        /// The error.
        source: io::Error,
    },
    /// The router answers that it refuses.
    #[error("the router refuses by {protocol}: {reason}")]
    Refused {
        /// The protocol of the request.
        protocol: Protocol,
        /// The reason: the name of the result code, or the text.
        reason: String,
    },
    /// The router's answer does not fit the request.
    #[error("the router's answer by {protocol} is invalid: {reason}")]
    Nonsense {
        /// The protocol of the request.
        protocol: Protocol,
        /// The fault.
        reason: &'static str,
    },
}

/// A port that the router opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// The protocol that made it.
    pub protocol: Protocol,
    /// The transport of the port.
    pub transport: Transport,
    /// The local endpoint to which the router forwards.
    pub local: SocketAddr,
    /// The router's external endpoint. For IPv6 it is the local endpoint, which is now reachable.
    pub external: SocketAddr,
    /// The remaining lifetime. [`Duration::MAX`]: until the router restarts.
    pub lifetime: Duration,
    handle: Handle,
}

/// Data for changing or ending a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Handle {
    /// The nonce of the first request.
    Pcp([u8; 12]),
    NatPmp,
    Upnp(upnp::Handle),
}

/// Asks which protocols the router has, in parallel. Blocks for at most `budget`.
///
/// ```no_run
/// use std::time::Duration;
/// use peersock_nat::portmap::{Gateway, find};
///
/// let (local, router) = ("192.168.1.2".parse()?, "192.168.1.1:0".parse()?);
/// let gateway = Gateway { interface: None, local, router };
/// for found in find(&gateway, Duration::from_secs(2)) {
///     println!("{}", found.protocol);
/// }
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn find(gateway: &Gateway, budget: Duration) -> Vec<Found> {
    let until = Instant::now() + budget;
    let found = |protocol, result: Result<Option<IpAddr>, MapError>| match result {
        Ok(external) => Some(Found { protocol, external }),
        Err(error) => {
            tracing::debug!(%protocol, %error, "no port mapping");
            None
        }
    };
    thread::scope(|scope| {
        let pcp = beside(scope, || found(Protocol::Pcp, pcp::announce(gateway, until).map(|()| None)));
        let natpmp = gateway.local.is_ipv4().then(|| {
            beside(scope, || {
                found(Protocol::NatPmp, natpmp::external(gateway, until).map(|ip| Some(ip.into())))
            })
        });
        let upnp = beside(scope, || found(Protocol::Upnp, upnp::external(gateway, until)));
        [Some(pcp), natpmp, Some(upnp)]
            .into_iter()
            .flatten()
            .filter_map(|asked| asked.join().ok().flatten())
            .collect()
    })
}

/// Opens a port: by PCP, else by NAT-PMP (IPv4), else by UPnP. Blocks for at most `budget`, which the
/// protocols share.
///
/// The request names the same external port; the router may assign another. `lifetime` counts in whole
/// seconds.
/// Errors: see [`MapError`]; the last protocol's error counts unless an earlier one refused.
pub fn map(
    gateway: &Gateway,
    transport: Transport,
    port: u16,
    lifetime: Duration,
    budget: Duration,
) -> Result<PortMapping, MapError> {
    let order: &[Protocol] = if gateway.local.is_ipv4() {
        &[Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp]
    } else {
        &[Protocol::Pcp, Protocol::Upnp]
    };
    let share = budget / u32::try_from(order.len()).expect("there are three at most");
    let mut refusal = None;
    let mut last = None;
    for protocol in order {
        match map_by(*protocol, gateway, transport, port, lifetime, share) {
            Ok(mapping) => return Ok(mapping),
            Err(error @ MapError::Refused { .. }) => refusal = refusal.or(Some(error)),
            Err(error) => last = Some(error),
        }
    }
    Err(refusal.or(last).expect("each failed"))
}

/// Opens a port by one protocol. See [`map`].
/// Errors: see [`MapError`].
pub fn map_by(
    protocol: Protocol,
    gateway: &Gateway,
    transport: Transport,
    port: u16,
    lifetime: Duration,
    budget: Duration,
) -> Result<PortMapping, MapError> {
    let until = Instant::now() + budget;
    let ask = Ask {
        transport,
        local: SocketAddr::new(gateway.local, port),
        wanted: port,
        lifetime: u32::try_from(lifetime.as_secs().max(1)).unwrap_or(u32::MAX),
    };
    match protocol {
        Protocol::Pcp => pcp::map(gateway, &ask, pcp::new_nonce()?, until),
        Protocol::NatPmp => natpmp::map(gateway, &ask, until),
        Protocol::Upnp => upnp::map(gateway, &ask, None, until),
    }
}

impl PortMapping {
    /// Requests the mapping again, with another lifetime. The external endpoint may change.
    /// Errors: see [`MapError`].
    pub fn renew(&self, gateway: &Gateway, lifetime: Duration, budget: Duration) -> Result<Self, MapError> {
        let until = Instant::now() + budget;
        let ask = Ask {
            transport: self.transport,
            local: self.local,
            wanted: self.external.port(),
            lifetime: u32::try_from(lifetime.as_secs().max(1)).unwrap_or(u32::MAX),
        };
        match &self.handle {
            Handle::Pcp(nonce) => pcp::map(gateway, &ask, *nonce, until),
            Handle::NatPmp => natpmp::map(gateway, &ask, until),
            Handle::Upnp(handle) => upnp::map(gateway, &ask, Some(handle), until),
        }
    }

    /// Closes the port.
    /// Errors: see [`MapError`]. The mapping then ends with its lifetime.
    pub fn remove(&self, gateway: &Gateway, budget: Duration) -> Result<(), MapError> {
        let until = Instant::now() + budget;
        match &self.handle {
            Handle::Pcp(nonce) => pcp::remove(gateway, self, *nonce, until),
            Handle::NatPmp => natpmp::remove(gateway, self, until),
            Handle::Upnp(handle) => upnp::remove(gateway, self, handle, until),
        }
    }
}

/// The parameters of a request.
struct Ask {
    transport: Transport,
    local: SocketAddr,
    /// The requested external port.
    wanted: u16,
    /// The lifetime in seconds.
    lifetime: u32,
}

impl Ask {
    /// Returns the mapping that a router has granted, if peers could use it.
    fn granted(
        &self,
        protocol: Protocol,
        external: SocketAddr,
        lifetime: Duration,
        handle: Handle,
    ) -> Result<PortMapping, MapError> {
        let nonsense = |reason| Err(MapError::Nonsense { protocol, reason });
        if lifetime.is_zero() || external.port() == 0 {
            return nonsense("the mapping has no port or no time");
        }
        if external.is_ipv4() != self.local.is_ipv4() || !is_of_use(external.ip()) {
            return nonsense("no peer can reach its outer address");
        }
        let (transport, local) = (self.transport, self.local);
        Ok(PortMapping { protocol, transport, local, external, lifetime, handle })
    }
}

/// Returns true if a router can have that external address: a public one, or one of the network around the
/// router.
fn is_of_use(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // "This network" and reserved ranges (RFC 6890), which include the broadcast address.
            let is_reserved = matches!(ip.octets()[0], 0 | 240..);
            !(is_reserved || ip.is_loopback() || ip.is_link_local() || ip.is_multicast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some())
        }
    }
}
