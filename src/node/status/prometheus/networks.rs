//! Metrics of the networks that a node has joined.

use peersock_primitives::prometheus::Text;

use super::{Column, add};
use crate::node::status::{NetworkStatus, Presence, Status};

impl Status {
    pub(super) fn write_networks(&self, text: &mut Text, node: &str) {
        let networks: Vec<_> =
            self.networks.iter().map(|network| (network.id.to_string(), network)).collect();
        let mut info =
            text.gauge("peersock_network_info", "The kind of a network, and the node's name in it.");
        for (id, network) in &networks {
            let name = network.name.as_deref().unwrap_or_default();
            let labels = [("node", node), ("network", id), ("kind", &network.kind), ("name", name)];
            info.number(&labels, 1);
        }
        let mut peers = text.gauge("peersock_network_peers", "Peers known in the network, by their state.");
        for (id, network) in &networks {
            let counts = [
                (Presence::Connected, network.connected),
                (Presence::Known, network.known),
                (Presence::Gone, network.gone),
            ];
            for (state, count) in counts {
                let state = state.to_string();
                peers.number(&[("node", node), ("network", id), ("state", &state)], count);
            }
        }
        // A gauge, because a late packet decreases it.
        let mut lost = text.gauge(
            "peersock_network_lost_packets",
            "Packets of all peers that have not come, or not yet, though later ones have.",
        );
        for (id, network) in &networks {
            lost.number(&[("node", node), ("network", id)], network.traffic.lost_packets);
        }
        let gauges: [Column<NetworkStatus>; 3] = [
            Column {
                name: "peersock_network_controller_heard_seconds",
                help: "How long ago a controller of the managed network has answered the node.",
                value: |network| Some(network.heard_s?.into()),
            },
            Column {
                name: "peersock_network_certificate_left_seconds",
                help: "How long the node's certificate in the managed network lasts.",
                value: |network| Some(network.certificate_left_s?.into()),
            },
            Column {
                name: "peersock_network_issuer_left_seconds",
                help: "How long the right lasts by which a controller has issued that certificate.",
                value: |network| Some(network.issuer_left_s?.into()),
            },
        ];
        for Column { name, help, value } in gauges {
            let mut family = text.gauge(name, help);
            for (id, network) in &networks {
                add(&mut family, &[("node", node), ("network", id)], value(network));
            }
        }
        let columns: [Column<NetworkStatus>; 5] = [
            Column {
                name: "peersock_network_peers_forgotten_total",
                help: "Peers forgotten since the network was joined.",
                value: |network| Some(network.forgotten.into()),
            },
            Column {
                name: "peersock_network_sent_packets_total",
                help: "Packets sent in sessions with all peers since the network was joined.",
                value: |network| Some(network.traffic.sent_packets.into()),
            },
            Column {
                name: "peersock_network_sent_bytes_total",
                help: "Bytes of these packets.",
                value: |network| Some(network.traffic.sent_bytes.into()),
            },
            Column {
                name: "peersock_network_received_packets_total",
                help: "Packets received in sessions with all peers since the network was joined.",
                value: |network| Some(network.traffic.received_packets.into()),
            },
            Column {
                name: "peersock_network_received_bytes_total",
                help: "Bytes of these packets.",
                value: |network| Some(network.traffic.received_bytes.into()),
            },
        ];
        for Column { name, help, value } in columns {
            let mut family = text.counter(name, help);
            for (id, network) in &networks {
                add(&mut family, &[("node", node), ("network", id)], value(network));
            }
        }
    }
}
