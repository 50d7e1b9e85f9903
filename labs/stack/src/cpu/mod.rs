//! Cost of packets, connections and idle flows in real time and memory.
//!
//! Everything runs in one thread, both ends together. A packet's cost is CPU time over packets received, for
//! everything that both sides do: write, egress, receive, read, timers. Flows take turns in an order that
//! caches cannot predict. A turn of 32 exchanges, of 100 bytes there and back, shows the work of the engine
//! itself. With one exchange per turn, a large number of flows shows the cost of fetching a flow's state from
//! memory (`…_one_by_one`).
//!
//! [`reference`] is another TCP under the same load. The cases take turns in rounds, so that a slowdown of
//! the machine affects all of them.

mod connections;
mod exchange;
mod idle;
mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use peersock_stack_lab::measure::Figure;
use rustix::time::{ClockId, clock_gettime};

use self::exchange::Exchange;
use self::reference::Reference;

/// Prefixes of the names of all figures.
pub(crate) const PREFIXES: [&str; 2] = ["engine_", "idle_flow_bytes/"];

/// Number of measurements of each figure.
const MEASUREMENTS: usize = 9;
/// Exchanges per measurement.
const EXCHANGES: usize = 200_000;
/// Exchanges of a flow per turn.
const EXCHANGES_PER_TURN: usize = 32;

/// Measurement of one figure.
pub(crate) struct Case {
    pub(crate) name: String,
    load: Load,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    /// Memory of an idle flow, either new or after data, bytes.
    Idle { used: bool },
    /// Exchanges on peersock's flows.
    Exchanges { flows: usize, turn: usize },
    /// Exchanges on smoltcp's sockets, `together` of them on one interface.
    Reference { flows: usize, together: usize, turn: usize },
    /// Connections from SYN to TIME-WAIT.
    Connections,
    /// One flow at full speed.
    Bulk,
}

/// Returns all cases.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, load| Case { name: name.to_owned(), load };
    let mut cases = vec![
        case("idle_flow_bytes/fresh", Load::Idle { used: false }),
        case("idle_flow_bytes/after_data", Load::Idle { used: true }),
    ];
    for (flows, turn, note) in [
        (1, EXCHANGES_PER_TURN, ""),
        (1_000, EXCHANGES_PER_TURN, ""),
        (100_000, EXCHANGES_PER_TURN, ""),
        (1_000, 1, "_one_by_one"),
        (100_000, 1, "_one_by_one"),
    ] {
        let name = format!("engine_ns_per_packet/{flows}_flows{note}");
        cases.push(case(&name, Load::Exchanges { flows, turn }));
    }
    for (flows, together, turn, note) in [
        (1, 1, EXCHANGES_PER_TURN, ""),
        (1_000, 1, EXCHANGES_PER_TURN, ""),
        (1_000, 1, 1, "_one_by_one"),
        (1_000, 1_000, EXCHANGES_PER_TURN, "_together"),
    ] {
        let name = format!("engine_ns_per_packet/smoltcp_{flows}_flows{note}");
        cases.push(case(&name, Load::Reference { flows, together, turn }));
    }
    cases.push(case("engine_ns_per_connection", Load::Connections));
    cases.push(case("engine_gbit_per_s/bulk", Load::Bulk));
    cases
}

/// Measures the cases, and returns their figures in the same order.
pub(crate) fn run(cases: &[Case]) -> Vec<Figure> {
    if cases.is_empty() {
        return Vec::new();
    }
    // Memory comes first, while the allocator has no freed memory to reuse.
    let idle = cases.iter().any(|case| matches!(case.load, Load::Idle { .. })).then(idle::bytes_per_flow);
    let mut subjects = Subjects::default();
    let mut values = vec![Vec::new(); cases.len()];
    let mut packets = vec![0.0; cases.len()];
    for round in 1..=MEASUREMENTS {
        eprintln!("costs: round {round} of {MEASUREMENTS}");
        for ((case, values), packets) in cases.iter().zip(&mut values).zip(&mut packets) {
            match case.load {
                Load::Idle { used } => {
                    values.extend(idle.map(|[fresh, after]| if used { after } else { fresh }))
                }
                Load::Exchanges { flows, turn } => {
                    let cost = subjects.flows(flows).measure(EXCHANGES / turn, turn);
                    values.push(cost.nanos_per_packet());
                    *packets = cost.packets_per_message();
                }
                Load::Reference { flows, together, turn } => {
                    // The cost of each packet grows with the number of sockets.
                    let exchanges = EXCHANGES / (1 + together / 32);
                    let cost = subjects.reference(flows, together).measure(exchanges / turn, turn);
                    values.push(cost.nanos_per_packet());
                    *packets = cost.packets_per_message();
                }
                Load::Connections => values.push(connections::nanos_per_connection()),
                Load::Bulk => values.push(connections::bulk()),
            }
        }
    }
    for (case, packets) in cases.iter().zip(packets).filter(|(_, packets)| *packets > 0.0) {
        eprintln!("{}: {packets:.3} packets a message", case.name);
    }
    cases.iter().zip(values).map(|(case, values)| Figure::new(&case.name, case.unit(), values, &[])).collect()
}

impl Case {
    fn unit(&self) -> &'static str {
        match self.load {
            Load::Idle { .. } => "bytes",
            Load::Exchanges { .. } | Load::Reference { .. } | Load::Connections => "ns",
            Load::Bulk => "Gbit/s",
        }
    }
}

/// Subjects of the exchanges, created on first use.
#[derive(Default)]
struct Subjects {
    flows: BTreeMap<usize, Exchange>,
    references: BTreeMap<(usize, usize), Reference>,
}

impl Subjects {
    fn flows(&mut self, flows: usize) -> &mut Exchange {
        self.flows.entry(flows).or_insert_with(|| Exchange::new(exchange::small_buffers(), flows))
    }

    fn reference(&mut self, flows: usize, together: usize) -> &mut Reference {
        self.references.entry((flows, together)).or_insert_with(|| Reference::new(flows, together))
    }
}

/// Cost of some messages.
struct Cost {
    time: Duration,
    packets: u64,
    messages: u64,
}

impl Cost {
    fn nanos_per_packet(&self) -> f64 {
        self.time.as_nanos() as f64 / self.packets as f64
    }

    fn packets_per_message(&self) -> f64 {
        self.packets as f64 / self.messages as f64
    }
}

/// Returns the flow whose turn comes after flow `at`. The step is coprime to the number of flows, so it
/// visits all of them, far apart.
fn next_turn(at: usize, flows: usize) -> usize {
    (at + 31_607) % flows
}

/// Returns the CPU time of this thread, which other load disturbs less than the time of day.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
