//! Pipes and nodes: the same subjects as Python's tests of `peersock.pipe`.

mod addresses;
mod basics;
mod common;
mod daemons;
mod ending;
mod nicknames;
mod nodes;
mod options;
mod overlay;
mod programs;
mod queues;
mod relays;
mod texts;
