//! What goes into an endpoint and what comes out, besides datagrams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::crypto::{Provider, Suite, default_provider};
use crate::id::{Identity, NetworkId, NodeId};
use crate::network::{NetworkConfigError, NetworkIndex};
use crate::session::{Path, Peer};

/// What an [`Endpoint`](crate::Endpoint) is made with.
///
/// ```
/// use std::sync::Arc;
/// use peersock_overlay::{EndpointConfig, Identity};
///
/// let mut config = EndpointConfig::new(Arc::new(Identity::from_seed(&[7; 32])));
/// config.receive_buffer = 8 << 20;
/// config.limits.peers_per_network = 100;
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Makes the data ciphers. Default: [`default_provider`].
    pub provider: Arc<dyn Provider>,
    /// What the kernel grants the UDP sockets as receive buffer, in bytes; peers are told, and keep less than that
    /// in flight. Default: 212,992, Linux's.
    pub receive_buffer: u32,
    /// Bounds on memory and work.
    pub limits: Limits,
}

impl EndpointConfig {
    /// The defaults for this identity.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, provider: default_provider(), receive_buffer: 212_992, limits: Limits::default() }
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, provider, receive_buffer, limits } = self;
        f.debug_struct("EndpointConfig")
            .field("identity", identity)
            .field("suites", &provider.suites())
            .field("receive_buffer", receive_buffer)
            .field("limits", limits)
            .finish()
    }
}

/// Bounds on what others can make an endpoint remember and do.
///
/// ```
/// use peersock_overlay::Limits;
///
/// let small_device = Limits { peers_per_network: 64, ..Limits::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Peers remembered in each ad-hoc network; in a static one the list is the limit. A newcomer takes the place of
    /// the least recently used peer that has no session; when all have one, it is refused. Default: 4096, at least 1.
    pub peers_per_network: usize,
    /// Initiations per second that are answered without asking for a cookie first. Each costs about 0.3 ms of
    /// processor time. Default: 200.
    pub handshakes_per_second: u32,
    /// How many may come at once before that rate counts. Default: 100.
    pub handshake_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { peers_per_network: 4096, handshakes_per_second: 200, handshake_burst: 100 }
    }
}

/// Why a network was not joined.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The description contradicts itself.
    #[error(transparent)]
    Config(#[from] NetworkConfigError),
    /// It is joined already.
    #[error("network {0} is joined already")]
    AlreadyJoined(NetworkId),
    /// The member list of the static network lacks this node.
    #[error("this node ({node}) is not a member of network {network}")]
    NotAMember {
        /// The network.
        network: NetworkId,
        /// This node.
        node: NodeId,
    },
    /// There are as many networks as one node can join.
    #[error("one node can join at most {0} networks")]
    TooMany(usize),
}

/// Who is behind an overlay address.
///
/// ```
/// use peersock_overlay::Lookup;
///
/// fn reachable(lookup: &Lookup) -> bool {
///     matches!(lookup, Lookup::Local | Lookup::Peer(_))
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Lookup {
    /// This node.
    Local,
    /// This peer.
    Peer(Arc<Peer>),
    /// Nobody known yet; it is being looked for, and [`Event::PeerAdded`] tells when somebody is found.
    Unknown,
    /// Nobody can ever have the address in this network.
    NoRoute,
}

/// What the driver should know; see [`Endpoint::poll_event`](crate::Endpoint::poll_event).
///
/// ```
/// use peersock_overlay::Event;
///
/// fn log(event: &Event) -> String {
///     format!("{:?}: {event:?}", event.peer().id())
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The peer was learned of: packets for it can be queued, and [`Endpoint::want_session`](crate::Endpoint::want_session)
    /// be called.
    PeerAdded(Arc<Peer>),
    /// The peer was forgotten: its network was left, or its place was needed. The same node may come back as another
    /// [`Peer`].
    PeerRemoved(Arc<Peer>),
    /// There is a usable session where there was none, or the peer has restarted and this one is with its successor.
    SessionReady(Arc<Peer>),
    /// The last usable session is gone: it expired unused, the peer closed it, or the peer restarted.
    SessionLost(Arc<Peer>),
    /// The peer is reached elsewhere than before, or the size of the path's datagrams has changed.
    PathChanged(Arc<Peer>),
    /// A handshake has gone unanswered for 5 s. It is still tried for a while.
    PeerUnreachable(Arc<Peer>),
}

impl Event {
    /// The peer that it is about.
    pub fn peer(&self) -> &Arc<Peer> {
        match self {
            Self::PeerAdded(peer)
            | Self::PeerRemoved(peer)
            | Self::SessionReady(peer)
            | Self::SessionLost(peer)
            | Self::PathChanged(peer)
            | Self::PeerUnreachable(peer) => peer,
        }
    }
}

/// One peer's state, for people to look at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer.
    pub peer: Arc<Peer>,
    /// The overlay addresses it owns in its network.
    pub addresses: Vec<IpAddr>,
    /// Where packets for it are sent now; none without a session.
    pub path: Option<Path>,
    /// The cipher of the present session.
    pub suite: Option<Suite>,
    /// When the present session was made.
    pub established: Option<Instant>,
    /// The path's smoothed round-trip time, as handshakes and probes show it.
    pub rtt: Option<Duration>,
    /// Where it may also be.
    pub candidates: Vec<SocketAddr>,
    /// A handshake is being tried.
    pub connecting: bool,
}

/// One joined network's state, for people to look at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// The handle.
    pub index: NetworkIndex,
    /// The network.
    pub id: NetworkId,
    /// This node's addresses in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Peers known, this node not counted.
    pub peers: usize,
    /// Peers with a session.
    pub connected: usize,
}
