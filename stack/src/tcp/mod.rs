//! TCP: what segments look like, and how fast they may leave.

pub(crate) mod congestion;
mod header;
pub(crate) mod rate;

pub(crate) use header::{Bare, TcpError, TcpHeader};
