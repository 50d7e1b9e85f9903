//! Revocations of a managed network: how they spread from peer to peer.
//!
//! A node has the newest head of each issuer. It shows its peers each one that has changed, again and again
//! until they show that they have it, and now and then tells them in short which it has. A node that learns
//! of a newer one asks that peer for the head and its whole set. It tells the peer when it has taken the head
//! over. A set takes effect at once: peers that it names lose their admission, and issuers that it names
//! their heads.
//!
//! Heads are compared with those of the same issuer only, and each is fetched apart from the others. So a
//! stolen key delays nothing that another issuer has signed, whatever epochs it signs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::id::NodeId;
use crate::link::{Event, PeerKey, Timer};
use crate::membership::{Head, Refusal, Revocations, pace};
use crate::network::{MAX_CONTROLLERS, Membership, NetworkIndex};
use crate::wire::MembershipMessage;

/// Interval at which peers hear in short which head this node has.
const HAVE_INTERVAL: Duration = pace::KEEP_INTERVAL;

/// Time after a join until the first word, and until a session with a controller is wanted.
const FIRST_HAVE: Duration = Duration::from_millis(500);

/// Delay before a head is shown again to a peer that has not shown it. It doubles with each repetition.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
const MAX_REPEAT_DOUBLINGS: u32 = 6;

/// Number of repetitions: in a minute. Then peers hear of it in short like of all heads.
const MAX_REPEATS: u32 = 9;

/// Number of parts of a set that are asked for at a time.
const WINDOW: usize = 16;

/// Time after which missing parts are asked for again, and how often that happens without progress.
const PART_TIMEOUT: Duration = Duration::from_millis(300);
const MAX_STALLS: u32 = 10;

/// The same if other peers have offered the set.
const MAX_STALLS_OF_MANY: u32 = 2;

/// Time in which a peer has to deliver a set if others have offered it too. It doubles with each change of
/// the peer, because all of them may be slow.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_DELIVERY_DOUBLINGS: u32 = 5;

/// Time for which no set of an issuer is fetched from a peer that did not deliver one. It doubles with each
/// failure.
const REST: Duration = Duration::from_secs(5);
const MAX_REST_DOUBLINGS: u32 = 7;

/// Returns the time in which a peer has to deliver a set after some others did not. The largest set comes in
/// the longest one at 5 kB/s, and no peer keeps a node from a set for longer.
fn delivery_timeout(changes: u32) -> Duration {
    DELIVERY_TIMEOUT * 2_u32.pow(changes.min(MAX_DELIVERY_DOUBLINGS))
}

/// Number of peers that are remembered because they have offered the set that is being fetched.
const MAX_OFFERS: usize = 16;

/// Time in which no set of an issuer is fetched from a peer.
#[derive(Debug)]
pub(super) struct Rest {
    until: Instant,
    failures: u32,
}

/// Heads of this node that a peer is to show, because it has been told of them.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    /// Their issuers.
    issuers: Vec<[u8; 8]>,
    repeats: u32,
    next: Option<Instant>,
}

impl Unconfirmed {
    fn add(&mut self, now: Instant, issuer: [u8; 8]) {
        if !self.issuers.contains(&issuer) {
            self.issuers.push(issuer);
        }
        (self.repeats, self.next) = (0, Some(now + REPEAT_AFTER));
    }

    fn remove(&mut self, issuer: [u8; 8]) {
        self.issuers.retain(|one| *one != issuer);
        if self.issuers.is_empty() {
            *self = Self::default();
        }
    }

    /// Returns the time of the next repetition.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Returns the issuers whose heads are to be shown again now.
    fn take_due(&mut self, now: Instant) -> Vec<[u8; 8]> {
        if self.next.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.repeats += 1;
        if self.repeats >= MAX_REPEATS {
            return std::mem::take(self).issuers;
        }
        self.next = Some(now + REPEAT_AFTER * 2_u32.pow(self.repeats.min(MAX_REPEAT_DOUBLINGS)));
        self.issuers.clone()
    }
}

