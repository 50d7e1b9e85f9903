use std::time::Duration;

use super::Datagram;
use crate::{Random, Time};

/// One effect of a link on the datagrams that pass it.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Delays each datagram by `base` plus a random time up to `jitter`. Jitter alone does not change the
    /// order.
    Delay {
        /// Minimum delay.
        base: Duration,
        /// Maximum additional delay.
        jitter: Duration,
    },
    /// Holds back some datagrams, so that later ones overtake them.
    Reorder {
        /// Share of the datagrams, 0 to 1.
        probability: f64,
        /// Maximum time for which a datagram is held back.
        delay: Duration,
    },
    /// Loses this share of the datagrams, 0 to 1.
    Loss(f64),
    /// Delivers this share of the datagrams twice, 0 to 1, the copy up to 20 ms later.
    Duplicate(f64),
    /// Flips one to three bits in this share of the datagrams, 0 to 1, as if the UDP checksum had missed it.
    Corrupt(f64),
    /// Limits the rate. Datagrams wait in a bounded queue, and those that come to a full queue are lost (drop
    /// tail).
    Rate {
        /// Bytes per second, IP and UDP headers included; at least 1.
        bytes_per_second: u64,
        /// Maximum number of bytes in the queue.
        queue: u64,
    },
    /// Silently loses IP packets above this size, like a path MTU black hole.
    Mtu(usize),
    /// Loses every datagram.
    Cut,
}

/// State of a stage between datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Time at which the last datagram left. It prevents reordering by jitter.
    last_out: Time,
    /// Time until which the line is busy.
    busy_until: Time,
}

/// A datagram with the time at which it reaches the next stage.
pub(super) type Timed = (Time, Datagram);

impl Stage {
    /// Passes one datagram. The results go to `out`.
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
