//! Change of the controller's own node key in place.
//!
//! [`Controller::prepare_node_key`] writes what the next key needs into the store. Then the caller replaces
//! the machine's identity by one rename, which alone decides: [`Controller::open`] with the next key takes it
//! up in one transaction, and [`Controller::open`] with the former key goes on as if nothing was prepared. So
//! a crash at any point leaves a controller whose right is for the key that the machine has.
//!
//! The former key is an issuer until the last certificate that it has signed has ended, or is revoked at
//! once.

use std::time::Duration;

use peersock_overlay::membership::{CLOCK_TOLERANCE, Delegation, Serial, UnixTime};
use peersock_overlay::{Identity, NodeId, PublicIdentity};
use rand::CryptoRng;
use rusqlite::Connection;

use crate::clock::MAX_LEAP;
use crate::controller::{Controller, bump_epoch, note_issuer, raise_floor};
use crate::delegation;
use crate::keys::{Keys, RecoveryWords};
use crate::member::{Member, millis, number, read_identity};
use crate::network_key::RecoverError;
use crate::store::{Store, StoreError, Write};

impl Controller {
    /// Prepares another node key for this controller, in place of one that was prepared before. It counts
    /// once [`Self::open`] gets its seed, as the machine's identity. Until then nothing else has changed, and
    /// [`Self::start`] with the present key drops it.
    ///
    /// `words` are those of the network's key; without them it is the one in the store. With `is_now`, all
    /// former keys of this controller are revoked when the next one counts. Otherwise the present one stays
    /// an issuer until the time that is returned, because members have certificates that it has signed.
    ///
    /// No process may serve the network meanwhile, because it would sign by the present key.
    ///
    /// # Errors
    /// Returns [`RecoverError::Offline`] if the network's key is not in the store and there are no words, and
    /// other [`RecoverError`]s; the store is as before.
    pub fn prepare_node_key(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        who: &str,
        seed: &[u8; 32],
        words: Option<&RecoveryWords>,
        is_now: bool,
    ) -> Result<UnixTime, RecoverError> {
        let now = self.time(now);
        self.notice()?;
        let has_secret = self.memory().has_secret;
        let words = match words {
            Some(words) => words.clone(),
            None if !has_secret => return Err(RecoverError::Offline),
            None => self.recovery_words()?.ok_or(RecoverError::OtherIdentity)?,
        };
        self.check_words(&words)?;
        let (keys, next) = Keys::from_seed(seed);
        let (former, lasts, before, network) = {
            let memory = self.memory();
            let own = *memory.identity.public();
            let is_member = memory.members.get(&own.node_id()).is_some_and(Member::is_member);
            if *memory.delegation.issuer() != own || !is_member || *next.public() == own {
                return Err(RecoverError::OtherIdentity);
            }
            (own.node_id(), memory.longest_lifetime(), memory.delegation.serial(), memory.network)
        };
        let known = self.network_keys();
        let at = self.memory().clock.for_members(now);
        let signed =
            delegation::sign(&words.secret(), network, *next.public(), at, Some(before), !has_secret);
        let sealed = has_secret.then(|| keys.seal(&words, rng));
        let retires = if is_now { now } else { now.plus(lasts + CLOCK_TOLERANCE) };
        self.write_if(&known, |write, _| {
            drop_prepared(write)?;
            write.run(
                "INSERT INTO next_key (one, identity, former, sealed, links, delegation, at, retires, is_now, who)
                    VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    next.public().to_bytes(),
                    former.as_bytes(),
                    sealed,
                    known.successions().len(),
                    signed.to_bytes(),
                    millis(now),
                    millis(retires),
                    is_now,
                    who,
                ),
            )?;
            Ok(())
        })?;
        Ok(retires)
    }

    /// Drops a key that was prepared and is not the machine's.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn drop_prepared_key(&mut self) -> Result<(), StoreError> {
        if Prepared::read(self.store.db())?.is_none() {
            return Ok(());
        }
        self.write(|write, _| drop_prepared(write))
    }

    /// Returns the members whose last certificate a former key of this controller has signed, those that were
    /// heard last first. They may know no way to this node, so it has to go to them.
    pub fn members_to_visit(&mut self) -> Vec<PublicIdentity> {
        let memory = self.memory();
        let own = memory.identity.node_id();
        let is_left = |(node, member): &(&NodeId, &Member)| {
            member.is_member() && **node != own && member.serial.time() <= memory.rekeyed
        };
        let mut left: Vec<_> = memory.members.iter().filter(is_left).map(|(_, member)| member).collect();
        left.sort_by_key(|member| std::cmp::Reverse(member.seen));
        left.into_iter().map(|member| member.identity).collect()
    }
}

