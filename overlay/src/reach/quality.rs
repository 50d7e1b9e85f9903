//! Quality of a place: its round-trip time and loss, and the advantage needed to leave another place for it.

use std::time::{Duration, Instant};

/// Number of answers from a place before it is compared with another.
const MIN_SAMPLES: u32 = 3;

/// Minimum advantage of another place, besides a quarter of the own cost. Two places of one link, and two
/// measurements of one place, differ by less.
const MIN_COST_ADVANTAGE: Duration = Duration::from_millis(5);

/// The same for the shortest round trips, which load does not lengthen: there the advantage is also at least
/// a third of the own one. A tunnel between two machines of one local network costs more than this.
const MIN_GAIN_OF_SHORTEST: Duration = Duration::from_micros(100);

/// Cost of a lost packet to its sender: the smallest common retransmission timeout.
const LOSS_COST: Duration = Duration::from_millis(200);

/// Minimum interval of path changes for a better place.
pub(super) const MIN_CHANGE_INTERVAL: Duration = Duration::from_secs(30);

/// Interval of questions to a place that answers, while traffic flows and there is a choice.
const ASK_INTERVAL: Duration = Duration::from_secs(10);

/// The same until the place can be compared.
const FIRST_ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum of that interval, which doubles with each unanswered question.
const MAX_ASK_INTERVAL: Duration = Duration::from_secs(160);

/// Timeout while the round-trip time is unknown: the longest round trip allowed for a handshake.
const UNKNOWN: Duration = Duration::from_secs(10);

/// Denominator of the loss rate; each loss has a weight of an eighth.
const WHOLE: u32 = 256;

/// Measurements of one place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quality {
    rtt: Option<Rtt>,
    shortest: Shortest,
    /// Moving average, in 256ths.
    loss: u32,
    samples: u32,
    /// Number of unanswered questions in a row.
    unanswered: u32,
    /// Time from which it may be asked again.
    ask_at: Option<Instant>,
}

/// Smoothed round-trip time and its variation (RFC 6298, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rtt {
    smoothed: Duration,
    variation: Duration,
}

impl Rtt {
    fn first(sample: Duration) -> Self {
        Self { smoothed: sample, variation: sample / 2 }
    }

    fn blend(self, sample: Duration) -> Self {
        let deviation = self.smoothed.abs_diff(sample);
        Self { variation: (self.variation * 3 + deviation) / 4, smoothed: (self.smoothed * 7 + sample) / 8 }
    }
}

/// Minimum of the recent round-trip times. Old ones expire, because the path may have become longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shortest {
    /// Minimum of the present window, and of the previous window of [`Shortest::WINDOW`] samples.
    windows: [Option<Duration>; 2],
    samples: u8,
}

impl Shortest {
    const WINDOW: u8 = 16;

    fn sample(&mut self, sample: Duration) {
        if self.samples == Self::WINDOW {
            // The previous window remains, because a minimum of few new samples would be too high.
            (self.windows[1], self.windows[0], self.samples) = (self.windows[0], None, 0);
        }
        self.samples += 1;
        self.windows[0] = Some(self.windows[0].map_or(sample, |shortest| shortest.min(sample)));
    }

    fn get(&self) -> Option<Duration> {
        self.windows.into_iter().flatten().min()
    }
}

