//! Tests of the limits on memory that peers can occupy at a node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::craft::{UDP, sent_by, udp, v4};
use crate::pair::*;
use peersock_stack::*;

const MIB: usize = 1 << 20;

/// Address family of the honest peer; the attack uses A's address of the other family, IPv6.
const HONEST: bool = false;

fn config() -> Config {
    Config { tcp_memory: 16 * MIB, tcp_memory_per_peer: 8 * MIB, ..Config::default() }
}

/// Returns options for a port that already has connections.
fn again() -> TcpOptions {
    TcpOptions { reuse_address: true, ..TcpOptions::default() }
}

/// Returns the bytes that flows may hold beyond the limit, plus the last segment or write before the limit.
fn over(flows: usize) -> usize {
    flows * 4096 + 16_384
}

/// Returns the memory that B's queues occupy.
fn used(pair: &Pair) -> usize {
    pair.hosts[B].stack.tcp_memory()
}

/// Opens `count` connections from A to B over IPv6. Returns B's flows, each with the headers of A's next
/// segment. Every packet sent afterwards is lost.
fn besiege(pair: &mut Pair, count: usize) -> Vec<(Arc<Flow>, Vec<u8>)> {
    pair.capture = Some(Vec::new());
    let listener = pair.listen_with(B, 80, 4096, TcpOptions::default());
    let attempts: Vec<_> = (0..count).map(|_| pair.connect(A, 80)).collect();
    let mut accepted = Vec::new();
    pair.run(Duration::from_secs(60), |pair| {
        accepted.extend(std::iter::from_fn(|| listener.accept(pair.now).ok()));
        accepted.len() == count && attempts.iter().all(|flow| flow.readiness().contains(Ready::CONNECTED))
    });
    listener.close(pair.now);
    let sent =
        pair.capture.take().unwrap().into_iter().filter(|(side, packet)| *side == A && packet[53] == 0x10);
    let headers: BTreeMap<u16, Vec<u8>> = sent
        .map(|(_, mut packet)| {
            packet.truncate(60);
            packet[52..54].copy_from_slice(&[0x50, 0x18]);
            (u16::from_be_bytes([packet[40], packet[41]]), packet)
        })
        .collect();
    pair.link.loss = 1000;
    accepted.into_iter().map(|flow| (flow.clone(), headers[&flow.remote().port()].clone())).collect()
}

/// Returns a segment that leaves a gap of `ahead` bytes.
fn segment(header: &[u8], ahead: u32, payload: usize) -> Vec<u8> {
    let mut packet = header.to_vec();
    let seq = u32::from_be_bytes(packet[44..48].try_into().unwrap());
    packet[44..48].copy_from_slice(&seq.wrapping_add(ahead).to_be_bytes());
    packet[4..6].copy_from_slice(&(20 + payload as u16).to_be_bytes());
    packet.resize(60 + payload, 7);
    packet
}

/// Checks that connections continue while memory is short: one of the same peer, and one of another peer that
/// also recovers from losses.
fn check_that_others_go_on(pair: &mut Pair, victim: &(Arc<Flow>, Vec<u8>)) {
    let before = victim.0.readable();
    let mut buf = vec![0; 1 << 20];
    if before > 0 {
        assert_eq!(victim.0.read(pair.now, &mut buf), Ok(before));
    }
    pair.inject(B, &segment(&victim.1, before as u32, 1000));
    assert_eq!(victim.0.read(pair.now, &mut buf), Ok(1000), "what continues a queue is taken");
    pair.link.loss = 20;
    let (a, b) = pair.connected_with(HONEST, again());
    let took = pair.transfer(A, &a, &b, MIB);
    assert!(took < Duration::from_secs(60), "{took:?}");
    pair.link.loss = 1000;
}

#[test]
fn data_out_of_order_is_bounded_for_each_peer() {
    let mut pair = Pair::with(1, config(), false);
    let flows = besiege(&mut pair, 2000);
    for piece in 0..4 {
        for (_, header) in &flows {
            pair.inject(B, &segment(header, 2000 + piece * 60_000, 60_000));
            assert!(used(&pair) <= 8 * MIB, "{} bytes", used(&pair));
        }
    }
    assert!(used(&pair) >= 6 * MIB, "nothing is refused before memory is short");
    assert!(pair.counter(B, "tcp_memory_refused") > 3000);
    // A connection whose data waits behind a gap gets the missing segment.
    let (first, header) = &flows[0];
    pair.inject(B, &segment(header, 0, 2000));
    assert_eq!(first.readable(), 62_000);
    check_that_others_go_on(&mut pair, &flows[1999]);
    // Data whose gap is never filled is dropped.
    pair.run_for(Duration::from_secs(100));
    assert!(used(&pair) < 6 * MIB, "{} bytes", used(&pair));
    assert!(pair.counter(B, "tcp_memory_pruned") > 0);
    assert_eq!(pair.counter(B, "tcp_memory_resets"), 0);
}

