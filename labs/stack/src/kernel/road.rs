//! One direction of an impaired link in real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peersock_testnet::Queue;

use crate::link::{Carrier, Link};
use crate::packets::{PacketId, Packets};
use crate::{OVERHEAD, Random, Time, ms};

/// Packets in transit until their arrival.
pub(super) struct Road {
    carrier: Carrier,
    delay: Time,
    packets: Packets,
    under_way: Queue<Time, PacketId>,
    random: Random,
    punctuality: Arc<Punctuality>,
}

/// Timing record of both directions of a link. A thread without a free processor delivers late, and the link
/// is then not the one to be measured.
#[derive(Debug, Default)]
pub struct Punctuality {
    packets: AtomicU64,
    late: AtomicU64,
}

impl Punctuality {
    /// Tolerated lateness of a packet.
    const TOLERANCE: Time = ms(1);

    fn count(&self, late: Time) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.late.fetch_add(u64::from(late > Self::TOLERANCE), Ordering::Relaxed);
    }

    /// Returns the share of packets that came more than a millisecond late, 0 if there were none.
    pub fn late_share(&self) -> f64 {
        self.late.load(Ordering::Relaxed) as f64 / self.packets.load(Ordering::Relaxed).max(1) as f64
    }
}

impl Road {
    pub(super) fn new(link: &Link, delay: Time, random: &mut Random, punctuality: Arc<Punctuality>) -> Self {
        Self {
            carrier: Carrier::new(link, 1, random),
            delay,
            packets: Packets::default(),
            under_way: Queue::default(),
            random: random.fork(),
            punctuality,
        }
    }

    /// Puts a packet on the road.
    pub(super) fn push(&mut self, now: Time, packet: &[u8]) {
        let fate = self.carrier.carry(now, 0, self.delay, packet.len() + OVERHEAD);
        for (arrival, id) in self.packets.carry(packet, fate, &mut self.random) {
            self.under_way.push(arrival, id);
        }
    }

    /// Delivers the packets that have arrived.
    pub(super) fn deliver(&mut self, now: Time, mut to: impl FnMut(&mut [u8])) {
        while let Some((arrival, id)) = self.under_way.pop_due(now) {
            self.punctuality.count(now - arrival);
            to(self.packets.bytes(id));
            self.packets.free(id);
        }
    }

    /// Returns the arrival time of the next packet.
    pub(super) fn next(&self) -> Option<Time> {
        self.under_way.next_at()
    }
}
