//! Building blocks shared by both cores of peersock and the node.
//!
//! * [`sync`]: the locks and atomics of the standard library, taken without regard to poison.
//! * [`admission`]: connection limits of a server that strangers may fill.
//! * [`wait`]: waiting of threads and tasks for a socket.
//! * [`beside()`]: work on a second thread beside one that waits for it, even if no thread can be started.
//! * [`blocking()`] and [`resolve`]: blocking work of tasks, on threads whose start may fail.
//! * [`Key`]: keyed hashing, for hash tables and numbers that strangers must not predict.
//! * [`Counter`]: a count of events. [`counters!`] makes a struct of them that lists its names and values.
//! * [`is_deceptive`]: the characters of untrusted texts that people must not see.
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
#[path = "wait/blocking.rs"]
mod blocking;
mod counter;
mod keyed;
mod text;

pub use beside::{Beside, beside};
pub use blocking::{blocking, resolve};
pub use counter::Counter;
pub use keyed::Key;
pub use text::is_deceptive;
