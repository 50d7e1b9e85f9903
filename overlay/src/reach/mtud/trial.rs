//! One size under test: its probes and companions, and the conclusions from their answers.

use std::time::{Duration, Instant};

/// MAX_PROBES (RFC 8899 section 5.1.2).
pub(super) const MAX_PROBES: usize = 3;

/// Number of lost probes that suffices if an upper layer suspected the size.
const MAX_PROBES_IF_SUSPECTED: usize = 2;

/// Maximum probability, per million, of losing by chance all probes needed to give a size up.
const BY_CHANCE: u64 = 10;

/// Maximum loss rate considered, per thousand: a higher one would need more than 33 probes.
const MAX_LOSSES: u32 = 700;

/// Number of companions lost in a row that counts as an outage, which says nothing about sizes.
const OUTAGE: usize = 6;

/// Loss rate of companions, per thousand, from which an outage takes twice as many.
const LOSSY: u32 = 300;

/// Maximum number of pairs sent per lost probe needed.
// Some pairs lose their companions, and so say nothing.
const PAIRS_PER_LOSS: usize = 4;

/// Bounds of the wait for a companion's answer. After each loss the wait for the next doubles.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of the wait for a probe's answer after its companion's.
// The network may reorder the two.
const MIN_MARGIN: Duration = Duration::from_millis(10);
const MAX_MARGIN: Duration = Duration::from_millis(250);

/// One size under test.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) size: usize,
    /// Minimum number of lost probes that makes the size too large.
    least: usize,
    /// True if that number of probes leaves in quick succession. Further ones wait for earlier answers.
    is_hasty: bool,
    /// Earlier losses of companions, per thousand.
    losses: u32,
    /// Wait for a probe's answer after its companion's.
    margin: Duration,
    /// Wait for the first companion's answer.
    timeout: Duration,
    pairs: Vec<Pair>,
}

/// A probe and its companion.
#[derive(Debug)]
struct Pair {
    probe: u32,
    companion: u32,
    sent: Instant,
    /// Time when the companion was acknowledged.
    passed: Option<Instant>,
}

/// Next step for a size under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answers may still come, so the trial waits.
    Wait,
    /// Another probe and its companion are due.
    SendPair,
    /// The size is given up, because companions pass and probes do not.
    TooLarge,
    /// The trial ends without a result, because companions are lost too.
    Unanswered,
}

/// Meaning of an acknowledgement of a probe or companion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// True if the size has passed; false if only the companion has.
    pub(super) passed: bool,
    /// Round-trip time of the answer.
    pub(super) rtt: Duration,
}

impl Trial {
    /// Creates a trial that needs `least` lost probes to give the size up, and more with a loss rate of
    /// companions of `losses` per thousand. `rtt` is the path's round-trip time, if known.
    pub(super) fn new(size: usize, least: usize, losses: u32, rtt: Option<Duration>) -> Self {
        // Three round trips, because a large packet may wait longer in a queue than those that the estimate
        // comes from.
        let timeout = rtt.map_or(MAX_TIMEOUT / 2, |rtt| rtt * 3);
        Self {
            size,
            least,
            is_hasty: false,
            losses,
            margin: rtt.map_or(MAX_MARGIN, margin),
            timeout: timeout.clamp(MIN_TIMEOUT, MAX_TIMEOUT),
            pairs: Vec::with_capacity(1),
        }
    }

    /// Decides as early as possible from now on, because an upper layer waits.
    pub(super) fn hurry(&mut self) {
        self.least = MAX_PROBES_IF_SUSPECTED;
        // Spaced and not all at once, so that one full queue does not drop them all.
        self.is_hasty = true;
    }

    /// Returns the number of lost probes that prove the size too large. Grows with the loss rate of
    /// companions, in this trial or before.
    fn needed(&self, now: Instant) -> usize {
        let over = |pair: &&Pair| pair.passed.is_some() || now >= pair.sent + self.timeout;
        let (over, lost) = self
            .pairs
            .iter()
            .filter(over)
            .fold((0, 0), |(over, lost), pair| (over + 1, lost + u32::from(pair.passed.is_none())));
        // The trial's losses count at once, because a path that has just become lossy is not yet in the
        // average.
        let losses = u64::from(self.losses.max(lost * 1000 / u32::max(over, 1)).min(MAX_LOSSES));
        let mut chance = 1_000_000;
        let by_chance = std::iter::from_fn(|| (chance > BY_CHANCE).then(|| chance = chance * losses / 1000));
        self.least.max(by_chance.count())
    }

    /// Returns the number of companions lost since the last one passed, the last pair's included once it is
    /// over.
    fn lost_in_a_row(&self) -> usize {
        self.pairs.iter().rev().take_while(|pair| pair.passed.is_none()).count()
    }

    /// Returns true if the last companion was lost; `None` while that is unknown.
    pub(super) fn has_lost_companion(&self, now: Instant) -> Option<bool> {
        let is_lost = self.pairs.last()?.passed.is_none();
        (!is_lost || now >= self.given_up_at()?).then_some(is_lost)
    }

    /// Records a probe sent under `id`, with its companion under the next.
    pub(super) fn sent(&mut self, id: u32, now: Instant) {
        self.pairs.push(Pair { probe: id, companion: id.wrapping_add(1), sent: now, passed: None });
    }

    /// Records an acknowledgement of `id`; returns `None` if this trial did not send it.
    pub(super) fn answered(&mut self, id: u32, now: Instant) -> Option<Answer> {
        // Any pair of the trial counts, also one that was given up: a late answer shows that the size passes.
        let pair = self.pairs.iter_mut().find(|pair| pair.probe == id || pair.companion == id)?;
        let rtt = now.saturating_duration_since(pair.sent);
        let passed = pair.probe == id;
        if !passed {
            pair.passed.get_or_insert(now);
            // From this very pair: the probe is due as long after its companion as packets vary now.
            self.margin = margin(rtt);
        }
        Some(Answer { passed, rtt })
    }

    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let lost = self.pairs.iter().filter(|pair| pair.passed.is_some_and(|at| now >= at + self.margin));
        let needed = self.needed(now);
        if lost.count() >= needed {
            return Verdict::TooLarge;
        }
        let outage = if self.losses < LOSSY { OUTAGE } else { 2 * OUTAGE };
        match self.next_at() {
            Some(at) if now < at => Verdict::Wait,
            _ if self.lost_in_a_row() >= outage => Verdict::Unanswered,
            _ if self.pairs.len() < OUTAGE.max(needed * PAIRS_PER_LOSS) => Verdict::SendPair,
            _ => Verdict::Unanswered,
        }
    }

    /// Returns when the last pair is given up, or the next one leaves earlier.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let given_up = self.given_up_at()?;
        let last = self.pairs.last().filter(|_| self.is_hasty && self.pairs.len() < self.least);
        Some(last.map_or(given_up, |last| given_up.min(last.sent + self.margin)))
    }

    /// Returns when the last pair is given up.
    fn given_up_at(&self) -> Option<Instant> {
        let last = self.pairs.last()?;
        // With a high loss rate, a few losses in a row are no reason to back off.
        let usual = if self.losses < LOSSY { 1 } else { OUTAGE };
        let wait = self.timeout * (1 << self.lost_in_a_row().saturating_sub(usual).min(OUTAGE));
        Some(last.passed.map_or(last.sent + wait.min(MAX_TIMEOUT), |at| at + self.margin))
    }
}

/// Returns how much later than its companion a probe may arrive.
fn margin(rtt: Duration) -> Duration {
    (rtt / 4).clamp(MIN_MARGIN, MAX_MARGIN)
}
