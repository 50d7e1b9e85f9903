//! The nicknames that this node claims: said again until they are answered, and after each registration.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{GRACE, NicknameError, repeat_after};
use crate::id::{Identity, Nickname, NodeId};
use crate::link::PeerKey;
use crate::wire::{ClaimRefusal, NicknameClaim, NicknameMessage};

/// Nicknames of one node.
const MOST: usize = 4;

/// For how long this node wants a nickname, in seconds: an hour in which it may be away.
const LIFETIME: u32 = 3600;

/// A claim is repeated so often; the next registration begins anew.
const MAX_TRIES: u32 = 6;

/// All claims of this node.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    list: BTreeMap<Nickname, Claim>,
    /// The last sequence that was used, at any root.
    sequence: u64,
}

#[derive(Debug)]
struct Claim {
    port: u16,
    at: BTreeMap<PeerKey, AtRoot>,
    /// When the first root answered, until this node has it.
    first_answer: Option<Instant>,
    /// This node has it, as far as its roots have said.
    is_ours: bool,
}

#[derive(Debug, Default)]
struct AtRoot {
    sequence: u64,
    tries: u32,
    /// When to say it again.
    next: Option<Instant>,
    /// The last answer.
    answer: Option<Result<(), ClaimRefusal>>,
}

impl Claims {
    /// This node wants a nickname from now on.
    pub(crate) fn want(&mut self, nickname: &Nickname, port: u16) -> Result<(), NicknameError> {
        if self.list.get(nickname).is_some_and(|claim| claim.port == port) {
            return Ok(());
        }
        if !self.list.contains_key(nickname) && self.list.len() >= MOST {
            return Err(NicknameError::TooMany);
        }
        let new = Claim { port, at: BTreeMap::new(), first_answer: None, is_ours: false };
        self.list.insert(nickname.clone(), new);
        Ok(())
    }

    /// What has come of it so far, at these roots; `None` if that is not known yet.
    ///
    /// It is this node's if at least one root has said so and none has said that it is another one's: who
    /// claims it wants it to mean the same everywhere. What a root says later changes nothing here, because
    /// one that is restarted, or lies, may have given it away.
    pub(crate) fn outcome(
        &mut self,
        nickname: &Nickname,
        roots: &[PeerKey],
        now: Instant,
    ) -> Option<Result<(), NicknameError>> {
        let claim = self.list.get_mut(nickname)?;
        if claim.is_ours {
            return Some(Ok(()));
        }
        let answers: Vec<_> = roots.iter().filter_map(|root| claim.at.get(root)?.answer).collect();
        if answers.contains(&Err(ClaimRefusal::Taken)) {
            return Some(Err(NicknameError::Taken));
        }
        let is_late = claim.first_answer.is_some_and(|at| now >= at + GRACE);
        if answers.is_empty() || answers.len() < roots.len() && !is_late {
            return None;
        }
        if answers.contains(&Ok(())) {
            claim.is_ours = true;
            return Some(Ok(()));
        }
        let is_full = answers.contains(&Err(ClaimRefusal::Full));
        Some(Err(if is_full { NicknameError::Full } else { NicknameError::Refused }))
    }

    /// This node does not want it any more. Gives the roots that may have it.
    pub(crate) fn release(&mut self, nickname: &Nickname) -> Vec<PeerKey> {
        let Some(claim) = self.list.remove(nickname) else { return Vec::new() };
        let may_have = |at: &AtRoot| at.sequence > 0 && !matches!(at.answer, Some(Err(_)));
        claim.at.into_iter().filter(|(_, at)| may_have(at)).map(|(root, _)| root).collect()
    }

    /// Makes what a root is told by whoever gives a nickname back.
    pub(crate) fn say_released(
        &mut self,
        nickname: &Nickname,
        node: &Identity,
        root: &NodeId,
        unix_time: Duration,
    ) -> NicknameMessage {
        let claim = NicknameClaim::sign(node, root, nickname, self.next_sequence(unix_time), 0, 0);
        NicknameMessage::Claim { nickname: nickname.clone(), claim }
    }

