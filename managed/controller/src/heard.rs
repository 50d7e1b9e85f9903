//! Removals that heads of members show: what this controller takes over, and what it publishes.
//!
//! A stolen key of another issuer signs removals at will. So those of other issuers are kept apart from the
//! controller's own ones, which are always published. The others share the room that these leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peersock_overlay::NodeId;
use peersock_overlay::membership::{
    CLOCK_TOLERANCE, Delegation, Head, Refusal, Revocation, Revocations, Serial, UnixTime,
};
use rusqlite::Connection;

use crate::clock::MAX_LEAP;
use crate::controller::{Controller, NoteError, longest_certificate, note_issuer, raise_floor};
use crate::delegation::OFFLINE_DELEGATION_LIFETIME;
use crate::member::{Member, millis, number};
use crate::memory::MARGIN;
use crate::settings::OUTLIVE;
use crate::store::{StoreError, Write};

/// Time after the first head from members in which the controller waits for newer ones.
const SETTLE_AFTER_HEAD: Duration = Duration::from_secs(5);

/// Number of removals of nodes that this controller does not know, of each other issuer. Eight issuers are
/// the most that members listen to.
const MAX_STRANGERS: usize = Revocations::MAX_ENTRIES / 8;

/// Number of removals of each other issuer that may last for longer than a certificate, because they may be
/// about issuers that this controller has not met.
const MAX_LASTING: usize = 64;

/// Returns the time at which the last certificate below a serial has ended for all clocks. Other issuers have
/// other settings.
fn end_of_certificates(below: Serial) -> UnixTime {
    below.time().plus(*OUTLIVE.end() + MARGIN + CLOCK_TOLERANCE)
}

/// Removals in a store.
struct Stored {
    /// Own and other removals, with the issuer of each other one.
    entries: BTreeMap<NodeId, (Revocation, Option<NodeId>)>,
    /// Issuers, and when the last delegation of each ends for all clocks.
    issuers: BTreeMap<NodeId, UnixTime>,
}

impl Stored {
    fn read(db: &Connection) -> Result<Self, StoreError> {
        let mut statement = db.prepare(
            "SELECT node, min_serial, until, issuer FROM heard
                UNION ALL SELECT node, min_serial, until, NULL FROM revocations",
        )?;
        let mut rows = statement.query([])?;
        let mut entries = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (node, entry) = read_entry(row)?;
            let issuer = row.get::<_, Option<[u8; 32]>>(3)?.map(NodeId::from_bytes);
            let (known, of) = entries.entry(node).or_insert((entry, issuer));
            known.min_serial = known.min_serial.max(entry.min_serial);
            known.until = known.until.max(entry.until);
            *of = of.and(issuer);
        }
        let mut statement = db.prepare("SELECT node, ends FROM issuers")?;
        let mut rows = statement.query([])?;
        let mut issuers = BTreeMap::new();
        while let Some(row) = rows.next()? {
            issuers.insert(NodeId::from_bytes(row.get(0)?), UnixTime::from_millis(row.get(1)?));
        }
        Ok(Self { entries, issuers })
    }

    /// Returns true if an entry lasts for longer than any certificate, and may be about an unknown issuer.
    fn is_lasting(&self, node: &NodeId, entry: &Revocation) -> bool {
        entry.until > end_of_certificates(entry.min_serial) && !self.issuers.contains_key(node)
    }

    /// Returns the entries of another issuer's set that this controller takes over, each with an end that a
    /// statement can have which it covers.
    fn select(
        &self,
        now: UnixTime,
        issuer: Option<&NodeId>,
        heard: &Revocations,
        is_known: impl Fn(&NodeId) -> bool,
    ) -> Vec<(NodeId, Revocation)> {
        let is_known = |node: &NodeId| self.issuers.contains_key(node) || is_known(node);
        let of_issuer = || {
            let all = self.entries.iter().filter(|(_, (_, of))| of.as_ref() == issuer);
            all.map(|(node, (entry, _))| (node, entry))
        };
        let mut strangers = of_issuer().filter(|(node, _)| !is_known(node)).count();
        let mut lasting = of_issuer().filter(|(node, entry)| self.is_lasting(node, entry)).count();
        let mut new = Vec::new();
        for (node, mut entry) in heard.iter() {
            let known = self.entries.get(&node).map(|(known, _)| known);
            let certificates = end_of_certificates(entry.min_serial);
            let delegations = match self.issuers.get(&node) {
                Some(ends) => *ends,
                None => entry.min_serial.time().plus(OFFLINE_DELEGATION_LIFETIME + CLOCK_TOLERANCE),
            };
            let is_lasting = self.is_lasting(&node, &entry);
            let counts = is_lasting && known.is_none_or(|known| !self.is_lasting(&node, known));
            let may_last = issuer.is_none() || !counts || lasting < MAX_LASTING;
            let latest = if may_last { delegations.max(certificates) } else { certificates };
            entry.until = entry.until.min(latest);
            let is_new =
                known.is_none_or(|known| known.min_serial < entry.min_serial || known.until < entry.until);
            if !is_new || entry.until <= now {
                continue;
            }
            if issuer.is_some() && known.is_none() && !is_known(&node) {
                if strangers >= MAX_STRANGERS {
                    continue;
                }
                strangers += 1;
            }
            lasting += usize::from(counts && may_last);
            new.push((node, entry));
        }
        new
    }
}

