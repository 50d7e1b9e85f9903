//! Signs of life and renewals that are written later, and forgetting of what has ended.

use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::NodeId;
use peersock_overlay::membership::UnixTime;

use crate::addresses::Hints;
use crate::controller::{Controller, bump_epoch};
use crate::member::{FORGOTTEN, Member, Standing, millis, number, to_mapped};
use crate::memory::Memory;
use crate::store::{StoreError, Write};
use crate::{log, own_key, pending};

/// Interval in which revocations are forgotten. Each time, all members fetch the set again.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// Time for which the clock runs on evenly before anything is forgotten by it. After a start or a leap it may
/// be wrong, until the machine hears the right time.
const STEADY_FOR: Duration = Duration::from_secs(3600);

/// Time for which removed members and ended invites stay in the store.
const KEEP_ENDED: Duration = Duration::from_secs(30 * 86_400);

/// Time after its last question for which a machine stays on the list of those that wait.
const KEEP_WAITING: Duration = Duration::from_secs(7 * 86_400);

/// Times of [`Controller::flush`].
#[derive(Default)]
pub(crate) struct Flushes {
    last: UnixTime,
    /// Time from which on the clock is taken for right.
    steady_from: UnixTime,
    /// Time from which on the next one forgets what has ended.
    forget_at: UnixTime,
}

impl Controller {
    /// Notes that a session with a member is alive. Signs of life decide which of two runs of one identity is
    /// kept, and when the name of an ephemeral member is free.
    pub fn note_heard(&mut self, now: UnixTime, node: &NodeId, source: IpAddr) {
        let now = self.time(now);
        let mut memory = self.memory();
        let Some(member) = memory.members.get_mut(node) else { return };
        if member.note_sign(now, source) {
            memory.dirty.insert(*node);
        }
    }

    /// Notes that sessions have shown two runs of a member at the same time: of two nodes with its keys, each
    /// has come back after the other one. `places` are their addresses, which may be the same.
    ///
    /// Only who has the member's keys can bring that about. With [`OnClone::RefuseBoth`](crate::OnClone), the
    /// member is held from now on, and the next [`Self::flush`] writes that.
    pub fn note_both(&mut self, now: UnixTime, node: &NodeId, places: [IpAddr; 2]) {
        let now = self.time(now);
        self.memory().note_both(now, node, places);
    }

    /// Writes what renewals have changed, and forgets what has ended if this process serves. Call this every
    /// 30 s or so.
    ///
    /// # Errors
    /// Returns a [`StoreError`]; what was to be written is kept for the next call.
    pub fn flush(&mut self, now: UnixTime) -> Result<(), StoreError> {
        let done = self.flush_all(now);
        self.note_fault(done.clone());
        done
    }

    /// `now` is the system's clock, which is never ahead of the time by which this controller signs.
    fn flush_all(&mut self, now: UnixTime) -> Result<(), StoreError> {
        self.notice()?;
        // The next answer notices a clock that was set back.
        if self.memory().clock.runs_on(now) {
            self.time(now);
        }
        let (dirty, waiting, second_runs, holds) = {
            let memory = self.memory();
            let dirty: Vec<(NodeId, Member)> = memory
                .dirty
                .iter()
                .filter_map(|node| Some((*node, memory.members.get(node)?.clone())))
                .collect();
            let waiting: Vec<_> =
                memory.pending.iter().map(|(node, waiting)| (*node, waiting.last)).collect();
            let copied = |node: &NodeId| Some((*node, memory.members.get(node)?.copied));
            let holds: Vec<_> = memory.unwritten_holds.iter().filter_map(copied).collect();
            (dirty, waiting, memory.unlogged_runs.clone(), holds)
        };
        let has_jumped = now < self.flushes.last || now.since(self.flushes.last) >= FORGET_INTERVAL;
        if has_jumped {
            self.flushes.steady_from = now.plus(STEADY_FOR);
        }
        self.flushes.last = now;
        let is_serving = self.is_serving;
        let (signed, has_leapt) = {
            let clock = &self.memory().clock;
            (clock.last(), clock.has_leapt())
        };
        let is_steady = is_serving && now >= self.flushes.steady_from && !has_leapt;
        let forgets = is_steady && now >= self.flushes.forget_at;
        let over = if forgets { over(&self.memory(), now) } else { Vec::new() };
        let given_up: Vec<_> = waiting
            .iter()
            .filter(|(_, last)| forgets && last.plus(KEEP_WAITING) <= now)
            .map(|(node, _)| *node)
            .collect();
        let (has_settled, has_pools_again) = {
            let memory = self.memory();
            let is_restored = memory.restored != UnixTime::default();
            let rests = !is_serving || has_leapt || memory.renewals_rest_until > now;
            let has_settled = is_restored && !rests;
            (has_settled, memory.pools_rest() && memory.pools_rest_until <= now)
        };
        self.write(|write, hints| {
            write_notes(write, &dirty)?;
            for (node, run) in &second_runs {
                log::write_second_run(write, node, run)?;
            }
            for (node, copied) in &holds {
                write.run(
                    "UPDATE members SET state = 1, copied = ?2, changed = ?3 WHERE node = ?1 AND state = 0",
                    (node.as_bytes(), millis(*copied), write.change),
                )?;
            }
            for (node, last) in &waiting {
                write.run(
                    "UPDATE pending SET last = ?2 WHERE node = ?1 AND last < ?2",
                    (node.as_bytes(), millis(*last)),
                )?;
            }
            if is_steady {
                end_rests(write, hints, now)?;
                if has_pools_again {
                    write.run("UPDATE network SET pools_rest_until = 0", [])?;
                }
            }
            if is_serving && !has_leapt {
                own_key::retire(write, now, signed)?;
            }
            if forgets {
                forget(write, &over, now)?;
                for node in &given_up {
                    pending::remove(write, node)?;
                }
            }
            if has_settled {
                write.run("UPDATE network SET restored = 0", [])?;
            }
            Ok::<_, StoreError>(())
        })?;
        if forgets {
            self.flushes.forget_at = now.plus(FORGET_INTERVAL);
        }
        let mut memory = self.memory();
        for (node, written) in dirty {
            let is_same = |member: &Member| (member.serial, member.seen) == (written.serial, written.seen);
            if memory.members.get(&node).is_none_or(is_same) {
                memory.dirty.remove(&node);
            }
        }
        memory.unlogged_runs.retain(|node, run| second_runs.get(node) != Some(run));
        Ok(())
    }
}

