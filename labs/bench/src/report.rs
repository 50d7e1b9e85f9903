//! A client's output: one JSON object on one line, so that any script can read it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::usage::Usage;

/// The result of one workload.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Bulk transfer, counted by the receiver.
    Bulk {
        /// Gigabits of payload per second.
        gbps: f64,
        /// Payload bytes that arrived.
        bytes: u64,
        /// Parallel streams.
        streams: usize,
        /// CPU seconds that the sending process used per 10^9 payload bytes.
        sender_s_per_gb: f64,
        /// CPU seconds that the receiving process used per 10^9 payload bytes.
        receiver_s_per_gb: f64,
        /// Page faults of both processes per 10^9 payload bytes.
        faults_per_gb: f64,
    },
    /// Round trips of 64 bytes.
    PingPong {
        /// Round trips measured.
        samples: usize,
        /// Median round trip, microseconds.
        p50_us: f64,
        /// 99th percentile, microseconds.
        p99_us: f64,
        /// Longest round trip, microseconds.
        max_us: f64,
    },
    /// Connections made one after another.
    Connect {
        /// Completed per second: connect, a message each way, close.
        per_s: f64,
        /// Number of successes.
        count: u64,
        /// Number of failures.
        failed: u64,
        /// Number of times that threads of both processes went to sleep per connection; None if it was not
        /// counted.
        switches_each: Option<f64>,
    },
    /// Messages over many connections in turn.
    Messages {
        /// Number of connections.
        connections: usize,
        /// Messages per second.
        per_s: f64,
        /// CPU time that both processes used for each message, microseconds.
        cpu_us_each: f64,
    },
    /// Datagrams, counted by the receiver.
    Datagrams {
        /// Datagrams that arrived per second.
        per_s: f64,
        /// Number of datagrams sent.
        sent: u64,
        /// Number of datagrams that arrived.
        received: u64,
        /// CPU time that both processes used for each datagram that arrived, microseconds.
        cpu_us_each: f64,
    },
    /// A byte of a new connection arrived.
    Byte,
    /// Connections that do nothing.
    Hold {
        /// Number of connections.
        connections: usize,
        /// Resident memory of this process per connection, KiB.
        kib_each: f64,
    },
    /// A process that is connected and does nothing.
    Idle {
        /// Resident memory, KiB.
        rss_kib: u64,
        /// Part of that memory that is not backed by a file, KiB.
        anonymous_kib: u64,
        /// Share of one core, percent.
        cpu_percent: f64,
    },
}

impl Report {
    /// Sorts round-trip times given in nanoseconds and takes the percentiles.
    pub(crate) fn ping_pong(mut nanos: Vec<u64>) -> Report {
        nanos.sort_unstable();
        let at = |share: f64| {
            let last = nanos.len().saturating_sub(1) as f64;
            nanos.get((last * share) as usize).map_or(0.0, |&ns| ns as f64 / 1e3)
        };
        Report::PingPong { samples: nanos.len(), p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) }
    }

    /// Prints the result as one line.
    pub(crate) fn print(&self) -> std::io::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// A receiver's counts. The wire form has five little-endian numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Received {
    /// Payload bytes up to the end.
    pub(crate) bytes: u64,
    /// Time from the beginning to the end.
    pub(crate) elapsed: Duration,
    /// Resources that the receiving process used in that time.
    pub(crate) usage: Usage,
}

impl Received {
    /// Length of the wire form.
    pub(crate) const LEN: usize = 40;

    /// Returns the wire form.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let Usage { cpu, faults, switches } = self.usage;
        let fields = [self.bytes, self.elapsed.as_nanos() as u64, cpu.as_nanos() as u64, faults, switches];
        for (slot, field) in out.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    /// Reads the wire form.
    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Received {
        let field = |i: usize| {
            let mut le = [0; 8];
            le.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
            u64::from_le_bytes(le)
        };
        Received {
            bytes: field(0),
            elapsed: Duration::from_nanos(field(1)),
            usage: Usage { cpu: Duration::from_nanos(field(2)), faults: field(3), switches: field(4) },
        }
    }

