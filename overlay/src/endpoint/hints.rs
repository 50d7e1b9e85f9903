//! Unauthenticated messages that may still be true: a peer does not know a session, or its port refuses
//! packets. They end nothing; a handshake shows the truth.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use super::peers::PeerState;
use crate::link::{Link, QUOTED};
use crate::reach::{PlaceKey, RecvMeta};
use crate::wire::UnknownSession;

impl Endpoint {
    /// Handles the system's report that no program listens at `remote` (ICMP port unreachable, ECONNREFUSED).
    /// A datagram from one of the driver's sockets was refused, and `quoted` is its beginning, as far as the
    /// error repeats it.
    ///
    /// Ends nothing by itself. A peer that is refused repeatedly for 1.5 s and itself silent is reported by
    /// [`Event::PeerGone`](crate::Event::PeerGone). On a local network that takes 1 s, on this machine 0.6 s,
    /// and 20 s where a NAT box or firewall may be refusing for the peer.
    pub fn handle_refusal(&mut self, now: Instant, remote: SocketAddr, quoted: &[u8]) {
        // An address without a peer must not use up the budget of addresses with peers.
        let place = PlaceKey::direct(remote);
        let peers = self.nodes.peers_at(&place);
        if peers.is_empty() || !self.hints.refusals.take(remote.ip(), now) {
            return;
        }
        let find = |condition: &dyn Fn(&PeerState) -> bool| {
            let meets = |peer: &PeerState| peer.link.is_at(&place) && condition(peer);
            peers.iter().copied().find(|key| self.peers.get(*key).is_some_and(meets))
        };
        if let Some(key) = find(&|peer| peer.link.has_sent_quoted(quoted)) {
            self.core.counters.refusals.increment();
            self.link(now, key, Link::on_refused);
            return;
        }
        // Some routers quote less. An attacker can guess that much, so it is worth only an occasional
        // handshake.
        let hinted = quoted.len() < QUOTED;
        if let Some(key) = find(&|_| hinted) {
            self.link(now, key, Link::heed_hint);
        }
    }

    /// Answers data of an unknown session, probably one from before a restart of this node.
    pub(super) fn on_unknown_data(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.core.counters.data_unknown_session.increment();
        let mut answer = Vec::new();
        // Never longer than the packet, and limited, because the packet's source may be forged.
        if UnknownSession::answer(datagram, &mut answer)
            && self.hints.unknown_sent.take(meta.remote.ip(), now)
        {
            self.core.counters.unknown_session_sent.increment();
            tracing::debug!(
                from = %meta.remote,
                "a packet of a session that this node does not know: its sender is told"
            );
            self.core.transmit(&meta.place(), answer);
        }
    }

    /// Handles a peer's report that it does not know our session.
    pub(super) fn on_unknown_session(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(hint) = UnknownSession::parse(datagram) else {
            self.core.counters.unknown_message.increment();
            return;
        };
        // Anyone can forge this report, so it changes nothing, but a handshake shows whether it is true.
        self.core.counters.unknown_session_received.increment();
        let place = meta.place().key();
        let peers = self.nodes.peers_at(&place);
        if peers.is_empty() || !self.hints.unknown_heard.take(meta.remote.ip(), now) {
            return;
        }
        // The report must come from the path, and name a session and a packet number that we used.
        let found = peers.into_iter().find_map(|key| {
            let peer = self.peers.get(key)?;
            (peer.link.is_at(&place) && peer.link.has_sent(&hint)).then_some((key, peer))
        });
        let Some((key, peer)) = found else { return };
        tracing::debug!(
            peer = %peer.link.handle.id(), from = %meta.remote, "the peer does not know our session"
        );
        self.link(now, key, Link::heed_hint);
    }
}
