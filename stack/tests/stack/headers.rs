//! Tests of IPv4 options and IPv6 extension headers.

use std::net::IpAddr;
use std::time::Duration;

use crate::craft::*;
use crate::pair::*;
use peersock_stack::*;

/// Six bytes of padding that fill an extension header.
const PAD: [u8; 6] = [1, 4, 0, 0, 0, 0];

fn bind(pair: &Pair, ipv6: bool) -> std::sync::Arc<UdpSocket> {
    let host = &pair.hosts[B];
    host.stack.udp_bind(Some(host.net), address(B, ipv6, 53), UdpOptions::default()).unwrap()
}

/// Returns B's ICMP answer to a packet: type, code and the four bytes behind the checksum.
fn answer(pair: &mut Pair, packet: &[u8]) -> Option<[u8; 6]> {
    pair.capture = Some(Vec::new());
    pair.inject(B, packet);
    let answers = pair.capture.take().unwrap();
    assert!(answers.len() <= 1);
    let (_, answer) = answers.first()?;
    let at = if answer[0] >> 4 == 4 { 20 } else { 40 };
    assert_eq!(answer[at + 8..], packet[..packet.len().min(answer.len() - at - 8)], "quotes the packet");
    Some([0, 1, 4, 5, 6, 7].map(|byte| answer[at + byte]))
}

#[test]
fn a_datagram_behind_extension_headers_arrives() {
    let mut pair = Pair::new(1);
    let socket = bind(&pair, true);
    let chain = [
        [DESTINATION_OPTIONS, 0].as_slice(),
        &PAD,
        &[FRAGMENT, 0],
        &PAD,
        &fragment_header(ROUTING, 7, 0, false),
        &[UDP, 0, 0, 0, 0, 0, 0, 0],
        &udp(1, 53, b"hello"),
    ];
    pair.inject(B, &v6(B, HOP_BY_HOP, &chain.concat()));
    let mut buf = [0; 10];
    assert_eq!(socket.recv_from(&mut buf).unwrap().len, 5);
    assert_eq!(&buf[..5], b"hello");
}

#[test]
fn a_connection_behind_extension_headers_and_options() {
    let mut pair = Pair::new(1);
    let _listener = pair.listen(B, 80);
    pair.capture = Some(Vec::new());
    let flow = pair.connect(A, 80);
    let syn = pair.capture.take().unwrap().remove(0).1;
    let chain = [[6, 0].as_slice(), &PAD, &syn[40..]].concat();
    pair.inject(B, &v6(B, DESTINATION_OPTIONS, &chain));
    pair.run(Duration::from_secs(1), |_| flow.readiness().contains(Ready::CONNECTED));
}

#[test]
fn problems_are_reported_where_the_standard_says() {
    let mut pair = Pair::new(1);
    let _socket = bind(&pair, true);
    let datagram = udp(1, 53, b"x");
    let with_option = |kind: u8| [[UDP, 0, kind, 4].as_slice(), &[0; 4], &datagram].concat();
    let route = |left| [&[UDP, 2, 0, left], &[0; 20][..], &datagram].concat();
    for (next, payload, expected) in [
        (ROUTING, route(1), Some([4, 0, 0, 0, 0, 42])),
        (ROUTING, route(0), None),
        (DESTINATION_OPTIONS, with_option(0x1e), None),
        (DESTINATION_OPTIONS, with_option(0x5e), None),
        (DESTINATION_OPTIONS, with_option(0x9e), Some([4, 2, 0, 0, 0, 42])),
        (DESTINATION_OPTIONS, with_option(0xde), Some([4, 2, 0, 0, 0, 42])),
        (DESTINATION_OPTIONS, [[0, 0].as_slice(), &PAD, &datagram].concat(), Some([4, 1, 0, 0, 0, 40])),
        (59, vec![], None),
        (59, datagram.clone(), None),
        (200, datagram.clone(), Some([4, 1, 0, 0, 0, 6])),
        (DESTINATION_OPTIONS, [[200, 0].as_slice(), &PAD, &datagram].concat(), Some([4, 1, 0, 0, 0, 40])),
        // An ICMP error is never answered.
        (DESTINATION_OPTIONS, [[58, 0, 0xde, 4].as_slice(), &[0; 4], &[1; 8]].concat(), None),
    ] {
        let packet = v6(B, next, &payload);
        assert_eq!(answer(&mut pair, &packet), expected, "{next} {payload:?}");
    }
    // Received: the packet with option 0x1e and the packet whose route has ended.
    assert_eq!(pair.counter(B, "udp_received"), 2);
}

#[test]
fn ipv4_options_are_skipped_but_no_source_route_is() {
    let mut pair = Pair::new(1);
    let _socket = bind(&pair, false);
    let datagram = udp(1, 53, b"x");
    for (options, expected, received) in [
        (&[148, 4, 0, 0][..], None, 1),
        (&[1, 1, 1, 0], None, 2),
        (&[131, 3, 4, 0], None, 2),
        (&[137, 3, 4, 0], None, 2),
        (&[7, 9, 4, 0], Some([12, 0, 21, 0, 0, 0]), 2),
    ] {
        assert_eq!(answer(&mut pair, &v4(B, options, 0, 0, UDP, &datagram)), expected, "{options:?}");
        assert_eq!(pair.counter(B, "udp_received"), received);
    }
    assert_eq!(pair.counter(B, "ip_options_refused"), 3);
}

