//! What is tried, and what came of it.

use peersock_stack::{Config, CongestionControl};

use crate::connection::{Pause, StreamOutcome};
use crate::link::{Link, Queue, QueueStatistics};
use crate::world::World;
use crate::{Time, us};

/// Hosts, the path between them, and connections over it.
///
/// All pairs share the path; a pair has its own round-trip time. Several connections of one pair share both
/// stacks, as those of one node with one peer do.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// From clients to servers.
    pub forward: Link,
    /// From servers to clients.
    pub backward: Link,
    /// Round-trip times by propagation, one per pair.
    pub rtts: Vec<Time>,
    /// The connections. Each has its own listener, so at most 65,000.
    pub plans: Vec<Plan>,
    /// How long it takes at most; it ends earlier when everything was read.
    pub lasting: Time,
    /// After everything was read it goes on for so long at most, until no stack holds a connection any more.
    pub draining: Time,
    /// From here on [`StreamOutcome::bytes_after_mark`] counts.
    pub mark: Time,
    /// By how much connections are opened later than planned, at most.
    pub start_spread: Time,
    /// How hosts look at what has arrived.
    pub batching: Batching,
    /// By how much a host's timers are late, at most: a thread that sleeps does not wake up in time.
    pub timers_late: Time,
    /// The driver's limit of a flow's bytes in flight.
    pub in_flight_cap: usize,
    /// Whether packets have checksums. Without, a corrupted packet would be believed.
    pub checksums: bool,
    /// Whether packets are IPv6's, which have 20 bytes less room for payload.
    pub ipv6: bool,
    /// The stacks' settings.
    pub config: Config,
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Which pair of hosts.
    pub pair: usize,
    /// When it is opened, or up to [`Scenario::start_spread`] later.
    pub start: Time,
    /// Its congestion control, at both ends.
    pub congestion: CongestionControl,
    /// Whether both ends understand routers that mark instead of dropping (RFC 3168).
    pub ecn: bool,
    /// Bytes from the client to the server; `u64::MAX`: as many as there is time for.
    pub up: u64,
    /// Bytes from the server to the client, likewise.
    pub down: u64,
    /// How both ends interrupt their reading. None does by default.
    pub pause: Option<Pause>,
}

/// When a host looks at what has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// About this long after the first packet, between half of it and one and a half: a receive call that
    /// takes what has queued meanwhile. Only 0 is exact. It is also what keeps flows from being in step for
    /// ever.
    After(Time),
    /// At multiples of this time, as a radio link releases what it has aggregated.
    Every(Time),
}

/// What came of a [`Scenario`].
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// In the order of the scenario's plans.
    pub connections: Vec<ConnectionOutcome>,
    /// What the queue from clients to servers has seen.
    pub queue: QueueStatistics,
    /// Packets lost by chance, from clients to servers and back.
    pub lost: [u64; 2],
    /// When everything was read, or the time was over.
    pub ended: Time,
    /// Connections that the stacks still hold after the [`Scenario::draining`].
    pub left_behind: usize,
}

/// What came of one connection.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionOutcome {
    /// When it was opened.
    pub started: Time,
    /// From the client to the server.
    pub up: StreamOutcome,
    /// From the server to the client.
    pub down: StreamOutcome,
    /// What must not be: wrong bytes, an end too early, an error.
    pub failure: Option<String>,
}

impl Plan {
    /// A client that sends `bytes` at once, with the default congestion control.
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

    /// A client that sends for as long as there is time.
    pub fn endless() -> Self {
        Self::upload(u64::MAX)
    }
}

impl Scenario {
    /// One pair of hosts with this rate in both directions (bit/s on the wire) and this round-trip time, a
    /// drop-tail buffer of one bandwidth-delay product, batches of 50 µs, and no connection.
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

    /// With a drop-tail buffer of so many bandwidth-delay products of the first pair.
    #[must_use]
    pub fn buffer(mut self, bdp: f64) -> Self {
        self.forward.queue = Queue::DropTail((self.bdp() * bdp) as u64);
        self
    }

    /// With one more connection.
    #[must_use]
    pub fn with(mut self, plan: Plan) -> Self {
        self.plans.push(plan);
        self
    }

    /// With another length.
    #[must_use]
    pub fn lasting(mut self, time: Time) -> Self {
        self.lasting = time;
        self
    }

    /// The bandwidth-delay product of the first pair, bytes of the wire.
    pub fn bdp(&self) -> f64 {
        self.forward.rate / 8.0 * self.rtts[0] as f64 / 1e9
    }

    /// Payload bytes that the path from clients to servers can carry between two moments, if all segments are
    /// full.
    pub fn capacity(&self, from: Time, to: Time) -> f64 {
        self.forward.capacity(from, to)
    }

    /// Lets it happen. The same seed gives the same outcome.
    pub fn run(&self, seed: u64) -> Outcome {
        World::new(self, seed).run()
    }
}
