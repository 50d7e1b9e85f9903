//! An endpoint with its driver's state, and the networks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use peersock_overlay::{
    Endpoint, EndpointConfig, Identity, NetworkConfig, NetworkId, NetworkIndex, Peer, Psk, SocketIndex,
    SocketInfo, StaticMember, StaticNetwork,
};

/// Destination of beacons.
pub(crate) const GROUP: &str = "239.255.77.77:7777";

/// Number of the first network that lists its members. The list has the first two nodes.
pub(crate) const LISTED: usize = 3;

/// Identity of the adversary, which is a member of the first network.
static ADVERSARY: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::from_seed(&[66; 32])));

/// Identities of all possible nodes, made once because key generation dominates a short run.
static IDENTITIES: LazyLock<[Arc<Identity>; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|seed| Arc::new(Identity::from_seed(&[seed; 32]))));

/// An open network, one of the same ID with a key, another open one, and two with the same ID and list but
/// different keys. Networks of the same ID must not meet.
static NETWORKS: LazyLock<[NetworkConfig; 5]> = LazyLock::new(|| {
    let id = |port| NetworkId::ad_hoc(port..=port).expect("one port");
    let member = |which: usize| StaticMember {
        identity: *IDENTITIES[which].public(),
        name: None,
        addresses: vec![[10, 0, 0, which as u8].into()],
        endpoints: vec![home(which)],
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    let listed = |psk| StaticNetwork {
        id: NetworkId::new(0xfe00_0000_0000_0001).expect("a static ID"),
        psk: Some(Psk::new([psk; 32])),
        members: vec![member(0), member(1)],
        exit: None,
        program: None,
    };
    [
        NetworkConfig::AdHoc { id: id(80), psk: None },
        NetworkConfig::AdHoc { id: id(80), psk: Some(Psk::new([5; 32])) },
        NetworkConfig::AdHoc { id: id(81), psk: None },
        NetworkConfig::Static(listed(6)),
        NetworkConfig::Static(listed(7)),
    ]
});

/// Returns a network by its number.
pub(crate) fn network(number: usize) -> &'static NetworkConfig {
    &NETWORKS[number]
}

/// Returns the number of networks.
pub(crate) fn networks() -> usize {
    NETWORKS.len()
}

/// Returns an identity by its node's number.
pub(crate) fn identity(node: usize) -> &'static Arc<Identity> {
    &IDENTITIES[node]
}

/// Returns the adversary's identity.
pub(crate) fn adversary() -> &'static Arc<Identity> {
    &ADVERSARY
}

/// Returns a node's first address.
fn home(node: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, node as u8], 4000))
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    /// Address of the node's only UDP socket, as others see it.
    pub(crate) address: SocketAddr,
    /// Handles of the joined networks, by network number.
    pub(crate) joined: BTreeMap<usize, NetworkIndex>,
    /// The last peers that the node looked up, including those that are no longer peers.
    pub(crate) known: Vec<Arc<Peer>>,
    starts: u8,
}

impl Node {
    /// Starts the node for the first time.
    pub(crate) fn new(number: usize, now: Instant) -> Self {
        Self::start(number, 0, now, Duration::from_secs(1_800_000_000))
    }

    /// Restarts the node with only its keys, and with its clock at `unix_time`.
    pub(crate) fn restart(&mut self, number: usize, now: Instant, unix_time: Duration) {
        let address = self.address;
        *self = Self { address, ..Self::start(number, self.starts.wrapping_add(1), now, unix_time) };
    }

    fn start(number: usize, starts: u8, now: Instant, unix_time: Duration) -> Self {
        let mut seed = [number as u8; 32];
        seed[0] = starts;
        let config = EndpointConfig::new(identity(number).clone());
        let mut endpoint = Endpoint::new(config, seed, now, unix_time);
        endpoint.set_sockets(now, vec![socket()]);
        Self { endpoint, address: home(number), joined: BTreeMap::new(), known: Vec::new(), starts }
    }
}

/// Returns each node's only socket.
pub(crate) fn socket() -> SocketInfo {
    SocketInfo {
        index: SocketIndex(0),
        ipv4: true,
        loopback: false,
        max_datagram: 1472,
        beacon_targets: vec![GROUP.parse().expect("an address")],
    }
}
