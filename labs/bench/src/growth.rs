//! Benchmark of how the cost of a packet grows with the network's members, the peers with sessions, and the
//! node's networks. It covers the overlay's part, without a stack and without a kernel. `cargo xtask bench
//! tcp --only cpu` includes flows.
//!
//! One node is measured. Its peers are in this process, and are only keys. Packets come from and go to them
//! in a random order, so that the processor's caches hold only what fits.

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use clap::Args;
use peersock_overlay::{DATA_OVERHEAD, Opened, Route, data_index};
use peersock_testnet::{Adversary, Crowd, Random};
use serde::Serialize;

/// Options of this benchmark.
#[derive(Args)]
pub(crate) struct Options {
    /// Number of members of the network, besides the measured node
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    members: u32,
    /// Number of members that have a session with the measured node [default: all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    peers: Option<u32>,
    /// Number of other networks that the node is in, each of the same size
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=63))]
    networks: u32,
    /// Size of a packet in bytes
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u16).range(40..=1400))]
    size: u16,
    /// Number of packets in each direction
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1000..))]
    packets: u32,
}

/// The printed result. All times are of the node alone, in nanoseconds per packet.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    members: u32,
    peers: u32,
    networks: u32,
    /// Time to find the peer of an address, and the peer's session.
    route_ns: f64,
    /// Time to seal a packet.
    seal_ns: f64,
    /// Time to find the session of a datagram.
    find_ns: f64,
    /// Time to open a packet, with the replay window and the check that the peer may send it.
    open_ns: f64,
}

/// Number of packets prepared before the clock runs.
const BATCH: usize = 256;

/// Measures, and prints one JSON object.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let peers = options.peers.unwrap_or(options.members);
    if peers > options.members {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "--peers is more than --members"));
    }
    #[allow(clippy::disallowed_methods, reason = "the cores take the time as an argument: any will do")]
    let now = Instant::now();
    let mut crowd = Crowd::new(now, options.members, options.networks).map_err(io::Error::other)?;
    let meet = |peer| {
        crowd.meet(now, peer).ok_or_else(|| io::Error::other(format!("there is no session with peer {peer}")))
    };
    let mut others = (0..peers).map(meet).collect::<io::Result<Vec<_>>>()?;
    let report = measure(&crowd, now, options, &mut others)?;
    println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
    Ok(())
}

/// Measures the node alone.
fn measure(crowd: &Crowd, now: Instant, options: &Options, others: &mut [Adversary]) -> io::Result<Report> {
    let mut random = Random::from_seed(1);
    let size = usize::from(options.size);
    let sent = Crowd::packet(Crowd::own_address(), size);
    let [mut route, mut seal, mut find, mut open] = [Duration::ZERO; 4];
    let mut out = vec![0; size + DATA_OVERHEAD];
    let (routes, table) = (crowd.endpoint.routes(), crowd.endpoint.sessions());
    let rounds = options.packets as usize / BATCH;
    for _ in 0..rounds {
        let turn: Vec<u32> = (0..BATCH).map(|_| random.below(others.len()) as u32).collect();
        let datagrams: Vec<_> = turn
            .iter()
            .map(|peer| others[*peer as usize].seal(&Crowd::packet(Crowd::address(*peer), size)))
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
            let Opened::Packet(length) = session.open(datagram, &mut out).map_err(io::Error::other)? else {
                return Err(io::Error::other("no packet"));
            };
            let source: [u8; 16] = out[8..24].try_into().map_err(io::Error::other)?;
            if length != size || !session.peer().owns(Ipv6Addr::from(source).into()) {
                return Err(io::Error::other("another packet"));
            }
            black_box(session.note_received(now, &Crowd::meta(0)));
        }
        open += start.elapsed();
        let addresses: Vec<IpAddr> = turn.iter().map(|peer| Crowd::address(*peer)).collect();
        let start = Instant::now();
        let senders: Vec<_> = addresses
            .iter()
            .map(|address| match routes.get(crowd.network, *address) {
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
