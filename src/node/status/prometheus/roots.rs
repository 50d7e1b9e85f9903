//! Metrics of the roots that a node uses.

use peersock_primitives::prometheus::Text;

use super::{Column, add};
use crate::node::status::{RootStatus, Status};

impl Status {
    pub(super) fn write_roots(&self, text: &mut Text, node: &str) {
        let roots: Vec<_> = self.roots.iter().map(|root| (root.id.to_string(), root)).collect();
        let mut states = text.gauge(
            "peersock_node_root_state",
            "1 with the state of each root in a label: registered, or why the node cannot be found there.",
        );
        for (id, root) in &roots {
            states.number(&[("node", node), ("root", id), ("state", &root.state.to_string())], 1);
        }
        let columns: [Column<RootStatus>; 3] = [
            Column {
                name: "peersock_node_root_registered",
                help: "Whether the node can be found at the root.",
                value: |root| Some(root.registered_s.is_some().into()),
            },
            Column {
                name: "peersock_node_root_rtt_seconds",
                help: "The smoothed round-trip time to the root.",
                value: |root| Some((root.rtt_ms? / 1e3).into()),
            },
            Column {
                name: "peersock_node_root_relayed_peers",
                help: "Peers whose path leads through the root.",
                value: |root| Some(root.relayed_peers.into()),
            },
        ];
        for Column { name, help, value } in columns {
            let mut family = text.gauge(name, help);
            for (id, root) in &roots {
                add(&mut family, &[("node", node), ("root", id)], value(root));
            }
        }
    }
}
