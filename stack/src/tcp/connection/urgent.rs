//! Urgent data (RFC 9293 3.8.5, RFC 6093).

use super::Connection;
use crate::tcp::sequence;

impl Connection {
    /// Queues the part of `data` that fits, as urgent.
    pub(crate) fn write_urgent(&mut self, data: &[u8]) -> usize {
        let queued = self.write(data);
        if queued > 0 {
            self.sender.mark_urgent();
        }
        queued
    }

    /// Returns the number of unread bytes up to and including the last urgent one.
    pub(crate) fn urgent_left(&self) -> u64 {
        self.receiver.urgent_left()
    }

    /// Returns the distance from `seq` to the byte after the urgent data, or 0 if nothing is urgent (RFC 9293
    /// 3.8.5, RFC 6093).
    pub(super) fn urgent_pointer(&self, seq: u32) -> u16 {
        let Some(end) = self.sender.urgent_end() else { return 0 };
        let ahead = |offset: u64| sequence::wire(self.isn, offset).wrapping_sub(seq) as i32;
        match u16::try_from(ahead(end)) {
            Ok(pointer) => pointer,
            Err(_) if ahead(end) <= 0 => 0,
            // As in Linux: the mark is out of reach, so point as far ahead as possible, but only beyond the
            // sent data, which the peer may have read.
            Err(_) if ahead(self.sender.nxt()) < i32::from(u16::MAX) => u16::MAX,
            Err(_) => 0,
        }
    }
}
