//! The first question about the other node's addresses, which travels in the response of a relayed handshake.
//!
//! The responder asks for the initiator's addresses in its response, and gives its own. So the initiator's
//! first packet on the session is the answer. Both sides then start sending one round trip after the
//! initiation has arrived, instead of two, and most of the programs' first data already goes directly. Only
//! the initiator can read the response, and only with the network's key.
//!
//! A response is never longer than its initiation, so a relayed initiation is padded. A node that leaves no
//! such room is not asked in the response. If a response has no question, both sides ask in the session.

use std::sync::Arc;
use std::time::Instant;

use super::{Context, Link};
use crate::network::NetworkIndex;
use crate::reach::Place;
use crate::session::Session;
use crate::wire::Candidates;

/// Padding of a relayed initiation, in bytes: enough for the vouchers of both families and four addresses in
/// the response.
const RELAYED_PADDING_BYTES: usize = 200;

/// Question in the response that has made a session.
#[derive(Debug)]
pub(super) enum Question {
    /// Id of the question that this node has asked.
    Ours(u32),
    /// Question that the peer has asked.
    Theirs(Box<Candidates>),
}

impl Link {
    /// Returns the padding of an initiation to `targets`, in bytes, which leaves room for a question in the
    /// response.
    pub(super) fn room_for_question(&self, cx: &mut Context<'_>, targets: &[Place]) -> usize {
        let [only] = targets else { return 0 };
        // A renewed session keeps its path, which is already the best one found.
        let renews = self.attempt.as_ref().is_some_and(|attempt| attempt.renews);
        let is_of_use = only.relay().is_some() && !renews && !cx.reach.is_direct();
        if is_of_use && cx.reach.spend(only, RELAYED_PADDING_BYTES) { RELAYED_PADDING_BYTES } else { 0 }
    }

    /// Returns the question for a response to `place` with `room` bytes. Returns `None` if it does not fit or
    /// is not due.
    pub(super) fn question_in_response(
        &self,
        cx: &mut Context<'_>,
        place: &Place,
        room: usize,
    ) -> Option<Candidates> {
        let is_due = cx.reach.known_punching().is_none_or(|punching| punching.is_due(cx.now));
        let is_known = self.handle.network() != NetworkIndex::ROOTS;
        if place.relay().is_none() || cx.reach.is_direct() || !is_due || !is_known {
            return None;
        }
        let contact = cx.core.contact.contact().clone();
        let vouchers = cx.core.contact.vouchers(Candidates::MAX_VOUCHERS, Some(place.remote()));
        // The peer could try nothing, and the question would only lengthen the response.
        if contact.candidates().is_empty() {
            return None;
        }
        let id = u32::from_be_bytes(cx.core.random());
        let question = Candidates { of_tcp: false, is_question: true, id, round_trip: 0, contact, vouchers };
        // With fewer vouchers it would be worse than the question in the session.
        (question.len() <= room).then_some(question)
    }

    /// Continues with the question in the response of this session, on which datagrams are relayed from now
    /// on. Returns false if there was none.
    pub(super) fn begin_with_question(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) -> bool {
        let live = self.sessions.iter_mut().find(|live| Arc::ptr_eq(&live.session, session));
        match live.and_then(|live| live.question.take()) {
            Some(Question::Ours(id)) => {
                cx.reach.punching(cx.now).asked(id, session.established(), cx.now);
                self.step_punching(cx);
            }
            Some(Question::Theirs(question)) => self.on_candidates(cx, &question),
            None => return has_just_begun(cx),
        }
        true
    }
}

/// Returns true if a round begins at this moment: the session is new, and its question was used.
fn has_just_begun(cx: &Context<'_>) -> bool {
    let began = cx.reach.known_punching().and_then(|punching| punching.began());
    began.is_some_and(|at: Instant| at == cx.now)
}
