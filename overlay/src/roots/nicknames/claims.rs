//! Nicknames that this node claims: repeated until answered, and again after each registration.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{FURTHER_ROOTS_WAIT, NicknameError, repeat_after};
use crate::id::{Identity, Nickname, NodeId};
use crate::link::PeerKey;
use crate::wire::{ClaimRefusal, NicknameClaim, NicknameMessage};

/// Maximum number of nicknames of one node.
const MAX_CLAIMS: usize = 4;

/// Requested lifetime of a nickname, in seconds: an hour in which the node may be absent.
const CLAIM_LIFETIME_SECONDS: u32 = 3600;

/// Lifetime in seconds below which a claim is renewed after half of it. Otherwise claims are renewed with
/// registrations, which are 200 s apart.
const RENEWED_WITHIN: u32 = 600;

/// Minimum lifetime of a nickname, in seconds.
const MIN_LIFETIME_SECONDS: u32 = 10;

/// Maximum number of times a claim is sent; the next registration starts again.
const MAX_TRIES: u32 = 6;

/// All claims of this node.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    list: BTreeMap<Nickname, Claim>,
    /// Last sequence used, at any root.
    sequence: u64,
}

#[derive(Debug)]
struct Claim {
    port: u16,
    at: BTreeMap<PeerKey, AtRoot>,
    /// Time when the first root answered.
    first_answer: Option<Instant>,
    /// Set once this node has the nickname, as far as its roots have said.
    is_ours: bool,
    /// Time when a root said that another node had it first. It is no longer claimed, and programs that wait
    /// for it are told.
    lost: Option<Instant>,
}

/// Meaning of an answer to a claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The answer does not match the last question.
    Unasked,
    /// The answer was recorded.
    Noted,
    /// Another node has the nickname: these roots have given it to this node and must be told.
    Lost(Nickname, Vec<PeerKey>),
    /// At this root another node has a nickname that is this node's.
    TakenOver(Nickname),
}

#[derive(Debug, Default)]
struct AtRoot {
    sequence: u64,
    tries: u32,
    /// Time of the next repetition.
    next: Option<Instant>,
    /// Last answer of the root.
    answer: Option<Result<(), ClaimRefusal>>,
}

impl Claim {
    /// Returns true if a root has given the nickname to this node, and none has said that it is another
    /// node's.
    fn is_granted(&self) -> bool {
        let answers = || self.at.values().filter_map(|at| at.answer);
        answers().any(|answer| answer.is_ok()) && !answers().any(|answer| answer == Err(ClaimRefusal::Taken))
    }
}

impl Claims {
    /// Begins to claim a nickname.
    pub(crate) fn want(&mut self, nickname: &Nickname, port: u16, now: Instant) -> Result<(), NicknameError> {
        // By then every waiting program has asked for the result.
        self.list.retain(|_, claim| claim.lost.is_none_or(|at| now < at + FURTHER_ROOTS_WAIT));
        if let Some(claim) = self.list.get_mut(nickname) {
            if claim.lost.is_none() && claim.port != port {
                claim.port = port;
                // The signature covers the port, so every root needs a new claim.
                claim.at.values_mut().for_each(|at| (at.tries, at.next) = (0, Some(now)));
            }
            return Ok(());
        }
        if self.list.values().filter(|claim| claim.lost.is_none()).count() >= MAX_CLAIMS {
            return Err(NicknameError::TooMany);
        }
        let new = Claim { port, at: BTreeMap::new(), first_answer: None, is_ours: false, lost: None };
        self.list.insert(nickname.clone(), new);
        Ok(())
    }

    /// Returns true if the nickname is claimed with that port.
    pub(crate) fn is_wanted(&self, nickname: &Nickname, port: u16) -> bool {
        self.list.get(nickname).is_some_and(|claim| claim.port == port)
    }

