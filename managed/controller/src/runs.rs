//! Runs of a member: a restart, a state that was set back, or a copied state directory.
//!
//! Each run of a node draws a random number, and counts the runs of its state directory so far. A later
//! number of a larger count is a restart. A count that is not larger may be a copy, and as well the state of
//! a machine that was set back, or killed before it wrote the count. So such a run waits until the earlier
//! one is silent, and accuses no member.
//!
//! Two runs are there at the same time if each is heard again after the other one. Sessions show that within
//! seconds ([`Controller::note_both`](crate::Controller::note_both)), and requests of both in the end.

use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::{CertifyRequest, UnixTime};

use crate::member::Member;

/// Time since the last sign of one run in which another run of the same identity gets nothing.
pub const CLONE_WINDOW: Duration = Duration::from_secs(180);

/// Time after the end of a hold in which sessions may still show what was before it: a person may have ended
/// a copy just then.
const ADMITTED_FOR: Duration = Duration::from_secs(30);

/// Other runs of a member than the one that is kept, as far as this process has heard of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Runs {
    /// Run that was refused last, and where it has asked.
    refused: Option<(u64, IpAddr)>,
    /// True if the kept run has asked since then.
    is_answered: bool,
    /// Run that the kept one has replaced as its restart.
    before: Option<Replaced>,
    /// Last time at which both were shown to run; 0 if never.
    both: UnixTime,
    /// True if the member was held until its admission.
    was_held: bool,
}

/// Run that a later one has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Replaced {
    run: u64,
    starts: u64,
    source: IpAddr,
    at: UnixTime,
}

/// Decision about the run that asks for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunVerdict {
    /// The member's run.
    Kept,
    /// Another run, while the member's one is there or has just been. `is_copy` is true if it is shown that
    /// both run.
    Refused { is_copy: bool },
}

impl Runs {
    /// Returns what is known of a member that was held, and is admitted again: nothing.
    pub(crate) fn after_hold() -> Self {
        Self { was_held: true, ..Self::default() }
    }

    fn shows_both(&self, now: UnixTime) -> bool {
        is_recent(now, self.both)
    }
}

impl Member {
    /// Decides on the run that asks, and notes it.
    pub(crate) fn judge_run(
        &mut self,
        now: UnixTime,
        source: IpAddr,
        request: &CertifyRequest,
    ) -> RunVerdict {
        let (is_same, is_first) = (self.run == request.run, self.seen == UnixTime::default());
        if is_same && let Some(runs) = &mut self.runs {
            runs.is_answered = runs.refused.is_some();
        }
        if !is_same && !is_first {
            let shows_both = self.runs.as_ref().is_some_and(|runs| runs.shows_both(now));
            // A copy's count is larger, too, if the directory was copied while its machine ran. A restart
            // comes from the address that the member has.
            let is_restart = request.starts > self.starts && (!shows_both || self.source == Some(source));
            let is_silent = !is_recent(now, self.seen);
            let runs = self.runs.get_or_insert_default();
            if !is_restart && !is_silent {
                let is_again = runs.refused.is_some_and(|(run, _)| run == request.run);
                runs.is_answered &= is_again;
                runs.refused = Some((request.run, source));
                let is_copy = runs.is_answered;
                if is_copy {
                    runs.both = now;
                }
                return RunVerdict::Refused { is_copy };
            }
            let replaced = self.source.filter(|_| is_restart).map(|source| Replaced {
                run: self.run,
                starts: self.starts,
                source,
                at: now,
            });
            (runs.refused, runs.is_answered, runs.before) = (None, false, replaced);
        }
        (self.run, self.starts) = (request.run, request.starts);
        (self.seen, self.source) = (now, Some(source));
        RunVerdict::Kept
    }

    /// Notes a sign of life of the session at an address.
    pub(crate) fn note_sign(&mut self, now: UnixTime, source: IpAddr) -> bool {
        // A second run of the identity does not keep the first one's place. The two may have one address, and
        // so has a machine that was set back to an earlier state, whose first run is gone.
        let is_refused =
            |runs: &Runs| runs.refused.is_some_and(|(_, refused)| refused == source) && !runs.shows_both(now);
        let is_kept = self.source.is_none_or(|kept| kept == source);
        if !is_kept || self.runs.as_deref().is_some_and(is_refused) {
            return false;
        }
        (self.seen, self.source) = (now, Some(source));
        true
    }

    /// Notes that sessions have shown two runs at the same time, one at each address. If one has just
    /// replaced the other as its restart, it was none, and the earlier one is kept. Returns the address of
    /// the kept run, and the other one; `None` just after the end of a hold.
    pub(crate) fn note_both(
        &mut self,
        now: UnixTime,
        places: [IpAddr; 2],
    ) -> Option<(Option<IpAddr>, IpAddr)> {
        let runs = self.runs.get_or_insert_default();
        if runs.was_held && self.joined <= now && now.since(self.joined) < ADMITTED_FOR {
            return None;
        }
        runs.both = now;
        // A session may begin by a relay, or by the other kind of address, and then a later notice has it.
        let is_there = |before: &mut Replaced| is_recent(now, before.at) && places.contains(&before.source);
        if let Some(before) = runs.before.take_if(is_there) {
            (self.run, self.starts, self.source) = (before.run, before.starts, Some(before.source));
        }
        let [one, other] = places;
        Some((self.source, if self.source == Some(one) { other } else { one }))
    }
}

/// Returns true if a time is less than [`CLONE_WINDOW`] away from now. A clock that was set back says
/// nothing.
fn is_recent(now: UnixTime, at: UnixTime) -> bool {
    at != UnixTime::default() && now.since(at) < CLONE_WINDOW && at.since(now) < CLONE_WINDOW
}
