use std::fmt;
use std::sync::Arc;

use peersock_overlay::{EntropySource, Identity, Provider, default_provider};
use zeroize::Zeroizing;

/// Configuration of a [`Root`](crate::Root).
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Identity of this root.
    pub identity: Arc<Identity>,
    /// Provider of the sessions' ciphers. Default: [`default_provider`].
    pub provider: Arc<dyn Provider>,
    /// Source of fresh randomness for each key. Without it the seed determines every key, which only a
    /// simulation should want. Default: none.
    pub entropy: Option<EntropySource>,
    /// Receive buffer that the kernel grants the UDP sockets, in bytes; clients are told. Default: 212,992,
    /// Linux's.
    pub receive_buffer: u32,
    /// Access token that nodes must present to register, at most 255 bytes. Default: none.
    pub access: Option<Zeroizing<Vec<u8>>>,
    /// Relay limits. Default: 8 MB/s per node and 32 MB/s per source prefix.
    pub relay: RelayPolicy,
    /// True if STUN requests shorter than the answer are answered, a few per second and prefix. Default:
    /// false, so that no address gets more bytes than came from there.
    pub short_stun: bool,
    /// Bounds on memory and work.
    pub limits: Limits,
}

/// Bytes per second that are relayed, beyond the small share that every registered node always has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayPolicy {
    /// Relays nothing.
    Off,
    /// Relays at most a rate in bytes per second, counted at the sender; a quarter of a second's worth at
    /// once, at least 256 KiB.
    Limited {
        /// Rate of one node.
        per_node: u32,
        /// Rate of all nodes of one source prefix (IPv4 /24, IPv6 /56).
        per_prefix: u32,
    },
    /// Relays without a limit.
    Unlimited,
}

impl RelayPolicy {
    /// Returns the rate that a node is told: bytes per second, 0 for no limit; `None` if nothing is relayed.
    pub fn rate(self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Limited { per_node, .. } => Some(per_node.max(1)),
            Self::Unlimited => Some(0),
        }
    }
}

/// Limits on the memory and work that others cause.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Nodes that have a session or are registered. Newcomers evict nodes that are not registered, and
    /// registered ones that are gone for 90 s. Default: 100,000.
    pub nodes: usize,
    /// Nodes from one source prefix (IPv4 /24, IPv6 /56). Once half of all places are taken, an IPv4 /16 or
    /// IPv6 /32 gets half of the rest at most, or as many as this. Default: 4,096.
    pub nodes_per_prefix: u32,
    /// The longest lifetime of a registration, in seconds; longer ones are cut. Default: 3,600.
    pub lifetime: u32,
    /// Initiations that are read per second without a cookie. Default: 1,000.
    pub handshakes_per_second: u32,
    /// Initiations that are read at once without a cookie. Default: 1,000.
    pub handshake_burst: u32,
    /// Look-ups of one node per second; three times as many at once. Default: 20.
    pub look_ups_per_second: u32,
    /// Nicknames that are claimed. Default: 100,000, which are about 40 MB.
    pub nicknames: usize,
    /// Nicknames that one node may claim. Default: 4.
    pub nicknames_per_node: u32,
    /// Nicknames claimed from one source prefix (IPv4 /24, IPv6 /56). Default: 1,024.
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
    /// Returns the defaults for this identity.
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
