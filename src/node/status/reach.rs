//! Status of a node's reachability: its roots, its addresses, and the DHT.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::{Candidate, CandidateKind, Contact, Filtering, Mapping, NodeId, RootInfo, RootState};
use serde::{Deserialize, Deserializer, Serialize};

use super::text;
use crate::config::RootSource;
use crate::node::Inner;
use crate::node::contact::Found;

/// State of a root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RootStatus {
    /// Node ID of the root.
    #[serde(with = "text")]
    pub id: NodeId,
    /// True if it is used only temporarily, because another root has named it for a peer.
    pub guest: bool,
    /// State: `connecting`, `unreachable`, `connected`, `registered`, `draining` (the root will end soon) or
    /// `refused`.
    #[serde(serialize_with = "text::serialize", deserialize_with = "root_state")]
    pub state: RootState,
    /// Possible endpoints of the root.
    pub endpoints: Vec<SocketAddr>,
    /// Endpoint at which it is reached by UDP.
    pub path: Option<SocketAddr>,
    /// Stream by which it is reached, if it is one: `wss:root.example.org:443`, followed by the proxy if
    /// there is one.
    pub stream: Option<String>,
    /// Reason why no stream to it could be opened, or why the last one has ended.
    pub stream_error: Option<String>,
    /// Smoothed round-trip time to it, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Address at which it sees this node; none by a stream.
    pub observed: Option<SocketAddr>,
    /// Time for which this node was registered there without an outage, seconds.
    pub registered_s: Option<f64>,
    /// True if it relays more than handshakes for this node.
    pub relays: bool,
    /// Relay limit for this node, bytes per second; 0 for no limit.
    pub rate: u32,
    /// Peers whose path leads through it.
    pub relayed_peers: usize,
    /// True if the directory that it shares with other roots did not answer when this node last searched for
    /// another one. Then the root knows only its own nodes.
    pub directory_away: bool,
}

fn root_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RootState, D::Error> {
    use RootState::{Connected, Connecting, Draining, Refused, Registered, Unreachable};
    text::one_of(&[Connecting, Unreachable, Connected, Registered, Draining, Refused], deserializer)
}

/// Contact of a node, and its NAT.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContactStatus {
    /// Kind of NAT by its usual name, as `restrict port`, if a STUN server or root could tell.
    pub nat: Option<String>,
    /// Mapping behaviour: `none`, `endpoint-independent`, `address-dependent` or
    /// `address-and-port-dependent`.
    pub mapping: Option<Cow<'static, str>>,
    /// Filtering behaviour: `endpoint-independent`, `address-dependent` or `address-and-port-dependent`.
    pub filtering: Option<Cow<'static, str>>,
    /// Addresses, the best first.
    pub candidates: Vec<CandidateStatus>,
}

/// One address at which a node can be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CandidateStatus {
    /// Address and UDP port.
    pub address: SocketAddr,
    /// Source of the address: `interface`, `mapped` (others see the node there), `forwarded` (by a router) or
    /// `relayed` (by a TURN server).
    pub kind: Cow<'static, str>,
    /// Protocol of the forwarding router: `PCP`, `NAT-PMP` or `UPnP`.
    pub by: Option<String>,
}

/// State of an allocation on a TURN server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TurnStatus {
    /// Server with its user name, as it was given, without the password.
    pub server: String,
    /// Family of the address: `ipv4` or `ipv6`.
    pub family: Cow<'static, str>,
    /// Relayed address, if the server has given one.
    pub relayed: Option<SocketAddr>,
    /// Reason why there is no address (any more); none if there is an address, or no answer yet.
    pub error: Option<String>,
}

/// Last result of a list of roots: a domain, or the local networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RootListStatus {
    /// Name of the list: `dns:DOMAIN` or `lan`.
    pub source: String,
    /// Number of its roots that are used.
    pub roots: usize,
    /// Reason why it has no roots, or only a stored list.
    pub error: Option<String>,
}

impl RootListStatus {
    pub(crate) fn new(source: &RootSource, roots: usize, error: Option<String>) -> Self {
        Self { source: source.to_string(), roots, error }
    }
}

/// State of a node's meetings by the DHT.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DhtStatus {
    /// Number of DHT nodes that have answered lately.
    pub nodes: usize,
    /// Number of networks in which this node can be found by the DHT.
    pub published: usize,
    /// Number of peers that are searched for in the DHT now.
    pub searches: usize,
    /// Reason why the DHT cannot be used now.
    pub error: Option<String>,
}

pub(super) fn contact(found: &Found, contact: &Contact) -> ContactStatus {
    let Found { nats, forwarded } = found;
    let candidate = |candidate: &Candidate| CandidateStatus {
        address: candidate.address,
        kind: Cow::Borrowed(match candidate.kind {
            CandidateKind::Interface => "interface",
            CandidateKind::Mapped => "mapped",
            CandidateKind::Forwarded => "forwarded",
            CandidateKind::Relayed => "relayed",
        }),
        by: forwarded.iter().find(|port| port.external == candidate.address).map(|port| port.by.to_string()),
    };
    const ENDPOINT_INDEPENDENT: &str = "endpoint-independent";
    const ADDRESS_DEPENDENT: &str = "address-dependent";
    const BOTH: &str = "address-and-port-dependent";
    ContactStatus {
        nat: nats.iter().find_map(|(_, nat)| nat.kind()).map(|kind| kind.to_string()),
        mapping: match contact.nat.mapping {
            Mapping::Unknown => None,
            Mapping::NoNat => Some("none".into()),
            Mapping::EndpointIndependent => Some(ENDPOINT_INDEPENDENT.into()),
            Mapping::AddressDependent => Some(ADDRESS_DEPENDENT.into()),
            Mapping::AddressAndPortDependent => Some(BOTH.into()),
        },
        filtering: match contact.nat.filtering {
            Filtering::Unknown => None,
            Filtering::EndpointIndependent => Some(ENDPOINT_INDEPENDENT.into()),
            Filtering::AddressDependent => Some(ADDRESS_DEPENDENT.into()),
            Filtering::AddressAndPortDependent => Some(BOTH.into()),
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
