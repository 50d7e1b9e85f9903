//! Measured quantities, contenders, and the figures of all rounds.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;

use super::idle::{Disturbance, Disturbances};

/// Measured contender.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Contender {
    /// UDP GSO and GRO with AES-256-GCM, no stack
    Limit,
    /// Kernel TCP, not encrypted
    Kernel,
    /// QUIC streams by quinn
    Quinn,
    /// The overlay
    Peersock,
    /// The overlay, with sockets that are file descriptors
    PeersockFd,
    /// The overlay, with threads that poll for packets for 50 µs before they sleep
    PeersockBusy,
    /// The overlay, with ChaCha20-Poly1305
    PeersockChacha,
}

impl Contender {
    /// All contenders, in the order of a round.
    pub(crate) const ALL: [Contender; 7] = [
        Contender::Limit,
        Contender::Kernel,
        Contender::Quinn,
        Contender::Peersock,
        Contender::PeersockFd,
        Contender::PeersockBusy,
        Contender::PeersockChacha,
    ];

    /// Returns true if the contender's processes run a node.
    pub(crate) fn has_node(self) -> bool {
        !matches!(self, Contender::Limit | Contender::Kernel | Contender::Quinn)
    }

    /// Returns the contender's subcommand of the load program.
    pub(crate) fn subcommand(self) -> &'static str {
        match self {
            Contender::PeersockBusy | Contender::PeersockChacha => Contender::Peersock.name(),
            other => other.name(),
        }
    }

    /// Returns the contender's name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Limit => "limit",
            Contender::Kernel => "kernel",
            Contender::Quinn => "quinn",
            Contender::Peersock => "peersock",
            Contender::PeersockFd => "peersock-fd",
            Contender::PeersockBusy => "peersock-busy",
            Contender::PeersockChacha => "peersock-chacha",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Contender::Limit => "encrypted UDP (limit)",
            Contender::Kernel => "kernel TCP",
            Contender::Quinn => "quinn",
            Contender::Peersock => "peersock",
            Contender::PeersockFd => "peersock, descriptors",
            Contender::PeersockBusy => "peersock, busy poll",
            Contender::PeersockChacha => "peersock, ChaCha20",
        })
    }
}

/// One figure of a run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Quantity {
    /// Payload per second over one stream, counted by the receiver.
    Stream1,
    /// CPU of the sender's process with one stream.
    SenderCpu,
    /// CPU of the receiver's process with one stream.
    ReceiverCpu,
    /// CPU of both processes with one stream.
    BothCpu,
    /// Page faults of both processes with one stream.
    Faults,
    /// Payload per second over one stream, while another process keeps a processor busy.
    Stream1Busy,
    /// Payload per second over eight streams together.
    Stream8,
    /// Median round trip of 64 bytes.
    PingP50,
    /// 99th percentile of that round trip.
    PingP99,
    /// New connections per second: one byte each way, one after another. For quinn, new streams of one
    /// connection.
    Connections,
    /// Number of times that threads of both processes go to sleep for each connection.
    Switches,
    /// New connections per second with a request of 1 KB and an answer of 1 KB.
    Requests,
    /// CPU of both processes for each message of 1 KB over 10 connections, 10,000 messages a second together.
    Message10,
    /// CPU for each message of 1 KB over 10,000 connections.
    Message10k,
    /// Datagrams of 1,200 bytes that arrive per second.
    Datagrams,
    /// CPU of both processes for each datagram.
    DatagramCpu,
    /// Time from the start of a fresh process to the first byte from its peer.
    FirstByte,
    /// Time from killing and restarting the peer to the first byte over a new connection.
    Recovery,
    /// Resident memory of a process for each of 10,000 connections.
    HeldRss,
    /// Resident memory of a node that is connected to one peer and idle.
    IdleRss,
    /// Part of that memory that no file backs.
    IdleAnonymous,
    /// CPU of the same node as a share of one core.
    IdleCpu,
}

impl Quantity {
    /// Returns the name in the results, and the unit.
    pub(crate) fn name_and_unit(self) -> (&'static str, &'static str) {
        match self {
            Quantity::Stream1 => ("goodput_1_stream", "Gbit/s"),
            Quantity::SenderCpu => ("cpu_sender", "s/GB"),
            Quantity::ReceiverCpu => ("cpu_receiver", "s/GB"),
            Quantity::BothCpu => ("cpu_both", "s/GB"),
            Quantity::Faults => ("page_faults", "1/GB"),
            Quantity::Stream1Busy => ("goodput_1_stream_busy", "Gbit/s"),
            Quantity::Stream8 => ("goodput_8_streams", "Gbit/s"),
            Quantity::PingP50 => ("ping_pong_p50", "us"),
            Quantity::PingP99 => ("ping_pong_p99", "us"),
            Quantity::Connections => ("connections", "1/s"),
            Quantity::Switches => ("context_switches", "each"),
            Quantity::Requests => ("requests", "1/s"),
            Quantity::Message10 => ("cpu_message_10_connections", "us"),
            Quantity::Message10k => ("cpu_message_10000_connections", "us"),
            Quantity::Datagrams => ("datagrams", "1/s"),
            Quantity::DatagramCpu => ("cpu_datagram", "us"),
            Quantity::FirstByte => ("start_to_first_byte", "ms"),
            Quantity::Recovery => ("restart_recovery", "ms"),
            Quantity::HeldRss => ("held_connection_rss", "KiB"),
            Quantity::IdleRss => ("idle_rss", "MiB"),
            Quantity::IdleAnonymous => ("idle_anonymous", "MiB"),
            Quantity::IdleCpu => ("idle_cpu", "% of a core"),
        }
    }
}

