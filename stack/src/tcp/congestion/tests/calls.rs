//! Reactions of the algorithms to single calls.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::host::clock::Time;
use crate::tcp::congestion::{Ack, Algorithm, Cause, Controller, Lost, View};
use crate::tcp::rate::{RateSample, Snapshot};

const INITIAL: u64 = 10 * MSS;

/// An algorithm on a path of 40 ms that delivers one whole window at a time.
struct Flow {
    algorithm: Controller,
    view: View,
}

impl Flow {
    fn new(control: CongestionControl) -> Self {
        let now = Time::from_millis(1000);
        let view = View {
            now,
            mss: MSS,
            in_flight: 0,
            delivered: 0,
            lost: 0,
            una: 0,
            nxt: 0,
            srtt: None,
            window_limited: true,
        };
        Self { algorithm: control.start(now, MSS, INITIAL), view }
    }

    /// Sends a window and acknowledges it.
    fn round(&mut self) {
        let window = self.send();
        self.ack(window);
    }

    fn send(&mut self) -> u64 {
        let window = self.algorithm.window();
        self.algorithm.on_sent(&self.view, window);
        self.view.in_flight = window;
        self.view.nxt += window;
        window
    }

    fn ack(&mut self, bytes: u64) {
        let rtt = Duration::from_millis(40);
        self.view.srtt = Some(rtt);
        self.deliver(bytes, rtt, Some(rtt));
    }

    /// Acknowledges `bytes` after `time`.
    fn deliver(&mut self, bytes: u64, time: Duration, rtt: Option<Duration>) {
        let prior_delivered = self.view.delivered;
        let prior_in_flight = self.view.in_flight;
        self.view.now += time.into();
        self.view.in_flight -= bytes;
        self.view.delivered += bytes;
        self.view.una += bytes;
        let sample = RateSample {
            rate: Some(bytes * 1000 / time.as_millis() as u64),
            delivered: bytes,
            prior_delivered,
            tx_in_flight: prior_in_flight,
            lost: 0,
            app_limited: false,
            valid: true,
        };
        let ack = Ack { acked: bytes, delivered: bytes, lost: 0, prior_in_flight, rtt, sample };
        self.algorithm.on_ack(&self.view, &ack);
    }

    fn time_out(&mut self) {
        self.view.lost += self.view.in_flight;
        self.view.in_flight = 0;
        self.algorithm.on_timeout(&self.view);
    }

    fn recover(&mut self) {
        self.algorithm.on_recovered(&self.view);
    }

    fn lose(&mut self, bytes: u64) {
        let snapshot = Snapshot {
            sent: self.view.now,
            first_sent: self.view.now,
            delivered: self.view.delivered,
            delivered_at: self.view.now,
            in_flight: self.view.in_flight,
            lost: self.view.lost,
            app_limited: false,
        };
        self.view.lost += bytes;
        self.view.in_flight -= bytes;
        self.algorithm.on_lost(&self.view, &Lost { bytes, snapshot });
        self.algorithm.on_congestion(&self.view, Cause::Loss);
    }
}

#[test]
fn the_first_window_is_not_paced_and_later_ones_are() {
    for control in ALL {
        let mut flow = Flow::new(control);
        assert_eq!((flow.algorithm.window(), flow.algorithm.pacing_rate()), (INITIAL, None));
        flow.round();
        let rate = flow.algorithm.pacing_rate().expect("there is a round trip time");
        assert!((INITIAL * 25..=INITIAL * 25 * 4).contains(&rate), "{control}: {rate}");
    }
}

/// A retransmitted byte gives no round-trip time, because it is unknown which transmission arrived. The next
/// data must not leave at the rate of such a byte.
#[test]
fn a_first_byte_that_was_sent_again_says_nothing_about_the_rate() {
    for control in ALL {
        let mut flow = Flow::new(control);
        flow.send();
        flow.deliver(1, Duration::from_millis(500), None);
        let rate = flow.algorithm.pacing_rate();
        assert!(rate.is_none_or(|rate| rate >= INITIAL), "{control}: {rate:?}");
    }
}

