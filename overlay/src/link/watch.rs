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
//! When nothing was sent for long, the node with the smaller ID probes, and the other one acknowledges; it
//! probes itself only if that is late ([`MARGIN`]). So an idle peer costs one packet each way in
//! [`PROBE_MAX`], whatever both nodes' timers and the way between them do. A session that is due for its
//! renewal is renewed in place of a probe.
//!
//! Two nodes that share several networks have a link in each. What is heard in one shows that the node is
//! there, so one probe serves all, and the other links ask for themselves only if it is not answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::timing::{REKEY_AFTER, REKEY_JITTER, RETRY_MAX};
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

/// With the longest time between probes, the node with the greater ID waits longer than the other one by two
/// round trips, within these bounds: by then the other one's probe has come, if it is alive and none is lost.
const MARGIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Who probes renews a session of this age that the other node has begun. That is before the other node does
/// ([`REKEY_AFTER`]), for which the probe and the renewal would be two things.
const RENEW_OTHERS_AFTER: Duration = Duration::from_secs(100);
const _: () = assert!(RENEW_OTHERS_AFTER.as_secs() < REKEY_AFTER.as_secs() - REKEY_JITTER.as_secs());

/// A session is renewed at this age at the latest, by the node that has begun it and by the other one: what
/// passes in another network may stand for all probes in this one.
const RENEW_BY: [Duration; 2] = [Duration::from_secs(140), Duration::from_secs(160)];

/// The times at which something was heard are known to within this.
const PRECISION: Duration = Duration::from_millis(1);

