//! Credentials in sessions of managed networks: how two nodes show theirs to each other, and what follows.
//!
//! Both sides show their credentials as soon as they have a session, and again when their own change. The
//! receiver judges and answers by a verdict; without one the sender repeats. A peer whose credentials are
//! accepted is *admitted*: packets pass until the first of its statements ends or is revoked. Neither side
//! needs anybody else for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::revocations::{Rest, Unconfirmed};
use super::rules::ShownRules;
use crate::bucket::{Bucket, Rate};
use crate::id::NodeId;
use crate::link::{Event, Gone, PeerKey, Timer};
use crate::membership::{Credentials, NetworkKey, Refusal, UnixTime};
use crate::network::{Membership, NetworkIndex, Prefix, digest};
use crate::session::Peer;
use crate::wire::MembershipMessage;

/// Delay before credentials without a verdict are shown again. It doubles with each repetition.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// Number of repetitions in one session.
const MAX_REPEATS: u32 = 6;

/// Rate at which one peer's credentials, heads and questions are handled, at some 150 us each, after a burst.
const JUDGE_INTERVAL: Duration = Duration::from_millis(250);
const JUDGE_BURST: u32 = 32;

/// Longest time until a peer's credentials are checked again. The system's clock may be set meanwhile.
const CHECK_AT_LEAST: Duration = Duration::from_secs(600);

/// Credentials that a node and its peer have shown each other.
#[derive(Debug)]
pub(super) struct Shown {
    /// Own credentials with a verdict, and the instance of the peer that gave it.
    judged: Option<([u8; 8], u64)>,
    /// Instance of the peer that was told of this node's heads in the present session.
    told: Option<u64>,
    repeats: u32,
    /// Time of the next repetition.
    repeat_at: Option<Instant>,
    /// Time at which the peer's credentials have to be checked again.
    check_at: Option<Instant>,
    /// Reason for which this node refuses the peer's credentials, while it does.
    refusal: Option<Refusal>,
    /// Epoch of the newest head of this node that the peer has shown, and its instance then.
    knows: Option<(u64, u64)>,
    /// Heads of this node that the peer was told of and has not shown.
    pub(super) unconfirmed: Unconfirmed,
    budget: Bucket,
    /// Issuers whose sets of revocations the peer did not deliver.
    pub(super) rests: BTreeMap<NodeId, Rest>,
    /// Access rules that the peer has shown.
    pub(super) rules: ShownRules,
}

impl Shown {
    fn new(now: Instant) -> Self {
        Self {
            judged: None,
            told: None,
            repeats: 0,
            repeat_at: None,
            check_at: None,
            refusal: None,
            knows: None,
            unconfirmed: Unconfirmed::default(),
            budget: Bucket::new(Rate::every(JUDGE_INTERVAL, JUDGE_BURST), now),
            rests: BTreeMap::new(),
            rules: ShownRules::default(),
        }
    }

    fn next(&self) -> Option<Instant> {
        [self.repeat_at, self.check_at, self.unconfirmed.next()].into_iter().flatten().min()
    }

    /// Returns the reason for which this node refuses the peer's credentials, if it does.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Notes that the peer has a head of this node.
    pub(super) fn note_head(&mut self, epoch: u64, instance: u64) {
        self.knows = Some((epoch, instance));
    }

    /// Returns the epoch of the newest head of this node that an instance of the peer has shown.
    pub(super) fn known_epoch(&self, instance: u64) -> Option<u64> {
        // Another instance may have lost it.
        self.knows.filter(|(_, known_by)| *known_by == instance).map(|(epoch, _)| epoch)
    }
}

impl Endpoint {
    /// Returns the membership of a managed network; `None` for other networks.
    pub fn membership(&self, network: NetworkIndex) -> Option<&Membership> {
        self.networks.get(&network)?.policy.membership()
    }