/// Issuer in the word of a node that has no head.
const NO_ISSUER: [u8; 8] = [0; 8];

/// Returns the bytes that name an issuer in short. Only the network key makes issuers, so none takes the name
/// of another one.
pub(super) fn start_of(issuer: &NodeId) -> [u8; 8] {
    *issuer.as_bytes().first_chunk().expect("an ID has 32 bytes")
}

/// Set of revocations that is being fetched from a peer.
#[derive(Debug)]
pub(super) struct Pull {
    from: PeerKey,
    head: Head,
    parts: Vec<Option<Box<[u8]>>>,
    stalls: u32,
    next: Instant,
    since: Instant,
    /// Other peers that have offered the set.
    offers: Vec<PeerKey>,
    /// Number of peers that did not deliver it.
    changes: u32,
}

impl Pull {
    fn new(from: PeerKey, head: Head, now: Instant) -> Self {
        let parts = head.set_len().div_ceil(MembershipMessage::MAX_PART);
        Self {
            from,
            head,
            parts: vec![None; parts],
            stalls: 0,
            next: now + PART_TIMEOUT,
            since: now,
            offers: Vec::new(),
            changes: 0,
        }
    }

    /// Returns the offsets of the next parts that are missing.
    fn missing(&self) -> Vec<u32> {
        let missing = self.parts.iter().enumerate().filter(|(_, part)| part.is_none());
        missing.take(WINDOW).map(|(at, _)| (at * MembershipMessage::MAX_PART) as u32).collect()
    }
}

impl Endpoint {
    /// Takes over revocations that this node's controller has signed, and tells all peers.
    ///
    /// # Errors
    /// Returns the reason if the head is not one of this network, or is older than the known one.
    pub fn set_revocations(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        head: &Head,
        set: &Revocations,
    ) -> Result<(), Refusal> {
        let unix_time = self.core.clock.unix_time(now);
        let Some(membership) = self.membership(network) else { return Ok(()) };
        if membership.wants_set(head, unix_time)? {
            self.take_revocations(now, network, None, head, set.shared());
        }
        Ok(())
    }

    /// Schedules the next word about heads to all peers.
    pub(super) fn arm_heads(&mut self, now: Instant, network: NetworkIndex) {
        if self.membership(network).is_some() {
            let is_first = self.networks.get(&network).is_some_and(|joined| joined.have_at.is_none());
            let delay = if is_first { FIRST_HAVE } else { HAVE_INTERVAL };
            self.core.timers.set_earlier(Timer::Heads(network), now + delay);
        }
    }

    pub(super) fn on_heads_timer(&mut self, now: Instant, network: NetworkIndex) {
        let pulls = self.networks.get(&network).into_iter().flat_map(|joined| &joined.pulls);
        let late: Vec<NodeId> = pulls.filter(|(_, pull)| pull.next <= now).map(|(node, _)| *node).collect();
        for issuer in late {
            self.ask_for_parts(now, network, issuer, true);
        }
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let is_due = joined.have_at.is_none_or(|at| at <= now);
        if is_due {
            joined.have_at = Some(now + HAVE_INTERVAL);
        }
        let (have_at, pulls) = (joined.have_at, joined.pulls.values().map(|pull| pull.next));
        let next = have_at.into_iter().chain(pulls).min();
        if is_due {
            let unix_time = self.core.clock.unix_time(now);
            if let Some(membership) = self.membership_mut(network) {
                membership.forget_heads(Some(unix_time));
            }
            self.keep_controller(now, network);
            for key in self.members_in(network) {
                self.tell_all_haves(now, key);
            }
        }
        if let Some(at) = next {
            self.core.timers.set(Timer::Heads(network), at.max(now));
        }
    }

