//! How a NAT behaves (RFC 4787, RFC 5780): the terms, and the decision from what was observed.

mod decide;
mod port_delta;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

pub use port_delta::{Delta, DeltaKind};

/// What decides whether two flows from one local endpoint get the same mapped endpoint (RFC 4787, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// All flows get the same, wherever they go. Hole punching works.
    EndpointIndependent,
    /// Flows to one address get the same.
    AddressDependent,
    /// Each remote endpoint gets another.
    AddressAndPortDependent,
}

/// From where packets to a mapped endpoint are let in (RFC 4787, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// From anywhere.
    EndpointIndependent,
    /// From addresses to which something was sent.
    AddressDependent,
    /// From endpoints to which something was sent.
    AddressAndPortDependent,
}

/// The kinds of NAT by their usual names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NatKind {
    /// No NAT and no filter: anybody can send.
    Open,
    /// No NAT, but a firewall that lets in answers only.
    Firewall,
    /// One mapping for all, open to all.
    FullCone,
    /// One mapping for all, open to addresses to which something was sent.
    Restrict,
    /// One mapping for all, open to endpoints to which something was sent.
    RestrictPort,
    /// A mapping for each destination.
    Symmetric,
    /// Nothing comes back: UDP is blocked.
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
    /// The socket's own endpoint.
    pub local: SocketAddr,
    /// The endpoint that was asked.
    pub server: SocketAddr,
    /// As what it saw us.
    pub mapped: SocketAddr,
    /// From the last request to the answer.
    pub rtt: Duration,
}

/// What was seen of the network in front of one local address.
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
    /// How many servers were asked.
    pub asked: usize,
    /// What one socket learnt from several endpoints, in the order in which it asked them.
    pub main: Vec<Sample>,
    /// What further sockets learnt from one server, in the order in which they asked.
    pub fresh: Vec<Sample>,
    /// Whether an answer from the server's other port came in.
    pub from_other_port: Option<bool>,
    /// Whether an answer from the server's other address and other port came in.
    pub from_other_address: Option<bool>,
    /// Whether a datagram to our own mapped endpoint came back.
    pub hairpin: Option<bool>,
}

impl Observations {
    /// Nothing is known yet.
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

    /// Decides what that says about the NAT. What cannot be known is `None`.
    pub fn decide(&self) -> Nat {
        decide::decide(self)
    }
}

/// What is known of the NAT in front of one local address; every `None` means that it could not be found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nat {
    /// Whether any answer came over UDP; `None` without a server to ask.
    pub udp: Option<bool>,
    /// As what servers see us: the first one's answer.
    pub mapped: Option<SocketAddr>,
    /// Whether servers see us under another address or port than our own.
    pub translated: Option<bool>,
    /// How flows are mapped. With servers of RFC 5780 or two ports of one server it is exact; from servers
    /// that differ in their addresses, a mapping that depends on the destination counts as the worst.
    pub mapping: Option<Mapping>,
    /// From where packets are let in. Only a server of RFC 5780 can tell.
    pub filtering: Option<Filtering>,
    /// Whether two machines behind this NAT reach each other by their mapped endpoints. `None` without NAT.
    pub hairpin: Option<bool>,
    /// Whether mapped ports equal the local ones.
    pub port_preserved: Option<bool>,
    /// How the mapped ports of one flow after the other follow each other.
    pub delta: Option<Delta>,
    /// Whether the local or the mapped address lies in 100.64.0.0/10: the provider has a NAT of its own
    /// (CGN).
    pub cgn: bool,
    /// The shortest round trip to a server.
    #[serde(rename = "rtt_ms", serialize_with = "as_milliseconds")]
    pub rtt: Option<Duration>,
}

impl Nat {
    /// The kind by its usual name; `None` if what decides it is not known.
    ///
    /// ```
    /// use peersock_nat::Observations;
    ///
    /// assert_eq!(Observations::none("192.0.2.1".parse()?).decide().kind(), None);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
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

/// Whether the address is of the range for NATs of providers (RFC 6598).
pub(crate) fn is_shared(ip: IpAddr) -> bool {
    const RANGE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
    matches!(ip, IpAddr::V4(ip) if ip.to_bits() >> 22 == RANGE.to_bits() >> 22)
}

fn as_milliseconds<S: serde::Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3).serialize(serializer)
}
