//! Ports that a router opens on request: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD. With an IPv6
//! address it is the router's firewall that is opened (a *pinhole*), by PCP or UPnP.
//!
//! [`find`] asks which of them the router has. [`map`] opens a port once, and a [`PortMapper`] keeps it open:
//! it renews it at half of its lifetime, opens it again when the router has lost it, and closes it at the
//! end.
//!
//! What a router says is believed as far as the port goes, and no further: answers come only from the
//! router itself (UPnP: from an address of the local network), have limits of size and time, and an external
//! address is a candidate like any other, which peers prove before they use it. An address at which nobody
//! can be (0.0.0.0, loopback, multicast) is no mapping, whatever the router says; a private one is, since
//! peers may be behind the same outer NAT.

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

/// What is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A UDP port.
    Udp,
    /// A TCP port.
    Tcp,
}

impl Transport {
    /// The number of the protocol in IP headers.
    fn number(self) -> u8 {
        match self {
            Transport::Udp => 17,
            Transport::Tcp => 6,
        }
    }
}

/// Why there is no mapping.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// Nothing answers, or no datagram leaves.
    #[error("the router does not answer by {protocol}: {source}")]
    Silent {
        /// How it was asked.
        protocol: Protocol,
        /// What happened.
        source: io::Error,
    },
    /// It answers that it does not do it.
    #[error("the router refuses by {protocol}: {reason}")]
    Refused {
        /// How it was asked.
        protocol: Protocol,
        /// Its reason: the name of the result code, or the text.
        reason: String,
    },
    /// It answers, but no answer to what it was asked.
    #[error("the router's answer by {protocol} makes no sense: {reason}")]
    Nonsense {
        /// How it was asked.
        protocol: Protocol,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A port that the router opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// How it was asked for.
    pub protocol: Protocol,
    /// What is mapped.
    pub transport: Transport,
    /// To where: our own endpoint.
    pub local: SocketAddr,
    /// From where: the router's outer endpoint. For IPv6 it is the local one, which is now reachable.
    pub external: SocketAddr,
    /// How long it lasts from now on. [`Duration::MAX`]: until the router restarts.
    pub lifetime: Duration,
    handle: Handle,
}

/// What it takes to change or end a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Handle {
    /// The nonce of the first request.
    Pcp([u8; 12]),
    NatPmp,
    Upnp(upnp::Handle),
}

/// Asks which protocols the router has, all at once. Blocks for at most `budget`.
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

/// Opens a port: by PCP, else by NAT-PMP (IPv4), else by UPnP. Blocks for at most `budget`, of which each has
/// its share.
///
/// The same external port is asked for; the router may give another. `lifetime` is asked for in whole
/// seconds.
///
/// # Errors
/// See [`MapError`]; the last protocol's counts unless an earlier one refused.
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
///
/// # Errors
/// See [`MapError`].
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
    /// Asks for the same again, for another lifetime. The external endpoint may change.
    ///
    /// # Errors
    /// See [`MapError`].
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
    ///
    /// # Errors
    /// See [`MapError`]. The mapping ends with its lifetime then.
    pub fn remove(&self, gateway: &Gateway, budget: Duration) -> Result<(), MapError> {
        let until = Instant::now() + budget;
        match &self.handle {
            Handle::Pcp(nonce) => pcp::remove(gateway, self, *nonce, until),
            Handle::NatPmp => natpmp::remove(gateway, self, until),
            Handle::Upnp(handle) => upnp::remove(gateway, self, handle, until),
        }
    }
}

/// What the protocols are asked for.
struct Ask {
    transport: Transport,
    local: SocketAddr,
    /// The external port.
    wanted: u16,
    /// Seconds.
    lifetime: u32,
}

impl Ask {
    /// The mapping that a router says it has made, if anybody could use it.
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
            return nonsense("nobody can be at its outer address");
        }
        let (transport, local) = (self.transport, self.local);
        Ok(PortMapping { protocol, transport, local, external, lifetime, handle })
    }
}

/// Whether a router can have that address outside: a public one, or one of a network that the router is in.
fn is_of_use(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // "This network" and what is reserved (RFC 6890), which holds the broadcast address.
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
