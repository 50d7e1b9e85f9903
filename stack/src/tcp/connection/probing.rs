//! Schedule of keep-alives (RFC 9293 3.8.4).

use std::num::NonZeroU64;
use std::time::Duration;

use crate::KeepAlive;
use crate::host::clock::{Time, after};

/// Divisor of the user timeout that gives the interval of probes to a peer without room, because a single
/// probe may be lost.
const PART: u32 = 3;

/// Schedule from [`KeepAlive`] in compact form: the silence before the first probe in microseconds (`None`
/// for no probes), and the intervals between probes in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probing {
    idle: Option<NonZeroU64>,
    interval: u32,
    interval_without_room: u32,
}

impl Probing {
    pub(crate) fn new(keepalive: KeepAlive, user_timeout: Option<Duration>) -> Self {
        let KeepAlive { on, idle, interval, .. } = keepalive;
        let micros = u64::try_from(idle.as_micros()).unwrap_or(u64::MAX);
        let millis = |time: Duration| {
            let millis = time.as_micros().div_ceil(1000);
            u32::try_from(millis).unwrap_or(u32::MAX).max(1)
        };
        let interval = millis(interval);
        let part = user_timeout.map_or(u32::MAX, |timeout| millis(timeout / PART));
        Self {
            idle: on.then(|| NonZeroU64::new(micros).unwrap_or(NonZeroU64::MIN)),
            interval,
            interval_without_room: interval.min(part),
        }
    }

    /// Returns the time of the next probe, given the times of the last segment and of the last probe.
    pub(crate) fn after(self, heard: Time, probed: Time, has_room: bool) -> Option<Time> {
        let idle = self.idle?;
        if probed <= heard {
            return Some(after(heard, Duration::from_micros(idle.get())));
        }
        let interval = if has_room { self.interval } else { self.interval_without_room };
        Some(after(probed, Duration::from_millis(interval.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_probe_waits_longer_than_others() {
        let at = Time::from_secs;
        let keepalive = KeepAlive { on: true, ..KeepAlive::default() };
        let probing = Probing::new(keepalive, Some(Duration::from_secs(30)));
        assert_eq!(probing.after(at(10), at(5), true), Some(at(7210)));
        assert_eq!(probing.after(at(10), at(7210), true), Some(at(7285)));
        assert_eq!(probing.after(at(10), at(7210), false), Some(at(7220)));
        assert_eq!(Probing::new(keepalive, None).after(at(10), at(7210), false), Some(at(7285)));
        assert_eq!(Probing::new(KeepAlive::default(), None).after(at(10), at(5), true), None);
        let never = KeepAlive { idle: Duration::MAX, ..keepalive };
        let never = Probing::new(never, None).after(at(10), at(5), true);
        assert!(never.is_some_and(|time| time > at(1_000_000_000)));
        assert_eq!(size_of::<Probing>(), 16);
    }
}