    /// Returns the wall clock at `now` by which this endpoint judges statements. It does not follow steps of
    /// the system's clock.
    pub fn unix_time(&self, now: Instant) -> Duration {
        self.core.clock.unix_time(now)
    }

    /// Sets the key of a managed network that was joined by its ID alone. The caller has checked that its
    /// stretched hash is the ID. Peers are asked for their credentials again.
    pub fn set_network_key(&mut self, now: Instant, network: NetworkIndex, key: NetworkKey) {
        let Some(membership) = self.membership_mut(network) else { return };
        membership.set_key(key);
        self.ask_to_show_again(now, network);
        self.begin_asking(now, network);
    }

    /// Asks peers for their credentials that were refused, because the reason may be gone: a key that was not
    /// known, or a clock that was wrong.
    pub(super) fn ask_to_show_again(&mut self, now: Instant, network: NetworkIndex) {
        for key in self.peers_in(network) {
            if self.peers.get(key).is_some_and(|peer| !peer.link.handle.is_admitted()) {
                self.tell(now, key, &WANT_CREDENTIALS);
            }
        }
    }

    /// Replaces this node's credentials in a managed network, and shows them to its peers. This node's
    /// addresses follow from them.
    ///
    /// # Errors
    /// Returns the reason if they are not this node's in this network.
    pub fn set_credentials(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        credentials: &Credentials,
    ) -> Result<(), Refusal> {
        let (own, unix_time) = (self.own_id, self.core.clock.unix_time(now));
        let Some(joined) = self.networks.get_mut(&network) else { return Ok(()) };
        let Some(membership) = joined.policy.membership_mut() else { return Ok(()) };
        let has_same = membership.credentials() == Some(credentials);
        let before = joined.policy.addresses_of(&own);
        let Some(membership) = joined.policy.membership_mut() else { return Ok(()) };
        membership.set_own(credentials, &own, Some(unix_time))?;
        let after = joined.policy.addresses_of(&own);
        let only = |these: &[std::net::IpAddr], those: &[std::net::IpAddr]| -> Vec<Prefix> {
            these.iter().filter(|address| !those.contains(address)).map(|&one| one.into()).collect()
        };
        self.routes.publish(network, &only(&after, &before), &crate::routes::Route::Local);
        self.routes.withdraw(network, &only(&before, &after));
        // The controller that has signed them has admitted this node again.
        self.set_removed(network, false);
        if !has_same {
            for key in self.peers_in(network) {
                self.show_credentials(now, key);
            }
        }
        self.follow_keys(now, network);
        self.arm_heads(now, network);
        Ok(())
    }

    /// Ends what former keys of a network have made, if this node has just learned another key. Returns true
    /// if it has.
    fn follow_keys(&mut self, now: Instant, network: NetworkIndex) -> bool {
        let unix_time = self.core.clock.unix_time(now);
        let Some(membership) = self.membership_mut(network) else { return false };
        if !membership.take_new_key() {
            return false;
        }
        tracing::info!("the network's key has changed");
        membership.forget_heads(Some(unix_time));
        for key in self.peers_in(network) {
            let handle = self.peers.get(key).map(|peer| peer.link.handle.clone());
            let Some(handle) = handle.filter(|handle| handle.is_admitted()) else { continue };
            match self.membership(network).and_then(|known| known.refusal_of(handle.id(), unix_time)) {
                Some(refusal) => self.expel(now, key, refusal),
                None => {
                    self.schedule_check(now, key);
                    self.arm_shown(key);
                }
            }
        }
        self.begin_renewal_if_own(now, network);
        self.renew_by_last_key(now, network);
        true
    }

    /// Corrects the clock of a program's node in a managed network, by milliseconds that are added to it, as
    /// the node of its machine has learned from a controller.
    pub fn set_clock_offset(&mut self, now: Instant, network: NetworkIndex, millis: i64) {
        let Some(known) = self.membership_mut(network).filter(|known| known.clock_offset() != millis) else {
            return;
        };
        known.set_clock_offset(millis);
        self.ask_to_show_again(now, network);
    }