impl Quality {
    /// Returns the smoothed round-trip time.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| rtt.smoothed)
    }

    /// Returns the time after which a missing answer counts as lost: RFC 6298's timeout, at least one second,
    /// or the longest duration of a handshake while nothing is known.
    pub(super) fn timeout(&self) -> Duration {
        self.rtt.map_or(UNKNOWN, |rtt| (rtt.smoothed + rtt.variation * 4).max(Duration::from_secs(1)))
    }

    /// Records a round-trip time.
    pub(super) fn sample(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(Rtt::first(sample), |rtt| rtt.blend(sample)));
        self.shortest.sample(sample);
    }

    /// Records a question to the place. `is_urgent` asks more often until the place can be compared.
    pub(super) fn asked(&mut self, is_urgent: bool, now: Instant) {
        let wait = match self.unanswered {
            0 if is_urgent && self.samples + 1 < MIN_SAMPLES => FIRST_ASK_INTERVAL,
            unanswered => ASK_INTERVAL * (1 << unanswered.min(4)),
        };
        self.ask_at = Some(now + wait.min(MAX_ASK_INTERVAL));
    }

    /// Returns true if a question to the place is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.ask_at.is_none_or(|at| now >= at)
    }

    /// Returns when the place may be asked again.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Records an answer.
    pub(super) fn answered(&mut self) {
        // Rounded up, so that a loss fades away completely.
        self.loss -= self.loss.div_ceil(8);
        self.samples = self.samples.saturating_add(1);
        self.unanswered = 0;
    }

    /// Ignores the place until it answers again, because it may have failed, and makes a question due at
    /// once.
    pub(super) fn doubt(&mut self) {
        self.unanswered = self.unanswered.max(1);
        self.ask_at = None;
    }

    /// Returns true if the last question was answered.
    pub(super) fn works(&self) -> bool {
        self.samples > 0 && self.unanswered == 0
    }

    /// Records a question that was not answered in time.
    pub(super) fn lost(&mut self) {
        self.loss += (WHOLE - self.loss) / 8;
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Returns the cost of a packet on this way: its round-trip time plus the expected cost of its loss.
    /// Returns `None` while too little is known.
    fn cost(&self) -> Option<Duration> {
        if self.samples < MIN_SAMPLES {
            return None;
        }
        Some(self.rtt()? + LOSS_COST * self.loss / WHOLE)
    }

    /// Returns true if a path of this quality is worth leaving for a place of quality `other`.
    pub(super) fn is_beaten_by(&self, other: &Quality) -> bool {
        let (Some(own), Some(theirs)) = (self.cost(), other.cost()) else { return false };
        let is_shorter = match (self.shortest.get(), other.shortest.get()) {
            (Some(own), Some(theirs)) => theirs + MIN_GAIN_OF_SHORTEST.max(own / 3) <= own,
            _ => false,
        };
        // The advantage must be clear. Two equal places would otherwise take turns, and each change reorders
        // packets.
        other.unanswered == 0
            && (theirs + MIN_COST_ADVANTAGE.max(own / 4) <= own || is_shorter && theirs < own)
    }

    /// Returns true if this quality is better than `other`, by however little.
    pub(super) fn is_cheaper_than(&self, other: &Quality) -> bool {
        match (self.cost(), other.cost()) {
            (Some(own), Some(theirs)) => own < theirs,
            (own, _) => own.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn round_trips_are_smoothed_as_rfc_6298_says() {
        let mut quality = Quality::default();
        assert_eq!(quality.rtt(), None);
        quality.sample(ms(80));
        assert_eq!(quality.rtt, Some(Rtt { smoothed: ms(80), variation: ms(40) }));
        quality.sample(ms(160));
        assert_eq!(quality.rtt, Some(Rtt { smoothed: ms(90), variation: ms(50) }));
        assert_eq!(quality.timeout(), ms(1000));
        quality.sample(ms(8090));
        assert!(quality.timeout() > ms(8090));
    }

    #[test]
    fn a_round_trip_of_long_ago_is_not_the_shortest_any_more() {
        let mut quality = Quality::default();
        quality.sample(ms(1));
        (0..20).for_each(|_| quality.sample(ms(30)));
        assert_eq!(quality.shortest.get(), Some(ms(1)));
        (0..20).for_each(|_| quality.sample(ms(30)));
        assert_eq!(quality.shortest.get(), Some(ms(30)));
    }

    #[test]
    fn a_path_is_left_for_a_much_better_one_only() {
        for (path, other, left) in
            [(20, 10, true), (20, 16, false), (20, 15, true), (4, 3, false), (200, 160, false)]
        {
            assert_eq!(steady(path).is_beaten_by(&steady(other)), left, "{path} {other}");
        }
    }

    #[test]
    fn a_short_path_is_left_for_one_that_is_shorter_when_nothing_loads_it() {
        let of = |micros: &[u64]| {
            let mut quality = Quality::default();
            for sample in micros {
                quality.sample(Duration::from_micros(*sample));
                quality.answered();
            }
            quality
        };
        // A tunnel beside the local network that carries it.
        let (tunnel, lan) = (of(&[240, 260, 235]), of(&[35, 60, 40]));
        assert!(tunnel.is_beaten_by(&lan) && !lan.is_beaten_by(&tunnel));
        // Under load the path only appears worse than an idle one.
        let loaded = of(&[35, 4000, 3000]);
        assert!(!loaded.is_beaten_by(&tunnel));
        assert!(of(&[240, 3000, 4000]).is_beaten_by(&lan));
        // A place that was shorter once, but no longer is.
        assert!(!tunnel.is_beaten_by(&of(&[35, 4000, 4000])));
        // Two measurements of one way.
        assert!(!of(&[130, 140, 120]).is_beaten_by(&of(&[40, 50, 45])));
    }

    #[test]
    fn loss_counts_as_time() {
        let mut lossy = steady(10);
        for _ in 0..8 {
            lossy.lost();
        }
        assert!(lossy.is_beaten_by(&steady(30)));
        // A silent place never wins.
        let mut silent = steady(1);
        silent.lost();
        assert!(!steady(100).is_beaten_by(&silent));
    }

    #[test]
    fn a_loss_is_forgotten_after_many_answers() {
        let mut quality = steady(10);
        quality.lost();
        assert!(quality.cost() > steady(10).cost());
        (0..100).for_each(|_| quality.answered());
        assert_eq!(quality.cost(), steady(10).cost());
    }

    #[test]
    fn too_few_answers_are_none() {
        let mut quality = Quality::default();
        for _ in 0..MIN_SAMPLES - 1 {
            quality.sample(ms(1));
            quality.answered();
        }
        assert!(!steady(100).is_beaten_by(&quality));
        quality.answered();
        assert!(steady(100).is_beaten_by(&quality));
    }

    #[test]
    fn no_pair_of_places_beats_each_other() {
        for one in 0..300 {
            for other in 0..300 {
                let (one, other) = (steady(one), steady(other));
                assert!(!(one.is_beaten_by(&other) && other.is_beaten_by(&one)));
            }
        }
    }

    #[test]
    fn silent_places_are_asked_more_and_more_rarely() {
        let mut quality = Quality::default();
        let (mut now, mut asked) = (instant(), 0);
        let end = now + Duration::from_secs(3600);
        while now < end {
            if quality.is_due(now) {
                quality.asked(true, now);
                quality.lost();
                asked += 1;
            }
            now += Duration::from_secs(1);
        }
        // The interval doubles from 10 s up to 160 s.
        assert!((20..=30).contains(&asked), "{asked}");
    }

    fn steady(millis: u64) -> Quality {
        let mut quality = Quality::default();
        for _ in 0..MIN_SAMPLES {
            quality.sample(ms(millis));
            quality.answered();
        }
        quality
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}