    /// Returns the outcome so far at these roots; `None` if unknown.
    pub(crate) fn outcome(
        &mut self,
        nickname: &Nickname,
        roots: &[PeerKey],
        now: Instant,
    ) -> Option<Result<(), NicknameError>> {
        let claim = self.list.get_mut(nickname)?;
        // Later answers change nothing, because a root that restarts, or lies, may have given it away.
        if claim.is_ours {
            return Some(Ok(()));
        }
        let answers: Vec<_> = roots.iter().filter_map(|root| claim.at.get(root)?.answer).collect();
        // One root's refusal is enough, because the nickname should mean the same everywhere.
        if answers.contains(&Err(ClaimRefusal::Taken)) {
            return Some(Err(NicknameError::Taken));
        }
        // A root that does not answer must not keep the program waiting.
        let is_late = claim.first_answer.is_some_and(|at| now >= at + FURTHER_ROOTS_WAIT);
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

    /// Stops claiming a nickname. Returns the roots that may have it.
    pub(crate) fn release(&mut self, nickname: &Nickname) -> Vec<PeerKey> {
        let Some(claim) = self.list.remove(nickname) else { return Vec::new() };
        // A root that has not answered may have granted the claim, so it gets the message too.
        let may_have = |at: &AtRoot| at.sequence > 0 && !matches!(at.answer, Some(Err(_)));
        claim.at.into_iter().filter(|(_, at)| may_have(at)).map(|(root, _)| root).collect()
    }

    /// Creates the message to a root that gives a nickname back.
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

    /// Returns the messages that are due to a root at which this node is registered.
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
        for (nickname, claim) in self.list.iter_mut().filter(|(_, claim)| claim.lost.is_none()) {
            // The outcome must settle even if no program waits for it any more.
            claim.is_ours |=
                claim.first_answer.is_some_and(|at| now >= at + FURTHER_ROOTS_WAIT) && claim.is_granted();
            let port = claim.port;
            let at = claim.at.entry(key).or_insert_with(|| AtRoot { next: Some(now), ..AtRoot::default() });
            if at.next.is_none_or(|next| now < next) {
                continue;
            }
            at.next = (at.tries + 1 < MAX_TRIES).then(|| now + repeat_after(at.tries));
            at.tries += 1;
            at.sequence = sequence;
            let claim = NicknameClaim::sign(node, root, nickname, sequence, CLAIM_LIFETIME_SECONDS, port);
            messages.push(NicknameMessage::Claim { nickname: nickname.clone(), claim });
            sequence += 1;
        }
        self.sequence = sequence - 1;
        messages
    }

    /// Returns when a message to a root is due. A root without any claim of this node gets one at once.
    pub(crate) fn next(&self, root: PeerKey, now: Instant) -> Option<Instant> {
        let wanted = self.list.values().filter(|claim| claim.lost.is_none());
        wanted.filter_map(|claim| claim.at.get(&root).map_or(Some(now), |at| at.next)).min()
    }

    /// Handles a root's answer to a claim.
    pub(crate) fn answered(
        &mut self,
        root: PeerKey,
        sequence: u64,
        result: Result<u32, ClaimRefusal>,
        now: Instant,
    ) -> Answered {
        let asked = |claim: &Claim| {
            claim
                .at
                .get(&root)
                .is_some_and(|at| at.sequence == sequence && (at.tries > 0 || claim.lost.is_some()))
        };
        let Some((nickname, claim)) = self.list.iter_mut().find(|(_, claim)| asked(claim)) else {
            return Answered::Unasked;
        };
        let Some(at) = claim.at.get_mut(&root) else { return Answered::Unasked };
        let before = at.answer.replace(result.map(|_| ()));
        // A claim with a lifetime shorter than the interval of registrations is renewed earlier.
        let lifetime = result.map_or(CLAIM_LIFETIME_SECONDS, |granted| granted).max(MIN_LIFETIME_SECONDS);
        let next = (lifetime < RENEWED_WITHIN).then(|| now + Duration::from_secs(lifetime.into()) / 2);
        (at.tries, at.next) = (0, next);
        claim.first_answer.get_or_insert(now);
        let is_taken = result == Err(ClaimRefusal::Taken);
        if claim.lost.is_some() {
            let here = result.is_ok().then_some(root).into_iter().collect();
            return Answered::Lost(nickname.clone(), here);
        }
        match is_taken {
            false => Answered::Noted,
            // Reported once, although each renewal gets this answer.
            true if claim.is_ours && before == Some(Err(ClaimRefusal::Taken)) => Answered::Noted,
            true if claim.is_ours => Answered::TakenOver(nickname.clone()),
            true => {
                claim.lost = Some(now);
                let granted = claim.at.iter().filter(|(_, at)| at.answer == Some(Ok(())));
                Answered::Lost(nickname.clone(), granted.map(|(root, _)| *root).collect())
            }
        }
    }

