//! Liveness checks for peers with connections while no data is sent.
//!
//! A killed program sends nothing, and its machine answers only packets it gets. So the node sends a watched
//! peer a small probe after a time without packets. The result is an acknowledgement, an error (`refusal`),
//! or an answer that the session is unknown. After silence a handshake shows whether the peer has moved or
//! was restarted.
//!
//! After an outage longer than a session, or a suspension of the machine, the node now and then looks for a
//! watched peer, so that it can be watched again.
//!
//! On the same machine or local network a packet costs next to nothing, and kernel sockets would report a
//! killed program at once. So there the probes continue at short intervals while they are answered and there
//! are few such peers. A killed program is detected within 2 s, however long its connections were idle.
//!
//! Probes of the peer count like own ones: the next is due a while after anything was last sent *or* heard.
//! After a long idle time the node with the smaller ID probes, and the other acknowledges. The other probes
//! itself only if that is late ([`GREATER_ID_WAIT`]). So an idle peer costs one packet each way per
//! [`PROBE_MAX`], whatever the timers of both nodes and the path between them do. A session due for renewal
//! is renewed instead of probed.
//!
//! Two nodes that share several networks have a link in each. A packet in one network shows that the node is
//! there, so one probe serves all, and the other links probe only if it is not answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::timing::{REKEY_AFTER, REKEY_JITTER, RETRY_MAX};
use super::{Context, Link, Reason, Timer};
use crate::session::Session;
use crate::wire::{Control, ProbeSize};

/// Time from the last data to the first probe. A peer is dead after at most 1.5 s of refusals, and must be
/// known to be dead within 2 s.
const PROBE_MIN: Duration = Duration::from_millis(300);

/// Factor from the time without data to the time until the next probe. With it, connections used once a
/// second cost one probe per second.
const PROBE_INTERVAL_FACTOR: u32 = 3;

/// Maximum interval of probes: less than the shortest NAT mapping lifetime.
const PROBE_MAX: Duration = Duration::from_secs(25);

/// Bounds of the extra wait, two round trips, of the node with the greater ID at the longest probe interval.
/// By then the other node's probe has come, if that node is alive and no packet was lost.
const GREATER_ID_WAIT: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Age at which the prober renews a session begun by the other node.
// Before the other node's own [`REKEY_AFTER`], because otherwise the probe and the renewal would be two
// exchanges.
const RENEW_OTHERS_AFTER: Duration = Duration::from_secs(100);
const _: () = assert!(RENEW_OTHERS_AFTER.as_secs() < REKEY_AFTER.as_secs() - REKEY_JITTER.as_secs());

/// Latest age at which a session is renewed, by its initiator and by its responder.
// Without this limit, packets in another network could replace all probes in this one.
const RENEW_BY: [Duration; 2] = [Duration::from_secs(140), Duration::from_secs(160)];

/// Precision of the recorded times of received packets.
const PRECISION: Duration = Duration::from_millis(1);

/// The same as [`PROBE_MAX`] for a peer at hand, which is dead after at most one second of refusals.
const PROBE_MAX_AT_HAND: Duration = Duration::from_millis(600);

/// Share of that interval per peer with connections. A node sends at most 50 probes a second to all of them,
/// and above 1,250 peers only those that [`PROBE_MAX`] requires.
const PROBE_MAX_FOR_EACH: Duration = Duration::from_millis(20);

/// Time of silence after which a peer at hand is probed as rarely as others.
// It may be suspended or unplugged.
const QUIET_AFTER: Duration = Duration::from_secs(3);

/// Time without an answer to a probe, at least two round trips, after which a handshake begins.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Waits between searches for a peer without a session: the first, and the maximum. Each wait equals the time
/// passed so far, until the peer is forgotten. Listed peers never are.
const SEEK_MIN: Duration = Duration::from_secs(1);
const SEEK_MAX: Duration = Duration::from_secs(600);

impl Link {
    /// Schedules the search for a peer with connections whose last session is gone.
    pub(super) fn arm_seeking(&mut self, cx: &mut Context<'_>) {
        let at = cx.now + SEEK_MIN;
        self.lost = Some(cx.now);
        cx.set_timer(Timer::Activity, self.handle.is_watched().then_some(at));
    }