/// Key that was prepared.
struct Prepared {
    identity: PublicIdentity,
    former: NodeId,
    sealed: Option<Vec<u8>>,
    links: usize,
    delegation: Vec<u8>,
    at: UnixTime,
    retires: UnixTime,
    is_now: bool,
    who: String,
}

impl Prepared {
    fn read(db: &Connection) -> Result<Option<Self>, StoreError> {
        let mut statement = db.prepare(
            "SELECT identity, former, sealed, links, delegation, at, retires, is_now, who FROM next_key",
        )?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(Self {
            identity: read_identity(row.get(0)?)?,
            former: NodeId::from_bytes(row.get(1)?),
            sealed: row.get(2)?,
            links: row.get(3)?,
            delegation: row.get(4)?,
            at: UnixTime::from_millis(row.get(5)?),
            retires: UnixTime::from_millis(row.get(6)?),
            is_now: row.get(7)?,
            who: row.get(8)?,
        }))
    }

    fn is_for(&self, own: &PublicIdentity) -> bool {
        self.identity == *own
    }
}

/// Drops a key that was prepared. It follows from each other change of the right to issue certificates,
/// because the key's own right and its sealed copy of the network's key are former ones then.
pub(crate) fn drop_prepared(write: &Write<'_>) -> Result<(), StoreError> {
    write.run("DELETE FROM next_key", []).map(|_| ())
}

/// Takes up the key that was prepared, if it is this machine's identity now.
pub(crate) fn take_up(store: &Store, own: &Identity) -> Result<(), StoreError> {
    let own = own.public();
    if !Prepared::read(store.db())?.is_some_and(|next| next.is_for(own)) {
        return Ok(());
    }
    store.write(|write| {
        // Another process may have done so meanwhile.
        match Prepared::read(write.db())?.filter(|next| next.is_for(own)) {
            Some(next) => next.take_up(write),
            None => Ok(()),
        }
    })?;
    // The former key opens what it has sealed. A process that reads the log keeps it there for now.
    let _ = store.end_log();
    Ok(())
}

impl Prepared {
    fn take_up(&self, write: &Write<'_>) -> Result<(), StoreError> {
        let before = write.one("SELECT delegation FROM network", [], |row| row.get::<_, Vec<u8>>(0))?;
        let before = delegation::read(&before.unwrap_or_default())?;
        let next = delegation::read(&self.delegation)?;
        let name = self.take_over(write)?;
        note_issuer(write, &before)?;
        note_issuer(write, &next)?;
        self.retire_former(write, &before)?;
        write.run(
            "UPDATE network SET delegation = ?1, sealed = ?2, links = ?3,
                rekeyed = max(?4, coalesce((SELECT max(serial) FROM members WHERE serial <= ?5), 0))",
            (&self.delegation, &self.sealed, self.links, millis(self.at), millis(self.at.plus(MAX_LEAP))),
        )?;
        // The next head has another issuer, whose first one is new for all members.
        bump_epoch(write)?;
        drop_prepared(write)?;
        let what = format!("{name} {} {}", self.former, self.identity.node_id());
        write.log(millis(self.at), &self.who, "rekey controller", &what)
    }

