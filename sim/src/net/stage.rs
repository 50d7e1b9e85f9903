use std::time::Duration;

use super::Datagram;
use crate::{Random, Time};

/// One thing that a link does to the datagrams that pass it.
///
/// ```
/// use std::time::Duration;
/// use peersock_sim::net::{Pipe, Stage};
///
/// // A consumer line: 20 Mbit/s with 60 ms of queue, 15 ms away, one loss in a thousand.
/// let rate = Stage::Rate { bytes_per_second: 2_500_000, queue: 150_000 };
/// let delay = Stage::Delay { base: Duration::from_millis(15), jitter: Duration::from_millis(1) };
/// let pipe = Pipe::new([Stage::Loss(0.001), rate, delay]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Takes time: always `base`, and up to `jitter` more, at random. Jitter alone does not change the order.
    Delay {
        /// The least.
        base: Duration,
        /// What comes on top at most.
        jitter: Duration,
    },
    /// Holds some datagrams back, so that later ones overtake them.
    Reorder {
        /// How many, 0 to 1.
        probability: f64,
        /// For how long at most.
        delay: Duration,
    },
    /// Loses some, 0 to 1.
    Loss(f64),
    /// Delivers some twice, 0 to 1, the copy up to 20 ms later.
    Duplicate(f64),
    /// Flips one to three bits in some, 0 to 1, as if the UDP checksum had missed it.
    Corrupt(f64),
    /// Carries so many bytes per second and lets so many wait; what comes to a full queue is lost (drop
    /// tail).
    Rate {
        /// Bytes per second, IP and UDP headers included; at least 1.
        bytes_per_second: u64,
        /// Bytes that may wait.
        queue: u64,
    },
    /// Loses IP packets above this size without a word: a path MTU black hole.
    Mtu(usize),
    /// Loses everything.
    Cut,
}

/// What a stage remembers from one datagram to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// When the last datagram left, so that jitter does not reorder.
    last_out: Time,
    /// Until when the line is busy.
    busy_until: Time,
}

/// A datagram with the time at which it comes to the next stage.
pub(super) type Timed = (Time, Datagram);

impl Stage {
    /// Passes one datagram; what comes out goes to `out`.
    pub(super) fn pass(&self, memory: &mut Memory, random: &mut Random, timed: Timed, out: &mut Vec<Timed>) {
        let (at, mut datagram) = timed;
        match *self {
            Self::Delay { base, jitter } => {
                let leaves = at + base + random.duration(Duration::ZERO..=jitter);
                memory.last_out = leaves.max(memory.last_out);
                out.push((memory.last_out, datagram));
            }
            Self::Reorder { probability, delay } => {
                let held = if random.chance(probability) {
                    random.duration(Duration::ZERO..=delay)
                } else {
                    Duration::ZERO
                };
                out.push((at + held, datagram));
            }
            Self::Loss(probability) => {
                if !random.chance(probability) {
                    out.push((at, datagram));
                }
            }
            Self::Duplicate(probability) => {
                if random.chance(probability) {
                    let later = random.duration(Duration::ZERO..=Duration::from_millis(20));
                    out.push((at + later, datagram.clone()));
                }
                out.push((at, datagram));
            }
            Self::Corrupt(probability) => {
                if !datagram.payload.is_empty() && random.chance(probability) {
                    for _ in 0..random.within(1..=3) {
                        let bit = random.below(datagram.payload.len() * 8);
                        datagram.payload[bit / 8] ^= 1 << (bit % 8);
                    }
                }
                out.push((at, datagram));
            }
            Self::Rate { bytes_per_second, queue } => {
                let starts = memory.busy_until.max(at);
                let waiting = (starts - at).as_nanos() * u128::from(bytes_per_second) / NANOS_PER_SECOND;
                let len = datagram.wire_len() as u64;
                if waiting + u128::from(len) <= u128::from(queue.max(len)) {
                    let nanos = u128::from(len) * NANOS_PER_SECOND / u128::from(bytes_per_second.max(1));
                    memory.busy_until = starts + Duration::from_nanos(nanos as u64);
                    out.push((memory.busy_until, datagram));
                }
            }
            Self::Mtu(mtu) => {
                if datagram.wire_len() <= mtu {
                    out.push((at, datagram));
                }
            }
            Self::Cut => {}
        }
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;