impl Controller {
    /// Learns a head that a member or another controller has shown, with its set in bytes. Returns true if
    /// it held something new.
    ///
    /// A later epoch of this controller than the store's means that the store is an old copy. Another one's
    /// epoch says nothing, only its set does. A member that was revoked there after its admission here is
    /// held until a person approves it, because a revocation does not say why it was made. What it has got in
    /// between is void.
    ///
    /// Of another issuer's set, removals of members and issuers count that this controller knows, and 1,250
    /// others. None counts against the controller's own node: it obeys the network key alone.
    ///
    /// # Errors
    /// Returns a [`NoteError`] if the head does not count, or the store fails.
    pub fn note_head(&mut self, now: UnixTime, head: &Head, set: &[u8]) -> Result<bool, NoteError> {
        let (system, now) = (now, self.time(now));
        self.notice()?;
        let stored = Stored::read(self.store.db())?;
        let issuer = head.issuer();
        let (new, other, epoch) = {
            let memory = self.memory();
            // Its controller's clock may be ahead. Until the time has come, this controller must not certify
            // whom that one has removed, because a serial of that time would count. By the system's clock,
            // because members take none of this controller's heads whose serials are further ahead.
            let signed = head.time().max(head.delegation().serial().time());
            let last = if memory.clock.has_leapt() { now } else { system.plus(MAX_LEAP) };
            let at = now.max(signed.min(last));
            head.verify(&memory.keys, memory.network, at, &memory.revoked)?;
            let heard = head.read_set(set).ok_or(Refusal::Malformed)?;
            let own = memory.identity.node_id();
            let other = Some(issuer).filter(|issuer| *issuer != own);
            let mut new =
                stored.select(now, other.as_ref(), &heard, |node| memory.members.contains_key(node));
            new.retain(|(node, _)| *node != own);
            (new, other, memory.epoch)
        };
        // A stolen key of another issuer must not lead this one's epochs, which may not exceed the time.
        let is_timely = head.epoch() <= system.as_millis();
        let is_ahead = other.is_none() && head.epoch() > epoch && is_timely;
        let is_new = is_ahead || !new.is_empty();
        let known = stored.issuers.get(&issuer);
        if is_new || known.is_none_or(|ends| *ends < end_of(head.delegation())) {
            let rest = longest_certificate(&self.settings());
            let last = if is_ahead { head.epoch() } else { epoch };
            let next = i64::try_from(last).unwrap_or(i64::MAX).saturating_add(1);
            let memory = self.shared();
            self.write(|write, _| {
                note_issuer(write, head.delegation())?;
                for (node, entry) in &new {
                    let member = crate::controller::lock(&memory).members.get(node).cloned();
                    let before = stored.entries.get(node).map(|(entry, _)| entry.min_serial);
                    let is_later = before.is_none_or(|before| before < entry.min_serial);
                    let held = member.filter(|_| is_later);
                    note_entry(write, node, *entry, &issuer, other.is_none(), held.as_ref())?;
                }
                if is_ahead {
                    // Addresses that the lost part of the store has given may have holders.
                    let until = millis(now.plus(rest));
                    write.run("UPDATE network SET pools_rest_until = max(pools_rest_until, ?)", [until])?;
                    write.log(millis(now), "controller", "old store", &head.epoch().to_string())?;
                }
                if is_new {
                    write.run("UPDATE network SET epoch = ?", [next])?;
                }
                Ok::<_, StoreError>(())
            })?;
        }
        // A spare knows no removals.
        if self.is_serving && !head.delegation().rights().renews_only {
            let soon = now.plus(SETTLE_AFTER_HEAD);
            let until = self.memory().unsettled_until;
            if soon < until {
                self.settle(soon)?;
            }
            let mut memory = self.memory();
            memory.renewals_rest_until = memory.renewals_rest_until.min(soon);
        }
        Ok(is_new)
    }
}

