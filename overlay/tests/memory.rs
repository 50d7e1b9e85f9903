//! What peers cost of memory: an allocator that counts, and real handshakes.
#![expect(clippy::print_stderr, reason = "what is measured is worth reading")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::wire::Control;
use peersock_overlay::{
    Endpoint, EndpointConfig, Exit, Identity, NetworkConfig, NetworkIndex, RecvMeta, Route, SocketIndex,
    SocketInfo, StaticMember, StaticNetwork,
};
use peersock_testnet::{Adversary, Counting, Heard, Random, receive};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);
/// Bytes that a session may cost.
const MOST: usize = 2400;
/// Bytes that a member may cost that was never heard of.
const MOST_OF_MEMBER: usize = 3200;
/// The number of the node that is measured.
const SELF: u32 = u32::MAX;

#[test]
fn a_member_and_its_session_cost_little_memory() {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let empty = size_of_node(now, 0, 0);
    // Where tables have just grown, and where they are about to.
    for most in [449, 897, 1025] {
        let members = size_of_node(now, most, 0);
        let session = (size_of_node(now, most, most) - members) / most as usize;
        let member = (members - empty) / most as usize;
        eprintln!("{most} members: {member} bytes each, and {session} with a session; {empty} without any");
        assert!((500..=MOST).contains(&session), "{session} bytes");
        assert!((500..=MOST_OF_MEMBER).contains(&member), "{member} bytes");
    }
}

/// Bytes that a node holds that knows so many members, and has sessions with so many: what is free once it is
/// gone.
fn size_of_node(now: Instant, members: u32, sessions: u32) -> usize {
    let mut endpoint = endpoint(now);
    let list = std::iter::once(SELF).chain(0..members).map(member).collect();
    let network = endpoint.join(now, network(list)).expect("a network");
    for peer in 0..sessions {
        meet(&mut endpoint, network, now, peer);
    }
    // What is left of the handshakes goes: they cannot be completed any more.
    let later = now + Duration::from_secs(30);
    endpoint.handle_timeout(later);
    let mut out = Vec::new();
    while endpoint.poll_transmit(later, &mut out).is_some() {}
    while endpoint.poll_event().is_some() {}
    drop(out);
    let before = Counting::in_use();
    drop(endpoint);
    before.wrapping_sub(Counting::in_use())
}

/// Makes a session with a member.
fn meet(endpoint: &mut Endpoint, network: NetworkIndex, now: Instant, peer: u32) {
    let (own, known) = (member(peer), member(SELF));
    let (target, random) = (known.identity, Random::from_seed(peer.into()));
    let described = self::network(vec![own, known]);
    let mut other = Adversary::new(Arc::new(identity(peer)), &described, target, UNIX_TIME, random);
    let mut to_node = VecDeque::from([other.initiate(now)]);
    let mut answer = Vec::new();
    while let Some(datagram) = to_node.pop_front() {
        let remote = SocketAddr::from(([10, 0, (peer >> 8) as u8, peer as u8], 4000));
        let meta = RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None };
        receive(endpoint, now, meta, &datagram);
        while endpoint.poll_transmit(now, &mut answer).is_some() {
            match other.hear(&answer) {
                // The node sends nothing over it before it has opened something.
                Heard::Session => to_node.extend(other.seal(&packet(address(peer)))),
                Heard::Plaintext(control) => {
                    if let Ok(Control::Challenge { data, .. }) = Control::parse(&control) {
                        to_node.extend(other.control(&Control::Answer { data }));
                    }
                }
                Heard::Initiation | Heard::Other => {}
            }
        }
        while endpoint.poll_event().is_some() {}
    }
    match endpoint.routes().get(network, address(peer)) {
        Some(Route::Peer(node)) => assert!(node.sender().is_some(), "there is no session with {peer}"),
        _ => panic!("nobody knows {peer}"),
    }
}

fn endpoint(now: Instant) -> Endpoint {
    let mut config = EndpointConfig::new(Arc::new(identity(SELF)));
    (config.limits.handshakes_per_second, config.limits.handshake_burst) = (u32::MAX, u32::MAX);
    let mut endpoint = Endpoint::new(config, [1; 32], now, UNIX_TIME);
    endpoint.set_sockets(
        now,
        vec![SocketInfo {
            index: SocketIndex(0),
            ipv4: true,
            loopback: false,
            max_datagram: 1472,
            beacon_targets: Vec::new(),
        }],
    );
    endpoint
}

fn network(members: Vec<StaticMember>) -> NetworkConfig {
    let id = "fe00000000000000".parse().expect("an ID");
    NetworkConfig::Static(StaticNetwork { id, psk: None, members, exit: None })
}

fn member(node: u32) -> StaticMember {
    StaticMember {
        identity: *identity(node).public(),
        name: None,
        addresses: vec![address(node)],
        endpoints: Vec::new(),
        routes: Vec::new(),
        exit: Exit::default(),
    }
}

fn identity(node: u32) -> Identity {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    Identity::from_seed(&seed)
}

fn address(node: u32) -> IpAddr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, (node >> 16) as u16, node as u16).into()
}

/// An empty packet from this address (RFC 8200).
fn packet(source: IpAddr) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    if let IpAddr::V6(source) = source {
        packet[8..24].copy_from_slice(&source.octets());
    }
    packet
}
