//! A sender that knows exactly which segments were delivered or lost.

use std::collections::VecDeque;
use std::time::Duration;

use crate::host::clock::Time;
use crate::tcp::arithmetic::length;
use crate::tcp::congestion::{Ack, Algorithm, Cause, CongestionControl, Controller, Lost, Phase, View};
use crate::tcp::rate::{NewestDelivered, Sampler, Snapshot};

use super::{MS, MSS, Nanos, SECOND};

/// Maximum burst, segments.
const MAX_BURST: u64 = 44;

/// Number of a segment in the stream, and number of its transmission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) segment: u64,
    pub(super) transmission: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    Delivered,
    Lost,
}

#[derive(Debug)]
struct Segment {
    transmission: u64,
    snapshot: Snapshot,
    fate: Fate,
    again: bool,
}

pub(super) struct Sender {
    algorithm: Controller,
    sampler: Sampler,
    /// Segments from the oldest unacknowledged on.
    segments: VecDeque<Segment>,
    una: u64,
    transmissions: u64,
    /// Transmissions in the order of sending.
    order: VecDeque<Sent>,
    lost: VecDeque<u64>,
    in_flight: u64,
    srtt: Option<Duration>,
    min_rtt: Option<Duration>,
    phase: Phase,
    recovery_end: u64,
    window_limited: bool,
    next_burst: Nanos,
    /// Segments that the application has written so far.
    given: u64,
    /// Segment up to which marks cause no further reduction.
    reduced: u64,
    /// Time of the last progress, and number of timeouts since.
    progress: Nanos,
    timeouts: u32,
    /// Last transmission before the last timeout.
    doubted: u64,
    pub(super) undone: u32,
}

/// Reason to stop sending.
pub(super) enum Wait {
    Until(Nanos),
    Acknowledgement,
}

impl Sender {
    pub(super) fn new(control: CongestionControl, now: Nanos, initial_window: u64) -> Self {
        Self {
            algorithm: control.start(time(now), MSS, initial_window * MSS),
            sampler: Sampler::new(time(now)),
            segments: VecDeque::new(),
            una: 0,
            transmissions: 0,
            order: VecDeque::new(),
            lost: VecDeque::new(),
            in_flight: 0,
            srtt: None,
            min_rtt: None,
            phase: Phase::Open,
            recovery_end: 0,
            window_limited: false,
            next_burst: now,
            given: 0,
            reduced: 0,
            progress: now,
            timeouts: 0,
            doubted: 0,
            undone: 0,
        }
    }

