//! A laboratory for peersock's TCP: stacks joined by impaired links in virtual time.
//!
//! It drives hosts through the stack's public interface only, as a node drives them. So it measures any TCP
//! engine and congestion control by the arriving data. A run depends on its seed alone.
//!
//! * [`link`]: effects on a packet in transit: loss, the bottleneck and its queue, jitter, reordering,
//!   duplication.
//! * [`Scenario`]: links, connections and a duration; [`Scenario::run`] returns an [`Outcome`].
//! * [`measure`]: the project's benchmark scenarios with their targets, run by `cargo xtask bench tcp`.
//! * [`kernel`]: the stack in real time, with the Linux kernel's TCP as the other end.
//! * [`soak`]: random scenarios in which every byte must arrive.
//! ```
//! use peersock_stack_lab::{Plan, Scenario, ms};
//!
//! let scenario = Scenario::new(20e6, ms(10)).with(Plan::upload(100_000)).lasting(ms(5_000));
//! let outcome = scenario.run(7);
//! assert_eq!(outcome.connections[0].up.bytes, 100_000);
//! ```

mod connection;
mod host;
pub mod kernel;
pub mod link;
pub mod measure;
mod packets;
mod random;
mod scenario;
pub mod soak;
mod world;

pub use connection::{Pause, StreamOutcome};
pub use random::Random;
pub use scenario::{Batching, ConnectionOutcome, Outcome, Plan, Scenario};

/// Virtual time since the beginning, or a duration, nanoseconds.
pub type Time = u64;

/// Converts milliseconds to [`Time`].
pub const fn ms(milliseconds: u64) -> Time {
    milliseconds * 1_000_000
}

/// Converts microseconds to [`Time`].
pub const fn us(microseconds: u64) -> Time {
    microseconds * 1_000
}

/// Converts seconds to [`Time`].
pub fn secs(seconds: f64) -> Time {
    (seconds * 1e9) as Time
}

/// TCP payload of a full segment, bytes.
pub const SEGMENT: usize = 1388;
/// Headers of an inner packet without options: IPv4 and TCP, bytes.
pub const HEADERS: usize = 40;
/// Bytes that the overlay, UDP and the outer IP header add to an inner packet: a full segment is 1500 on the
/// wire.
pub const OVERHEAD: usize = 72;

/// Returns the payload's share of a link's rate when all segments are full.
pub fn payload_share() -> f64 {
    SEGMENT as f64 / (SEGMENT + HEADERS + OVERHEAD) as f64
}