    /// Searches for a peer with connections that has no session.
    pub(super) fn seek(&mut self, cx: &mut Context<'_>) {
        let Some(lost) = self.lost.filter(|_| self.handle.is_watched()) else { return };
        if !self.is_connecting() {
            // No program asked for the peer, so it must age like others.
            let used = self.used;
            self.attempt(cx, Reason::Hint);
            self.used = used;
        }
        // As long as the peer has been gone, so the intervals double and the cost of an absent peer falls.
        let wait = cx.now.saturating_duration_since(lost).clamp(SEEK_MIN, SEEK_MAX);
        cx.set_timer(Timer::Activity, Some(cx.now + wait));
    }

    /// Sends a probe if one is due, or renews the session if that is due too. Begins a handshake if the last
    /// probe was not answered.
    pub(super) fn check_liveness(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let now = cx.now;
        // During a handshake, initiations do what a probe would.
        if let Some(exchange) = self.exchange_at(cx).filter(|_| !self.is_connecting())
            && now >= exchange.min(renew_by(session))
        {
            let renews = self.is_renewal_due(cx, session);
            // The handshake of a renewal is a sign of life by itself.
            if now >= self.probe_at(cx, exchange) && (!renews || self.is_at_hand(cx)) {
                self.probe_liveness(cx, session);
            }
            if renews {
                cx.core.counters.rekeys.increment();
                self.attempt(cx, Reason::Age);
            }
        }
        if self.silent_at(cx).is_some_and(|at| now >= at) {
            self.asked = None;
            // The node may be gone from this network alone, so its packets in others no longer count.
            self.alone = Some(now);
            tracing::debug!(peer = %self.handle.logged(), "a peer with connections does not answer");
            self.attempt(cx, Reason::Hint);
        }
    }

    /// Probes a watched peer at once in this network, because the node was refused or restarted in another
    /// network.
    pub(crate) fn doubt_liveness(&mut self, cx: &mut Context<'_>) {
        let is_asked = self.is_connecting() || self.unanswered_probe(cx).is_some();
        if self.exchange_at(cx).is_none() || is_asked {
            return;
        }
        // The probes in the other network have served for this network too.
        if let Some(session) = self.current() {
            self.alone = Some(cx.now);
            self.probe_liveness(cx, &session);
        }
    }

    fn probe_liveness(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let Some(place) = cx.reach.place() else { return };
        cx.core.counters.liveness_probes_sent.increment();
        // The oldest one counts, because a newer probe must not prolong the wait for an answer.
        self.asked = self.unanswered_probe(cx).or(Some(cx.now));
        cx.reach.note_asked(self.handle.network(), cx.now);
        // Unpredictable, so that only a receiver at the path can acknowledge it.
        let id = cx.core.rng.next_u32();
        self.send_control(cx, session, &place, Control::Probe { id, len: ProbeSize::MIN });
    }

    /// Returns true if a session that carries only probes should be replaced. Such a session is in use, too.
    fn is_renewal_due(&self, cx: &Context<'_>, session: &Arc<Session>) -> bool {
        let Some(live) = self.live(session) else { return false };
        let at = match session.is_initiator() {
            true => live.rekey_at,
            false => live.rekey_at.min(session.established() + RENEW_OTHERS_AFTER),
        };
        cx.now >= at || session.is_worn()
    }

    /// Returns when [`Self::check_liveness`] next has work, if nothing happens before.
    pub(super) fn liveness_at(&self, cx: &Context<'_>) -> Option<Instant> {
        // Overdue work that waits for the end of a handshake is checked again later.
        let later = |at: Instant| if at <= cx.now { cx.now + RETRY_MAX } else { at };
        let exchange = self.exchange_at(cx);
        let probe_at = exchange.filter(|_| cx.has_path()).map(|exchange| later(self.probe_at(cx, exchange)));
        let renew_by = exchange.and(self.current()).map(|session| later(renew_by(&session)));
        [probe_at, renew_by, self.silent_at(cx)].into_iter().flatten().min()
    }

