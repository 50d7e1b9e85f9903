//! The first question where the other node is, which travels in the response of a handshake by a root.
//!
//! Who answers such a handshake asks in the response already where the initiator is, and says where it is
//! itself. So the initiator's first packet on the session is the answer, and both send at the same moment
//! one round trip after the initiation has arrived, instead of two: what the programs write then mostly goes
//! straight. Nobody but the initiator can read the response, and that only with the network's key.
//!
//! No response is longer than its initiation, so an initiation by a root is made longer than it has to be.
//! A node that leaves no such room is not asked, and one that puts no question there asks and is asked in
//! the session.

use std::sync::Arc;
use std::time::Instant;

use super::{Context, Link};
use crate::network::NetworkIndex;
use crate::reach::Place;
use crate::session::Session;
use crate::wire::Candidates;

/// Room in an initiation that goes by a root, in bytes: the response then has enough for the vouchers of both
/// families and four addresses.
const ROOM: usize = 200;

/// The question in the response that has made a session.
#[derive(Debug)]
pub(super) enum Question {
    /// This node has asked with this ID.
    Ours(u32),
    /// The peer has asked.
    Theirs(Box<Candidates>),
}

impl Link {
    /// Bytes that an initiation to these places is longer than it has to be, so that the response can have a
    /// question.
    pub(super) fn room_for_question(&self, cx: &mut Context<'_>, targets: &[Place]) -> usize {
        let [only] = targets else { return 0 };
        // The path of a session that is only renewed is the best that was found.
        let renews = self.attempt.as_ref().is_some_and(|attempt| attempt.renews);
        let is_of_use = only.relay().is_some() && !renews && !cx.reach.is_direct();
        if is_of_use && cx.reach.spend(only, ROOM) { ROOM } else { 0 }
    }

    /// The question for a response that goes to `place` and has `room` bytes for it; `None` if it does not
    /// fit, or is not to be asked now.
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
        if contact.candidates().is_empty() {
            return None;
        }
        let id = u32::from_be_bytes(cx.core.random());
        let question = Candidates { of_tcp: false, is_question: true, id, round_trip: 0, contact, vouchers };
        // With fewer vouchers it would be a worse one than that in the session.
        (question.len() <= room).then_some(question)
    }

    /// Datagrams are relayed on this session from now on: goes on with the question that was in its response.
    /// False if there was none.
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

/// Whether a round begins at this very moment: the session is new, and its question was taken up.
fn has_just_begun(cx: &Context<'_>) -> bool {
    let began = cx.reach.known_punching().and_then(|punching| punching.began());
    began.is_some_and(|at: Instant| at == cx.now)
}
