//! Events of the node for one program.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peersock::overlay::{NetworkId, NodeId};
use peersock::{Event, Events, Node};

use super::host::Stay;
use super::program::Program;

/// Timeout of a wait, which the end of the events ends earlier.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Thread that passes the events of the members of a program's networks, until dropped.
pub(super) struct PassedEvents(Arc<Events>);

impl PassedEvents {
    pub(super) fn start(stay: &Stay<'_>) -> io::Result<PassedEvents> {
        let (node, program) = (stay.node().clone(), Arc::clone(&stay.program));
        let events = Arc::new(node.events());
        let theirs = Arc::clone(&events);
        thread::Builder::new().name("events".into()).spawn(move || pass(&node, &program, &theirs))?;
        Ok(PassedEvents(events))
    }
}

impl Drop for PassedEvents {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn pass(node: &Node, program: &Program, events: &Events) {
    let mut networks = networks_of_peers(node);
    while !events.is_over() {
        let Some(event) = events.next_timeout(TIMEOUT) else { continue };
        let Some(id) = peer(&event) else { continue };
        if matches!(event, Event::PeerFound { .. }) || !networks.contains_key(id) {
            networks = networks_of_peers(node);
        }
        let is_member = networks.get(id).is_some_and(|its| its.iter().any(|network| program.has(*network)));
        if is_member {
            program.pass(event);
        }
    }
}

/// Returns the networks of each peer. Who was lost may be in the last ones alone.
fn networks_of_peers(node: &Node) -> BTreeMap<NodeId, Vec<NetworkId>> {
    let mut networks = BTreeMap::<_, Vec<_>>::new();
    for peer in node.peers() {
        networks.entry(peer.id).or_default().push(peer.network);
    }
    networks
}

fn peer(event: &Event) -> Option<&NodeId> {
    match event {
        Event::PeerFound { id }
        | Event::PeerReachable { id, .. }
        | Event::PathChanged { id, .. }
        | Event::PeerLost { id }
        | Event::PeerUnreachable { id } => Some(id),
        _ => None,
    }
}
