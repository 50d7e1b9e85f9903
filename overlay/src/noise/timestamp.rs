use std::fmt;
use std::time::Duration;

/// Number of seconds of TAI at the Unix epoch, plus the 2^62 of a TAI64 label.
const TAI64_EPOCH: u64 = (1 << 62) + 10;
const LAST_NANO: u32 = 999_999_999;

/// Time as a TAI64N label, 12 bytes, which makes an initiation newer than the one before.
///
/// Only the order matters; the responder does not compare it with its own clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp([u8; 12]);

impl Timestamp {
    /// Returns the label of a time since the Unix epoch.
    pub fn from_unix(time: Duration) -> Self {
        Self::new(TAI64_EPOCH.saturating_add(time.as_secs()), time.subsec_nanos())
    }

    /// Returns the label of a time since the Unix epoch, or the next after `last` if the clock has not
    /// advanced since.
    pub fn after(time: Duration, last: Option<Self>) -> Self {
        let now = Self::from_unix(time);
        // Responders refuse a timestamp that is not newer, also where the clock was set back or has a coarse
        // step.
        last.map_or(now, |last| now.max(last.next()))
    }

    /// Takes the 12 bytes of a message. Any bytes have an order, even if they are no proper label.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// Returns the 12 bytes: seconds, then nanoseconds, both big-endian.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    fn new(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    fn next(self) -> Self {
        let seconds = u64::from_be_bytes(self.0[..8].try_into().expect("8 of 12 bytes"));
        let nanos = u32::from_be_bytes(self.0[8..].try_into().expect("4 of 12 bytes"));
        match nanos {
            0..LAST_NANO => Self::new(seconds, nanos + 1),
            // Labels of other nodes may hold any bytes, and the very last has no successor.
            _ => seconds.checked_add(1).map_or(self, |seconds| Self::new(seconds, 0)),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({:02x?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_time() {
        let times = [0, 1, 999_999_999, 1_000_000_000, 1_000_000_001, u64::MAX];
        let labels: Vec<_> = times.map(|n| Timestamp::from_unix(Duration::from_nanos(n))).into();
        assert!(labels.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn label_is_tai64n() {
        // https://cr.yp.to/libtai/tai64.html: 1992-06-02 08:07:09 is 400000002a2b2c2d, 8 leap seconds then.
        let label = Timestamp::from_unix(Duration::from_secs(0x2a2b_2c2d - 10));
        assert_eq!(label.as_bytes()[..8], 0x4000_0000_2a2b_2c2d_u64.to_be_bytes());
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_still_gives_newer_labels() {
        let mut last = Timestamp::from_unix(Duration::new(5, 999_999_998));
        for time in [Duration::new(5, 999_999_998), Duration::new(5, 0), Duration::ZERO] {
            let next = Timestamp::after(time, Some(last));
            assert!(next > last);
            last = next;
        }
        assert_eq!(last, Timestamp::from_unix(Duration::new(6, 1)));
    }

    #[test]
    fn any_label_but_the_last_has_a_next() {
        for nanos in [LAST_NANO, LAST_NANO + 1, u32::MAX] {
            let label = Timestamp::new(1 << 63, nanos);
            assert_eq!(Timestamp::after(Duration::ZERO, Some(label)), Timestamp::new((1 << 63) + 1, 0));
        }
        let last = Timestamp::from_bytes([0xff; 12]);
        assert_eq!(Timestamp::after(Duration::ZERO, Some(last)), last);
    }
}