impl Quantity {
    /// Returns a short description of the figure as a divisor of another figure of the same contender.
    pub(crate) fn divisor(self) -> &'static str {
        match self {
            Quantity::Stream1 => "1 stream",
            Quantity::Message10 => "of 10",
            other => other.name_and_unit().0,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Quantity::Stream1 => "Goodput, 1 stream",
            Quantity::SenderCpu => "CPU, sender",
            Quantity::ReceiverCpu => "CPU, receiver",
            Quantity::BothCpu => "CPU, both",
            Quantity::Faults => "Page faults, 1 stream",
            Quantity::Stream1Busy => "Goodput, busy machine",
            Quantity::Stream8 => "Goodput, 8 streams",
            Quantity::PingP50 => "Ping-pong 64 B, p50",
            Quantity::PingP99 => "Ping-pong 64 B, p99",
            Quantity::Connections => "New connections",
            Quantity::Switches => "  sleeps for each",
            Quantity::Requests => "Requests, 1 KB",
            Quantity::Message10 => "CPU, message of 10",
            Quantity::Message10k => "CPU, message of 10,000",
            Quantity::Datagrams => "UDP, 1,200 B",
            Quantity::DatagramCpu => "  CPU for each",
            Quantity::FirstByte => "Start to first byte",
            Quantity::Recovery => "Recovery after restart",
            Quantity::HeldRss => "10,000 connections, each",
            Quantity::IdleRss => "Idle node, RSS",
            Quantity::IdleAnonymous => "  of it anonymous",
            Quantity::IdleCpu => "Idle node, CPU",
        })
    }
}

/// The spread of one figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns the spread, or None if there are no values.
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 };
        Some(Spread { min: sorted[0], median, max: *sorted.last()? })
    }
}

/// A figure of one round, and the disturbance of that round.
pub(crate) type Measured = (f64, Disturbance);

/// A figure over all its rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) spread: Spread,
    /// Disturbances of the rounds.
    pub(crate) disturbances: Disturbances,
}

impl Row {
    /// Returns the row, or None if there are no rounds.
    pub(crate) fn of(rounds: impl IntoIterator<Item = Measured>) -> Option<Row> {
        let (values, disturbances): (Vec<f64>, Vec<Disturbance>) = rounds.into_iter().unzip();
        Some(Row { spread: Spread::of(&values)?, disturbances: Disturbances::from_iter(disturbances) })
    }
}

/// All figures by round, so that figures measured at about the same time can be compared.
pub(crate) struct Figures<C = Contender>(BTreeMap<(Quantity, C), BTreeMap<usize, Measured>>);

impl<C> Default for Figures<C> {
    fn default() -> Self {
        Figures(BTreeMap::new())
    }
}

impl<C: Copy + Ord> Figures<C> {
    /// Adds the figure of one round.
    pub(crate) fn add(&mut self, round: usize, quantity: Quantity, contender: C, measured: Measured) {
        self.0.entry((quantity, contender)).or_default().insert(round, measured);
    }

    /// Returns all measured figures with their rounds, ordered by quantity.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Quantity, C, Row)> {
        self.0.iter().filter_map(|((quantity, contender), rounds)| {
            Some((*quantity, *contender, Row::of(rounds.values().copied())?))
        })
    }

    /// Returns one figure.
    pub(crate) fn row(&self, quantity: Quantity, contender: C) -> Option<Row> {
        Row::of(self.0.get(&(quantity, contender))?.values().copied())
    }

    /// Returns the quotients of two figures, each within its round. A quotient is as disturbed as the more
    /// disturbed of the two.
    pub(crate) fn ratio(&self, of: (Quantity, C), to: (Quantity, C)) -> Option<Row> {
        let (of, to) = (self.0.get(&of)?, self.0.get(&to)?);
        Row::of(of.iter().filter_map(|(round, (value, disturbance))| {
            let (divisor, other) = to.get(round).filter(|(value, _)| *value > 0.0)?;
            Some((value / divisor, disturbance.max(*other)))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM_OF_KERNEL: (Quantity, Contender) = (Quantity::Stream1, Contender::Kernel);

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { min: 7.0, median: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut figures = Figures::default();
        let idle = Disturbance::default();
        for (round, (kernel, quinn)) in [(10.0, 5.0), (20.0, 4.0), (30.0, 0.0)].into_iter().enumerate() {
            figures.add(round, Quantity::Stream1, Contender::Kernel, (kernel, idle));
            figures.add(round, Quantity::Stream1, Contender::Quinn, (quinn, idle));
        }
        let ratio = figures.ratio(STREAM_OF_KERNEL, (Quantity::Stream1, Contender::Quinn));
        let expected = Spread { min: 2.0, median: 3.5, max: 5.0 };
        assert_eq!(ratio.map(|row| row.spread), Some(expected));
    }

    #[test]
    fn a_ratio_is_as_disturbed_as_either_of_the_two() {
        let mut figures = Figures::default();
        let steal = Disturbance { steal: 0.5, others: 0.0 };
        let others = Disturbance { steal: 0.0, others: 0.7 };
        figures.add(0, Quantity::Stream1, Contender::Kernel, (1.0, steal));
        figures.add(0, Quantity::Stream1, Contender::Quinn, (1.0, others));
        let ratio = figures.ratio(STREAM_OF_KERNEL, (Quantity::Stream1, Contender::Quinn)).expect("a round");
        assert_eq!(ratio.disturbances, Disturbances::from_iter([Disturbance { steal: 0.5, others: 0.7 }]));
    }
}
