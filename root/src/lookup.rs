//! Who and where a node is: from the root's own table, or else from the directory that it shares.

use std::time::Instant;

use peersock_overlay::NodeId;
use peersock_overlay::wire::{Entry, LookUpKey, NotFound, RootMessage};

use crate::budget::{Budget, Nanos};
use crate::clients::Slot;
use crate::{Answer, QuestionId, Root};

/// A question that the shared directory has not answered yet.
#[derive(Debug)]
pub(crate) struct Question {
    slot: Slot,
    /// Whoever has the slot when the answer comes must be who has asked.
    asker: NodeId,
    /// The asker's name for it.
    id: u32,
    key: LookUpKey,
    pub(crate) deadline: Nanos,
}

/// Questions that may be open at the same time.
const MAX_QUESTIONS: usize = 4096;
/// How long an answer is waited for.
const PATIENCE: Nanos = 2_000_000_000;

impl Root {
    pub(crate) fn on_look_up(&mut self, now: Instant, slot: Slot, id: u32, key: LookUpKey) {
        let at = self.nanos(now);
        let rate = self.config.limits.look_ups_per_second;
        let Some(client) = self.clients.get_mut(slot) else { return };
        self.counters.look_ups.increment();
        if !Budget::new(rate, rate.saturating_mul(3)).take(&mut client.buckets.look_ups, 1, at) {
            self.counters.look_ups_limited.increment();
            return self.tell(slot, &RootMessage::Found { id, result: Err(NotFound::Limited) });
        }
        let asker = client.id;
        let own = self.clients.by_key(&key).and_then(|found| self.clients.get(found)?.entry(at));
        if own.is_none() && self.ask(Question { slot, asker, id, key, deadline: at + PATIENCE }) {
            return;
        }
        // Without a shared directory this root knows all that there is.
        let partial = if self.directory.is_some() { NotFound::Partial } else { NotFound::Unknown };
        self.tell_found(slot, id, own.ok_or(partial));
    }

    /// Takes what the shared directory says. An answer to no open question, or that does not fit it, is
    /// ignored: the question stays open until its time is over.
    pub fn handle_answer(&mut self, question: QuestionId, answer: Answer) {
        let fits = |open: &Question| !matches!(answer, Answer::Found(entry) if !open.fits(&entry));
        if !self.questions.get(&question).is_some_and(fits) {
            return;
        }
        let Some(open) = self.questions.remove(&question) else { return };
        let result = match answer {
            Answer::Found(entry) => Ok(entry),
            Answer::Nobody => Err(NotFound::Unknown),
            Answer::Unavailable => Err(NotFound::Partial),
        };
        self.close_question(&open, result);
    }

    /// Answers the questions that have waited for too long. They are in the order of their deadlines.
    pub(crate) fn expire_questions(&mut self, now: Instant) {
        let at = self.nanos(now);
        while let Some(first) = self.questions.first_entry().filter(|first| first.get().deadline <= at) {
            let open = first.remove();
            self.counters.look_ups_unanswered.increment();
            self.close_question(&open, Err(NotFound::Partial));
        }
    }

    fn ask(&mut self, question: Question) -> bool {
        let Some(directory) = &mut self.directory else { return false };
        let id = QuestionId(self.next_question);
        if self.questions.len() >= MAX_QUESTIONS || !directory.ask(id, &question.key) {
            self.counters.look_ups_unanswered.increment();
            return false;
        }
        self.next_question += 1;
        self.questions.insert(id, question);
        true
    }

    fn close_question(&mut self, open: &Question, result: Result<Entry, NotFound>) {
        if self.clients.get(open.slot).is_some_and(|client| client.id == open.asker) {
            self.tell_found(open.slot, open.id, result);
        }
    }

    fn tell_found(&mut self, slot: Slot, id: u32, result: Result<Entry, NotFound>) {
        if result.is_ok() {
            self.counters.look_ups_found.increment();
        }
        self.tell(slot, &RootMessage::Found { id, result });
    }
}

impl Question {
    fn fits(&self, entry: &Entry) -> bool {
        self.key.matches(&entry.identity.node_id())
    }
}
