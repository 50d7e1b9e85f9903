//! Urgent data: RFC 9293 3.8.5, RFC 6093.

use super::Connection;
use crate::tcp::sequence;

impl Connection {
    /// Queues what fits of `data` as urgent.
    pub(crate) fn write_urgent(&mut self, data: &[u8]) -> usize {
        let queued = self.write(data);
        if queued > 0 {
            self.sender.mark_urgent();
        }
        queued
    }

    /// Bytes up to the last urgent one, which is included, that the application has not read.
    pub(crate) fn urgent_left(&self) -> u64 {
        self.receiver.urgent_left()
    }

    /// RFC 9293 3.8.5, RFC 6093: from `seq` to what follows the last urgent byte, 0 for nothing urgent.
    pub(super) fn urgent_pointer(&self, seq: u32) -> u16 {
        let Some(end) = self.sender.urgent_end() else { return 0 };
        let ahead = |offset: u64| sequence::wire(self.isn, offset).wrapping_sub(seq) as i32;
        match u16::try_from(ahead(end)) {
            Ok(pointer) => pointer,
            Err(_) if ahead(end) <= 0 => 0,
            // As Linux: somewhere ahead, but nowhere in what the peer may have read.
            Err(_) if ahead(self.sender.nxt()) < i32::from(u16::MAX) => u16::MAX,
            Err(_) => 0,
        }
    }
}
