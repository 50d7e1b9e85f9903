//! Look-ups of nodes: in the root's table, or else in the shared directory.

use std::collections::BTreeMap;
use std::time::Instant;

use peersock_overlay::NodeId;
use peersock_overlay::load::{Limiter, Rate, prefix_of};
use peersock_overlay::wire::{Entry, LookUpKey, NotFound, Referral, RootMessage, access_pass};
use subtle::ConstantTimeEq;

use crate::budget::{Budget, Nanos};
use crate::clients::Slot;
use crate::nicknames::take_one;
use crate::{Answer, QuestionId, Root};

/// Questions that the shared directory has not answered yet, in the order of their deadlines.
pub(crate) struct Questions {
    open: BTreeMap<QuestionId, Question>,
    next: u64,
    /// Number of open questions per source prefix, without zeros.
    of_prefix: BTreeMap<u64, u32>,
    asked: Limiter,
}

/// Question that the shared directory has not answered yet.
#[derive(Debug)]
pub(crate) struct Question {
    slot: Slot,
    /// Node that asked; the slot may belong to another node when the answer comes.
    asker: NodeId,
    prefix: u64,
    /// Asker's ID of the question.
    id: u32,
    key: LookUpKey,
    pub(crate) deadline: Nanos,
}

/// Limit of open questions.
const MAX_QUESTIONS: usize = 4096;
/// Limit of open questions of one source prefix.
const MAX_OF_PREFIX: u32 = 256;
/// Number of nodes written again at once, and the interval between batches: 25,600 nodes a second.
const RETOLD_AT_ONCE: usize = 256;
const RETELL_INTERVAL: Nanos = 10_000_000;

/// Seconds of an hour.
const HOUR: u64 = 3600;

/// Timeout of an answer.
const ANSWER_TIMEOUT: Nanos = 2_000_000_000;

impl Questions {
    /// Returns an empty list. `key` is random and kept secret.
    pub(crate) fn new(key: u64, now: Instant) -> Self {
        Self {
            open: BTreeMap::new(),
            next: 0,
            of_prefix: BTreeMap::new(),
            asked: Limiter::new(Rate::per_second(20_000, 20_000), Rate::per_second(200, 1000), key, now),
        }
    }

    /// Returns the first deadline.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        // All questions have the same patience, so the one with the lowest ID is due first.
        self.open.values().next().map(|question| question.deadline)
    }

    fn has_room(&self, prefix: u64) -> bool {
        let of_prefix = self.of_prefix.get(&prefix).copied().unwrap_or_default();
        self.open.len() < MAX_QUESTIONS && of_prefix < MAX_OF_PREFIX
    }

    fn insert(&mut self, id: QuestionId, question: Question) {
        *self.of_prefix.entry(question.prefix).or_default() += 1;
        self.open.insert(id, question);
    }

    fn remove(&mut self, id: QuestionId) -> Option<Question> {
        let question = self.open.remove(&id)?;
        take_one(&mut self.of_prefix, &question.prefix);
        Some(question)
    }

    fn take_expired(&mut self, at: Nanos) -> Option<Question> {
        let (id, _) = self.open.first_key_value().filter(|(_, question)| question.deadline <= at)?;
        self.remove(*id)
    }
}

impl Root {
    pub(crate) fn on_look_up(&mut self, now: Instant, slot: Slot, id: u32, key: LookUpKey) {
        let at = self.nanos(now);
        self.counters.look_ups.increment();
        if !self.may_look_up(slot, at) {
            return self.tell(slot, &RootMessage::Found { id, result: Err(NotFound::Limited) });
        }
        let client = self.clients.get(slot);
        let Some((asker, ip)) = client.and_then(|client| Some((client.id, client.path()?.ip()))) else {
            return;
        };
        let own = self.clients.by_key(&key).and_then(|found| self.clients.get(found)?.entry(at));
        if own.is_none() && self.directory.is_some() {
            // All roots share the directory, so no source prefix may use it up.
            if !self.questions.asked.take(ip, now) {
                self.counters.look_ups_limited.increment();
                return self.tell_found(slot, id, Err(NotFound::Limited));
            }
            let deadline = at + ANSWER_TIMEOUT;
            if self.ask(Question { slot, asker, prefix: prefix_of(ip), id, key, deadline }) {
                return;
            }
        }
        // Without a shared directory this root knows all nodes.
        let partial = if self.directory.is_some() { NotFound::Partial } else { NotFound::Unknown };
        self.tell_found(slot, id, own.ok_or(partial));
    }

