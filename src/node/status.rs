//! A node's state, for people and scripts to look at.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use peersock_overlay::{
    Candidate, CandidateKind, Contact, DirectAttempt, DirectOutcome, Elsewhere, Filtering, Mapping,
    NetworkId, NetworkInfo, NetworkSummary, NodeId, PeerInfo, RootInfo, RootState, SessionStats,
};
use serde::{Serialize, Serializer};

use super::Inner;
use super::contact::Found;
use super::meeting::MeetingState;
use crate::driver::TurnState;

/// Everything worth knowing about a node at one time. Serializes to the JSON that `peersock status --json`
/// prints.
///
/// ```
/// # use peersock::{IdentitySource, Interfaces, Node};
/// # let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let status = node.status();
/// assert_eq!(status.node_id, node.id());
/// assert!(status.peers.is_empty());
/// # Ok::<(), peersock::StartError>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The library's version.
    pub version: &'static str,
    /// The node's ID.
    #[serde(serialize_with = "display")]
    pub node_id: NodeId,
    /// The node's public keys, as a static network's file lists them.
    pub public_key: String,
    /// Seconds since the node started.
    pub uptime_s: f64,
    /// The addresses of its UDP sockets.
    pub endpoints: Vec<SocketAddr>,
    /// The receive buffer of its UDP sockets as the kernel accounts it, bytes.
    pub udp_receive_buffer: usize,
    /// The roots, in the order in which they were given.
    pub roots: Vec<RootStatus>,
    /// Where this node can be reached; `None` if it does not find that out, since it has neither roots nor
    /// DHT.
    pub contact: Option<ContactStatus>,
    /// What TURN servers do for this node: one entry for each server and family of addresses.
    pub turn: Vec<TurnStatus>,
    /// How this node meets others by the DHT; `None` if it does not.
    pub dht: Option<DhtStatus>,
    /// The joined networks.
    pub networks: Vec<NetworkStatus>,
    /// The peers known, in all networks.
    pub peers: Vec<PeerStatus>,
    /// TCP connections.
    pub flows: FlowStatus,
    /// What all networks have carried since they were joined.
    pub traffic: Traffic,
    /// Another node with this node's identity, if one was seen in the last ten minutes.
    pub conflict: Option<Conflict>,
    /// Counters by name. They only grow.
    pub counters: BTreeMap<&'static str, u64>,
}

/// A joined network's state.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// The network's ID.
    #[serde(serialize_with = "display")]
    pub id: NetworkId,
    /// What kind it is of: `ad-hoc` or `static`.
    pub kind: &'static str,
    /// Whether a passphrase or pre-shared key is needed to take part.
    pub secret: bool,
    /// Whether only certain nodes are admitted.
    pub closed: bool,
    /// The TCP and UDP ports on which services may be offered and reached.
    pub ports: Ports,
    /// The addresses that lie in it, as `ADDRESS/LENGTH`; the self-certifying prefix first.
    pub prefixes: Vec<String>,
    /// This node's name, if the network's file gives it one.
    pub name: Option<String>,
    /// This node's addresses in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Members known, without this node: the sum of the three that follow.
    pub peers: usize,
    /// Members in state [`Presence::Connected`].
    pub connected: usize,
    /// Members in state [`Presence::Known`].
    pub known: usize,
    /// Members in state [`Presence::Gone`].
    pub gone: usize,
    /// Members forgotten since the network was joined; they are in no other number.
    pub forgotten: u64,
    /// What the sessions with all members have carried since the network was joined, forgotten ones included.
    pub traffic: Traffic,
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

/// A root's state.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct RootStatus {
    /// Its node ID.
    #[serde(serialize_with = "display")]
    pub id: NodeId,
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
    /// For how long this node could be found there, seconds.
    pub registered_s: Option<f64>,
    /// Whether it relays more than handshakes for this node.
    pub relays: bool,
    /// What it relays for this node, bytes per second; 0 for no limit.
    pub rate: u32,
    /// Peers whose path leads through it.
    pub relayed_peers: usize,
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
    /// Where it is known from: `interface`, `mapped` (others see the node there), `forwarded` (by a router) or
    /// `relayed` (by a TURN server).
    pub kind: &'static str,
    /// How the router was asked: `PCP`, `NAT-PMP` or `UPnP`.
    pub by: Option<String>,
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

