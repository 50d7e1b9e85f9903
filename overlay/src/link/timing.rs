//! Times of the protocol. Both sides rely on them, so they are not settings.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::ChaCha20Rng;

/// Wait after the first initiation; it doubles with each further one.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(250);
/// Maximum wait between initiations.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(5);
/// The same for a peer that was reached before: its connections may be waiting for the path to come back.
pub(crate) const RETRY_LOST: Duration = Duration::from_secs(1);
/// The same while the peer's machine refuses packets at its port: a fast repetition soon shows whether that
/// is true.
pub(crate) const RETRY_REFUSED: Duration = Duration::from_millis(500);
/// The same for a root while a peer is looked up, because the look-up waits for the root first.
pub(crate) const RETRY_HURRIED: Duration = Duration::from_millis(350);
/// Time after the last look-up for which [`RETRY_HURRIED`] applies.
pub(crate) const HURRIED_FOR: Duration = Duration::from_secs(2);
/// Time without a response after which the driver is told.
pub(crate) const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// Time without demand for the peer after which an attempt ends.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// Time after which an attempt ends that only a hint asked for.
pub(crate) const HINT_GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Age at which the initiator replaces a session in use, less up to [`REKEY_JITTER`].
// The jitter keeps two sides that began at the same time from doing so again and again.
pub(crate) const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Age at which the responder does so, less the jitter: only if the initiator did not.
pub(crate) const REKEY_AFTER_RESPONDER: Duration = Duration::from_secs(150);
pub(crate) const REKEY_JITTER: Duration = Duration::from_secs(10);
/// Age at which a session neither sends nor receives, and its keys are erased.
pub(crate) const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Time without a packet after which an answered initiation is forgotten: a round trip of 10 s, plus a margin
/// for the initiator.
pub(crate) const UNCONFIRMED_FOR: Duration = Duration::from_secs(12);

/// Time of receiving without sending after which a keepalive is due.
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Time of sending without receiving after which the path or the peer is dead. More than the other side's
/// [`KEEPALIVE_AFTER`] plus a round trip and a lost packet.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(15);

/// Draws the age at which a session is replaced, from the time before `latest`.
pub(crate) fn rekey_age(latest: Duration, rng: &mut ChaCha20Rng) -> Duration {
    latest - REKEY_JITTER * rng.random_range(0..=100) / 100
}

/// Returns the index of the moment that is closest to its neighbours; the first and the last never qualify.
/// `moments` is in order. Among handshakes that may still complete, that one is the least likely to: the rest
/// stay spread over the time that an answer may take.
pub(crate) fn closest_to_neighbours(moments: &[Instant]) -> Option<usize> {
    (1..moments.len().saturating_sub(1)).min_by_key(|&at| moments[at + 1] - moments[at - 1])
}
