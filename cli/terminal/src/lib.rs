//! The parts that peersock's programs share at the terminal.
//!
//! A command returns an [`Outcome`](failure::Outcome): its [`Failure`](failure::Failure) carries the exit
//! status, a message, and a hint that says what to do next.

pub mod clock;
pub mod failure;
pub mod log;
pub mod output;
pub mod signals;
pub mod style;
