//! What a node's stack consists of besides sockets and protocols: its interfaces and tables, the way of an
//! arriving packet (`receive`) and of one that leaves (`route`), time and timers, what one round has touched
//! (`batch`), settings, errors and counts.

pub(crate) mod batch;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod counters;
pub(crate) mod error;
pub(crate) mod interface;
pub(crate) mod owners;
pub(crate) mod receive;
mod relief;
pub(crate) mod route;
pub(crate) mod stack;
pub(crate) mod timers;
