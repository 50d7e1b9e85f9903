//! Access rules of a managed network: the newest statement of each issuer.

use std::time::Duration;

use super::{MAX_CONTROLLERS, Membership, signer_of};
use crate::id::{NetworkId, NodeId};
use crate::membership::{NetworkKey, NetworkKeys, Refusal, RulesHead, RulesRank, SignedRules};

/// Newest statement of an issuer about access rules.
#[derive(Debug)]
pub(super) struct KnownRules {
    signed: SignedRules,
    /// Network key that has made the issuer; `None` if that is not known since a restart.
    signer: Option<NetworkKey>,
}

impl KnownRules {
    pub(super) fn new(signed: SignedRules, keys: Option<&NetworkKeys>, id: NetworkId) -> Self {
        let signer = keys.and_then(|keys| signer_of(keys, signed.head().delegation(), id));
        Self { signed, signer }
    }
}

impl Membership {
    /// Returns the access rules that count: the newest statement of an issuer that is not revoked. They
    /// outlast the delegation of their issuer, because no member is to be open once no controller is there.
    pub fn rules(&self) -> Option<&SignedRules> {
        self.all_rules().max_by_key(|signed| signed.head().rank())
    }

    /// Returns the newest statement of each issuer.
    pub fn all_rules(&self) -> impl Iterator<Item = &SignedRules> {
        self.rules.values().map(|known| &known.signed)
    }

    /// Returns the newest statement of the issuer whose node ID begins with these bytes.
    pub(crate) fn rules_by(&self, issuer: [u8; 8]) -> Option<&SignedRules> {
        let is_meant = |node: &NodeId| node.as_bytes().starts_with(&issuer);
        self.rules.iter().find(|(node, _)| is_meant(node)).map(|(_, known)| &known.signed)
    }

    /// Checks a statement that a peer or this node's controller shows. Returns true if it is newer than the
    /// known one of its issuer.
    pub(crate) fn wants_rules(&self, head: &RulesHead, unix_time: Duration) -> Result<bool, Refusal> {
        let known = self.rules.get(&head.issuer()).map(|known| known.signed.head().rank());
        if known >= Some(head.rank()) {
            return Ok(false);
        }
        self.displaced_by(&head.issuer(), head.rank())?;
        let keys = self.keys.as_ref().ok_or(Refusal::OtherNetwork)?;
        let time = self.time_for(head.time().max(head.delegation().serial().time()), unix_time);
        head.verify(keys, self.id, time, &self.revoked).map(|_| true)
    }

    /// Returns the issuer whose statement gives way to a newer one of another issuer.
    fn displaced_by(&self, issuer: &NodeId, rank: RulesRank) -> Result<Option<NodeId>, Refusal> {
        if self.rules.len() < MAX_CONTROLLERS || self.rules.contains_key(issuer) {
            return Ok(None);
        }
        let oldest = self.rules.iter().min_by_key(|(_, known)| known.signed.head().rank());
        match oldest.filter(|(_, known)| known.signed.head().rank() < rank) {
            Some((node, _)) => Ok(Some(*node)),
            None => Err(Refusal::Issuer),
        }
    }

    /// Takes over a statement whose signatures are right.
    pub(crate) fn take_rules(&mut self, signed: SignedRules) {
        let issuer = signed.head().issuer();
        if let Ok(displaced) = self.displaced_by(&issuer, signed.head().rank()) {
            displaced.and_then(|node| self.rules.remove(&node));
            // The signer is found now, because the key may have been learned after the peer's word.
            self.rules.insert(issuer, KnownRules::new(signed, self.keys.as_ref(), self.id));
        }
    }

    /// Forgets the statements of issuers that are revoked, or that a former network key has made.
    pub(super) fn forget_rules(&mut self, unix_time: Option<Duration>) {
        // By both clocks, as for heads.
        let now = unix_time.map(|own| self.time(own).min(own.into()));
        let mut rules = std::mem::take(&mut self.rules);
        rules.retain(|issuer, KnownRules { signed, signer }| {
            let is_former = |now| self.check_key(signer.as_ref(), now).is_err();
            !self.revoked.covers(issuer, signed.head().delegation().serial()) && !now.is_some_and(is_former)
        });
        self.rules = rules;
    }

    /// Returns true if other rules count than at the last call.
    pub(crate) fn take_rules_changed(&mut self) -> bool {
        let rank = self.rules().map(|signed| signed.head().rank());
        std::mem::replace(&mut self.reported_rules, rank) != rank
    }
}
