//! Proportional rate reduction (RFC 9937, which replaces RFC 6937). During fast recovery the window shrinks
//! with delivered data, instead of stalling until half of the data has left.

/// State of one recovery.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prr {
    /// Undelivered bytes at its start.
    flight: u64,
    /// Bytes delivered and sent since.
    delivered: u64,
    sent: u64,
}

impl Prr {
    pub(super) fn new(flight: u64) -> Self {
        Self { flight: flight.max(1), delivered: 0, sent: 0 }
    }

    pub(super) fn on_sent(&mut self, bytes: u64) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// Returns the window after an acknowledgement of `delivered` bytes that leaves `in_flight`. `safe` is
    /// set if the oldest hole was filled and no new loss was found.
    pub(super) fn on_ack(
        &mut self,
        delivered: u64,
        in_flight: u64,
        threshold: u64,
        safe: bool,
        mss: u64,
    ) -> u64 {
        self.delivered = self.delivered.saturating_add(delivered);
        let room = if in_flight > threshold {
            let share = u128::from(self.delivered) * u128::from(threshold);
            let share = share.div_ceil(u128::from(self.flight.max(1)));
            u64::try_from(share).unwrap_or(u64::MAX).saturating_sub(self.sent)
        } else {
            // Below the threshold: slow start if that is safe (SSRB), else packet conservation (CRB).
            // Data released by earlier acknowledgements and not sent yet counts, too.
            let conserved = self.delivered.saturating_sub(self.sent).max(delivered);
            let bonus = if safe { mss } else { 0 };
            conserved.saturating_add(bonus).min(threshold - in_flight)
        };
        // The first retransmission of a recovery must not wait for the window.
        let room = if self.sent == 0 { room.max(mss) } else { room };
        in_flight.saturating_add(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1000;

    /// One of 100 segments is lost, and each acknowledgement delivers one segment.
    #[test]
    fn the_window_reaches_the_threshold_within_a_round_trip() {
        let mut prr = Prr::new(100 * MSS);
        let mut in_flight = 99 * MSS;
        let mut sent = 0;
        for _ in 0..99 {
            in_flight -= MSS;
            let window = prr.on_ack(MSS, in_flight, 50 * MSS, false, MSS);
            while in_flight + MSS <= window {
                in_flight += MSS;
                sent += 1;
                prr.on_sent(MSS);
            }
        }
        assert_eq!((sent, in_flight), (50, 50 * MSS));
    }

    #[test]
    fn the_first_retransmission_leaves_at_once() {
        assert_eq!(Prr::new(100 * MSS).on_ack(0, 90 * MSS, 50 * MSS, false, MSS), 91 * MSS);
    }

    #[test]
    fn after_heavy_loss_slow_start_only_while_it_is_safe() {
        let mut prr = Prr::new(100 * MSS);
        prr.on_sent(MSS);
        assert_eq!(prr.on_ack(MSS, 9 * MSS, 50 * MSS, false, MSS), 10 * MSS);
        prr.on_sent(MSS);
        assert_eq!(prr.on_ack(MSS, 9 * MSS, 50 * MSS, true, MSS), 11 * MSS);
        prr.on_sent(2 * MSS);
        assert_eq!(prr.on_ack(60 * MSS, 9 * MSS, 50 * MSS, true, MSS), 50 * MSS);
    }
}
