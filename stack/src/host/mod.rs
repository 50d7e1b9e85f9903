//! Parts of a node's stack besides sockets and protocols: interfaces and tables, the way of an arriving
//! packet (`receive`) and of an outgoing one (`route`), time and timers, the results of a round (`batch`),
//! settings, errors and counters.

pub(crate) mod batch;
pub(crate) mod beside;
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
