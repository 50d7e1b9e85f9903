//! Metrics of the most important peers.

use peersock_primitives::prometheus::Text;

use super::{Column, add};
use crate::node::status::{PeerStatus, Status};

impl Status {
    pub(super) fn write_peers(&self, text: &mut Text, node: &str, most: usize) {
        let mut peers: Vec<_> = self.foremost_peers(most).into_iter().map(Named::new).collect();
        // Sorted, so that the order stays stable between two scrapes.
        peers.sort_by(|a, b| (&a.network, &a.id).cmp(&(&b.network, &b.id)));
        let mut info = text.gauge("peersock_peer_info", "The name of a peer, if the network gives it one.");
        for peer in &peers {
            let name = ("name", peer.status.name.as_deref().unwrap_or_default());
            let [node, network, id] = peer.labels(node);
            info.number(&[node, network, id, name], 1);
        }
        let mut path = text.gauge(
            "peersock_peer_path",
            "1 with the kind of the path in a label: direct, tcp (a direct TCP connection), turn (by a TURN \
             server), or root (relayed by the root whose ID is the label root).",
        );
        for peer in &peers {
            let Some(kind) = peer.status.path_kind() else { continue };
            let root = peer.status.root.map(|root| root.to_string()).unwrap_or_default();
            let [node, network, id] = peer.labels(node);
            path.number(&[node, network, id, ("path", kind), ("root", &root)], 1);
        }
        for Column { name, help, value } in PEER_GAUGES {
            let mut family = text.gauge(name, help);
            peers.iter().for_each(|peer| add(&mut family, &peer.labels(node), value(peer.status)));
        }
        for Column { name, help, value } in PEER_COUNTERS {
            let mut family = text.counter(name, help);
            peers.iter().for_each(|peer| add(&mut family, &peer.labels(node), value(peer.status)));
        }
    }
}

const PEER_GAUGES: [Column<PeerStatus>; 6] = [
    Column {
        name: "peersock_peer_connected",
        help: "Whether there is a session with the peer.",
        value: |peer| Some(peer.connected.into()),
    },
    Column {
        name: "peersock_peer_last_seen_seconds",
        help: "How long ago the peer last proved to be there.",
        value: |peer| Some(peer.last_seen_s?.into()),
    },
    Column {
        name: "peersock_peer_rtt_seconds",
        help: "The smoothed round-trip time of the path.",
        value: |peer| Some((peer.rtt_ms? / 1e3).into()),
    },
    Column {
        name: "peersock_peer_session_age_seconds",
        help: "The age of the session.",
        value: |peer| Some(peer.session_age_s?.into()),
    },
    Column {
        name: "peersock_peer_datagram_size_bytes",
        help: "The largest datagram known to pass on the path.",
        value: |peer| Some(peer.datagram_size?.into()),
    },
    // A gauge, because a late packet decreases it.
    Column {
        name: "peersock_peer_lost_packets",
        help: "Packets of the peer that have not come, or not yet, though later ones have.",
        value: |peer| Some(peer.total_traffic.lost_packets.into()),
    },
];

const PEER_COUNTERS: [Column<PeerStatus>; 4] = [
    Column {
        name: "peersock_peer_sent_packets_total",
        help: "Packets sent in all sessions with the peer since the node learned of it.",
        value: |peer| Some(peer.total_traffic.sent_packets.into()),
    },
    Column {
        name: "peersock_peer_sent_bytes_total",
        help: "Bytes of these packets.",
        value: |peer| Some(peer.total_traffic.sent_bytes.into()),
    },
    Column {
        name: "peersock_peer_received_packets_total",
        help: "Packets received in all sessions with the peer since the node learned of it.",
        value: |peer| Some(peer.total_traffic.received_packets.into()),
    },
    Column {
        name: "peersock_peer_received_bytes_total",
        help: "Bytes of these packets.",
        value: |peer| Some(peer.total_traffic.received_bytes.into()),
    },
];

/// Peer with the texts of its labels.
struct Named<'a> {
    network: String,
    id: String,
    status: &'a PeerStatus,
}

impl<'a> Named<'a> {
    fn new(status: &'a PeerStatus) -> Self {
        Named { network: status.network.to_string(), id: status.id.to_string(), status }
    }

    fn labels<'b>(&'b self, node: &'b str) -> [(&'static str, &'b str); 3] {
        [("node", node), ("network", &self.network), ("peer", &self.id)]
    }
}
