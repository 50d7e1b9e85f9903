//! Times of day by this machine's clock and time zone, for people.

use std::mem::MaybeUninit;
use std::time::Duration;

use peersock::overlay::membership::UnixTime;

use super::super::duration;

const DAY: Duration = Duration::from_secs(86_400);

/// Returns words for a time to come: `until 14:03 tomorrow (1d 9m)`, or `for 1d 9m` if the system has no
/// words for it.
pub(in crate::managed) fn until(at: UnixTime, now: UnixTime) -> String {
    let left = duration::shown(at.since(now));
    shown(at, now).map_or_else(|| format!("for {left}"), |at| format!("until {at} ({left})"))
}

/// Returns a time as people say it: `14:03`, `14:03 tomorrow` or `14:03 on 2026-12-05`; `None` for a time
/// that the system has no words for.
pub(in crate::managed) fn shown(at: UnixTime, now: UnixTime) -> Option<String> {
    Some(said(&Moment::of(at)?, &Moment::of(now)?, &Moment::of(now.plus(DAY))?))
}

/// Minute of a day.
struct Moment {
    /// Year, month and day, both from 1 on.
    date: (i32, i32, i32),
    hour: i32,
    minute: i32,
}

impl Moment {
    #[allow(unsafe_code)]
    fn of(at: UnixTime) -> Option<Moment> {
        let seconds = libc::time_t::try_from(at.as_millis() / 1000).ok()?;
        let mut parts = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers are valid for the call, which reads the first and writes to the second. No
        // other thread of this command changes the environment, from which the time zone is read.
        let done = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
        // SAFETY: the structure is plain numbers and a pointer, for which zeros are valid, too.
        let parts = unsafe { parts.assume_init() };
        (!done.is_null()).then_some(Moment {
            date: (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday),
            hour: parts.tm_hour,
            minute: parts.tm_min,
        })
    }
}

fn said(at: &Moment, today: &Moment, tomorrow: &Moment) -> String {
    let time = format!("{:02}:{:02}", at.hour, at.minute);
    let (year, month, day) = at.date;
    match at.date {
        date if date == today.date => time,
        date if date == tomorrow.date => format!("{time} tomorrow"),
        _ => format!("{time} on {year:04}-{month:02}-{day:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_day_unless_that_is_today() {
        let moment = |day, hour| Moment { date: (2026, 11, day), hour, minute: 3 };
        let of = |at: Moment| said(&at, &moment(28, 15), &moment(29, 15));
        assert_eq!(of(moment(28, 23)), "23:03");
        assert_eq!(of(moment(29, 4)), "04:03 tomorrow");
        assert_eq!(of(moment(30, 14)), "14:03 on 2026-11-30");
    }

    #[test]
    fn the_system_knows_its_time_zone() {
        let now = super::super::super::now();
        let (near, far) = (shown(now, now), shown(now.plus(3 * DAY), now));
        assert_eq!(near.map(|text| text.len()), Some("14:03".len()));
        assert!(far.is_some_and(|text| text.contains(" on 2")));
    }
}
