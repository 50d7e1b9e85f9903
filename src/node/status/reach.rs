//! Where the node can be reached: its roots, its addresses, and the DHT.

use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::{Candidate, CandidateKind, Contact, Filtering, Mapping, NodeId, RootInfo, RootState};
use serde::Serialize;

use super::display;
use crate::config::RootSource;
use crate::node::Inner;
use crate::node::contact::Found;

/// A root's state.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct RootStatus {
    /// Its node ID.
    #[serde(serialize_with = "display")]
    pub id: NodeId,
    /// Whether it is used for a while only, because another root has said that a peer is there.
    pub guest: bool,
    /// How things stand: `connecting`, `unreachable`, `connected`, `registered`, `draining` (the root will
    /// end soon) or `refused`.
    #[serde(serialize_with = "display")]
    pub state: RootState,
    /// Where it may be.
    pub endpoints: Vec<SocketAddr>,
    /// Where it is reached by UDP.
    pub path: Option<SocketAddr>,
    /// By which way it is reached, if that is a stream: `wss:root.example.org:443`, and after that the proxy
    /// if there is one.
    pub stream: Option<String>,
    /// Why no stream to it could be opened, or why the last one has ended.
    pub stream_error: Option<String>,
    /// The smoothed round-trip time to it, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Where it sees this node; none by a stream.
    pub observed: Option<SocketAddr>,
    /// For how long this node could be found there without an outage, seconds.
    pub registered_s: Option<f64>,
    /// Whether it relays more than handshakes for this node.
    pub relays: bool,
    /// What it relays for this node, bytes per second; 0 for no limit.
    pub rate: u32,
    /// Peers whose path leads through it.
    pub relayed_peers: usize,
    /// True if the directory that it shares with other roots did not answer when this node looked for another
    /// one last: it knows its own nodes only.
    pub directory_away: bool,
}

/// Where a node can be reached, and what is in front of it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ContactStatus {
    /// The kind of NAT by its usual name, as `restrict port`, if a STUN server or root could tell.
    pub nat: Option<String>,
    /// How it maps: `none`, `endpoint-independent`, `address-dependent` or `address-and-port-dependent`.
    pub mapping: Option<&'static str>,
    /// Whose packets it lets in: `endpoint-independent`, `address-dependent` or `address-and-port-dependent`.
    pub filtering: Option<&'static str>,
    /// The addresses, the best first.
    pub candidates: Vec<CandidateStatus>,
}

/// One address at which a node can be reached.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CandidateStatus {
    /// The address and UDP port.
    pub address: SocketAddr,
    /// Where it is known from: `interface`, `mapped` (others see the node there), `forwarded` (by a router)
    /// or `relayed` (by a TURN server).
    pub kind: &'static str,
    /// How the router was asked: `PCP`, `NAT-PMP` or `UPnP`.
    pub by: Option<String>,
}

/// How an allocation on a TURN server is.
///
/// ```
/// fn tell(turn: &peersock::TurnStatus) -> String {
///     match (turn.relayed, &turn.error) {
///         (Some(address), _) => format!("{} relays at {address}", turn.server),
///         (None, Some(error)) => format!("{}: {error}", turn.server),
///         (None, None) => format!("{} is being asked", turn.server),
///     }
/// }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TurnStatus {
    /// The server with its user name, as it was given, without the password.
    pub server: String,
    /// The family of the address: `ipv4` or `ipv6`.
    pub family: &'static str,
    /// The relayed address, if the server has given one.
    pub relayed: Option<SocketAddr>,
    /// Why there is none, or none any more; none if there is an address, or no answer yet.
    pub error: Option<String>,
}

/// What a list of roots has said last: a domain, or the local networks.
///
/// ```
/// fn tell(list: &peersock::RootListStatus) -> String {
///     match &list.error {
///         None => format!("{} names {} roots", list.source, list.roots),
///         Some(error) => format!("{}: {error}", list.source),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RootListStatus {
    /// The list as it was named: `dns:DOMAIN` or `lan`.
    pub source: String,
    /// How many of its roots are used.
    pub roots: usize,
    /// Why there are none, or only those of a list that was kept.
    pub error: Option<String>,
}

impl RootListStatus {
    pub(crate) fn new(source: &RootSource, roots: usize, error: Option<String>) -> Self {
        Self { source: source.to_string(), roots, error }
    }
}

/// How a node meets others by the DHT.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DhtStatus {
    /// Nodes of the DHT that have answered lately.
    pub nodes: usize,
    /// Networks in which this node can be found by the DHT.
    pub published: usize,
    /// Peers that are looked for there now.
    pub searches: usize,
    /// Why it cannot be used at present.
    pub error: Option<String>,
}

pub(super) fn contact(found: &Found, contact: &Contact) -> ContactStatus {
    let Found { nats, forwarded } = found;
    let candidate = |candidate: &Candidate| CandidateStatus {
        address: candidate.address,
        kind: match candidate.kind {
            CandidateKind::Interface => "interface",
            CandidateKind::Mapped => "mapped",
            CandidateKind::Forwarded => "forwarded",
            CandidateKind::Relayed => "relayed",
        },
        by: forwarded.iter().find(|port| port.external == candidate.address).map(|port| port.by.to_string()),
    };
    const ENDPOINT_INDEPENDENT: &str = "endpoint-independent";
    const ADDRESS_DEPENDENT: &str = "address-dependent";
    const BOTH: &str = "address-and-port-dependent";
    ContactStatus {
        nat: nats.iter().find_map(|(_, nat)| nat.kind()).map(|kind| kind.to_string()),
        mapping: match contact.nat.mapping {
            Mapping::Unknown => None,
            Mapping::NoNat => Some("none"),
            Mapping::EndpointIndependent => Some(ENDPOINT_INDEPENDENT),
            Mapping::AddressDependent => Some(ADDRESS_DEPENDENT),
            Mapping::AddressAndPortDependent => Some(BOTH),
        },
        filtering: match contact.nat.filtering {
            Filtering::Unknown => None,
            Filtering::EndpointIndependent => Some(ENDPOINT_INDEPENDENT),
            Filtering::AddressDependent => Some(ADDRESS_DEPENDENT),
            Filtering::AddressAndPortDependent => Some(BOTH),
        },
        candidates: contact.candidates().iter().map(candidate).collect(),
    }
}

pub(in crate::node) fn roots(node: &Inner) -> Vec<RootStatus> {
    let (datapath, now) = (&node.driver.datapath, Instant::now());
    let overlay_now = datapath.overlay_time(now);
    let status = |info: RootInfo| RootStatus {
        id: info.node,
        guest: info.is_guest,
        state: info.state,
        endpoints: info.endpoints,
        path: info.address,
        stream: info.stream.and_then(|socket| node.driver.streams.name(socket)),
        stream_error: node.driver.streams.error(&info.node),
        rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        observed: info.observed,
        registered_s: info.registered.map(|at| overlay_now.saturating_duration_since(at).as_secs_f64()),
        relays: info.relays,
        rate: info.rate,
        relayed_peers: info.relayed_peers,
        directory_away: info.is_partial,
    };
    datapath.roots(now).into_iter().map(status).collect()
}
