//! Repeated proof of a path while the peer is heard only elsewhere.
//!
//! A path that has answered one challenge is used from then on. A peer could leave it, go on sending from
//! elsewhere, and so direct its traffic to a victim at the path. Packets keep coming in, so nothing looks
//! like silence. The path then gets a new challenge. Its answer may come from anywhere, because it shows that
//! its sender receives at the path (RFC 9000, section 8.2.2). A peer whose path does not answer loses its
//! session, and the handshake shows where it receives.

use std::time::{Duration, Instant};

use super::{Context, Link, Reason};
use crate::session::Session;
use crate::wire::Control;

/// State while the peer is heard elsewhere and not at its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// Start of this state.
    since: Instant,
    question: Option<Question>,
}

/// Challenge that the path has to answer.
#[derive(Debug, Clone, Copy)]
struct Question {
    data: [u8; 8],
    first: Instant,
    last: Instant,
    times: u32,
}

/// Wait before the path is asked. A peer that moves is usually followed sooner. A path that has proved itself
/// is asked again after ten times as long.
const QUESTION_DELAY: Duration = Duration::from_secs(1);

/// Interval of repetition of the question.
const QUESTION_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum wait for the answer (the longest round trip allowed for a handshake, plus a margin), and the
/// number of questions sent before giving up.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
const MAX_QUESTIONS: u32 = 4;

impl Link {
    /// Handles a packet on `session` from elsewhere than the path, other than a challenge or an answer.
    pub(super) fn heard_off_path(&mut self, cx: &mut Context<'_>, session: &Session) {
        let (Some(path), Some(current), now) = (cx.reach.place(), self.current(), cx.now) else { return };
        // A packet on an older session may have been on its way while the path changed.
        if session.index() != current.index() {
            return;
        }
        let rtt = cx.reach.rtt().unwrap_or_default();
        let proof = self.proof.get_or_insert(Proof { since: now, question: None });
        if now < proof.since + QUESTION_DELAY.max(rtt * 3) {
            return;
        }
        let question = match &mut proof.question {
            Some(question) if now < question.last + QUESTION_INTERVAL.max(rtt) => return,
            Some(Question { first, times: MAX_QUESTIONS.., .. })
                if now >= *first + ANSWER_WITHIN.max(rtt * 6) =>
            {
                tracing::debug!(
                    peer = %self.handle.logged(), place = %path,
                    "the peer is heard only elsewhere, and does not receive at its path"
                );
                self.proof = None;
                cx.core.counters.paths_unproven.increment();
                // All of them, because the peer could go on with an older session.
                let all = self.take_all();
                self.drop_sessions(cx, all);
                return self.attempt(cx, Reason::Traffic);
            }
            Some(question) => question,
            None => {
                let Some(data) = cx.core.nonce() else { return };
                // The same data in all repetitions, so that a late answer to an earlier one counts.
                proof.question.insert(Question { data, first: now, last: now, times: 0 })
            }
        };
        (question.last, question.times) = (now, question.times + 1);
        let data = question.data;
        cx.core.counters.challenges_sent.increment();
        self.send_control(cx, &current, &path, Control::Challenge { data, here: false });
    }

    /// Returns true if `data` answers the path's challenge. The path then counts as proven for a while.
    pub(super) fn on_proof(&mut self, cx: &Context<'_>, data: [u8; 8]) -> bool {
        let is_answer =
            self.proof.is_some_and(|proof| proof.question.is_some_and(|asked| asked.data == data));
        if is_answer {
            // It receives there, so the next question can wait: one-way paths are rare, and each question
            // costs a packet.
            self.proof = Some(Proof { since: cx.now + 9 * QUESTION_DELAY, question: None });
        }
        is_answer
    }

    /// Resets the proof: the path has changed, or has just answered another challenge.
    pub(super) fn path_is_proven(&mut self) {
        self.proof = None;
    }
}
