//! Questions to the roots: who and where is this node?
//!
//! A look-up goes to all roots at which this node is registered, and is repeated while somebody waits for the
//! node: it may register a moment later. What the first root says is used at once; what others say makes more
//! ways to the same node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};
use crate::link::PeerKey;
use crate::network::NetworkIndex;
use crate::wire::LookUpKey;

/// Look-ups at a time; the one that was wanted longest ago makes room.
const MAX_LOOK_UPS: usize = 64;

/// Addresses of networks that wait for the same look-up.
const MAX_WAITING: usize = 8;

/// The waits between the rounds of one look-up; the last one counts for all further rounds.
const ROUNDS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// A look-up goes on so long after it was last wanted.
const WANTED_FOR: Duration = Duration::from_secs(10);

/// A root that has found a node is asked for it again no sooner than this.
const FOUND_FOR: Duration = Duration::from_secs(5);

/// Questions a second, of all look-ups, and how many at once.
const PER_SECOND: u32 = 20;
const BURST: u32 = 64;

#[derive(Debug)]
struct LookUp {
    id: u32,
    /// Who waits for an address.
    waiting: BTreeSet<(NetworkIndex, IpAddr)>,
    wanted: Instant,
    /// When the next round is due.
    next: Instant,
    round: usize,
    /// The roots that have found the node, and when.
    found: BTreeMap<PeerKey, Instant>,
    /// Those asked in this round that have not answered yet.
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
        Self { list: BTreeMap::new(), limit: Bucket::new(Rate::per_second(PER_SECOND, BURST), now) }
    }

    /// Somebody wants to know of a node, perhaps because of an address. `id` is random.
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

    /// The questions that are due, each with the roots that it goes to. `roots` are those that can be asked,
    /// and `may_ask` says whether one of them for that.
    pub(crate) fn due(
        &mut self,
        roots: &[PeerKey],
        now: Instant,
        may_ask: impl Fn(PeerKey, &LookUpKey) -> bool,
    ) -> Vec<(PeerKey, u32, LookUpKey)> {
        self.list.retain(|_, one| now < one.wanted + WANTED_FOR);
        let mut questions = Vec::new();
        for (&key, one) in self.list.iter_mut().filter(|(_, one)| now >= one.next) {
            one.next = now + ROUNDS[one.round.min(ROUNDS.len() - 1)];
            one.round += 1;
            for &root in roots {
                let knows = one.found.get(&root).is_some_and(|at| now < *at + FOUND_FOR);
                if !knows && may_ask(root, &key) && self.limit.take(now) {
                    one.open.insert(root);
                    questions.push((root, one.id, key));
                }
            }
        }
        questions
    }

    /// A root can be asked that could not be before, and knows nothing any more of what it said before: what
    /// is looked for, and `may` be asked there, is asked at once, and soon again. Who is looked for may have
    /// to come back there first.
    pub(crate) fn ask_at(
        &mut self,
        root: PeerKey,
        now: Instant,
        may: impl Fn(&LookUpKey) -> bool,
    ) -> Vec<(PeerKey, u32, LookUpKey)> {
        let mut questions = Vec::new();
        for (&key, one) in &mut self.list {
            one.found.remove(&root);
            if now < one.wanted + WANTED_FOR && may(&key) && self.limit.take(now) {
                (one.round, one.next) = (1, now + ROUNDS[0]);
                one.open.insert(root);
                questions.push((root, one.id, key));
            }
        }
        questions
    }

    /// When the next questions are due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.list.values().map(|one| one.next.min(one.wanted + WANTED_FOR)).min()
    }

    /// A root answers: what was asked, if it was asked there. Each question has one answer.
    pub(crate) fn take_open(&mut self, root: PeerKey, id: u32) -> Option<LookUpKey> {
        let (&key, one) = self.list.iter_mut().find(|(_, one)| one.id == id)?;
        one.open.remove(&root).then_some(key)
    }

    /// A root has found the node: tells who waits for it.
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

    /// What a root has found is not true any more: it may be asked again.
    pub(crate) fn forget_found(&mut self, root: PeerKey, key: &LookUpKey, now: Instant) {
        if let Some(one) = self.list.get_mut(key)
            && one.found.remove(&root).is_some_and(|at| now < at + FOUND_FOR)
        {
            (one.round, one.next) = (1, now + ROUNDS[0]);
        }
    }

    /// A root is none of this node's any more.
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
        // What it said was no use.
        look_ups.forget_found(ROOTS[0], &key(1), later);
        assert_eq!(look_ups.due(&ROOTS, later + Duration::from_millis(300), |_, _| true).len(), 2);
    }

    #[test]
    fn a_root_that_comes_later_is_asked_what_is_still_wanted() {
        let (mut look_ups, now) = (LookUps::new(instant()), instant());
        look_ups.want(key(1), None, 7, now);
        assert_eq!(look_ups.due(&[], now, |_, _| true), []);
        assert_eq!(look_ups.ask_at(ROOTS[0], now, |_| true), [(ROOTS[0], 7, key(1))]);
        assert_eq!(look_ups.ask_at(ROOTS[0], now + WANTED_FOR, |_| true), []);
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
        assert!(asked <= (BURST + 10 * PER_SECOND) as usize, "{asked}");
    }

    fn key(n: u16) -> LookUpKey {
        let [a, b] = n.to_be_bytes();
        LookUpKey::Prefix([a, b, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}