    /// Notes that a controller has removed this node's machine from a network, or admitted it again. Without
    /// membership all connections would wait for members that drop their packets, so they end.
    pub fn set_removed(&mut self, network: NetworkIndex, is_removed: bool) {
        if !self.membership_mut(network).is_some_and(|known| known.set_removed(is_removed)) {
            return;
        }
        let handles: Vec<_> =
            self.peers.of_network(network).map(|(_, peer)| Arc::clone(&peer.link.handle)).collect();
        for handle in handles {
            let could_send = handle.sender().is_some();
            handle.set_cut_off(is_removed);
            if could_send {
                // The peer has dropped its side already, so waiting for it would be in vain.
                self.core.emit(Event::PeerGone(Arc::clone(&handle), Gone::Expelled));
                self.core.emit(Event::SessionLost(handle));
            } else if handle.sender().is_some() {
                self.core.emit(Event::SessionReady(handle));
            }
        }
    }

    pub(super) fn membership_mut(&mut self, network: NetworkIndex) -> Option<&mut Membership> {
        self.networks.get_mut(&network)?.policy.membership_mut()
    }

    /// Returns true if the nodes of a network show credentials to each other.
    pub(super) fn needs_credentials(&self, network: NetworkIndex) -> bool {
        self.membership(network).is_some()
    }

    /// Returns true if the nodes of a network ask each other about members or programs.
    pub(super) fn asks_members(&self, network: NetworkIndex) -> bool {
        self.needs_credentials(network) || self.programs(network).is_some()
    }

    /// Returns the peers of a network that have a session.
    pub(super) fn peers_in(&self, network: NetworkIndex) -> Vec<PeerKey> {
        let of_network = self.peers.of_network(network);
        of_network.filter(|(_, peer)| peer.link.has_confirmed_session()).map(|(key, _)| key).collect()
    }

    /// Sends a message in the session with a peer, if there is one.
    pub(super) fn tell(&mut self, now: Instant, key: PeerKey, message: &MembershipMessage<'_>) {
        let plaintext = message.to_bytes();
        self.link(now, key, |link, cx| link.send_message(cx, &plaintext));
    }

    /// Shows this node's credentials to a peer with a session, unless it has judged them.
    pub(super) fn show_credentials(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let network = peer.link.handle.network();
        let Some(membership) = self.networks.get(&network).and_then(|joined| joined.policy.membership())
        else {
            return;
        };
        let shown = peer.shown.get_or_insert_with(|| Box::new(Shown::new(now)));
        let Some(own) = membership.own() else { return };
        let instance = peer.link.instance.unwrap_or_default();
        if shown.judged == Some((own.digest, instance)) {
            return;
        }
        shown.repeats = 0;
        shown.repeat_at = Some(now + REPEAT_AFTER);
        let bytes = Arc::clone(&own.bytes);
        self.tell(now, key, &MembershipMessage::Shown(&bytes));
        self.arm_shown(key);
    }

    /// Asks a peer for its credentials that this node has forgotten, which the peer may not know.
    pub(super) fn ask_for_credentials(&mut self, now: Instant, key: PeerKey) {
        let Some(handle) = self.peers.get(key).map(|peer| peer.link.handle.clone()) else { return };
        let has_key = self.membership(handle.network()).is_some_and(|known| known.key().is_some());
        if has_key && !handle.is_admitted() {
            self.tell(now, key, &WANT_CREDENTIALS);
        }
    }

