//! Another node with this node's own identity: reports of peers, and own sightings.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use crate::id::NodeId;
use crate::link::Elsewhere;

impl Endpoint {
    /// Returns where another node with this node's identity was seen, if any.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        self.duplicate.last()
    }

    /// Handles a peer's report of another node with this identity at `remote`.
    pub(super) fn on_elsewhere_reported(&mut self, now: Instant, peer: NodeId, remote: SocketAddr) {
        self.core.counters.own_identity_elsewhere.increment();
        // The peer may be mistaken or lie, so its report does not replace an own sighting.
        if self.duplicate.seen {
            return;
        }
        if self.duplicate.note(remote, now) {
            tracing::warn!(
                %peer,
                "perhaps another node runs with this identity at {remote}: a peer says so. If its state directory is a \
                 copy of this one's, connections reach the one or the other"
            );
        }
        tracing::debug!(%peer, %remote, "where the peer has seen the other node");
    }

    /// Handles a sender at `remote` that claims this node's identity and repeats a nonce sent there.
    pub(super) fn on_elsewhere(&mut self, now: Instant, remote: SocketAddr) {
        self.core.counters.own_identity_elsewhere.increment();
        // The echo proves that the sender receives there, but not that it has the keys. Hellos are not
        // authenticated, so any node that knows the network and hears them can make one.
        self.duplicate.seen = true;
        if self.duplicate.note(remote, now) {
            tracing::warn!(
                "perhaps another node runs with this identity: {remote} says so, which is not proven. If its state \
                 directory is a copy of this one's, connections reach the one or the other"
            );
        }
    }
}