/// The same as [`PROBE_MAX`] for a peer at hand, which is dead after a second of refusals at most.
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

    /// Sends a probe if one is due, or renews the session if that is due too, and begins a handshake if the
    /// last probe was not answered.
    pub(super) fn check_liveness(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let now = cx.now;
        // While a handshake runs its initiations do what a probe would.
        if let Some(exchange) = self.exchange_at(cx).filter(|_| !self.is_connecting())
            && now >= exchange.min(renew_by(session))
        {
            let renews = self.is_renewal_due(cx, session);
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
            self.alone = Some(now);
            tracing::debug!(peer = %self.handle.logged(), "a peer with connections does not answer");
            self.attempt(cx, Reason::Hint);
        }
    }

    /// The node's packets in another network were refused, or it was started again there: a watched peer is
    /// asked at once whether it is there in this one, since the probes in that network have stood for this
    /// one's.
    pub(crate) fn doubt_liveness(&mut self, cx: &mut Context<'_>) {
        let is_asked = self.is_connecting() || self.unanswered_probe(cx).is_some();
        if self.exchange_at(cx).is_none() || is_asked {
            return;
        }
        if let Some(session) = self.current() {
            self.alone = Some(cx.now);
            self.probe_liveness(cx, &session);
        }
    }

    fn probe_liveness(&mut self, cx: &mut Context<'_>, session: &Arc<Session>) {
        let Some(place) = cx.reach.place() else { return };
        cx.core.counters.liveness_probes_sent.increment();
        self.asked = self.unanswered_probe(cx).or(Some(cx.now));
        cx.reach.note_asked(self.handle.network(), cx.now);
        let id = cx.core.rng.next_u32();
        self.send_control(cx, session, &place, Control::Probe { id, len: ProbeSize::MIN });
    }

    /// Whether a session that carries nothing but probes is to be replaced. It is in use, too.
    fn is_renewal_due(&self, cx: &Context<'_>, session: &Arc<Session>) -> bool {
        let Some(live) = self.live(session) else { return false };
        let at = match session.is_initiator() {
            true => live.rekey_at,
            false => live.rekey_at.min(session.established() + RENEW_OTHERS_AFTER),
        };
        cx.now >= at || session.is_worn()
    }

    /// When [`Self::check_liveness`] has something to do, if nothing happens before.
    pub(super) fn liveness_at(&self, cx: &Context<'_>) -> Option<Instant> {
        // What is due and waits for the end of a handshake is looked at again later.
        let later = |at: Instant| if at <= cx.now { cx.now + RETRY_MAX } else { at };
        let exchange = self.exchange_at(cx);
        let probe_at = exchange.filter(|_| cx.has_path()).map(|exchange| later(self.probe_at(cx, exchange)));
        let renew_by = exchange.and(self.current()).map(|session| later(renew_by(&session)));
        [probe_at, renew_by, self.silent_at(cx)].into_iter().flatten().min()
    }

    /// When this link is to probe, if an exchange is due at `exchange`: then, and when what another link to
    /// the node has asked for has had no answer in time.
    fn probe_at(&self, cx: &Context<'_>, exchange: Instant) -> Instant {
        let asked = cx.reach.asked_elsewhere(self.handle.network()).filter(|_| !self.is_alone());
        let asked = asked.filter(|asked| self.heard(cx).is_none_or(|heard| is_before(heard, *asked)));
        asked.map_or(exchange, |asked| exchange.max(asked + patience(cx)))
    }

    /// When the node is to be heard from again, in this link's session or another's.
    fn exchange_at(&self, cx: &Context<'_>) -> Option<Instant> {
        // Who was reported as dead has no connections left that could end.
        let is_dead = self.refusal.as_ref().is_some_and(|refusal| !refusal.is_open());
        if !self.handle.is_watched() || is_dead {
            return None;
        }
        let activity = self.handle.activity();
        let data = activity.last_data()?;
        let heard = self.heard(cx)?;
        let last = data.max(activity.last_sent()?).max(heard);
        let idle = last.saturating_duration_since(data);
        let answers = last.saturating_duration_since(heard) < QUIET_AFTER;
        let longest = if answers && self.is_at_hand(cx) { longest_at_hand(cx) } else { PROBE_MAX };
        let wait = (idle * GROWTH).clamp(PROBE_MIN, longest);
        let margin = match wait < PROBE_MAX || self.probes_first(cx) {
            true => Duration::ZERO,
            false => (cx.reach.rtt().unwrap_or_default() * 2).clamp(MARGIN[0], MARGIN[1]),
        };
        Some(last + wait + margin)
    }

    /// Whether this node probes, of the two, when both have been idle for long.
    fn probes_first(&self, cx: &Context<'_>) -> bool {
        cx.core.own_id < *self.handle.id()
    }

    /// When the node was last heard from in any network; but in this one if there is reason to believe that
    /// it is not there in all.
    fn heard(&self, cx: &Context<'_>) -> Option<Instant> {
        if self.is_alone() { self.handle.activity().last_received() } else { cx.heard() }
    }

    fn is_alone(&self) -> bool {
        let own = self.handle.activity().last_received();
        self.alone.is_some_and(|since| own.is_none_or(|own| is_before(own, since)))
    }

    /// When the oldest probe was sent since which nothing has come.
    fn unanswered_probe(&self, cx: &Context<'_>) -> Option<Instant> {
        let heard = self.heard(cx);
        self.asked.filter(|asked| heard.is_none_or(|heard| is_before(heard, *asked)))
    }

    fn silent_at(&self, cx: &Context<'_>) -> Option<Instant> {
        self.unanswered_probe(cx).map(|asked| cx.core.awake_from(asked) + patience(cx))
    }
}

/// When a session is renewed though no exchange is due in it.
fn renew_by(session: &Session) -> Instant {
    session.established() + RENEW_BY[usize::from(!session.is_initiator())]
}

/// Whether something was heard before a question, rather than in answer to it.
fn is_before(heard: Instant, asked: Instant) -> bool {
    heard + PRECISION <= asked
}

/// How long a probe's answer is waited for.
fn patience(cx: &Context<'_>) -> Duration {
    SILENT_AFTER.max(cx.reach.rtt().unwrap_or_default() * 2)
}

/// The longest time between two probes of a peer at hand, if there are as many as now.
fn longest_at_hand(cx: &Context<'_>) -> Duration {
    let count = u32::try_from(cx.core.watched.count()).unwrap_or(u32::MAX);
    PROBE_MAX_FOR_EACH.saturating_mul(count).clamp(PROBE_MAX_AT_HAND, PROBE_MAX)
}
