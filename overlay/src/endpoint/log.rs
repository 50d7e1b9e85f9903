//! What the log says for people to read: plain text, never Rust's debug form. Addresses and names at debug
//! level at most.

use std::time::Instant;

use super::Endpoint;
use crate::reach::RecvMeta;

/// Refused messages that are logged: so many at once, and the same number per second. Anybody can send more.
pub(super) const REFUSALS: u32 = 20;

impl Endpoint {
    /// Says why somebody's message was dropped, unless that was said very often in the last second.
    pub(super) fn log_refusal(&mut self, now: Instant, meta: &RecvMeta, message: &str, why: &str) {
        self.tries_to_log_refusal(now, meta, message, why);
    }

    /// The same. False if it was not said because others were.
    pub(super) fn tries_to_log_refusal(
        &mut self,
        now: Instant,
        meta: &RecvMeta,
        message: &str,
        why: &str,
    ) -> bool {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return true;
        }
        let may_say = self.refusals_logged.take(now);
        if may_say {
            tracing::debug!(from = %meta.remote, "{message} refused: {why}");
        }
        may_say
    }
}
