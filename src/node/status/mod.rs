//! State of a node, for people and scripts to read.

mod network;
mod peer;
mod program;
mod prometheus;
mod reach;
pub(super) mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::{NetworkInfo, NodeId, SessionStats};
use serde::{Deserialize, Serialize};

use super::Inner;
use super::meeting::Meetings;
use crate::sync;
use network::{ManagedState, network};
pub use network::{NetworkStatus, Ports};
use peer::conflict;
pub(super) use peer::peers;
pub use peer::{AttemptStatus, Conflict, PeerStatus, Presence};
pub use program::ProgramStatus;
use reach::contact;
pub(super) use reach::roots;
pub use reach::{CandidateStatus, ContactStatus, DhtStatus, RootListStatus, RootStatus, TurnStatus};

/// State of a node at one time. Serializes to the JSON that `peersock status --json` prints, and can be read
/// from it; fields that a later version has added are skipped.
///
/// ```
/// # use peersock::{IdentitySource, Interfaces, Node};
/// # let node = Node::builder().identity(IdentitySource::Ephemeral);
/// # let node = node.interfaces(Interfaces::Loopback).start()?;
/// let status = node.status();
/// assert_eq!(status.node_id, node.id());
/// assert!(status.peers.is_empty());
/// let read: peersock::Status = serde_json::from_str(&serde_json::to_string(&status)?)?;
/// assert_eq!(read.node_id, node.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Version of the library.
    pub version: Cow<'static, str>,
    /// ID of the node.
    #[serde(with = "text")]
    pub node_id: NodeId,
    /// Public keys of the node, as a static network's file lists them.
    pub public_key: String,
    /// Seconds since the node started.
    pub uptime_s: f64,
    /// Addresses of its UDP sockets.
    pub endpoints: Vec<SocketAddr>,
    /// Receive buffer of its UDP sockets as the kernel accounts it, bytes.
    pub udp_receive_buffer: usize,
    /// Roots, in the order in which they were given.
    pub roots: Vec<RootStatus>,
    /// Contact of this node; `None` if it searches for none, because it has neither roots nor DHT.
    pub contact: Option<ContactStatus>,
    /// State of the TURN servers: one entry for each server and family of addresses.
    pub turn: Vec<TurnStatus>,
    /// State of the DHT; `None` if it is not used.
    pub dht: Option<DhtStatus>,
    /// Joined networks.
    pub networks: Vec<NetworkStatus>,
    /// Programs that use the node, as far as they were [named](super::Node::set_programs).
    #[serde(default)]
    pub programs: Vec<ProgramStatus>,
    /// Seconds for which the node still waits for a program, if it is
    /// [shared](super::Node::set_waiting_until) and ends without one.
    #[serde(default)]
    pub waits_s: Option<f64>,
    /// Known peers, in all networks.
    pub peers: Vec<PeerStatus>,
    /// TCP connections.
    pub flows: FlowStatus,
    /// Traffic of all networks since they were joined.
    pub traffic: Traffic,
    /// Another node with this node's identity, if one was seen in the last ten minutes.
    pub conflict: Option<Conflict>,
    /// Counters by name. They only grow.
    pub counters: BTreeMap<Cow<'static, str>, u64>,
}

/// Number of TCP connections.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FlowStatus {
    /// Connections in any state, TIME-WAIT included.
    pub total: usize,
    /// Connections in TIME-WAIT: they have ended, and remain for a while to answer late segments.
    pub time_wait: usize,
}

/// Traffic of sessions: inner packets with their headers, and the overhead of a session (keepalives, path
/// probes). The datagrams around them are about 56 bytes longer each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Packets that the other side sent before others that arrived, and that have not arrived: lost on the
    /// path, or late. Probes of datagram sizes that the path does not carry count, too.
    pub lost_packets: u64,
}

impl Status {
    /// Keeps at most `most` peers: the connected ones first, then the ones seen last. The numbers in
    /// [`Status::networks`] still count all.
    pub(crate) fn limit_peers(&mut self, most: usize) {
        if self.peers.len() <= most {
            return;
        }
        self.peers.sort_by_cached_key(importance);
        self.peers.truncate(most);
    }

    /// Returns the same peers, in no particular order.
    fn foremost_peers(&self, most: usize) -> Vec<&PeerStatus> {
        let mut peers: Vec<_> = self.peers.iter().collect();
        if peers.len() > most {
            peers.sort_by_cached_key(|peer| importance(peer));
            peers.truncate(most);
        }
        peers
    }
}

/// Orders peers: connected ones come first, then the ones seen last, then the ones never heard from.
fn importance(peer: &PeerStatus) -> (Presence, u64) {
    let last = [peer.last_seen_s, peer.last_heard_s].into_iter().flatten().min_by(f64::total_cmp);
    // Whole milliseconds, because floats have no total order.
    (peer.state, last.map_or(u64::MAX, |seconds| (seconds * 1e3) as u64))
}

pub(super) fn collect(node: &Inner) -> Status {
    let datapath = &node.driver.datapath;
    let peers = peers(node);
    let managed = sync::lock(&node.managed).clone();
    let of_info = |info: NetworkInfo| {
        let managed = managed.get(&info.id).map(|shared| ManagedState::of(node, info.index, shared));
        network(info, &managed.unwrap_or_default(), &peers)
    };
    let networks: Vec<_> = datapath.network_infos().into_iter().map(of_info).collect();
    let traffic = networks.iter().fold(Traffic::default(), |sum, network| sum.plus(&network.traffic));
    let flows = datapath.stack();
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
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
        programs: programs(node),
        waits_s: sync::lock(&node.waiting_until)
            .map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64()),
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
            // A peer may report any numbers, so the sum must not overflow.
            lost_packets: self.lost_packets.saturating_add(other.lost_packets),
        }
    }
}

fn programs(node: &Inner) -> Vec<ProgramStatus> {
    // Without the lock, because the list asks others.
    let list = sync::lock(&node.programs).clone();
    list.map(|list| list()).unwrap_or_default()
}

fn counters(node: &Inner) -> BTreeMap<Cow<'static, str>, u64> {
    let datapath = &node.driver.datapath;
    let mut counters: BTreeMap<_, _> = datapath.overlay_counters().into_iter().collect();
    counters.extend(datapath.counters().snapshot());
    counters.extend(datapath.stack().counters().snapshot());
    counters.extend(node.driver.sockets.stats.snapshot());
    counters.into_iter().map(|(name, value)| (name.into(), value)).collect()
}