/// Each single byte makes a piece, which costs more memory than the byte.
#[test]
fn crumbs_are_accounted_for_what_they_cost() {
    let mut pair = Pair::with(1, config(), false);
    let flows = besiege(&mut pair, 50);
    for crumb in 0..3000 {
        for (_, header) in &flows {
            pair.inject(B, &segment(header, 2 + 2 * crumb, 1));
        }
    }
    let pieces = (150_000 - pair.counter(B, "tcp_memory_refused")) as usize;
    assert!(used(&pair) > pieces * 48, "{} bytes for {pieces} pieces", used(&pair));
    assert!(used(&pair) <= 8 * MIB);
}

#[test]
fn data_that_nobody_reads_is_bounded_and_given_up() {
    let mut pair = Pair::with(1, config(), false);
    let flows = besiege(&mut pair, 1000);
    for piece in 0..4 {
        for (flow, header) in &flows {
            let next = flow.readable() as u32;
            pair.inject(B, &segment(header, next, 15_000));
            assert!(used(&pair) <= 8 * MIB + over(flows.len()), "{} bytes after {piece}", used(&pair));
        }
    }
    assert!(used(&pair) >= 8 * MIB - 16_384, "as much is taken as there is room for");
    assert!(flows.iter().all(|(flow, _)| flow.readable() >= 4096), "each has its least");
    check_that_others_go_on(&mut pair, &flows[999]);
    pair.run_for(Duration::from_secs(800));
    assert_eq!(pair.counter(B, "tcp_memory_resets"), 0, "an application may take its time");
    pair.run_for(Duration::from_secs(300));
    assert!(used(&pair) < 6 * MIB, "{} bytes", used(&pair));
    assert!(pair.counter(B, "tcp_memory_resets") > 0);
    // A late reader learns that data is missing.
    let lost = flows.iter().filter(|(flow, _)| flow.read(pair.now, &mut [0; 10]) == Err(Error::OutOfMemory));
    assert_eq!(lost.count() as u64, pair.counter(B, "tcp_memory_resets"));
}

/// Unread data of connections that the peer has reset still counts against the peer.
#[test]
fn what_ended_connections_have_left_counts() {
    let mut pair = Pair::with(1, config(), false);
    let flows = besiege(&mut pair, 300);
    let attack = |pair: &mut Pair, flows: &[(Arc<Flow>, Vec<u8>)]| {
        for (flow, header) in flows {
            pair.inject(B, &segment(header, 0, 60_000));
            let next = flow.readable() as u32;
            let mut reset = segment(header, next, 0);
            reset[53] = 0x14;
            pair.inject(B, &reset);
            assert_eq!((flow.state(), flow.readable()), (State::Closed, next as usize));
        }
    };
    attack(&mut pair, &flows);
    assert_eq!(pair.hosts[B].stack.flows(), 0);
    let left = used(&pair);
    assert!((6 * MIB..=8 * MIB + over(300)).contains(&left), "{left} bytes");
    pair.restart(A, 2);
    pair.link.loss = 0;
    let again = besiege(&mut pair, 300);
    attack(&mut pair, &again);
    assert!(used(&pair) <= 8 * MIB + over(600), "{} bytes", used(&pair));
    drop((flows, again));
    assert_eq!(used(&pair), 0);
}

/// An application writes to peers that do not read.
#[test]
fn data_that_nobody_acknowledges_is_bounded() {
    let mut pair = Pair::with(1, config(), false);
    let flows = besiege(&mut pair, 1000);
    let data = vec![1; 16_384];
    for _ in 0..16 {
        for (flow, _) in &flows {
            // The queue fills up sooner or later.
            let _ = flow.write(pair.now, &data);
            assert!(used(&pair) <= 8 * MIB + over(flows.len()), "{} bytes", used(&pair));
        }
    }
    pair.link.loss = 0;
    let (a, b) = pair.connected_with(HONEST, again());
    pair.transfer(B, &b, &a, MIB);
}

