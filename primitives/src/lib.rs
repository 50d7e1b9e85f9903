//! What both cores of peersock and the node are built with.
//!
//! * [`sync`]: the locks and atomics of the standard library, taken without regard to poison.
//! * [`admission`]: which connections a server has places for, when strangers open more.
//! * [`wait`]: how threads and tasks wait for a socket.
//! * [`beside()`]: work beside that of a thread that waits for it, also where no thread can be started.
//! * [`Key`]: keyed hashing, for hash tables and numbers that strangers must not predict.
//! * [`Counter`]: a count of events. [`counters!`] makes a struct of them that lists its names and values.
//! * [`is_deceptive`]: which characters of others' texts people are not shown.
//! * [`prometheus`]: such numbers as text for Prometheus.
#![forbid(unsafe_code)]

pub mod admission;
pub mod prometheus;
pub mod sync;
pub mod wait;
#[cfg(test)]
#[path = "wait/tests.rs"]
mod wait_tests;

#[path = "wait/beside.rs"]
mod beside;
mod counter;
mod keyed;
mod text;

pub use beside::{Beside, beside};
pub use counter::Counter;
pub use keyed::Key;
pub use text::is_deceptive;