#[test]
fn published_bbr_paces_from_the_handshake_on() {
    let mut flow = Flow::new(Bbr3);
    flow.view.srtt = Some(Duration::from_millis(40));
    flow.send();
    assert!(flow.algorithm.pacing_rate().is_some());
}

#[test]
fn the_window_doubles_each_round_trip_at_first() {
    for control in ALL {
        let mut flow = Flow::new(control);
        for _ in 0..5 {
            let window = flow.algorithm.window();
            flow.round();
            assert_eq!(flow.algorithm.window(), 2 * window, "{control}");
        }
    }
}

#[test]
fn a_loss_halves_the_window_or_less_for_the_loss_based() {
    for (control, left) in [(Reno, 50), (Cubic, 70)] {
        let mut flow = Flow::new(control);
        for _ in 0..5 {
            flow.round();
        }
        let window = flow.send();
        flow.lose(MSS);
        assert_eq!(flow.algorithm.slow_start_threshold(), Some(window * left / 100), "{control}");
        // The retransmission may leave at once.
        assert_eq!(flow.algorithm.window(), flow.view.in_flight + MSS);
        flow.recover();
        assert_eq!(flow.algorithm.window(), window * left / 100);
    }
}

#[test]
fn reno_grows_by_a_segment_in_a_round_trip_after_a_loss() {
    let mut flow = Flow::new(Reno);
    flow.round();
    flow.send();
    flow.lose(MSS);
    flow.recover();
    flow.view.in_flight = 0;
    let window = flow.algorithm.window();
    flow.round();
    assert_eq!(flow.algorithm.window(), window + MSS);
    flow.view.window_limited = false;
    for _ in 0..4 {
        flow.round();
    }
    let window = flow.algorithm.window();
    flow.round();
    flow.round();
    assert_eq!(flow.algorithm.window(), window, "a window that is not used does not grow");
}

#[test]
fn cubic_returns_to_where_it_was_within_k_and_lingers_there() {
    let mut flow = Flow::new(Cubic);
    for _ in 0..5 {
        flow.round();
    }
    let window = flow.send();
    flow.lose(MSS);
    flow.recover();
    flow.view.in_flight = 0;
    // K = cbrt(0.3 * 320 / 0.4): 6.2 s.
    let segments = window as f64 / MSS as f64;
    let k = (segments * 0.3 / 0.4).cbrt();
    let rounds = (k / 0.04) as u32;
    for _ in 0..rounds / 2 {
        flow.round();
    }
    let halfway = flow.algorithm.window() as f64 / window as f64;
    assert!((0.94..0.99).contains(&halfway), "{halfway}");
    for _ in rounds / 2..rounds {
        flow.round();
    }
    let there = flow.algorithm.window() as f64 / window as f64;
    assert!((0.995..1.005).contains(&there), "{there}");
}

#[test]
fn after_a_timeout_the_window_is_small_and_grows_with_what_is_delivered() {
    for control in ALL {
        let mut flow = Flow::new(control);
        for _ in 0..5 {
            flow.round();
        }
        let window = flow.send();
        flow.time_out();
        let small = flow.algorithm.window();
        assert!((MSS..=4 * MSS).contains(&small), "{control}: {small}");
        flow.round();
        assert_eq!(flow.algorithm.window(), 2 * small, "{control}");
        flow.recover();
        let after = flow.algorithm.window();
        if matches!(control, Bbr | Bbr3) {
            assert_eq!(after, window, "the model is still good");
        } else {
            assert_eq!(after, 2 * small);
            assert!(flow.algorithm.slow_start_threshold() >= Some(window / 2));
        }
    }
}

#[test]
fn what_was_no_loss_is_undone() {
    for control in ALL {
        let mut flow = Flow::new(control);
        for _ in 0..5 {
            flow.round();
        }
        let before = (flow.send(), flow.algorithm.slow_start_threshold());
        flow.time_out();
        flow.time_out();
        flow.algorithm.on_undo(&flow.view);
        assert_eq!((flow.algorithm.window(), flow.algorithm.slow_start_threshold()), before, "{control}");
        flow.send();
        flow.lose(20 * MSS);
        flow.algorithm.on_undo(&flow.view);
        assert_eq!((flow.algorithm.window(), flow.algorithm.slow_start_threshold()), before, "{control}");
    }
}