    /// Returns when this link probes, if an exchange is due at `exchange`: at that time, but only once a
    /// probe of another link to the node has gone unanswered for too long.
    fn probe_at(&self, cx: &Context<'_>, exchange: Instant) -> Instant {
        let asked = cx.reach.asked_elsewhere(self.handle.network()).filter(|_| !self.is_alone());
        let asked = asked.filter(|asked| self.heard(cx).is_none_or(|heard| is_before(heard, *asked)));
        asked.map_or(exchange, |asked| exchange.max(asked + patience(cx)))
    }

    /// Returns when the node has to be heard again, in this link's session or another's.
    fn exchange_at(&self, cx: &Context<'_>) -> Option<Instant> {
        // A peer reported as dead has no connections left to end.
        let is_dead = self.refusal.as_ref().is_some_and(|refusal| !refusal.is_open());
        if !self.handle.is_watched() || is_dead {
            return None;
        }
        let activity = self.handle.activity();
        let data = activity.last_data()?;
        let heard = self.heard(cx)?;
        let last = data.max(activity.last_sent()?).max(heard);
        let idle = last.saturating_duration_since(data);
        // A peer that stays silent is asked rarely, or many suspended machines would keep this node awake.
        let answers = last.saturating_duration_since(heard) < QUIET_AFTER;
        let longest = if answers && self.is_at_hand(cx) { longest_at_hand(cx) } else { PROBE_MAX };
        let wait = (idle * PROBE_INTERVAL_FACTOR).clamp(PROBE_MIN, longest);
        let margin = match wait < PROBE_MAX || self.probes_first(cx) {
            true => Duration::ZERO,
            false => (cx.reach.rtt().unwrap_or_default() * 2).clamp(GREATER_ID_WAIT[0], GREATER_ID_WAIT[1]),
        };
        Some(last + wait + margin)
    }

    /// Returns true if this node is the one that probes when both have been idle for long.
    fn probes_first(&self, cx: &Context<'_>) -> bool {
        // Both sides know both IDs, so they agree without a message.
        cx.core.own_id < *self.handle.id()
    }

    /// Returns when the node was last heard in any network, or in this network alone if it may be absent from
    /// it.
    fn heard(&self, cx: &Context<'_>) -> Option<Instant> {
        if self.is_alone() { self.handle.activity().last_received() } else { cx.heard() }
    }

    fn is_alone(&self) -> bool {
        let own = self.handle.activity().last_received();
        self.alone.is_some_and(|since| own.is_none_or(|own| is_before(own, since)))
    }

    /// Returns when the oldest probe was sent since which nothing has come.
    fn unanswered_probe(&self, cx: &Context<'_>) -> Option<Instant> {
        let heard = self.heard(cx);
        self.asked.filter(|asked| heard.is_none_or(|heard| is_before(heard, *asked)))
    }

    fn silent_at(&self, cx: &Context<'_>) -> Option<Instant> {
        self.unanswered_probe(cx).map(|asked| cx.core.awake_from(asked) + patience(cx))
    }
}

/// Returns when a session is renewed even if no exchange is due in it.
fn renew_by(session: &Session) -> Instant {
    session.established() + RENEW_BY[usize::from(!session.is_initiator())]
}

/// Returns true if a packet was heard before the question rather than in answer to it.
fn is_before(heard: Instant, asked: Instant) -> bool {
    // Times are rounded to milliseconds, so an equal time may be that of an answer.
    heard + PRECISION <= asked
}

/// Returns how long to wait for a probe's answer.
fn patience(cx: &Context<'_>) -> Duration {
    SILENT_AFTER.max(cx.reach.rtt().unwrap_or_default() * 2)
}

/// Returns the maximum interval between probes of a peer at hand, for the present number of watched peers.
fn longest_at_hand(cx: &Context<'_>) -> Duration {
    let count = u32::try_from(cx.core.watched.count()).unwrap_or(u32::MAX);
    PROBE_MAX_FOR_EACH.saturating_mul(count).clamp(PROBE_MAX_AT_HAND, PROBE_MAX)
}