    /// What a root is to be told now, at which this node is registered.
    pub(crate) fn due(
        &mut self,
        key: PeerKey,
        node: &Identity,
        root: &NodeId,
        unix_time: Duration,
        now: Instant,
    ) -> Vec<NicknameMessage> {
        let mut sequence = self.next_sequence(unix_time);
        let mut messages = Vec::new();
        for (nickname, claim) in &mut self.list {
            let port = claim.port;
            let at = claim.at.entry(key).or_insert_with(|| AtRoot { next: Some(now), ..AtRoot::default() });
            if at.next.is_none_or(|next| now < next) {
                continue;
            }
            at.next = (at.tries + 1 < MAX_TRIES).then(|| now + repeat_after(at.tries));
            at.tries += 1;
            at.sequence = sequence;
            let claim = NicknameClaim::sign(node, root, nickname, sequence, LIFETIME, port);
            messages.push(NicknameMessage::Claim { nickname: nickname.clone(), claim });
            sequence += 1;
        }
        self.sequence = sequence - 1;
        messages
    }

    /// When a root is to be told something next. One that this node has claimed nothing at is told at once.
    pub(crate) fn next(&self, root: PeerKey, now: Instant) -> Option<Instant> {
        self.list.values().filter_map(|claim| claim.at.get(&root).map_or(Some(now), |at| at.next)).min()
    }

    /// A root answers to a claim. False if this was not the last one that it was told.
    pub(crate) fn answered(
        &mut self,
        root: PeerKey,
        sequence: u64,
        result: Result<u32, ClaimRefusal>,
        now: Instant,
    ) -> bool {
        let asked = |claim: &&mut Claim| claim.at.get(&root).is_some_and(|at| at.sequence == sequence);
        let Some(claim) = self.list.values_mut().find(asked) else { return false };
        let Some(at) = claim.at.get_mut(&root).filter(|at| at.tries > 0) else { return false };
        (at.tries, at.next, at.answer) = (0, None, Some(result.map(|_| ())));
        claim.first_answer.get_or_insert(now);
        true
    }

    /// This node was registered at a root just now, perhaps again: the root is told everything again.
    pub(crate) fn registered(&mut self, root: PeerKey, now: Instant) {
        for at in self.list.values_mut().filter_map(|claim| claim.at.get_mut(&root)) {
            (at.tries, at.next) = (0, Some(now));
        }
    }

    /// A root is none of this node's any more.
    pub(crate) fn forget_root(&mut self, root: PeerKey) {
        for claim in self.list.values_mut() {
            claim.at.remove(&root);
        }
    }

    /// Whether it is claimed.
    pub(crate) fn has(&self, nickname: &Nickname) -> bool {
        self.list.contains_key(nickname)
    }

    /// The nicknames that are this node's.
    pub(crate) fn ours(&self) -> Vec<Nickname> {
        self.list.iter().filter(|(_, claim)| claim.is_ours).map(|(nickname, _)| nickname.clone()).collect()
    }

