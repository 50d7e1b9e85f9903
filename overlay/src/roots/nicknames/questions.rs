//! Nicknames that this node looks up at its roots.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{FURTHER_ROOTS_WAIT, NamedNode, NicknameError, repeat_after};
use crate::id::NicknameText;
use crate::link::PeerKey;
use crate::wire::{NicknameClaim, NicknameMessage, NicknameOwner};

/// Maximum number of concurrent questions; the one wanted longest ago makes room, unless a program waits for
/// it.
const MAX_QUESTIONS: usize = 32;

/// Time after the last demand after which a question is forgotten.
const DEMAND_LIFETIME: Duration = Duration::from_secs(10);

/// Time within which a waiting program asks again.
const WAITED_FOR: Duration = Duration::from_secs(1);

/// Maximum difference of two nodes' clocks in seconds: the owner's and the asker's.
const CLOCKS_DIFFER: u64 = 300;

/// All questions.
#[derive(Debug, Default)]
pub(crate) struct Questions(BTreeMap<NicknameText, Question>);

#[derive(Debug)]
struct Question {
    id: u32,
    wanted: Instant,
    at: BTreeMap<PeerKey, AtRoot>,
    first_answer: Option<Instant>,
}

#[derive(Debug)]
struct AtRoot {
    tries: u32,
    next: Instant,
    answer: Option<Option<NicknameOwner>>,
}

impl Questions {
    /// Requests the answer to a question. `id` is random.
    pub(crate) fn want(&mut self, text: &NicknameText, id: u32, now: Instant) {
        self.0.retain(|_, one| now < one.wanted + DEMAND_LIFETIME);
        if !self.0.contains_key(text) && self.0.len() >= MAX_QUESTIONS {
            let oldest = self.0.iter().min_by_key(|(_, one)| one.wanted);
            // A question that a program repeats all the time must not be pushed out, or the program would
            // wait for ever.
            let is_free = oldest.is_some_and(|(_, one)| now >= one.wanted + WAITED_FOR);
            let Some(text) = oldest.filter(|_| is_free).map(|(text, _)| text.clone()) else { return };
            self.0.remove(&text);
        }
        let new = || Question { id, wanted: now, at: BTreeMap::new(), first_answer: None };
        self.0.entry(text.clone()).or_insert_with(new).wanted = now;
    }

    /// Returns these roots' answer, if they have said enough; then the question is over.
    ///
    /// For a text that names the owner, one root that knows that node is enough. Otherwise all roots count,
    /// or those that answer in time, and all nodes they name must be the same.
    pub(crate) fn outcome(
        &mut self,
        text: &NicknameText,
        roots: &[PeerKey],
        now: Instant,
    ) -> Option<Result<NamedNode, NicknameError>> {
        let one = self.0.get(text)?;
        let answers: Vec<_> = roots.iter().filter_map(|root| one.at.get(root)?.answer).collect();
        // Of several claims of one node, the latest has the valid port.
        let mut owners: Vec<_> = answers.iter().flatten().collect();
        owners.sort_by_key(|owner| owner.claim.sequence);
        let is_late = one.first_answer.is_some_and(|at| now >= at + FURTHER_ROOTS_WAIT);
        let is_enough = text.node.is_some() && !owners.is_empty() || answers.len() >= roots.len() || is_late;
        if answers.is_empty() || !is_enough {
            return None;
        }
        let mut nodes: Vec<_> = owners.iter().map(|owner| owner.identity.node_id()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let outcome = match owners.last() {
            None => Err(NicknameError::NotFound),
            // One of the roots may lie, so a contradiction gives no answer.
            Some(_) if nodes.len() > 1 => Err(NicknameError::Ambiguous(nodes)),
            Some(owner) => Ok(NamedNode { identity: owner.identity, port: owner.claim.port }),
        };
        // The next demand asks again, because a nickname may pass to another node.
        self.0.remove(text);
        Some(outcome)
    }

    /// Returns the questions that are due to a root.
    pub(crate) fn due(&mut self, root: PeerKey, now: Instant) -> Vec<NicknameMessage> {
        self.0.retain(|_, one| now < one.wanted + DEMAND_LIFETIME);
        let mut messages = Vec::new();
        for (text, one) in &mut self.0 {
            let at = one.at.entry(root).or_insert(AtRoot { tries: 0, next: now, answer: None });
            if at.answer.is_none() && now >= at.next {
                at.next = now + repeat_after(at.tries);
                at.tries += 1;
                messages.push(NicknameMessage::Find { id: one.id, nickname: text.nickname.clone() });
            }
        }
        messages
    }

    /// Returns when a question to a root is due. A root that was not asked yet is asked at once.
    pub(crate) fn next(&self, root: PeerKey, now: Instant) -> Option<Instant> {
        let due = |one: &Question| match one.at.get(&root) {
            Some(at) => at.answer.is_none().then_some(at.next.min(one.wanted + DEMAND_LIFETIME)),
            None => Some(now),
        };
        self.0.values().filter_map(due).min()
    }

    /// Returns the question with this id that a root was asked and has not answered.
    pub(crate) fn asked(&self, root: PeerKey, id: u32) -> Option<&NicknameText> {
        let is_open =
            |one: &Question| one.at.get(&root).is_some_and(|at| at.tries > 0 && at.answer.is_none());
        self.0.iter().find(|(_, one)| one.id == id && is_open(one)).map(|(text, _)| text)
    }

    /// Records a root's answer: a node, or none.
    pub(crate) fn answered(
        &mut self,
        root: PeerKey,
        text: &NicknameText,
        owner: Option<NicknameOwner>,
        now: Instant,
    ) {
        let Some(one) = self.0.get_mut(text) else { return };
        let Some(at) = one.at.get_mut(&root) else { return };
        at.answer = Some(owner);
        one.first_answer.get_or_insert(now);
    }

    /// Forgets a root that this node no longer uses.
    pub(crate) fn forget_root(&mut self, root: PeerKey) {
        for one in self.0.values_mut() {
            one.at.remove(&root);
        }
    }
}

/// Returns true if a claim is still valid by this node's clock. A root may show a claim that its owner has
/// not renewed, or has given back.
pub(crate) fn is_current(claim: &NicknameClaim, unix_time: Duration) -> bool {
    let end = (claim.sequence / 1000).saturating_add(claim.lifetime.into()).saturating_add(CLOCKS_DIFFER);
    claim.lifetime > 0 && unix_time.as_secs() <= end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Identity, NodeId};
    use crate::testing::instant;