    /// Returns the number of bytes acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.una * MSS
    }

    pub(super) fn has_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Adds segments written by the application.
    pub(super) fn give(&mut self, segments: u64) {
        self.given = self.given.saturating_add(segments);
    }

    /// Returns the time at which a tail loss probe would be answered.
    pub(super) fn probed(&self, now: Nanos) -> Nanos {
        now + 2 * self.srtt.map_or(SECOND, |srtt| srtt.as_nanos() as Nanos)
    }

    /// Returns the end of the retransmission timer.
    pub(super) fn deadline(&self) -> Nanos {
        let rto = self.srtt.map_or(SECOND, |srtt| srtt.as_nanos() as Nanos + 200 * MS);
        self.progress + (rto << self.timeouts.min(6))
    }

    /// Appends the transmissions that may leave now to `out`.
    pub(super) fn send(&mut self, now: Nanos, out: &mut Vec<Sent>) -> Wait {
        loop {
            let rate = self.algorithm.pacing_rate();
            if rate.is_some() && now < self.next_burst {
                return Wait::Until(self.next_burst);
            }
            let burst = rate.map_or(MAX_BURST, |rate| (rate / 1000 / MSS).clamp(2, MAX_BURST));
            let mut sent = 0;
            while sent < burst && self.has_data() && self.in_flight + MSS <= self.algorithm.window() {
                out.push(self.transmit(now));
                sent += 1;
            }
            if let Some(rate) = self.algorithm.pacing_rate() {
                self.next_burst = self.next_burst.max(now) + sent * MSS * 1_000_000_000 / rate.max(1);
            }
            if !self.has_data() {
                self.sampler.limit(self.in_flight);
                return Wait::Acknowledgement;
            }
            if sent < burst {
                self.window_limited = true;
                return Wait::Acknowledgement;
            }
        }
    }

    fn has_data(&self) -> bool {
        !self.lost.is_empty() || self.una + (self.segments.len() as u64) < self.given
    }

    fn transmit(&mut self, now: Nanos) -> Sent {
        self.algorithm.on_sent(&self.view(now), MSS);
        let snapshot = self.sampler.on_sent(time(now), self.in_flight, MSS);
        self.in_flight += MSS;
        self.transmissions += 1;
        let transmission = self.transmissions;
        let segment = match self.lost.pop_front() {
            Some(number) => {
                let segment = &mut self.segments[(number - self.una) as usize];
                *segment = Segment { transmission, snapshot, fate: Fate::InFlight, again: true };
                number
            }
            None => {
                self.segments.push_back(Segment {
                    transmission,
                    snapshot,
                    fate: Fate::InFlight,
                    again: false,
                });
                self.una + self.segments.len() as u64 - 1
            }
        };
        let sent = Sent { segment, transmission };
        self.order.push_back(sent);
        sent
    }

    /// Processes the arrival of transmissions, in this order. `marked` is set if a router has marked one.
    pub(super) fn on_ack(&mut self, now: Nanos, arrived: &[Sent], marked: bool) {
        self.progress = now;
        self.timeouts = 0;
        let prior_in_flight = self.in_flight;
        let before = (self.sampler.delivered(), self.sampler.lost(), self.una);
        let mut newest = 0;
        let mut delivered = NewestDelivered::default();
        let mut rtt = None;
        if self.phase == Phase::Loss && arrived.iter().any(|sent| sent.transmission <= self.doubted) {
            self.undo(now);
        }
        for sent in arrived {
            let Some(index) = sent.segment.checked_sub(self.una) else { continue };
            let segment = &mut self.segments[index as usize];
            if segment.fate == Fate::Delivered {
                continue;
            }
            assert!(segment.fate == Fate::InFlight && segment.transmission >= sent.transmission);
            segment.fate = Fate::Delivered;
            self.in_flight -= MSS;
            newest = newest.max(sent.transmission);
            let end = (sent.segment + 1) * MSS;
            self.sampler.on_delivered(time(now), &mut delivered, &segment.snapshot, end, MSS);
            if !segment.again {
                rtt = Some(crate::host::clock::since(time(now), segment.snapshot.sent));
            }
        }
        while self.segments.front().is_some_and(|front| front.fate == Fate::Delivered) {
            self.segments.pop_front();
            self.una += 1;
        }
        if let Some(rtt) = rtt {
            self.min_rtt = Some(self.min_rtt.map_or(rtt, |min| min.min(rtt)));
            self.srtt = Some(self.srtt.map_or(rtt, |srtt| (srtt * 7 + rtt) / 8));
        }
        self.detect(now, newest);
        if marked && self.phase == Phase::Open && self.una >= self.reduced {
            self.reduced = self.una + self.segments.len() as u64;
            let view = self.view(now);
            self.algorithm.on_congestion(&view, Cause::Mark);
        }
        if self.phase != Phase::Open && self.una >= self.recovery_end {
            self.phase = Phase::Open;
            let view = self.view(now);
            self.algorithm.on_recovered(&view);
        }
        let ack = Ack {
            acked: (self.una - before.2) * MSS,
            delivered: self.sampler.delivered() - before.0,
            lost: self.sampler.lost().saturating_sub(before.1),
            prior_in_flight,
            rtt,
            sample: self.sampler.finish(&delivered, self.min_rtt.map(length)),
        };
        self.algorithm.on_ack(&self.view(now), &ack);
        self.window_limited = false;
        assert!(self.algorithm.window() > 0);
    }

    /// Marks everything in flight as lost, as a tail loss probe would find.
    pub(super) fn on_silence(&mut self, now: Nanos) {
        self.detect(now, u64::MAX);
    }

    /// Handles the end of the retransmission timer.
    pub(super) fn on_timeout(&mut self, now: Nanos) {
        self.timeouts += 1;
        self.progress = now;
        self.doubted = self.transmissions;
        self.mark_lost(now, u64::MAX);
        self.phase = Phase::Loss;
        self.recovery_end = self.una + self.segments.len() as u64;
        let view = self.view(now);
        self.algorithm.on_timeout(&view);
    }

    /// Undoes a timeout, because an older transmission arrived and nothing was lost.
    fn undo(&mut self, now: Nanos) {
        self.undone += 1;
        self.phase = Phase::Open;
        self.lost.clear();
        self.order.clear();
        for (index, segment) in self.segments.iter_mut().enumerate() {
            if segment.fate == Fate::Lost {
                segment.fate = Fate::InFlight;
                self.in_flight += MSS;
                self.sampler.on_found(MSS);
            }
            if segment.fate == Fate::InFlight {
                let number = self.una + index as u64;
                self.order.push_back(Sent { segment: number, transmission: segment.transmission });
            }
        }
        self.order.make_contiguous().sort_by_key(|sent| sent.transmission);
        let view = self.view(now);
        self.algorithm.on_undo(&view);
    }

    fn detect(&mut self, now: Nanos, newest: u64) {
        if self.mark_lost(now, newest) && self.phase == Phase::Open {
            self.phase = Phase::Recovery;
            self.recovery_end = self.una + self.segments.len() as u64;
            let view = self.view(now);
            self.algorithm.on_congestion(&view, Cause::Loss);
        }
    }

    /// Marks transmissions before `newest` that have not arrived as lost. Returns true if there are any.
    fn mark_lost(&mut self, now: Nanos, newest: u64) -> bool {
        let mut found = false;
        while let Some(sent) = self.order.front().copied().filter(|sent| sent.transmission <= newest) {
            self.order.pop_front();
            let Some(index) = sent.segment.checked_sub(self.una) else { continue };
            let segment = &mut self.segments[index as usize];
            if segment.fate != Fate::InFlight || segment.transmission != sent.transmission {
                continue;
            }
            segment.fate = Fate::Lost;
            let lost = Lost { bytes: MSS, snapshot: segment.snapshot };
            self.lost.push_back(sent.segment);
            self.in_flight -= MSS;
            self.sampler.on_lost(MSS);
            self.algorithm.on_lost(&self.view(now), &lost);
            found = true;
        }
        found
    }

    fn view(&self, now: Nanos) -> View {
        View {
            now: time(now),
            mss: MSS,
            in_flight: self.in_flight,
            delivered: self.sampler.delivered(),
            lost: self.sampler.lost(),
            una: self.una * MSS,
            nxt: (self.una + self.segments.len() as u64) * MSS,
            srtt: self.srtt,
            window_limited: self.window_limited,
        }
    }
}

fn time(now: Nanos) -> Time {
    Time::from_micros((now / 1000) as i64)
}
