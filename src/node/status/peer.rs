//! What is known of a peer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peersock_overlay::{
    CandidateKind, DirectAttempt, DirectOutcome, Elsewhere, NetworkId, NodeId, PeerInfo, SocketIndex,
};
use serde::Serialize;

use super::{Traffic, display, display_some};
use crate::node::Inner;

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
    /// By which way the root that relays is reached, if that is a stream: `wss:root.example.org:443`, and
    /// after that the proxy if there is one.
    pub stream: Option<String>,
    /// The root that relays, if one does.
    #[serde(serialize_with = "display_some")]
    pub root: Option<NodeId>,
    /// Whether the path leads over a TURN server: this node's, or the peer's as far as it has said so.
    pub turn: bool,
    /// Whether the path is a TCP connection to the peer, whose other end `path` is.
    pub tcp: bool,
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
    /// Whether its answers to this node's handshakes cannot be read: its secret for the network is another
    /// one, unless somebody on the way forges them.
    pub answer_unreadable: bool,
    /// At how many of this node's roots it is.
    pub at_roots: usize,
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
    /// (by a router that was asked to), `relayed` (by the peer's TURN server), `predicted` (the port that
    /// a NAT box was expected to use next), `birthday` (many ports were sent from, or to; then the port is
    /// 0), or `tcp` (connections were tried there, because there was no path by UDP).
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

pub(in crate::node) fn peers(node: &Inner) -> Vec<PeerStatus> {
    let datapath = &node.driver.datapath;
    let networks = datapath.networks();
    let network_of = |info: &PeerInfo| {
        networks.iter().find(|network| network.index == info.peer.network()).map(|network| network.id)
    };
    let now = datapath.overlay_time(Instant::now());
    let shown = |info: PeerInfo| {
        let stream = info.path.as_ref().map(|path| path.socket()).filter(|socket| socket.is_stream());
        let stream = stream.and_then(|socket| node.driver.streams.name(socket));
        let is_tcp = |socket: &SocketIndex| socket.is_peer_stream();
        let by_tcp = info.path.as_ref().map(|path| path.socket()).filter(is_tcp);
        let mut status = peer(now, network_of(&info)?, stream, info);
        if let Some(socket) = by_tcp {
            (status.tcp, status.path) = (true, node.driver.tcp.remote(socket));
        }
        Some(status)
    };
    datapath.peers().into_iter().filter_map(shown).collect()
}

fn peer(now: Instant, network: NetworkId, stream: Option<String>, info: PeerInfo) -> PeerStatus {
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
        stream,
        root: info.root,
        turn: info.turn,
        tcp: false,
        datagram_size: info.path.map(|path| path.datagram_size),
        cipher: info.suite.map(|suite| suite.to_string()),
        rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        session_age_s: info.established.map(|at| ago(at).as_secs_f64()),
        traffic: session.map(|session| session.stats().into()),
        total_traffic: info.traffic.into(),
        candidates: info.candidates,
        attempts: info.attempts.iter().map(|attempt| attempted(now, attempt)).collect(),
        answer_unreadable: info.answer_unreadable,
        at_roots: info.at_roots,
        conflict: conflict(now, info.elsewhere),
    }
}

fn attempted(now: Instant, attempt: &DirectAttempt) -> AttemptStatus {
    AttemptStatus {
        address: attempt.address,
        kind: match attempt.kind {
            _ if attempt.by_many_ports => "birthday",
            _ if attempt.by_tcp => "tcp",
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
pub(super) fn conflict(now: Instant, elsewhere: Option<Elsewhere>) -> Option<Conflict> {
    let Elsewhere { remote, seen, .. } = elsewhere?;
    let ago = now.saturating_duration_since(seen);
    (ago < MENTIONED_FOR).then_some(Conflict { remote, seen_s: ago.as_secs_f64() })
}

/// How long it is mentioned that another node with the same identity was seen.
const MENTIONED_FOR: Duration = Duration::from_secs(600);

/// A peer of an ad-hoc network sends a beacon at least every 30 s.
const GONE_AFTER: Duration = Duration::from_secs(120);