    const ROOTS: [PeerKey; 2] = [PeerKey(1), PeerKey(2)];
    const UNIX: u64 = 1_800_000_000;

    fn text(text: &str) -> NicknameText {
        text.parse().expect("a nickname's text")
    }

    fn owner(seed: u8, sequence: u64, port: u16) -> NicknameOwner {
        let (node, root) = (Identity::from_seed(&[seed; 32]), NodeId::from_bytes([9; 32]));
        let nickname = "alice".parse().expect("a nickname");
        let claim = NicknameClaim::sign(&node, &root, &nickname, sequence, 3600, port);
        NicknameOwner { identity: *node.public(), claim }
    }

    #[test]
    fn all_roots_must_name_the_same_node_unless_the_text_does() {
        let id = |seed| owner(seed, 1, 1).identity.node_id();
        let short = text("alice.peersock");
        let full = NicknameText::of(short.nickname.clone(), &id(1));
        let found = |seed, port| Ok(NamedNode { identity: owner(seed, 1, 1).identity, port });
        let mut both = vec![id(1), id(2)];
        both.sort_unstable();
        for (text, answers, outcome) in [
            (&short, [Some(Some(owner(1, 5, 7))), Some(Some(owner(1, 6, 8)))], Some(found(1, 8))),
            (&short, [Some(Some(owner(1, 5, 7))), Some(None)], Some(found(1, 7))),
            (&short, [Some(None), Some(None)], Some(Err(NicknameError::NotFound))),
            (&short, [Some(Some(owner(1, 5, 7))), None], None),
            (
                &short,
                [Some(Some(owner(1, 5, 7))), Some(Some(owner(2, 6, 8)))],
                Some(Err(NicknameError::Ambiguous(both))),
            ),
            (&full, [Some(Some(owner(1, 5, 7))), None], Some(found(1, 7))),
            (&full, [Some(None), None], None),
        ] {
            let (mut questions, now) = (Questions::default(), instant());
            questions.want(text, 7, now);
            for (root, answer) in ROOTS.into_iter().zip(answers) {
                assert_eq!(questions.due(root, now).len(), 1);
                if let Some(answer) = answer {
                    let asked = questions.asked(root, 7).cloned().expect("it was asked");
                    questions.answered(root, &asked, answer, now);
                    assert_eq!(questions.asked(root, 7), None, "each question has one answer");
                }
            }
            assert_eq!(questions.outcome(text, &ROOTS, now), outcome);
            if outcome.is_none() {
                assert!(
                    questions.outcome(text, &ROOTS, now + FURTHER_ROOTS_WAIT).is_some(),
                    "the other one is late"
                );
            }
            assert_eq!(
                questions.outcome(text, &ROOTS, now + FURTHER_ROOTS_WAIT),
                None,
                "the question is over"
            );
        }
    }

    #[test]
    fn a_question_is_repeated_while_somebody_waits_and_their_number_is_bounded() {
        let (mut questions, begin) = (Questions::default(), instant());
        let alice = text("alice.peersock");
        questions.want(&alice, 7, begin);
        let (mut now, mut times) = (begin, Vec::new());
        while let Some(next) = questions.next(ROOTS[0], now) {
            now = next;
            let asked = questions.due(ROOTS[0], now).len();
            times.extend(vec![(now - begin).as_millis(); asked]);
        }
        assert_eq!(times, [0, 500, 1500, 3500, 7500]);
        assert_eq!(questions.asked(ROOTS[0], 7), None, "it is forgotten");
        for n in 0..100 {
            questions.want(&text(&format!("n{n}.peersock")), n, now);
            assert!(questions.0.len() <= MAX_QUESTIONS);
        }
    }

    #[test]
    fn a_claim_that_was_not_renewed_does_not_count() {
        let claim = |seconds: u64| owner(1, seconds * 1000, 1).claim;
        let at = |seconds| Duration::from_secs(seconds);
        assert!(is_current(&claim(UNIX), at(UNIX)));
        assert!(is_current(&claim(UNIX), at(UNIX + 3600 + CLOCKS_DIFFER)));
        assert!(!is_current(&claim(UNIX), at(UNIX + 3601 + CLOCKS_DIFFER)));
        assert!(is_current(&claim(UNIX), at(0)), "a clock that was never set refuses nobody");
        assert!(!is_current(&NicknameClaim { lifetime: 0, ..claim(UNIX) }, at(UNIX)), "it was given back");
        assert!(is_current(&claim(u64::MAX / 1000), at(u64::MAX / 1000)));
    }
}