    /// Notes that a peer without a session may have forgotten this node's credentials: it can have left the
    /// network and joined it again.
    pub(super) fn forget_verdict(&mut self, key: PeerKey) {
        if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) {
            (shown.judged, shown.told, shown.repeat_at) = (None, None, None);
        }
    }

    pub(super) fn arm_shown(&mut self, key: PeerKey) {
        let next = self.peers.get(key).and_then(|peer| peer.shown.as_ref()?.next());
        match next {
            Some(at) => self.core.timers.set(Timer::Shown(key), at),
            None => self.core.timers.clear(Timer::Shown(key)),
        }
    }

    pub(super) fn on_shown_timer(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (network, node) = (peer.link.handle.network(), *peer.link.handle.id());
        let Some(shown) = &mut peer.shown else { return };
        let is_repeated = shown.repeat_at.is_some_and(|at| at <= now);
        let is_checked = shown.check_at.is_some_and(|at| at <= now);
        if is_repeated {
            shown.repeats += 1;
            let is_last = shown.repeats >= MAX_REPEATS || !peer.link.has_confirmed_session();
            shown.repeat_at = (!is_last).then(|| now + REPEAT_AFTER * 2_u32.pow(shown.repeats));
        }
        let unix_time = self.core.clock.unix_time(now);
        if is_repeated && let Some(own) = self.membership(network).and_then(Membership::own) {
            let bytes = Arc::clone(&own.bytes);
            self.tell(now, key, &MembershipMessage::Shown(&bytes));
        }
        if is_checked {
            match self.membership(network).and_then(|known| known.refusal_of(&node, unix_time)) {
                Some(refusal) => self.expel(now, key, refusal),
                None => self.schedule_check(now, key),
            }
        }
        self.repeat_heads(now, key);
        self.arm_shown(key);
    }

    /// Sets the time at which an admitted peer's credentials are checked again: their end.
    fn schedule_check(&mut self, now: Instant, key: PeerKey) {
        let unix_time = self.core.clock.unix_time(now);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let handle = &peer.link.handle;
        let membership = self.networks.get(&handle.network()).and_then(|joined| joined.policy.membership());
        let admission = membership.and_then(|known| known.admission(handle.id()).map(|one| (known, one)));
        let left = admission.map(|(known, admission)| known.end_of(admission).since(known.time(unix_time)));
        let shown = peer.shown.get_or_insert_with(|| Box::new(Shown::new(now)));
        // A little later, so that the end has passed by then.
        shown.check_at = left.map(|left| now + left.min(CHECK_AT_LEAST) + Duration::from_millis(1));
    }

    pub(super) fn on_membership_message(&mut self, now: Instant, key: PeerKey, plaintext: &[u8]) {
        let Ok(message) = MembershipMessage::parse(plaintext) else {
            return self.core.counters.control_unknown.increment();
        };
        let network = self.peers.get(key).map(|peer| peer.link.handle.network());
        let is_managed = network.is_some_and(|network| self.needs_credentials(network));
        match message {
            MembershipMessage::Question { id, bytes } => self.on_question(now, key, id, bytes),
            MembershipMessage::Answer { id, bytes } => self.on_answer(now, key, id, bytes),
            _ if !is_managed => self.core.counters.control_unknown.increment(),
            MembershipMessage::Shown(bytes) => self.on_shown(now, key, bytes),
            MembershipMessage::Verdict { digest, reason } => self.on_verdict(now, key, digest, reason),
            MembershipMessage::Head(bytes) => self.on_head(now, key, bytes),
            MembershipMessage::Have { issuer, epoch, digest } => {
                self.on_have(now, key, issuer, epoch, digest);
            }
            MembershipMessage::Want { offset: ASKS_FOR_CREDENTIALS, .. } => {
                if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut())
                    && shown.budget.take(now)
                {
                    (shown.judged, shown.told) = (None, None);
                    self.show_credentials(now, key);
                }
            }
            MembershipMessage::Want { digest, offset } => self.on_want(now, key, digest, offset),
            MembershipMessage::HaveRules { issuer, rank } => self.on_have_rules(now, key, issuer, rank),
            MembershipMessage::WantRules { issuer, digest, offset } => {
                self.on_want_rules(now, key, issuer, digest, offset);
            }
            MembershipMessage::RulesPart { digest, offset, bytes } => {
                self.on_rules_part(now, key, digest, offset, bytes);
            }
            MembershipMessage::Part { digest, offset, bytes } => {
                self.on_part(now, key, digest, offset, bytes);
            }
        }
        if is_managed
            && let Some(network) = network
            && self.follow_keys(now, network)
            && let Some(peer) = self.peers.get(key)
        {
            self.core.emit(Event::KeyChanged(peer.link.handle.clone()));
            // Some may have come before the key.
            self.ask_for_heads(now, key);
        }
    }

    /// Takes one from the budget of a peer for messages that cost signatures.
    pub(super) fn may_judge(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let shown = peer.shown.get_or_insert_with(|| Box::new(Shown::new(now)));
        let may = shown.budget.take(now);
        if !may {
            self.core.counters.credentials_dropped.increment();
        }
        may
    }

    /// Judges the credentials that a peer has shown.
    fn on_shown(&mut self, now: Instant, key: PeerKey, bytes: &[u8]) {
        if bytes.len() > Credentials::MAX_LEN || !self.may_judge(now, key) {
            return;
        }
        let Some(peer) = self.peers.get(key) else { return };
        let (handle, unix_time) = (peer.link.handle.clone(), self.core.clock.unix_time(now));
        let Some(membership) = self.membership_mut(handle.network()) else { return };
        if membership.key().is_none() {
            // Only the layer above can stretch a key, which takes long. Without the key there is no verdict.
            if let Ok(credentials) = Credentials::parse(bytes)
                && credentials
                    .authenticate(credentials.key(), self.id_of(handle.network()), handle.id())
                    .is_ok()
            {
                self.core.emit(Event::KeyClaimed(handle, *credentials.key()));
            }
            return;
        }
        let verdict = membership.judge(handle.id(), bytes, unix_time);
        let reason = verdict.err().map_or(0, Refusal::code);
        self.tell(now, key, &MembershipMessage::Verdict { digest: digest(bytes), reason });
        match verdict {
            Ok(()) => self.admit(now, key),
            Err(refusal) => {
                self.core.counters.credentials_refused.increment();
                // Kept, because programs that ask later must not wait for what will not come.
                self.note_refused(key, Some(refusal));
                tracing::info!(peer = %handle.logged(), %refusal, "the peer's credentials are refused");
                let admitted = self.membership(handle.network()).and_then(|known| {
                    known.admission(handle.id()).map(|one| digest(&one.credentials().to_bytes()))
                });
                // An old copy of credentials says nothing of later ones.
                if refusal == Refusal::Revoked && admitted == Some(digest(bytes)) {
                    self.expel(now, key, refusal);
                }
                if !handle.is_admitted() {
                    self.core.emit(Event::PeerUnreachable(handle));
                }
            }
        }
        // The peer may have lost what this node has shown before.
        self.show_credentials(now, key);
        self.arm_shown(key);
    }

    fn id_of(&self, network: NetworkIndex) -> crate::id::NetworkId {
        self.networks.get(&network).map_or(crate::id::NetworkId::ROOTS, |joined| joined.id)
    }

    /// Lets packets of a peer pass whose credentials were accepted.
    fn admit(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let handle = peer.link.handle.clone();
        if let Some(joined) = self.networks.get(&handle.network()) {
            let before = handle.description(joined.id);
            handle.describe(&*joined.policy);
            if handle.is_admitted() && handle.description(joined.id) != before {
                self.core.emit(Event::IdentityChanged(handle.clone()));
            }
        }
        self.follow_addresses(now, &handle);
        self.schedule_check(now, key);
        self.note_refused(key, None);
        if !handle.set_admitted(true) {
            self.core.counters.peers_admitted.increment();
            tracing::debug!(peer = %handle.logged(), "the peer is admitted");
            self.link(now, key, crate::link::Link::announce);
            if handle.sender().is_some() {
                self.core.emit(Event::SessionReady(handle.clone()));
            }
        }
        self.tell_heads_once(now, key);
        self.arm_heads(now, handle.network());
        self.meet_next(now, handle.network());
    }

    /// Tells a peer of this node's heads once both have accepted each other's credentials. That happens in
    /// each session: a peer that was away, or has restarted, may have missed a removal meanwhile.
    fn tell_heads_once(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.link.handle.is_admitted()) else {
            return;
        };
        let (network, instance) = (peer.link.handle.network(), peer.link.instance.unwrap_or_default());
        let Some(own) = self.networks.get(&network).and_then(|joined| joined.policy.membership()?.own())
        else {
            return;
        };
        let Some(shown) = &mut peer.shown else { return };
        // Before its verdict, it would drop them.
        if shown.judged == Some((own.digest, instance)) && shown.told.replace(instance) != Some(instance) {
            self.tell_heads(now, key);
            self.tell_rules(now, key);
            self.repeat_rules(now, network);
            self.hurry_look_ups(now, network);
        }
    }

    /// Gives a peer the addresses that its certificate says.
    pub(super) fn follow_addresses(&mut self, now: Instant, handle: &Arc<Peer>) {
        let network = handle.network();
        let Some(joined) = self.networks.get(&network) else { return };
        let addresses: Vec<Prefix> =
            joined.policy.addresses_of(handle.id()).into_iter().skip(1).map(Prefix::from).collect();
        let is_free = |prefix: &&Prefix| match self.routes.exact(network, **prefix) {
            Some(crate::routes::Route::Peer(owner)) => Arc::ptr_eq(&owner, handle),
            Some(crate::routes::Route::Local) => false,
            None => true,
        };
        let taken: Vec<Prefix> = addresses.iter().filter(|one| !is_free(one)).copied().collect();
        for prefix in taken {
            self.take_address(now, network, handle, prefix);
        }
        if let Err(error) = self.set_addresses(network, handle.id(), &addresses) {
            // The self-certifying address remains.
            tracing::warn!(peer = %handle.logged(), %error, "the peer does not get the addresses of its certificate");
        }
    }

    /// Takes an address from a member whose certificate is older than the one that now names it.
    fn take_address(&mut self, _: Instant, network: NetworkIndex, handle: &Arc<Peer>, prefix: Prefix) {
        let Some(crate::routes::Route::Peer(owner)) = self.routes.exact(network, prefix) else { return };
        // Also of members that a controller has named and this node has not met: of one that was removed
        // since, nothing is known.
        let serial = |node| self.membership(network)?.serial_of(node);
        if serial(owner.id()) >= serial(handle.id()) {
            return;
        }
        let kept: Vec<Prefix> =
            owner.prefixes().iter().skip(1).filter(|one| **one != prefix).copied().collect();
        if let Err(error) = self.set_addresses(network, owner.id(), &kept) {
            tracing::debug!(%error, "an address stays with its former owner");
        }
    }

    /// Stops all packets of a peer that is no member any more.
    pub(super) fn expel(&mut self, now: Instant, key: PeerKey, refusal: Refusal) {
        let Some(peer) = self.peers.get(key) else { return };
        let handle = peer.link.handle.clone();
        let Some(membership) = self.membership_mut(handle.network()) else { return };
        let shown = membership.admission(handle.id()).map(|known| known.credentials().to_bytes());
        membership.expel(handle.id());
        if let Some(bytes) = shown {
            // So that it can say to its user why nothing passes any more.
            let (digest, reason) = (digest(&bytes), refusal.code());
            self.tell(now, key, &MembershipMessage::Verdict { digest, reason });
        }
        if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) {
            (shown.check_at, shown.told, shown.knows) = (None, None, None);
        }
        self.note_refused(key, Some(refusal));
        if handle.set_admitted(false) {
            self.core.counters.peers_expelled.increment();
            tracing::info!(peer = %handle.logged(), %refusal, "the peer is no member any more");
            self.core.emit(Event::PeerGone(handle.clone(), Gone::Expelled));
            self.core.emit(Event::SessionLost(handle.clone()));
            if self.set_addresses(handle.network(), handle.id(), &[]).is_err() {
                tracing::debug!("the peer has gone meanwhile");
            }
        }
        self.arm_shown(key);
        self.begin_renewal_if_own(now, handle.network());
    }

    fn note_refused(&mut self, key: PeerKey, refusal: Option<Refusal>) {
        if let Some(shown) = self.peers.get_mut(key).and_then(|peer| peer.shown.as_mut()) {
            shown.refusal = refusal;
        }
    }

    /// Reports a wanted peer as unreachable whose credentials this node refuses, or that refuses this node's,
    /// because a session with it helps no application.
    pub(super) fn report_refused(&mut self, peer: &Arc<Peer>) {
        if peer.is_cut_off() {
            return self.core.emit(Event::PeerUnreachable(Arc::clone(peer)));
        }
        let Some(key) = self.key_of(peer).filter(|_| !peer.is_admitted()) else { return };
        let is_refused = |shown: &Shown| shown.refusal.is_some();
        if self.peers.get(key).and_then(|peer| peer.shown.as_deref()).is_some_and(is_refused) {
            self.core.emit(Event::PeerUnreachable(Arc::clone(peer)));
        }
    }

    /// Forgets the admission of a peer that is removed.
    pub(super) fn forget_credentials(&mut self, handle: &Peer) {
        self.forget_program(handle.network(), handle.id());
        if let Some(membership) = self.membership_mut(handle.network()) {
            membership.expel(handle.id());
        }
    }

    /// Handles the judgement about this node's own credentials.
    fn on_verdict(&mut self, now: Instant, key: PeerKey, digest: [u8; 8], reason: u8) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (handle, instance) = (peer.link.handle.clone(), peer.link.instance.unwrap_or_default());
        let Some(own) =
            self.networks.get(&handle.network()).and_then(|joined| joined.policy.membership()?.own())
        else {
            return;
        };
        let Some(shown) = peer.shown.as_mut().filter(|_| own.digest == digest) else { return };
        shown.repeat_at = None;
        shown.judged = Some((digest, instance));
        let may_ask = shown.budget.take(now);
        if reason != 0 {
            shown.told = None;
        }
        self.arm_shown(key);
        if reason == 0 {
            self.tell_heads_once(now, key);
        }
        if let Some(refusal) = Refusal::from_code(reason) {
            tracing::info!(peer = %handle.logged(), %refusal, "the peer refuses this node's credentials");
            self.core.emit(Event::RefusedBy(handle.clone(), refusal));
            self.core.emit(Event::PeerUnreachable(handle.clone()));
            // One peer's word is enough to ask for fresh ones, but not to stop using these. Of its revocation
            // a node hears only so, because the set is for members. Of another key it may hear so first.
            match refusal {
                Refusal::Revoked if may_ask => self.replace_revoked(now, handle.network()),
                Refusal::KeyEnded if may_ask => self.ask_soon(now, handle.network()),
                _ => self.begin_renewal_if_own(now, handle.network()),
            }
        }
    }

    /// Returns the time by which a network's statements are judged.
    pub(super) fn network_time(&self, now: Instant, network: NetworkIndex) -> Option<UnixTime> {
        Some(self.membership(network)?.time(self.core.clock.unix_time(now)))
    }
}

/// Offset in a [`MembershipMessage::Want`] that asks for credentials instead of a part: behind every set.
const ASKS_FOR_CREDENTIALS: u32 = u32::MAX;

/// Message that asks a peer to show its credentials.
const WANT_CREDENTIALS: MembershipMessage<'static> =
    MembershipMessage::Want { digest: [0; 8], offset: ASKS_FOR_CREDENTIALS };
