//! Peers with which the layer above has connections: whether they are still there, though nothing is sent.
//!
//! A killed program says nothing, and its machine says something only about what it gets. So a watched peer
//! is sent a small probe when nothing was sent for a while. Either its acknowledgement comes, or an error
//! (`refusal`), or an answer that the session is not known; after silence a handshake looks whether the peer
//! has moved or was started again.
//!
//! After an outage that was longer than a session, or when the machine was suspended, a watched peer is
//! looked for now and then, so that it is watched again afterwards.
//!
//! On the same machine or local network a packet costs next to nothing, and the kernel's own sockets would
//! tell of a killed program at once. There the probes go on in short intervals, as long as they are answered,
//! and as long as there are not many such peers; a killed program is known within 2 s, however long its
//! connections were idle.
//!
//! The peer's probes do as well as own ones: the next is due a while after anything was last sent *or* heard.
//! Two nodes that watch each other take turns, and one exchange serves both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::{Context, Link, Reason, Timer};
use crate::session::Session;
use crate::wire::{Control, ProbeSize};

/// The first probe comes so long after the last data. A peer is dead after at most 1.5 s of refusals, and is
/// to be known to be dead within 2 s.
const PROBE_MIN: Duration = Duration::from_millis(300);

/// The time to the next probe grows with the time for which there was no data, of which it is a multiple.
/// Connections that are used once a second cost one probe each second by that.
const GROWTH: u32 = 3;

/// The longest time between two probes: less than what the most forgetful NAT boxes remember.
const PROBE_MAX: Duration = Duration::from_secs(25);

/// The same for a peer at hand, which is dead after a second of refusals at most.
const PROBE_MAX_AT_HAND: Duration = Duration::from_millis(600);

/// But for so long as this for each peer with connections: to all of them together a node sends 50 probes a
/// second, and to more than 1,250 none beside those that [`PROBE_MAX`] asks for.
const PROBE_MAX_FOR_EACH: Duration = Duration::from_millis(20);

/// A peer at hand that has been silent for so long may be suspended or unplugged, and is asked as rarely as
/// others.
const QUIET_AFTER: Duration = Duration::from_secs(3);

/// A probe without any answer for so long, or for two round trips if that is longer, calls for a handshake.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Without a session a peer is looked for after so long, then each time when as much time has passed again,
/// until it is forgotten. Listed peers never are.
const SEEK_MIN: Duration = Duration::from_secs(1);
const SEEK_MAX: Duration = Duration::from_secs(600);

impl Link {
    /// The last session is gone: comes back to look for a peer with connections.
    pub(super) fn arm_seeking(&mut self, cx: &mut Context<'_>) {
        let at = cx.now + SEEK_MIN;
        self.lost = Some(cx.now);
        cx.set_timer(Timer::Activity, self.handle.is_watched().then_some(at));
    }

    /// Looks for a peer with connections that has no session.
    pub(super) fn seek(&mut self, cx: &mut Context<'_>) {
        let Some(lost) = self.lost.filter(|_| self.handle.is_watched()) else { return };
        if !self.is_connecting() {
            // Nobody has asked for it, so that it is forgotten as others are.
            let used = self.used;
            self.attempt(cx, Reason::Hint);
            self.used = used;
        }
        let wait = cx.now.saturating_duration_since(lost).clamp(SEEK_MIN, SEEK_MAX);
        cx.set_timer(Timer::Activity, Some(cx.now + wait));
    }

    /// Sends a probe if one is due, and begins a handshake if the last one was not answered.
    pub(super) fn check_liveness(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let now = cx.now;
        if self.probe_at(cx).is_some_and(|at| now >= at)
            && let Some(place) = cx.reach.place()
        {
            cx.core.counters.liveness_probes_sent.increment();
            self.asked = self.unanswered_probe().or(Some(now));
            let id = cx.core.rng.next_u32();
            self.send_control(cx, session, &place, Control::Probe { id, len: ProbeSize::MIN });
            // A session that carries nothing else is in use, too.
            self.rekey_if_due(cx);
            self.watch_path(cx);
        }
        if self.silent_at(cx).is_some_and(|at| now >= at) {
            self.asked = None;
            tracing::debug!(peer = %self.handle.logged(), "a peer with connections does not answer");
            self.attempt(cx, Reason::Hint);
        }
    }

    /// When [`Self::check_liveness`] has something to do, if nothing happens before.
    pub(super) fn liveness_at(&self, cx: &Context<'_>) -> Option<Instant> {
        let probe_at = self.probe_at(cx).filter(|_| cx.has_path());
        probe_at.into_iter().chain(self.silent_at(cx)).min()
    }

    fn probe_at(&self, cx: &Context<'_>) -> Option<Instant> {
        // Who was reported as dead has no connections left that could end.
        let is_dead = self.refusal.as_ref().is_some_and(|refusal| !refusal.is_open());
        if !self.handle.is_watched() || is_dead {
            return None;
        }
        let activity = self.handle.activity();
        let data = activity.last_data()?;
        let heard = activity.last_received()?;
        let last = data.max(activity.last_sent()?).max(heard);
        let idle = last.saturating_duration_since(data);
        let answers = last.saturating_duration_since(heard) < QUIET_AFTER;
        let longest = if answers && self.is_at_hand(cx) { longest_at_hand(cx) } else { PROBE_MAX };
        Some(last + (idle * GROWTH).clamp(PROBE_MIN, longest))
    }

    /// When the oldest probe was sent since which nothing has come.
    fn unanswered_probe(&self) -> Option<Instant> {
        let heard = self.handle.activity().last_received();
        self.asked.filter(|asked| heard.is_none_or(|heard| heard < *asked))
    }

    fn silent_at(&self, cx: &Context<'_>) -> Option<Instant> {
        let patience = SILENT_AFTER.max(cx.reach.rtt().unwrap_or_default() * 2);
        Some(self.unanswered_probe()? + patience)
    }
}

/// The longest time between two probes of a peer at hand, if there are as many as now.
fn longest_at_hand(cx: &Context<'_>) -> Duration {
    let count = u32::try_from(cx.core.watched.count()).unwrap_or(u32::MAX);
    PROBE_MAX_FOR_EACH.saturating_mul(count).clamp(PROBE_MAX_AT_HAND, PROBE_MAX)
}
