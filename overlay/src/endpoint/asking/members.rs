//! Look-ups of members at other members, while no controller answers.
//!
//! A member tells what others have shown it. The answer has the credentials that a controller has signed, so
//! a member that lies can only stay silent, or name a former holder of a name whose certificate still counts.

use std::time::Instant;

use rand::RngExt;

use super::super::Endpoint;
use super::super::peers::PeerState;
use crate::link::Reason;
use crate::membership::{Answer, Question};
use crate::network::{Membership, NetworkIndex};
use crate::wire::MembershipMessage;

/// Number of members that are asked each time.
const ASK_AT_ONCE: usize = 4;

/// Number of members that a look-up is put to in all. Most names that a program looks for are of the DNS.
const MAX_ASKED: usize = 16;

/// Number of members that this node has used and with which it begins a session, in order to ask them.
const MEET_USED: usize = 4;

impl Endpoint {
    /// Puts a look-up to members that have a session, of which each is asked once. If there is none, begins
    /// sessions with the members that were used last.
    pub(super) fn ask_members(&mut self, now: Instant, network: NetworkIndex, number: u32) {
        let Some(joined) = self.networks.get(&network) else { return };
        let Some(open) = joined.asking.open.get(&number) else { return };
        let Some(bytes) = open.question.clone() else { return };
        if !matches!(Question::parse(&bytes), Ok(Question::FindName(_) | Question::FindAddress(_))) {
            return;
        }
        let id = open.id;
        let deciding = joined.policy.membership().into_iter().flat_map(Membership::deciding);
        let deciding: Vec<_> = deciding.collect();
        let can_answer = |peer: &PeerState| {
            let (link, handle) = (&peer.link, &peer.link.handle);
            let is_controller = || deciding.contains(&handle.identity());
            handle.is_admitted() && link.has_confirmed_session() && !is_controller()
        };
        let connected = self.peers.of_network(network).filter(|(_, peer)| can_answer(peer));
        let connected: Vec<_> = connected.map(|(key, _)| key).collect();
        let is_alone = connected.is_empty();
        let mut fresh: Vec<_> = connected.into_iter().filter(|key| !open.members.contains(key)).collect();
        let room = ASK_AT_ONCE.min(MAX_ASKED.saturating_sub(open.members.len()));
        if fresh.len() > room {
            // Each time others, so that no member hides what others know.
            let first = self.core.rng.random_range(..fresh.len());
            fresh.rotate_left(first);
            fresh.truncate(room);
        }
        for &key in &fresh {
            self.tell(now, key, &MembershipMessage::Question { id, bytes: &bytes });
        }
        if let Some(open) = self.open_question(network, number) {
            open.members.extend(fresh);
        }
        if is_alone {
            self.meet_used_last(now, network);
        }
    }

    /// Begins sessions with the members that this node has used last.
    fn meet_used_last(&mut self, now: Instant, network: NetworkIndex) {
        let Some(membership) = self.membership(network) else { return };
        let last: Vec<_> = membership.used().rev().take(MEET_USED).map(|one| one.identity).collect();
        for identity in last {
            if let Some(key) = self.peer_to_ask(now, network, identity) {
                self.seek_peer(now, key, Reason::Traffic);
            }
        }
    }

    /// Returns this node's answer to the look-up of a member, if it knows one whose certificate counts.
    pub(super) fn known_member(
        &self,
        now: Instant,
        network: NetworkIndex,
        question: &Question,
    ) -> Option<Answer> {
        let joined = self.networks.get(&network)?;
        let membership = joined.policy.membership()?;
        let unix_time = self.core.clock.unix_time(now);
        let admission = membership.holder_of(question)?;
        membership.verdict(admission, unix_time).ok()?;
        let node = admission.holder();
        let identity = match *node == self.own_id {
            true => *self.core.identity.public(),
            false => *self.peers.get(*joined.by_node.get(node)?)?.link.handle.identity(),
        };
        // As in answers about programs: the asking node knows the network's keys.
        let credentials = Box::new(admission.credentials().with_successions(&[]));
        Some(Answer::Found { identity, credentials })
    }

    /// Handles another member's answer to a look-up. The certificate has to give its holder the name or
    /// address of the question; otherwise the question goes on.
    pub(super) fn on_members_answer(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        number: u32,
        answer: &Answer,
    ) {
        let Answer::Found { identity, credentials } = answer else { return };
        let (node, unix_time) = (identity.node_id(), self.core.clock.unix_time(now));
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let question = joined.asking.open.get(&number).and_then(|open| open.question.as_deref());
        let Some(Ok(question)) = question.map(Question::parse) else { return };
        let is_meant =
            question.is_about(credentials.certificate().grant()) && credentials.process().is_none();
        let Some(membership) = joined.policy.membership_mut().filter(|_| is_meant && node != self.own_id)
        else {
            return;
        };
        if let Err(refusal) = membership.note_found(&node, credentials, unix_time) {
            tracing::debug!(network = %joined.id, %refusal, "a member's answer does not count");
            return self.core.counters.credentials_refused.increment();
        }
        self.add_found(now, network, identity);
        self.end_question(now, network, number, false);
        self.arm_asking(now, network);
    }
}
