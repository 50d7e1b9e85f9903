//! A node's state, for people and scripts to look at.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use peersock_overlay::{NetworkId, NodeId, PeerInfo};
use serde::{Serialize, Serializer};

use super::Inner;

/// Everything worth knowing about a node at one time. Serializes to the JSON that `peersock status --json` prints.
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
    /// The joined networks.
    pub networks: Vec<NetworkStatus>,
    /// The peers known, in all networks.
    pub peers: Vec<PeerStatus>,
    /// TCP connections in any state.
    pub flows: FlowStatus,
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
    /// This node's addresses in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Members known, without this node.
    pub peers: usize,
    /// Members with a session.
    pub connected: usize,
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
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// Whether there is a session.
    pub connected: bool,
    /// Where its packets are sent now.
    pub path: Option<SocketAddr>,
    /// The largest UDP payload known to pass on the path, bytes.
    pub datagram_size: Option<usize>,
    /// The cipher of the session.
    pub cipher: Option<String>,
    /// The path's smoothed round-trip time, milliseconds.
    pub rtt_ms: Option<f64>,
    /// The session's age, seconds.
    pub session_age_s: Option<f64>,
    /// Packets and bytes of the session, inner packets included their headers.
    pub traffic: Option<Traffic>,
    /// Where else it may be.
    pub candidates: Vec<SocketAddr>,
}

/// What a session has carried, sealed datagrams counted by their inner length.
#[derive(Debug, Clone, Copy, Serialize)]
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
}

pub(super) fn collect(node: &Inner) -> Status {
    let datapath = &node.driver.datapath;
    let networks = datapath.network_infos().into_iter().map(|network| NetworkStatus {
        id: network.id,
        addresses: network.addresses,
        peers: network.peers,
        connected: network.connected,
    });
    Status {
        version: env!("CARGO_PKG_VERSION"),
        node_id: node.identity.node_id(),
        public_key: node.identity.to_string(),
        uptime_s: node.started.elapsed().as_secs_f64(),
        endpoints: node.driver.sockets.local_addrs(),
        udp_receive_buffer: node.driver.sockets.receive_buffer(),
        networks: networks.collect(),
        peers: peers(node),
        flows: FlowStatus { total: datapath.stack().flows() },
        counters: counters(node),
    }
}

pub(super) fn peers(node: &Inner) -> Vec<PeerStatus> {
    let datapath = &node.driver.datapath;
    let networks = datapath.networks();
    let network_of = |info: &PeerInfo| {
        networks.iter().find(|network| network.index == info.peer.network()).map(|network| network.id)
    };
    datapath.peers().into_iter().filter_map(|info| Some(peer(network_of(&info)?, info))).collect()
}

fn peer(network: NetworkId, info: PeerInfo) -> PeerStatus {
    let session = info.peer.session();
    let traffic = session.as_ref().map(|session| {
        let stats = session.stats();
        Traffic {
            sent_packets: stats.sent_packets,
            sent_bytes: stats.sent_bytes,
            received_packets: stats.received_packets,
            received_bytes: stats.received_bytes,
        }
    });
    PeerStatus {
        id: *info.peer.id(),
        network,
        addresses: info.addresses,
        connected: session.is_some(),
        path: info.path.map(|path| path.remote),
        datagram_size: info.path.map(|path| path.datagram_size),
        cipher: info.suite.map(|suite| suite.to_string()),
        rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        session_age_s: info.established.map(|at| at.elapsed().as_secs_f64()),
        traffic,
        candidates: info.candidates,
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

fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
