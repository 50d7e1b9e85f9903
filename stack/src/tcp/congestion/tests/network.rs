//! A bottleneck with a queue that drops packets when full, on paths with random loss.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::tcp::congestion::CongestionControl;

use super::sender::{Sender, Sent, Wait};
use super::{MS, MSS, Nanos, SECOND, WIRE};

/// Link that all flows share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// Bandwidth, bits per second.
    pub(super) rate: u64,
    /// Size of the queue, bytes.
    pub(super) buffer: u64,
    /// Loss before the queue in parts per thousand, and mean length of a run of losses.
    pub(super) loss: f64,
    pub(super) run: f64,
    /// Maximum extra delay after the queue; packets keep their order.
    pub(super) jitter: Nanos,
    /// Interval at which the path releases packets together.
    pub(super) release: Nanos,
    /// Bytes in the queue above which packets are marked.
    pub(super) mark: Option<u64>,
    /// Period in which all packets are lost.
    pub(super) outage: (Nanos, Nanos),
    /// Period whose arrivals are delayed to its end.
    pub(super) stall: (Nanos, Nanos),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) control: CongestionControl,
    pub(super) rtt: Nanos,
    pub(super) start: Nanos,
    /// Segments that the application writes, and the interval; `None` for unlimited data.
    pub(super) gives: Option<(u64, Nanos)>,
}

/// Result of a flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Bytes acknowledged.
    pub(super) acknowledged: u64,
    pub(super) sent: u64,
    pub(super) dropped: u64,
    /// Number of timeouts that proved spurious.
    pub(super) undone: u32,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) flows: Vec<Outcome>,
    /// Share of the link's capacity that was used.
    pub(super) share: f64,
    /// Mean queue over all packets, bytes.
    pub(super) queue: f64,
}

impl Report {
    /// Returns Jain's index: 1 if all flows got the same, 1/n if one flow got everything.
    pub(super) fn fairness(&self) -> f64 {
        let shares = self.flows.iter().map(|flow| flow.acknowledged as f64);
        let (sum, squares) = shares.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        sum * sum / (squares * self.flows.len() as f64)
    }

    /// Returns the flow's share of all acknowledged bytes.
    pub(super) fn part(&self, flow: usize) -> f64 {
        let total: u64 = self.flows.iter().map(|flow| flow.acknowledged).sum();
        self.flows[flow].acknowledged as f64 / total as f64
    }

    /// Returns the share of sent packets that the queue dropped.
    pub(super) fn dropped(&self) -> f64 {
        let (dropped, sent) = self
            .flows
            .iter()
            .fold((0, 0), |(dropped, sent), flow| (dropped + flow.dropped, sent + flow.sent));
        dropped as f64 / sent as f64
    }
}

/// Policy of the receiver: acknowledge every second segment, and a single segment after a delay.
const ACK_SEGMENTS: usize = 2;
const ACK_DELAY: Nanos = 5 * SECOND / 1000;

#[derive(Debug)]
enum Event {
    Send,
    Give,
    Arrival(Sent, bool),
    AckTimer(u64),
    Ack(Vec<Sent>, bool),
    Silence(u64),
    Timer,
}

struct Entry {
    at: Nanos,
    serial: u64,
    flow: usize,
    event: Event,
}

/// End points of one flow.
struct Ends {
    sender: Sender,
    rtt: Nanos,
    /// Arrival time of the last packet sent.
    last_arrival: Nanos,
    send_at: Option<Nanos>,
    arrived: Vec<Sent>,
    marked: bool,
    gives: Option<(u64, Nanos)>,
    silences: u64,
    acks: u64,
    expected: u64,
    /// Packets and acknowledgements on their way.
    under_way: u64,
    outcome: Outcome,
}

impl Ends {
    /// Returns true if the sender waits although nothing is on its way.
    fn is_silent(&self) -> bool {
        self.under_way == 0 && self.arrived.is_empty() && self.sender.has_in_flight()
    }
}

