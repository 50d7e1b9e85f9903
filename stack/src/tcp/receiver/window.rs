//! The window that is offered to the peer (RFC 9293 3.8.6).

use super::Receiver;

impl Receiver {
    /// Whether the window has opened enough to tell the peer (RFC 1122 4.2.3.3). Never right after it was
    /// told.
    pub(super) fn has_opened(&self, mss: u64) -> bool {
        // Before the first data the peer has no use for more than it was offered.
        if self.finished || self.nxt() == 1 {
            return false;
        }
        let limit = self.largest(self.scale);
        // The peer has never used more than a part of it: no need to say that it is open again.
        let closing = self.edge - self.nxt() < limit / 2;
        closing
            && self.next_offer(self.scale, mss).1 - self.edge
                >= (limit / 4).max((2 * mss).min(limit / 2)).max(1)
    }

    /// The window field for a segment that leaves now; the window never shrinks.
    pub(crate) fn offer(&mut self, mss: u64) -> u16 {
        self.offer_scaled(self.scale, mss)
    }

    /// The same for a SYN, in which it is not scaled (RFC 7323 2.2).
    pub(crate) fn offer_in_syn(&mut self) -> u16 {
        self.offer_scaled(0, 0)
    }

    fn offer_scaled(&mut self, scale: u8, mss: u64) -> u16 {
        let (units, edge) = self.next_offer(scale, mss);
        self.edge = edge;
        units
    }

    /// What a segment that leaves now would offer, in units of `1 << scale`, and where the window would end.
    fn next_offer(&self, scale: u8, mss: u64) -> (u16, u64) {
        let next = self.nxt();
        let free = self.free_edge(scale);
        // Less than a segment or a good part of the buffer is not worth it (RFC 1122 4.2.3.3).
        let least = (self.largest(scale) / 4).min(mss);
        let edge = if free - self.edge >= least { free } else { self.edge };
        let units = (edge.saturating_sub(next) >> scale).min(u64::from(u16::MAX));
        // Rounding must not take back what was offered.
        let units = if next + (units << scale) < self.edge {
            ((self.edge - next).div_ceil(1 << scale)).min(u64::from(u16::MAX))
        } else {
            units
        };
        (units as u16, self.edge.max(next + (units << scale)))
    }

    /// The largest window that the buffer allows and the field can say.
    fn largest(&self, scale: u8) -> u64 {
        (self.limit as u64).min(u64::from(u16::MAX) << scale)
    }

    /// Where the window could end, as far as the field can say it.
    fn free_edge(&self, scale: u8) -> u64 {
        let free = self.limit.saturating_sub(self.queue.len()) as u64;
        let most = u64::from(u16::MAX) << scale;
        (self.queue.end() + free.min(most)).max(self.edge)
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
    }
}
