//! Sequences of operations on endpoints, over a network that an adversary owns.

mod member;
mod net;
mod node;
mod operation;

use std::time::Duration;

use crate::input::sequence;

pub(crate) use net::Net;
pub(crate) use node::LISTED;
use operation::Operation;

/// Maximum number of operations in one input.
const MAX_OPERATIONS: usize = 150;

/// Runs three nodes, five networks and an adversary who drops, repeats, reorders, alters and invents
/// datagrams. The adversary is also a member of one network, and sends authentic messages of every kind from
/// any address.
///
/// Packets arrive at most once, unaltered, from their apparent sender and in the network where they were sent
/// (`Net::receive`). No address without proof is sent more than came from it, and an address that never
/// received anything never becomes a path. Tables and queues stay small (`Net::check`). After the adversary
/// has left, nodes that share a network find each other.
pub fn overlay_ops(data: &[u8]) {
    let mut net = Net::new(3);
    for operation in sequence::<Operation>(data, MAX_OPERATIONS) {
        operation.run(&mut net);
        net.check();
    }
    net.recover(Duration::from_secs(90));
}
