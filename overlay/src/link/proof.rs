//! A path proves itself again while the peer is heard only elsewhere.
//!
//! A path that has answered a challenge once is used from then on, whatever is sent there. A peer that has
//! left it, goes on to send from elsewhere and answers nothing there could have all that is meant for it sent
//! to whoever is at the path now: packets keep coming in, so nothing looks like silence. So the path is asked
//! then, with a challenge of its own: its answer may come from anywhere, because it shows that who sends it
//! receives at the path (RFC 9000, section 8.2.2). A peer whose path does not answer loses its session, and
//! the handshake shows where it receives.

use std::time::{Duration, Instant};

use super::{Context, Link, Reason};
use crate::session::Session;
use crate::wire::Control;

/// The peer is heard elsewhere, and not at its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// Since when.
    since: Instant,
    question: Option<Question>,
}

/// The challenge that the path is to answer.
#[derive(Debug, Clone, Copy)]
struct Question {
    data: [u8; 8],
    first: Instant,
    last: Instant,
    times: u32,
}

/// A peer that moves is followed, as a rule, before its path is asked; and a path that has proved itself is
/// asked again after ten times as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// The path is asked again after so long.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// The answer is waited for so long at least, the longest round trip that a handshake is made for and some
/// more, and until the question was sent so many times.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
const TIMES: u32 = 4;

impl Link {
    /// A packet that is no challenge, nor the answer to one, came on `session` from elsewhere than the path.
    pub(super) fn heard_off_path(&mut self, cx: &mut Context<'_>, session: &Session) {
        let (Some(path), Some(current), now) = (cx.reach.place(), self.current(), cx.now) else { return };
        // What was sent on an older session may have been under way while the path changed.
        if session.index() != current.index() {
            return;
        }
        let rtt = cx.reach.rtt().unwrap_or_default();
        let proof = self.proof.get_or_insert(Proof { since: now, question: None });
        if now < proof.since + PATIENCE.max(rtt * 3) {
            return;
        }
        let question = match &mut proof.question {
            Some(question) if now < question.last + REPEAT_AFTER.max(rtt) => return,
            Some(Question { first, times: TIMES.., .. }) if now >= *first + ANSWER_WITHIN.max(rtt * 6) => {
                tracing::debug!(
                    peer = %self.handle.logged(), place = %path,
                    "the peer is heard only elsewhere, and does not receive at its path"
                );
                self.proof = None;
                cx.core.counters.paths_unproven.increment();
                let all = self.take_all();
                self.drop_sessions(cx, all);
                return self.attempt(cx, Reason::Traffic);
            }
            Some(question) => question,
            None => {
                let Some(data) = cx.core.nonce() else { return };
                proof.question.insert(Question { data, first: now, last: now, times: 0 })
            }
        };
        (question.last, question.times) = (now, question.times + 1);
        let data = question.data;
        cx.core.counters.challenges_sent.increment();
        self.send_control(cx, &current, &path, Control::Challenge { data, here: false });
    }

    /// Whether that is what the path was asked to repeat. Then it is good for a while.
    pub(super) fn on_proof(&mut self, cx: &Context<'_>, data: [u8; 8]) -> bool {
        let is_answer =
            self.proof.is_some_and(|proof| proof.question.is_some_and(|asked| asked.data == data));
        if is_answer {
            self.proof = Some(Proof { since: cx.now + 9 * PATIENCE, question: None });
        }
        is_answer
    }

    /// The path has changed, or has just answered another challenge.
    pub(super) fn path_is_proven(&mut self) {
        self.proof = None;
    }
}