    /// Returns true if a node may ask once more, for a node or for a nickname.
    pub(crate) fn may_look_up(&mut self, slot: Slot, at: Nanos) -> bool {
        let rate = self.config.limits.look_ups_per_second;
        let Some(client) = self.clients.get_mut(slot) else { return false };
        let may = Budget::new(rate, rate.saturating_mul(3)).take(&mut client.buckets.look_ups, 1, at);
        if !may {
            self.counters.look_ups_limited.increment();
        }
        may
    }

    /// Handles an answer of the shared directory. Ignores an answer that fits no open question; the question
    /// then stays open until its deadline.
    pub fn handle_answer(&mut self, now: Instant, question: QuestionId, answer: Answer) {
        let own = self.id;
        let fits = |open: &Question| match &answer {
            // A node of this root would be in its table, so such an answer is outdated.
            Answer::Found(referral) => open.fits(referral) && referral.root.identity.node_id() != own,
            Answer::Nobody | Answer::Unavailable => true,
        };
        if !self.questions.open.get(&question).is_some_and(fits) {
            return;
        }
        let Some(open) = self.questions.remove(question) else { return };
        match answer {
            Answer::Found(referral) => self.refer(now, &open, referral),
            Answer::Nobody => self.close_question(&open, Err(NotFound::Unknown)),
            Answer::Unavailable => self.close_question(&open, Err(NotFound::Partial)),
        }
    }

    /// Sends a referral to another root. A node registered here also gets a pass for that root.
    fn refer(&mut self, now: Instant, open: &Question, referral: Box<Referral>) {
        let Some(client) = self.clients.get(open.slot).filter(|client| client.id == open.asker) else {
            return;
        };
        // A node that is not registered has not shown the access token, so it gets no pass.
        let token = self.config.access.as_ref().filter(|_| client.registered.is_some());
        let (root, hour) = (referral.root.identity.node_id(), self.unix_seconds(now) / HOUR);
        let pass = token.map_or([0; 32], |token| access_pass(token, &open.asker, &root, hour));
        self.counters.look_ups_found.increment();
        self.counters.referrals.increment();
        self.tell(open.slot, &RootMessage::Referred { id: open.id, pass, referral });
    }

    /// Returns true if the text admits a node: it is the access token, or a pass that another root of the set
    /// derived from it.
    pub(crate) fn lets_in(&self, now: Instant, node: &NodeId, access: &[u8]) -> bool {
        let Some(token) = self.config.access.as_ref() else { return true };
        let hour = self.unix_seconds(now) / HOUR;
        // Three hours are tried, because the clocks of two roots differ and the pass takes time to arrive.
        let passes =
            [hour.saturating_sub(1), hour, hour + 1].map(|hour| access_pass(token, node, &self.id, hour));
        let of_token = token.as_slice().ct_eq(access);
        // Every pass is compared in constant time, so the timing does not reveal a partial match.
        bool::from(passes.iter().fold(of_token, |known, pass| known | pass.as_slice().ct_eq(access)))
    }

    /// Answers the questions whose deadline has passed.
    pub(crate) fn expire_questions(&mut self, now: Instant) {
        let at = self.nanos(now);
        while let Some(open) = self.questions.take_expired(at) {
            self.counters.look_ups_unanswered.increment();
            self.close_question(&open, Err(NotFound::Partial));
        }
    }

    /// Writes all registered nodes again, a bounded number at a time, because the directory is back and may
    /// have lost them.
    pub fn handle_directory_back(&mut self, now: Instant) {
        self.retelling = Some((0, self.nanos(now)));
        self.retell_some(now);
    }

    pub(crate) fn retell_some(&mut self, now: Instant) {
        let at = self.nanos(now);
        let (Some((mut from, due)), Some(directory)) = (self.retelling, &mut self.directory) else { return };
        if at < due {
            return;
        }
        for _ in 0..RETOLD_AT_ONCE {
            let Some((next, slot)) = self.clients.next_from(from) else {
                self.retelling = None;
                return;
            };
            from = next;
            if let Some((entry, lifetime)) = self.clients.get(slot).and_then(|client| client.entry_for(at)) {
                directory.registered(&entry, lifetime);
            }
        }
        self.retelling = Some((from, at + RETELL_INTERVAL));
    }

    fn ask(&mut self, question: Question) -> bool {
        let Some(directory) = &mut self.directory else { return false };
        let id = QuestionId(self.questions.next);
        if !self.questions.has_room(question.prefix) || !directory.ask(id, &question.key) {
            self.counters.look_ups_unanswered.increment();
            return false;
        }
        self.questions.next += 1;
        self.questions.insert(id, question);
        true
    }

    fn close_question(&mut self, open: &Question, result: Result<Entry, NotFound>) {
        // Another node may have the slot by now.
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
    fn fits(&self, referral: &Referral) -> bool {
        self.key.matches(&referral.identity.node_id())
    }
}
