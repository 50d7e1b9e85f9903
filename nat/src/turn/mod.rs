//! A client of TURN servers (RFC 8656): an address on a server, from which everything is passed on to this
//! node.
//!
//! A [`Client`] has one *allocation*: the server opens a UDP port for it, the *relayed address*, and passes
//! on what arrives there, from peers that the client has named before. It is sans-IO: what comes from the
//! server, what is to be sent to peers and the time go in; datagrams for the server, datagrams of peers and
//! events come out. Its owner has a socket that talks to the server alone, and begins anew with another
//! socket when the allocation has ended.
//!
//! * **Allocation** (RFC 8656, 7): asked for without credentials first; the server's refusal has the realm
//!   and the nonce for the second request. It is refreshed at three quarters of its lifetime.
//! * **Permissions** (9): one for each IP address that is sent to, asked for with the first datagram, which
//!   waits for it. Permissions that are in use are renewed; what is not used for five minutes is forgotten.
//! * **Channels** (12): a peer that answers and is sent to often gets one: then a datagram costs 4 bytes
//!   more, before that [`MAX_OVERHEAD`].
//! * **Mapping**: every 25 s a binding request keeps the mapping of NATs on the way to the server, and shows
//!   whether it is still the one that the server knows the client by.
//!
//! Over TCP and TLS ([`Client::over_stream`]) the messages are the same, and their frames its owner's
//! concern. No request is repeated then (RFC 8489, 6.2.2), and a server that no longer answers is noticed by
//! requests every 10 s, because such a connection can be dead without a sign.
//!
//! The server is not trusted. It can refuse, be silent, drop and forge, as every router can. What it causes
//! is bounded: memory by [`MAX_PERMISSIONS`] and 256 channels, requests by their repetition, and each
//! redirection to another server is its owner's decision. A relayed address that reaches less far than the
//! server's own (loopback, private) is refused, for it would mean another host to each peer. Datagrams of
//! peers that no permission was asked for, and those of channels that were not bound, are dropped. Where
//! there is an allocation, a refusal without a signature counts only if nothing better has come when the
//! request's time is over.
//!
//! Nor are peers, which can have a node send to many addresses: those that have never answered get half of
//! the permissions, eight at once and one a second.

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

/// The most bytes that the way over the server adds to a datagram, below UDP: a Send indication with the
/// address of an IPv6 peer and three bytes of padding.
pub const MAX_OVERHEAD: usize = 20 + 24 + 4 + 3;

/// What happens to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server relays at this address.
    Allocated(SocketAddr),
    /// There is no allocation, or none any more. Nothing follows.
    Ended(Failure),
}

/// What came from the server for the client's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The peer that has sent it to the relayed address, as the server says.
    pub peer: SocketAddr,
    /// What it has sent.
    pub data: &'a [u8],
}

/// What has become of a datagram to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was appended, wrapped, to be sent to the server.
    Written,
    /// It waits for the server's permission, and is sent then. Two for each address wait at most.
    Held,
    /// It was dropped: there is no allocation, the server does not want it, or too many peers have
    /// permissions.
    Dropped,
}

/// Why there is no allocation.
///
/// ```
/// use peersock_nat::turn::Failure;
///
/// assert_eq!(Failure::Silent.to_string(), "the server does not answer");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// No answer came.
    Silent,
    /// The server does not accept the user name or the password.
    Unauthorized,
    /// The server names another one to use instead (RFC 8489, 10).
    Elsewhere(SocketAddr),
    /// The server has no relayed addresses of that family (RFC 8656, error 440).
    NoFamily,
    /// The server refuses, with this error code and its text.
    Refused(u16, String),
    /// What the server says makes no sense.
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