/// A range of ports, as JSON has it.
///
/// ```
/// let ports = peersock::Ports::from(&(0..=90));
/// assert_eq!((ports.first, ports.last), (1, 90));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ports {
    /// The first one. No service has port 0.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl From<&RangeInclusive<u16>> for Ports {
    fn from(ports: &RangeInclusive<u16>) -> Ports {
        Ports { first: (*ports.start()).max(1), last: *ports.end() }
    }
}

/// A peer's state in one network.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its node ID.
    #[serde(serialize_with = "display")]
    pub id: NodeId,
    /// The network.
    #[serde(serialize_with = "display")]
    pub network: NetworkId,
    /// Its name, if the network's file gives it one.
    pub name: Option<String>,
    /// Its addresses there, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Whether there is a session.
    pub connected: bool,
    /// Whether it is there, as far as the node can tell.
    pub state: Presence,
    /// How long ago it last proved to be there, by an authentic packet or handshake, seconds.
    pub last_seen_s: Option<f64>,
    /// How long ago local discovery last heard of it, seconds. That proves nothing: any member of the network
    /// can say so.
    pub last_heard_s: Option<f64>,
    /// Where its packets are sent now: the address of the root, if one relays; none if that is reached by a
    /// stream.
    pub path: Option<SocketAddr>,
    /// The root that relays, if one does.
    #[serde(serialize_with = "display_some")]
    pub root: Option<NodeId>,
    /// Whether the path leads over a TURN server: this node's, or the peer's as far as it has said so.
    pub turn: bool,
    /// The largest datagram known to pass on the path, bytes of UDP payload without what a root needs in
    /// front.
    pub datagram_size: Option<usize>,
    /// The cipher of the session.
    pub cipher: Option<String>,
    /// The path's smoothed round-trip time, milliseconds.
    pub rtt_ms: Option<f64>,
    /// The session's age, seconds.
    pub session_age_s: Option<f64>,
    /// What the present session has carried.
    pub traffic: Option<Traffic>,
    /// What all sessions with it have carried since the node learned of it.
    pub total_traffic: Traffic,
    /// Where else it may be.
    pub candidates: Vec<SocketAddr>,
    /// Where a direct path was looked for, the last time that there was none, and what came of it.
    pub attempts: Vec<AttemptStatus>,
    /// Another node with the peer's identity, if one was seen in the last ten minutes.
    pub conflict: Option<Conflict>,
}

/// An address at which a direct path to a peer was looked for.
///
/// ```
/// fn describe(attempt: &peersock::AttemptStatus) -> String {
///     format!("{} ({}): {}", attempt.address, attempt.kind, attempt.outcome)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AttemptStatus {
    /// The address.
    pub address: SocketAddr,
    /// What kind it is of: `interface` (of the peer's machine), `mapped` (as seen from outside), `forwarded`
    /// (by a router that was asked to), `relayed` (by the peer's TURN server), or `predicted` (the port that a
    /// NAT box was expected to use next).
    pub kind: &'static str,
    /// Whether a root of this node's has seen the peer at that IP address. Others get a few packets only.
    pub vouched: bool,
    /// Packets sent there in the last round.
    pub sent: u32,
    /// How long ago the last of them was sent, seconds.
    pub tried_s: Option<f64>,
    /// Whether the peer has answered from there.
    pub answered: bool,
    /// What came of it, or why nothing was sent there, in words.
    pub outcome: String,
}

/// One identity is in use at two places, probably because a state directory was copied: connections reach the
/// one or the other.
///
/// ```
/// fn describe(conflict: &peersock::Conflict) -> String {
///     format!("the same identity was at {} too, {:.0} s ago", conflict.remote, conflict.seen_s)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Conflict {
    /// Where the other node was seen.
    pub remote: SocketAddr,
    /// How long ago that was the last time, seconds.
    pub seen_s: f64,
}

/// Whether a peer is there.
///
/// ```
/// assert_eq!(peersock::Presence::Connected.to_string(), "connected");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Presence {
    /// There is a session with it.
    Connected,
    /// There is no session; one is made when something is sent. A static network's member that was never
    /// heard of is known, too.
    Known,
    /// It has said goodbye; or, in an ad-hoc network, nothing was heard of it for two minutes, in which four
    /// of its beacons should have come.
    Gone,
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Presence::Connected => "connected",
            Presence::Known => "known",
            Presence::Gone => "gone",
        })
    }
}

