//! Questions of other nodes, and this node's answers.

use std::sync::Arc;
use std::time::Instant;

use super::super::Endpoint;
use crate::id::NodeId;
use crate::link::{Event, PeerKey};
use crate::membership::{Answer, MemberName, Question};
use crate::network::{Membership, NetworkIndex};
use crate::session::Peer;
use crate::wire::MembershipMessage;

impl Endpoint {
    /// Handles a question of a node: a look-up, or a request for credentials if this node is a controller.
    pub(in super::super) fn on_question(&mut self, now: Instant, key: PeerKey, id: u32, bytes: &[u8]) {
        let Some(peer) = self.peers.get(key) else { return };
        let handle = peer.link.handle.clone();
        let is_controller = self.membership(handle.network()).is_some_and(Membership::is_controller);
        let question = match Question::parse(bytes) {
            Ok(Question::Certify(_)) if !is_controller && !self.is_spare(handle.network()) => {
                return self.core.counters.control_unknown.increment();
            }
            Ok(question) => question,
            Err(_) => return self.core.counters.control_unknown.increment(),
        };
        // Members' look-ups show who is there, so only members get answers to them.
        let is_public = matches!(question, Question::Certify(_));
        if !self.may_judge(now, key) || !is_public && !handle.is_admitted() {
            return;
        }
        match question {
            // Each node that has a session with a program knows of it; no store does.
            Question::FindProgram(label, machine) => {
                let answer = self.program(handle.network(), &label, &machine);
                self.answer(now, &handle, id, &answer);
            }
            Question::Certify(_) if !is_controller => self.renew_for(now, &handle, id),
            question if is_controller => self.core.emit(Event::Asked(handle, id, Box::new(question))),
            // Silence says that this member knows nothing: only a controller knows that there is no member.
            question => {
                if let Some(answer) = self.known_member(now, handle.network(), &question) {
                    self.answer(now, &handle, id, &answer);
                }
            }
        }
    }

    /// Returns the answer to the question for a program.
    fn program(&self, network: NetworkIndex, label: &MemberName, machine: &MemberName) -> Answer {
        let found = self.networks.get(&network).and_then(|joined| {
            let is_connected = |node: &NodeId| self.is_node_connected(joined, node);
            let admission = joined.policy.membership()?.program(label, machine, is_connected)?;
            let peer = self.peers.get(*joined.by_node.get(admission.holder())?)?;
            // The asking node has met this node, and knows the network's keys. The largest answer would not
            // fit.
            let credentials = Box::new(admission.credentials().with_successions(&[]));
            Some(Answer::Found { identity: *peer.link.handle.identity(), credentials })
        });
        found.or_else(|| self.listed_program(network, label, machine)).unwrap_or(Answer::Absent)
    }

    /// Answers a question that [`Event::Asked`] has reported with this number.
    pub fn answer(&mut self, now: Instant, peer: &Arc<Peer>, id: u32, answer: &Answer) {
        if let Some(key) = self.key_of(peer) {
            let bytes = answer.to_bytes();
            self.tell(now, key, &MembershipMessage::Answer { id, bytes: &bytes });
        }
    }
}