    pub(super) fn is_member(&self, key: PeerKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.link.handle.is_admitted())
    }

    /// Returns the admitted peers with a session.
    pub(super) fn members_in(&self, network: NetworkIndex) -> Vec<PeerKey> {
        self.peers_in(network).into_iter().filter(|key| self.is_member(*key)).collect()
    }

    /// Returns the issuers of this node's heads.
    fn issuers_of_heads(&self, network: NetworkIndex) -> Vec<[u8; 8]> {
        let heads = self.membership(network).into_iter().flat_map(Membership::heads);
        heads.map(|(head, _)| start_of(&head.issuer())).collect()
    }

    /// Tells a peer in short which heads this node has.
    fn tell_all_haves(&mut self, now: Instant, key: PeerKey) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let mut issuers = self.issuers_of_heads(network);
        if issuers.is_empty() {
            issuers.push(NO_ISSUER);
        }
        for issuer in issuers {
            self.tell_have(now, key, issuer);
        }
        self.tell_rules(now, key);
    }

    /// Tells an admitted peer with a new session in short which heads this node has. An outage may have led
    /// to the handshake, and what was told during that is lost.
    pub(super) fn tell_haves_again(&mut self, now: Instant, key: PeerKey) {
        let network = self.peers.get(key).map(|peer| peer.link.handle.network());
        if !network.is_some_and(|network| self.needs_credentials(network)) || !self.is_member(key) {
            return;
        }
        self.tell_all_haves(now, key);
        let shown = self.peers.get(key).and_then(|peer| peer.shown.as_ref());
        for issuer in shown.map(|shown| shown.unconfirmed.issuers.clone()).unwrap_or_default() {
            self.expect_head(now, key, issuer);
        }
    }

    /// Shows a head of an issuer to a peer, until the peer shows that it has it.
    fn spread_head(&mut self, now: Instant, key: PeerKey, issuer: [u8; 8]) {
        self.show_head(now, key, issuer);
        self.expect_head(now, key, issuer);
    }

    fn expect_head(&mut self, now: Instant, key: PeerKey, issuer: [u8; 8]) {
        if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) {
            shown.unconfirmed.add(now, issuer);
            self.arm_shown(key);
        }
    }

    /// Shows heads again to a peer that has not shown them.
    pub(super) fn repeat_heads(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let may_hear = peer.link.has_confirmed_session() && peer.link.handle.is_admitted();
        let Some(shown) = peer.shown.as_mut() else { return };
        if !may_hear {
            // Until the next session.
            shown.unconfirmed.next = None;
            return;
        }
        for issuer in shown.unconfirmed.take_due(now) {
            self.show_head(now, key, issuer);
        }
    }

    /// Shows the head of an issuer to a peer, if this node has one.
    fn show_head(&mut self, now: Instant, key: PeerKey, issuer: [u8; 8]) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let head = self.membership(network).and_then(|known| known.head_by(issuer));
        match head.map(Head::to_bytes) {
            Some(bytes) => self.tell(now, key, &MembershipMessage::Head(&bytes)),
            None => self.note_confirmed(key, issuer),
        }
    }

    /// Notes that a peer needs a head of an issuer no more.
    fn note_confirmed(&mut self, key: PeerKey, issuer: [u8; 8]) {
        if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) {
            shown.unconfirmed.remove(issuer);
            self.arm_shown(key);
        }
    }

    /// Tells a peer in short which head of an issuer this node has.
    fn tell_have(&mut self, now: Instant, key: PeerKey, issuer: [u8; 8]) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let head = self.membership(network).and_then(|known| known.head_by(issuer));
        let (epoch, digest) = head.map_or((0, [0; 8]), |head| (head.epoch(), head.digest()));
        self.tell(now, key, &MembershipMessage::Have { issuer, epoch, digest });
    }

    /// Asks a peer for all its heads.
    pub(super) fn ask_for_heads(&mut self, now: Instant, key: PeerKey) {
        self.tell_have(now, key, NO_ISSUER);
    }

    /// Shows all heads of this node to a peer, until the peer shows that it has them, or says that there is
    /// none.
    pub(super) fn tell_heads(&mut self, now: Instant, key: PeerKey) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let issuers = self.issuers_of_heads(network);
        if issuers.is_empty() {
            self.tell_have(now, key, NO_ISSUER);
        }
        for issuer in issuers {
            self.spread_head(now, key, issuer);
        }
    }

    /// Handles a peer's word about its newest head of an issuer.
    ///
    /// The side with the older one answers in short, and the other one then by its head, which gets no such
    /// answer. So two nodes that refuse each other's heads do not go on for ever.
    pub(super) fn on_have(
        &mut self,
        now: Instant,
        key: PeerKey,
        issuer: [u8; 8],
        epoch: u64,
        digest: [u8; 8],
    ) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        self.note_known(key, network, issuer, (epoch, digest));
        let Some(membership) = self.membership(network) else { return };
        let own = membership.head_by(issuer).map(|head| (head.epoch(), head.digest()));
        let shown = (epoch, digest);
        // Who has signed no head is no issuer.
        if own == Some(shown) {
            self.note_up_to_date(key, issuer);
        }
        let own = own.unwrap_or_default();
        if own <= shown {
            self.note_confirmed(key, issuer);
        }
        if issuer == NO_ISSUER {
            // Two nodes without a head have nothing to tell each other.
            if self.is_member(key) && self.may_judge(now, key) {
                for issuer in self.issuers_of_heads(network) {
                    self.show_head(now, key, issuer);
                }
            }
        } else if own < shown {
            // The peer sees that this node is behind, and shows its head.
            if self.may_judge(now, key) {
                self.tell_have(now, key, issuer);
            }
        } else if own > shown && self.is_member(key) && self.may_judge(now, key) {
            self.show_head(now, key, issuer);
        }
    }

    /// Handles a head that a peer shows: fetches its set if it is newer than the known one of its issuer,
    /// answers by that one if it is older, and in short if it is the same, because the peer repeats it until
    /// then. A newer head has no answer, so two nodes do not go on for ever.
    pub(super) fn on_head(&mut self, now: Instant, key: PeerKey, bytes: &[u8]) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let Ok(head) = Head::parse(bytes) else {
            return self.core.counters.control_unknown.increment();
        };
        let (issuer, unix_time) = (head.issuer(), self.core.clock.unix_time(now));
        let shown = (head.epoch(), head.digest());
        self.note_known(key, network, start_of(&issuer), shown);
        let Some(membership) = self.membership(network) else { return };
        let known = membership.head_by(start_of(&issuer)).map(|known| (known.epoch(), known.digest()));
        if known <= Some(shown) {
            self.note_confirmed(key, start_of(&issuer));
        }
        if known >= Some(shown) {
            // An issuer that shows an older one has lost the newer one, which counts all the same.
            self.note_up_to_date(key, start_of(&issuer));
            if self.is_member(key) && self.may_judge(now, key) {
                match known == Some(shown) {
                    true => self.tell_have(now, key, start_of(&issuer)),
                    false => self.show_head(now, key, start_of(&issuer)),
                }
            }
            return;
        }
        let Some(membership) = self.membership(network) else { return };
        // A stranger that offers a head and not its set would keep members from fetching it.
        if !membership.misses(&head)
            || !self.is_member(key)
            || self.rests(now, key, &issuer)
            || !self.may_judge(now, key)
        {
            return;
        }
        let same_set = self.membership(network).and_then(|known| known.set_of(&head));
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let is_known = |pull: &Pull| (pull.head.epoch(), pull.head.digest()) == (head.epoch(), head.digest());
        let is_full = joined.pulls.len() >= MAX_CONTROLLERS;
        // One set of an issuer at a time; a newer head replaces it.
        match joined.pulls.get_mut(&issuer) {
            Some(pull) if is_known(pull) => {
                let is_new = pull.from != key && !pull.offers.contains(&key);
                if is_new && pull.offers.len() < MAX_OFFERS {
                    pull.offers.push(key);
                }
                return;
            }
            Some(pull) if !pull.head.is_older_than(head.epoch(), head.digest()) => return,
            None if is_full => return,
            _ => {}
        }
        let wants = joined.policy.membership().map(|known| known.wants_set(&head, unix_time));
        match wants {
            Some(Ok(true)) => {
                if let Some(set) = same_set {
                    self.take_revocations(now, network, Some(key), &head, set);
                    return;
                }
                // A peer gains no time by another head while it owes the set of the last one.
                let owed = joined.pulls.remove(&issuer).filter(|pull| pull.from == key);
                let mut pull = Pull::new(key, head, now);
                if let Some(owed) = owed {
                    (pull.stalls, pull.since) = (owed.stalls, owed.since);
                }
                joined.pulls.insert(issuer, pull);
                self.ask_for_parts(now, network, issuer, false);
            }
            Some(Err(refusal)) => {
                tracing::debug!(%refusal, "a peer shows revocations that do not count");
                self.core.counters.credentials_refused.increment();
            }
            _ => {}
        }
    }

    /// Notes that this node has the head that an admitted peer shows as its newest one, if the peer is its
    /// issuer: who has joined has heard of all removals then.
    fn note_up_to_date(&mut self, key: PeerKey, issuer: [u8; 8]) {
        let Some(peer) = self.peers.get(key).map(|peer| peer.link.handle.clone()) else { return };
        // Another member may itself not have heard of the newest one.
        if issuer != start_of(peer.id()) || !self.is_member(key) {
            return;
        }
        // A spare removes no member.
        let membership = self.membership_mut(peer.network()).filter(|known| !known.is_spare(peer.id()));
        if membership.is_some_and(Membership::note_up_to_date) {
            self.core.emit(Event::RevocationsChanged(peer));
        }
    }

    /// Notes that a member has the newest head of this node, if that is the one that it shows. So people
    /// learn whom a removal has reached.
    fn note_known(
        &mut self,
        key: PeerKey,
        network: NetworkIndex,
        issuer: [u8; 8],
        (epoch, digest): (u64, [u8; 8]),
    ) {
        if issuer != start_of(&self.own_id) || !self.is_member(key) {
            return;
        }
        let newest = self.membership(network).and_then(|known| known.head_by(issuer));
        let is_newest = newest.is_some_and(|head| (head.epoch(), head.digest()) == (epoch, digest));
        let Some(peer) = self.peers.get_mut(key).filter(|_| is_newest) else { return };
        let instance = peer.link.instance.unwrap_or_default();
        if let Some(shown) = &mut peer.shown {
            shown.note_head(epoch, instance);
        }
    }

    /// Asks for the missing parts of an issuer's set, or takes it over if none is missing.
    fn ask_for_parts(&mut self, now: Instant, network: NetworkIndex, issuer: NodeId, is_late: bool) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let Some(pull) = joined.pulls.get_mut(&issuer) else { return };
        let missing = pull.missing();
        if missing.is_empty() {
            let set: Vec<u8> = pull.parts.drain(..).flatten().flat_map(Vec::from).collect();
            let Some(pull) = joined.pulls.remove(&issuer) else { return };
            return match self.take_revocations(now, network, Some(pull.from), &pull.head, set.into()) {
                true => self.note_delivery(now, pull.from, issuer, true),
                false => self.pull_elsewhere(now, network, pull),
            };
        }
        pull.stalls = if is_late { pull.stalls + 1 } else { pull.stalls };
        pull.next = now + PART_TIMEOUT;
        let (from, digest) = (pull.from, pull.head.digest());
        let is_over = match pull.offers.is_empty() {
            true => pull.stalls > MAX_STALLS,
            false => {
                let waited = now.saturating_duration_since(pull.since);
                pull.stalls > MAX_STALLS_OF_MANY || waited > delivery_timeout(pull.changes)
            }
        };
        if is_over || !self.peers.get(from).is_some_and(|peer| peer.link.handle.is_admitted()) {
            if let Some(pull) = joined.pulls.remove(&issuer) {
                self.pull_elsewhere(now, network, pull);
            }
            return;
        }
        // From one peer alone, because parts of different sets would not fit together.
        for offset in missing {
            self.tell(now, from, &MembershipMessage::Want { digest, offset });
        }
        self.core.timers.set_earlier(Timer::Heads(network), now + PART_TIMEOUT);
    }

    /// Fetches the set from another peer, since this one did not deliver it.
    fn pull_elsewhere(&mut self, now: Instant, network: NetworkIndex, mut failed: Pull) {
        tracing::debug!("a peer does not deliver the revocations that it has offered");
        let issuer = failed.head.issuer();
        self.note_delivery(now, failed.from, issuer, false);
        // Sessions may have ended since the offers came.
        failed
            .offers
            .retain(|&key| self.is_connected(key) && self.is_member(key) && !self.rests(now, key, &issuer));
        if failed.offers.is_empty() {
            // A member that has a newer head answers by showing it.
            for key in self.members_in(network).into_iter().filter(|key| *key != failed.from) {
                self.tell_have(now, key, start_of(&issuer));
            }
            return;
        }
        // From the beginning, because parts of two sets would not fit together.
        let mut pull = Pull::new(failed.offers.remove(0), failed.head, now);
        (pull.offers, pull.changes) = (failed.offers, failed.changes + 1);
        if let Some(joined) = self.networks.get_mut(&network) {
            joined.pulls.insert(issuer, pull);
        }
        self.ask_for_parts(now, network, issuer, false);
    }

    /// Returns true while no set of an issuer is fetched from a peer, because it did not deliver one. The
    /// peer can have sets of others: a thief's set that no peer can deliver must not keep a node from them.
    fn rests(&self, now: Instant, key: PeerKey, issuer: &NodeId) -> bool {
        let shown = self.peers.get(key).and_then(|peer| peer.shown.as_ref());
        shown.and_then(|shown| shown.rests.get(issuer)).is_some_and(|rest| now < rest.until)
    }

    fn note_delivery(&mut self, now: Instant, key: PeerKey, issuer: NodeId, has_delivered: bool) {
        let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) else { return };
        if has_delivered {
            shown.rests.remove(&issuer);
            return;
        }
        if shown.rests.len() >= MAX_CONTROLLERS && !shown.rests.contains_key(&issuer) {
            shown.rests.pop_first();
        }
        let rest = shown.rests.entry(issuer).or_insert(Rest { until: now, failures: 0 });
        rest.until = now + REST * 2_u32.pow(rest.failures.min(MAX_REST_DOUBLINGS));
        rest.failures = rest.failures.saturating_add(1);
    }

    /// Sends a part of a set to a peer.
    pub(super) fn on_want(&mut self, now: Instant, key: PeerKey, digest: [u8; 8], offset: u32) {
        // Sets name members, so only members get them.
        let Some(peer) = self.peers.get(key).filter(|peer| peer.link.handle.is_admitted()) else { return };
        let is_meant = |(head, _): &&(Head, Arc<[u8]>)| head.digest() == digest;
        let Some((_, set)) =
            self.membership(peer.link.handle.network()).and_then(|known| known.heads().find(is_meant))
        else {
            return;
        };
        let part = set.get(offset as usize..).filter(|part| !part.is_empty());
        if let Some(part) = part {
            let bytes = part[..part.len().min(MembershipMessage::MAX_PART)].to_vec();
            self.tell(now, key, &MembershipMessage::Part { digest, offset, bytes: &bytes });
        }
    }

    /// Handles a part of a set that is being fetched.
    pub(super) fn on_part(&mut self, now: Instant, key: PeerKey, digest: [u8; 8], offset: u32, bytes: &[u8]) {
        let Some(network) = self.peers.get(key).map(|peer| peer.link.handle.network()) else { return };
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let (at, rest) =
            (offset as usize / MembershipMessage::MAX_PART, offset as usize % MembershipMessage::MAX_PART);
        // Two issuers may have signed the same set.
        let is_missing = |pull: &Pull| pull.parts.get(at).is_some_and(Option::is_none);
        let is_meant = |pull: &Pull| pull.from == key && pull.head.digest() == digest && is_missing(pull);
        let Some((issuer, pull)) = joined.pulls.iter_mut().find(|(_, pull)| is_meant(pull)) else { return };
        let issuer = *issuer;
        let left = pull.head.set_len().saturating_sub(offset as usize);
        if rest != 0 || bytes.len() != left.min(MembershipMessage::MAX_PART) {
            return;
        }
        pull.parts[at] = Some(bytes.into());
        pull.stalls = 0;
        pull.next = now + PART_TIMEOUT;
        // With each part that came the next window begins, so that the sender is never asked for all at once.
        let have = pull.parts.iter().filter(|part| part.is_some()).count();
        if have == pull.parts.len() || have.is_multiple_of(WINDOW) {
            self.ask_for_parts(now, network, issuer, false);
        }
    }

    /// Takes over a set whose head counts, ends what it ends, and tells all peers but the one it came from.
    /// Returns false if it is not the head's set.
    fn take_revocations(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        from: Option<PeerKey>,
        head: &Head,
        set: Arc<[u8]>,
    ) -> bool {
        let unix_time = self.core.clock.unix_time(now);
        let Some(membership) = self.membership_mut(network) else { return false };
        let Some(expelled) = membership.take_head(head, set, unix_time) else {
            tracing::warn!("a peer's revocations are not those of its head");
            self.core.counters.credentials_refused.increment();
            return false;
        };
        for node in expelled {
            let key = self.networks.get(&network).and_then(|joined| joined.by_node.get(&node).copied());
            if let Some(key) = key {
                self.expel(now, key, Refusal::Revoked);
            }
        }
        if let Some(joined) = self.networks.get_mut(&network)
            && let Some(known) = joined.policy.membership()
        {
            // Other downloads end, because the set that has come may hold what they were begun for.
            joined.pulls.retain(|_, pull| known.misses(&pull.head));
        }
        // To all at once, because each second counts in which a removed member is still accepted.
        let peers = self.members_in(network);
        let issuer = start_of(&head.issuer());
        match (from, self.membership_mut(network)) {
            (Some(from), _) => self.note_up_to_date(from, issuer),
            // This node's controller has signed it.
            (None, membership) => _ = membership.map(Membership::note_up_to_date),
        }
        if let Some(handle) = from
            .or(peers.first().copied())
            .and_then(|key| self.peers.get(key))
            .map(|peer| peer.link.handle.clone())
        {
            self.core.emit(Event::RevocationsChanged(handle));
        }
        let is_kept = self.membership(network).and_then(|known| known.head_by(issuer)) == Some(head);
        for key in peers.into_iter().filter(|key| is_kept && Some(*key) != from) {
            self.spread_head(now, key, issuer);
        }
        // The controller that has signed it shows people which members it has reached.
        if let Some(from) = from.filter(|_| is_kept) {
            self.tell_have(now, from, issuer);
        }
        self.begin_renewal_if_own(now, network);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_peers_makes_a_node_wait_for_longer_than_two_minutes() {
        assert_eq!((delivery_timeout(0), delivery_timeout(1)), (DELIVERY_TIMEOUT, DELIVERY_TIMEOUT * 2));
        assert!(delivery_timeout(u32::MAX) <= Duration::from_secs(120));
    }
}