impl Controller {
    /// Writes what renewals have changed of members that are removed now.
    pub(crate) fn write_removed(&mut self) -> Result<(), StoreError> {
        let removed: Vec<(NodeId, Member)> = {
            let memory = self.memory();
            let member = |node: &NodeId| Some((*node, memory.members.get(node)?.clone()));
            let is_removed = |(_, member): &(NodeId, Member)| member.standing == Standing::Removed;
            memory.dirty.iter().filter_map(member).filter(is_removed).collect()
        };
        if removed.is_empty() {
            return Ok(());
        }
        self.store.write(|write| write_notes(write, &removed))?;
        let mut memory = self.memory();
        removed.iter().for_each(|(node, _)| _ = memory.dirty.remove(node));
        Ok(())
    }
}

/// Writes what renewals have changed. Other processes need not hear of it.
fn write_notes(write: &Write<'_>, members: &[(NodeId, Member)]) -> Result<(), StoreError> {
    let mut statement = write.db().prepare(
        "UPDATE members SET serial = max(serial, ?2), ends = max(ends, ?3), seen = ?4, source = ?5, run = ?6,
            starts = ?7 WHERE node = ?1",
    )?;
    for (node, member) in members {
        statement.execute((
            node.as_bytes(),
            number(member.serial),
            millis(member.ends),
            millis(member.seen),
            member.source.map(to_mapped),
            member.run.cast_signed(),
            member.starts.cast_signed(),
        ))?;
    }
    Ok(())
}

/// Returns the removed members after 30 days, and the ephemeral members that are gone.
fn over(memory: &Memory, now: UnixTime) -> Vec<NodeId> {
    let is_over = |member: &Member| match member.is_member() {
        // A certificate may still be valid for its lifetime after the last sign of life.
        true => {
            let rest = 2 * crate::memory::EPHEMERAL_LIFETIME;
            member.grant.is_ephemeral && member.ends.max(member.seen).max(member.joined).plus(rest) <= now
        }
        false => member.removed != UnixTime::default() && member.removed.plus(KEEP_ENDED) <= now,
    };
    memory.members.iter().filter(|(_, member)| is_over(member)).map(|(node, _)| *node).collect()
}

/// Ends the rest of addresses whose time has come.
fn end_rests(write: &Write<'_>, hints: &mut Hints, now: UnixTime) -> Result<(), StoreError> {
    if write.run("DELETE FROM addresses WHERE until <= ?", [millis(now)])? > 0 {
        *hints = Hints::default();
    }
    Ok(())
}

/// Forgets what has ended: members, old invites, and revocations that no certificate carries.
fn forget(write: &Write<'_>, over: &[NodeId], now: UnixTime) -> Result<(), StoreError> {
    let own = write.run("DELETE FROM revocations WHERE until <= ?", [millis(now)])?;
    if own + write.run("DELETE FROM heard WHERE until <= ?", [millis(now)])? > 0 {
        bump_epoch(write)?;
    }
    write.run("DELETE FROM issuers WHERE ends <= ?", [millis(now)])?;
    let members = write.run("DELETE FROM members WHERE state = ?", [FORGOTTEN])?;
    if members + write.run("DELETE FROM pending WHERE is_gone = 1", [])? > 0 {
        write.run("UPDATE network SET purged = change", [])?;
    }
    write.run("DELETE FROM tokens WHERE ends < ?", [millis(now.minus(KEEP_ENDED))])?;
    for node in over {
        write.run("DELETE FROM addresses WHERE node = ?", [node.as_bytes()])?;
        write.run(
            "UPDATE members SET state = ?2, changed = ?3 WHERE node = ?1",
            (node.as_bytes(), FORGOTTEN, write.change),
        )?;
    }
    Ok(())
}
