//! A node's state, for people and scripts to look at.

mod network;
mod peer;
mod prometheus;
mod reach;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::{NodeId, SessionStats};
use serde::{Serialize, Serializer};

use super::Inner;
use super::meeting::Meetings;
use network::network;
pub use network::{NetworkStatus, Ports};
use peer::conflict;
pub(super) use peer::peers;
pub use peer::{AttemptStatus, Conflict, PeerStatus, Presence};
use reach::contact;
pub(super) use reach::roots;
pub use reach::{CandidateStatus, ContactStatus, DhtStatus, RootListStatus, RootStatus, TurnStatus};

/// Everything worth knowing about a node at one time. Serializes to the JSON that `peersock status --json`
/// prints.
///
/// ```
/// # use peersock::{IdentitySource, Interfaces, Node};
/// # let node = Node::builder().identity(IdentitySource::Ephemeral);
/// # let node = node.interfaces(Interfaces::Loopback).start()?;
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

/// How many TCP connections there are.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct FlowStatus {
    /// In any state, TIME-WAIT included.
    pub total: usize,
    /// In TIME-WAIT: they have ended, and remain for a while to answer late segments.
    pub time_wait: usize,
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
    /// Packets that the other side has sent before others that came, and that have not come themselves: lost
    /// on the way, or late. Probes of datagram sizes that the path does not carry are among them.
    pub lost_packets: u64,
}

impl Status {
    /// Keeps `most` peers at most: the connected ones first, then those that were there last. The numbers in
    /// [`Status::networks`] still count all.
    pub(crate) fn limit_peers(&mut self, most: usize) {
        if self.peers.len() <= most {
            return;
        }
        self.peers.sort_by_cached_key(importance);
        self.peers.truncate(most);
    }

    /// The same peers, in no particular order.
    fn foremost_peers(&self, most: usize) -> Vec<&PeerStatus> {
        let mut peers: Vec<_> = self.peers.iter().collect();
        if peers.len() > most {
            peers.sort_by_cached_key(|peer| importance(peer));
            peers.truncate(most);
        }
        peers
    }
}

/// Orders peers: connected ones come first, then those that were there last, then those never heard of.
fn importance(peer: &PeerStatus) -> (Presence, u64) {
    let last = [peer.last_seen_s, peer.last_heard_s].into_iter().flatten().min_by(f64::total_cmp);
    (peer.state, last.map_or(u64::MAX, |seconds| (seconds * 1e3) as u64))
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
        turn: node.driver.turn.statuses(),
        dht: node.meetings.get().map(Meetings::status),
        networks,
        peers,
        flows: FlowStatus { total: flows.flows(), time_wait: flows.time_waits() },
        traffic,
        conflict: conflict(datapath.overlay_time(Instant::now()), datapath.elsewhere()),
        counters: counters(node),
    }
}

impl From<SessionStats> for Traffic {
    fn from(stats: SessionStats) -> Traffic {
        Traffic {
            sent_packets: stats.sent_packets,
            sent_bytes: stats.sent_bytes,
            received_packets: stats.received_packets,
            received_bytes: stats.received_bytes,
            lost_packets: stats.lost_packets,
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
            // A peer may count as it likes.
            lost_packets: self.lost_packets.saturating_add(other.lost_packets),
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
