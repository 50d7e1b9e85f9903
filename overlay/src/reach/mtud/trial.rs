//! One size under test: probes of it with their companions, and what their answers say.

use std::time::{Duration, Instant};

/// MAX_PROBES (RFC 8899 section 5.1.2).
pub(super) const MAX_PROBES: usize = 3;

/// Lost probes that are enough if something above had reason to suspect the size.
pub(super) const MAX_PROBES_IF_SUSPECTED: usize = 2;

/// Probes of one size, if the companions are lost too.
const MAX_PAIRS: usize = 6;

/// That many lost probes are looked for in at most so many times as many pairs, since others lose their
/// companions.
const PAIRS_PER_LOSS: usize = 3;

/// Bounds of the wait for the first companion's answer; each further one is waited for twice as long.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of the wait for a probe's answer once its companion's is there: the network may have changed their
/// order.
const MIN_MARGIN: Duration = Duration::from_millis(10);
const MAX_MARGIN: Duration = Duration::from_millis(250);

/// One size under test.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) size: usize,
    /// Lost probes that make the size too large.
    needed: usize,
    /// How long a probe's answer is waited for once its companion's is there.
    margin: Duration,
    /// How long the first companion's answer is waited for.
    timeout: Duration,
    pairs: Vec<Pair>,
}

/// A probe and its companion.
#[derive(Debug)]
struct Pair {
    probe: u32,
    companion: u32,
    sent: Instant,
    /// When the companion was acknowledged.
    passed: Option<Instant>,
}

/// What is to be done about a size under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answers may still come.
    Wait,
    /// Another probe is to be sent.
    SendPair,
    /// Companions pass and probes do not.
    TooLarge,
    /// Companions are lost too.
    Unanswered,
}

/// What the acknowledgement of a probe or companion says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The size has passed; else only the companion has.
    pub(super) passed: bool,
    /// How long the answer took.
    pub(super) rtt: Duration,
}

impl Trial {
    /// So many lost probes are `needed` to give the size up. `rtt` is the round-trip time of the path, as far
    /// as it is known.
    pub(super) fn new(size: usize, needed: usize, rtt: Option<Duration>) -> Self {
        let timeout = rtt.map_or(MAX_TIMEOUT / 2, |rtt| rtt * 3);
        Self {
            size,
            needed,
            margin: rtt.map_or(MAX_MARGIN, margin),
            timeout: timeout.clamp(MIN_TIMEOUT, MAX_TIMEOUT),
            pairs: Vec::with_capacity(1),
        }
    }

    /// So many lost probes are needed from now on to give the size up.
    pub(super) fn require(&mut self, needed: usize) {
        self.needed = needed;
    }

    /// Whether the last companion is not acknowledged.
    pub(super) fn has_lost_companion(&self) -> bool {
        self.pairs.last().is_some_and(|pair| pair.passed.is_none())
    }

    /// A probe was sent under `id`, and its companion under the next.
    pub(super) fn sent(&mut self, id: u32, now: Instant) {
        self.pairs.push(Pair { probe: id, companion: id.wrapping_add(1), sent: now, passed: None });
    }

    /// The peer acknowledges `id`; `None` if that is none of this trial.
    pub(super) fn answered(&mut self, id: u32, now: Instant) -> Option<Answer> {
        let pair = self.pairs.iter_mut().find(|pair| pair.probe == id || pair.companion == id)?;
        let rtt = now.saturating_duration_since(pair.sent);
        let passed = pair.probe == id;
        if !passed {
            pair.passed.get_or_insert(now);
            self.margin = margin(rtt);
        }
        Some(Answer { passed, rtt })
    }

    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let lost = self.pairs.iter().filter(|pair| pair.passed.is_some_and(|at| now >= at + self.margin));
        if lost.count() >= self.needed {
            return Verdict::TooLarge;
        }
        match self.next_at() {
            Some(at) if now < at => Verdict::Wait,
            _ if self.pairs.len() < MAX_PAIRS.max(self.needed * PAIRS_PER_LOSS) => Verdict::SendPair,
            _ => Verdict::Unanswered,
        }
    }

    /// When the last pair is given up.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let last = self.pairs.last()?;
        let wait = self.timeout * (1 << (self.pairs.len() - 1).min(MAX_PAIRS));
        Some(last.passed.map_or(last.sent + wait.min(MAX_TIMEOUT), |at| at + self.margin))
    }
}

/// How much later than its companion a probe may arrive.
fn margin(rtt: Duration) -> Duration {
    (rtt / 4).clamp(MIN_MARGIN, MAX_MARGIN)
}
