//! Configuration of roots for the endpoint, and the endpoint's reports about them.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::{NodeId, PublicIdentity};
use crate::reach::SocketIndex;
use crate::wire::{Channel, StreamWay};

/// Root that a node should use; see [`Endpoint::set_roots`](crate::Endpoint::set_roots).
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
    /// Keys of the root.
    pub identity: PublicIdentity,
    /// Addresses where it listens for UDP; at most eight are used.
    pub endpoints: Vec<SocketAddr>,
    /// Access token from the root's operator for nodes that may register there, if required. At most 255
    /// bytes are sent.
    pub access: Vec<u8>,
    /// Time without an answer by UDP after which a stream to this root is wanted
    /// ([`Endpoint::poll_streams`](crate::Endpoint::poll_streams)). Default: `None`, for a root without
    /// streams.
    pub stream_after: Option<Duration>,
    /// True if the root comes from a list that an outsider may have written. If there are other roots, it is
    /// not asked about nicknames, because there a root's word counts. Default: false.
    pub is_listed: bool,
}

/// Stream that the driver should keep open; see [`Endpoint::poll_streams`](crate::Endpoint::poll_streams).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WantedStream {
    /// Root that it leads to.
    pub root: NodeId,
    /// Keys of the root.
    pub identity: PublicIdentity,
    /// Ways to a guest, which another root has named. The driver knows the ways to other roots.
    pub ways: Vec<StreamWay>,
    /// Socket index for datagrams to and from the stream; the same for every stream to this root.
    pub socket: SocketIndex,
}

impl RootConfig {
    /// Creates the configuration of a root where any node may register.
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

/// State of a root as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootState {
    /// A handshake is running.
    Connecting,
    /// No handshake was answered for 5 s; the node retries it now and then.
    Unreachable,
    /// There is a session, but the root has not confirmed the registration, or not again after an outage.
    Connected,
    /// Other nodes can find this node at the root.
    Registered,
    /// This node is registered, and the root has said that it will end soon.
    Draining,
    /// The root refuses this node.
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

/// State of one root, for display; see [`Endpoint::roots`](crate::Endpoint::roots).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RootInfo {
    /// ID of the root.
    pub node: NodeId,
    /// Keys of the root.
    pub identity: PublicIdentity,
    /// True if it is a guest, used for a while only because another root has said that a peer is there.
    pub is_guest: bool,
    /// Possible addresses of the root.
    pub endpoints: Vec<SocketAddr>,
    /// State of the root.
    pub state: RootState,
    /// Address where it is reached by UDP; `None` without a session or with a stream.
    pub address: Option<SocketAddr>,
    /// Stream that it is reached by, if any.
    pub stream: Option<SocketIndex>,
    /// Smoothed round-trip time to it.
    pub rtt: Option<Duration>,
    /// Address at which the root sees this node; `None` with a stream.
    pub observed: Option<SocketAddr>,
    /// Channel of this node at the root.
    pub channel: Option<Channel>,
    /// Time since which this node is registered there without an outage; `None` without a session.
    pub registered: Option<Instant>,
    /// True if it relays more than handshakes for this node.
    pub relays: bool,
    /// Relay rate for this node, in bytes per second; 0 for no limit.
    pub rate: u32,
    /// Number of peers whose path leads through it.
    pub relayed_peers: usize,
    /// True if its last look-up answer said that the directory shared with other roots does not answer. It
    /// then knows only its own nodes.
    pub is_partial: bool,
}
