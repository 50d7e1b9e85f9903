//! One size under test: probes of it with their companions, and what their answers say.

use std::time::{Duration, Instant};

/// MAX_PROBES (RFC 8899 section 5.1.2).
pub(super) const MAX_PROBES: usize = 3;

/// Lost probes that are enough if something above had reason to suspect the size.
const MAX_PROBES_IF_SUSPECTED: usize = 2;

/// A size is given up when losing so many probes by chance has a probability of at most 10 in a million.
const BY_CHANCE: u64 = 10;

/// Larger shares of loss, in thousand, are not reckoned with: more than 33 probes would be needed.
const MAX_LOSSES: u32 = 700;

/// Companions lost one after the other that are an outage: it says nothing of sizes.
const OUTAGE: usize = 6;

/// Where so many companions of thousand are lost in any case, twice as many are.
const LOSSY: u32 = 300;

/// The lost probes are looked for in at most so many times as many pairs, since others lose their companions.
const PAIRS_PER_LOSS: usize = 4;

/// Bounds of the wait for a companion's answer. After each that is lost the next is waited for twice as long.
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
    /// Lost probes that make the size too large, at least.
    least: usize,
    /// So many leave shortly after each other. Further ones wait for the answers to those before.
    is_hasty: bool,
    /// Of thousand companions so many were lost before.
    losses: u32,
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
    /// It takes `least` lost probes to give the size up, and more where of thousand companions `losses` were
    /// lost. `rtt` is the round-trip time of the path, as far as it is known.
    pub(super) fn new(size: usize, least: usize, losses: u32, rtt: Option<Duration>) -> Self {
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

    /// Something above waits for what passes: as few lost probes as possible are needed from now on, and they
    /// leave without waiting for each other. Not at once, so that one full queue does not drop them all.
    pub(super) fn hurry(&mut self) {
        self.least = MAX_PROBES_IF_SUSPECTED;
        self.is_hasty = true;
    }

    /// Lost probes that show that their size is at fault: the more, the more companions are lost, in this
    /// trial or before.
    fn needed(&self, now: Instant) -> usize {
        let over = |pair: &&Pair| pair.passed.is_some() || now >= pair.sent + self.timeout;
        let (over, lost) = self
            .pairs
            .iter()
            .filter(over)
            .fold((0, 0), |(over, lost), pair| (over + 1, lost + u32::from(pair.passed.is_none())));
        let losses = u64::from(self.losses.max(lost * 1000 / u32::max(over, 1)).min(MAX_LOSSES));
        let mut chance = 1_000_000;
        let by_chance = std::iter::from_fn(|| (chance > BY_CHANCE).then(|| chance = chance * losses / 1000));
        self.least.max(by_chance.count())
    }

    /// Companions lost since one has passed, the last pair's counted if it is over.
    fn lost_in_a_row(&self) -> usize {
        self.pairs.iter().rev().take_while(|pair| pair.passed.is_none()).count()
    }

    /// Whether the last companion was lost; `None` while that is not known.
    pub(super) fn has_lost_companion(&self, now: Instant) -> Option<bool> {
        let is_lost = self.pairs.last()?.passed.is_none();
        (!is_lost || now >= self.given_up_at()?).then_some(is_lost)
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

    /// When the last pair is given up, or the next one leaves without waiting for that.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let given_up = self.given_up_at()?;
        let last = self.pairs.last().filter(|_| self.is_hasty && self.pairs.len() < self.least);
        Some(last.map_or(given_up, |last| given_up.min(last.sent + self.margin)))
    }

    /// When the last pair is given up.
    fn given_up_at(&self) -> Option<Instant> {
        let last = self.pairs.last()?;
        // Where losses are usual a few of them are no reason to wait.
        let usual = if self.losses < LOSSY { 1 } else { OUTAGE };
        let wait = self.timeout * (1 << self.lost_in_a_row().saturating_sub(usual).min(OUTAGE));
        Some(last.passed.map_or(last.sent + wait.min(MAX_TIMEOUT), |at| at + self.margin))
    }
}

/// How much later than its companion a probe may arrive.
fn margin(rtt: Duration) -> Duration {
    (rtt / 4).clamp(MIN_MARGIN, MAX_MARGIN)
}
