//! A laboratory for peersock's TCP: stacks joined by impaired links in virtual time.
//!
//! Nothing here looks into the stack: hosts are driven through its public interface, as a node drives them,
//! and whatever engine and congestion control is behind it is measured by what arrives. A run follows from
//! its seed alone.
//!
//! * [`link`]: what happens to a packet on its way: loss, the bottleneck and its queue, jitter, reordering,
//!   duplication.
//! * [`Scenario`]: links, connections and a time; [`Scenario::run`] gives an [`Outcome`].
//! * [`measure`]: the scenarios that the project is judged by, with their targets. `cargo xtask bench tcp`
//!   runs them.
//! * [`kernel`]: the stack in real time, with the kernel's TCP as the other end.
//! * [`soak`]: random scenarios in which every byte must arrive.
//!
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

/// Virtual time since the beginning, or a length of it, nanoseconds.
pub type Time = u64;

/// Milliseconds as [`Time`].
pub const fn ms(milliseconds: u64) -> Time {
    milliseconds * 1_000_000
}

/// Microseconds as [`Time`].
pub const fn us(microseconds: u64) -> Time {
    microseconds * 1_000
}

/// Seconds as [`Time`].
pub fn secs(seconds: f64) -> Time {
    (seconds * 1e9) as Time
}

/// TCP payload of a full segment, bytes.
pub const SEGMENT: usize = 1388;
/// Headers of an inner packet without options: IPv4 and TCP, bytes.
pub const HEADERS: usize = 40;
/// What the overlay, UDP and the outer IP header add to an inner packet, bytes: a full segment is 1500 on the
/// wire.
pub const OVERHEAD: usize = 72;

/// The part of a link's rate that is payload when all segments are full.
pub fn payload_share() -> f64 {
    SEGMENT as f64 / (SEGMENT + HEADERS + OVERHEAD) as f64
}
