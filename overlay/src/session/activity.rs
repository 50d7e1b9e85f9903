use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times of a peer's last packets, kept by the data path for the timers of the control half.
///
/// Timers belong to the peer, not to one session, because after a rekey a packet on the old session answers
/// one on the new. A timer runs from one of the two `*_since` moments:
///
/// - *unanswered*: data was sent and nothing at all has been received since. Too long means a dead path.
/// - *owed*: data was received and nothing at all has been sent since. Too long calls for a keepalive.
///
/// While neither moment is set, a peer needs no timer. The control half calls [`Self::arm`] when it has a
/// timer running; the data path asks for attention only when none is. To stop, the control half calls
/// [`Self::disarm`] and *then* checks the moments once more, so that one set in between is not lost.
///
/// All other accesses are relaxed, because a moment that is one packet off does no harm.
#[derive(Debug)]
pub(crate) struct Activity {
    base: Instant,
    received: Moment,
    sent: Moment,
    unanswered: Moment,
    owed: Moment,
    /// Time when data was last received.
    data_in: Moment,
    /// Time when data was last sent.
    data_out: Moment,
    armed: AtomicBool,
    /// Set when a packet has come after data was unanswered for [`LOSS_SILENCE`] or more.
    silence_ended: AtomicBool,
    /// Set by seal and open, which have no clock, and consumed by the next `note_*`.
    data_sent: AtomicBool,
    data_received: AtomicBool,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            base: now,
            received: Moment::default(),
            sent: Moment::default(),
            unanswered: Moment::default(),
            owed: Moment::default(),
            data_in: Moment::default(),
            data_out: Moment::default(),
            armed: AtomicBool::new(false),
            silence_ended: AtomicBool::new(false),
            data_sent: AtomicBool::new(false),
            data_received: AtomicBool::new(false),
        }
    }

    /// Returns when the last authentic packet came in.
    pub(crate) fn last_received(&self) -> Option<Instant> {
        self.received.get(self.base)
    }

    /// Returns when the last packet went out.
    pub(crate) fn last_sent(&self) -> Option<Instant> {
        self.sent.get(self.base)
    }

    /// Returns when data last went out or came in.
    pub(crate) fn last_data(&self) -> Option<Instant> {
        self.data_in.get(self.base).max(self.last_data_sent())
    }

    /// Returns when data last went out. Packets that only answer the peer's packets do not count.
    pub(crate) fn last_data_sent(&self) -> Option<Instant> {
        self.data_out.get(self.base)
    }

    /// Returns the time since which sent data has had no answer of any kind.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered.get(self.base)
    }

    /// Returns the time since which received data has had no answer of any kind.
    pub(crate) fn owed_since(&self) -> Option<Instant> {
        self.owed.get(self.base)
    }

    /// Records that the control half has a timer running for this peer.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Returns true if the data path need not ask for attention.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    /// Records that the control half has no timer any more; it must check the moments again after this.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    /// Records that a packet of data, and not of control, was sealed.
    pub(super) fn data_sealed(&self) {
        raise(&self.data_sent);
    }

    /// Records that a packet of data, and not of control, was opened.
    pub(super) fn data_opened(&self) {
        raise(&self.data_received);
    }

    /// Records that packets went out. Returns true if a timer is needed and none is running.
    pub(super) fn note_sent(&self, now: Instant) -> bool {
        self.sent.set(self.base, now);
        // Any packet shows the peer that this node lives, so control messages also settle what is owed.
        self.owed.clear();
        if lower(&self.data_sent) {
            self.data_out.set(self.base, now);
            self.unanswered.set_first(self.base, now);
        }
        self.needs_timer(&self.unanswered)
    }

    /// Records that authentic packets came in. Returns true if a timer is needed and none is running, or if
    /// they end a silence.
    pub(crate) fn note_received(&self, now: Instant) -> bool {
        self.received.set(self.base, now);
        let silent = self.unanswered_since().is_some_and(|since| now >= since + LOSS_SILENCE);
        if silent {
            raise(&self.silence_ended);
        }
        // Any authentic packet shows that the path works, even one that was sent before the data.
        self.unanswered.clear();
        if lower(&self.data_received) {
            self.data_in.set(self.base, now);
            self.owed.set_first(self.base, now);
        }
        // Data that was sent in a silence may be lost, so its end needs attention at once, timer or not.
        self.needs_timer(&self.owed) | silent
    }

    /// Returns true if the peer was heard again after a silence since the last call.
    pub(crate) fn take_silence(&self) -> bool {
        lower(&self.silence_ended)
    }

    fn needs_timer(&self, moment: &Moment) -> bool {
        // The total order with `set_first` and `disarm` makes at least one side see the other's store, so no
        // moment is left without a timer.
        moment.stands() && !self.armed.load(Ordering::SeqCst)
    }
}

/// Time without an answer after which data may be lost: longer than most round trips plus the delay of an
/// acknowledgement.
const LOSS_SILENCE: Duration = Duration::from_millis(500);

/// Point in time or never, as milliseconds since a base, plus one.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn get(&self, base: Instant) -> Option<Instant> {
        let millis = self.0.load(Ordering::SeqCst).checked_sub(1)?;
        Some(base + Duration::from_millis(millis))
    }

    fn stands(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn set(&self, base: Instant, now: Instant) {
        self.0.store(encode(base, now), Ordering::Relaxed);
    }

    /// Sets the moment unless it is set. Sequentially consistent, for the hand-over with `armed`.
    fn set_first(&self, base: Instant, now: Instant) {
        if !self.stands() {
            self.0.store(encode(base, now), Ordering::SeqCst);
        }
    }

    /// Clears the moment.
    fn clear(&self) {
        // Reading first keeps the cache line shared, because mostly there is nothing to clear.
        if self.stands() {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

fn encode(base: Instant, now: Instant) -> u64 {
    let millis = now.saturating_duration_since(base).as_millis();
    u64::try_from(millis).map_or(u64::MAX, |m| m.saturating_add(1))
}

fn raise(flag: &AtomicBool) {
    // Reading first keeps the cache line shared, because the flag is raised for every packet and seldom
    // lowered.
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

fn lower(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed)
}