#[test]
fn after_idling_the_loss_based_begin_with_the_initial_window_and_bbr_does_not() {
    for control in ALL {
        let mut flow = Flow::new(control);
        for _ in 0..5 {
            flow.round();
        }
        let window = flow.algorithm.window();
        flow.view.now += Duration::from_secs(3).into();
        flow.algorithm.on_idle(&flow.view);
        let expected = if matches!(control, Bbr | Bbr3) { window } else { INITIAL };
        assert_eq!(flow.algorithm.window(), expected, "{control}");
    }
}

#[derive(Debug, Clone)]
enum Call {
    Sent(u64),
    Lost(u64, Numbers),
    Congestion(bool),
    Timeout,
    Ack(u64, u64, Option<u64>, Numbers),
    Recovered,
    Undo,
    Idle,
}

/// Arbitrary numbers for any use.
type Numbers = [u64; 6];

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100_000u64, any::<u64>()]
}

fn any_call() -> impl Strategy<Value = Call> {
    let numbers = || prop::array::uniform6(any_number());
    prop_oneof![
        any_number().prop_map(Call::Sent),
        (any_number(), numbers()).prop_map(|(bytes, numbers)| Call::Lost(bytes, numbers)),
        any::<bool>().prop_map(Call::Congestion),
        Just(Call::Timeout),
        (any_number(), any_number(), prop::option::of(any_number()), numbers())
            .prop_map(|(acked, delivered, rtt, numbers)| Call::Ack(acked, delivered, rtt, numbers)),
        Just(Call::Recovered),
        Just(Call::Undo),
        Just(Call::Idle),
    ]
}

fn time(micros: u64) -> Time {
    Time::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

proptest! {
    #[test]
    fn no_numbers_make_them_panic_or_stop(
        control in prop::sample::select(ALL.to_vec()),
        calls in prop::collection::vec((any_call(), prop::array::uniform8(any_number())), 1..50),
    ) {
        let mut algorithm = control.start(time(0), MSS, INITIAL);
        for (call, [now, mss, in_flight, delivered, lost, una, nxt, srtt]) in calls {
            let view = View {
                now: time(now),
                mss,
                in_flight,
                delivered,
                lost,
                una,
                nxt,
                srtt: (srtt != 0).then(|| Duration::from_micros(srtt)),
                window_limited: now % 2 == 0,
            };
            match call {
                Call::Sent(bytes) => algorithm.on_sent(&view, bytes),
                Call::Lost(bytes, [sent, first, delivered, at, in_flight, lost]) => {
                    let snapshot = Snapshot {
                        sent: time(sent),
                        first_sent: time(first),
                        delivered,
                        delivered_at: time(at),
                        in_flight,
                        lost,
                        app_limited: lost % 2 == 0,
                    };
                    algorithm.on_lost(&view, &Lost { bytes, snapshot, });
                }
                Call::Congestion(mark) => {
                    algorithm.on_congestion(&view, if mark { Cause::Mark } else { Cause::Loss });
                }
                Call::Timeout => algorithm.on_timeout(&view),
                Call::Ack(acked, delivered, rtt, [rate, sampled, prior_delivered, tx_in_flight, lost, prior_in_flight]) => {
                    let sample = RateSample {
                        rate: (rate != 0).then_some(rate),
                        delivered: sampled,
                        prior_delivered,
                        tx_in_flight,
                        lost,
                        app_limited: rate % 2 == 0,
                        valid: true,
                    };
                    let rtt = rtt.map(Duration::from_micros);
                    algorithm.on_ack(&view, &Ack { acked, delivered, lost, prior_in_flight, rtt, sample });
                }
                Call::Recovered => algorithm.on_recovered(&view),
                Call::Undo => algorithm.on_undo(&view),
                Call::Idle => algorithm.on_idle(&view),
            }
            prop_assert!(algorithm.window() > 0);
            prop_assert!(algorithm.pacing_rate() != Some(0));
        }
    }
}
