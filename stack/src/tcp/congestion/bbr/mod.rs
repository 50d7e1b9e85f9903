//! BBR version 3 (draft-ietf-ccwg-bbr), which models the path instead of searching for losses.
//!
//! The model consists of the bandwidth (the largest recent delivery rate) and the minimum round-trip time.
//! Their product is the capacity of the path without a queue. BBR sends at the bandwidth, with about the
//! product in flight.
//!
//! [`BbrState::Startup`] finds the bandwidth by doubling, and [`BbrState::Drain`] removes the resulting
//! queue. Then a cycle of two to three seconds drains, cruises, refills and probes for more ([`probe_bw`]).
//! Congestion during a probe bounds the bytes in flight until a later probe succeeds; congestion at other
//! times bounds them until the next probe ([`bounds`]). After five seconds without a short round trip,
//! [`probe_rtt`] drains the queue to measure one.
//!
//! Two variants share this code ([`parameters`]): the published one, and one that does not mistake the losses
//! of a bad link for congestion ([`losses`]).

mod bounds;
mod losses;
mod model;
mod parameters;
mod probe_bw;
mod probe_rtt;
mod startup;
mod window;

use std::time::Duration;

use crate::host::clock::Time;
use crate::tcp::arithmetic::{length, scaled};

use super::usage::Usage;
use super::{Ack, Algorithm, Cause, Lost, MAX_SEGMENT, View, segment};

use bounds::Bounds;
use losses::{LossRound, Queue};
use model::{Aggregation, Bandwidth, RoundTrip, Rounds, micros, percent};
use parameters::Parameters;
use probe_bw::Cycle;
use probe_rtt::ProbeRtt;
use startup::{Pipe, SLOWEST_DOUBLING, STARTUP_PACING_PERCENT};

/// Minimum window in segments: acknowledgements keep coming even when the receiver acknowledges every second
/// segment.
const MIN_SEGMENTS: u64 = 4;

/// Reduction of the pacing rate below the estimate, percent, so that queues drain in the long run.
const PACING_MARGIN: u64 = 1;

