//! Inputs and outputs of an endpoint, besides datagrams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::contact::{Contact, DirectAttempt};
use crate::crypto::{EntropySource, Provider, Suite, default_provider};
use crate::id::{Identity, NetworkId, NodeId, PublicIdentity};
use crate::link::Elsewhere;
use crate::membership::{MemberName, Refusal};
use crate::network::{NetworkConfigError, NetworkIndex, NetworkSummary};
use crate::reach::Path;
use crate::session::{Peer, SessionStats};

/// Configuration of an [`Endpoint`](crate::Endpoint).
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
    /// Identity of this node.
    pub identity: Arc<Identity>,
    /// Provider of the data ciphers. Default: [`default_provider`].
    pub provider: Arc<dyn Provider>,
    /// Receive buffer that the kernel grants the UDP sockets, in bytes. Peers learn it, and keep less than
    /// that in flight. Default: 212,992, as on Linux.
    pub receive_buffer: u32,
    /// Source of fresh randomness for each key. An attacker who has once read the memory therefore does not
    /// know later keys, and neither a forked process nor a restored machine snapshot repeats one. While it
    /// fails, no handshake is begun or answered (counter `entropy_failures`). Without it the seed alone
    /// determines every key, which only a simulation should want. Default: none.
    pub entropy: Option<EntropySource>,
    /// Bounds on memory and work.
    pub limits: Limits,
    /// True if local discovery tells others who this node is. Otherwise the node still learns about others,
    /// but stays unknown until it begins a handshake. Default: true.
    pub introduce: bool,
    /// True if a direct path is also searched for by many ports: by up to 256 sockets
    /// ([`Endpoint::poll_extra_sockets`](crate::Endpoint::poll_extra_sockets)) where this node's NAT maps
    /// each destination to another port, and by up to 1024 packets where a peer's does. Default: true.
    pub birthday: bool,
    /// True if a direct path is searched for by TCP where UDP finds none ([`Endpoint::poll_tcp`]). Default:
    /// false, because a driver has to support connecting.
    ///
    /// [`Endpoint::poll_tcp`]: crate::Endpoint::poll_tcp
    pub tcp_punch: bool,
}

impl EndpointConfig {
    /// Returns the defaults for this identity.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of peers remembered in each ad-hoc network; in a static one the list is the limit. A
    /// newcomer replaces the least recently used peer without a session, or without packets sent on it;
    /// without such a peer, the newcomer is refused. Above half of the limit, one source prefix (IPv4 /24,
    /// IPv6 /56) gets a quarter of the free places, and one provider prefix (IPv4 /16, IPv6 /32) half.
    /// Default: 4096, at least 1.
    pub peers_per_network: usize,
    /// Initiations per second handled without first asking for a cookie, and the same number with one; at
    /// most half of the latter from one source prefix. Each costs about 0.3 ms of processor time. Those that
    /// exceed the processor's time wait, and data goes first. Default: 2000.
    pub handshakes_per_second: u32,
    /// Initiations without a cookie handled at once before that rate applies. Default: 500.
    pub handshake_burst: u32,
    /// Time after which a peer of an ad-hoc network is forgotten, if it has had no session and was neither
    /// heard nor asked for. A peer that has said goodbye is forgotten after a tenth of that time. Up to a
    /// tenth may pass in addition. Default: ten minutes, at least one second. Members of static networks are
    /// never forgotten.
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

/// Reason why a network was not joined.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The description contradicts itself.
    #[error(transparent)]
    Config(#[from] NetworkConfigError),
    /// The network is joined already, with the same secret and members.
    #[error("network {0} is joined already")]
    AlreadyJoined(NetworkId),
    /// The network is joined already in another way: without a secret, with another one, or with other
    /// members.
    #[error("network {0} is joined already, with another secret or other members; leave it first")]
    JoinedOtherwise(NetworkId),
    /// The member list of the static network lacks this node.
    #[error("this node is not a member of network {network}; its key is {key}")]
    NotAMember {
        /// Network that was not joined.
        network: NetworkId,
        /// Public key of this node, by which the network's file would list it.
        key: PublicIdentity,
    },
    /// The key of the managed network is another one than at the first join. Somebody may have made a second
    /// network with the same ID.
    #[error("network {0} has another key than when this machine joined it first")]
    OtherKey(NetworkId),
    /// The given key of a managed network does not have the network's ID.
    #[error("the key does not belong to network {0}")]
    WrongKey(NetworkId),
    /// The given credentials are not this node's in this network.
    #[error("the credentials for network {network} do not count: {refusal}")]
    Credentials {
        /// Network that was not joined.
        network: NetworkId,
        /// Reason.
        refusal: Refusal,
    },
    /// The network is an ad-hoc one, and this node is a program's beside its machine's node. There, each node
    /// is a separate member.
    #[error("this program's node cannot join network {network} for its machine: {reason}")]
    Beside {
        /// Network that was not joined.
        network: NetworkId,
        /// Reason why the node is not the machine's.
        reason: Box<str>,
    },
    /// This node is a program's beside its machine's, and the machine is no member of the managed network.
    #[error("this machine is no member of network {0}, so none of its programs is one")]
    MachineNotAMember(NetworkId),
    /// The node has already joined the maximum number of networks.
    #[error("one node can join at most {0} networks")]
    TooMany(usize),
}

/// Owner of an overlay address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Lookup {
    /// This node owns the address.
    Local,
    /// This peer owns the address.
    Peer(Arc<Peer>),
    /// The owner is not known yet; the node looks for it, and [`Event::PeerAdded`] reports it when found.
    ///
    /// [`Event::PeerAdded`]: crate::Event::PeerAdded
    Unknown,
    /// No node can ever have the address in this network.
    NoRoute,
}