/// Returns a SYN from port 999 to port 80, and listeners of B on port 80 in both families.
fn syn_and_listeners(pair: &Pair) -> (Vec<u8>, [std::sync::Arc<Listener>; 2]) {
    let Host { stack, net, .. } = &pair.hosts[B];
    let listen = |ipv6| {
        stack.tcp_listen(pair.now, Some(*net), address(B, ipv6, 80), 8, TcpOptions::default()).unwrap()
    };
    let ports = [999u16, 80].map(u16::to_be_bytes);
    let rest = [0, 0, 0, 9, 0, 0, 0, 0, 5 << 4, 2, 255, 255, 0, 0, 0, 0];
    ([ports.as_flattened(), &rest].concat(), [listen(false), listen(true)])
}

/// RFC 9293 MUST-51 to MUST-53 ask for source routes; RFC 5095 and RFC 7126 forbid them, so the stack refuses
/// them.
#[test]
fn a_connection_with_a_source_route_is_refused() {
    let mut pair = Pair::new(1);
    let (syn, _listeners) = syn_and_listeners(&pair);
    let IpAddr::V4(router) = address(A, false, 0).ip() else { panic!("asked for IPv4") };
    // Loose and strict routes, unfinished and at their end.
    for (kind, pointer) in [(131, 4), (137, 4), (131, 8), (137, 8)] {
        let options = [&[kind, 7, pointer][..], &router.octets(), &[0]].concat();
        assert_eq!(answer(&mut pair, &v4(B, &options, 0, 0, 6, &syn)), None);
    }
    assert_eq!((pair.hosts[B].stack.flows(), pair.counter(B, "ip_options_refused")), (0, 4));
    // Types 0 (RFC 2460), 2 (RFC 6275) and 4 (RFC 8754), with a segment left.
    for kind in [0, 2, 4] {
        let route = [&[6, 2, kind, 1, 0, 0, 0, 0][..], &[0xfd; 16], &syn].concat();
        assert_eq!(answer(&mut pair, &v6(B, ROUTING, &route)), Some([4, 0, 0, 0, 0, 42]));
    }
    assert_eq!(pair.hosts[B].stack.flows(), 0);
}

/// An ended route is ignored (RFC 8200 4.4), and the answer does not reverse it.
#[test]
fn answers_take_no_source_route() {
    let mut pair = Pair::new(1);
    let (syn, _listeners) = syn_and_listeners(&pair);
    let route = [&[6, 2, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16], &syn].concat();
    for packet in [v6(B, ROUTING, &route), v4(B, &[1, 1, 1, 0], 0, 0, 6, &syn)] {
        pair.capture = Some(Vec::new());
        pair.inject(B, &packet);
        let answers = pair.capture.take().unwrap();
        let (_, answer) = answers.first().expect("a SYN-ACK");
        let ipv6 = answer[0] >> 4 == 6;
        let (plain, next) = if ipv6 { (0x60, answer[6]) } else { (0x45, answer[9]) };
        assert_eq!((answer[0], next), (plain, 6), "TCP right behind a header without options");
        let to = address(A, ipv6, 0).ip();
        let destination = if ipv6 { answer[24..40].to_vec() } else { answer[16..20].to_vec() };
        let expected = match to {
            IpAddr::V4(to) => to.octets().to_vec(),
            IpAddr::V6(to) => to.octets().to_vec(),
        };
        assert_eq!(destination, expected);
    }
}

#[test]
fn an_unknown_protocol_is_unreachable() {
    let mut pair = Pair::new(1);
    assert_eq!(answer(&mut pair, &v4(B, &[], 0, 0, 200, b"x")), Some([3, 2, 0, 0, 0, 0]));
    assert_eq!(answer(&mut pair, &v4(B, &[], 0, 0, 58, b"x")), Some([3, 2, 0, 0, 0, 0]), "ICMPv6 over IPv4");
    assert_eq!(pair.counter(B, "ip_unknown_protocol"), 2);
}

#[test]
fn a_host_takes_packets_at_the_end_of_their_hops() {
    // RFC 1122 3.2.1.7: only a forwarder checks the hop limit.
    let mut pair = Pair::new(1);
    for ipv6 in [false, true] {
        let socket = bind(&pair, ipv6);
        for hop_limit in [0, 1, 255] {
            let datagram = udp(1, 53, b"x");
            let mut packet = if ipv6 { v6(B, UDP, &datagram) } else { v4(B, &[], 0, 0, UDP, &datagram) };
            packet[if ipv6 { 7 } else { 8 }] = hop_limit;
            pair.inject(B, &packet);
            assert_eq!(socket.recv_from(&mut [0; 1]).unwrap().hop_limit, hop_limit);
        }
    }
}
