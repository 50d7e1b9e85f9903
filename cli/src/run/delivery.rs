//! Delivery of the program's sent data after it has ended.

use std::thread;
use std::time::{Duration, Instant};

use peersock::attach::{Linger, Patience, Remaining};
use peersock_attach::GRACE;
use peersock_socket_server::Outstanding;

use super::children::Requests;
use super::serving_node::ServingNode;

/// Maximum time of delivery after a request to end.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum age of a signal that may have ended the program.
const MAX_SIGNAL_AGE: Duration = Duration::from_secs(30);

/// Polling interval of the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Delivers data as far as possible. Returns the rest; `None` if the node has ended.
pub(super) fn deliver(node: &ServingNode, requests: &Requests) -> Option<Outstanding> {
    node.begin_drain();
    let mut end = End::new(Instant::now(), requests.last());
    loop {
        // A busy machine takes its time to answer what is left.
        let is_over = || end.asked_for(requests).is_some_and(|at| Instant::now() >= at + GRACE);
        let left = node.undelivered(is_over)?;
        let now = Instant::now();
        if end.is_here(now, &left.remaining(), requests) {
            return Some(left);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The condition for giving up.
struct End {
    patience: Patience,
    began: Instant,
    /// True if a request to end preceded the program's end.
    was_asked: bool,
}

impl End {
    fn new(now: Instant, asked: Option<Instant>) -> Self {
        let was_asked = asked.is_some_and(|at| now.saturating_duration_since(at) < MAX_SIGNAL_AGE);
        Self { patience: Patience::new(Linger::Unlimited, now), began: now, was_asked }
    }

    fn is_here(&mut self, now: Instant, left: &Remaining, requests: &Requests) -> bool {
        self.patience.is_over(now, left) || self.asked_for(requests).is_some_and(|at| now >= at)
    }

    /// Returns when requests to end leave no more time: at the second one, or some time after the first.
    fn asked_for(&self, requests: &Requests) -> Option<Instant> {
        let before = self.was_asked.then_some(self.began);
        let mut asked = before.into_iter().chain(requests.since(self.began));
        let first = asked.next()? + DELIVERY_TIMEOUT;
        Some(asked.next().map_or(first, |second| second.min(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the duration in milliseconds, given the data left at each one and the times of requests to
    /// end.
    fn lasts(asked_before: Option<u64>, asks: &[u64], left: impl Fn(u64) -> Remaining) -> u64 {
        let began = Instant::now() + Duration::from_secs(60);
        let requests = Requests::default();
        let before = asked_before.map(|ms| began - Duration::from_millis(ms));
        let mut end = End::new(began, before);
        (0..100_000)
            .find(|ms| {
                let now = began + Duration::from_millis(*ms);
                if asks.contains(ms) {
                    requests.note(now);
                }
                end.is_here(now, &left(*ms), &requests)
            })
            .expect("it ends")
    }

    fn waiting(bytes: u64, silence: u64) -> Remaining {
        Remaining { bytes, silence: Duration::from_millis(silence), ..Remaining::default() }
    }

    #[test]
    fn nobody_asks_and_it_goes_on_for_as_long_as_there_is_progress() {
        assert_eq!(lasts(None, &[], |_| Remaining::default()), 0);
        assert_eq!(lasts(None, &[], |ms| waiting(60_000_u64.saturating_sub(ms), 0)), 60_000);
        assert_eq!(lasts(None, &[], |ms| waiting(100, ms)), 10_000);
        assert_eq!(lasts(None, &[], |ms| waiting(100, ms % 5000)), 30_000);
    }

    #[test]
    fn a_signal_ends_it_also_if_only_ends_are_left() {
        let ends = Remaining { ends: 1, round_trip: Duration::from_secs(6), ..Remaining::default() };
        assert_eq!(lasts(None, &[], |_| ends), 20_000);
        assert_eq!(lasts(None, &[300], |_| ends), 2300);
    }

    #[test]
    fn a_signal_ends_it_soon_and_a_second_at_once() {
        let progress = |ms| waiting(100_000 - ms, 0);
        assert_eq!(lasts(Some(100), &[], progress), 2000);
        assert_eq!(lasts(Some(100), &[700], progress), 700);
        assert_eq!(lasts(None, &[300], progress), 2300);
        assert_eq!(lasts(None, &[300, 400], progress), 400);
        // That request did not end the program.
        assert_eq!(lasts(Some(50_000), &[300], progress), 2300);
    }
}