/// What sessions have carried: inner packets with their headers, and what keeps a session going (keepalives,
/// probes of the path). The datagrams around them are some 56 bytes longer each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// How many TCP connections there are.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct FlowStatus {
    /// In any state, TIME-WAIT included.
    pub total: usize,
    /// In TIME-WAIT: they have ended, and remain for a while to answer late segments.
    pub time_wait: usize,
}

impl Status {
    /// Keeps `most` peers at most: the connected ones first, then those that were there last. The numbers in
    /// [`Status::networks`] still count all.
    pub(crate) fn limit_peers(&mut self, most: usize) {
        if self.peers.len() <= most {
            return;
        }
        let silence = |peer: &PeerStatus| {
            let last = [peer.last_seen_s, peer.last_heard_s].into_iter().flatten().min_by(f64::total_cmp);
            // Those never heard of come last.
            last.map_or(u64::MAX, |seconds| (seconds * 1e3) as u64)
        };
        self.peers.sort_by_cached_key(|peer| (peer.state, silence(peer)));
        self.peers.truncate(most);
    }
}

pub(super) fn collect(node: &Inner) -> Status {
    let datapath = &node.driver.datapath;
    let peers = peers(node);
    let networks: Vec<_> = datapath.network_infos().into_iter().map(|info| network(info, &peers)).collect();
    let traffic = networks.iter().fold(Traffic::default(), |sum, network| sum.plus(&network.traffic));
    let flows = datapath.stack();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        node_id: node.identity.node_id(),
        public_key: node.identity.to_string(),
        uptime_s: node.started.elapsed().as_secs_f64(),
        endpoints: node.driver.sockets.local_addrs(),
        udp_receive_buffer: node.driver.sockets.receive_buffer(),
        roots: roots(node),
        contact: node.keeper.get().map(|keeper| contact(&keeper.found(), &datapath.contact())),
        turn: node.driver.turn.states().into_iter().map(turn).collect(),
        dht: node.meetings.get().map(|meetings| dht(meetings.state())),
        networks,
        peers,
        flows: FlowStatus { total: flows.flows(), time_wait: flows.time_waits() },
        traffic,
        conflict: conflict(datapath.overlay_time(Instant::now()), datapath.elsewhere()),
        counters: counters(node),
    }
}

fn network(info: NetworkInfo, peers: &[PeerStatus]) -> NetworkStatus {
    let count = |state| peers.iter().filter(|peer| peer.network == info.id && peer.state == state).count();
    let [connected, known, gone] = [Presence::Connected, Presence::Known, Presence::Gone].map(count);
    let NetworkSummary { kind, secret, closed, ports, prefixes, .. } = info.summary;
    NetworkStatus {
        id: info.id,
        kind,
        secret,
        closed,
        ports: Ports::from(&ports),
        prefixes: prefixes.iter().map(ToString::to_string).collect(),
        name: info.name,
        addresses: info.addresses,
        // Not those of the overlay, which may have changed since the peers were listed.
        peers: connected + known + gone,
        connected,
        known,
        gone,
        forgotten: info.forgotten,
        traffic: info.traffic.into(),
    }
}

