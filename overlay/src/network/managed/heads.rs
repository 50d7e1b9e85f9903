//! Revocations of a managed network: the newest head of each issuer, with its set.

use std::sync::Arc;
use std::time::Duration;

use super::{Issuer, MAX_CONTROLLERS, MAX_OBSERVED, Membership, signer_of};
use crate::id::NodeId;
use crate::membership::{Head, NetworkKey, Refusal, Revocations, Serial};

/// Newest head of an issuer.
#[derive(Debug)]
pub(super) struct KnownHead {
    /// The head, with the bytes of its set.
    pub(super) signed: (Head, Arc<[u8]>),
    /// Network key that has made the issuer; `None` if that is not known since a restart.
    pub(super) signer: Option<NetworkKey>,
}

impl Membership {
    /// Returns the newest head of each issuer, with the bytes of its set.
    pub fn heads(&self) -> impl Iterator<Item = &(Head, Arc<[u8]>)> {
        self.heads.values().map(|known| &known.signed)
    }

    /// Returns true once an issuer itself has shown its newest head in this run, and this node has it. Until
    /// then this node may accept a member that was removed before.
    pub fn is_up_to_date(&self) -> bool {
        self.is_up_to_date
    }

    /// Notes that this node has the newest head that an issuer itself has shown. Returns true the first time.
    pub(crate) fn note_up_to_date(&mut self) -> bool {
        !std::mem::replace(&mut self.is_up_to_date, true)
    }

    /// Returns the head that was signed last.
    pub fn newest_head(&self) -> Option<&Head> {
        self.heads().map(|(head, _)| head).max_by_key(|head| head.time())
    }

    /// Returns the revocations that this node observes: those of all heads that it has seen.
    pub fn revocations(&self) -> &Revocations {
        &self.revoked
    }

    /// Returns the observed revocations besides those of [`Self::heads`].
    pub fn other_revocations(&self) -> Revocations {
        self.revoked.beyond(&self.signed())
    }

    /// Returns the revocations of all heads that this node has.
    pub(super) fn signed(&self) -> Revocations {
        let mut signed = Revocations::default();
        for set in self.heads().filter_map(|(head, set)| head.read_shared(Arc::clone(set))) {
            signed.merge(&set);
        }
        signed
    }

    /// Returns the newest head of the issuer whose node ID begins with these bytes.
    pub(crate) fn head_by(&self, issuer: [u8; 8]) -> Option<&Head> {
        let is_meant = |node: &NodeId| node.as_bytes().starts_with(&issuer);
        self.heads.iter().find(|(node, _)| is_meant(node)).map(|(_, known)| &known.signed.0)
    }

    /// Returns the bytes of the set that a head is about, if another issuer has signed the same.
    pub(crate) fn set_of(&self, head: &Head) -> Option<Arc<[u8]>> {
        self.heads().find(|(known, _)| known.has_set_of(head)).map(|(_, set)| Arc::clone(set))
    }

    /// Returns true if a head is newer than the known one of its issuer, which is not revoked.
    pub(crate) fn misses(&self, head: &Head) -> bool {
        self.lacks(&head.issuer(), head.epoch(), head.digest()) && !self.is_void(head)
    }

    /// Returns true if the issuer of a head is revoked.
    pub(super) fn is_void(&self, head: &Head) -> bool {
        self.revoked.covers(&head.issuer(), head.delegation().serial())
    }

    /// Forgets the heads that count no longer. `unix_time` is the system's clock, if it matters.
    pub(crate) fn forget_heads(&mut self, unix_time: Option<Duration>) {
        // Former keys by both clocks, because a controller may be wrong about the time. They give way at
        // once: a thief of one can fill all places, and this node goes on observing the revocations.
        let times = unix_time.map(|own| (self.settled(own), self.time(own).min(own.into())));
        let mut heads = std::mem::take(&mut self.heads);
        heads.retain(|_, KnownHead { signed: (head, _), signer }| {
            let lasts = |(settled, now)| {
                settled < head.delegation().end() && self.check_key(signer.as_ref(), now).is_ok()
            };
            !self.is_void(head) && times.is_none_or(lasts)
        });
        self.heads = heads;
        if let Some((_, now)) = times {
            self.forget_former_keys(now);
        }
        self.forget_rules(unix_time);
    }

