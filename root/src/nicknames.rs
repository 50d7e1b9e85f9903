//! Nicknames: the first node that claims one keeps it as long as it renews it.
//!
//! Nicknames are kept only in memory. A node that is away keeps its nicknames until their lifetimes end. A
//! restarted root has forgotten them, and nodes claim them again with their next registrations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use peersock_overlay::load::{Limiter, Rate, prefix_of};
use peersock_overlay::wire::{
    ClaimRefusal, NicknameClaim, NicknameMessage, NicknameOwner, NotFound, RootMessage,
};
use peersock_overlay::{Nickname, NodeId, PublicIdentity};

use crate::Root;
use crate::budget::{Budget, Nanos};
use crate::clients::Slot;

/// Claims per second and burst of one node, because each costs a signature check.
const NODE_CLAIM_BUDGET: Budget = Budget::new(1, 10);

/// Minimum lifetime in seconds; a shorter one would end before it is useful, so it is refused.
const MIN_LIFETIME_SECONDS: u32 = 10;

/// Limit of nicknames that expire in one call; the next call continues.
const BATCH: usize = 256;

/// All claimed nicknames. Each has exactly one entry in `deadlines`, and is counted once in `of_node` and
/// once in `of_prefix`, which hold no zeros.
pub(crate) struct Nicknames {
    list: BTreeMap<Nickname, Held>,
    deadlines: BTreeSet<(Nanos, Nickname)>,
    of_node: BTreeMap<NodeId, u32>,
    of_prefix: BTreeMap<u64, u32>,
    claims: Limiter,
}

struct Held {
    identity: PublicIdentity,
    claim: NicknameClaim,
    /// Source prefix of the first claim.
    prefix: u64,
    expires: Nanos,
}

