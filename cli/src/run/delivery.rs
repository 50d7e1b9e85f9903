//! After the program has ended: what it has sent is delivered, for as long as that makes sense.

use std::thread;
use std::time::{Duration, Instant};

use peersock_descriptors::{FdServer, Outstanding};

use super::children::Requests;

/// How long the end may take once somebody has asked for it.
const LINGER: Duration = Duration::from_secs(2);
/// How long a peer may be silent that something is sent to. A laptop that changes its network, or an answer
/// over a satellite, takes seconds, and a peer that has no room is asked more and more rarely.
const SILENT: Duration = Duration::from_secs(10);
/// How long a peer that is there may take nothing.
const STALLED: Duration = Duration::from_secs(30);
/// How long peers may take to acknowledge ends of connections, when there is nothing else to deliver, beside
/// [`ENDS_ROUND_TRIPS`]. A peer that has not got the end sees a reset when the node leaves, and its program
/// takes what it has for cut off.
const ENDS: Duration = LINGER;
/// One is for the first transmission; after one or two more it is sent again.
const ENDS_ROUND_TRIPS: u32 = 3;
/// A signal that came so long before the program has ended was not what ended it.
const RECENT: Duration = Duration::from_secs(30);

/// How often it is looked how far it has come.
const LOOK: Duration = Duration::from_millis(2);

/// Delivers what can be delivered; gives what cannot.
pub(super) fn deliver(server: &FdServer, requests: &Requests) -> Outstanding {
    server.begin_drain();
    let mut patience = Patience::new(Instant::now(), requests.last());
    loop {
        let left = server.undelivered();
        let now = Instant::now();
        if patience.is_over(now, &left, requests) {
            return left;
        }
        thread::sleep(LOOK);
    }
}

/// When to give up.
struct Patience {
    began: Instant,
    /// Whether somebody has asked for the end before the program ended.
    was_asked: bool,
    /// The fewest bytes that have waited, and since when there are no fewer.
    least: (u64, Instant),
}

impl Patience {
    fn new(now: Instant, asked: Option<Instant>) -> Self {
        let was_asked = asked.is_some_and(|at| now.saturating_duration_since(at) < RECENT);
        Self { began: now, was_asked, least: (u64::MAX, now) }
    }

    fn is_over(&mut self, now: Instant, left: &Outstanding, requests: &Requests) -> bool {
        if left.waiting == 0 && left.ends == 0 {
            return true;
        }
        if left.waiting < self.least.0 {
            self.least = (left.waiting, now);
        }
        let asked = requests.since(self.began);
        let first = if self.was_asked { Some(self.began) } else { asked.first().copied() };
        let times = asked.len() + usize::from(self.was_asked);
        if times > 1 || first.is_some_and(|at| now >= at + LINGER) {
            return true;
        }
        if left.waiting == 0 {
            return now >= self.began.max(self.least.1) + ENDS + ENDS_ROUND_TRIPS * left.round_trip;
        }
        let stalled = now.saturating_duration_since(self.least.1);
        let silent = SILENT + left.round_trip;
        stalled >= STALLED || (stalled >= silent && left.silence >= silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it lasts, milliseconds, if this is left after each number of them, and somebody asks for the
    /// end then.
    fn lasts(asked_before: Option<u64>, asks: &[u64], left: impl Fn(u64) -> Outstanding) -> u64 {
        let began = Instant::now() + Duration::from_secs(60);
        let requests = Requests::default();
        let before = asked_before.map(|ms| began - Duration::from_millis(ms));
        let mut patience = Patience::new(began, before);
        (0..100_000)
            .find(|ms| {
                let now = began + Duration::from_millis(*ms);
                if asks.contains(ms) {
                    requests.note(now);
                }
                patience.is_over(now, &left(*ms), &requests)
            })
            .expect("it ends")
    }

    fn waiting(bytes: u64, silence: u64) -> Outstanding {
        let mut left = Outstanding::default();
        left.waiting = bytes;
        left.silence = Duration::from_millis(silence);
        left
    }

    #[test]
    fn nothing_to_deliver_takes_no_time_and_ends_are_sent_a_few_times() {
        assert_eq!(lasts(None, &[], |_| Outstanding::default()), 0);
        let mut ends = Outstanding::default();
        ends.ends = 3;
        assert_eq!(lasts(None, &[], |_| ends), 2000);
        // An end that was lost twice, on a path with half a second's round trip.
        let acknowledged = |ms| if ms < 1900 { ends } else { Outstanding::default() };
        assert_eq!(lasts(None, &[], acknowledged), 1900);
    }

    #[test]
    fn ends_have_three_round_trips_more() {
        let mut ends = Outstanding::default();
        (ends.ends, ends.round_trip) = (1, Duration::from_secs(6));
        assert_eq!(lasts(None, &[], |_| ends), 20_000);
        // Lost once: acknowledged a retransmission time-out and a round trip later.
        let acknowledged = |ms| if ms < 15_000 { ends } else { Outstanding::default() };
        assert_eq!(lasts(None, &[], acknowledged), 15_000);
        assert_eq!(lasts(None, &[300], |_| ends), 2300);
    }

    #[test]
    fn what_an_outage_holds_up_is_delivered_after_it() {
        // Its length, or the round trip, milliseconds.
        for outage in [2500, 6000, 9900] {
            let back = |ms| if ms < outage { waiting(100, ms) } else { Outstanding::default() };
            assert_eq!(lasts(None, &[], back), outage);
        }
    }

    #[test]
    fn progress_goes_on_and_a_peer_that_vanished_ends_it() {
        assert_eq!(lasts(None, &[], |ms| waiting(60_000_u64.saturating_sub(ms), 0)), 60_000);
        assert_eq!(lasts(None, &[], |ms| waiting(100, ms)), 10_000);
        // It was silent before the program ended, and has come back.
        assert_eq!(lasts(None, &[], |ms| waiting(100_u64.saturating_sub(ms), 5000)), 100);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_waited_for_longer() {
        assert_eq!(lasts(None, &[], |ms| waiting(100, ms % 5000)), 30_000);
    }

    #[test]
    fn a_signal_ends_it_soon_and_a_second_at_once() {
        let progress = |ms| waiting(100_000 - ms, 0);
        assert_eq!(lasts(Some(100), &[], progress), 2000);
        assert_eq!(lasts(Some(100), &[700], progress), 700);
        assert_eq!(lasts(None, &[300], progress), 2300);
        assert_eq!(lasts(None, &[300, 400], progress), 400);
        // That was about something else.
        assert_eq!(lasts(Some(50_000), &[300], progress), 2300);
    }
}
