//! Tests of raw sockets.

use std::sync::Arc;

use crate::craft::*;
use crate::pair::*;
use peersock_stack::*;

fn open(pair: &Pair, side: usize, ipv6: bool, protocol: u8, options: RawOptions) -> Arc<RawSocket> {
    let host = &pair.hosts[side];
    host.stack.raw_open(Some(host.net), ipv6, protocol, options).unwrap()
}

/// Sends from A to B.
fn send(pair: &mut Pair, socket: &RawSocket, data: &[u8]) -> Result<(), Error> {
    let none = SendOptions::default();
    let route = socket.route(Some(address(B, socket.local().is_ipv6(), 0).ip()), &none)?;
    let mut buf = vec![0; MAX_DATAGRAM];
    let len = socket.send(&route, data, &none, pair.link.mtu, &mut buf)?;
    let Host { stack, net, .. } = &pair.hosts[A];
    let mut fragments = stack.fragments(*net, &buf[..len], pair.link.mtu).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = fragments.next(&mut buf) {
        packets.push(packet.to_vec());
    }
    packets.iter().for_each(|packet| pair.inject(B, packet));
    Ok(())
}

fn receive(socket: &RawSocket) -> Option<Vec<u8>> {
    let mut buf = vec![0; MAX_DATAGRAM];
    socket.recv_from(&mut buf).ok().map(|received| buf[..received.len].to_vec())
}

#[test]
fn packets_of_a_protocol_arrive_whole_with_ipv4_s_header_and_without_ipv6_s() {
    for ipv6 in [false, true] {
        let mut pair = Pair::with(1, Config::default(), true);
        let a = open(&pair, A, ipv6, 200, RawOptions::default());
        let [one, two] = [0, 0].map(|_| open(&pair, B, ipv6, 200, RawOptions::default()));
        let _other = open(&pair, B, ipv6, 201, RawOptions::default());
        for len in [0, 10, 3000] {
            let data: Vec<u8> = (0..len).map(pattern).collect();
            send(&mut pair, &a, &data).unwrap();
            for socket in [&one, &two] {
                assert!(socket.readiness().contains(Ready::READABLE));
                let packet = receive(socket).unwrap();
                assert_eq!(packet[if ipv6 { 0 } else { 20 }..], data);
            }
        }
        let mut buf = [0; 5];
        send(&mut pair, &a, &[7; 10]).unwrap();
        assert_eq!(one.peek_from(&mut buf), one.recv_from(&mut buf));
        let received = two.recv_from(&mut buf).unwrap();
        assert_eq!((received.source, received.destination), (address(A, ipv6, 0), address(B, ipv6, 0)));
        assert_eq!(
            (received.truncated, received.hop_limit, received.interface),
            (true, 64, pair.hosts[B].net)
        );
        assert_eq!(pair.counter(B, "ip_unknown_protocol"), 0);
        one.close();
        assert_eq!(one.recv_from(&mut buf), Err(Error::Closed));
        two.close();
        send(&mut pair, &a, b"x").unwrap();
        assert_eq!((pair.counter(B, "ip_unknown_protocol"), pair.counter(B, "icmp_errors_sent")), (1, 1));
    }
}

#[test]
fn copies_are_beside_normal_processing() {
    let mut pair = Pair::new(1);
    let raw = open(&pair, B, false, 17, RawOptions::default());
    let host = &pair.hosts[B];
    let socket = host.stack.udp_bind(None, "0.0.0.0:53".parse().unwrap(), UdpOptions::default()).unwrap();
    let packet = v4(B, &[], 0, 0, UDP, &udp(9, 53, b"x"));
    pair.inject(B, &packet);
    assert!(socket.recv_from(&mut [0; 1]).is_ok());
    let copy = receive(&raw).unwrap();
    assert_eq!(copy[20..], packet[20..]);
    assert_ne!(copy[10..12], [0, 0], "the header's checksum is filled in");
    // A raw socket's copy does not suppress the error for an unused port.
    pair.inject(B, &v4(B, &[], 0, 0, UDP, &udp(9, 54, b"x")));
    assert_eq!((receive(&raw).is_some(), pair.counter(B, "icmp_errors_sent")), (true, 1));
}

#[test]
fn addresses_and_filters_choose() {
    let mut pair = Pair::new(1);
    let mut icmp_filter = IcmpFilter::block_all();
    icmp_filter.pass(129);
    let filtered = open(&pair, B, true, 58, RawOptions { icmp_filter, ..RawOptions::default() });
    let all = open(&pair, B, true, 58, RawOptions::default());
    let message = |kind| [kind, 0, 0, 0, 0, 1, 0, 1];
    for kind in [128, 129] {
        pair.inject(B, &v6(B, 58, &message(kind)));
    }
    assert_eq!(receive(&filtered).map(|message| message[0]), Some(129));
    assert_eq!((receive(&filtered), [receive(&all), receive(&all)].iter().flatten().count()), (None, 2));

    let own = address(B, true, 0).ip();
    assert_eq!(all.bind(address(A, true, 0).ip()), Err(Error::AddrNotAvailable));
    assert_eq!(all.bind(address(B, false, 0).ip()), Err(Error::AddressFamily));
    assert_eq!((all.bind(own), all.local()), (Ok(()), own));
    assert_eq!(all.connect(Some(address(A, false, 0).ip())), Err(Error::AddressFamily));
    let stranger = "fd00::77".parse().unwrap();
    all.connect(Some(stranger)).unwrap();
    assert_eq!(all.peer(), Some(stranger));
    pair.inject(B, &v6(B, 58, &message(129)));
    assert_eq!(receive(&all), None);
    pair.inject(B, &v6_to(stranger, own, 58, &message(129)));
    assert!(receive(&all).is_some());
    assert_eq!(all.route(None, &SendOptions::default()).unwrap().destination, stranger);

    let group = "ff02::5".parse().unwrap();
    all.bind("::".parse().unwrap()).unwrap();
    let to_group = v6_to(stranger, group, 58, &message(129));
    pair.inject(B, &to_group);
    assert_eq!(receive(&all), None);
    all.join(None, group).unwrap();
    pair.inject(B, &to_group);
    assert!(receive(&all).is_some());
    all.leave(None, group).unwrap();
    pair.inject(B, &to_group);
    assert_eq!(receive(&all), None);
}

