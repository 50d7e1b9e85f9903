//! Access rules of a managed network: how the statements of issuers spread from peer to peer.
//!
//! A node has the newest statement of each issuer. It tells its peers in short which it has: when both have
//! accepted each other, when a statement is new, again until they have shown that they know it, and each
//! minute. A node that learns of a newer one fetches it from that peer. The first part has the signed
//! beginning, and nothing more is asked for or kept until that was verified.

use std::time::{Duration, Instant};

use super::Endpoint;
use super::revocations::start_of;
use crate::id::NodeId;
use crate::link::{Event, PeerKey, Timer};
use crate::membership::{Refusal, RulesHead, RulesRank, SignedRules};
use crate::network::{MAX_CONTROLLERS, Membership, NetworkIndex};
use crate::wire::MembershipMessage;

/// Delay before peers that have not shown a statement are told of it again. It doubles with each repetition.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
const MAX_REPEATS: u32 = 8;

/// Number of parts that are asked for at a time.
const WINDOW: usize = 16;

/// Time after which missing parts are asked for again, and how often that happens without progress: seldom
/// for the first one, because any member can say that it has something.
const PART_TIMEOUT: Duration = Duration::from_millis(300);
const MAX_STALLS: u32 = 10;
const MAX_STALLS_OF_FIRST: u32 = 3;

/// Time in which a peer has to deliver a statement, which is 6.5 kB/s for the longest one.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which nothing is fetched from a peer that did not deliver. It doubles with each failure.
const REST: Duration = Duration::from_secs(5);
const MAX_REST_DOUBLINGS: u32 = 7;

/// Rules that a node fetches in a network, and its repeated word about its own.
#[derive(Debug, Default)]
pub(super) struct RulesSpread {
    pulls: Vec<Pull>,
    repeats: u32,
    repeat_at: Option<Instant>,
}

/// State of one peer.
#[derive(Debug, Default)]
pub(super) struct ShownRules {
    /// Newest statement that the peer has shown, and its instance then.
    knows: Option<(RulesRank, u64)>,
    rest_until: Option<Instant>,
    failures: u32,
}

impl ShownRules {
    /// Returns the version of the newest rules that an instance of the peer has shown.
    pub(super) fn known_version(&self, instance: u64) -> Option<u64> {
        self.knows.filter(|(_, by)| *by == instance).map(|(rank, _)| rank.version)
    }
}

/// Statement that is being fetched from a peer.
#[derive(Debug)]
struct Pull {
    from: PeerKey,
    issuer: [u8; 8],
    rank: RulesRank,
    /// One part until the signed beginning was verified, then all parts.
    parts: Vec<Option<Box<[u8]>>>,
    /// Length of the whole; 0 until the beginning was verified.
    length: usize,
    stalls: u32,
    next: Instant,
    since: Instant,
}

impl Pull {
    fn new(from: PeerKey, issuer: [u8; 8], rank: RulesRank, now: Instant) -> Self {
        let next = now + PART_TIMEOUT;
        Self { from, issuer, rank, parts: vec![None], length: 0, stalls: 0, next, since: now }
    }

    fn missing(&self) -> Vec<u32> {
        let missing = self.parts.iter().enumerate().filter(|(_, part)| part.is_none());
        missing.take(WINDOW).map(|(at, _)| (at * MembershipMessage::MAX_PART) as u32).collect()
    }

    fn is_over(&self, now: Instant) -> bool {
        let most = if self.length == 0 { MAX_STALLS_OF_FIRST } else { MAX_STALLS };
        self.stalls > most || now.saturating_duration_since(self.since) > DELIVERY_TIMEOUT
    }
}

impl Endpoint {
    /// Takes over access rules that this node's controller has signed, and tells all peers.
    ///
    /// # Errors
    /// Returns the reason if the statement is not one of this network, or does not count.
    pub fn set_rules(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        signed: SignedRules,
    ) -> Result<(), Refusal> {
        let unix_time = self.core.clock.unix_time(now);
        let Some(membership) = self.membership(network) else { return Ok(()) };
        // A controller that starts again shows the same statement, which is no news.
        if membership.wants_rules(signed.head(), unix_time)? {
            self.take_rules(now, network, None, signed);
        }
        Ok(())
    }

