//! How the cost of a packet grows with the members that a network has, the peers that have sessions, and the
//! networks that a node is in: the overlay's part, without a stack and without a kernel. That with flows is
//! `cargo xtask bench tcp --only cpu`.
//!
//! One node is measured. Its peers are in this process, and are no more than keys. Packets come from and go
//! to them in a random order, so that nothing is in the processor's caches but what fits in there.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use peersock_overlay::wire::Control;
use peersock_overlay::{
    DATA_OVERHEAD, Endpoint, EndpointConfig, Exit, Identity, NetworkConfig, NetworkIndex, Opened, RecvMeta,
    Route, SocketIndex, SocketInfo, StaticMember, StaticNetwork, data_index,
};
use peersock_testnet::{Adversary, Heard, Random, receive};
use serde::Serialize;

/// Options of this benchmark.
#[derive(Args)]
pub(crate) struct Options {
    /// Members of the network, besides the node that is measured
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    members: u32,
    /// How many of them have a session with it [default: all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    peers: Option<u32>,
    /// Other networks that it is in, each as large
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=63))]
    networks: u32,
    /// Bytes of a packet
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u16).range(40..=1400))]
    size: u16,
    /// How many packets each way
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1000..))]
    packets: u32,
}

/// What is printed. All times are of the node alone, nanoseconds for each packet.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    members: u32,
    peers: u32,
    networks: u32,
    /// Finding the peer of an address, and its session.
    route_ns: f64,
    /// Sealing.
    seal_ns: f64,
    /// Finding the session of a datagram.
    find_ns: f64,
    /// Opening, with the window against replays, and whether the peer may have sent that.
    open_ns: f64,
}

/// Packets that are ready before the clock runs.
const BATCH: usize = 256;
/// The length of IPv6's header, bytes.
const IPV6_HEADER: usize = 40;
const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);

/// Measures, and prints one JSON object.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let peers = options.peers.unwrap_or(options.members);
    if peers > options.members {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "--peers is more than --members"));
    }
    #[allow(clippy::disallowed_methods, reason = "the cores take the time as an argument: any will do")]
    let now = Instant::now();
    let mut node = Node::new(options, now)?;
    let mut others = (0..peers).map(|peer| node.meet(now, peer)).collect::<io::Result<Vec<_>>>()?;
    let report = node.measure(now, options, &mut others)?;
    println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
    Ok(())
}

/// The node that is measured.
struct Node {
    endpoint: Endpoint,
    network: NetworkIndex,
}

impl Node {
    fn new(options: &Options, now: Instant) -> io::Result<Node> {
        let mut endpoint = endpoint(SELF, now);
        let mut first = None;
        for network in 0..=options.networks {
            let members = std::iter::once(SELF).chain(0..options.members).map(member).collect();
            let joined = endpoint.join(now, static_network(network, members)).map_err(io::Error::other)?;
            first.get_or_insert(joined);
        }
        Ok(Node { endpoint, network: first.ok_or(io::ErrorKind::NotFound)? })
    }

