//! Questions to nodes of the DHT for the address at which they see a socket.

use std::net::SocketAddr;

use peersock_dht::PingAnswer;
pub(in crate::node) use peersock_dht::ping_question;

/// Returns the number of the question that a datagram answers, and the address at which the node sees the
/// socket.
pub(in crate::node) fn ping_answer(datagram: &[u8]) -> Option<([u8; 4], SocketAddr)> {
    PingAnswer::parse(datagram).map(|answer| (answer.transaction, answer.seen.into()))
}
