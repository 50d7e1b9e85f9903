//! Changes of rules and identities, and their effect on open flows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use peersock_overlay::membership::SignedRules;
use peersock_overlay::{NetworkIndex, Peer, PeerDescription, Route};
use peersock_rules::{Compiled, Decision, RuleSet};
use peersock_stack::Batch;

use super::table::FlowEnds;
use super::{Applied, tcp_ends};
use crate::Datapath;
use crate::networks::Known;
use crate::socket::PeerLink;
use peersock_primitives::sync;

/// Effect of new rules on the open flows of this node.
#[derive(Debug, Clone, Default)]
pub struct Effect {
    /// Number of open flows.
    pub flows: usize,
    /// Those that end.
    pub ended: Vec<EndedAt>,
}

/// Open flow that new rules end.
#[derive(Debug, Clone)]
pub struct EndedAt {
    /// Member at the other end, or the gateway in front of it.
    pub peer: Arc<PeerDescription>,
    /// Number of the IP protocol.
    pub protocol: u8,
    /// End at this node.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// True if this node has opened the flow.
    pub is_ours: bool,
    /// Decision of the new rules.
    pub decision: Decision,
}

impl Datapath {
    /// Takes over the rules of a network, and ends the open flows that they refuse.
    pub(crate) fn follow_rules(
        &self,
        now: Instant,
        index: NetworkIndex,
        signed: Option<&SignedRules>,
        batch: &mut Batch,
    ) {
        let Some(network) = self.known_by_network(index) else { return };
        let is_on = network.guard.set_rules(signed.map(Applied::new));
        // It stays set, because rules that come and go have their own switch.
        self.has_rules.fetch_or(is_on, Ordering::AcqRel);
        self.end_refused(now, &network, None, batch);
    }

    /// Takes over this node's own identity and addresses in a network.
    pub(crate) fn follow_own_identity(&self, now: Instant, index: NetworkIndex, batch: &mut Batch) {
        let Some(network) = self.known_by_network(index) else { return };
        let is_changed = {
            // Held until it is set, so that no other thread sets an earlier one after it.
            let endpoint = self.control();
            let Some(own) = endpoint.own_description(index) else { return };
            network.guard.set_own(own, endpoint.addresses(index))
        };
        if is_changed {
            self.end_refused(now, &network, None, batch);
        }
    }

    /// Judges the open flows of a peer again, whose identity may be another one.
    pub(crate) fn follow_identity(&self, now: Instant, peer: &Arc<Peer>, batch: &mut Batch) {
        let network = self.known_by_network(peer.network()).filter(|network| network.guard.is_on());
        let Some(network) = network else { return };
        PeerLink::of(peer).flows.renew();
        self.end_refused(now, &network, Some(peer), batch);
    }

    /// Ends the TCP connections that the rules refuse. Flows of other protocols, and connections of a
    /// device's host, end with their next packet.
    fn end_refused(&self, now: Instant, network: &Known, only: Option<&Arc<Peer>>, batch: &mut Batch) {
        if !network.guard.is_on() {
            return;
        }
        let is_refused = |flow: &peersock_stack::Flow, is_accepted: bool| {
            let Some(Route::Peer(peer)) = self.routes.get(network.index, flow.remote().ip()) else {
                return false;
            };
            // What is not known of a peer without an admission is judged with its next session.
            only.is_none_or(|only| Arc::ptr_eq(only, &peer))
                && peer.is_admitted()
                && !network.guard.decide(network.id, &peer, &tcp_ends(flow), !is_accepted).is_allowed()
        };
        self.stack.refuse_flows(now, network.interface, is_refused, batch);
    }

    /// Returns which open flows of this node some rules would end, by the encoding of the rules; `None` if it
    /// cannot be read.
    pub fn effect_of(&self, now: Instant, index: NetworkIndex, rules: &[u8]) -> Option<Effect> {
        let rules = RuleSet::decode(rules).ok()?;
        let network = self.known_by_network(index)?;
        let new = Applied { compiled: Compiled::new(rules), is_readable: true };
        // As of now for all flows, because an answer in between would count some twice.
        let own = sync::read(&network.guard.own).clone();
        let mut effect = Effect::default();
        let mut judge = |peer: &Peer, flow: &FlowEnds, is_ours: bool| {
            effect.flows += 1;
            let decision = new.decide(own.as_deref(), network.id, peer, flow, is_ours);
            if !decision.is_allowed() {
                effect.ended.push(EndedAt {
                    peer: peer.description(network.id),
                    protocol: flow.protocol,
                    local: SocketAddr::new(flow.local, flow.local_port),
                    remote: SocketAddr::new(flow.remote, flow.remote_port),
                    is_ours,
                    decision,
                });
            }
        };
        self.stack.see_flows(network.interface, |flow, is_accepted| {
            if let Some(Route::Peer(peer)) = self.routes.get(index, flow.remote().ip()) {
                judge(&peer, &tcp_ends(flow), !is_accepted);
            }
        });
        for peer in self.members.of(index).iter() {
            if let Some(table) = PeerLink::of(peer).flows.table.get() {
                table.see(now, |flow, is_ours| judge(peer, flow, is_ours));
            }
        }
        Some(effect)
    }

    /// Stops to enforce the rules at this end, as a member may that keeps to nothing. For tests of the other
    /// end.
    #[doc(hidden)]
    pub fn ignore_rules(&self, index: NetworkIndex) {
        if let Some(network) = self.known_by_network(index) {
            network.guard.set_rules(None);
        }
    }

    /// Returns true if the rules of a network have a form that this version cannot read, so that it refuses
    /// everything; `None` without rules.
    pub fn refuses_unreadable_rules(&self, index: NetworkIndex) -> Option<bool> {
        let network = self.known_by_network(index)?;
        network.guard.applied().map(|applied| !applied.is_readable)
    }
}
