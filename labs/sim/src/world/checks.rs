use std::collections::BTreeSet;
use std::time::Duration;

use peersock_stack::Flow;

use super::{Violation, World};
use crate::{Node, Plan};

/// Promises of the nodes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time after the last fault within which each pair that can reach one another has a new connection.
    pub recovery: Duration,
    /// Maximum number of the whole world's events per second of virtual time.
    pub events_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { recovery: Duration::from_secs(15), events_per_second: 1_000_000 }
    }
}

/// Event counter that detects nodes that never rest.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: u64,
    events: u64,
}

impl World {
    /// Counts an event, and fails if one second of virtual time has too many.
    pub(super) fn check_pace(&mut self) -> Result<(), Violation> {
        let second = self.now.as_secs();
        if second != self.pace.second {
            self.pace = Pace { second, events: 0 };
        }
        self.pace.events += 1;
        if self.pace.events > self.limits.events_per_second {
            let limit = self.limits.events_per_second;
            return Err(Violation(format!(
                "more than {limit} events in the second after {second} s: a livelock"
            )));
        }
        Ok(())
    }

    /// Checks that the nodes' memory is bounded by the number of peers and connections.
    pub(super) fn check_memory(&self) -> Result<(), Violation> {
        for (number, machine) in self.machines.iter().enumerate() {
            let Some(node) = machine.node() else { continue };
            let datapath = node.datapath();
            let peers = datapath.peers();
            let different: BTreeSet<_> =
                peers.iter().map(|info| (info.peer.network(), info.peer.id())).collect();
            if different.len() != peers.len() {
                return Err(Violation(format!("node {number} knows a peer twice")));
            }
            let candidates = peers.iter().map(|info| info.candidates.len()).max().unwrap_or_default();
            let sessions = datapath.sessions().len();
            // Roots are peers too, though hidden ones.
            let most = (peers.len() + machine.config.roots.len()) * MAX_SESSIONS_PER_PEER;
            if candidates > MAX_CANDIDATES || sessions > most {
                return Err(Violation(format!(
                    "node {number} has {sessions} sessions and up to {candidates} candidates for {} peers",
                    peers.len()
                )));
            }
            let flows = datapath.stack().flows();
            let known = self.ledger.connections_of(number);
            if flows > known * 2 {
                return Err(Violation(format!("node {number} has {flows} flows of {known} conversations")));
            }
        }
        Ok(())
    }

    /// Checks that each node's work is proportional to the bytes received, no matter who sent them.
    pub(super) fn check_work(&self) -> Result<(), Violation> {
        for (number, machine) in self.machines.iter().enumerate() {
            let Some((received, networks)) = machine.node().map(Node::burden) else { continue };
            let counters = self.counters(number);
            let moved: u64 = BYTES_MOVED.iter().map(|name| counters[name]).sum();
            if moved > received * (MAX_PASSES_PER_BYTE + networks) {
                return Err(Violation(format!(
                    "node {number} has gone over {moved} bytes for {received} that came, in {networks} networks"
                )));
            }
        }
        Ok(())
    }

    /// Checks that every undisturbed conversation has completed.
    /// Fails if a conversation has not completed.
    pub fn check_complete(&self) -> Result<(), Violation> {
        match self.ledger.pending().next() {
            None => Ok(()),
            Some((id, plan, begun)) => Err(Violation(format!(
                "conversation {id} of nodes {} and {} in {} port {}, begun at {begun:?}, is not complete at {:?}: {}",
                plan.client,
                plan.server,
                plan.network,
                plan.port,
                self.now,
                self.describe_conversation(id, plan)
            ))),
        }
    }

    fn describe_conversation(&self, id: u64, plan: &Plan) -> String {
        let nodes = [plan.client, plan.server].map(|number| self.machines[number].node());
        let ends: Vec<String> = nodes.into_iter().flatten().flat_map(|node| node.describe(id)).collect();
        let left: Vec<String> =
            nodes.into_iter().flatten().flat_map(Node::lingering).map(|flow| describe(&flow)).collect();
        let (asks, answers) = (&plan.scripts[0].0, &plan.scripts[1].0);
        format!("{}; closed: {}; scripts {asks:?} and {answers:?}", ends.join("; "), left.join("; "))
    }

    /// Checks that only connections whose other end crashed or left remain. Returns the number of nodes that
    /// must have none at all, and the number of running nodes.
    /// Fails if a node has more connections.
    pub fn check_nothing_left(&self) -> Result<(usize, usize), Violation> {
        let (mut idle, mut running) = (0, 0);
        for (number, machine) in self.machines.iter().enumerate() {
            let Some(node) = machine.node() else { continue };
            let may_stay = self.ledger.cut_off(number);
            running += 1;
            idle += usize::from(may_stay == 0);
            let (flows, programs) = (node.datapath().stack().flows(), node.conversations());
            if flows.max(programs) > may_stay {
                let lingering: Vec<String> = node.lingering().iter().map(|flow| describe(flow)).collect();
                return Err(Violation(format!(
                    "node {number} is left with {programs} programs and {flows} flows, of which {may_stay} are cut off: {}",
                    lingering.join(", ")
                )));
            }
        }
        Ok((idle, running))
    }
}

fn describe(flow: &Flow) -> String {
    let (state, local, remote) = (flow.state(), flow.local(), flow.remote());
    format!(
        "{state} {local} to {remote}, {} bytes unacknowledged, {} unread",
        flow.unacked(),
        flow.readable()
    )
}

/// Maximum number of candidate places per peer.
const MAX_CANDIDATES: usize = 8;
/// Confirmed sessions, unconfirmed sessions, and initiations that wait for a response.
const MAX_SESSIONS_PER_PEER: usize = 4 + 4 + 8;
/// Counters of bytes hashed, decrypted or copied for messages that anyone may have sent.
const BYTES_MOVED: [&str; 3] = ["bytes_tried", "ip_bytes_reassembled", "tcp_bytes_reordered"];
/// Maximum number of passes over each byte. Handshake bytes are hashed twice and decrypted once, and
/// reordered bytes are copied up to four times. Hellos and beacons take one pass per network.
const MAX_PASSES_PER_BYTE: u64 = 4;
