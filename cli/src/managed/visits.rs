//! Visits of a controller with another key to the members that may not know it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use peersock::overlay::Endpoint;
use peersock_controller::Controller;

use super::place::Place;

/// Interval of the visits of one round, each of [`Endpoint::MAX_VISITS`] members.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pause after a round: the first, and the longest. It doubles with each round.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(600);

/// Rounds of visits to members whose certificates a former key of the controller has signed. A member that is
/// off, or that only a root leads to, is found once it is back.
pub(super) struct Visits {
    next: Instant,
    pause: Duration,
    /// Number of members that were visited in this round.
    visited: usize,
}

impl Visits {
    pub(super) fn new() -> Visits {
        Visits { next: Instant::now(), pause: FIRST_PAUSE, visited: 0 }
    }

    /// Visits some members if it is time. The node is asked without the controller's lock.
    pub(super) fn step(&mut self, controller: &Mutex<Controller>, place: &Place) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let left = controller.lock().unwrap_or_else(PoisonError::into_inner).members_to_visit();
        let some: Vec<_> = left.iter().skip(self.visited).take(Endpoint::MAX_VISITS).copied().collect();
        if !some.is_empty()
            && let Err(failure) = place.visit(&some)
        {
            tracing::warn!("members are not visited: {}", failure.message());
        }
        self.plan(now, some.len(), left.len());
    }

    /// Plans the next visits after some of those that are left.
    fn plan(&mut self, now: Instant, some: usize, left: usize) {
        self.visited += some;
        if self.visited < left {
            self.next = now + INTERVAL;
            return;
        }
        (self.visited, self.next) = (0, now + self.pause);
        self.pause = LAST_PAUSE.min(2 * self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_close_at_first_and_become_rare() {
        let begun = Instant::now();
        let mut visits = Visits { next: begun, pause: FIRST_PAUSE, visited: 0 };
        let mut times = Vec::new();
        for _ in 0..20 {
            let now = visits.next;
            times.push(now - begun);
            visits.plan(now, 3, 3);
        }
        assert_eq!(times[..5], [0, 1, 3, 7, 15].map(Duration::from_secs));
        assert_eq!(times[19] - times[18], LAST_PAUSE);
        // Of many members, some have their turn each second, and a list that becomes shorter ends the round.
        let mut visits = Visits { next: begun, pause: FIRST_PAUSE, visited: 0 };
        visits.plan(begun, 32, 100);
        assert_eq!((visits.visited, visits.next - begun), (32, INTERVAL));
        visits.plan(begun, 0, 20);
        assert_eq!((visits.visited, visits.pause), (0, 2 * FIRST_PAUSE));
    }
}