struct Network {
    link: Link,
    random: Random,
    now: Nanos,
    serial: u64,
    events: BinaryHeap<Reverse<Entry>>,
    flows: Vec<Ends>,
    /// Time at which the queue will be empty.
    idle_at: Nanos,
    losing: bool,
    queued: f64,
    packets: u64,
    out: Vec<Sent>,
}

/// Simulates `flows` over `link` for `duration`.
pub(super) fn run(link: Link, flows: &[Flow], duration: Nanos, seed: u64) -> Report {
    let mut network = Network {
        link,
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        now: 0,
        serial: 0,
        events: BinaryHeap::new(),
        flows: Vec::new(),
        idle_at: 0,
        losing: false,
        queued: 0.0,
        packets: 0,
        out: Vec::new(),
    };
    for flow in flows {
        // The handshake takes one round trip.
        let start = SECOND + flow.start + flow.rtt;
        network.flows.push(Ends {
            sender: Sender::new(flow.control, start, 10),
            rtt: flow.rtt,
            last_arrival: 0,
            send_at: None,
            arrived: Vec::new(),
            marked: false,
            gives: flow.gives,
            silences: 0,
            acks: 0,
            expected: 0,
            under_way: 0,
            outcome: Outcome { acknowledged: 0, sent: 0, dropped: 0, undone: 0 },
        });
        network.schedule(start, network.flows.len() - 1, Event::Give);
        network.schedule(start, network.flows.len() - 1, Event::Timer);
    }
    let end = SECOND + duration;
    while let Some(Reverse(entry)) = network.events.pop() {
        if entry.at > end {
            break;
        }
        network.now = entry.at;
        network.handle(entry.flow, entry.event);
    }
    let flows: Vec<_> = network
        .flows
        .iter()
        .map(|ends| Outcome {
            acknowledged: ends.sender.acknowledged(),
            undone: ends.sender.undone,
            ..ends.outcome
        })
        .collect();
    let capacity = link.rate as f64 / 8.0 * duration as f64 / SECOND as f64 * MSS as f64 / WIRE as f64;
    let total: u64 = flows.iter().map(|flow| flow.acknowledged).sum();
    Report { flows, share: total as f64 / capacity, queue: network.queued / network.packets.max(1) as f64 }
}

impl Network {
    fn schedule(&mut self, at: Nanos, flow: usize, event: Event) {
        self.serial += 1;
        self.events.push(Reverse(Entry { at, serial: self.serial, flow, event }));
    }

    fn handle(&mut self, flow: usize, event: Event) {
        match event {
            Event::Send => {
                if self.flows[flow].send_at.is_some_and(|at| at != self.now) {
                    return;
                }
                self.flows[flow].send_at = None;
                self.send(flow);
            }
            Event::Give => {
                let (segments, period) = self.flows[flow].gives.unwrap_or((u64::MAX, 0));
                self.flows[flow].sender.give(segments);
                if period > 0 {
                    self.schedule(self.now + period, flow, Event::Give);
                }
                self.send(flow);
            }
            Event::Arrival(sent, marked) => self.arrive(flow, sent, marked),
            Event::AckTimer(acks) => {
                if self.flows[flow].acks == acks {
                    self.acknowledge(flow);
                }
            }
            Event::Ack(arrived, marked) => {
                self.flows[flow].under_way -= 1;
                self.flows[flow].sender.on_ack(self.now, &arrived, marked);
                self.send(flow);
            }
            Event::Timer => {
                let ends = &mut self.flows[flow];
                let mut again = ends.sender.deadline();
                if again <= self.now {
                    if ends.sender.has_in_flight() {
                        ends.sender.on_timeout(self.now);
                        self.send(flow);
                    }
                    again = self.flows[flow].sender.deadline().max(self.now + 100 * MS);
                }
                self.schedule(again, flow, Event::Timer);
            }
            Event::Silence(silences) => {
                let ends = &mut self.flows[flow];
                if ends.is_silent() && ends.silences == silences {
                    ends.sender.on_silence(self.now);
                    self.send(flow);
                }
            }
        }
    }

