//! Streams to roots: which are wanted, and the handling of opened and lost ones.

use std::time::Instant;

use super::Endpoint;
use crate::id::NodeId;
use crate::link::{PeerKey, Reason, Timer, answers_within};
use crate::network::NetworkIndex;
use crate::reach::{Place, SocketIndex, SocketInfo, Why, place_of};
use crate::roots::{Reached, Root, WantedStream};

impl Endpoint {
    /// Returns the roots to which the driver should keep a stream, if they have changed since the last call.
    /// The driver opens new ones, and closes the others. Poll this after every other `&mut self` call.
    pub fn poll_streams(&mut self) -> Option<Vec<WantedStream>> {
        if !std::mem::take(&mut self.roots.streams_changed) {
            return None;
        }
        let wanted = self.roots.list.iter().filter(|(_, root)| root.stream.is_wanted);
        let stream = |(_, root): &(PeerKey, Root)| WantedStream {
            root: root.identity.node_id(),
            identity: root.identity,
            ways: root.stream.ways.clone(),
            socket: root.stream.socket,
        };
        Some(wanted.map(stream).collect())
    }

    /// Reports whether a stream to a root is open. Datagrams to [`WantedStream::socket`] leave by it, and
    /// those that arrive on it have that socket and [its end](SocketIndex::stream_end) as source. Call this
    /// again for a stream that replaces another. `port` is its local port, if the TCP connection leads to the
    /// root itself and not to a proxy, and other connections may leave from the same port.
    pub fn set_stream(&mut self, now: Instant, root: &NodeId, is_open: bool, port: Option<u16>) {
        let found = self.roots.list.iter_mut().find(|(_, known)| known.identity.node_id() == *root);
        let Some((key, root)) = found else { return };
        let (key, socket) = (*key, root.stream.socket);
        root.stream.is_open = is_open;
        root.stream.port = port.filter(|_| is_open);
        root.stream.ask_soon();
        self.core.sockets.retain(|known| known.index != socket);
        if is_open {
            self.core.sockets.push(SocketInfo::of_stream(socket));
        }
        self.configure_root(now, key);
        let Some(peer) = self.peers.get(key) else { return };
        let is_path = |place: Place| place.socket() == socket;
        let was_path = self.nodes[peer.link.node].reach.place().is_some_and(is_path);
        tracing::debug!(root = %peer.link.handle.id(), is_open, "the stream to a root");
        // A handshake shows the root that this node is there, whether the root still knows the session or
        // not.
        if is_open || was_path {
            self.link(now, key, |link, cx| link.attempt(cx, Reason::Traffic));
        }
        if let Some(place) = stream_place(socket).filter(|_| is_open) {
            self.link(now, key, |link, cx| link.try_at(cx, &place));
        }
        self.update_relay(now, key);
        self.core.contact.set_seen_by_tcp(self.seen_by_tcp(now));
        self.core.timers.set(Timer::Root(key), now);
    }

    /// Configures the root's addresses, and the end of its stream if there is one, as candidates.
    pub(super) fn configure_root(&mut self, now: Instant, key: PeerKey) {
        let (Some(root), Some(peer)) = (self.roots.get(key), self.peers.get(key)) else { return };
        // At most eight count, so the end of the stream, which leads to this very root, goes first.
        let end = root.stream.socket.stream_end().filter(|_| root.stream.is_open);
        let remotes: Vec<_> = end.into_iter().chain(root.stream.endpoints.iter().copied()).collect();
        let node = peer.link.node;
        for remote in self.nodes[node].reach.set_configured(NetworkIndex::ROOTS, &remotes) {
            if let Some(place) = place_of(&self.core.sockets, None, remote) {
                self.link(now, key, |link, cx| link.try_at(cx, &place));
            }
        }
    }

    /// Performs the due step of the stream to a root, and returns when to check again.
    pub(super) fn step_stream(&mut self, now: Instant, key: PeerKey) -> Option<Instant> {
        let link = &self.peers.get(key)?.link;
        let place = link.handle.path().map(|path| path.place).filter(|_| link.current().is_some());
        let heard = link.handle.activity().last_received();
        let rtt = self.nodes[link.node].reach.rtt();
        let root = self.roots.get_mut(key)?;
        let is_vouched =
            root.registering.standing(now).is_some_and(|answer| answer.voucher.address.port() != 0);
        let reached = match (place, root.asked) {
            (Some(place), _) if place.socket() == root.stream.socket && root.stream.is_open => {
                Reached::Stream
            }
            (Some(place), None) if !place.socket().is_stream() => Reached::Udp { heard, is_vouched },
            (_, asked) => {
                let answers_within = rtt.map(answers_within);
                Reached::Not { since: asked.map_or(now, |(since, _)| since), answers_within }
            }
        };
        let before = root.stream.is_wanted;
        let step = root.stream.step(reached, now);
        let changed = before != root.stream.is_wanted;
        self.roots.streams_changed |= changed;
        if let Some(place) = step.ask.and_then(|remote| place_of(&self.core.sockets, None, remote)) {
            // The answer makes this place the path.
            self.link(now, key, |link, cx| link.challenge(cx, place, Why::Move));
        }
        step.next
    }

    /// Tries UDP again for roots that are reached by a stream, because the network has changed.
    pub(super) fn ask_roots_by_udp(&mut self) {
        self.roots.list.iter_mut().for_each(|(_, root)| root.stream.ask_soon());
    }
}

/// Returns the place of the root that a stream leads to.
fn stream_place(socket: SocketIndex) -> Option<Place> {
    Some(Place::Direct { socket, remote: socket.stream_end()? })
}
