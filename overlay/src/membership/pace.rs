//! Times at which members ask their controllers for credentials.
//!
//! A member renews its certificate long before the end, at a random time, so that controllers have an even
//! load. While no controller answers, it asks again: soon at first, because a controller that restarts is
//! soon back, and then more and more rarely. The pauses are random, too, since many members ask again when a
//! controller comes back.
//!
//! Each draw is a random number from 0 to 1. A simulation of many members can use these functions alone.

use std::time::Duration;

/// Longest age at which a certificate of a day is renewed.
pub const RENEW_BY: Duration = Duration::from_secs(2400);

/// Longest pause between two questions.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1200);

/// Interval at which a node without a session with a controller tries to get one.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Time in which questions are repeated fast.
pub(crate) const FAST: Duration = Duration::from_secs(30);

/// Longest pause between two repetitions of a fast question, of which a random part is waited.
pub(crate) const FAST_PAUSE: Duration = Duration::from_secs(3);

/// First pause, when nothing may be wrong.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Mean pause after that, at least.
const SLOW_PAUSE: Duration = Duration::from_secs(30);

/// Shortest time that a member lets a controller say until the next question.
const RENEW_AFTER_LEAST: Duration = Duration::from_secs(1);

/// Returns the time from a certificate to its renewal. `renew_by` is what the controller has said. It counts
/// from 1 s to [`RENEW_BY`], because a thief of an issuer's key can say anything.
pub fn renewal(renew_by: Duration, draw: f64) -> Duration {
    let renew_by = renew_by.clamp(RENEW_AFTER_LEAST, RENEW_BY);
    renew_by / 2 + (renew_by / 2).mul_f64(draw)
}

/// Returns the time from a start of the node to the renewal of a certificate of this age and lifetime.
pub fn first_renewal(age: Duration, lifetime: Duration, draw: f64) -> Duration {
    RENEW_BY.min(lifetime / 3).saturating_sub(age).mul_f64(draw)
}

/// Returns the pause after a question. `waited` is the time since the first one, and `is_asked` is true if a
/// controller that has a session was asked, now or before.
pub fn pause(waited: Duration, is_asked: bool, draw: f64) -> Duration {
    if waited < FAST {
        return if is_asked { FIRST_PAUSE / 2 + FAST_PAUSE.mul_f64(draw) } else { FIRST_PAUSE };
    }
    // As long as the wait so far on average, so that members that failed together come back apart.
    (2 * waited.max(SLOW_PAUSE)).min(LONGEST_PAUSE).mul_f64(draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_controller_says_a_time_of_renewal_that_is_out_of_bounds() {
        assert_eq!(renewal(Duration::from_secs(u32::MAX.into()), 1.0), RENEW_BY);
        assert_eq!(renewal(Duration::from_secs(200), 0.0), Duration::from_secs(100));
        assert_eq!(renewal(Duration::ZERO, 0.0), RENEW_AFTER_LEAST / 2);
    }

    #[test]
    fn pauses_grow_to_their_bound_and_are_never_long_at_first() {
        assert_eq!(pause(Duration::ZERO, false, 0.9), FIRST_PAUSE);
        assert!(pause(FAST / 2, true, 1.0) < 2 * FAST_PAUSE);
        assert_eq!(pause(FAST, false, 1.0), 2 * SLOW_PAUSE);
        assert_eq!(pause(Duration::from_secs(86_400), true, 1.0), LONGEST_PAUSE);
    }
}
