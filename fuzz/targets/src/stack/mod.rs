//! The TCP/IP stack: arriving packets, coalescing, and sequences of operations on connections.

mod coalescing;
mod connection;
mod host;
mod model;
mod ops;
mod pair;
mod receiving;

pub use coalescing::coalescer;
pub use connection::connection;
pub use ops::stack_ops;
pub use receiving::{packets, segments};
