//! One direction of an impaired link in real time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::link::{Carrier, Link};
use crate::packets::{PacketId, Packets};
use crate::{OVERHEAD, Random, Time};

/// Holds packets until they arrive.
pub(super) struct Road {
    carrier: Carrier,
    delay: Time,
    packets: Packets,
    under_way: BinaryHeap<Reverse<(Time, u64, PacketId)>>,
    serial: u64,
    random: Random,
}

impl Road {
    pub(super) fn new(link: &Link, delay: Time, random: &mut Random) -> Self {
        Self {
            carrier: Carrier::new(link, 1, random),
            delay,
            packets: Packets::default(),
            under_way: BinaryHeap::new(),
            serial: 0,
            random: random.fork(),
        }
    }

    /// A packet enters.
    pub(super) fn push(&mut self, now: Time, packet: &[u8]) {
        let fate = self.carrier.carry(now, 0, self.delay, packet.len() + OVERHEAD);
        for (arrival, id) in self.packets.carry(packet, fate, &mut self.random) {
            self.serial += 1;
            self.under_way.push(Reverse((arrival, self.serial, id)));
        }
    }

    /// Hands over what has arrived.
    pub(super) fn deliver(&mut self, now: Time, mut to: impl FnMut(&mut [u8])) {
        while let Some(Reverse((arrival, _, id))) = self.under_way.peek().copied()
            && arrival <= now
        {
            self.under_way.pop();
            to(self.packets.bytes(id));
            self.packets.free(id);
        }
    }

    /// When the next packet arrives.
    pub(super) fn next(&self) -> Option<Time> {
        self.under_way.peek().map(|Reverse((arrival, ..))| *arrival)
    }
}
