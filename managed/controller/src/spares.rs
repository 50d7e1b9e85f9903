//! Spares: members that may renew certificates while no controller answers.
//!
//! The right is a delegation by the network key, in the member's row. The member gets it with its next
//! certificate. It is signed again before it ends, and when a change of the member or the key has voided it.

use peersock_overlay::membership::{Delegation, NetworkSecret, Rights, Serial, Spare, UnixTime};
use peersock_overlay::{NetworkId, NodeId};

use crate::admin::ChangeError;
use crate::controller::{Controller, lock, note_issuer};
use crate::delegation::{self, DELEGATION_LIFETIME};
use crate::member::Member;
use crate::memory::{MARGIN, Memory};
use crate::network_key::RecoverError;
use crate::store::{StoreError, Write};

impl Controller {
    /// Maximum number of spares. Members remember eight controllers.
    pub const MAX_SPARES: usize = 4;

    /// Returns the network key for the signature of a spare's right.
    pub(crate) fn secret_for_spares(&self) -> Result<NetworkSecret, ChangeError> {
        let words = if self.memory().has_last_key() { self.recovery_words()? } else { None };
        words.map(|words| words.secret()).ok_or(ChangeError::KeyElsewhere)
    }

    /// Signs the rights of spares again that are due or void, if the network key is stored.
    pub(crate) fn renew_spares(&mut self, now: UnixTime) -> Result<(), RecoverError> {
        let due = self.memory().due_spares(now);
        if due.is_empty() {
            return Ok(());
        }
        let Ok(secret) = self.secret_for_spares() else { return Ok(()) };
        let (memory, known) = (self.shared(), self.network_keys());
        self.write_if(&known, |write, _| {
            let due = lock(&memory).due_spares(now);
            let network = lock(&memory).network;
            due.iter().try_for_each(|member| give_right(write, &secret, network, member, now))
        })
    }
}

impl Memory {
    /// Returns the members whose right to renew certificates has to be signed again.
    fn due_spares(&self, now: UnixTime) -> Vec<Member> {
        let is_due = |member: &&Member| {
            let right = member.spare.as_ref();
            right.is_some_and(|right| delegation::is_due(right, now) || !self.counts(right, member))
        };
        self.spares().filter(is_due).cloned().collect()
    }

    /// Returns the spares.
    pub(crate) fn spares(&self) -> impl Iterator<Item = &Member> {
        let all = self.spares.iter().filter_map(|node| self.members.get(node));
        all.filter(|member| member.is_member())
    }

    /// Returns true if a member is a spare, so that certificates may have been renewed unseen.
    pub(crate) fn has_spares(&self) -> bool {
        self.spares().next().is_some()
    }

    /// Returns true if the signature of a right counts: no revocation and no other key has come since.
    fn counts(&self, right: &Delegation, member: &Member) -> bool {
        let is_current =
            self.keys.signer_of(right, self.network).is_ok_and(|signer| signer == *self.keys.last());
        *right.issuer() == member.identity && right.serial() >= member.floor && is_current
    }

    /// Returns the right to renew certificates that a member gets with its certificate.
    pub(crate) fn right_of(&self, now: UnixTime, node: &NodeId) -> Option<Box<Spare>> {
        let member = self.members.get(node)?;
        let right = member.spare.as_ref()?;
        let counts = now < right.end() && self.counts(right, member);
        // The shortest time of all members, because a removal is published for a member's own time.
        let of_members = self.members.values().filter_map(|member| member.outlive);
        let all = of_members.chain(self.tag_outlive.values().copied()).chain([self.settings.outlive]);
        let lifetime = all.min().unwrap_or_default() + MARGIN;
        counts.then(|| Box::new(Spare::new(right.clone(), lifetime)))
    }
}

/// Takes the right to renew certificates from a member. Returns true if it had it: then its earlier
/// certificates must not count any more, because only a revocation voids the right.
pub(crate) fn take(write: &Write<'_>, member: &Member) -> Result<bool, StoreError> {
    let node = member.grant.node;
    write.run("UPDATE members SET spare = NULL WHERE node = ?", [node.as_bytes()])?;
    Ok(member.spare.is_some())
}

/// Makes a member a spare. `others` is the number of spares before.
pub(crate) fn give(
    write: &Write<'_>,
    secret: Option<&NetworkSecret>,
    network: NetworkId,
    member: &Member,
    others: usize,
    now: UnixTime,
) -> Result<(), ChangeError> {
    if member.grant.is_ephemeral {
        return Err(ChangeError::EphemeralSpare(member.grant.name.clone()));
    }
    if member.spare.is_some() {
        return Ok(());
    }
    if others >= Controller::MAX_SPARES {
        return Err(ChangeError::TooManySpares);
    }
    Ok(give_right(write, secret.ok_or(ChangeError::KeyElsewhere)?, network, member, now)?)
}

/// Returns when the last right of a spare ends for all clocks. Until then a spare that hears of no removal
/// may renew the certificate of a removed member.
pub(crate) fn end(write: &Write<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(i.ends), 0) FROM issuers i JOIN members m ON m.node = i.node
        WHERE m.spare IS NOT NULL";
    Ok(write.one(sql, [], |row| row.get(0))?.unwrap_or(0))
}

/// Signs the right of a member anew, above all that is revoked of it.
fn give_right(
    write: &Write<'_>,
    secret: &NetworkSecret,
    network: NetworkId,
    member: &Member,
    now: UnixTime,
) -> Result<(), StoreError> {
    let node = member.grant.node;
    let sql = "SELECT floor FROM members WHERE node = ?";
    let floor = write.one(sql, [node.as_bytes()], |row| row.get::<_, u64>(0))?.unwrap_or(0);
    let last = member.spare.as_ref().map(Delegation::serial).max(Some(Serial::from_u64(floor)));
    let serial = Serial::next(now, last);
    let right =
        Delegation::sign(secret, network, member.identity, serial, DELEGATION_LIFETIME, Rights::RENEWALS);
    write.run(
        "UPDATE members SET spare = ?2, changed = ?3 WHERE node = ?1",
        (node.as_bytes(), right.to_bytes(), write.change),
    )?;
    note_issuer(write, &right)
}