    /// Returns the issuer whose head gives way to another one's: that with the oldest delegation, so that all
    /// nodes have the same. Returns an error if that is the other one itself.
    pub(super) fn displaced(&self, head: &Head) -> Result<Option<NodeId>, Refusal> {
        if self.heads.len() < MAX_CONTROLLERS || self.heads.contains_key(&head.issuer()) {
            return Ok(None);
        }
        let serial = |head: &Head| head.delegation().serial();
        let oldest = self.heads.iter().min_by_key(|(_, known)| serial(&known.signed.0));
        match oldest.filter(|(_, known)| serial(&known.signed.0) < serial(head)) {
            Some((node, _)) => Ok(Some(*node)),
            None => Err(Refusal::Issuer),
        }
    }

    /// Checks a head that a peer has shown. Returns true if it is newer than the known one of its issuer.
    pub(crate) fn wants_set(&self, head: &Head, unix_time: Duration) -> Result<bool, Refusal> {
        if !self.lacks(&head.issuer(), head.epoch(), head.digest()) {
            return Ok(false);
        }
        self.displaced(head)?;
        let keys = self.keys.as_ref().ok_or(Refusal::OtherNetwork)?;
        let time = self.time_for(head.time().max(head.delegation().serial().time()), unix_time);
        head.verify(keys, self.id, time, &self.revoked).map(|_| true)
    }

    /// Returns true if a head with this epoch and digest is newer than the known one of its issuer.
    pub(super) fn lacks(&self, issuer: &NodeId, epoch: u64, digest: [u8; 8]) -> bool {
        self.heads.get(issuer).is_none_or(|known| known.signed.0.is_older_than(epoch, digest))
    }

    /// Takes over a head whose signatures are right, with its set. Returns the nodes that are admitted no
    /// longer; `None` if the bytes are not the head's set.
    pub(crate) fn take_head(
        &mut self,
        head: &Head,
        set: Arc<[u8]>,
        unix_time: Duration,
    ) -> Option<Vec<NodeId>> {
        let revocations = head.read_shared(Arc::clone(&set))?;
        let signer = self.keys.as_ref().and_then(|keys| signer_of(keys, head.delegation(), self.id));
        // Merged and not replaced, because no head may take a revocation back.
        self.revoked.merge(&revocations);
        if self.lacks(&head.issuer(), head.epoch(), head.digest())
            && let Ok(displaced) = self.displaced(head)
        {
            displaced.and_then(|node| self.heads.remove(&node));
            self.heads.insert(head.issuer(), KnownHead { signed: (head.clone(), set), signer });
        }
        // A stolen key can sign any number of sets. Entries that are in no issuer's newest set give way then.
        if self.revoked.len() > MAX_OBSERVED {
            self.revoked = self.signed();
        }
        // Who has revoked an issuer may not know how long its delegation lasts.
        for (node, issuer) in &self.issuers {
            let Issuer { delegation, .. } = issuer;
            self.revoked.keep(node, &[(delegation.serial(), delegation.end())]);
        }
        self.learn(head.delegation(), signer, head.time(), Some(unix_time));
        // It may have taken the place of the only known one, which the head revokes.
        self.note_controller(head.delegation());
        // Its answers count no more than its certificates.
        let revoked = &self.revoked;
        let issuers = &self.issuers;
        self.controllers.retain(|one| {
            let node = one.node_id();
            let serial = issuers.get(&node).map_or(Serial::default(), |known| known.delegation.serial());
            !revoked.covers(&node, serial)
        });
        self.forget_issuers();
        // Behind them, because what a revoked issuer has said about the time counts no longer.
        self.revoked.forget(self.settled(unix_time));
        self.forget_heads(Some(unix_time));
        let nodes: Vec<NodeId> = self.admitted.keys().copied().collect();
        self.found.retain(|_, found| found.check(found.signed_time(), &self.revoked).is_ok());
        self.used.forget_revoked(&self.revoked);
        Some(nodes.into_iter().filter(|node| self.refusal_of(node, unix_time).is_some()).collect())
    }
}