    /// Repeats all claims at a root at which this node has just registered, because the root may have been
    /// restarted.
    pub(crate) fn registered(&mut self, root: PeerKey, now: Instant) {
        for at in self.list.values_mut().filter_map(|claim| claim.at.get_mut(&root)) {
            (at.tries, at.next) = (0, Some(now));
        }
    }

    /// Forgets a root that this node no longer uses.
    pub(crate) fn forget_root(&mut self, root: PeerKey) {
        for claim in self.list.values_mut() {
            claim.at.remove(&root);
        }
    }

    /// Returns true if the nickname is claimed.
    pub(crate) fn has(&self, nickname: &Nickname) -> bool {
        self.list.contains_key(nickname)
    }

    /// Returns this node's nicknames.
    pub(crate) fn ours(&self) -> Vec<Nickname> {
        self.list.iter().filter(|(_, claim)| claim.is_ours).map(|(nickname, _)| nickname.clone()).collect()
    }

    fn next_sequence(&mut self, unix_time: Duration) -> u64 {
        let millis = u64::try_from(unix_time.as_millis()).unwrap_or(u64::MAX);
        // Sequences grow even if the clock is set back, because of several claims the largest counts.
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
        run.claims.want(&nickname("alice"), 1, begin).unwrap();
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
        let mut answered = |root, sequence| run.claims.answered(root, sequence, Ok(3600), now);
        assert_eq!(answered(ROOTS[0], last), Answered::Unasked, "that was said before");
        assert_eq!(answered(ROOTS[1], sequence), Answered::Unasked, "this one was not asked");
        assert_eq!(answered(ROOTS[0], sequence), Answered::Noted);
        assert_eq!(answered(ROOTS[0], sequence), Answered::Unasked, "once");
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
            run.claims.want(&alice, 1, now).unwrap();
            for (root, answer) in ROOTS.into_iter().zip(answers) {
                let [sequence] = run.tell(root, now)[..] else { panic!("one message") };
                if let Some(answer) = answer {
                    assert_ne!(run.claims.answered(root, sequence, answer, now), Answered::Unasked);
                }
            }
            assert_eq!(run.claims.outcome(&alice, &ROOTS, now), outcome, "{answers:?}");
            if answers == [Some(good), None] {
                assert_eq!(
                    run.claims.outcome(&alice, &ROOTS, now + FURTHER_ROOTS_WAIT),
                    Some(Ok(())),
                    "it is late"
                );
            }
        }
    }

    #[test]
    fn their_number_is_bounded_and_who_may_have_one_is_told_that_it_is_released() {
        let (mut run, now) = (Run::new(), instant());
        for text in ["a", "b", "c", "d"] {
            run.claims.want(&nickname(text), 1, now).unwrap();
        }
        assert_eq!(run.claims.want(&nickname("e"), 1, now), Err(NicknameError::TooMany));
        assert_eq!(run.claims.want(&nickname("a"), 2, now), Ok(()), "it is known");
        let sequences = run.tell(ROOTS[0], now);
        assert_eq!(sequences.len(), 4);
        let lost = run.claims.answered(ROOTS[0], sequences[1], Err(ClaimRefusal::Taken), now);
        assert_eq!(lost, Answered::Lost(nickname("b"), Vec::new()));
        assert_eq!(run.claims.release(&nickname("a")), [ROOTS[0]]);
        assert_eq!(run.claims.release(&nickname("b")), [], "it is not ours there");
        assert_eq!(run.claims.release(&nickname("a")), []);
        run.claims.want(&nickname("e"), 1, now).unwrap();
    }

    // Holds even though no program waits for it any more.
    #[test]
    fn what_another_node_had_first_is_given_back_and_not_claimed_any_more() {
        let (mut run, now, alice) = (Run::new(), instant(), nickname("alice"));
        run.claims.want(&alice, 1, now).unwrap();
        let [first] = run.tell(ROOTS[0], now)[..] else { panic!("one message") };
        assert_eq!(run.claims.answered(ROOTS[0], first, Ok(3600), now), Answered::Noted);
        let [second] = run.tell(ROOTS[1], now)[..] else { panic!("one message") };
        let lost = run.claims.answered(ROOTS[1], second, Err(ClaimRefusal::Taken), now);
        assert_eq!(lost, Answered::Lost(alice.clone(), vec![ROOTS[0]]));
        run.claims.registered(ROOTS[0], now);
        assert_eq!((run.claims.next(ROOTS[0], now), run.tell(ROOTS[0], now)), (None, Vec::new()));
        assert_eq!(run.claims.outcome(&alice, &ROOTS, now), Some(Err(NicknameError::Taken)));
        // A lost nickname takes none of the four slots, and may be claimed again.
        for text in ["a", "b", "c", "d"] {
            run.claims.want(&nickname(text), 1, now).unwrap();
        }
        assert_eq!(run.tell(ROOTS[0], now).len(), 4);
        run.claims.release(&nickname("d"));
        run.claims.want(&alice, 1, now + FURTHER_ROOTS_WAIT).unwrap();
        assert_eq!(run.tell(ROOTS[0], now + FURTHER_ROOTS_WAIT).len(), 4, "the three others are repeated");
    }

    #[test]
    fn another_port_is_told_and_the_nickname_stays() {
        let (mut run, now, alice) = (Run::new(), instant(), nickname("alice"));
        run.claims.want(&alice, 1, now).unwrap();
        let [sequence] = run.tell(ROOTS[0], now)[..] else { panic!("one message") };
        assert_eq!(run.claims.answered(ROOTS[0], sequence, Ok(3600), now), Answered::Noted);
        assert_eq!(run.claims.outcome(&alice, &ROOTS[..1], now), Some(Ok(())));
        assert_eq!((run.claims.is_wanted(&alice, 1), run.claims.is_wanted(&alice, 2)), (true, false));
        run.claims.want(&alice, 2, now).unwrap();
        assert!(run.claims.is_wanted(&alice, 2));
        let [sequence] = run.tell(ROOTS[0], now)[..] else { panic!("the root is told") };
        // A restarted root has given it to another node: that changes nothing, and is reported once.
        let taken = Err(ClaimRefusal::Taken);
        let told = run.claims.answered(ROOTS[0], sequence, taken, now);
        assert_eq!(told, Answered::TakenOver(alice.clone()));
        run.claims.registered(ROOTS[0], now);
        let [sequence] = run.tell(ROOTS[0], now)[..] else { panic!("the root is told") };
        assert_eq!(run.claims.answered(ROOTS[0], sequence, taken, now), Answered::Noted);
        assert_eq!(run.claims.ours(), [alice]);
    }

    #[test]
    fn what_nobody_waits_for_any_more_becomes_ours_too_and_short_lives_are_renewed_in_time() {
        let (mut run, now, alice) = (Run::new(), instant(), nickname("alice"));
        run.claims.want(&alice, 1, now).unwrap();
        let [sequence] = run.tell(ROOTS[0], now)[..] else { panic!("one message") };
        assert_eq!(run.claims.answered(ROOTS[0], sequence, Ok(60), now), Answered::Noted);
        let next = run.claims.next(ROOTS[0], now);
        assert_eq!((next, run.claims.ours()), (Some(now + Duration::from_secs(30)), Vec::new()));
        assert_eq!(run.tell(ROOTS[0], now + Duration::from_secs(30)).len(), 1);
        assert_eq!(run.claims.ours(), [alice]);
    }
}