/// State of one peer, for display.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Handle of the peer.
    pub peer: Arc<Peer>,
    /// Overlay addresses that the peer owns in its network.
    pub addresses: Vec<IpAddr>,
    /// Present destination of packets for it; `None` without a session.
    pub path: Option<Path>,
    /// Root that relays on that path, if any.
    pub root: Option<NodeId>,
    /// True if that path leads over a TURN server: this node's, or the peer's as far as the peer has said so.
    pub turn: bool,
    /// Cipher of the present session.
    pub suite: Option<Suite>,
    /// Time when the present session was made.
    pub established: Option<Instant>,
    /// Smoothed round-trip time of the path, from handshakes and probes.
    pub rtt: Option<Duration>,
    /// Possible addresses of the peer, without the addresses of roots that know it.
    pub candidates: Vec<SocketAddr>,
    /// The peer's own word about its addresses and its NAT, if it was asked, which happens while datagrams
    /// are relayed.
    pub contact: Option<Contact>,
    /// Addresses tried in the last search for a direct path, with their outcomes.
    pub attempts: Vec<DirectAttempt>,
    /// True while a handshake is being tried.
    pub connecting: bool,
    /// True if its answers to this node's handshakes are unreadable: its secret for the network differs,
    /// unless an attacker on the path forges them.
    pub answer_unreadable: bool,
    /// Number of this node's roots at which it is registered.
    pub at_roots: usize,
    /// Sighting of another node with the peer's identity, if any.
    pub elsewhere: Option<Elsewhere>,
    /// True if its network keeps it as a member though it is silent
    /// ([`Policy::keeps`](crate::Policy::keeps)).
    pub listed: bool,
    /// Name of the peer, if its network lists one. A program has that of its machine.
    pub name: Option<String>,
    /// Member beside whose node it is, if it is a program with its own keys.
    pub machine: Option<NodeId>,
    /// Label under which such a program alone is addressed.
    pub label: Option<MemberName>,
    /// True if its packets pass; in a managed network, because its credentials count.
    pub admitted: bool,
    /// Reason for which this node refuses its credentials, if it does.
    pub refusal: Option<Refusal>,
    /// Epoch of the newest revocations of this node that the peer is known to have.
    pub known_epoch: Option<u64>,
    /// Version of the newest access rules that the peer is known to have.
    pub known_rules: Option<u64>,
    /// True if it has said goodbye and was not heard since.
    pub left: bool,
    /// Time when it last proved to be there, by an authentic packet or a completed handshake.
    pub last_seen: Option<Instant>,
    /// Time when local discovery last heard it. Any member of the network can forge such a message.
    pub last_heard: Option<Instant>,
    /// Traffic of all sessions with it since it became known.
    pub traffic: SessionStats,
}

/// State of one joined network, for display.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Handle of the network.
    pub index: NetworkIndex,
    /// ID of the network.
    pub id: NetworkId,
    /// Summary by its policy.
    pub summary: NetworkSummary,
    /// Addresses of this node in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// Number of known peers, without this node.
    pub peers: usize,
    /// Number of peers with a session.
    pub connected: usize,
    /// Number of peers forgotten since the network was joined.
    pub forgotten: u64,
    /// Name of this node, if the network lists one.
    pub name: Option<String>,
    /// Epoch of the newest revocations that this node has signed, as a controller of the network.
    pub signed_epoch: Option<u64>,
    /// Version of the access rules that count in the network, if it has any.
    pub rules: Option<u64>,
    /// True once somebody has shown another successor of a key of the network than the known one.
    pub is_key_contested: bool,
    /// Traffic of the sessions with all peers since the network was joined, forgotten peers included.
    pub traffic: SessionStats,
}
