//! The window that is offered to the peer (RFC 9293 3.8.6).

use super::Receiver;
use crate::tcp::memory::LEAST_BUFFER;

impl Receiver {
    /// Whether the window has opened enough to tell the peer (RFC 1122 4.2.3.3). Never right after it was
    /// told.
    pub(super) fn has_opened(&self, mss: u64) -> bool {
        // Before the first data the peer has no use for more than it was offered.
        if self.finished || self.nxt() == 1 {
            return false;
        }
        let limit = self.largest(self.scale);
        let told = self.told();
        // The peer has never used more than a part of it: no need to say that it is open again.
        let closing = told - self.nxt() < limit / 2;
        closing
            && self.next_offer(self.scale, mss).1 - told >= (limit / 4).max((2 * mss).min(limit / 2)).max(1)
    }

    /// Takes back what was offered, because no memory is left for it: as in Linux, the peer is told that the
    /// window is closed, and then that it is open again when the application has read. RFC 9293 3.8.6 has
    /// windows not shrink; but a peer that believes in this one learns by its retransmission timer alone what
    /// was dropped, and that may have grown to a minute by the time the application reads.
    ///
    /// What was offered is taken all the same if there is memory by then.
    pub(super) fn close_window(&mut self) {
        // The least that the field can say is a unit.
        self.limit = self.limit.min(LEAST_BUFFER.max(1 << self.scale));
        self.closed = true;
    }

    /// The window field for a segment that leaves now; the window never shrinks but
    /// [for lack of memory](Self::close_window).
    pub(crate) fn offer(&mut self, mss: u64) -> u16 {
        self.offer_scaled(self.scale, mss)
    }

    /// The same for a SYN, in which it is not scaled (RFC 7323 2.2).
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

    /// What a segment that leaves now would offer, in units of `1 << scale`, and where the window would end.
    fn next_offer(&self, scale: u8, mss: u64) -> (u16, u64) {
        let (next, told) = (self.nxt(), self.told());
        let free = self.free_edge(scale);
        // Less than a segment or a good part of the buffer is not worth it (RFC 1122 4.2.3.3).
        let least = (self.largest(scale) / 4).min(mss);
        let edge = if free - told >= least { free } else { told };
        let units = (edge.saturating_sub(next) >> scale).min(u64::from(u16::MAX));
        // Rounding must not take back what was offered.
        let units = if next + (units << scale) < told {
            ((told - next).div_ceil(1 << scale)).min(u64::from(u16::MAX))
        } else {
            units
        };
        (units as u16, told.max(next + (units << scale)))
    }

    /// Up to where the peer believes that it may send.
    fn told(&self) -> u64 {
        if self.closed { self.nxt() } else { self.edge }
    }

    /// The largest window that the buffer allows and the field can say.
    fn largest(&self, scale: u8) -> u64 {
        (self.limit as u64).min(u64::from(u16::MAX) << scale)
    }

    /// Where the window could end, as far as the field can say it.
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
        /// Or else a connection would tell of it for ever.
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

        /// Or else a connection would stand still for ever.
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
