//! Tests of interfaces that verify checksums: they accept only right ones.

use std::time::Duration;

use proptest::prelude::*;

use crate::pair::*;
use peersock_stack::*;

/// Returns one packet of each kind from A to B, with checksums.
fn packets(ipv6: bool) -> (Pair, Vec<Vec<u8>>) {
    let mut pair = Pair::with(1, small_buffers(), true);
    let (a, _b) = pair.connected_with(ipv6, TcpOptions::default());
    pair.capture = Some(Vec::new());
    a.write(pair.now, &[5; 99]).unwrap();
    pair.kick(A, &a);
    let Host { stack, net, .. } = &pair.hosts[A];
    let mut buf = [0; 300];
    let udp = stack.udp_bind(Some(*net), address(A, ipv6, 53), UdpOptions::default()).unwrap();
    let route = udp.route(Some(address(B, ipv6, 53))).unwrap();
    let len = udp.send(pair.now, &route, &[6; 77], 1280, &mut buf).unwrap();
    let datagram = buf[..len].to_vec();
    let ping = stack.icmp_open(*net, ipv6).unwrap();
    let destination = address(B, ipv6, 0).ip();
    let request = EchoRequest { destination, sequence: 1, payload: &[7; 55], hop_limit: 64 };
    let len = ping.send(&request, 1280, &mut buf).unwrap();
    let echo = buf[..len].to_vec();
    let segment = pair.capture.take().unwrap().remove(0).1;
    (pair, vec![segment, datagram, echo])
}

/// Returns the number of packets that passed B's checksums.
fn accepted(pair: &Pair) -> u64 {
    let names = ["udp_no_socket", "icmp_echo_requests"];
    names.iter().map(|name| pair.counter(B, name)).sum()
}

#[test]
fn right_checksums_pass() {
    for ipv6 in [false, true] {
        let (mut pair, packets) = packets(ipv6);
        for packet in &packets {
            pair.inject(B, packet);
        }
        assert_eq!((accepted(&pair), pair.counter(B, "ip_checksum_errors")), (2, 0));
        pair.run_for(Duration::from_secs(1));
        assert_eq!(pair.counter(A, "ip_checksum_errors"), 0, "the answers' are right too");
    }
}

proptest! {
    /// RFC 1071: a single flipped bit always changes the sum. In IPv6, other layers protect traffic class,
    /// flow label, hop limit and length. A changed length truncates the packet, and so changes the sum.
    #[test]
    fn a_flipped_bit_is_noticed(ipv6: bool, which in 0usize..3, bit in 0usize..8 * 155) {
        let (mut pair, packets) = packets(ipv6);
        let mut packet = packets[which].clone();
        let at = bit / 8 % packet.len();
        prop_assume!(!ipv6 || !(at < 4 || at == 7));
        packet[at] ^= 1 << (bit % 8);
        // UDP over IPv4 may have no checksum, which a field of zero means.
        prop_assume!(which != 1 || ipv6 || packet[26..28] != [0, 0]);
        pair.inject(B, &packet);
        prop_assert_eq!(accepted(&pair), 0);
    }
}