    /// Gives the node all that the controller's member has, and returns its name.
    fn take_over(&self, write: &Write<'_>) -> Result<String, StoreError> {
        let (former, node, at) = (self.former.as_bytes(), self.identity.node_id(), millis(self.at));
        let sql = "SELECT name FROM members WHERE node = ? AND state < 2";
        let name = write.one(sql, [former], |row| row.get::<_, String>(0))?;
        let name = name.ok_or_else(|| StoreError::value("controller's own member"))?;
        write.run(
            "UPDATE members SET state = 2, removed = ?2, copied = 0, changed = ?3 WHERE node = ?1",
            (former, at, write.change),
        )?;
        // Members take name and addresses from the certificate with the larger serial.
        write.run(
            "INSERT INTO members (node, identity, state, name, role, is_ephemeral, tags, claims, outlive, floor,
                serial, ends, seen, run, starts, source, description, admitted_by, joined, removed, copied, changed)
                SELECT ?2, ?3, 0, name, role, is_ephemeral, tags, claims, outlive, 0,
                    max(serial, ?4), ends, seen, 0, 0, source, description, admitted_by, ?4, 0, 0, ?5
                FROM members WHERE node = ?1",
            (former, node.as_bytes(), self.identity.to_bytes(), at, write.change),
        )?;
        let both = (former, node.as_bytes());
        write.run("UPDATE addresses SET node = ?2 WHERE node = ?1 AND until IS NULL", both)?;
        write.run("UPDATE reservations SET node = ?2 WHERE node = ?1", both)?;
        write.run("UPDATE token_uses SET is_removed = 1 WHERE node = ?", [former])?;
        let both = (self.former.to_string(), node.to_string());
        write.run("UPDATE tokens SET made_by = ?2 WHERE made_by = ?1", both)?;
        Ok(name)
    }

    /// Plans the end of the former key, or revokes it with all earlier ones.
    fn retire_former(&self, write: &Write<'_>, last: &Delegation) -> Result<(), StoreError> {
        // Certificates may have been signed before times without a controller became shorter.
        write.run(
            "UPDATE issuers SET last_serial = ?2,
                retires = max(?3, coalesce((SELECT max(ends) + ?4 FROM members WHERE state < 2), 0))
                WHERE node = ?1",
            (
                self.former.as_bytes(),
                number(last.serial()),
                millis(self.retires),
                crate::member::span(CLOCK_TOLERANCE),
            ),
        )?;
        if self.is_now {
            write.run("UPDATE issuers SET retires = ?1 WHERE retires > ?1", [millis(self.at)])?;
            retire(write, self.at, self.at)?;
        }
        Ok(())
    }
}

/// Revokes the former keys of this controller whose time has come, above `signed`, the last time by which it
/// has signed.
pub(crate) fn retire(write: &Write<'_>, now: UnixTime, signed: UnixTime) -> Result<(), StoreError> {
    let mut statement = write.db().prepare(
        "SELECT node, last_serial, coalesce((SELECT serial FROM members WHERE node = i.node), 0)
            FROM issuers i WHERE retires <= ?",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let serial = row.get::<_, i64>(1)?.max(row.get::<_, i64>(2)?);
        Ok((NodeId::from_bytes(row.get(0)?), Serial::from_u64(serial.cast_unsigned())))
    };
    let due: Vec<(NodeId, Serial)> = statement.query_map([millis(now)], read)?.collect::<Result<_, _>>()?;
    for (node, last) in &due {
        // Above the clock as well: a crash may have lost the note of the last certificate.
        let floor = Serial::next(signed.max(now).plus(Duration::from_millis(1)), Some(*last));
        raise_floor(write, node, floor, now.plus(CLOCK_TOLERANCE))?;
        write.run("UPDATE issuers SET retires = NULL WHERE node = ?", [node.as_bytes()])?;
        write.log(millis(now), "controller", "retire key", &node.to_string())?;
    }
    if due.is_empty() { Ok(()) } else { bump_epoch(write) }
}
