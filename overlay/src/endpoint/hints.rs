//! What nobody authenticated and may be true all the same: that a peer does not know a session, or that
//! nobody listens where it was. Both end nothing; a handshake shows how things are.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use super::peers::PeerState;
use crate::link::{Link, QUOTED};
use crate::reach::{PlaceKey, RecvMeta};
use crate::wire::UnknownSession;

impl Endpoint {
    /// The system says that nobody listens at `remote` (ICMP port unreachable, ECONNREFUSED): a datagram from
    /// one of the driver's sockets was refused, of which `quoted` is the beginning, as far as the error
    /// repeats it.
    ///
    /// Ends nothing by itself. A peer that is refused again and again for 1.5 s and says nothing itself is
    /// reported by [`Event::PeerGone`](crate::Event::PeerGone). On a local network it takes 1 s, on this
    /// machine 0.6 s, and 20 s where a NAT box or firewall may speak for the peer.
    pub fn handle_refusal(&mut self, now: Instant, remote: SocketAddr, quoted: &[u8]) {
        // Who names an address at which nobody is uses up nothing of what others may say.
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
        // Some routers quote less. That much can be guessed, so it is worth a handshake now and then, and no
        // more.
        let hinted = quoted.len() < QUOTED;
        if let Some(key) = find(&|_| hinted) {
            self.link(now, key, Link::heed_hint);
        }
    }

    /// Data of a session that we do not have, probably because we were restarted: tells its sender.
    pub(super) fn on_unknown_data(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.core.counters.data_unknown_session.increment();
        let mut answer = Vec::new();
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

    /// A peer says that it does not know our session. Anyone can say that, so it changes nothing; but a
    /// handshake shows whether it is true.
    pub(super) fn on_unknown_session(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        let Ok(hint) = UnknownSession::parse(datagram) else {
            self.core.counters.unknown_message.increment();
            return;
        };
        self.core.counters.unknown_session_received.increment();
        let place = meta.place().key();
        let peers = self.nodes.peers_at(&place);
        if peers.is_empty() || !self.hints.unknown_heard.take(meta.remote.ip(), now) {
            return;
        }
        // It must come from where we send to, and name a session and a packet number that we used.
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
