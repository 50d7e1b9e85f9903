//! State of a peer.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use peersock_overlay::membership::Refusal;
use peersock_overlay::{
    CandidateKind, DirectAttempt, DirectOutcome, Elsewhere, NetworkId, NodeId, PeerInfo, SocketIndex,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Traffic, text};
use crate::node::Inner;
use crate::sync;

/// State of a peer in one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Node ID of the peer.
    #[serde(with = "text")]
    pub id: NodeId,
    /// Network of the peer.
    #[serde(with = "text")]
    pub network: NetworkId,
    /// Name of the peer, if the network gives it one. A program has that of its machine.
    pub name: Option<String>,
    /// Standing of the peer in a managed network, as the node judges it: `member`, `removed` by a controller,
    /// or `refused` (its credentials do not count for another reason). None while it has shown none, and in
    /// other networks.
    #[serde(default)]
    pub standing: Option<Cow<'static, str>>,
    /// Member beside whose node it is, if it is a program with its own keys.
    #[serde(default, with = "text::some")]
    pub machine: Option<NodeId>,
    /// Label under which such a program alone is addressed, before the name of its machine.
    #[serde(default)]
    pub label: Option<String>,
    /// Epoch of the newest removals of this node that the peer is known to have, if the node is a controller
    /// ([`NetworkStatus::signed_epoch`](crate::NetworkStatus::signed_epoch)).
    #[serde(default)]
    pub known_epoch: Option<u64>,
    /// Version of the newest access rules that the peer is known to have.
    #[serde(default)]
    pub known_rules: Option<u64>,
    /// Tags of the peer in its certificate, in a managed network.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Addresses of the peer in the network, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// IPv4 addresses under which programs with IPv4 sockets have seen the peer, in a network without IPv4.
    /// They have a meaning on this machine only, and different programs seldom see different ones.
    #[serde(default)]
    pub ipv4_aliases: Vec<Ipv4Addr>,
    /// True if a session exists.
    pub connected: bool,
    /// Presence of the peer, as far as the node can tell.
    pub state: Presence,
    /// Time since it last proved to be there, by an authentic packet or handshake, seconds.
    pub last_seen_s: Option<f64>,
    /// Time since local discovery last heard of it, seconds. That proves nothing, because any member of the
    /// network can claim it.
    pub last_heard_s: Option<f64>,
    /// Destination of its packets now: the address of the root, if one relays; none if that root is reached
    /// by a stream.
    pub path: Option<SocketAddr>,
    /// Stream to the root that relays, if it is reached by one: `wss:root.example.org:443`, followed by the
    /// proxy if there is one.
    pub stream: Option<String>,
    /// Root that relays, if one does.
    #[serde(with = "text::some")]
    pub root: Option<NodeId>,
    /// True if the path leads over a TURN server: this node's, or the peer's as far as it has said so.
    pub turn: bool,
    /// True if the path is a TCP connection to the peer, with the remote address `path`.
    pub tcp: bool,
    /// Size of the largest datagram known to pass on the path: bytes of UDP payload without a root's header.
    pub datagram_size: Option<usize>,
    /// Cipher of the session.
    pub cipher: Option<String>,
    /// Smoothed round-trip time of the path, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Age of the session, seconds.
    pub session_age_s: Option<f64>,
    /// Traffic of the current session.
    pub traffic: Option<Traffic>,
    /// Traffic of all sessions with it since the node learned of it.
    pub total_traffic: Traffic,
    /// Other possible endpoints of the peer.
    pub candidates: Vec<SocketAddr>,
    /// Endpoints tried in the last search for a direct path, with their outcomes.
    pub attempts: Vec<AttemptStatus>,
    /// True if its answers to this node's handshakes cannot be decrypted: its secret for the network differs,
    /// unless an attacker on the path forges them.
    pub answer_unreadable: bool,
    /// Number of this node's roots at which the peer is registered.
    pub at_roots: usize,
    /// Another node with the peer's identity, if one was seen in the last ten minutes.
    pub conflict: Option<Conflict>,
}

/// Address at which a direct path to a peer was searched for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttemptStatus {
    /// Address that was tried.
    pub address: SocketAddr,
    /// Kind of the address: `interface` (of the peer's machine), `mapped` (as seen from outside), `forwarded`
    /// (by a router on request), `relayed` (by the peer's TURN server), `predicted` (the port that a NAT box
    /// was expected to use next), `birthday` (packets from, or to, many ports; then the port is 0), or `tcp`
    /// (connection attempts, because no path by UDP existed).
    pub kind: Cow<'static, str>,
    /// True if a root of this node has seen the peer at that IP address. Other addresses get only a few
    /// packets.
    pub vouched: bool,
    /// Number of packets sent there in the last round.
    pub sent: u32,
    /// Time since the last of them was sent, seconds.
    pub tried_s: Option<f64>,
    /// True if the peer has answered from there.
    pub answered: bool,
    /// Outcome, or the reason why nothing was sent there, in words.
    pub outcome: String,
}

