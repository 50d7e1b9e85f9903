//! An attacker who sees every datagram, can send any from any address, and is a member of an open network.
//!
//! Whatever he sends, no packet of his is taken for another's, every datagram is counted once under the name
//! of what is wrong with it, nobody is flooded through a node, and memory stays bounded.

mod altered;
mod flood;
mod garbage;
mod handshakes;
#[path = "../lab/mod.rs"]
mod lab;
mod members;
mod replayed;
mod siege;

/// Unoptimised builds send a fraction of the packets.
const SCALE: usize = if cfg!(debug_assertions) { 1 } else { 20 };
