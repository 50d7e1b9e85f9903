//! NAT behavior (RFC 4787, RFC 5780): the terms, and the decision from observations.

mod decide;
mod port_delta;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

pub use port_delta::{Delta, DeltaKind};

/// Mapping behavior: the condition for two flows of one local endpoint to share a mapped endpoint (RFC 4787,
/// 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// All flows share one mapped endpoint. Hole punching works.
    EndpointIndependent,
    /// Flows to one remote address share one mapped endpoint.
    AddressDependent,
    /// Each remote endpoint gets a different mapped endpoint.
    AddressAndPortDependent,
}

/// Filtering behavior: the sources from which a mapped endpoint accepts packets (RFC 4787, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// All sources.
    EndpointIndependent,
    /// Addresses to which something was sent.
    AddressDependent,
    /// Endpoints to which something was sent.
    AddressAndPortDependent,
}

/// The kinds of NAT by their usual names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NatKind {
    /// No NAT and no filter: any host can send.
    Open,
    /// No NAT, but a firewall that accepts only answers.
    Firewall,
    /// One mapping for all destinations, open to all sources.
    FullCone,
    /// One mapping for all destinations, open to addresses to which something was sent.
    Restrict,
    /// One mapping for all destinations, open to endpoints to which something was sent.
    RestrictPort,
    /// A separate mapping for each destination.
    Symmetric,
    /// No answers arrive: UDP is blocked.
    Filtered,
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NatKind::Open => "open internet",
            NatKind::Firewall => "firewall",
            NatKind::FullCone => "full cone",
            NatKind::Restrict => "restrict",
            NatKind::RestrictPort => "restrict port",
            NatKind::Symmetric => "symmetric",
            NatKind::Filtered => "filtered",
        })
    }
}

macro_rules! spelled {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    Self::EndpointIndependent => "endpoint-independent",
                    Self::AddressDependent => "address-dependent",
                    Self::AddressAndPortDependent => "address-and-port-dependent",
                })
            }
        }
    };
}
spelled!(Mapping);
spelled!(Filtering);

/// One answer of a STUN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The socket's local endpoint.
    pub local: SocketAddr,
    /// The endpoint of the server.
    pub server: SocketAddr,
    /// The endpoint of the socket as the server saw it.
    pub mapped: SocketAddr,
    /// Time from the last request to the answer.
    pub rtt: Duration,
}

/// Observations of the network in front of one local address.
///
/// ```
/// use std::time::Duration;
/// use peersock_nat::{Mapping, Observations, Sample};
///
/// let local = "192.168.1.2:4000".parse()?;
/// let sample = |server: &str| Sample {
///     local,
///     server: server.parse().unwrap(),
///     mapped: "203.0.113.5:4000".parse().unwrap(),
///     rtt: Duration::from_millis(20),
/// };
/// let mut seen = Observations::none("192.168.1.2".parse()?);
/// seen.asked = 2;
/// seen.main = vec![sample("192.0.2.1:3478"), sample("198.51.100.1:3478")];
/// let nat = seen.decide();
/// assert_eq!((nat.translated, nat.mapping), (Some(true), Some(Mapping::EndpointIndependent)));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observations {
    /// The local address.
    pub local: IpAddr,
    /// Number of servers asked.
    pub asked: usize,
    /// Answers to one socket from several endpoints, in the order of the requests.
    pub main: Vec<Sample>,
    /// Answers to further sockets from one server, in the order of the requests.
    pub fresh: Vec<Sample>,
    /// True if an answer from the server's other port arrived.
    pub from_other_port: Option<bool>,
    /// True if an answer from the server's other address and other port arrived.
    pub from_other_address: Option<bool>,
    /// True if a datagram to this socket's mapped endpoint came back.
    pub hairpin: Option<bool>,
}

impl Observations {
    /// Makes an empty set of observations.
    pub fn none(local: IpAddr) -> Self {
        Self {
            local,
            asked: 0,
            main: Vec::new(),
            fresh: Vec::new(),
            from_other_port: None,
            from_other_address: None,
            hairpin: None,
        }
    }

    /// Decides which NAT the observations show. Unknown properties are `None`.
    pub fn decide(&self) -> Nat {
        decide::decide(self)
    }
}

/// Properties of the NAT in front of one local address; `None` means unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nat {
    /// True if any answer arrived over UDP; `None` without a server to ask.
    pub udp: Option<bool>,
    /// The mapped endpoint, from the first server's answer.
    pub mapped: Option<SocketAddr>,
    /// True if servers see another address or port than the local one.
    pub translated: Option<bool>,
    /// Mapping behavior. It is exact with servers of RFC 5780, or two ports of one server and another server.
    /// With servers that differ in their addresses only, a mapping that depends on the destination counts as
    /// the worst kind. With two ports of one server alone, a mapping that depends on the address counts as
    /// endpoint-independent.
    pub mapping: Option<Mapping>,
    /// Filtering behavior. A server of RFC 5780 reveals it. A root with two ports reveals only whether other
    /// ports of one address are blocked.
    pub filtering: Option<Filtering>,
    /// True if two machines behind this NAT reach each other by their mapped endpoints. `None` without NAT.
    pub hairpin: Option<bool>,
    /// True if mapped ports equal the local ones.
    pub port_preserved: Option<bool>,
    /// Rule by which the mapped ports of successive flows follow each other.
    pub delta: Option<Delta>,
    /// True if the local or the mapped address lies in 100.64.0.0/10, which means that the provider has a NAT
    /// (CGN).
    pub cgn: bool,
    /// The shortest round-trip time to a server.
    #[serde(rename = "rtt_ms", serialize_with = "as_milliseconds")]
    pub rtt: Option<Duration>,
}

impl Nat {
    /// Returns the kind by its usual name; `None` if a deciding property is unknown.
    pub fn kind(&self) -> Option<NatKind> {
        if !self.udp? {
            return Some(NatKind::Filtered);
        }
        if !self.translated? {
            return Some(match self.filtering? {
                Filtering::EndpointIndependent => NatKind::Open,
                _ => NatKind::Firewall,
            });
        }
        if self.mapping? != Mapping::EndpointIndependent {
            return Some(NatKind::Symmetric);
        }
        Some(match self.filtering? {
            Filtering::EndpointIndependent => NatKind::FullCone,
            Filtering::AddressDependent => NatKind::Restrict,
            Filtering::AddressAndPortDependent => NatKind::RestrictPort,
        })
    }
}

/// Returns true if the address is in the range for providers' NATs (RFC 6598).
pub(crate) fn is_shared(ip: IpAddr) -> bool {
    const RANGE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
    matches!(ip, IpAddr::V4(ip) if ip.to_bits() >> 22 == RANGE.to_bits() >> 22)
}

fn as_milliseconds<S: serde::Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3).serialize(serializer)
}
