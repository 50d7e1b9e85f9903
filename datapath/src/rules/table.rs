//! Flows that rules have allowed, of one peer. So a peer that opens many flows pushes out its own only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use peersock_primitives::sync;
use peersock_stack::PacketEnds;

/// Number of parts with a lock each, so that flows seldom wait for each other.
const PARTS: usize = 8;

/// Limit of flows in a part.
const MAX_FLOWS: usize = 1024;

/// Time without a packet after which a flow may be forgotten. A packet later begins another one.
const IDLE: Duration = Duration::from_secs(300);

/// Minimum interval of looks for idle flows in a full part.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Ends of a flow, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowEnds {
    pub(super) protocol: u8,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

impl FlowEnds {
    /// Returns the flow of a packet that comes to this node, or leaves it.
    pub(super) fn of(ends: &PacketEnds, is_incoming: bool) -> Self {
        let (source, destination) = ((ends.source, ends.ports.0), (ends.destination, ends.ports.1));
        let (local, remote) = if is_incoming { (destination, source) } else { (source, destination) };
        Self {
            protocol: ends.protocol,
            local: local.0,
            remote: remote.0,
            local_port: local.1,
            remote_port: remote.1,
        }
    }

    fn part(&self) -> usize {
        usize::from(self.local_port ^ self.remote_port) % PARTS
    }
}

/// What is known of an allowed flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// Generation of the rules and identities under which it was allowed.
    pub(super) generation: u64,
    /// True if this node has opened the flow.
    pub(super) is_ours: bool,
    pub(super) used: Instant,
}

#[derive(Debug, Default)]
struct Part {
    flows: BTreeMap<FlowEnds, Allowed>,
    looked: Option<Instant>,
}

/// Allowed flows of one peer.
#[derive(Debug, Default)]
pub(super) struct FlowTable([Mutex<Part>; PARTS]);

impl FlowTable {
    /// Returns what is known of a flow, and notes its use.
    pub(super) fn find(&self, now: Instant, flow: &FlowEnds) -> Option<Allowed> {
        let mut part = sync::lock(&self.0[flow.part()]);
        let known = part.flows.get_mut(flow)?;
        // An idle flow is over, whether or not its place was needed.
        if now.saturating_duration_since(known.used) >= IDLE {
            part.flows.remove(flow);
            return None;
        }
        known.used = known.used.max(now);
        Some(*known)
    }

    pub(super) fn put(&self, flow: FlowEnds, allowed: Allowed) {
        let mut part = sync::lock(&self.0[flow.part()]);
        let now = allowed.used;
        if part.flows.len() >= MAX_FLOWS && !part.flows.contains_key(&flow) {
            let may_look = part.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_INTERVAL);
            if may_look {
                part.looked = Some(now);
                part.flows.retain(|_, known| now.saturating_duration_since(known.used) < IDLE);
            }
            if part.flows.len() >= MAX_FLOWS {
                // Whichever it is, the flow belongs to the peer that opens too many.
                part.flows.pop_first();
            }
        }
        part.flows.insert(flow, allowed);
    }

    pub(super) fn remove(&self, flow: &FlowEnds) {
        sync::lock(&self.0[flow.part()]).flows.remove(flow);
    }

    /// Calls `see` with each flow that is not idle.
    pub(super) fn see(&self, now: Instant, mut see: impl FnMut(&FlowEnds, bool)) {
        for part in &self.0 {
            // Copied, because deciding about all takes a while.
            let flows = sync::lock(part).flows.clone();
            for (flow, known) in flows {
                if now.saturating_duration_since(known.used) < IDLE {
                    see(&flow, known.is_ours);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    fn flow(port: u16) -> FlowEnds {
        let ip = IpAddr::from([10, 7, 0, 1]);
        FlowEnds { protocol: 17, local: ip, remote: ip, local_port: 53, remote_port: port }
    }

    #[test]
    fn a_flow_is_known_until_it_is_idle_and_there_is_a_bound() {
        let (table, now) = (FlowTable::default(), instant());
        let allowed = |used| Allowed { generation: 1, is_ours: false, used };
        table.put(flow(1), allowed(now));
        assert!(table.find(now + IDLE / 2, &flow(1)).is_some());
        assert!(table.find(now + IDLE, &flow(1)).is_some(), "it was used meanwhile");
        assert!(table.find(now + 2 * IDLE, &flow(1)).is_none());
        for port in 0..=u16::MAX {
            table.put(flow(port), allowed(now));
        }
        let mut count = 0;
        table.see(now, |_, _| count += 1);
        assert_eq!(count, PARTS * MAX_FLOWS);
        table.put(flow(7), allowed(now + 2 * IDLE));
        count = 0;
        table.see(now + 2 * IDLE, |_, _| count += 1);
        assert_eq!(count, 1);
    }
}
