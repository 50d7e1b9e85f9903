//! Deterministic simulation of many peersock nodes in virtual time.

pub mod net;
mod random;

pub use random::Random;

/// Virtual time since the scenario began.
pub type Time = std::time::Duration;