/// Conflict: one identity is in use at two places, probably because a state directory was copied. Connections
/// reach one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conflict {
    /// Address at which the other node was seen.
    pub remote: SocketAddr,
    /// Time since it was last seen, seconds.
    pub seen_s: f64,
    /// True if both have come back after each other within three minutes, so that both run. Only a peer of
    /// the two sees that.
    #[serde(default)]
    pub proven: bool,
}

/// Presence of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Presence {
    /// A session with it exists.
    Connected,
    /// No session exists; one is made when something is sent. A static network's member that was never heard
    /// from also counts as known.
    Known,
    /// The peer has said goodbye, or, in an ad-hoc network, was silent for two minutes, in which four of its
    /// beacons should have come.
    Gone,
}

impl PeerStatus {
    /// Returns the kind of the path: `root` if a root relays, `turn` if a TURN server does, `tcp` for a TCP
    /// connection to the peer, else `direct`. Returns `None` without a session.
    ///
    /// ```
    /// fn is_relayed(peer: &peersock::PeerStatus) -> bool {
    ///     matches!(peer.path_kind(), Some("root" | "turn"))
    /// }
    /// ```
    pub fn path_kind(&self) -> Option<&'static str> {
        self.connected.then_some(match self {
            PeerStatus { root: Some(_), .. } => "root",
            PeerStatus { turn: true, .. } => "turn",
            PeerStatus { tcp: true, .. } => "tcp",
            _ => "direct",
        })
    }
}

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Presence, D::Error> {
        text::one_of(&[Presence::Known, Presence::Connected, Presence::Gone], deserializer)
    }
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
    let aliases = sync::lock(&node.ipv4_aliases);
    let shown = |info: PeerInfo| {
        let stream = info.path.as_ref().map(|path| path.socket()).filter(|socket| socket.is_stream());
        let stream = stream.and_then(|socket| node.driver.streams.name(socket));
        let is_tcp = |socket: &SocketIndex| socket.is_peer_stream();
        let by_tcp = info.path.as_ref().map(|path| path.socket()).filter(is_tcp);
        let mut status = peer(now, network_of(&info)?, stream, info);
        let of_peer = |ip: &IpAddr| if let IpAddr::V6(ip) = ip { aliases.get(ip) } else { None };
        status.ipv4_aliases = status.addresses.iter().filter_map(of_peer).flatten().copied().collect();
        if let Some(socket) = by_tcp {
            // The overlay knows a stream only by its number, not by its remote address.
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
    let standing = network.is_managed().then(|| standing(&info)).flatten();
    PeerStatus {
        id: *info.peer.id(),
        network,
        name: info.name,
        standing: standing.map(Cow::Borrowed),
        machine: info.machine,
        label: info.label.map(|label| label.to_string()),
        known_epoch: info.known_epoch,
        known_rules: info.known_rules,
        tags: info.peer.description(network).tags.iter().map(ToString::to_string).collect(),
        addresses: info.addresses,
        ipv4_aliases: Vec::new(),
        connected,
        state: match () {
            () if connected => Presence::Connected,
            // A static network lists its members, so silence does not remove them.
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

/// Returns a word for the standing of a peer in a managed network.
fn standing(info: &PeerInfo) -> Option<&'static str> {
    match info.refusal {
        _ if info.admitted => Some("member"),
        Some(Refusal::Revoked) => Some("removed"),
        Some(_) => Some("refused"),
        None => None,
    }
}

fn attempted(now: Instant, attempt: &DirectAttempt) -> AttemptStatus {
    AttemptStatus {
        address: attempt.address,
        kind: Cow::Borrowed(match attempt.kind {
            _ if attempt.by_many_ports => "birthday",
            _ if attempt.by_tcp => "tcp",
            _ if attempt.predicted => "predicted",
            CandidateKind::Interface => "interface",
            CandidateKind::Mapped => "mapped",
            CandidateKind::Forwarded => "forwarded",
            CandidateKind::Relayed => "relayed",
        }),
        vouched: attempt.vouched,
        sent: attempt.sent,
        tried_s: attempt.tried.map(|at| now.saturating_duration_since(at).as_secs_f64()),
        answered: attempt.outcome == DirectOutcome::Answered,
        outcome: attempt.outcome.to_string(),
    }
}

/// Returns the conflict with another node of the same identity, unless it is long ago.
pub(super) fn conflict(now: Instant, elsewhere: Option<Elsewhere>) -> Option<Conflict> {
    let Elsewhere { remote, seen, proven, .. } = elsewhere?;
    let ago = now.saturating_duration_since(seen);
    (ago < MENTIONED_FOR).then_some(Conflict { remote, seen_s: ago.as_secs_f64(), proven })
}

/// Time for which a conflict is reported.
const MENTIONED_FOR: Duration = Duration::from_secs(600);

/// Silence after which a peer is gone. A peer of an ad-hoc network sends a beacon at least every 30 s.
const GONE_AFTER: Duration = Duration::from_secs(120);
