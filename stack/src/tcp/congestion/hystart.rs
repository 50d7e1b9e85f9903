//! HyStart++ (RFC 9406): slow start ends when round-trip times grow, before the queue overflows.
//!
//! Longer round trips may have other causes. So the window first grows slowly for a few rounds (conservative
//! slow start), and normally again if the round trips get shorter.

use std::time::Duration;

const MIN_THRESHOLD: Duration = Duration::from_millis(4);
const MAX_THRESHOLD: Duration = Duration::from_millis(16);
/// Divisor of the round-trip time that gives the threshold.
const DIVISOR: u32 = 8;
/// Number of samples that a round needs.
const SAMPLES: u32 = 8;
/// Divisor of the growth in conservative slow start, and its number of rounds.
const CONSERVATIVE_GROWTH_DIVISOR: u64 = 4;
const CONSERVATIVE_ROUNDS: u32 = 5;

#[derive(Debug, Clone, Copy)]
pub(super) struct HyStart {
    /// Stream offset that ends the round.
    end: u64,
    current: Option<Duration>,
    last: Option<Duration>,
    samples: u32,
    conservative: Option<Conservative>,
}

#[derive(Debug, Clone, Copy)]
struct Conservative {
    baseline: Duration,
    rounds: u32,
}

/// Effect of an acknowledgement on slow start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Grow by this number of bytes.
    Grow(u64),
    /// Leave slow start.
    End,
}

impl HyStart {
    pub(super) fn new() -> Self {
        Self { end: 0, current: None, last: None, samples: 0, conservative: None }
    }

    /// Processes an acknowledgement of `bytes`. `una` is the oldest unacknowledged offset, `nxt` the next to
    /// be sent.
    pub(super) fn on_ack(&mut self, una: u64, nxt: u64, bytes: u64, rtt: Option<Duration>) -> Step {
        if una > self.end {
            // A round without samples keeps the last known minimum.
            self.last = self.current.take().or(self.last);
            self.samples = 0;
            self.end = nxt;
            if let Some(conservative) = &mut self.conservative {
                // RFC 9406 4.2: a rise that lasts through these rounds is a queue.
                conservative.rounds += 1;
                if conservative.rounds >= CONSERVATIVE_ROUNDS {
                    return Step::End;
                }
            }
        }
        if let Some(rtt) = rtt {
            self.samples = self.samples.saturating_add(1);
            self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
        }
        // RFC 9406 4.2: with fewer samples, one late acknowledgement would look like a queue.
        if self.samples >= SAMPLES
            && let (Some(current), Some(last)) = (self.current, self.last)
        {
            match self.conservative {
                None => {
                    // The bounds keep jitter on short paths from ending slow start, and notice a queue on
                    // long ones.
                    let threshold = (last / DIVISOR).clamp(MIN_THRESHOLD, MAX_THRESHOLD);
                    if current >= last + threshold {
                        self.conservative = Some(Conservative { baseline: current, rounds: 0 });
                    }
                }
                // Shorter round trips show that no queue caused the rise (RFC 9406 4.2).
                Some(Conservative { baseline, .. }) if current < baseline => self.conservative = None,
                Some(_) => {}
            }
        }
        Step::Grow(if self.conservative.is_some() { bytes / CONSERVATIVE_GROWTH_DIVISOR } else { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a round of 10 acknowledgements with this round-trip time; returns the last step.
    fn round(hystart: &mut HyStart, number: u64, rtt_ms: u64) -> Step {
        let mut step = Step::Grow(0);
        for i in 1..=10 {
            let una = number * 1000 + i * 100;
            step = hystart.on_ack(una, (number + 1) * 1000, 400, Some(Duration::from_millis(rtt_ms)));
            if step == Step::End {
                return step;
            }
        }
        step
    }

    #[test]
    fn growth_slows_down_when_round_trips_get_longer_and_ends_five_rounds_later() {
        let mut hystart = HyStart::new();
        assert_eq!(round(&mut hystart, 0, 40), Step::Grow(400));
        assert_eq!(round(&mut hystart, 1, 44), Step::Grow(400));
        assert_eq!(round(&mut hystart, 2, 50), Step::Grow(100));
        for number in 3..7 {
            assert_eq!(round(&mut hystart, number, 50), Step::Grow(100));
        }
        assert_eq!(round(&mut hystart, 7, 50), Step::End);
    }

    #[test]
    fn slow_start_resumes_when_round_trips_get_shorter_again() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 0, 40);
        assert_eq!(round(&mut hystart, 1, 60), Step::Grow(100));
        assert_eq!(round(&mut hystart, 2, 41), Step::Grow(400));
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 0, 40);
        for i in 1..SAMPLES {
            let step = hystart.on_ack(1000 + u64::from(i), 2000, 400, Some(Duration::from_millis(90)));
            assert_eq!(step, Step::Grow(400));
        }
    }
}
