//! Packets under way, in buffers that are used again.

/// Names a packet of a [`Packets`].
pub(crate) type PacketId = u32;

/// All packets that are under way.
#[derive(Default)]
pub(crate) struct Packets {
    slots: Vec<Vec<u8>>,
    free: Vec<PacketId>,
}

impl Packets {
    /// Keeps a copy of `packet`.
    pub(crate) fn put(&mut self, packet: &[u8]) -> PacketId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Vec::with_capacity(1500));
            (self.slots.len() - 1) as PacketId
        });
        let slot = &mut self.slots[id as usize];
        slot.clear();
        slot.extend_from_slice(packet);
        id
    }

    /// The packet's bytes.
    pub(crate) fn bytes(&mut self, id: PacketId) -> &mut [u8] {
        &mut self.slots[id as usize]
    }

    /// Forgets a packet.
    pub(crate) fn free(&mut self, id: PacketId) {
        self.free.push(id);
    }
}
