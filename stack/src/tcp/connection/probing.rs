//! When keep-alives leave (RFC 9293 3.8.4).

use std::num::NonZeroU64;
use std::time::Duration;

use crate::KeepAlive;
use crate::host::clock::{Time, after};

/// What a connection has to know of [`KeepAlive`], as small as can be: the silence before the first probe and
/// the time between two, microseconds. `None`: there are none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probing(Option<(NonZeroU64, NonZeroU64)>);

impl From<KeepAlive> for Probing {
    fn from(KeepAlive { on, idle, interval, .. }: KeepAlive) -> Self {
        let micros = |time: Duration| {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            NonZeroU64::new(micros).unwrap_or(NonZeroU64::MIN)
        };
        Self(on.then(|| (micros(idle), micros(interval))))
    }
}

impl Probing {
    /// When the next probe is due: the peer was heard at one time, and last probed at another.
    pub(crate) fn after(self, heard: Time, probed: Time) -> Option<Time> {
        let (idle, interval) = self.0?;
        let (since, delay) = if probed > heard { (probed, interval) } else { (heard, idle) };
        Some(after(since, Duration::from_micros(delay.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_probe_waits_longer_than_others() {
        let at = Time::from_secs;
        let keepalive = KeepAlive { on: true, ..KeepAlive::default() };
        assert_eq!(Probing::from(keepalive).after(at(10), at(5)), Some(at(7210)));
        assert_eq!(Probing::from(keepalive).after(at(10), at(7210)), Some(at(7285)));
        assert_eq!(Probing::from(KeepAlive::default()).after(at(10), at(5)), None);
        let never = KeepAlive { idle: Duration::MAX, ..keepalive };
        assert!(Probing::from(never).after(at(10), at(5)).is_some_and(|time| time > at(1_000_000_000)));
        assert_eq!(size_of::<Probing>(), 16);
    }
}
