//! TCP timestamps and protection against wrapped sequence numbers: RFC 7323 sections 3 to 5.

use std::time::Duration;

use crate::host::clock::{Time, since};

/// Silence after which the timestamps may have wrapped half-way (RFC 7323 5.5).
const OUTDATED: Duration = Duration::from_secs(24 * 24 * 3600);

/// State of timestamps, once both ends have sent one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamps {
    /// Offset added to the clock, so that timestamps reveal nothing about the node.
    offset: u32,
    /// Value of TS.Recent, and its time of arrival.
    recent: u32,
    recent_at: Time,
}

impl Timestamps {
    pub(crate) fn new(offset: u32) -> Self {
        Self { offset, recent: 0, recent_at: Time::ZERO }
    }

    /// Returns the state after the first timestamp of the peer.
    pub(crate) fn heard(self, now: Time, value: u32) -> Self {
        Self { recent: value, recent_at: now, ..self }
    }

    /// Returns the option for a segment sent now: milliseconds.
    pub(crate) fn option(&self, now: Time) -> (u32, u32) {
        (self.clock(now), self.recent)
    }

    fn clock(&self, now: Time) -> u32 {
        (now.total_millis() as u32).wrapping_add(self.offset)
    }

    /// Returns true if a segment with this value is older than one already accepted.
    pub(crate) fn is_old(&self, now: Time, value: u32) -> bool {
        (value.wrapping_sub(self.recent) as i32) < 0 && since(now, self.recent_at) < OUTDATED
    }

    /// Returns true if this value is newer than every accepted one.
    pub(crate) fn is_new(&self, value: u32) -> bool {
        value.wrapping_sub(self.recent) as i32 > 0
    }

    /// Takes over the value of an accepted segment. The caller passes only segments that do not start after
    /// the last acknowledgement sent.
    pub(crate) fn update(&mut self, now: Time, value: u32) {
        if !self.is_old(now, value) {
            (self.recent, self.recent_at) = (value, now);
        }
    }

    /// Returns the round-trip time of the echoed segment.
    pub(crate) fn round_trip(&self, now: Time, echo: u32) -> Option<Duration> {
        // An echo from the future or from long ago belongs to none of this connection's segments.
        let millis = self.clock(now).wrapping_sub(echo);
        (echo != 0 && millis < 1 << 30).then(|| Duration::from_millis(u64::from(millis.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_told_from_new_ones_across_the_wrap() {
        let start = Time::from_secs(10);
        let mut timestamps = Timestamps::new(7).heard(start, u32::MAX - 1);
        assert!(timestamps.is_old(start, u32::MAX - 2));
        timestamps.update(start, 3);
        assert!(timestamps.is_old(start, u32::MAX));
        assert_eq!(timestamps.option(start).1, 3);
        timestamps.update(start, 2);
        assert_eq!(timestamps.option(start).1, 3);
        assert!(!timestamps.is_old(start + OUTDATED.into(), 2));
    }

    #[test]
    fn an_echo_gives_the_round_trip() {
        let timestamps = Timestamps::new(u32::MAX - 5);
        let (value, _) = timestamps.option(Time::from_millis(1000));
        assert_eq!(timestamps.round_trip(Time::from_millis(1040), value), Some(Duration::from_millis(40)));
        assert_eq!(timestamps.round_trip(Time::from_millis(1040), value.wrapping_add(900)), None);
    }
}
