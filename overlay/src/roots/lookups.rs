//! Look-ups at the roots: the identity and place of a node.
//!
//! A look-up goes to all roots at which this node is registered, and is repeated while a program waits for
//! the node, because that may register a moment later. The first root's answer is used at once; further
//! answers add ways to the same node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};
use crate::id::NodeId;
use crate::link::PeerKey;
use crate::network::NetworkIndex;
use crate::wire::LookUpKey;

/// Maximum number of concurrent look-ups; the one wanted longest ago makes room.
const MAX_LOOK_UPS: usize = 64;

/// Maximum number of network addresses that wait for the same look-up.
const MAX_WAITING: usize = 8;

/// Waits between the rounds of one look-up; the last applies to all further rounds.
const ROUND_WAITS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Time after the last demand for which a look-up continues.
const DEMAND_LIFETIME: Duration = Duration::from_secs(10);

/// Minimum time before a root that has found a node is asked for it again.
const FOUND_FOR: Duration = Duration::from_secs(5);

/// Rate of questions of all look-ups, and their burst.
const QUESTIONS_PER_SECOND: u32 = 20;
const QUESTION_BURST: u32 = 64;

#[derive(Debug)]
struct LookUp {
    id: u32,
    /// Addresses that a program waits for.
    waiting: BTreeSet<(NetworkIndex, IpAddr)>,
    wanted: Instant,
    /// Time of the next round.
    next: Instant,
    round: usize,
    /// Roots that have found the node, and when.
    found: BTreeMap<PeerKey, Instant>,
    /// Roots asked in this round that have not answered yet.
    open: BTreeSet<PeerKey>,
}

/// All look-ups.
#[derive(Debug)]
pub(crate) struct LookUps {
    list: BTreeMap<LookUpKey, LookUp>,
    limit: Bucket,
}

