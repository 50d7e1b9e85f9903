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

/// Operations in one input.
const MOST: usize = 150;

/// Three nodes, five networks and an adversary who drops, repeats, reorders, alters and invents datagrams. It
/// is a member of one of the networks, too, and sends authentic messages of every kind from any address.
///
/// Packets arrive at most once, unaltered, from whom they seem to come and in the network where they were
/// sent (`Net::receive`); no address that proved nothing is sent more than came from it, and none that never
/// received anything becomes a path; tables and queues stay small (`Net::check`). And when the adversary goes
/// away, those who share a network find each other.
pub fn overlay_ops(data: &[u8]) {
    let mut net = Net::new(3);
    for operation in sequence::<Operation>(data, MOST) {
        operation.run(&mut net);
        net.check();
    }
    net.recover(Duration::from_secs(90));
}