#[test]
fn new_connections_begin_small_while_memory_is_short() {
    for short in [false, true] {
        let mut pair = Pair::with(1, config(), false);
        let flows = besiege(&mut pair, 200);
        if short {
            flows.iter().for_each(|(_, header)| pair.inject(B, &segment(header, 2000, 60_000)));
        }
        pair.link.loss = 0;
        pair.capture = Some(Vec::new());
        let listener = pair.listen(B, 81);
        let flow = pair.connect(A, 81);
        pair.run(Duration::from_secs(5), |_| flow.readiness().contains(Ready::CONNECTED));
        let sent = pair.capture.take().unwrap();
        let (_, answer) = sent.iter().find(|(side, packet)| *side == B && packet[53] == 0x12).unwrap();
        let window = u16::from_be_bytes([answer[54], answer[55]]);
        assert_eq!(window, if short { 16_384 } else { 65_535 });
        drop(listener);
    }
}

/// A routing table where one router owns 10.7.0.0/16.
struct OneRouter;

impl Owners for OneRouter {
    fn owner(&self, _: InterfaceId, address: IpAddr) -> Option<IpAddr> {
        let IpAddr::V4(v4) = address else { return None };
        v4.octets().starts_with(&[10, 7]).then_some(address_of_router())
    }
}

fn address_of_router() -> IpAddr {
    IpAddr::from([10, 7, 0, 1])
}

/// All addresses of a peer's block share the limits of one peer.
#[test]
fn the_addresses_of_one_peer_share_its_limits() {
    let config = Config {
        max_flows_per_peer: 3,
        reassembly_memory_per_source: 10_000,
        icmp_errors_per_prefix: 3,
        ..Config::default()
    };
    let mut pair = Pair::with(1, config, false);
    pair.hosts[B].stack.set_owners(Arc::new(OneRouter));
    let any = "0.0.0.0:80".parse().unwrap();
    let Host { stack, net, .. } = &pair.hosts[B];
    let _listener = stack.tcp_listen(pair.now, Some(*net), any, 128, TcpOptions::default()).unwrap();
    let syn = |ident: u16| {
        let header = [0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
        v4(B, &[], ident, 0, 6, &header)
    };
    pair.link.loss = 1000;
    let source = |second: u8, last: u8| IpAddr::from([10, second, 1, last]);
    for last in 1..=10 {
        pair.inject(B, &sent_by(source(7, last), syn(0)));
    }
    assert_eq!((pair.hosts[B].stack.flows(), pair.counter(B, "tcp_flow_limit")), (3, 7));
    for last in 1..=10 {
        pair.inject(B, &sent_by(source(8, last), syn(0)));
    }
    assert_eq!((pair.hosts[B].stack.flows(), pair.counter(B, "tcp_flow_limit")), (13, 7), "of nobody known");
    // Fragments.
    for last in 1..=20 {
        pair.inject(B, &sent_by(source(8, last), v4(B, &[], 1, 0x2000, UDP, &[0; 1000])));
    }
    assert_eq!(pair.counter(B, "ip_reassembly_evictions"), 0);
    for last in 1..=20 {
        pair.inject(B, &sent_by(source(7, last), v4(B, &[], 1, 0x2000, UDP, &[0; 1000])));
    }
    assert!(pair.counter(B, "ip_reassembly_evictions") >= 12, "ten kilobytes hold seven of them");
    // ICMP errors.
    for last in 1..=10 {
        pair.inject(B, &sent_by(source(7, last), v4(B, &[], 1, 0, UDP, &udp(9, 99, b"x"))));
    }
    assert_eq!((pair.counter(B, "icmp_errors_sent"), pair.counter(B, "icmp_rate_limited")), (3, 7));
}

#[test]
fn a_peer_opens_so_many_connections_and_no_more() {
    let mut pair = Pair::with(1, Config { max_flows_per_peer: 3, ..Config::default() }, false);
    let _listener = pair.listen_with(B, 80, 128, TcpOptions::default());
    let any = "0.0.0.0:80".parse().unwrap();
    let Host { stack, net, .. } = &pair.hosts[B];
    let _v4 = stack.tcp_listen(pair.now, Some(*net), any, 128, TcpOptions::default()).unwrap();
    let flows: Vec<_> = (0..5).map(|_| pair.connect(A, 80)).collect();
    let established = |flow: &&Arc<Flow>| flow.state() == State::Established;
    pair.run_for(Duration::from_millis(500));
    assert_eq!(flows.iter().filter(established).count(), 3);
    assert_eq!(pair.counter(B, "tcp_flow_limit"), 2);
    // The stack treats the other address as another peer.
    let other = pair.connect_with(A, address(B, HONEST, 80), TcpOptions::default()).unwrap();
    pair.run_for(Duration::from_millis(500));
    assert_eq!(other.state(), State::Established);
    // A place given back goes to another connection.
    let first = flows.iter().find(established).unwrap();
    first.abort(pair.now);
    pair.kick(A, first);
    pair.run_for(Duration::from_secs(10));
    assert_eq!(flows.iter().filter(established).count(), 3);
}
