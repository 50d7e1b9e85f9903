//! The network's key, where the controller has it: renewed delegations, and another key.

use peersock_overlay::membership::{Delegation, MemberName, NetworkKeys, Role, Succession, UnixTime};
use rand::CryptoRng;
use thiserror::Error;

use crate::addresses::Hints;
use crate::admission::{Admission, Fail, Known, Round};
use crate::controller::{Controller, NoteError, bump_epoch, longest_certificate, note_issuer};
use crate::keys::RecoveryWords;
use crate::member::{Member, millis};
use crate::settings::Settings;
use crate::store::{StoreError, Write};
use crate::{delegation, own_key};

impl Controller {
    /// Renews the delegation, and those of spares, if a third of its lifetime has passed and the network key
    /// is stored. Returns true if the controller's own one was renewed. Call this once an hour or so.
    ///
    /// # Errors
    /// Returns a [`RecoverError`]; the delegation is as before.
    pub fn delegate(&mut self, now: UnixTime) -> Result<bool, RecoverError> {
        let now = self.time(now);
        self.notice()?;
        let (is_due, is_own) = {
            let memory = self.memory();
            // Members would take the time of a delegation for the right one.
            if memory.clock.has_leapt() {
                return Ok(false);
            }
            // Another controller may have changed the key, and then the words are needed.
            if !memory.has_last_key() {
                return Ok(false);
            }
            let is_own = memory.delegation.issuer() == memory.identity.public();
            (delegation::is_due(&memory.delegation, now), is_own)
        };
        self.renew_spares(now)?;
        if !is_due && is_own {
            return Ok(false);
        }
        let words = self.recovery_words()?.ok_or(RecoverError::OtherIdentity)?;
        let (known, renewal) = (self.network_keys(), self.sign_delegation(now, &words, false));
        match self.write_if(&known, |write, _| renewal.write(write, now, "controller")) {
            Ok(()) => Ok(true),
            // The delegation is renewed by the new key, then.
            Err(RecoverError::Changed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renews the delegation by the recovery words. Makes the controller's own node an administrator if it is
    /// no member, because its identity is a new one; it gets the name `wish` or a similar one. With
    /// `is_offline`, the network key is removed from the store and from its write-ahead log. Returns false if
    /// another process uses the log, which may keep the key then.
    ///
    /// # Errors
    /// Returns [`RecoverError::OtherNetwork`] for the words of another network, or of a key that is not known
    /// here ([`Self::note_keys`]), and [`RecoverError::Followed`] for those of a former key; the store is as
    /// before.
    pub fn recover(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        who: &str,
        words: &RecoveryWords,
        wish: Option<MemberName>,
        is_offline: bool,
    ) -> Result<bool, RecoverError> {
        let now = self.time(now);
        self.check_words(words)?;
        let sealed = (!is_offline).then(|| self.keys.seal(words, rng));
        let own = *self.memory().identity.public();
        let is_member = self.memory().members.get(&own.node_id()).is_some_and(Member::is_member);
        let (keys, known) = (self.keys.clone(), self.network_keys());
        let links = known.successions().len();
        let rest = millis(now.plus(longest_certificate(&self.settings())));
        let renewal = self.sign_delegation(now, words, is_offline);
        self.write_if(&known, |write, hints| {
            if write.run("UPDATE network SET links = ?1 WHERE links <> ?1", [links])? > 0 {
                bump_epoch(write)?;
            }
            write.run("UPDATE network SET sealed = ?", [sealed])?;
            if !is_member {
                // The store may be an old copy, and members have addresses that were given later.
                write.run("UPDATE network SET pools_rest_until = max(pools_rest_until, ?)", [rest])?;
                // The controller runs elsewhere now, with another identity. Addresses follow at its renewal.
                let admission =
                    Admission { wish, role: Role::Admin, admitted_by: who, ..Admission::of(&own) };
                let known = Known::New(&Settings::default());
                let mut round = Round { write, hints, now, known, keys: &keys, rng: &mut *rng };
                if let Err(Fail::Store(error)) = round.admit(&admission) {
                    return Err(error);
                }
            }
            renewal.write(write, now, who)
        })?;
        Ok(!is_offline || self.store.end_log().is_ok())
    }

    /// Checks that words are those of the network's last key.
    pub(crate) fn check_words(&self, words: &RecoveryWords) -> Result<(), RecoverError> {
        let (keys, key) = (self.network_keys(), words.secret().public());
        match keys.contains(&key) {
            _ if key == *keys.last() => Ok(()),
            true => Err(RecoverError::Followed),
            false => Err(RecoverError::OtherNetwork),
        }
    }

    /// Learns successions of the network's key, which this machine has learned as a member or another
    /// controller has signed. Returns true if one was new.
    ///
    /// The right to issue certificates stays that of the former key until [`Self::recover`] renews it.
    ///
    /// # Errors
    /// Returns a [`NoteError`] if one does not count, or the store fails.
    pub fn note_keys(&mut self, now: UnixTime, successions: &[Succession]) -> Result<bool, NoteError> {
        let now = self.time(now);
        self.notice()?;
        let known = self.network_keys();
        let keys = known.extended(self.network(), successions)?;
        if keys == known {
            return Ok(false);
        }
        let noted = self.write_if(&known, |write, _| {
            write.run("UPDATE network SET successions = ?", [to_bytes(keys.successions())])?;
            write.log(millis(now), "controller", "learn key", &keys.last().to_string())
        });
        match noted {
            Ok(()) => Ok(true),
            Err(RecoverError::Store(error)) => Err(error.into()),
            Err(_) => Err(StoreError::Busy.into()),
        }
    }

    /// Draws the next key of the network. `words` are those of the present one; without them it is the one in
    /// the store. Nothing changes before [`Self::rekey`], so that its words can be shown first.
    ///
    /// # Errors
    /// Returns a [`RecoverError`].
    pub fn draw_next_key(
        &mut self,
        rng: &mut dyn CryptoRng,
        words: Option<&RecoveryWords>,
    ) -> Result<NextKey, RecoverError> {
        self.notice()?;
        let present = match words {
            Some(words) => words.clone(),
            None if !self.memory().has_secret => return Err(RecoverError::Offline),
            None => self.recovery_words()?.ok_or(RecoverError::OtherIdentity)?,
        };
        self.check_words(&present)?;
        if self.network_keys().successions().len() >= NetworkKeys::MAX_SUCCESSIONS {
            return Err(RecoverError::TooManyKeys);
        }
        Ok(NextKey { present, next: RecoveryWords::draw(rng) })
    }

    /// Replaces the network's key by the next one, and renews the delegation by it. Delegations by the former
    /// key count until `end`; other controllers have to renew theirs by the new words until then.
    ///
    /// With `is_offline`, the key is not stored, and the former one is removed as by [`Self::recover`].
    /// Returns false if another process reads the log, which keeps the former key then.
    ///
    /// # Errors
    /// Returns a [`RecoverError`], for example if another command has replaced the key meanwhile; the store
    /// is as before.
    pub fn rekey(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        who: &str,
        next: &NextKey,
        end: UnixTime,
        is_offline: bool,
    ) -> Result<bool, RecoverError> {
        let now = self.time(now);
        self.notice()?;
        self.check_words(&next.present)?;
        let is_own = {
            let memory = self.memory();
            memory.delegation.issuer() == memory.identity.public()
        };
        if !is_own {
            return Err(RecoverError::OtherIdentity);
        }
        let known = self.network_keys();
        let mut successions = known.successions().to_vec();
        if successions.len() >= NetworkKeys::MAX_SUCCESSIONS {
            return Err(RecoverError::TooManyKeys);
        }
        let key = next.next.secret().public();
        successions.push(Succession::sign(&next.present.secret(), self.network(), key, end));
        let sealed = (!is_offline).then(|| self.keys.seal(&next.next, rng));
        let renewal = self.sign_delegation(now, &next.next, is_offline);
        self.write_if(&known, |write, _| {
            write.run(
                "UPDATE network SET sealed = ?, successions = ?, links = ?",
                (sealed, to_bytes(&successions), successions.len()),
            )?;
            // Members keep the head that they have unless the next one is newer, and that needs the new key.
            bump_epoch(write)?;
            write.log(millis(now), who, "rekey", &key.to_string())?;
            renewal.write(write, now, who)
        })?;
        // The new key counts from now on, whatever becomes of the log.
        Ok(!is_offline || self.store.end_log().is_ok())
    }

    /// Runs a transaction that was prepared with these keys of the network, unless another process has
    /// changed them since.
    pub(crate) fn write_if(
        &mut self,
        keys: &NetworkKeys,
        steps: impl FnOnce(&Write<'_>, &mut Hints) -> Result<(), StoreError>,
    ) -> Result<(), RecoverError> {
        self.write(|write, hints| {
            let is_same = "SELECT 1 FROM network WHERE successions = ?";
            write.one(is_same, [to_bytes(keys.successions())], |_| Ok(()))?.ok_or(RecoverError::Changed)?;
            Ok(steps(write, hints)?)
        })
    }

    /// Returns true if a network key is stored here, which may be a former one.
    pub fn has_key(&self) -> bool {
        self.memory().has_secret
    }

    fn sign_delegation(&self, now: UnixTime, words: &RecoveryWords, is_offline: bool) -> Renewal {
        let memory = self.memory();
        // Members would take the time of a delegation for the right one.
        let (now, last) = (memory.clock.for_members(now), Some(memory.delegation.serial()));
        let (own, network) = (*memory.identity.public(), memory.network);
        let next = delegation::sign(&words.secret(), network, own, now, last, is_offline);
        let bytes = next.to_bytes();
        Renewal { before: memory.delegation.clone(), next, bytes }
    }
}

/// Words of a network's present key, and of the one that is to follow it. They are erased on drop.
#[derive(Debug)]
pub struct NextKey {
    present: RecoveryWords,
    next: RecoveryWords,
}

impl NextKey {
    /// Returns the words of the next key, which restore the network once it has followed.
    pub fn words(&self) -> &RecoveryWords {
        &self.next
    }
}

/// Returns the bytes of successions.
pub(crate) fn to_bytes(successions: &[Succession]) -> Vec<u8> {
    successions.iter().flat_map(Succession::to_bytes).collect()
}

/// Delegation that replaces another one.
struct Renewal {
    before: Delegation,
    next: Delegation,
    bytes: Vec<u8>,
}

impl Renewal {
    fn write(&self, write: &Write<'_>, now: UnixTime, who: &str) -> Result<(), StoreError> {
        // Another node may have the one before, which is not void because there is a later one.
        note_issuer(write, &self.before)?;
        note_issuer(write, &self.next)?;
        own_key::drop_prepared(write)?;
        write.run("UPDATE network SET delegation = ?", [&self.bytes])?;
        write.log(millis(now), who, "delegate", "")
    }
}

/// Reason why a delegation cannot be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The words are those of another network.
    #[error("the recovery words belong to another network")]
    OtherNetwork,
    /// The network key was sealed for another identity, so only the recovery words help.
    #[error("the network key is sealed for another identity of the controller")]
    OtherIdentity,
    /// Another key has followed the one of the words.
    #[error("another key of the network has replaced the one of these words")]
    Followed,
    /// Another process has changed the network's key meanwhile.
    #[error("another command has just changed the network's key")]
    Changed,
    /// The network key is not in the store, so its words are needed.
    #[error("the network key is not stored here")]
    Offline,
    /// The network has had as many keys as credentials can show.
    #[error("the network's key was changed {max} times, and cannot change again", max = NetworkKeys::MAX_SUCCESSIONS)]
    TooManyKeys,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}