    /// Reports several streams that ran together between the same two processes. `sender` is the sender's
    /// usage.
    pub(crate) fn report(streams: &[Received], sender: Usage) -> Report {
        let bytes: u64 = streams.iter().map(|r| r.bytes).sum();
        let elapsed = streams.iter().map(|r| r.elapsed).max().unwrap_or_default();
        let cpu = streams.iter().map(|r| r.usage.cpu).max().unwrap_or_default();
        let faults = sender.faults + streams.iter().map(|r| r.usage.faults).max().unwrap_or_default();
        let per_gb = |amount: f64| if bytes == 0 { 0.0 } else { amount / bytes as f64 * 1e9 };
        Report::Bulk {
            gbps: bytes as f64 * 8.0 / elapsed.as_secs_f64().max(1e-9) / 1e9,
            bytes,
            streams: streams.len(),
            sender_s_per_gb: per_gb(sender.cpu.as_secs_f64()),
            receiver_s_per_gb: per_gb(cpu.as_secs_f64()),
            faults_per_gb: per_gb(faults as f64),
        }
    }

    /// Reports datagrams of `size` bytes, of which `sent` were sent. `sender` is the sender's usage.
    pub(crate) fn datagrams(self, sent: u64, size: usize, sender: Usage) -> Report {
        let received = self.bytes / size as u64;
        let cpu = sender.cpu + self.usage.cpu;
        Report::Datagrams {
            per_s: received as f64 / self.elapsed.as_secs_f64().max(1e-9),
            sent,
            received,
            cpu_us_each: cpu.as_secs_f64() * 1e6 / received.max(1) as f64,
        }
    }
}

/// Prints the server's address, which tells the starting process that the server is ready.
pub(crate) fn print_ready(address: SocketAddr) {
    println!("{}", serde_json::json!({ "address": address.to_string() }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_survives_the_wire() {
        let usage = Usage { cpu: Duration::from_millis(12_345), faults: 3, switches: 1 << 33 };
        let sent = Received { bytes: 1 << 40, elapsed: Duration::from_nanos(7), usage };
        assert_eq!(Received::from_bytes(&sent.to_bytes()), sent);
    }

    fn usage(secs: u64, faults: u64) -> Usage {
        Usage { cpu: Duration::from_secs(secs), faults, switches: 0 }
    }

    #[test]
    fn streams_add_up_over_the_longest_time() {
        let one = |secs, usage| Received { bytes: 500_000_000, elapsed: Duration::from_secs(secs), usage };
        let report = Received::report(&[one(1, usage(1, 5)), one(2, usage(3, 6))], usage(4, 1));
        let Report::Bulk { gbps, bytes, streams, sender_s_per_gb, receiver_s_per_gb, faults_per_gb } = report
        else {
            panic!("a bulk report");
        };
        assert_eq!((bytes, streams), (1_000_000_000, 2));
        assert_eq!((gbps, sender_s_per_gb, receiver_s_per_gb, faults_per_gb), (4.0, 4.0, 3.0, 7.0));
    }

    #[test]
    fn datagrams_that_arrived_count() {
        let received = Received { bytes: 5000, elapsed: Duration::from_secs(2), usage: usage(1, 0) };
        let Report::Datagrams { per_s, sent, received, cpu_us_each } =
            received.datagrams(70, 100, usage(2, 0))
        else {
            panic!("a report of datagrams");
        };
        assert_eq!((per_s, sent, received, cpu_us_each), (25.0, 70, 50, 60_000.0));
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let Report::PingPong { p50_us, p99_us, max_us, .. } =
            Report::ping_pong((1..=101).rev().map(|us| us * 1000).collect())
        else {
            panic!("a ping-pong report");
        };
        assert_eq!((p50_us, p99_us, max_us), (51.0, 100.0, 101.0));
    }
}
