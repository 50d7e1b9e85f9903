//! Distribution of a queue's length over time.

use crate::{Time, ms, us};

/// Interval of samples.
const SAMPLE_INTERVAL: Time = ms(1);
/// Resolution of waits.
const WAIT_RESOLUTION: Time = us(100);

/// Histogram of a queue's length.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Time of the next sample, `None` before the first packet.
    next: Option<Time>,
    /// Counts by wait, in [`WAIT_RESOLUTION`]s.
    counts: Vec<u64>,
}

impl Standing {
    /// Samples the time up to `now`, in which no packet came; the queue will be empty at `busy_until`.
    pub(super) fn look(&mut self, now: Time, busy_until: f64) {
        let mut next = self.next.unwrap_or(now);
        while next <= now {
            let wait = (busy_until - next as f64).max(0.0) as Time;
            // An empty queue stays empty until the next packet.
            let times = if wait == 0 { (now - next) / SAMPLE_INTERVAL + 1 } else { 1 };
            let step = (wait / WAIT_RESOLUTION) as usize;
            if self.counts.len() <= step {
                self.counts.resize(step + 1, 0);
            }
            self.counts[step] += times;
            next += times * SAMPLE_INTERVAL;
        }
        self.next = Some(next);
    }

    /// Returns the median wait over time.
    pub(super) fn median(&self) -> Time {
        let half = self.counts.iter().sum::<u64>() / 2;
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen > half
        };
        self.counts.iter().position(reached).unwrap_or(0) as Time * WAIT_RESOLUTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_over_time_and_not_over_packets() {
        let mut standing = Standing::default();
        // Three packets come at once, and none for the next ten milliseconds.
        for leave in [0, 4, 8] {
            standing.look(0, ms(leave) as f64);
        }
        standing.look(ms(10), ms(9) as f64);
        // The samples are 0, then 8, 7, … 1, 0, 0: the sixth of eleven.
        assert_eq!(standing.counts.iter().sum::<u64>(), 11);
        assert_eq!(standing.median(), ms(3));
    }

    #[test]
    fn an_empty_queue_counts_too() {
        let mut standing = Standing::default();
        standing.look(0, 0.0);
        standing.look(ms(3), ms(5) as f64);
        standing.look(ms(100), ms(5) as f64);
        assert_eq!(standing.median(), 0);
        assert_eq!(Standing::default().median(), 0);
    }
}