impl LookUps {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            list: BTreeMap::new(),
            limit: Bucket::new(Rate::per_second(QUESTIONS_PER_SECOND, QUESTION_BURST), now),
        }
    }

    /// Requests a look-up of a node, perhaps for an address in `waiting`. `id` is random.
    pub(crate) fn want(
        &mut self,
        key: LookUpKey,
        waiting: Option<(NetworkIndex, IpAddr)>,
        id: u32,
        now: Instant,
    ) {
        if !self.list.contains_key(&key) && self.list.len() >= MAX_LOOK_UPS {
            let oldest = self.list.iter().min_by_key(|(_, one)| one.wanted).map(|(&key, _)| key);
            oldest.and_then(|key| self.list.remove(&key));
        }
        let look_up = self.list.entry(key).or_insert_with(|| LookUp {
            id,
            waiting: BTreeSet::new(),
            wanted: now,
            next: now,
            round: 0,
            found: BTreeMap::new(),
            open: BTreeSet::new(),
        });
        look_up.wanted = now;
        if look_up.waiting.len() < MAX_WAITING {
            look_up.waiting.extend(waiting);
        }
    }

    /// Returns the due questions, each with the root that it goes to. `roots` lists the roots that can be
    /// asked, and `may_ask` returns true if a root may be asked for a node.
    pub(crate) fn due(
        &mut self,
        roots: &[PeerKey],
        now: Instant,
        may_ask: impl Fn(PeerKey, &LookUpKey) -> bool,
    ) -> Vec<(PeerKey, u32, LookUpKey)> {
        self.list.retain(|_, one| now < one.wanted + DEMAND_LIFETIME);
        let mut questions = Vec::new();
        for (&key, one) in self.list.iter_mut().filter(|(_, one)| now >= one.next) {
            one.next = now + ROUND_WAITS[one.round.min(ROUND_WAITS.len() - 1)];
            one.round += 1;
            for &root in roots {
                // A root that has answered is left alone for a while, because programs repeat their demand
                // with each packet.
                let knows = one.found.get(&root).is_some_and(|at| now < *at + FOUND_FOR);
                if !knows && may_ask(root, &key) && self.limit.take(now) {
                    one.open.insert(root);
                    questions.push((root, one.id, key));
                }
            }
        }
        questions
    }

    /// Returns the questions to a root that has become available and has lost its earlier knowledge. All
    /// wanted nodes that `may` be asked there are asked at once, and soon again.
    pub(crate) fn ask_at(
        &mut self,
        root: PeerKey,
        now: Instant,
        may: impl Fn(&LookUpKey) -> bool,
    ) -> Vec<(PeerKey, u32, LookUpKey)> {
        let mut questions = Vec::new();
        for (&key, one) in &mut self.list {
            one.found.remove(&root);
            if now < one.wanted + DEMAND_LIFETIME && may(&key) && self.limit.take(now) {
                (one.round, one.next) = (1, now + ROUND_WAITS[0]);
                one.open.insert(root);
                questions.push((root, one.id, key));
            }
        }
        questions
    }

    /// Returns when the next questions are due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.list.values().map(|one| one.next.min(one.wanted + DEMAND_LIFETIME)).min()
    }

    /// Returns what a root was asked under this id, if it still owes the answer. Each question has one
    /// answer.
    pub(crate) fn take_open(&mut self, root: PeerKey, id: u32) -> Option<LookUpKey> {
        let (&key, one) = self.list.iter_mut().find(|(_, one)| one.id == id)?;
        // Removed, so that a root cannot answer twice and so add places at any rate.
        one.open.remove(&root).then_some(key)
    }

    /// Records that a root has found the node, and returns the addresses that wait for it.
    pub(crate) fn found(
        &mut self,
        root: PeerKey,
        key: &LookUpKey,
        now: Instant,
    ) -> Vec<(NetworkIndex, IpAddr)> {
        let Some(one) = self.list.get_mut(key) else { return Vec::new() };
        one.found.insert(root, now);
        one.waiting.iter().copied().collect()
    }

    /// Forgets that a root has found a node, because that is no longer true. The root may be asked again.
    pub(crate) fn forget_found(&mut self, root: PeerKey, key: &LookUpKey, now: Instant) {
        if let Some(one) = self.list.get_mut(key)
            && one.found.remove(&root).is_some_and(|at| now < at + FOUND_FOR)
        {
            (one.round, one.next) = (1, now + ROUND_WAITS[0]);
        }
    }

    /// Ends the look-ups of a node that is forgotten with all ways to it. A later use of the node asks anew.
    pub(crate) fn forget_node(&mut self, node: &NodeId) {
        self.list.retain(|key, _| !key.matches(node));
    }

    /// Forgets a root that this node no longer uses.
    pub(crate) fn forget_root(&mut self, root: PeerKey) {
        for one in self.list.values_mut() {
            one.found.remove(&root);
            one.open.remove(&root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    const ROOTS: [PeerKey; 2] = [PeerKey(1), PeerKey(2)];

    #[test]
    fn all_roots_are_asked_again_and_again_while_somebody_waits() {
        let (mut look_ups, begin) = (LookUps::new(instant()), instant());
        look_ups.want(key(1), None, 7, begin);
        let (mut now, mut rounds) = (begin, Vec::new());
        while let Some(next) = look_ups.next() {
            now = next.max(now);
            let due = look_ups.due(&ROOTS, now, |_, _| true);
            if !due.is_empty() {
                assert_eq!(due, ROOTS.map(|root| (root, 7, key(1))));
                rounds.push((now - begin).as_millis());
            }
        }
        assert_eq!(rounds, [0, 200, 500, 1000, 3000, 7000]);
    }

    #[test]
    fn a_root_that_has_found_it_is_left_alone_and_others_are_not() {
        let (mut look_ups, now) = (LookUps::new(instant()), instant());
        let waits = (NetworkIndex(0), IpAddr::from([1; 16]));
        look_ups.want(key(1), Some(waits), 7, now);
        look_ups.due(&ROOTS, now, |_, _| true);
        assert_eq!(look_ups.take_open(ROOTS[0], 8), None, "nobody asked that");
        assert_eq!(look_ups.take_open(ROOTS[0], 7), Some(key(1)));
        assert_eq!(look_ups.take_open(ROOTS[0], 7), None, "each question has one answer");
        assert_eq!(look_ups.found(ROOTS[0], &key(1), now), [waits]);
        let later = now + Duration::from_millis(300);
        assert_eq!(look_ups.due(&ROOTS, later, |_, _| true), [(ROOTS[1], 7, key(1))]);
        // The answer was useless.
        look_ups.forget_found(ROOTS[0], &key(1), later);
        assert_eq!(look_ups.due(&ROOTS, later + Duration::from_millis(300), |_, _| true).len(), 2);
    }

    #[test]
    fn a_root_that_comes_later_is_asked_what_is_still_wanted() {
        let (mut look_ups, now) = (LookUps::new(instant()), instant());
        look_ups.want(key(1), None, 7, now);
        assert_eq!(look_ups.due(&[], now, |_, _| true), []);
        assert_eq!(look_ups.ask_at(ROOTS[0], now, |_| true), [(ROOTS[0], 7, key(1))]);
        assert_eq!(look_ups.ask_at(ROOTS[0], now + DEMAND_LIFETIME, |_| true), []);
    }

    #[test]
    fn their_number_and_rate_are_bounded() {
        let (mut look_ups, begin) = (LookUps::new(instant()), instant());
        let mut asked = 0;
        for step in 0..1000 {
            let now = begin + Duration::from_millis(10) * step;
            for n in 0..10 {
                look_ups.want(key((step * 10 + n) as u16), None, step * 10 + n, now);
            }
            asked += look_ups.due(&ROOTS, now, |_, _| true).len();
            assert!(look_ups.list.len() <= MAX_LOOK_UPS);
        }
        assert!(asked <= (QUESTION_BURST + 10 * QUESTIONS_PER_SECOND) as usize, "{asked}");
    }

    fn key(n: u16) -> LookUpKey {
        let [a, b] = n.to_be_bytes();
        LookUpKey::Prefix([a, b, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}