/// Returns when a delegation has ended for all clocks.
pub(crate) fn end_of(delegation: &Delegation) -> UnixTime {
    delegation.end().plus(CLOCK_TOLERANCE)
}

/// Writes a removal that a head has shown. `is_own` is true if its issuer is this controller. Holds `member`
/// if it was admitted before the removal.
fn note_entry(
    write: &Write<'_>,
    node: &NodeId,
    mut entry: Revocation,
    issuer: &NodeId,
    is_own: bool,
    member: Option<&Member>,
) -> Result<(), StoreError> {
    if let Some(member) = member.filter(|member| member.joined < entry.min_serial.time()) {
        // An admission is a decision, and a renewal is none: it may have been made from an old store.
        let floor = entry.min_serial.max(Serial::next(UnixTime::default(), Some(member.serial)));
        let is_held = write.run(
            "UPDATE members SET state = 1, copied = 0, floor = max(floor, ?2), changed = ?3
                WHERE node = ?1 AND (state = 0 OR copied > 0)",
            (node.as_bytes(), number(floor), write.change),
        )? > 0;
        if is_held {
            entry.min_serial = floor;
            entry.until = entry.until.max(member.ends.plus(CLOCK_TOLERANCE));
        }
    }
    if is_own {
        raise_floor(write, node, entry.min_serial, entry.until)?;
    }
    // Own ones, too: they tell from an old invite that its machine was removed.
    write.run(
        "INSERT INTO heard (node, issuer, min_serial, until) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (node) DO UPDATE
            SET min_serial = max(min_serial, excluded.min_serial), until = max(until, excluded.until)",
        (node.as_bytes(), issuer.as_bytes(), number(entry.min_serial), millis(entry.until)),
    )?;
    Ok(())
}

/// Raises another issuer's removal that does not reach a certificate of this controller. Returns false if
/// there is none, or the controller has removed the node itself.
pub(crate) fn raise(
    write: &Write<'_>,
    node: &NodeId,
    floor: Serial,
    until: UnixTime,
) -> Result<bool, StoreError> {
    let is_heard = write.run(
        "UPDATE heard SET min_serial = max(min_serial, ?2), until = max(until, ?3)
            WHERE node = ?1 AND NOT EXISTS (SELECT 1 FROM revocations WHERE node = ?1)",
        (node.as_bytes(), number(floor), millis(until)),
    )? > 0;
    if is_heard {
        let sql = "UPDATE members SET floor = max(floor, ?2), changed = ?3 WHERE node = ?1";
        write.run(sql, (node.as_bytes(), number(floor), write.change))?;
    }
    Ok(is_heard)
}

/// Returns the removals that this controller publishes: its own ones, and as many others as have room.
///
/// Among the others those of issuers come first, then those of members, and the issuers who have signed them
/// take turns.
pub(crate) fn published(db: &Connection) -> Result<Revocations, StoreError> {
    let (mut nodes, mut entries) = (BTreeSet::new(), Vec::new());
    for sql in [
        "SELECT node, min_serial, until FROM revocations r
            ORDER BY EXISTS (SELECT 1 FROM issuers WHERE node = r.node) DESC,
                EXISTS (SELECT 1 FROM members WHERE node = r.node) DESC",
        "WITH ranked AS (
            SELECT *, EXISTS (SELECT 1 FROM issuers WHERE node = h.node) * 2
                + EXISTS (SELECT 1 FROM members WHERE node = h.node) AS rank FROM heard h
        ), placed AS (
            SELECT *, row_number() OVER (PARTITION BY rank, issuer ORDER BY min_serial DESC, node) AS place
                FROM ranked
        ) SELECT node, min_serial, until FROM placed ORDER BY rank DESC, place, issuer",
    ] {
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (node, entry) = read_entry(row)?;
            if nodes.len() < Revocations::MAX_ENTRIES || nodes.contains(&node) {
                nodes.insert(node);
                entries.push((node, entry));
            }
        }
    }
    Ok(entries.into_iter().collect())
}

/// Returns the times of all removals that heads have shown.
pub(crate) fn times(db: &Connection) -> Result<BTreeMap<NodeId, UnixTime>, StoreError> {
    let mut statement = db.prepare("SELECT node, min_serial, until FROM heard")?;
    let mut rows = statement.query([])?;
    let mut times = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (node, entry) = read_entry(row)?;
        times.insert(node, entry.min_serial.time());
    }
    Ok(times)
}

fn read_entry(row: &rusqlite::Row<'_>) -> Result<(NodeId, Revocation), StoreError> {
    let (min_serial, until) = (Serial::from_u64(row.get(1)?), UnixTime::from_millis(row.get(2)?));
    Ok((NodeId::from_bytes(row.get(0)?), Revocation { min_serial, until }))
}