#[test]
fn headers_may_come_with_the_packet() {
    let mut pair = Pair::with(1, Config::default(), true);
    let options = RawOptions { header_included: true, ..RawOptions::default() };
    let a = open(&pair, A, false, 200, options);
    let b = open(&pair, B, false, 200, RawOptions::default());
    let mut packet = v4(B, &[1, 1, 1, 0], 0, 0x4000, 200, b"data");
    packet[2..4].fill(0);
    packet[12..16].fill(0);
    send(&mut pair, &a, &packet).unwrap();
    let received = receive(&b).unwrap();
    assert_eq!((&received[12..16], &received[24..]), (&[10, 0, 0, 1][..], &b"data"[..]));
    assert_ne!(received[4..6], [0, 0]);
    packet[12..16].copy_from_slice(&[10, 0, 0, 7]);
    assert_eq!(send(&mut pair, &a, &packet), Err(Error::AddrNotAvailable));
    packet[0] = 0x4f;
    assert_eq!(send(&mut pair, &a, &packet), Err(Error::InvalidInput));
    assert_eq!(send(&mut pair, &a, &[0x45; 10]), Err(Error::InvalidInput));
    assert_eq!(send(&mut pair, &a, b""), Err(Error::InvalidInput));
    assert_eq!(send(&mut pair, &a, &[0x45; 2000]), Err(Error::MessageSize));
    let raw = open(&pair, A, false, 255, RawOptions::default());
    assert!(raw.options().header_included);
}

#[test]
fn checksums_are_filled_in_and_verified() {
    let mut pair = Pair::with(1, Config::default(), true);
    let options = RawOptions { checksum_offset: Some(4), ..RawOptions::default() };
    let [a, b] = [A, B].map(|side| open(&pair, side, true, 200, options));
    let [plain_a, plain_b] = [A, B].map(|side| open(&pair, side, true, 200, RawOptions::default()));
    send(&mut pair, &a, &[1; 8]).unwrap();
    let with = receive(&b).unwrap();
    assert_ne!(with[4..6], [1, 1]);
    assert_eq!(receive(&plain_b), Some(with));
    send(&mut pair, &plain_a, &[1; 8]).unwrap();
    assert_eq!((receive(&b), receive(&plain_b)), (None, Some(vec![1; 8])));
    assert_eq!(send(&mut pair, &a, &[1; 5]), Err(Error::InvalidInput));
    let odd = RawOptions { checksum_offset: Some(3), ..RawOptions::default() };
    assert_eq!(a.set_options(odd), Err(Error::InvalidInput));
    // The ICMPv6 checksum is always verified.
    let [a, b] = [A, B].map(|side| open(&pair, side, true, 58, RawOptions::default()));
    send(&mut pair, &a, &[129, 0, 0, 0, 0, 1, 0, 1]).unwrap();
    let message = receive(&b).unwrap();
    assert_ne!(message[2..4], [0, 0]);
    pair.inject(B, &v6(B, 58, &[129, 0, 0, 0, 0, 1, 0, 1]));
    assert_eq!(receive(&b), None);
}

#[test]
fn a_raw_socket_hears_of_errors_and_its_queue_is_bounded() {
    let mut pair = Pair::new(1);
    let ip = IpOptions { receive_errors: true, ..IpOptions::default() };
    let options = RawOptions { ip, receive_buffer: Some(1000), ..RawOptions::default() };
    let socket = open(&pair, A, true, 200, options);
    let deaf = open(&pair, A, true, 200, RawOptions::default());
    let quoted = [v6(B, 200, &[7; 20])].concat();
    pair.inject(A, &icmp_error(A, [4, 1], 6, &quoted));
    assert_eq!(socket.take_error(), Some(Error::Protocol));
    let mut buf = [0; 100];
    let report = socket.recv_error(&mut buf).unwrap();
    assert_eq!((report.info, report.len, report.destination.ip()), (6, 20, address(B, true, 0).ip()));
    pair.inject(A, &icmp_error(A, [2, 0], 1300, &quoted));
    assert_eq!(socket.take_error(), Some(Error::MessageSize));
    assert_eq!((deaf.take_error(), deaf.recv_error(&mut buf)), (None, Err(Error::WouldBlock)));
    let net = pair.hosts[A].net;
    assert_eq!(pair.hosts[A].stack.path_mtu(net, report.destination.ip()), Some(1300));
    for _ in 0..10 {
        pair.inject(A, &v6(A, 200, &[1; 200]));
    }
    assert_eq!((pair.counter(A, "raw_received"), pair.counter(A, "raw_queue_overflows")), (3 + 10, 7));
    pair.hosts[A].stack.remove_interface(pair.now, net, &mut Batch::new());
    assert_eq!(socket.recv_from(&mut buf), Err(Error::NetworkDown));
}
