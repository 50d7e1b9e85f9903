//! Time of a managed network: this node's clock, corrected by what the issuers have signed and answered.

use std::time::Duration;

use super::{Issuer, Membership};
use crate::id::NodeId;
use crate::membership::{Admission, CATCH_UP, CLOCK_TOLERANCE, UnixTime};

/// Difference of two clocks in milliseconds that counts as none.
const CLOCKS_AGREE: i64 = 30_000;

impl Membership {
    /// Returns the newest time that an issuer has signed and that this node's clock had reached when it
    /// learned of it. No issuer alone can lead it, so it counts even if the clock jumps back.
    pub fn signed_time(&self) -> UnixTime {
        self.issuers.values().map(|issuer| issuer.confirmed).fold(self.kept, UnixTime::max)
    }

    /// Returns the milliseconds by which controllers' clocks are ahead of this node's, negative if behind.
    pub fn clock_offset(&self) -> i64 {
        self.offset
    }

    /// Returns the time by which statements end. `unix_time` is the system's clock.
    ///
    /// It is this node's clock, corrected by controllers that have answered, and never before
    /// [`Self::signed_time`]. Only a clock that is behind what the network key has signed is certainly wrong;
    /// then it is the time that two issuers agree on, or that of the only issuer.
    pub fn time(&self, unix_time: Duration) -> UnixTime {
        let own = self.own_clock(unix_time);
        let least = self.signed_time();
        match self.is_behind(own) {
            true => own.max(least).max(self.delegated).max(self.agreed()),
            false => own.max(least),
        }
    }

    /// Returns this node's clock, corrected by controllers'.
    pub(super) fn own_clock(&self, unix_time: Duration) -> UnixTime {
        UnixTime::from_millis(UnixTime::from(unix_time).as_millis().saturating_add_signed(self.offset))
    }

    /// Returns true if a clock is certainly wrong, because the network key has signed at a later time.
    pub(super) fn is_behind(&self, clock: UnixTime) -> bool {
        clock.plus(CLOCK_TOLERANCE) < self.delegated
    }

    /// Returns the newest time that two issuers have signed, or the only issuer.
    pub(super) fn agreed(&self) -> UnixTime {
        let counts = |issuer: &&Issuer| {
            // A spare signs one head, and then no more.
            let signs = !issuer.delegation.rights().renews_only;
            let is_key = self.check_key(issuer.signer.as_ref(), self.delegated).is_ok();
            signs && is_key && self.delegated < issuer.delegation.end()
        };
        let counting = self.issuers.values().filter(counts);
        let mut claimed: Vec<UnixTime> = counting.map(|issuer| issuer.claimed).collect();
        // The newest one alone may be a liar's.
        claimed.sort_unstable();
        claimed.iter().rev().take(2).next_back().copied().unwrap_or_default()
    }

    /// Returns the time by which one statement is judged that was signed at `signed`. A clock that is a
    /// little behind must not refuse what others have just signed. That moves the time for this statement
    /// alone.
    pub(super) fn time_for(&self, signed: UnixTime, unix_time: Duration) -> UnixTime {
        let own = self.own_clock(unix_time);
        let latest = if self.is_behind(own) { signed } else { signed.min(own.plus(CATCH_UP)) };
        self.time(unix_time).max(latest)
    }

    /// Returns the time up to which this node forgets revocations and heads that have ended.
    ///
    /// A wrong clock of this machine forgets nothing, which it would lack when the clock is set right.
    /// Neither does one of several issuers that signs a later time. As long as no issuer signs, nothing is
    /// forgotten.
    pub(super) fn settled(&self, unix_time: Duration) -> UnixTime {
        self.signed_time().min(self.agreed()).min(unix_time.into())
    }

    /// Corrects this node's clock by a controller's that has answered. Returns true if that changes the time.
    ///
    /// Of several controllers the one counts that is nearest to this node's clock, so one alone moves
    /// nothing. No answer ends the admission of a member, unless the clock is certainly behind: an issuer
    /// that lies would separate everybody.
    pub(crate) fn set_clock(&mut self, unix_time: Duration, node: &NodeId, controller: UnixTime) -> bool {
        let own = UnixTime::from(unix_time);
        let offset = i64::try_from(i128::from(controller.as_millis()) - i128::from(own.as_millis()));
        // A second or two are the path's, and no reason to leave the system's clock.
        let matters = |millis: i64| millis.unsigned_abs() > CLOCKS_AGREE.unsigned_abs();
        let offset = offset.ok().filter(|&offset| matters(offset)).unwrap_or(0);
        let ends_members = || {
            let ends = |known: &Admission| {
                self.end_of(known) <= controller && self.verdict(known, unix_time).is_ok()
            };
            self.admitted.values().any(ends)
        };
        if offset > self.offset.max(0) && !self.is_behind(own) && ends_members() {
            tracing::warn!("a controller's clock is ahead of this node's and of the members' certificates");
            return false;
        }
        let Some(issuer) = self.issuers.get_mut(node) else { return false };
        issuer.offset = Some(offset);
        let before = self.offset;
        self.choose_offset();
        matters(self.offset.saturating_sub(before))
    }

    /// Takes over the correction of the clock that the node of this program's machine has learned.
    pub(crate) fn set_clock_offset(&mut self, millis: i64) {
        if self.is_program {
            self.offset = millis;
        }
    }

    pub(super) fn choose_offset(&mut self) {
        // A program asks no controller.
        if self.is_program {
            return;
        }
        let said = self.issuers.values().filter_map(|issuer| issuer.offset);
        self.offset = said.min_by_key(|offset| offset.unsigned_abs()).unwrap_or(0);
    }
}
