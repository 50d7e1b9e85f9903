//! Another node with this node's own identity: what its peers say of it, and what it sees itself.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use crate::id::NodeId;
use crate::link::Elsewhere;

impl Endpoint {
    /// Where another node with this node's identity was seen, if one was.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        self.duplicate.last()
    }

    /// A peer says that another node with this node's identity is at `remote`. It may be mistaken or lie, so
    /// it does not replace what this node has seen itself.
    pub(super) fn on_elsewhere_reported(&mut self, now: Instant, peer: NodeId, remote: SocketAddr) {
        self.core.counters.own_identity_elsewhere.increment();
        if self.duplicate.seen {
            return;
        }
        if self.duplicate.note(remote, now) {
            tracing::warn!(
                %peer,
                "perhaps another node runs with this identity: a peer says so. If its state directory is a copy of this \
                 one's, connections reach the one or the other"
            );
        }
        tracing::debug!(%peer, %remote, "where the peer has seen the other node");
    }

    /// Something at `remote` says that it has this node's identity, and repeats what was sent there. That
    /// proves that it is there, and not that it has the keys: hellos are not authenticated, so whoever knows
    /// the network and hears them can say so.
    pub(super) fn on_elsewhere(&mut self, now: Instant, remote: SocketAddr) {
        self.core.counters.own_identity_elsewhere.increment();
        self.duplicate.seen = true;
        if self.duplicate.note(remote, now) {
            tracing::warn!(
                "perhaps another node runs with this identity: {remote} says so, which is not proven. If its state \
                 directory is a copy of this one's, connections reach the one or the other"
            );
        }
    }
}
