//! A node, and any number of members of its networks.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::wire::Control;
use peersock_overlay::{
    Endpoint, EndpointConfig, Exit, Identity, JoinError, NetworkConfig, NetworkIndex, RecvMeta, Route,
    SocketIndex, SocketInfo, StaticMember, StaticNetwork,
};

use crate::{Adversary, Heard, Random, receive};

const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);
/// Number of the node itself.
const SELF: u32 = u32::MAX;
/// Length of IPv6's header in bytes.
const IPV6_HEADER: usize = 40;

/// A node in static networks with many members that are only keys. It measures the cost of peers.
///
/// Members have numbers, from 0 on.
///
/// ```
/// use std::time::Instant;
/// use peersock_testnet::Crowd;
///
/// let now = Instant::now();
/// let mut crowd = Crowd::new(now, 10, 0)?;
/// let mut other = crowd.meet(now, 3).expect("a session");
/// let packet = Crowd::packet(Crowd::address(3), 40);
/// assert!(other.seal(&packet).is_some());
/// # Ok::<(), peersock_overlay::JoinError>(())
/// ```
pub struct Crowd {
    /// The node.
    pub endpoint: Endpoint,
    /// Network in which the node meets members.
    pub network: NetworkIndex,
}

impl Crowd {
    /// Makes a node in a network with `members` other members, and in `others` more networks of the same
    /// size.
    /// Fails with the errors of [`Endpoint::join`].
    pub fn new(now: Instant, members: u32, others: u32) -> Result<Crowd, JoinError> {
        let mut endpoint = endpoint(now);
        let mut join = |number| {
            let members = std::iter::once(SELF).chain(0..members).map(member).collect();
            endpoint.join(now, static_network(number, members))
        };
        let network = join(0)?;
        for number in 1..=others {
            join(number)?;
        }
        Ok(Crowd { endpoint, network })
    }

    /// Makes a session with a member, who begins the handshake; `None` if the handshake fails.
    pub fn meet(&mut self, now: Instant, peer: u32) -> Option<Adversary> {
        let (own, known) = (member(peer), member(SELF));
        let target = known.identity;
        let network = static_network(0, vec![own, known]);
        let random = Random::from_seed(peer.into());
        let mut other = Adversary::new(Arc::new(identity(peer)), &network, target, UNIX_TIME, random);
        let mut to_node = VecDeque::from([other.initiate(now)]);
        let mut answer = Vec::new();
        while let Some(datagram) = to_node.pop_front() {
            receive(&mut self.endpoint, now, Self::meta(peer), &datagram);
            while self.endpoint.poll_transmit(now, &mut answer).is_some() {
                match other.hear(&answer) {
                    // The node sends nothing on the session before it has opened a packet.
                    Heard::Session => {
                        to_node.extend(other.seal(&Self::packet(Self::address(peer), IPV6_HEADER)));
                    }
                    // The node challenges the peer's address.
                    Heard::Plaintext(control) => {
                        if let Ok(Control::Challenge { data, .. }) = Control::parse(&control) {
                            to_node.extend(other.control(&Control::Answer { data }));
                        }
                    }
                    Heard::Initiation | Heard::Other => {}
                }
            }
            while self.endpoint.poll_event().is_some() {}
        }
        match self.endpoint.routes().get(self.network, Self::address(peer)) {
            Some(Route::Peer(node)) if node.sender().is_some() => Some(other),
            _ => None,
        }
    }

    /// Returns the node's address in its networks.
    pub fn own_address() -> IpAddr {
        Self::address(SELF)
    }

    /// Returns a member's address in the networks.
    pub fn address(member: u32) -> IpAddr {
        let [high, low] = [(member >> 16) as u16, member as u16];
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, high, low).into()
    }

    /// Returns the receive metadata of a member's datagrams, with the member's endpoint.
    pub fn meta(member: u32) -> RecvMeta {
        let [_, b, c, d] = member.to_be_bytes();
        let remote = SocketAddr::from(([10, b, c, d], 4000));
        RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }
    }

    /// Makes a packet of `size` bytes from this address (RFC 8200).
    pub fn packet(source: IpAddr, size: usize) -> Vec<u8> {
        let mut packet = vec![0; size];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&((size - IPV6_HEADER) as u16).to_be_bytes());
        if let IpAddr::V6(source) = source {
            packet[8..24].copy_from_slice(&source.octets());
        }
        packet
    }
}

fn endpoint(now: Instant) -> Endpoint {
    let mut config = EndpointConfig::new(Arc::new(identity(SELF)));
    (config.limits.handshakes_per_second, config.limits.handshake_burst) = (u32::MAX, u32::MAX);
    let mut endpoint = Endpoint::new(config, seed(SELF, 1), now, UNIX_TIME);
    let socket = SocketInfo {
        index: SocketIndex(0),
        ipv4: true,
        loopback: false,
        max_datagram: 1472,
        beacon_targets: Vec::new(),
    };
    endpoint.set_sockets(now, vec![socket]);
    endpoint
}

fn static_network(number: u32, members: Vec<StaticMember>) -> NetworkConfig {
    let id = format!("fe0000000000{number:04x}").parse().expect("an ID");
    NetworkConfig::Static(StaticNetwork { id, psk: None, members, exit: None, program: None })
}

fn member(node: u32) -> StaticMember {
    StaticMember {
        identity: *identity(node).public(),
        name: None,
        addresses: vec![Crowd::address(node)],
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: Exit::default(),
    }
}

fn identity(node: u32) -> Identity {
    Identity::from_seed(&seed(node, 0))
}

fn seed(node: u32, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    seed
}
