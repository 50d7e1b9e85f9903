//! The public API, between nodes on the loopback interface.

mod async_tcp;
mod beside;
mod blocked;
mod blocking_tcp;
mod blocking_udp;
mod busy_poll;
mod common;
mod delivery;
mod devices;
mod dht;
mod down;
mod echoes;
#[cfg(all(feature = "axum", feature = "hyper"))]
mod http;
mod identity;
mod joins;
mod killed;
mod managed;
mod moves;
mod nicknames;
mod node;
#[path = "../delivery/process.rs"]
#[allow(dead_code, reason = "no process waits here to go on")]
mod process;
mod restart;
mod restarted;
mod roaming;
mod roots;
mod seat;
mod silent;
mod streams;
mod suites;
mod turn;
mod visits;
