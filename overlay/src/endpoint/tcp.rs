//! TCP connections to other nodes: what the driver is to do, and what follows when it has opened or lost one.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use crate::contact::{Opened, TcpAction};
use crate::link::{Link, NodeKey, Timer};
use crate::reach::{SocketIndex, SocketInfo};

impl Endpoint {
    /// What the driver has to do next about TCP connections to other nodes. To be called until it returns
    /// `None` after every other call that takes `&mut self`. There is nothing to do but where
    /// [`EndpointConfig::tcp_punch`](crate::EndpointConfig::tcp_punch) says so.
    pub fn poll_tcp(&mut self) -> Option<TcpAction> {
        self.core.tcp.poll()
    }

    /// There is a TCP connection to another node, whose other end is at `remote`: one that was begun for the
    /// [`TcpPunch`](crate::TcpPunch) with that id, or that somebody else has begun if there is no id.
    /// Datagrams to `socket`, a number that no other open connection has ([`SocketIndex::peer_stream`]),
    /// leave by it, and those that come in by it have that socket and [its end](SocketIndex::stream_end) as
    /// source. False if there are too many: then it is to be closed, and this endpoint knows nothing of it.
    pub fn tcp_opened(
        &mut self,
        now: Instant,
        id: Option<u32>,
        socket: SocketIndex,
        remote: SocketAddr,
    ) -> bool {
        let opened = self.core.tcp.opened(id, socket, remote, now);
        if opened == Opened::Refused {
            self.core.counters.tcp_streams_refused.increment();
            return false;
        }
        self.core.counters.tcp_streams_opened.increment();
        self.core.sockets.push(SocketInfo::of_stream(socket));
        if let Opened::To(node) = opened
            && let Some(key) = self.carrier(node)
        {
            self.link(now, key, |link, cx| link.ask_on_stream(cx, socket));
        }
        self.watch_streams(now);
        true
    }

    /// A TCP connection to another node has ended. Not to be called for one that was to be closed by
    /// [`TcpAction::Close`].
    pub fn tcp_closed(&mut self, now: Instant, socket: SocketIndex) {
        self.core.tcp.closed(socket);
        self.forget_stream(now, socket);
    }

    /// Has those TCP connections closed that nobody needs.
    pub(super) fn close_unused_streams(&mut self, now: Instant) {
        let path = |node: NodeKey| self.nodes[node].reach.place().map(|place| place.socket());
        let paths = self.nodes.keys().into_iter().filter_map(|node| Some((path(node)?, node)));
        let paths: Vec<_> = paths
            .filter(|(socket, _)| socket.is_peer_stream())
            .map(|(socket, node)| (socket, self.carrier(node).is_some()))
            .collect();
        for socket in self.core.tcp.close_unused(&paths, now) {
            self.forget_stream(now, socket);
        }
        self.watch_streams(now);
    }

    fn watch_streams(&mut self, now: Instant) {
        if let Some(at) = self.core.tcp.next_look(now) {
            self.core.timers.set_earlier(Timer::TcpStreams, at);
        }
    }

    /// Nodes that were reached by a connection are looked for elsewhere.
    fn forget_stream(&mut self, now: Instant, socket: SocketIndex) {
        self.core.sockets.retain(|known| known.index != socket);
        for node in self.nodes.keys() {
            let is_path = self.nodes[node].reach.place().is_some_and(|place| place.socket() == socket);
            self.nodes[node].reach.forget_stream(socket);
            if is_path && let Some(key) = self.carrier(node) {
                self.link(now, key, Link::on_stream_lost);
            }
        }
    }
}
