//! What the log says for people to read: plain text, never Rust's debug form. Addresses and names at debug
//! level at most.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::id::NodeId;
use crate::network::NetworkIndex;
use crate::reach::RecvMeta;

/// Refused messages that are logged: so many at once, and the same number per second. Anybody can send more.
pub(super) const REFUSALS: u32 = 20;

/// After this time it is said again that a node was refused which is no member.
const STRANGERS_EVERY: Duration = Duration::from_secs(600);

impl Endpoint {
    /// Says, unless it was said lately, that a node which holds the key that it names is no member here: its
    /// file of the network may be newer than this one's, and nothing else tells its user.
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
