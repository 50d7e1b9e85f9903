//! An attacker who sees every datagram, can send any from any address, and is a member of an open network.
//!
//! Whatever the attacker sends, no packet of his passes for that of another node. Every datagram is counted
//! once, by its defect. No one is flooded through a node, and memory stays bounded.

mod altered;
mod flood;
mod garbage;
mod handshakes;
#[path = "../lab/mod.rs"]
mod lab;
mod members;
mod replayed;
mod siege;

/// Scale of the packet numbers. Unoptimised builds send a fraction of the packets.
const SCALE: usize = if cfg!(debug_assertions) { 1 } else { 20 };
