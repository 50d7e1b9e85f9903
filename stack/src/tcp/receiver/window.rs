//! Window offered to the peer (RFC 9293 3.8.6).

use super::Receiver;
use crate::tcp::memory::LEAST_BUFFER;

impl Receiver {
    /// Returns true if the window has opened enough for an update (RFC 1122 4.2.3.3). Never true right after
    /// an update.
    pub(super) fn has_opened(&self, mss: u64) -> bool {
        // Before the first data, the offered window is enough.
        if self.finished || self.nxt() == 1 {
            return false;
        }
        let limit = self.largest(self.scale);
        let told = self.told();
        // While the peer has half of the window left, it needs no update.
        let closing = told - self.nxt() < limit / 2;
        // An opening that the field cannot express is not due, because acknowledgements would never end.
        closing
            && self.next_offer(self.scale, mss).1 - told >= (limit / 4).max((2 * mss).min(limit / 2)).max(1)
    }

    /// Withdraws the offered window, because no memory is left for it. As in Linux, the peer learns that the
    /// window is closed, and later that it has reopened. RFC 9293 3.8.6 says that windows should not shrink.
    /// But a peer that relied on the old window would learn of the dropped data only by its retransmission
    /// timer. That timer may have grown to a minute by the time the application reads.
    ///
    /// Data within the old window is still accepted if there is memory by then.
    pub(super) fn close_window(&mut self) {
        // One unit is the smallest window that the field can express.
        self.limit = self.limit.min(LEAST_BUFFER.max(1 << self.scale));
        self.closed = true;
    }

    /// Returns the window field for a segment sent now. The window never shrinks except [for lack of
    /// memory](Self::close_window).
    pub(crate) fn offer(&mut self, mss: u64) -> u16 {
        self.offer_scaled(self.scale, mss)
    }

    /// Returns the same for a SYN, where the window is not scaled (RFC 7323 2.2).
    pub(crate) fn offer_in_syn(&mut self) -> u16 {
        self.offer_scaled(0, 0)
    }

    fn offer_scaled(&mut self, scale: u8, mss: u64) -> u16 {
        let (units, edge) = self.next_offer(scale, mss);
        if units > 0 || !self.closed {
            (self.edge, self.closed) = (edge, false);
        }
        units
    }

    /// Returns the window for a segment sent now, in units of `1 << scale`, and the window's end.
    fn next_offer(&self, scale: u8, mss: u64) -> (u16, u64) {
        let (next, told) = (self.nxt(), self.told());
        let free = self.free_edge(scale);
        // Avoid silly windows: an increase below a segment or a quarter of the buffer is not offered (RFC
        // 1122 4.2.3.3).
        let least = (self.largest(scale) / 4).min(mss);
        let edge = if free - told >= least { free } else { told };
        let units = (edge.saturating_sub(next) >> scale).min(u64::from(u16::MAX));
        // Rounding must not shrink the offered window.
        let units = if next + (units << scale) < told {
            ((told - next).div_ceil(1 << scale)).min(u64::from(u16::MAX))
        } else {
            units
        };
        (units as u16, told.max(next + (units << scale)))
    }

    /// Returns the offset up to which the peer believes that it may send.
    fn told(&self) -> u64 {
        if self.closed { self.nxt() } else { self.edge }
    }

    /// Returns the largest window that buffer and field permit.
    fn largest(&self, scale: u8) -> u64 {
        (self.limit as u64).min(u64::from(u16::MAX) << scale)
    }

    /// Returns the possible end of the window, as far as the field can express it.
    fn free_edge(&self, scale: u8) -> u64 {
        let free = self.limit.saturating_sub(self.queue.len()) as u64;
        let most = u64::from(u16::MAX) << scale;
        (self.queue.end() + free.min(most)).max(self.told())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::host::clock::Time;
    use crate::tcp::{Memory, Share};

    #[derive(Debug, Clone)]
    enum Step {
        Arrive(usize),
        Read(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![(1usize..70_000).prop_map(Step::Arrive), (1usize..70_000).prop_map(Step::Read)]
    }

    proptest! {
        /// Otherwise a connection would send updates for ever.
        #[test]
        fn a_window_that_was_told_has_not_opened(
            limit in 1usize..1 << 18,
            scale in 0u8..=14,
            mss in 1u64..65_536,
            steps in prop::collection::vec(step(), 1..12),
        ) {
            let now = Time::from_secs(1);
            let mut receiver = Receiver::new(now, limit, true, true);
            let memory = Share::new(&Arc::new(Memory::new(usize::MAX, usize::MAX)));
            receiver.offer_in_syn();
            receiver.scale = scale;
            for step in steps {
                match step {
                    Step::Arrive(length) => {
                        let length = length.min((receiver.edge() - receiver.nxt()) as usize);
                        let segment = (receiver.nxt(), &vec![0; length][..], false);
                        prop_assert!(receiver.on_segment(now, segment, mss, &memory));
                    }
                    Step::Read(length) => {
                        let length = length.min(receiver.readable());
                        receiver.consume(now, length, None, false);
                    }
                }
                let edge = receiver.edge();
                receiver.offer(mss);
                prop_assert!(receiver.edge() >= edge, "the window never shrinks");
                prop_assert!(!receiver.has_opened(mss));
            }
        }

        /// Otherwise a connection would stall for ever.
        #[test]
        fn a_window_that_was_closed_for_lack_of_memory_opens_when_all_is_read(
            limit in 4096usize..1 << 30,
            mss in 1u64..65_536,
            lengths in prop::collection::vec(1usize..70_000, 1..8),
        ) {
            let now = Time::from_secs(1);
            let none_left = Share::new(&Arc::new(Memory::new(0, 0)));
            let mut receiver = Receiver::new(now, limit, true, true);
            receiver.offer_in_syn();
            receiver.scale = (0..14).find(|shift| limit >> shift <= usize::from(u16::MAX)).unwrap_or(14);
            receiver.offer(mss);
            for length in lengths.into_iter().cycle() {
                let length = length.min((receiver.told() - receiver.nxt()) as usize);
                let complete = receiver.on_segment(now, (receiver.nxt(), &vec![0; length], false), mss, &none_left);
                let units = receiver.offer(mss);
                prop_assert!(complete || (units == 0 && receiver.readable() >= LEAST_BUFFER));
                if units == 0 {
                    break;
                }
            }
            receiver.consume(now, receiver.readable(), None, false);
            prop_assert!(receiver.has_opened(mss));
            prop_assert!(receiver.offer(mss) > 0);
            prop_assert!(!receiver.has_opened(mss));
        }
    }
}
