use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a peer last sent and received, kept by the data path for the timers of the control half.
///
/// Timers are of the peer, not of one session: after a rekey a packet on the old session answers one on the
/// new. The two `*_since` moments are what a timer runs from:
///
/// - *unanswered*: data was sent and nothing at all has been received since. Too long means a dead path.
/// - *owed*: data was received and nothing at all has been sent since. Too long calls for a keepalive.
///
/// While neither stands, a peer needs no timer. The control half says by [`Self::arm`] that it has one
/// running; only when none is does the data path ask for attention. To stop it calls [`Self::disarm`] and
/// *then* looks at the moments once more, so that one which came up in between is not lost.
///
/// Everything is relaxed but that hand-over: a moment that is a packet off does no harm.
#[derive(Debug)]
pub(crate) struct Activity {
    base: Instant,
    received: Moment,
    sent: Moment,
    unanswered: Moment,
    owed: Moment,
    /// When data was last received.
    data_in: Moment,
    /// When data was last sent.
    data_out: Moment,
    armed: AtomicBool,
    /// A packet has come after data was unanswered for [`SILENCE`] or more.
    silence_ended: AtomicBool,
    /// Set by seal and open, which have no clock, and taken over by the next `note_*`.
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

    /// When the last authentic packet came in.
    pub(crate) fn last_received(&self) -> Option<Instant> {
        self.received.get(self.base)
    }

    /// When the last packet went out.
    pub(crate) fn last_sent(&self) -> Option<Instant> {
        self.sent.get(self.base)
    }

    /// When data last went out or came in.
    pub(crate) fn last_data(&self) -> Option<Instant> {
        self.data_in.get(self.base).max(self.last_data_sent())
    }

    /// When data last went out. What is sent only because the peer has sent something does not count.
    pub(crate) fn last_data_sent(&self) -> Option<Instant> {
        self.data_out.get(self.base)
    }

    /// Since when data that was sent has had no answer of any kind.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered.get(self.base)
    }

    /// Since when data that was received has had no answer of any kind.
    pub(crate) fn owed_since(&self) -> Option<Instant> {
        self.owed.get(self.base)
    }

    /// The control half has a timer running for this peer.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Whether the data path need not ask for attention.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    /// The control half has no timer any more; it looks at the moments again after this.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    /// Remembers that a packet of data, and not of control, was sealed.
    pub(super) fn data_sealed(&self) {
        raise(&self.data_sent);
    }

    /// Remembers that a packet of data, and not of control, was opened.
    pub(super) fn data_opened(&self) {
        raise(&self.data_received);
    }

    /// Notes that packets went out. True if a timer is needed and none is running.
    pub(super) fn note_sent(&self, now: Instant) -> bool {
        self.sent.set(self.base, now);
        self.owed.clear();
        if lower(&self.data_sent) {
            self.data_out.set(self.base, now);
            self.unanswered.set_first(self.base, now);
        }
        self.needs_timer(&self.unanswered)
    }

    /// Notes that authentic packets came in. True if a timer is needed and none is running, or if they end a
    /// silence.
    pub(crate) fn note_received(&self, now: Instant) -> bool {
        self.received.set(self.base, now);
        let silent = self.unanswered_since().is_some_and(|since| now >= since + SILENCE);
        if silent {
            raise(&self.silence_ended);
        }
        self.unanswered.clear();
        if lower(&self.data_received) {
            self.data_in.set(self.base, now);
            self.owed.set_first(self.base, now);
        }
        self.needs_timer(&self.owed) | silent
    }

    /// Whether the peer was heard again after a silence since this was last asked.
    pub(crate) fn take_silence(&self) -> bool {
        lower(&self.silence_ended)
    }

    fn needs_timer(&self, moment: &Moment) -> bool {
        moment.stands() && !self.armed.load(Ordering::SeqCst)
    }
}

/// Data that is unanswered for so long may be lost: longer than most round trips and the wait for an
/// acknowledgement.
const SILENCE: Duration = Duration::from_millis(500);

/// A point in time or never, as milliseconds since a base, plus one.
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

    /// Sets it unless it stands already. Sequentially consistent, for the hand-over with `armed`.
    fn set_first(&self, base: Instant, now: Instant) {
        if !self.stands() {
            self.0.store(encode(base, now), Ordering::SeqCst);
        }
    }

    /// Looks before it writes: most often there is nothing to clear, and reading shares the cache line.
    fn clear(&self) {
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
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

fn lower(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed)
}
