//! What is said of roots to the endpoint, and what the endpoint says of them.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::{NodeId, PublicIdentity};
use crate::reach::SocketIndex;
use crate::wire::{Channel, StreamWay};

/// A root that a node is to use; see [`Endpoint::set_roots`](crate::Endpoint::set_roots).
///
/// ```
/// use peersock_overlay::{Identity, RootConfig};
///
/// let identity = *Identity::from_seed(&[7; 32]).public();
/// let mut root = RootConfig::new(identity, vec!["192.0.2.1:7420".parse()?]);
/// root.access = b"what the operator gave me".to_vec();
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootConfig {
    /// The root's keys.
    pub identity: PublicIdentity,
    /// Where it listens for UDP; at most eight are used.
    pub endpoints: Vec<SocketAddr>,
    /// What the root's operator gives to those who may register there, if that is needed. At most 255 bytes
    /// are sent.
    pub access: Vec<u8>,
    /// How long an answer by UDP is waited for until a stream to this root is wanted
    /// ([`Endpoint::poll_streams`](crate::Endpoint::poll_streams)). Default: `None`, for a root that takes no
    /// streams.
    pub stream_after: Option<Duration>,
    /// It was found in a list that somebody else may have written. Beside roots that are not, it is not asked
    /// about nicknames, for which a root's word counts. Default: false.
    pub is_listed: bool,
}

/// A stream that the driver is to keep open; see [`Endpoint::poll_streams`](crate::Endpoint::poll_streams).
///
/// ```
/// use peersock_overlay::WantedStream;
///
/// fn is_stream(wanted: &WantedStream) -> bool {
///     wanted.socket.is_stream()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WantedStream {
    /// The root that it leads to.
    pub root: NodeId,
    /// Its keys.
    pub identity: PublicIdentity,
    /// The ways to it, if another root has named it. Those to other roots the driver knows.
    pub ways: Vec<StreamWay>,
    /// What datagrams for it are sent from. It is the same for every stream to this root.
    pub socket: SocketIndex,
}

impl RootConfig {
    /// A root where anybody may register.
    pub fn new(identity: PublicIdentity, endpoints: Vec<SocketAddr>) -> Self {
        Self { identity, endpoints, access: Vec::new(), stream_after: None, is_listed: false }
    }
}

impl fmt::Debug for RootConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, endpoints, access, stream_after, is_listed } = self;
        f.debug_struct("RootConfig")
            .field("identity", identity)
            .field("endpoints", endpoints)
            .field("access", &!access.is_empty())
            .field("stream_after", stream_after)
            .field("is_listed", is_listed)
            .finish()
    }
}

/// How things stand with a root.
///
/// ```
/// use peersock_overlay::RootState;
///
/// assert_eq!(RootState::Registered.to_string(), "registered");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootState {
    /// A handshake is being tried.
    Connecting,
    /// No handshake was answered for 5 s; it is tried again now and then.
    Unreachable,
    /// There is a session, and the root has not yet said that this node is registered, or not again since it
    /// did not answer for a while.
    Connected,
    /// This node can be found at the root.
    Registered,
    /// The same, and the root has said that it will end soon.
    Draining,
    /// The root does not take this node.
    Refused,
}

impl fmt::Display for RootState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::Connected => "connected",
            Self::Registered => "registered",
            Self::Draining => "draining",
            Self::Refused => "refused",
        })
    }
}

/// One root's state, for people to look at; see [`Endpoint::roots`](crate::Endpoint::roots).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RootInfo {
    /// The root.
    pub node: NodeId,
    /// Its keys.
    pub identity: PublicIdentity,
    /// Whether it is used for a while only, because another root has said that a peer is there.
    pub is_guest: bool,
    /// Where it may be.
    pub endpoints: Vec<SocketAddr>,
    /// How things stand.
    pub state: RootState,
    /// Where it is reached by UDP; none without a session, and none by a stream.
    pub address: Option<SocketAddr>,
    /// The stream that it is reached by, if it is.
    pub stream: Option<SocketIndex>,
    /// The smoothed round-trip time to it.
    pub rtt: Option<Duration>,
    /// Where the root sees this node; none by a stream.
    pub observed: Option<SocketAddr>,
    /// This node's name there.
    pub channel: Option<Channel>,
    /// Since when this node can be found there without an outage; none without a session.
    pub registered: Option<Instant>,
    /// Whether it relays more than handshakes for this node.
    pub relays: bool,
    /// What it relays for this node, in bytes per second; 0 for no limit.
    pub rate: u32,
    /// Peers whose path leads through it.
    pub relayed_peers: usize,
    /// Its last answer to a look-up was that the directory which it shares with other roots does not answer:
    /// it knows its own nodes only.
    pub is_partial: bool,
}
