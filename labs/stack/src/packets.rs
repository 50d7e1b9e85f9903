//! Packets in transit, in reused buffers.

use crate::link::Fate;
use crate::{Random, Time};

/// Number of a packet in [`Packets`].
pub(crate) type PacketId = u32;

/// All packets in transit.
#[derive(Default)]
pub(crate) struct Packets {
    slots: Vec<Vec<u8>>,
    free: Vec<PacketId>,
}

impl Packets {
    /// Stores a copy of `packet`.
    fn put(&mut self, packet: &[u8]) -> PacketId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Vec::with_capacity(1500));
            (self.slots.len() - 1) as PacketId
        });
        let slot = &mut self.slots[id as usize];
        slot.clear();
        slot.extend_from_slice(packet);
        id
    }

    /// Stores a copy of `packet` for each of its arrivals, with its damage.
    pub(crate) fn carry(
        &mut self,
        packet: &[u8],
        fate: Fate,
        random: &mut Random,
    ) -> impl Iterator<Item = (Time, PacketId)> + use<> {
        let copies = [fate.arrival, fate.again].map(|arrival| {
            let arrival = arrival?;
            let id = self.put(packet);
            if fate.mark {
                mark_congestion(self.bytes(id));
            }
            if fate.corrupt {
                let place = random.below(packet.len() as u64) as usize;
                self.bytes(id)[place] ^= 1 << random.below(8);
            }
            Some((arrival, id))
        });
        copies.into_iter().flatten()
    }

    /// Returns the packet's bytes.
    pub(crate) fn bytes(&mut self, id: PacketId) -> &mut [u8] {
        &mut self.slots[id as usize]
    }

    /// Frees a packet.
    pub(crate) fn free(&mut self, id: PacketId) {
        self.free.push(id);
    }
}

/// Marks a packet as a router with a long queue does, if its sender supports ECN (RFC 3168 section 5).
fn mark_congestion(packet: &mut [u8]) {
    let Some(&version) = packet.first() else { return };
    // The last two bits of the traffic class, which is spread over two bytes in IPv6.
    let shift = if version >> 4 == 4 { 0 } else { 4 };
    let Some(byte) = packet.get_mut(1) else { return };
    let before = *byte;
    if before >> shift & 3 == 0 {
        return;
    }
    *byte |= 3 << shift;
    let added = u16::from(*byte - before);
    if shift == 0 && packet.len() >= 20 {
        // RFC 1624: the complement of the checksum grows by the same amount as the header, with end-around
        // carry.
        let sum = !u16::from_be_bytes([packet[10], packet[11]]);
        let (sum, carry) = sum.overflowing_add(added);
        packet[10..12].copy_from_slice(&(!(sum + u16::from(carry))).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the sum over an IPv4 header, which is 0xffff if its checksum is right.
    fn sum(header: &[u8]) -> u16 {
        let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn only_who_understands_marks_is_marked_and_checksums_stay_right() {
        for ecn in [0, 1, 2, 3] {
            let mut header = [0x45, ecn, 0, 20, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            let checksum = !sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            assert_eq!(sum(&header), 0xffff);
            mark_congestion(&mut header);
            assert_eq!(header[1], if ecn == 0 { 0 } else { 3 });
            assert_eq!(sum(&header), 0xffff, "{ecn}");
        }
        let mut ipv6 = [0x60, 0x2f, 0xff, 0xff];
        mark_congestion(&mut ipv6);
        assert_eq!(ipv6, [0x60, 0x3f, 0xff, 0xff]);
    }
}
