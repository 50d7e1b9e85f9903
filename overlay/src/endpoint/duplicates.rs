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
                "a peer says that another node runs with this identity, and that connections reach the one or the other: \
                 is one's state directory a copy of the other's?"
            );
        }
        tracing::debug!(%peer, %remote, "where the peer has seen the other node");
    }

    /// Another node with this node's identity was seen at `remote`.
    pub(super) fn on_elsewhere(&mut self, now: Instant, remote: SocketAddr) {
        self.core.counters.own_identity_elsewhere.increment();
        self.duplicate.seen = true;
        if self.duplicate.note(remote, now) {
            tracing::warn!(
                "another node runs with this identity (from {remote}), and connections reach the one or the other: \
                 is one's state directory a copy of the other's?"
            );
        }
    }
}
