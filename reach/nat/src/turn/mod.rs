//! A client of TURN servers (RFC 8656): an address on a server that relays to this node.
//!
//! A [`Client`] has one *allocation*: the server opens a UDP port for it, the *relayed address*. It forwards
//! datagrams that arrive there from peers that the client has named before. The client is sans-IO. Inputs are
//! datagrams from the server, data for peers, and the time; outputs are datagrams for the server, data of
//! peers, and events. Its owner has a socket that talks to the server only, and starts again with another
//! socket when the allocation has ended.
//!
//! * **Allocation** (RFC 8656, 7): the first request has no credentials; the server's refusal contains the
//!   realm and the nonce for the second one. The client refreshes it at three quarters of its lifetime.
//! * **Permissions** (9): one for each destination IP address, requested with the first datagram, which waits
//!   for it. The client renews permissions in use; after five minutes without use it forgets them.
//! * **Channels** (12): a peer that answers and receives datagrams often gets one. A datagram then costs 4
//!   additional bytes instead of [`MAX_OVERHEAD`].
//! * **Mapping**: a binding request every 25 s keeps the mapping of NATs on the path to the server. It also
//!   shows if the server still knows the client by it.
//!
//! Over TCP and TLS ([`Client::over_stream`]) the messages are the same, and the owner does the framing. The
//! client then retransmits no requests (RFC 8489, 6.2.2). It detects a dead server by requests every 10 s,
//! because such a connection can die without a sign.
//!
//! The server is not trusted. It can refuse, be silent, drop and forge, as every router can. Its effects are
//! bounded: memory by [`MAX_PERMISSIONS`] and 256 channels, requests by their retransmission limit, and the
//! owner decides about each redirection to another server. A relayed address with a narrower scope than the
//! server's address (loopback, private) is refused, because it would denote another host to each peer.
//! Datagrams of peers without a requested permission, or of unbound channels, are dropped. During an
//! allocation, a refusal without a signature counts only if no better answer has arrived when the request
//! times out.
//!
//! Peers are not trusted either, because they can make a node send to many addresses. Addresses that have
//! never answered get half of the permissions, eight at once and one per second.

mod auth;
mod client;
mod message;
mod peers;
mod request;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

pub use client::Client;
pub use peers::MAX_PERMISSIONS;
pub use server::{TurnServer, TurnServerError, TurnTransport};

/// Largest number of bytes that relaying adds to a datagram, below UDP: a Send indication with the address of
/// an IPv6 peer and three bytes of padding.
pub const MAX_OVERHEAD: usize = 20 + 24 + 4 + 3;

/// An event of an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server now relays at this address.
    Allocated(SocketAddr),
    /// There is no allocation, or it has ended. No events follow.
    Ended(Failure),
}

/// Data from a peer, for the client's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The peer that has sent the data to the relayed address, according to the server.
    pub peer: SocketAddr,
    /// The data.
    pub data: &'a [u8],
}

/// Outcome of sending a datagram to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The datagram was wrapped and appended, for sending to the server.
    Written,
    /// The datagram waits for the server's permission, and is sent then. At most two for each address wait.
    Held,
    /// The datagram was dropped: there is no allocation, the server refuses the peer, or too many peers have
    /// permissions.
    Dropped,
}

/// Reasons for having no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// No answer arrived.
    Silent,
    /// The server rejects the user name or the password.
    Unauthorized,
    /// The server names another server to use instead (RFC 8489, 10).
    Elsewhere(SocketAddr),
    /// The server has no relayed addresses of that family (RFC 8656, error 440).
    NoFamily,
    /// The server refuses, with this error code and text.
    Refused(u16, String),
    /// The server's answer makes no sense.
    Nonsense,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.pad("the server does not answer"),
            Self::Unauthorized => f.pad("the server does not accept the user name or the password"),
            Self::Elsewhere(server) => write!(f, "the server names another one, {server}"),
            Self::NoFamily => f.pad("the server has no relayed addresses of that family"),
            Self::Refused(437, _) => f.pad("the server does not know the allocation any more"),
            Self::Refused(486, _) => f.pad("the user has as many allocations as the server grants"),
            Self::Refused(508, _) => f.pad("the server has no room for another allocation"),
            Self::Refused(code, text) => write!(f, "the server refuses: {text} ({code})"),
            Self::Nonsense => f.pad("the server's answers are not those of a TURN server"),
        }
    }
}
