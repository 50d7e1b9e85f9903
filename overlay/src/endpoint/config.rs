//! What goes into an endpoint and what comes out, besides datagrams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::contact::{Contact, DirectAttempt};
use crate::crypto::{EntropySource, Provider, Suite, default_provider};
use crate::id::{Identity, NetworkId, NodeId};
use crate::link::Elsewhere;
use crate::network::{NetworkConfigError, NetworkIndex, NetworkSummary};
use crate::reach::Path;
use crate::session::{Peer, SessionStats};

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
    /// What the kernel grants the UDP sockets as receive buffer, in bytes; peers are told, and keep less than
    /// that in flight. Default: 212,992, Linux's.
    pub receive_buffer: u32,
    /// Asked for fresh randomness before each key is made, so that nobody who has once read the memory knows
    /// later keys, and neither a forked process nor a restored snapshot of a machine repeats one. While it
    /// fails, no handshake is begun or answered (counter `entropy_failures`). Without it the seed alone
    /// determines every key, which only a simulation should want. Default: none.
    pub entropy: Option<EntropySource>,
    /// Bounds on memory and work.
    pub limits: Limits,
    /// Whether local discovery tells others who this node is. Without that it still learns who is there, and
    /// stays unknown itself until it begins a handshake. Default: true.
    pub introduce: bool,
    /// Whether a direct way is also looked for by many ports: by up to 256 sockets
    /// ([`Endpoint::poll_extra_sockets`](crate::Endpoint::poll_extra_sockets)) where this node's NAT gives
    /// each destination another port, and by up to 1024 packets where a peer's does. Default: true.
    pub birthday: bool,
    /// Whether a direct way is looked for by TCP where there is none by UDP ([`Endpoint::poll_tcp`]).
    /// Default: false, because a driver has to connect.
    ///
    /// [`Endpoint::poll_tcp`]: crate::Endpoint::poll_tcp
    pub tcp_punch: bool,
}

impl EndpointConfig {
    /// The defaults for this identity.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            provider: default_provider(),
            receive_buffer: 212_992,
            entropy: None,
            limits: Limits::default(),
            introduce: true,
            birthday: true,
            tcp_punch: false,
        }
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, provider, receive_buffer, entropy, limits, introduce, birthday, tcp_punch } =
            self;
        f.debug_struct("EndpointConfig")
            .field("identity", identity)
            .field("suites", &provider.suites())
            .field("receive_buffer", receive_buffer)
            .field("entropy", &entropy.is_some())
            .field("limits", limits)
            .field("introduce", introduce)
            .field("birthday", birthday)
            .field("tcp_punch", tcp_punch)
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
    /// Peers remembered in each ad-hoc network; in a static one the list is the limit. A newcomer takes the
    /// place of the least recently used peer that has no session, or none on which anything was sent; when
    /// there is none such, it is refused. Beyond half of them, one source prefix (IPv4 /24, IPv6 /56) gets a
    /// quarter of what is free, and one of a provider (IPv4 /16, IPv6 /32) half. Default: 4096, at least 1.
    pub peers_per_network: usize,
    /// Initiations per second that are worked off without asking for a cookie first, and as many with one;
    /// half of the latter may come from one source prefix. Each costs about 0.3 ms of processor time. Those
    /// that the processor has no time for are worked off later, and data goes first. Default: 2000.
    pub handshakes_per_second: u32,
    /// The number without a cookie that may come at once before that rate counts. Default: 500.
    pub handshake_burst: u32,
    /// A peer of an ad-hoc network is forgotten when it has had no session, and was neither heard of nor
    /// asked for, for so long; one that has said goodbye after a tenth of that. Up to a tenth of it may pass
    /// in addition. Default: ten minutes, at least one second. Members of static networks are never
    /// forgotten.
    pub forget_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers_per_network: 4096,
            handshakes_per_second: 2000,
            handshake_burst: 500,
            forget_after: Duration::from_secs(600),
        }
    }
}

/// Why a network was not joined.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The description contradicts itself.
    #[error(transparent)]
    Config(#[from] NetworkConfigError),
    /// It is joined already, with the same secret and members.
    #[error("network {0} is joined already")]
    AlreadyJoined(NetworkId),
    /// It is joined already, and not like this: without a secret, with another one, or with other members.
    #[error("network {0} is joined already, with another secret or other members; leave it first")]
    JoinedOtherwise(NetworkId),
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
    ///
    /// [`Event::PeerAdded`]: crate::Event::PeerAdded
    Unknown,
    /// Nobody can ever have the address in this network.
    NoRoute,
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
    /// The root that relays on that path, if one does.
    pub root: Option<NodeId>,
    /// Whether that path leads over a TURN server: this node's, or the peer's as far as it has said so.
    pub turn: bool,
    /// The cipher of the present session.
    pub suite: Option<Suite>,
    /// When the present session was made.
    pub established: Option<Instant>,
    /// The path's smoothed round-trip time, as handshakes and probes show it.
    pub rtt: Option<Duration>,
    /// The addresses at which it may be; those of roots that know it are not among them.
    pub candidates: Vec<SocketAddr>,
    /// What it has said of where it is and what its NAT does, if it has been asked: it is while datagrams
    /// are relayed.
    pub contact: Option<Contact>,
    /// What was tried in the last search for a direct way to it, and what came of that.
    pub attempts: Vec<DirectAttempt>,
    /// A handshake is being tried.
    pub connecting: bool,
    /// Its answers to this node's handshakes cannot be read: its secret for the network is another one, unless
    /// somebody on the way forges them.
    pub answer_unreadable: bool,
    /// At how many of this node's roots it is.
    pub at_roots: usize,
    /// Where another node with the peer's identity was seen, if one was.
    pub elsewhere: Option<Elsewhere>,
    /// Its network keeps it as a member though it is silent ([`Policy::keeps`](crate::Policy::keeps)).
    pub listed: bool,
    /// Its name, if its network lists one.
    pub name: Option<String>,
    /// It has said goodbye, and nothing was heard of it since.
    pub left: bool,
    /// When it last proved to be there: it sent an authentic packet, or completed a handshake.
    pub last_seen: Option<Instant>,
    /// When local discovery last heard of it. Any member of the network can send such a message in its name.
    pub last_heard: Option<Instant>,
    /// What all sessions with it have carried since it was learned of.
    pub traffic: SessionStats,
}

/// One joined network's state, for people to look at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// The handle.
    pub index: NetworkIndex,
    /// The network.
    pub id: NetworkId,
    /// What its policy says of it.
    pub summary: NetworkSummary,
    /// This node's addresses in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Peers known, this node not counted.
    pub peers: usize,
    /// Peers with a session.
    pub connected: usize,
    /// Peers forgotten since the network was joined.
    pub forgotten: u64,
    /// This node's name, if the network lists one.
    pub name: Option<String>,
    /// What the sessions with all peers have carried since the network was joined, forgotten ones included.
    pub traffic: SessionStats,
}