    /// Makes a session with a member.
    fn meet(&mut self, now: Instant, peer: u32) -> io::Result<Adversary> {
        let (own, known) = (member(peer), member(SELF));
        let target = known.identity;
        let network = static_network(0, vec![own, known]);
        let random = Random::from_seed(peer.into());
        let mut other = Adversary::new(Arc::new(identity(peer)), &network, target, UNIX_TIME, random);
        let mut to_node = VecDeque::from([other.initiate(now)]);
        let mut answer = Vec::new();
        while let Some(datagram) = to_node.pop_front() {
            receive(&mut self.endpoint, now, meta(place(peer)), &datagram);
            while self.endpoint.poll_transmit(now, &mut answer).is_some() {
                match other.hear(&answer) {
                    // The node sends nothing over it before it has opened something.
                    Heard::Session => to_node.extend(other.seal(&packet(address(peer), IPV6_HEADER))),
                    // It asks whether the peer is where it seems to be.
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
        match self.endpoint.routes().get(self.network, address(peer)) {
            Some(Route::Peer(node)) if node.sender().is_some() => Ok(other),
            _ => Err(io::Error::other(format!("there is no session with peer {peer}"))),
        }
    }

    fn measure(&self, now: Instant, options: &Options, others: &mut [Adversary]) -> io::Result<Report> {
        let mut random = Random::from_seed(1);
        let size = usize::from(options.size);
        let sent = packet(address(SELF), size);
        let [mut route, mut seal, mut find, mut open] = [Duration::ZERO; 4];
        let mut out = vec![0; size + DATA_OVERHEAD];
        let (routes, table) = (self.endpoint.routes(), self.endpoint.sessions());
        let rounds = options.packets as usize / BATCH;
        for _ in 0..rounds {
            let turn: Vec<u32> = (0..BATCH).map(|_| random.below(others.len()) as u32).collect();
            let datagrams: Vec<_> = turn
                .iter()
                .map(|peer| others[*peer as usize].seal(&packet(address(*peer), size)))
                .collect::<Option<_>>()
                .ok_or_else(|| io::Error::other("a peer has no session"))?;
            let start = Instant::now();
            let found: Vec<_> = datagrams
                .iter()
                .map(|datagram| data_index(datagram).and_then(|index| table.get(index)))
                .collect::<Option<_>>()
                .ok_or_else(|| io::Error::other("a session is missing"))?;
            find += start.elapsed();
            let start = Instant::now();
            for (session, datagram) in found.iter().zip(&datagrams) {
                let Opened::Packet(length) = session.open(datagram, &mut out).map_err(io::Error::other)?
                else {
                    return Err(io::Error::other("no packet"));
                };
                let source: [u8; 16] = out[8..24].try_into().map_err(io::Error::other)?;
                if length != size || !session.peer().owns(Ipv6Addr::from(source).into()) {
                    return Err(io::Error::other("another packet"));
                }
                black_box(session.note_received(now, &meta(place(0))));
            }
            open += start.elapsed();
            let addresses: Vec<IpAddr> = turn.iter().map(|peer| address(*peer)).collect();
            let start = Instant::now();
            let senders: Vec<_> = addresses
                .iter()
                .map(|address| match routes.get(self.network, *address) {
                    Some(Route::Peer(peer)) => peer.sender(),
                    _ => None,
                })
                .collect::<Option<_>>()
                .ok_or_else(|| io::Error::other("a peer is missing"))?;
            route += start.elapsed();
            let start = Instant::now();
            for sender in &senders {
                black_box(sender.seal(&sent, &mut out).map_err(io::Error::other)?);
                black_box(sender.session.note_sent(now));
            }
            seal += start.elapsed();
        }
        let each = |time: Duration| time.as_nanos() as f64 / (rounds * BATCH) as f64;
        Ok(Report {
            kind: "growth",
            members: options.members,
            peers: others.len() as u32,
            networks: options.networks + 1,
            route_ns: each(route),
            seal_ns: each(seal),
            find_ns: each(find),
            open_ns: each(open),
        })
    }
}

/// The number of the node that is measured.
const SELF: u32 = u32::MAX;

fn endpoint(node: u32, now: Instant) -> Endpoint {
    let mut config = EndpointConfig::new(Arc::new(identity(node)));
    (config.limits.handshakes_per_second, config.limits.handshake_burst) = (u32::MAX, u32::MAX);
    let mut endpoint = Endpoint::new(config, seed(node, 1), now, UNIX_TIME);
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
    Identity::from_seed(&seed(node, 0))
}

fn seed(node: u32, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    seed
}

/// A node's address in the networks.
fn address(node: u32) -> IpAddr {
    let [high, low] = [(node >> 16) as u16, node as u16];
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, high, low).into()
}

/// Where a node is.
fn place(node: u32) -> SocketAddr {
    let [_, b, c, d] = node.to_be_bytes();
    SocketAddr::from(([10, b, c, d], 4000))
}

fn meta(remote: SocketAddr) -> RecvMeta {
    RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }
}

/// A packet from this address (RFC 8200).
fn packet(source: IpAddr, size: usize) -> Vec<u8> {
    let mut packet = vec![0; size];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&((size - IPV6_HEADER) as u16).to_be_bytes());
    if let IpAddr::V6(source) = source {
        packet[8..24].copy_from_slice(&source.octets());
    }
    packet
}
