//! Scenarios and their outcomes.

use peersock_stack::{Config, CongestionControl};

use crate::connection::{Pause, StreamOutcome};
use crate::link::{Link, Queue, QueueStatistics};
use crate::world::World;
use crate::{Time, us};

/// Hosts, the path between them, and connections over it.
///
/// All pairs share the path; each pair has its own round-trip time. Several connections of one pair share
/// both stacks, like connections of one node with one peer.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Link from clients to servers.
    pub forward: Link,
    /// Link from servers to clients.
    pub backward: Link,
    /// Round-trip times by propagation, one per pair.
    pub rtts: Vec<Time>,
    /// Connections. Each has its own listener, so at most 65,000.
    pub plans: Vec<Plan>,
    /// Maximum duration; the scenario ends earlier when everything was read.
    pub lasting: Time,
    /// Maximum time after everything was read, until no stack holds a connection any more.
    pub draining: Time,
    /// Time from which [`StreamOutcome::bytes_after_mark`] counts.
    pub mark: Time,
    /// Maximum random delay of a connection's start.
    pub start_spread: Time,
    /// Schedule by which hosts process arrivals.
    pub batching: Batching,
    /// Maximum lateness of a host's timers, because a sleeping thread wakes late.
    pub timers_late: Time,
    /// Limit of the driver for a flow's bytes in flight.
    pub in_flight_cap: usize,
    /// True if packets have checksums. Without checksums, a corrupted packet would be accepted.
    pub checksums: bool,
    /// True for IPv6 packets, which have 20 bytes less room for payload.
    pub ipv6: bool,
    /// Settings of the stacks.
    pub config: Config,
}

/// Plan of one connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Index of the pair of hosts.
    pub pair: usize,
    /// Time of the start, without the delay by [`Scenario::start_spread`].
    pub start: Time,
    /// Congestion control at both ends.
    pub congestion: CongestionControl,
    /// True if both ends support ECN (RFC 3168).
    pub ecn: bool,
    /// Bytes from the client to the server; `u64::MAX` for an endless stream.
    pub up: u64,
    /// Bytes from the server to the client; `u64::MAX` for an endless stream.
    pub down: u64,
    /// Pauses of both readers; none by default.
    pub pause: Option<Pause>,
}

/// Schedule by which a host processes arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Random delay after the first packet, from half of this time to one and a half of it. It models a
    /// receive call that takes all packets queued meanwhile. Only 0 is exact. The randomness also keeps flows
    /// from staying in step.
    After(Time),
    /// Multiples of this time, as a radio link releases aggregated packets.
    Every(Time),
}

/// Result of a [`Scenario`].
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Results in the order of the scenario's plans.
    pub connections: Vec<ConnectionOutcome>,
    /// Statistics of the queue from clients to servers.
    pub queue: QueueStatistics,
    /// Packets lost by chance, from clients to servers and back.
    pub lost: [u64; 2],
    /// Time at which everything was read, or the duration was over.
    pub ended: Time,
    /// Number of connections that the stacks still hold after [`Scenario::draining`].
    pub left_behind: usize,
}

/// Result of one connection.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionOutcome {
    /// Time of its start.
    pub started: Time,
    /// Stream from the client to the server.
    pub up: StreamOutcome,
    /// Stream from the server to the client.
    pub down: StreamOutcome,
    /// Failure: wrong bytes, an early end, or an error.
    pub failure: Option<String>,
}

impl Plan {
    /// Returns a client that sends `bytes` at once, with the default congestion control.
    pub fn upload(bytes: u64) -> Self {
        Self {
            pair: 0,
            start: 0,
            congestion: CongestionControl::default(),
            ecn: false,
            up: bytes,
            down: 0,
            pause: None,
        }
    }

    /// Returns a client that sends until the end.
    pub fn endless() -> Self {
        Self::upload(u64::MAX)
    }
}

impl Scenario {
    /// Returns a scenario of one pair with this rate in both directions (bit/s on the wire) and this
    /// round-trip time. It has a drop-tail buffer of one bandwidth-delay product, batches of 50 µs, and no
    /// connection.
    pub fn new(rate: f64, rtt: Time) -> Self {
        let scenario = Self {
            forward: Link::new(rate),
            backward: Link::new(rate),
            rtts: vec![rtt],
            plans: Vec::new(),
            lasting: crate::secs(60.0),
            draining: 0,
            mark: 0,
            start_spread: 0,
            batching: Batching::After(us(50)),
            timers_late: 0,
            in_flight_cap: usize::MAX,
            checksums: false,
            ipv6: false,
            config: Config::default(),
        };
        scenario.buffer(1.0)
    }

    /// Sets a drop-tail buffer of this number of bandwidth-delay products of the first pair.
    #[must_use]
    pub fn buffer(mut self, bdp: f64) -> Self {
        self.forward.queue = Queue::DropTail((self.bdp() * bdp) as u64);
        self
    }

    /// Adds a connection.
    #[must_use]
    pub fn with(mut self, plan: Plan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Sets the duration.
    #[must_use]
    pub fn lasting(mut self, time: Time) -> Self {
        self.lasting = time;
        self
    }

    /// Returns the bandwidth-delay product of the first pair, bytes of the wire.
    pub fn bdp(&self) -> f64 {
        self.forward.rate / 8.0 * self.rtts[0] as f64 / 1e9
    }

    /// Returns the payload bytes that the path from clients to servers can carry between two moments, if all
    /// segments are full.
    pub fn capacity(&self, from: Time, to: Time) -> f64 {
        self.forward.capacity(from, to)
    }

    /// Runs the scenario. The same seed gives the same outcome.
    pub fn run(&self, seed: u64) -> Outcome {
        World::new(self, seed).run()
    }
}
