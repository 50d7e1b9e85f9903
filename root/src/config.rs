use std::fmt;
use std::sync::Arc;

use peersock_overlay::{EntropySource, Identity, Provider, default_provider};
use zeroize::Zeroizing;

/// What a [`Root`](crate::Root) is made with.
///
/// ```
/// use std::sync::Arc;
/// use peersock_overlay::Identity;
/// use peersock_root::{Config, RelayPolicy};
///
/// let mut config = Config::new(Arc::new(Identity::from_seed(&[7; 32])));
/// config.relay = RelayPolicy::Limited { per_node: 1 << 20, per_prefix: 4 << 20 };
/// config.limits.nodes = 1000;
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Who this root is.
    pub identity: Arc<Identity>,
    /// Makes the ciphers of sessions. Default: [`default_provider`].
    pub provider: Arc<dyn Provider>,
    /// Asked for fresh randomness before each key is made. Without it the seed determines every key, which
    /// only a simulation should want. Default: none.
    pub entropy: Option<EntropySource>,
    /// What the kernel grants the UDP sockets as receive buffer, in bytes; clients are told. Default:
    /// 212,992, Linux's.
    pub receive_buffer: u32,
    /// What nodes have to show to be registered, at most 255 bytes. Default: nothing.
    pub access: Option<Zeroizing<Vec<u8>>>,
    /// What is relayed for a node. Default: 8 MB/s per node and 32 MB/s per source prefix.
    pub relay: RelayPolicy,
    /// Whether STUN requests that are shorter than the answer are answered, a few per second and prefix.
    /// Default: no, so that the root sends nobody more than came from there.
    pub short_stun: bool,
    /// Bounds on memory and work.
    pub limits: Limits,
}

/// How many bytes per second are relayed, beyond the small share that every registered node always has.
///
/// ```
/// use peersock_root::RelayPolicy;
///
/// assert_eq!(RelayPolicy::Unlimited.rate(), Some(0));
/// assert_eq!(RelayPolicy::Off.rate(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayPolicy {
    /// Nothing.
    Off,
    /// At most so many bytes per second, as the sender pays them; a quarter of a second's worth at once, and
    /// 256 KiB at least.
    Limited {
        /// Of one node.
        per_node: u32,
        /// Of all nodes of one source prefix (IPv4 /24, IPv6 /56).
        per_prefix: u32,
    },
    /// As much as comes.
    Unlimited,
}

impl RelayPolicy {
    /// What a node is told: bytes per second, 0 for no limit; `None` if nothing is relayed.
    pub fn rate(self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Limited { per_node, .. } => Some(per_node.max(1)),
            Self::Unlimited => Some(0),
        }
    }
}

/// Bounds on what others make a root remember and do.
///
/// ```
/// assert!(peersock_root::Limits::default().lifetime >= 600);
/// ```
#[derive(Debug, Clone)]
pub struct Limits {
    /// Nodes that have a session or are registered. Newcomers take the places of those that are not
    /// registered, and of registered ones that are gone for 90 s. Default: 100,000.
    pub nodes: usize,
    /// The same from one source prefix (IPv4 /24, IPv6 /56). Once half of all places are taken, an IPv4 /16
    /// or IPv6 /32 gets half of the rest at most, or as many as this. Default: 4,096.
    pub nodes_per_prefix: u32,
    /// The longest lifetime of a registration, in seconds; longer ones are cut. Default: 3,600.
    pub lifetime: u32,
    /// Initiations that are read per second without a cookie. Default: 1,000.
    pub handshakes_per_second: u32,
    /// How many of them at once. Default: 1,000.
    pub handshake_burst: u32,
    /// Look-ups of one node per second; three times as many at once. Default: 20.
    pub look_ups_per_second: u32,
    /// Nicknames that are claimed. Default: 100,000, which are about 40 MB.
    pub nicknames: usize,
    /// The same of one node. Default: 4.
    pub nicknames_per_node: u32,
    /// The same from one source prefix (IPv4 /24, IPv6 /56). Default: 1,024.
    pub nicknames_per_prefix: u32,
    /// The longest lifetime of a nickname, in seconds; longer ones are cut. Nodes claim theirs again with
    /// each registration, at latest every 200 s. Default: 3,600.
    pub nickname_lifetime: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 100_000,
            nodes_per_prefix: 4096,
            lifetime: 3600,
            handshakes_per_second: 1000,
            handshake_burst: 1000,
            look_ups_per_second: 20,
            nicknames: 100_000,
            nicknames_per_node: 4,
            nicknames_per_prefix: 1024,
            nickname_lifetime: 3600,
        }
    }
}

impl Config {
    /// The defaults for this identity.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            provider: default_provider(),
            entropy: None,
            receive_buffer: 212_992,
            access: None,
            relay: RelayPolicy::Limited { per_node: 8_000_000, per_prefix: 32_000_000 },
            short_stun: false,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, provider, entropy, receive_buffer, access, relay, short_stun, limits } = self;
        f.debug_struct("Config")
            .field("identity", identity)
            .field("suites", &provider.suites())
            .field("entropy", &entropy.is_some())
            .field("receive_buffer", receive_buffer)
            .field("access", &access.as_ref().map(|_| "[redacted]"))
            .field("relay", relay)
            .field("short_stun", short_stun)
            .field("limits", limits)
            .finish()
    }
}