impl Nicknames {
    /// Returns an empty table. `key` is random and kept secret.
    pub(crate) fn new(key: u64, now: Instant) -> Self {
        Self {
            list: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            of_node: BTreeMap::new(),
            of_prefix: BTreeMap::new(),
            claims: Limiter::new(Rate::per_second(2000, 4000), Rate::per_second(200, 1000), key, now),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the next expiry.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Returns the holder at that time.
    fn get(&self, nickname: &Nickname, at: Nanos) -> Option<&Held> {
        self.list.get(nickname).filter(|held| at < held.expires)
    }

    fn insert(&mut self, nickname: Nickname, held: Held) {
        self.remove(&nickname);
        *self.of_node.entry(held.identity.node_id()).or_default() += 1;
        *self.of_prefix.entry(held.prefix).or_default() += 1;
        self.deadlines.insert((held.expires, nickname.clone()));
        self.list.insert(nickname, held);
    }

    fn remove(&mut self, nickname: &Nickname) {
        let Some(held) = self.list.remove(nickname) else { return };
        self.deadlines.remove(&(held.expires, nickname.clone()));
        take_one(&mut self.of_node, &held.identity.node_id());
        take_one(&mut self.of_prefix, &held.prefix);
    }

    fn expire(&mut self, at: Nanos) -> usize {
        for done in 0..BATCH {
            let Some((_, nickname)) = self.deadlines.first().filter(|(due, _)| *due <= at) else {
                return done;
            };
            let nickname = nickname.clone();
            self.remove(&nickname);
        }
        BATCH
    }
}

/// Decrements a count, and removes it at zero.
pub(crate) fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Root {
    /// Handles a nickname message in the session that was made at `since`, from the place where the node has
    /// shown that it receives.
    pub(crate) fn on_nickname(&mut self, now: Instant, slot: Slot, since: Nanos, message: NicknameMessage) {
        match message {
            NicknameMessage::Claim { nickname, claim } => self.on_claim(now, slot, since, nickname, &claim),
            NicknameMessage::Find { id, nickname } => self.on_find(now, slot, id, &nickname),
            // The other messages are only for nodes.
            _ => self.counters.control_unknown.increment(),
        }
    }

    fn on_claim(
        &mut self,
        now: Instant,
        slot: Slot,
        since: Nanos,
        nickname: Nickname,
        claim: &NicknameClaim,
    ) {
        let at = self.nanos(now);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(path) = client.path() else { return };
        if !NODE_CLAIM_BUDGET.take(&mut client.buckets.nicknames, 1, at)
            || !self.nicknames.claims.take(path.ip(), now)
        {
            return self.counters.nicknames_limited.increment();
        }
        // As with registrations, a later session is newer, and within one session the larger sequence is. A
        // late or repeated claim changes nothing and gets no answer, because the node has sent a newer one.
        if (since, claim.sequence) <= client.nicknames {
            return self.counters.nicknames_refused.increment();
        }
        let is_registered = client.present(at).is_some();
        let result = if !is_registered || !claim.verify(&client.identity, &self.id, &nickname) {
            Err(ClaimRefusal::Refused)
        } else {
            client.nicknames = (since, claim.sequence);
            let (identity, prefix) = (client.identity, prefix_of(path.ip()));
            self.take_claim(at, nickname, claim, identity, prefix)
        };
        match result {
            Ok(0) => {}
            Ok(_) => self.counters.nicknames_claimed.increment(),
            Err(ClaimRefusal::Taken) => self.counters.nicknames_taken.increment(),
            Err(_) => self.counters.nicknames_refused.increment(),
        }
        let answer = NicknameMessage::Claimed { sequence: claim.sequence, result };
        self.tell(slot, &RootMessage::Nickname(answer));
    }

    /// Applies a claim whose signature was verified.
    fn take_claim(
        &mut self,
        at: Nanos,
        nickname: Nickname,
        claim: &NicknameClaim,
        identity: PublicIdentity,
        prefix: u64,
    ) -> Result<u32, ClaimRefusal> {
        let (limits, node) = (&self.config.limits, identity.node_id());
        let held = self.nicknames.get(&nickname, at);
        if held.is_some_and(|held| held.identity.node_id() != node) {
            return Err(ClaimRefusal::Taken);
        }
        if claim.lifetime == 0 {
            self.nicknames.remove(&nickname);
            return Ok(0);
        }
        if claim.lifetime < MIN_LIFETIME_SECONDS {
            return Err(ClaimRefusal::Refused);
        }
        // A renewal stays counted at the prefix of the first claim.
        let prefix = match held {
            Some(held) => held.prefix,
            None => {
                let of_node = self.nicknames.of_node.get(&node).copied().unwrap_or_default();
                let of_prefix = self.nicknames.of_prefix.get(&prefix).copied().unwrap_or_default();
                // One key or prefix must not take all nicknames.
                let is_full = self.nicknames.len() >= limits.nicknames
                    || of_node >= limits.nicknames_per_node
                    || of_prefix >= limits.nicknames_per_prefix;
                if is_full {
                    return Err(ClaimRefusal::Full);
                }
                prefix
            }
        };
        let lifetime = claim.lifetime.min(limits.nickname_lifetime);
        let expires = at.saturating_add(u64::from(lifetime) * 1_000_000_000);
        self.nicknames.insert(nickname, Held { identity, claim: *claim, prefix, expires });
        Ok(lifetime)
    }

    fn on_find(&mut self, now: Instant, slot: Slot, id: u32, nickname: &Nickname) {
        let at = self.nanos(now);
        self.counters.nickname_look_ups.increment();
        let is_registered = self.clients.get_mut(slot).is_some_and(|client| client.present(at).is_some());
        // The budget is the same as for nodes, so names give no second one.
        let result = if self.may_look_up(slot, at) {
            // If a root demands a token, strangers cannot search for names either.
            let held = self.nicknames.get(nickname, at).filter(|_| is_registered);
            let owner = |held: &Held| NicknameOwner { identity: held.identity, claim: held.claim };
            held.map(owner).ok_or(NotFound::Unknown)
        } else {
            Err(NotFound::Limited)
        };
        if result.is_ok() {
            self.counters.nicknames_found.increment();
        }
        self.tell(slot, &RootMessage::Nickname(NicknameMessage::Found { id, result }));
    }

    /// Removes expired nicknames.
    pub(crate) fn expire_nicknames(&mut self, now: Instant) {
        let gone = self.nicknames.expire(self.nanos(now));
        self.counters.nicknames_expired.add(gone as u64);
    }
}