    fn next_sequence(&mut self, unix_time: Duration) -> u64 {
        let millis = u64::try_from(unix_time.as_millis()).unwrap_or(u64::MAX);
        self.sequence = millis.max(self.sequence.saturating_add(1));
        self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    const ROOTS: [PeerKey; 2] = [PeerKey(1), PeerKey(2)];
    const UNIX: Duration = Duration::from_secs(1_800_000_000);

    struct Run {
        claims: Claims,
        node: Identity,
    }

    impl Run {
        fn new() -> Self {
            Self { claims: Claims::default(), node: Identity::from_seed(&[1; 32]) }
        }

        fn tell(&mut self, root: PeerKey, now: Instant) -> Vec<u64> {
            let id = NodeId::from_bytes([9; 32]);
            let messages = self.claims.due(root, &self.node, &id, UNIX, now);
            let sequence = |message: &NicknameMessage| match message {
                NicknameMessage::Claim { claim, .. } => claim.sequence,
                other => panic!("{other:?}"),
            };
            messages.iter().map(sequence).collect()
        }
    }

    fn nickname(text: &str) -> Nickname {
        text.parse().expect("a nickname")
    }

    #[test]
    fn a_claim_is_repeated_until_it_is_answered_and_begins_anew_with_each_registration() {
        let (mut run, begin) = (Run::new(), instant());
        run.claims.want(&nickname("alice"), 1).unwrap();
        let (mut now, mut times, mut last) = (begin, Vec::new(), 0);
        while let Some(next) = run.claims.next(ROOTS[0], now) {
            now = next;
            let [sequence] = run.tell(ROOTS[0], now)[..] else { panic!("one message") };
            assert!(sequence > last, "each has a sequence of its own");
            (last, times) = (sequence, [times, vec![(now - begin).as_millis()]].concat());
        }
        assert_eq!(times, [0, 500, 1500, 3500, 7500, 15500]);
        run.claims.registered(ROOTS[0], now);
        let [sequence] = run.tell(ROOTS[0], now)[..] else { panic!("one message") };
        assert!(!run.claims.answered(ROOTS[0], last, Ok(3600), now), "that was said before");
        assert!(!run.claims.answered(ROOTS[1], sequence, Ok(3600), now), "this one was not asked");
        assert!(run.claims.answered(ROOTS[0], sequence, Ok(3600), now));
        assert!(!run.claims.answered(ROOTS[0], sequence, Ok(3600), now), "once");
        assert_eq!(run.claims.next(ROOTS[0], now), None);
    }

    #[test]
    fn it_is_ours_if_one_root_says_so_and_none_says_that_it_is_taken() {
        let (good, taken, full) = (Ok(3600), Err(ClaimRefusal::Taken), Err(ClaimRefusal::Full));
        for (answers, outcome) in [
            ([Some(good), Some(good)], Some(Ok(()))),
            ([Some(good), Some(full)], Some(Ok(()))),
            ([Some(good), Some(taken)], Some(Err(NicknameError::Taken))),
            ([None, Some(taken)], Some(Err(NicknameError::Taken))),
            ([Some(full), Some(Err(ClaimRefusal::Refused))], Some(Err(NicknameError::Full))),
            ([Some(good), None], None),
            ([None, None], None),
        ] {
            let (mut run, now, alice) = (Run::new(), instant(), nickname("alice"));
            run.claims.want(&alice, 1).unwrap();
            for (root, answer) in ROOTS.into_iter().zip(answers) {
                let [sequence] = run.tell(root, now)[..] else { panic!("one message") };
                answer.inspect(|answer| assert!(run.claims.answered(root, sequence, *answer, now)));
            }
            assert_eq!(run.claims.outcome(&alice, &ROOTS, now), outcome, "{answers:?}");
            if answers == [Some(good), None] {
                assert_eq!(run.claims.outcome(&alice, &ROOTS, now + GRACE), Some(Ok(())), "it is late");
            }
        }
    }

    #[test]
    fn their_number_is_bounded_and_who_may_have_one_is_told_that_it_is_released() {
        let (mut run, now) = (Run::new(), instant());
        for text in ["a", "b", "c", "d"] {
            run.claims.want(&nickname(text), 1).unwrap();
        }
        assert_eq!(run.claims.want(&nickname("e"), 1), Err(NicknameError::TooMany));
        assert_eq!(run.claims.want(&nickname("a"), 2), Ok(()), "it is known");
        let sequences = run.tell(ROOTS[0], now);
        assert_eq!(sequences.len(), 4);
        assert!(run.claims.answered(ROOTS[0], sequences[1], Err(ClaimRefusal::Taken), now));
        assert_eq!(run.claims.release(&nickname("a")), [ROOTS[0]]);
        assert_eq!(run.claims.release(&nickname("b")), [], "it is not ours there");
        assert_eq!(run.claims.release(&nickname("a")), []);
        run.claims.want(&nickname("e"), 1).unwrap();
    }
}