    fn send(&mut self, flow: usize) {
        let mut out = std::mem::take(&mut self.out);
        let wait = self.flows[flow].sender.send(self.now, &mut out);
        for sent in out.drain(..) {
            self.transmit(flow, sent);
        }
        self.out = out;
        if let Wait::Until(at) = wait
            && self.flows[flow].send_at != Some(at)
        {
            self.flows[flow].send_at = Some(at);
            self.schedule(at, flow, Event::Send);
        }
        let ends = &mut self.flows[flow];
        if ends.is_silent() {
            ends.silences += 1;
            let (silences, at) = (ends.silences, ends.sender.probed(self.now));
            self.schedule(at, flow, Event::Silence(silences));
        }
    }

    fn transmit(&mut self, flow: usize, sent: Sent) {
        self.flows[flow].outcome.sent += 1;
        let (from, until) = self.link.outage;
        if self.is_lost() || (from..until).contains(&(self.now - SECOND)) {
            return;
        }
        let bits = 8 * SECOND;
        let backlog =
            self.idle_at.saturating_sub(self.now) as u128 * u128::from(self.link.rate) / u128::from(bits);
        self.queued += backlog as f64;
        self.packets += 1;
        if backlog as u64 + WIRE > self.link.buffer {
            self.flows[flow].outcome.dropped += 1;
            return;
        }
        let marked = self.link.mark.is_some_and(|mark| backlog as u64 > mark);
        self.idle_at = self.idle_at.max(self.now) + WIRE * bits / self.link.rate;
        let jitter = if self.link.jitter > 0 { self.random.next() % self.link.jitter } else { 0 };
        let ends = &mut self.flows[flow];
        let mut arrival = self.idle_at + ends.rtt / 2 + jitter;
        if self.link.release > 0 {
            arrival = arrival.next_multiple_of(self.link.release);
        }
        let (from, until) = self.link.stall;
        if (from..until).contains(&(arrival - SECOND)) {
            arrival = until + SECOND;
        }
        arrival = arrival.max(ends.last_arrival);
        ends.last_arrival = arrival;
        ends.under_way += 1;
        self.schedule(arrival, flow, Event::Arrival(sent, marked));
    }

    /// Returns true if a packet is lost, by a Markov chain of two states: good and losing.
    fn is_lost(&mut self) -> bool {
        let loss = self.link.loss / 1000.0;
        let leave = 1.0 / self.link.run;
        let chance = if self.losing { 1.0 - leave } else { loss * leave / (1.0 - loss) };
        self.losing =
            if self.link.run > 1.0 { self.random.unit() < chance } else { self.random.unit() < loss };
        self.losing
    }

    fn arrive(&mut self, flow: usize, sent: Sent, marked: bool) {
        let ends = &mut self.flows[flow];
        ends.marked |= marked;
        ends.under_way -= 1;
        ends.arrived.push(sent);
        let in_order = sent.segment == ends.expected;
        ends.expected = ends.expected.max(sent.segment + 1);
        if !in_order || ends.arrived.len() >= ACK_SEGMENTS {
            self.acknowledge(flow);
        } else {
            ends.acks += 1;
            let acks = ends.acks;
            self.schedule(self.now + ACK_DELAY, flow, Event::AckTimer(acks));
        }
    }

    fn acknowledge(&mut self, flow: usize) {
        let ends = &mut self.flows[flow];
        if ends.arrived.is_empty() {
            return;
        }
        ends.acks += 1;
        ends.under_way += 1;
        let arrived = std::mem::take(&mut ends.arrived);
        let marked = std::mem::take(&mut ends.marked);
        let at = self.now + ends.rtt / 2;
        self.schedule(at, flow, Event::Ack(arrived, marked));
    }
}

/// Xorshift generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn unit(&mut self) -> f64 {
        (self.next() & 0xff_ffff_ffff) as f64 / (1u64 << 40) as f64
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}
