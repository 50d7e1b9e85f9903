//! Log texts for people: plain text, never Rust's debug form. Addresses and names appear at debug level at
//! most.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::id::NodeId;
use crate::network::NetworkIndex;
use crate::reach::RecvMeta;

/// Number of refused messages logged at once, and per second.
// Anyone can send more.
pub(super) const REFUSALS: u32 = 20;

/// Interval of the warning that a non-member was refused.
const STRANGERS_EVERY: Duration = Duration::from_secs(600);

impl Endpoint {
    /// Warns, unless that was done lately, that a node with a proven key is no member here. Its network file
    /// may be newer than this node's, and no other message tells the user.
    pub(super) fn tell_of_stranger(&mut self, now: Instant, network: NetworkIndex, node: &NodeId) {
        let Some(joined) = self.networks.get(&network).filter(|joined| !joined.policy.admits(node)) else {
            return;
        };
        if self.stranger_told.is_some_and(|last| now.saturating_duration_since(last) < STRANGERS_EVERY) {
            return;
        }
        tracing::warn!(
            network = %joined.id,
            "a node was refused that is no member of the network: if it should be one, this node needs the \
             network file that names it"
        );
        self.stranger_told = Some(now);
    }

    /// Logs the reason for dropping a message, within the rate limit.
    pub(super) fn log_refusal(&mut self, now: Instant, meta: &RecvMeta, message: &str, why: &str) {
        self.tries_to_log_refusal(now, meta, message, why);
    }

    /// Like [`Self::log_refusal`], but returns false if the rate limit suppressed the text.
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