    /// Returns the networks in which other access rules count than at the last call, with the rules.
    pub fn take_rules_changes(&mut self) -> Vec<(NetworkIndex, Option<SignedRules>)> {
        let mut changed = Vec::new();
        for joined in self.networks.values_mut() {
            let index = joined.index;
            if let Some(membership) = joined.policy.membership_mut()
                && membership.take_rules_changed()
            {
                changed.push((index, membership.rules().cloned()));
            }
        }
        changed
    }

    /// Tells a peer in short which statements about rules this node has, again until it has shown them.
    pub(super) fn tell_rules(&mut self, now: Instant, key: PeerKey) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        // All of them, because an earlier one of another issuer counts once the newest one's is revoked.
        let known: Vec<_> = self.membership(network).into_iter().flat_map(Membership::all_rules).collect();
        let haves: Vec<_> =
            known.iter().map(|one| (start_of(&one.head().issuer()), one.head().rank())).collect();
        for (issuer, rank) in haves {
            self.tell(now, key, &MembershipMessage::HaveRules { issuer, rank });
        }
    }

    /// Begins to repeat this node's word to peers that have not shown the newest rules.
    pub(super) fn repeat_rules(&mut self, now: Instant, network: NetworkIndex) {
        let has_rules = self.membership(network).is_some_and(|known| known.rules().is_some());
        // One time for all peers, because a change concerns all of them at once.
        if let Some(joined) = self.networks.get_mut(&network).filter(|_| has_rules) {
            (joined.rules.repeats, joined.rules.repeat_at) = (0, Some(now + REPEAT_AFTER));
            self.core.timers.set_earlier(Timer::Rules(network), now + REPEAT_AFTER);
        }
    }

    pub(super) fn on_rules_timer(&mut self, now: Instant, network: NetworkIndex) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let late = |pull: &Pull| (pull.next <= now).then_some(pull.issuer);
        let late: Vec<_> = joined.rules.pulls.iter().filter_map(late).collect();
        let is_due = joined.rules.repeat_at.is_some_and(|at| at <= now);
        if is_due {
            joined.rules.repeats += 1;
            let pause = REPEAT_AFTER * 2_u32.pow(joined.rules.repeats);
            joined.rules.repeat_at = (joined.rules.repeats < MAX_REPEATS).then(|| now + pause);
        }
        for issuer in late {
            self.ask_for_rules(now, network, issuer, true);
        }
        if is_due {
            let newest = self.membership(network).and_then(Membership::rules).map(|one| one.head().rank());
            for key in self.members_in(network) {
                if !self.knows_rules(key, newest) {
                    self.tell_rules(now, key);
                }
            }
        }
        let Some(joined) = self.networks.get(&network) else { return };
        let pulls = joined.rules.pulls.iter().map(|pull| pull.next);
        if let Some(at) = pulls.chain(joined.rules.repeat_at).min() {
            self.core.timers.set(Timer::Rules(network), at.max(now));
        }
    }

    fn knows_rules(&self, key: PeerKey, newest: Option<RulesRank>) -> bool {
        let Some(peer) = self.peers.get(key) else { return true };
        let instance = peer.link.instance.unwrap_or_default();
        let knows = peer.shown.as_ref().and_then(|shown| shown.rules.knows);
        knows.filter(|(_, by)| *by == instance).map(|(rank, _)| rank) >= newest
    }

    /// Handles a peer's word about its newest statement of an issuer. The side with the newer one answers by
    /// its word, and the other one then fetches, so two nodes do not go on for ever.
    pub(super) fn on_have_rules(&mut self, now: Instant, key: PeerKey, issuer: [u8; 8], rank: RulesRank) {
        if !self.is_member(key) {
            return;
        }
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        self.note_rules_of(key, rank);
        let own = self.membership(network).and_then(|known| known.rules_by(issuer));
        let own = own.map_or(RulesRank::default(), |signed| signed.head().rank());
        if own > rank {
            // The answer may make the peer ask for much, so it has the budget of other judgements.
            if self.may_judge(now, key) {
                self.tell(now, key, &MembershipMessage::HaveRules { issuer, rank: own });
            }
            return;
        }
        if own == rank || self.rests_from_rules(now, key) || !self.may_judge(now, key) {
            return;
        }
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let pulls = &mut joined.rules.pulls;
        let is_full = pulls.len() >= MAX_CONTROLLERS;
        match pulls.iter_mut().find(|pull| pull.issuer == issuer) {
            // What it has offered before, it has no more. It gains no time by that.
            Some(pull) if pull.from == key && pull.rank < rank => {
                *pull = Pull { since: pull.since, ..Pull::new(key, issuer, rank, now) };
            }
            // Its present peer has its time; the others are asked when that is over.
            Some(_) => return,
            None if is_full => return,
            None => pulls.push(Pull::new(key, issuer, rank, now)),
        }
        self.ask_for_rules(now, network, issuer, false);
    }

    fn note_rules_of(&mut self, key: PeerKey, rank: RulesRank) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let instance = peer.link.instance.unwrap_or_default();
        if let Some(shown) = &mut peer.shown {
            let before = shown.rules.knows.filter(|(_, by)| *by == instance).map(|(rank, _)| rank);
            shown.rules.knows = Some((before.map_or(rank, |before| before.max(rank)), instance));
        }
    }

    fn rests_from_rules(&self, now: Instant, key: PeerKey) -> bool {
        let shown = self.peers.get(key).and_then(|peer| peer.shown.as_ref());
        shown.and_then(|shown| shown.rules.rest_until).is_some_and(|until| now < until)
    }

    /// Asks for the missing parts of an issuer's statement, unless its peer has had time enough.
    fn ask_for_rules(&mut self, now: Instant, network: NetworkIndex, issuer: [u8; 8], is_late: bool) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let Some(pull) = joined.rules.pulls.iter_mut().find(|pull| pull.issuer == issuer) else { return };
        pull.stalls += u32::from(is_late);
        pull.next = now + PART_TIMEOUT;
        let (from, digest, missing) = (pull.from, pull.rank.digest, pull.missing());
        let is_over = pull.is_over(now);
        if is_over || !self.is_member(from) {
            return self.give_up_rules(now, network, issuer);
        }
        for offset in missing {
            self.tell(now, from, &MembershipMessage::WantRules { issuer, digest, offset });
        }
        self.core.timers.set_earlier(Timer::Rules(network), now + PART_TIMEOUT);
    }

    /// Fetches nothing more from a peer that does not deliver, and asks the others.
    fn give_up_rules(&mut self, now: Instant, network: NetworkIndex, issuer: [u8; 8]) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let Some(at) = joined.rules.pulls.iter().position(|pull| pull.issuer == issuer) else { return };
        let failed = joined.rules.pulls.swap_remove(at);
        tracing::debug!("a peer does not deliver the rules that it has offered");
        if let Some(shown) = self.peers.get_mut(failed.from).and_then(|peer| peer.shown.as_mut()) {
            let doublings = shown.rules.failures.min(MAX_REST_DOUBLINGS);
            shown.rules.rest_until = Some(now + REST * 2_u32.pow(doublings));
            shown.rules.failures = shown.rules.failures.saturating_add(1);
        }
        let own = self.membership(network).and_then(|known| known.rules_by(issuer));
        let rank = own.map_or(RulesRank::default(), |signed| signed.head().rank());
        // A member that has a newer one answers by its word.
        for key in self.members_in(network).into_iter().filter(|key| *key != failed.from) {
            self.tell(now, key, &MembershipMessage::HaveRules { issuer, rank });
        }
    }

    /// Sends a part of a statement to a peer. Rules name members, so only members get them.
    pub(super) fn on_want_rules(
        &mut self,
        now: Instant,
        key: PeerKey,
        issuer: [u8; 8],
        digest: [u8; 16],
        offset: u32,
    ) {
        if !self.is_member(key) {
            return;
        }
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let known = self.membership(network).and_then(|known| known.rules_by(issuer));
        let meant = known.filter(|signed| signed.head().rank().digest == digest);
        let Some(bytes) = meant.map(|signed| signed.bytes().clone()) else { return };
        if let Some(part) = bytes.get(offset as usize..).filter(|part| !part.is_empty()) {
            let bytes = part[..part.len().min(MembershipMessage::MAX_PART)].to_vec();
            self.tell(now, key, &MembershipMessage::RulesPart { digest, offset, bytes: &bytes });
        }
    }

    /// Handles a part of a statement that is being fetched.
    pub(super) fn on_rules_part(
        &mut self,
        now: Instant,
        key: PeerKey,
        digest: [u8; 16],
        offset: u32,
        bytes: &[u8],
    ) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let unix_time = self.core.clock.unix_time(now);
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let (at, rest) =
            (offset as usize / MembershipMessage::MAX_PART, offset as usize % MembershipMessage::MAX_PART);
        let is_missing = |pull: &Pull| pull.parts.get(at).is_some_and(Option::is_none);
        let is_meant = |pull: &&mut Pull| pull.from == key && pull.rank.digest == digest && is_missing(pull);
        let Some(pull) = joined.rules.pulls.iter_mut().find(is_meant) else { return };
        // Parts that began elsewhere would overlap.
        if rest != 0 {
            return;
        }
        let issuer = pull.issuer;
        if pull.length == 0 {
            let head = RulesHead::parse_start(bytes).ok();
            let head = head.filter(|head| start_of(&head.issuer()) == issuer && head.rank() == pull.rank);
            let wants = |head: &RulesHead| {
                joined.policy.membership().is_some_and(|known| known.wants_rules(head, unix_time) == Ok(true))
            };
            let Some(head) = head.filter(wants) else {
                self.core.counters.credentials_refused.increment();
                return self.give_up_rules(now, network, issuer);
            };
            pull.length = RulesHead::LEN + head.rules_len();
            pull.parts = vec![None; pull.length.div_ceil(MembershipMessage::MAX_PART)];
        }
        let left = pull.length.saturating_sub(offset as usize);
        if bytes.len() != left.min(MembershipMessage::MAX_PART) {
            return;
        }
        pull.parts[at] = Some(bytes.into());
        pull.stalls = 0;
        pull.next = now + PART_TIMEOUT;
        // After the first one, which says how many follow, and then window by window.
        let have = pull.parts.iter().filter(|part| part.is_some()).count();
        if have == pull.parts.len() {
            let bytes: Vec<u8> = pull.parts.drain(..).flatten().flat_map(Vec::from).collect();
            self.finish_rules(now, network, key, issuer, bytes);
        } else if have == 1 || have.is_multiple_of(WINDOW) {
            self.ask_for_rules(now, network, issuer, false);
        }
    }

    fn finish_rules(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        key: PeerKey,
        issuer: [u8; 8],
        bytes: Vec<u8>,
    ) {
        let unix_time = self.core.clock.unix_time(now);
        // Judged again, because the issuer may have been revoked meanwhile.
        let signed = SignedRules::parse(bytes.into()).ok().filter(|signed| {
            let membership = self.membership(network);
            membership.is_some_and(|known| known.wants_rules(signed.head(), unix_time) == Ok(true))
        });
        let Some(signed) = signed else {
            self.core.counters.credentials_refused.increment();
            return self.give_up_rules(now, network, issuer);
        };
        if let Some(joined) = self.networks.get_mut(&network) {
            joined.rules.pulls.retain(|pull| pull.issuer != issuer);
        }
        if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) {
            (shown.rules.rest_until, shown.rules.failures) = (None, 0);
        }
        self.take_rules(now, network, Some(key), signed);
    }

    /// Takes over a statement that counts, and tells all peers, also the one it came from: people learn so
    /// whom new rules have reached.
    fn take_rules(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        from: Option<PeerKey>,
        signed: SignedRules,
    ) {
        let (issuer, rank): (NodeId, _) = (signed.head().issuer(), signed.head().rank());
        let Some(membership) = self.membership_mut(network) else { return };
        membership.take_rules(signed);
        tracing::info!("the network has other access rules");
        let peers = self.members_in(network);
        if let Some(handle) = from
            .or(peers.first().copied())
            .and_then(|key| self.peers.get(key))
            .map(|peer| peer.link.handle.clone())
        {
            self.core.emit(Event::RulesChanged(handle));
        }
        for key in peers {
            self.tell(now, key, &MembershipMessage::HaveRules { issuer: start_of(&issuer), rank });
        }
        self.repeat_rules(now, network);
    }
}
