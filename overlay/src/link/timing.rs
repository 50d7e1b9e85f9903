//! The protocol's times. Both sides count on them, so they are no settings.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::ChaCha20Rng;

/// The wait after the first initiation; it doubles with each further one.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait between initiations.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(5);
/// The same for a peer that has been reached before: connections with it may wait for its path to come back.
pub(crate) const RETRY_LOST: Duration = Duration::from_secs(1);
/// The same while the peer's machine says that nobody listens there: it is known soon whether that is true.
pub(crate) const RETRY_REFUSED: Duration = Duration::from_millis(500);
/// The same for a root while a peer is looked for: what waits for the peer waits for the root first.
pub(crate) const RETRY_HURRIED: Duration = Duration::from_millis(350);
/// For so long after the last look.
pub(crate) const HURRIED_FOR: Duration = Duration::from_secs(2);
/// The driver is told after so long without a response.
pub(crate) const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// An attempt ends when nothing has wanted the peer for so long.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// An attempt that only a hint asked for ends after so long.
pub(crate) const HINT_GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Age at which the initiator of a session in use replaces it; up to [`REKEY_JITTER`] earlier, so that two
/// sides that began at the same time do not go on doing so.
pub(crate) const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Age at which the responder does, less the jitter: only if the initiator did not.
pub(crate) const REKEY_AFTER_RESPONDER: Duration = Duration::from_secs(150);
pub(crate) const REKEY_JITTER: Duration = Duration::from_secs(10);
/// Age at which a session is neither sent nor received on, and its keys are erased.
pub(crate) const REJECT_AFTER: Duration = Duration::from_secs(180);
/// An answered initiation that is not followed by a packet for so long is forgotten: a round trip of 10 s,
/// and some time for what the initiator does.
pub(crate) const UNCONFIRMED_FOR: Duration = Duration::from_secs(12);

/// Data received and nothing sent for so long: a keepalive.
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Data sent and nothing received for so long: the path is dead, or the peer. More than the other side's
/// [`KEEPALIVE_AFTER`] plus a round trip and a lost packet.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(15);

/// A session's age at which it is replaced, drawn from the time before `latest`.
pub(crate) fn rekey_age(latest: Duration, rng: &mut ChaCha20Rng) -> Duration {
    latest - REKEY_JITTER * rng.random_range(0..=100) / 100
}

/// Which of the moments, given in order, is closest to those before and after it; the first and the last
/// stay. Of handshakes that may still be completed, it is the one that is least likely to be: those that are
/// left are spread over the time that an answer may take.
pub(crate) fn closest_to_neighbours(moments: &[Instant]) -> Option<usize> {
    (1..moments.len().saturating_sub(1)).min_by_key(|&at| moments[at + 1] - moments[at - 1])
}