fn contact(found: &Found, contact: &Contact) -> ContactStatus {
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

fn turn(state: TurnState) -> TurnStatus {
    let TurnState { server, is_ipv4, relayed, error } = state;
    TurnStatus { server, family: if is_ipv4 { "ipv4" } else { "ipv6" }, relayed, error }
}

fn dht(state: MeetingState) -> DhtStatus {
    let MeetingState { nodes, published, searches, error } = state;
    DhtStatus { nodes, published, searches, error }
}

fn roots(node: &Inner) -> Vec<RootStatus> {
    let (datapath, now) = (&node.driver.datapath, Instant::now());
    let overlay_now = datapath.overlay_time(now);
    let status = |info: RootInfo| RootStatus {
        id: info.node,
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
    };
    datapath.roots(now).into_iter().map(status).collect()
}

pub(super) fn peers(node: &Inner) -> Vec<PeerStatus> {
    let datapath = &node.driver.datapath;
    let networks = datapath.networks();
    let network_of = |info: &PeerInfo| {
        networks.iter().find(|network| network.index == info.peer.network()).map(|network| network.id)
    };
    let now = datapath.overlay_time(Instant::now());
    datapath.peers().into_iter().filter_map(|info| Some(peer(now, network_of(&info)?, info))).collect()
}

fn peer(now: Instant, network: NetworkId, info: PeerInfo) -> PeerStatus {
    let session = info.peer.session();
    let connected = session.is_some();
    let ago = |at: Instant| now.saturating_duration_since(at);
    let silent = info.last_seen.max(info.last_heard).is_none_or(|last| ago(last) >= GONE_AFTER);
    PeerStatus {
        id: *info.peer.id(),
        network,
        name: info.name,
        addresses: info.addresses,
        connected,
        state: match () {
            () if connected => Presence::Connected,
            () if info.left || (silent && !info.listed) => Presence::Gone,
            () => Presence::Known,
        },
        last_seen_s: info.last_seen.map(|at| ago(at).as_secs_f64()),
        last_heard_s: info.last_heard.map(|at| ago(at).as_secs_f64()),
        path: info.path.filter(|path| !path.socket().is_stream()).map(|path| path.remote()),
        root: info.root,
        turn: info.turn,
        datagram_size: info.path.map(|path| path.datagram_size),
        cipher: info.suite.map(|suite| suite.to_string()),
        rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        session_age_s: info.established.map(|at| ago(at).as_secs_f64()),
        traffic: session.map(|session| session.stats().into()),
        total_traffic: info.traffic.into(),
        candidates: info.candidates,
        attempts: info.attempts.iter().map(|attempt| attempted(now, attempt)).collect(),
        conflict: conflict(now, info.elsewhere),
    }
}

fn attempted(now: Instant, attempt: &DirectAttempt) -> AttemptStatus {
    AttemptStatus {
        address: attempt.address,
        kind: match attempt.kind {
            _ if attempt.predicted => "predicted",
            CandidateKind::Interface => "interface",
            CandidateKind::Mapped => "mapped",
            CandidateKind::Forwarded => "forwarded",
            CandidateKind::Relayed => "relayed",
        },
        vouched: attempt.vouched,
        sent: attempt.sent,
        tried_s: attempt.tried.map(|at| now.saturating_duration_since(at).as_secs_f64()),
        answered: attempt.outcome == DirectOutcome::Answered,
        outcome: attempt.outcome.to_string(),
    }
}

/// What is said of another node with the same identity, unless it was long ago.
fn conflict(now: Instant, elsewhere: Option<Elsewhere>) -> Option<Conflict> {
    let Elsewhere { remote, seen, .. } = elsewhere?;
    let ago = now.saturating_duration_since(seen);
    (ago < MENTIONED_FOR).then_some(Conflict { remote, seen_s: ago.as_secs_f64() })
}

impl From<SessionStats> for Traffic {
    fn from(stats: SessionStats) -> Traffic {
        Traffic {
            sent_packets: stats.sent_packets,
            sent_bytes: stats.sent_bytes,
            received_packets: stats.received_packets,
            received_bytes: stats.received_bytes,
        }
    }
}

impl Traffic {
    fn plus(self, other: &Traffic) -> Traffic {
        Traffic {
            sent_packets: self.sent_packets + other.sent_packets,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_packets: self.received_packets + other.received_packets,
            received_bytes: self.received_bytes + other.received_bytes,
        }
    }
}

fn counters(node: &Inner) -> BTreeMap<&'static str, u64> {
    let datapath = &node.driver.datapath;
    let mut counters: BTreeMap<_, _> = datapath.overlay_counters().into_iter().collect();
    counters.extend(datapath.counters().snapshot());
    counters.extend(datapath.stack().counters().snapshot());
    counters.extend(node.driver.sockets.stats.snapshot());
    counters
}

fn display<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn display_some<S: Serializer>(value: &Option<impl fmt::Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// How long it is mentioned that another node with the same identity was seen.
const MENTIONED_FOR: Duration = Duration::from_secs(600);

/// A peer of an ad-hoc network sends a beacon at least every 30 s.
const GONE_AFTER: Duration = Duration::from_secs(120);