/// Duration of a burst, and its maximum size: one super-segment.
const QUANTUM: Duration = Duration::from_millis(1);
const MAX_QUANTUM: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BbrState {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

impl BbrState {
    fn is_probe_bw(self) -> bool {
        matches!(self, BbrState::Down | BbrState::Cruise | BbrState::Refill | BbrState::Up)
    }

    /// Returns the pacing rate in percent of the bandwidth.
    fn pacing_gain(self) -> u64 {
        match self {
            BbrState::Startup => SLOWEST_DOUBLING,
            BbrState::Drain => 50,
            BbrState::Down => 90,
            BbrState::Cruise | BbrState::Refill | BbrState::ProbeRtt => 100,
            BbrState::Up => 125,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Bbr {
    parameters: &'static Parameters,
    mss: u64,
    initial_window: u64,
    state: BbrState,
    rounds: Rounds,
    bandwidth: Bandwidth,
    round_trip: RoundTrip,
    aggregation: Aggregation,
    queue: Queue,
    loss_round: LossRound,
    bounds: Bounds,
    pipe: Pipe,
    cycle: Cycle,
    probe_rtt: ProbeRtt,
    /// True until start-up first overflows a queue; start-up then sends faster than doubling requires.
    hasty: bool,
    /// Value of `delivered` up to which losses are attributed to `hasty` sending.
    pardoned: u64,
    /// True after an idle period until data is delivered.
    restarted: bool,
    usage: Usage,
    window: u64,
    /// Window to restore after a timeout or a drained queue; 0 for none.
    saved_window: u64,
    pacing_rate: Option<u64>,
    /// True during a repair of losses.
    repairing: bool,
    /// State before the last losses, for an undo.
    before: Option<Box<Before>>,
}

#[derive(Debug, Clone, Copy)]
struct Before {
    bounds: Bounds,
    state: BbrState,
    window: u64,
}

/// Returns the window with which a connection starts.
pub(super) fn first_window(mss: u64, initial_window: u64) -> u64 {
    initial_window.max(MIN_SEGMENTS * mss.clamp(1, MAX_SEGMENT))
}

impl Bbr {
    pub(crate) fn published(now: Time, mss: u64, initial_window: u64) -> Self {
        Self::new(&parameters::PUBLISHED, now, mss, initial_window)
    }

    pub(crate) fn adapted(now: Time, mss: u64, initial_window: u64) -> Self {
        Self::new(&parameters::ADAPTED, now, mss, initial_window)
    }

    fn new(parameters: &'static Parameters, now: Time, mss: u64, initial_window: u64) -> Self {
        let window = first_window(mss, initial_window);
        let mss = mss.clamp(1, MAX_SEGMENT);
        Self {
            parameters,
            mss,
            initial_window: window,
            state: BbrState::Startup,
            rounds: Rounds::default(),
            bandwidth: Bandwidth::new(),
            round_trip: RoundTrip::new(now),
            aggregation: Aggregation::new(now),
            queue: Queue::new(),
            loss_round: LossRound::default(),
            bounds: Bounds::none(),
            pipe: Pipe::default(),
            // The seed needs no secrecy, but flows must not probe in step.
            cycle: Cycle::new(now, micros(now).wrapping_add(mss << 40)),
            probe_rtt: ProbeRtt::default(),
            hasty: parameters.hastens,
            pardoned: 0,
            restarted: false,
            usage: Usage::default(),
            window,
            saved_window: 0,
            pacing_rate: None,
            repairing: false,
            before: None,
        }
    }

    /// Returns the pacing rate in percent of the bandwidth.
    fn pacing_gain(&self) -> u64 {
        if self.state == BbrState::Startup && self.hasty {
            STARTUP_PACING_PERCENT
        } else {
            self.state.pacing_gain()
        }
    }

    fn is_probing(&self) -> bool {
        matches!(self.state, BbrState::Startup | BbrState::Refill | BbrState::Up)
    }

    /// Returns true if data sent when `delivered` bytes had been delivered understates the bandwidth. Either
    /// the application had too little data, or the queue was being drained.
    fn shows_less(&self, app_limited: bool, delivered: u64) -> bool {
        app_limited || delivered < self.probe_rtt.limited_until
    }

    /// Returns the present estimate of the delivery rate, bytes per second.
    fn rate(&self) -> u64 {
        self.bandwidth.max().min(self.bounds.bandwidth)
    }

    /// Returns `gain` percent of the bandwidth-delay product.
    fn bdp(&self, gain: u64) -> u64 {
        match self.round_trip.min() {
            Some(min_rtt) if self.rate() > 0 => percent(scaled(self.rate(), min_rtt, 1_000_000), gain),
            _ => self.initial_window,
        }
    }

    /// Returns the same with allowances for bursts of data and of acknowledgements.
    fn target(&self, gain: u64) -> u64 {
        self.with_bursts(self.bdp(gain))
    }

    fn with_bursts(&self, in_flight: u64) -> u64 {
        let probe = if self.state == BbrState::Up { 2 * self.mss } else { 0 };
        // The draft's offload budget: one burst each in the sender's queue, its segmentation and the
        // receiver's reassembly.
        in_flight.max(3 * self.quantum()).max(MIN_SEGMENTS * self.mss).saturating_add(probe)
    }

    /// Returns the bytes of one burst.
    fn quantum(&self) -> u64 {
        let rate = self.pacing_rate.unwrap_or(0);
        scaled(rate, length(QUANTUM), 1_000_000).clamp(2 * self.mss, MAX_QUANTUM.max(2 * self.mss))
    }

    fn update_model(&mut self, view: &View, ack: &Ack) {
        let sample = &ack.sample;
        let less = self.shows_less(sample.app_limited, sample.prior_delivered);
        self.rounds.on_ack(view.delivered, sample);
        if self.rounds.begins {
            self.cycle.on_round();
        }
        self.usage.on_ack(view.window_limited, self.rounds.begins);
        self.loss_round.on_ack(view.delivered, sample);
        // A sample without a rate came from compressed acknowledgements.
        if let Some(rate) = sample.rate {
            self.bandwidth.on_ack(rate, less);
        }
        // Before the round advances, because it reads the losses of the round that ends.
        self.adapt_short_term(view.delivered);
        let (round, rate, full) = (self.rounds.count, self.rate(), self.pipe.reached);
        self.aggregation.on_ack(view.now, round, ack.delivered, rate, self.window, full);
        self.pipe.on_ack(sample.rate, less, self.rounds.begins);
        self.check_startup(view, ack);
        self.advance_cycle(view, ack);
        self.round_trip.on_ack(view.now, ack.rtt);
        if let (Some(rtt), Some(min_rtt)) = (ack.rtt, self.round_trip.min()) {
            self.queue.on_round_trip(view.now, length(rtt), min_rtt, length(view.srtt.unwrap_or(rtt)));
        }
        self.check_probe_rtt(view, ack);
        self.loss_round.advance(view.delivered, sample);
    }

    /// Sets the pacing rate. Until the pipe is full, the rate is at least one initial window per round trip.
    /// Without a measured round trip there is no rate, because the few bytes delivered so far waited for a
    /// retransmission.
    fn set_pacing_rate(&mut self, gain: u64) {
        let rate = match (self.bandwidth.max(), self.round_trip.min()) {
            (rate, None) if rate == 0 || !self.pipe.reached => return,
            (_, Some(min_rtt)) if !self.pipe.reached => {
                self.rate().max(scaled(self.initial_window, 1_000_000, min_rtt))
            }
            _ => self.rate(),
        };
        let rate = percent(percent(rate, gain), 100 - PACING_MARGIN).max(1);
        // Until the pipe is full, low samples only show that little was sent.
        if self.pipe.reached || self.pacing_rate.is_none_or(|present| rate > present) {
            self.pacing_rate = Some(rate);
        }
    }

    fn set_window(&mut self, view: &View, ack: &Ack) {
        let most = self.with_bursts(self.aim().saturating_add(self.aggregation.extra()));
        let grown = self.window.saturating_add(ack.delivered);
        if self.pipe.reached {
            self.window = grown.min(most);
        // Until the pipe is full the estimate only lags behind, so it does not shrink the window.
        } else if self.window < most || view.delivered < self.initial_window {
            self.window = grown;
        }
        let bound = match self.state {
            BbrState::Startup | BbrState::Drain => u64::MAX,
            BbrState::Down | BbrState::Refill | BbrState::Up => self.bounds.long_term,
            BbrState::Cruise => self.bounds.with_headroom(self.mss),
            BbrState::ProbeRtt => self.bounds.with_headroom(self.mss).min(self.probe_rtt_window()),
        };
        // The short-term bound holds in every state, because it is the answer to present congestion.
        let bound = bound.min(self.bounds.short_term);
        // Four segments at least, so that sending does not stop for a receiver that acknowledges every second
        // one.
        self.window = self.window.min(bound).max(MIN_SEGMENTS * self.mss);
    }

    fn save_window(&mut self) {
        self.saved_window = self.saved_window.max(self.window);
    }

    fn restore_window(&mut self) {
        self.window = self.window.max(self.saved_window);
        self.saved_window = 0;
    }

    /// Saves the state before losses.
    fn begin_repair(&mut self) {
        if !self.repairing {
            self.repairing = true;
            let before = Before { bounds: self.bounds, state: self.state, window: self.window };
            self.before = Some(Box::new(before));
        }
    }
}

impl Algorithm for Bbr {
    fn on_sent(&mut self, view: &View, _bytes: u64) {
        if !self.parameters.bursts_first_window
            && self.pacing_rate.is_none()
            && let Some(srtt) = view.srtt
        {
            self.round_trip.on_ack(view.now, Some(srtt));
            self.set_pacing_rate(self.pacing_gain());
        }
    }

    fn on_lost(&mut self, view: &View, lost: &Lost) {
        self.mss = segment(view);
        self.begin_repair();
        self.note_loss(view, lost);
    }

    fn on_congestion(&mut self, view: &View, cause: Cause) {
        match cause {
            Cause::Loss => self.begin_repair(),
            Cause::Mark => {
                self.loss_round.on_mark(view);
                if self.cycle.samples {
                    self.lower_long_term(view.now, view.delivered, view.in_flight, false);
                }
            }
        }
    }

    fn on_timeout(&mut self, view: &View) {
        self.begin_repair();
        self.save_window();
        // Everything in flight is lost, so the window grows again with delivered data.
        self.window = view.in_flight.saturating_add(self.mss).max(MIN_SEGMENTS * self.mss);
    }

    fn on_ack(&mut self, view: &View, ack: &Ack) {
        self.mss = segment(view);
        self.update_model(view, ack);
        self.set_pacing_rate(self.pacing_gain());
        self.set_window(view, ack);
    }

    fn on_recovered(&mut self, _view: &View) {
        self.repairing = false;
        // During ProbeRTT the window must stay small; the end of that state restores it.
        if self.state != BbrState::ProbeRtt {
            self.restore_window();
        }
    }

    fn on_undo(&mut self, view: &View) {
        self.repairing = false;
        // Nothing was lost, so the round has seen no congestion.
        self.loss_round.reset();
        let start = Before { bounds: Bounds::none(), state: BbrState::Startup, window: self.initial_window };
        let before = self.before.as_deref().copied().unwrap_or(start);
        self.bounds.restore(&before.bounds);
        self.pipe.restart(0);
        match (before.state, self.state) {
            (_, BbrState::ProbeRtt) => {
                // ProbeRTT goes on; its end restores the larger window.
                self.saved_window = self.saved_window.max(before.window);
                return;
            }
            (BbrState::Startup, now) if now != BbrState::Startup => {
                self.pipe.reached = false;
                self.start_startup();
            }
            (BbrState::Up, now) if now != BbrState::Up => self.start_up(view.delivered, 0),
            _ => {}
        }
        self.window = self.window.max(before.window);
        self.saved_window = 0;
    }

    fn on_revived(&mut self, initial_window: u64) {
        self.window = self.window.max(initial_window);
    }

    fn on_idle(&mut self, view: &View) {
        self.restarted = true;
        // A pause of the application is no bunching of acknowledgements.
        self.aggregation.restart(view.now);
        if self.state.is_probe_bw() {
            // At the bandwidth itself, so that the restart builds no queue.
            self.set_pacing_rate(100);
        } else if self.state == BbrState::ProbeRtt {
            // Idle time has drained the queue as the state would.
            self.end_probe_rtt(view);
        }
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn slow_start_threshold(&self) -> Option<u64> {
        None
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing_rate
    }
}
