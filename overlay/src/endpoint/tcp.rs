//! TCP connections to other nodes: the driver's tasks, and the handling of opened and lost connections.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use crate::contact::{Opened, TcpAction};
use crate::link::{Link, NodeKey, Timer};
use crate::reach::{SocketIndex, SocketInfo};

impl Endpoint {
    /// Returns the driver's next task about TCP connections to other nodes. Poll this until it returns
    /// `None`, after every other `&mut self` call. There are tasks only if
    /// [`EndpointConfig::tcp_punch`](crate::EndpointConfig::tcp_punch) is set.
    pub fn poll_tcp(&mut self) -> Option<TcpAction> {
        self.core.tcp.poll()
    }

    /// Reports a TCP connection to another node, whose other end is at `remote`. `id` names the
    /// [`TcpPunch`](crate::TcpPunch) it was made for; `None` means that the other side has connected.
    /// `socket` is a number that no other open connection has ([`SocketIndex::peer_stream`]). Datagrams to it
    /// leave by the connection, and those that arrive have that socket and [its end](SocketIndex::stream_end)
    /// as source. Returns false if there are too many connections: then the driver closes this one, and the
    /// endpoint does not know it.
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
        // Strangers' connections too: an initiation that arrives on one must be answered on it.
        self.core.sockets.push(SocketInfo::of_stream(socket));
        if let Opened::To(node) = opened
            && let Some(key) = self.carrier(node)
        {
            self.link(now, key, |link, cx| link.ask_on_stream(cx, socket));
        }
        self.watch_streams(now);
        true
    }

    /// Reports the end of a TCP connection to another node. Not for one that [`TcpAction::Close`] has closed.
    pub fn tcp_closed(&mut self, now: Instant, socket: SocketIndex) {
        self.core.tcp.closed(socket);
        self.forget_stream(now, socket);
    }

    /// Closes the TCP connections that are no longer needed.
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

    /// Looks elsewhere for nodes that were reached by this connection.
    fn forget_stream(&mut self, now: Instant, socket: SocketIndex) {
        self.core.sockets.retain(|known| known.index != socket);
        for node in self.nodes.keys() {
            let is_path = self.nodes[node].reach.place().is_some_and(|place| place.socket() == socket);
            self.nodes[node].reach.forget_stream(socket);
            // One link for all networks of the node, because they share the path.
            if is_path && let Some(key) = self.carrier(node) {
                self.link(now, key, Link::on_stream_lost);
            }
        }
    }
}
