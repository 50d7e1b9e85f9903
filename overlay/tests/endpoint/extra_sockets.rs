//! Extra sockets of the nodes in these tests: each has the node's address and a separate port.

use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::{RecvMeta, SocketIndex, SocketInfo};

use crate::net::{Node, Sent, lan_socket};

/// First port of the extra sockets.
const PORTS: u16 = 40_000;

/// Opens and closes the extra sockets that a node wants, as a driver would.
pub(crate) fn keep(node: &mut Node, now: Instant) {
    let Some(wanted) = node.endpoint.poll_extra_sockets() else { return };
    node.extra = wanted.iter().map(|one| one.index).take(node.most_extra).collect();
    let info = |index: &SocketIndex| SocketInfo { index: *index, beacon_targets: Vec::new(), ..lan_socket() };
    let open = node.extra.iter().map(info).collect();
    node.endpoint.set_extra_sockets(now, open);
}

/// Returns the source address of packets from a socket.
pub(crate) fn address(node: &Node, socket: SocketIndex) -> SocketAddr {
    match node.extra.iter().position(|index| *index == socket) {
        Some(_) => SocketAddr::new(node.socket.ip(), port(socket)),
        None => node.socket,
    }
}

/// Returns the node whose extra socket is the datagram's destination.
pub(crate) fn arrive(nodes: &[Node], sent: &Sent) -> Option<(usize, RecvMeta)> {
    let index = nodes.iter().position(|node| node.up && node.socket.ip() == sent.to.ip())?;
    let socket = nodes[index].extra.iter().copied().find(|socket| port(*socket) == sent.to.port())?;
    Some((index, RecvMeta { remote: sent.from, socket, multicast: false, relay: None }))
}

/// Returns the socket's port. Two sockets that are open at one time differ in these bits.
fn port(socket: SocketIndex) -> u16 {
    PORTS + socket.0 % 0x1000
}
