//! Tests of IPv6 extension headers of sent and received datagrams.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;

use crate::craft::*;
use crate::pair::*;
use peersock_stack::*;

/// Returns an options header of `eighths` times eight bytes, with options that hosts skip.
fn options(eighths: u8) -> Vec<u8> {
    let mut header = vec![0, eighths - 1];
    let len = 8 * usize::from(eighths);
    while header.len() < len {
        // The rest is never a single byte, because an option has at least two.
        let data = (len - header.len() - 2).min(200);
        header.extend([0x1e, data as u8]);
        header.resize(header.len() + data, eighths);
    }
    header
}

/// Returns a route of RFC 8754 with `left` segments left.
fn route(left: u8, segments: &[Ipv6Addr]) -> Vec<u8> {
    let mut header = vec![0, 2 * segments.len() as u8, 4, left, segments.len() as u8 - 1, 0, 0, 0];
    segments.iter().for_each(|segment| header.extend(segment.octets()));
    header
}

fn v6_address(side: usize) -> Ipv6Addr {
    match address(side, true, 0).ip() {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => panic!("asked for IPv6"),
    }
}

fn headers(parts: HeaderParts<'_>) -> ExtensionHeaders {
    ExtensionHeaders::new(&parts).unwrap().unwrap()
}

fn wants_headers() -> IpOptions {
    IpOptions { receive_headers: true, ..IpOptions::default() }
}

fn bind(pair: &Pair, side: usize) -> Arc<UdpSocket> {
    let host = &pair.hosts[side];
    let options = UdpOptions { ip: wants_headers(), ..UdpOptions::default() };
    host.stack.udp_bind(Some(host.net), address(side, true, 53), options).unwrap()
}

/// Cuts a packet of one of A's sockets, as its driver does, delivers the parts to B and returns them.
fn deliver(pair: &mut Pair, buf: &mut [u8], len: usize) -> Vec<Vec<u8>> {
    let Host { stack, net, .. } = &pair.hosts[A];
    let mut fragments = stack.fragments(*net, &buf[..len], pair.link.mtu).unwrap();
    let (announced, mut packets) = (fragments.packets(), Vec::new());
    while let Some(packet) = fragments.next(buf) {
        assert!(packet.len() <= pair.link.mtu);
        packets.push(packet.to_vec());
    }
    assert_eq!(packets.len(), announced);
    packets.iter().for_each(|packet| pair.inject(B, packet));
    packets
}

fn send(
    pair: &mut Pair,
    socket: &UdpSocket,
    data: &[u8],
    headers: &ExtensionHeaders,
) -> Result<usize, Error> {
    let options = SendOptions { headers: Some(headers), ..SendOptions::default() };
    let route = socket.route_with(Some(address(B, true, 53)), &options)?;
    let mut buf = vec![0; MAX_DATAGRAM];
    let len = socket.send_with(pair.now, &route, data, &options, pair.link.mtu, &mut buf)?;
    assert_eq!(socket.check_length(&route, data.len(), &options, pair.link.mtu), Ok(()));
    Ok(deliver(pair, &mut buf, len).len())
}

/// Returns the payload of the next datagram, and its headers without the next-header byte.
fn receive(socket: &UdpSocket) -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
    let (mut buf, mut headers) = (vec![0; MAX_DATAGRAM], ReceivedHeaders::default());
    let received = socket.recv_with_headers(&mut buf, &mut headers).unwrap();
    buf.truncate(received.len);
    (buf, headers.iter().map(|(kind, header)| (kind, header[1..].to_vec())).collect())
}

#[test]
fn a_datagram_comes_with_the_headers_it_was_sent_with() {
    for checksums in [false, true] {
        let mut pair = Pair::with(1, Config::default(), checksums);
        let [a, b] = [bind(&pair, A), bind(&pair, B)];
        let [hop_by_hop, before, destination] = [1, 2, 40].map(options);
        let routing = route(0, &[v6_address(B), "fd00::c".parse().unwrap()]);
        let sent = headers(HeaderParts {
            hop_by_hop: Some(&hop_by_hop),
            before_routing: Some(&before),
            routing: Some(&routing),
            destination: Some(&destination),
        });
        // Whole, and in fragments.
        for (len, packets) in [(5, 1), (5000, 5)] {
            let data: Vec<u8> = (0..len).map(pattern).collect();
            assert_eq!(send(&mut pair, &a, &data, &sent), Ok(packets));
            let (got, shown) = receive(&b);
            assert_eq!(got, data);
            let expected = [
                (HOP_BY_HOP, &hop_by_hop),
                (DESTINATION_OPTIONS, &before),
                (ROUTING, &routing),
                (DESTINATION_OPTIONS, &destination),
            ];
            assert_eq!(shown, expected.map(|(kind, header)| (kind, header[1..].to_vec())));
        }
        // A socket without the option, or with it switched off again, gets the data alone.
        assert_eq!(send(&mut pair, &a, b"kept", &sent), Ok(1));
        assert_eq!(b.recv_from(&mut [0; 9]).unwrap().len, 4);
        b.set_ip_options(IpOptions::default()).unwrap();
        assert_eq!(send(&mut pair, &a, b"not kept", &sent), Ok(1));
        assert_eq!(receive(&b), (b"not kept".to_vec(), Vec::new()));
    }
}

#[test]
fn fragments_have_the_headers_in_front_of_theirs_and_the_first_the_rest() {
    let mut pair = Pair::new(1);
    let [a, b] = [bind(&pair, A), bind(&pair, B)];
    let [hop_by_hop, destination] = [3, 4].map(options);
    let sent = headers(HeaderParts {
        hop_by_hop: Some(&hop_by_hop),
        destination: Some(&destination),
        ..HeaderParts::default()
    });
    let with = SendOptions { headers: Some(&sent), ..SendOptions::default() };
    let route = a.route_with(Some(b.local()), &with).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM];
    let len = a.send_with(pair.now, &route, &[7; 3000], &with, pair.link.mtu, &mut buf).unwrap();
    let packets = deliver(&mut pair, &mut buf, len);
    assert_eq!(packets.len(), 3);
    for (at, packet) in packets.iter().enumerate() {
        assert_eq!((packet[6], packet[40], packet[41]), (HOP_BY_HOP, FRAGMENT, 2));
        assert_eq!(packet[41..64], hop_by_hop[1..]);
        assert_eq!(packet[64], DESTINATION_OPTIONS, "what the fragment header names");
        assert_eq!(packet[67] & 1 == 1, at < 2);
        assert_eq!(packet[72..75] == [UDP, 3, 0x1e], at == 0);
    }
    assert_eq!(receive(&b).0, [7; 3000]);
}

#[test]
fn headers_count_into_the_length() {
    let mut pair = Pair::new(1);
    let [a, b] = [bind(&pair, A), bind(&pair, B)];
    let sent = |eighths| {
        let destination = options(eighths);
        headers(HeaderParts { destination: Some(&destination), ..HeaderParts::default() })
    };
    // The longest payload of an IPv6 packet.
    let most = 65_535 - 8 - 16;
    let data = vec![1; most + 1];
    assert!(send(&mut pair, &a, &data[..most], &sent(2)).is_ok_and(|packets| packets > 40));
    assert_eq!(receive(&b).0.len(), most);
    assert_eq!(send(&mut pair, &a, &data, &sent(2)), Err(Error::MessageSize));
    // A datagram that must not be cut has less room.
    a.set_ip_options(IpOptions { fragmentation: Fragmentation::Never, ..IpOptions::default() }).unwrap();
    let room = pair.link.mtu - 40 - 8 - 16;
    assert_eq!(send(&mut pair, &a, &data[..room], &sent(2)), Ok(1));
    assert_eq!(send(&mut pair, &a, &data[..room + 1], &sent(2)), Err(Error::MessageSize));
    a.set_ip_options(IpOptions::default()).unwrap();
    // All headers are in the first fragment (RFC 7112 5); headers that leave no room are refused.
    pair.link.mtu = 1280;
    for (eighths, is_sent) in [(153, true), (154, false)] {
        let outcome = send(&mut pair, &a, &data[..2000], &sent(eighths));
        assert_eq!(outcome.is_ok(), is_sent, "{eighths}: {outcome:?}");
    }
    assert_eq!(send(&mut pair, &a, &[], &sent(154)), Ok(1), "whole it fits");
    assert_eq!(send(&mut pair, &a, &[], &sent(155)), Err(Error::MessageSize));
    assert_eq!(pair.counter(B, "ip_fragments_refused"), 0);
}

#[test]
fn a_route_leads_to_its_next_segment_which_must_be_somewhere() {
    let mut pair = Pair::with(1, Config::default(), true);
    let a = bind(&pair, A);
    let [near, far] = [v6_address(B), "fd00::c".parse().unwrap()];
    let options = |sent| SendOptions { headers: Some(sent), ..SendOptions::default() };
    let sent = headers(HeaderParts { routing: Some(&route(1, &[far, near])), ..HeaderParts::default() });
    assert_eq!(options(&sent).first_hop(far.into()), IpAddr::V6(near));
    let to = a.route_with(Some((far, 53).into()), &options(&sent)).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM];
    let len = a.send_with(pair.now, &to, b"x", &options(&sent), pair.link.mtu, &mut buf).unwrap();
    assert_eq!((&buf[24..40], &buf[48..64]), (&near.octets()[..], &far.octets()[..]));
    // Nodes do not forward, so a packet with a segment left is answered with an error (RFC 8200 4.4).
    pair.capture = Some(Vec::new());
    deliver(&mut pair, &mut buf, len);
    let answer = pair.capture.take().unwrap().remove(0).1;
    assert_eq!(([answer[40], answer[41]], answer[47]), ([4, 0], 42));
    let nowhere = "2001:db8::1".parse().unwrap();
    let sent = headers(HeaderParts { routing: Some(&route(1, &[far, nowhere])), ..HeaderParts::default() });
    let host = &pair.hosts[A];
    let any = host.stack.udp_bind(None, "[::]:0".parse().unwrap(), UdpOptions::default()).unwrap();
    assert_eq!(any.route_with(Some((near, 53).into()), &options(&sent)), Err(Error::NetworkUnreachable));
    // IPv4 datagrams leave without the headers.
    let v4 = host.stack.udp_bind(None, "0.0.0.0:0".parse().unwrap(), UdpOptions::default()).unwrap();
    let to = v4.route_with(Some(address(B, false, 53)), &options(&sent)).unwrap();
    assert_eq!(v4.send_with(pair.now, &to, b"x", &options(&sent), 1280, &mut buf), Ok(20 + 8 + 1));
}

#[test]
fn echo_and_raw_sockets_have_headers_too() {
    let mut pair = Pair::with(1, Config::default(), true);
    let destination = options(2);
    let sent = headers(HeaderParts { destination: Some(&destination), ..HeaderParts::default() });
    let with = SendOptions { headers: Some(&sent), ..SendOptions::default() };
    let to = address(B, true, 0).ip();
    let mut buf = vec![0; MAX_DATAGRAM];
    let open = |side: usize, protocol| {
        let host = &pair.hosts[side];
        let options = RawOptions { ip: wants_headers(), ..RawOptions::default() };
        host.stack.raw_open(Some(host.net), true, protocol, options).unwrap()
    };
    let [a, b] = [open(A, 200), open(B, 200)];
    let [pings, raw] = [0, 1].map(|_| open(B, 58));
    let route = a.route(Some(to), &with).unwrap();
    let mut shown = ReceivedHeaders::default();
    let mut came = |socket: &RawSocket, buf: &mut [u8]| {
        let received = socket.recv_with_headers(buf, &mut shown).unwrap();
        let all: Vec<_> = shown.iter().map(|(kind, header)| (kind, header[1..].to_vec())).collect();
        assert_eq!(all, [(DESTINATION_OPTIONS, destination[1..].to_vec())]);
        received.len
    };
    for len in [10, 3000] {
        assert_eq!(a.check_length(&route, len, &with, 1428), Ok(()));
        let written = a.send(&route, &vec![5; len], &with, pair.link.mtu, &mut buf).unwrap();
        deliver(&mut pair, &mut buf, written);
        assert_eq!(came(&b, &mut buf), len);
        assert_eq!(buf[..len], vec![5; len]);
    }
    let Host { stack, net, .. } = &pair.hosts[A];
    let echo = stack.icmp_open(*net, true).unwrap();
    let route = echo.route(to, &with).unwrap();
    assert_eq!(echo.check_length(&route, 4, &with, 1428), Ok(()));
    let written = echo.send_with(&route, (7, b"ping"), &with, 1428, &mut buf).unwrap();
    deliver(&mut pair, &mut buf, written);
    assert_eq!(came(&pings, &mut buf), 12);
    // A reply with headers.
    echo.set_ip_options(wants_headers()).unwrap();
    let [high, low] = echo.ident().to_be_bytes();
    let mut reply = [129, 0, 0, 0, high, low, 0, 7, 9];
    let back = raw.route(Some(address(A, true, 0).ip()), &with).unwrap();
    reply[2..4].fill(0);
    let written = raw.send(&back, &reply, &with, 1428, &mut buf).unwrap();
    pair.inject(A, &buf[..written]);
    assert_eq!(echo.recv_with_headers(&mut buf, &mut shown).unwrap().len, 1);
    assert_eq!(shown.iter().count(), 1);
}

#[test]
fn members_of_a_group_get_the_headers_and_what_waits_is_bounded() {
    let mut pair = Pair::new(1);
    let group: IpAddr = "ff05::9".parse().unwrap();
    let members = [true, false].map(|wants| {
        let host = &pair.hosts[B];
        let ip = IpOptions { receive_headers: wants, ..IpOptions::default() };
        let options =
            UdpOptions { reuse_address: true, receive_buffer: Some(600), ip, ..UdpOptions::default() };
        let socket = host.stack.udp_bind(Some(host.net), "[::]:53".parse().unwrap(), options).unwrap();
        socket.join(None, group).unwrap();
        socket
    });
    let option = options(20);
    let datagram = [&[UDP][..], &option[1..], &udp(9, 53, b"x")].concat();
    let packet = v6_to(address(A, true, 0).ip(), group, DESTINATION_OPTIONS, &datagram);
    (0..4).for_each(|_| pair.inject(B, &packet));
    assert_eq!(receive(&members[0]), (b"x".to_vec(), vec![(DESTINATION_OPTIONS, option[1..].to_vec())]));
    let left = members.map(|member| std::iter::from_fn(|| member.recv_from(&mut [0; 9]).ok()).count());
    assert_eq!(left, [1, 4], "headers take room in the queue");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_chain_and_length_arrives_or_is_refused(
        eighths in prop::array::uniform3(0..=120u8),
        segments in 0..4usize,
        len in 0..4000usize,
        mtu in 1280..2000usize,
    ) {
        let mut pair = Pair::new(1);
        pair.link.mtu = mtu;
        let [a, b] = [bind(&pair, A), bind(&pair, B)];
        let [hop_by_hop, before, destination] =
            eighths.map(|eighths| (eighths > 0).then(|| options(eighths)));
        let routing = (segments > 0).then(|| route(0, &vec![v6_address(B); segments]));
        let parts = HeaderParts {
            hop_by_hop: hop_by_hop.as_deref(),
            before_routing: before.as_deref(),
            routing: routing.as_deref(),
            destination: destination.as_deref(),
        };
        let Some(sent) = ExtensionHeaders::new(&parts).unwrap() else { return Ok(()) };
        let data: Vec<u8> = (0..len).map(pattern).collect();
        match send(&mut pair, &a, &data, &sent) {
            Ok(packets) => {
                prop_assert_eq!(packets > 1, 40 + sent.len() + 8 + len > mtu);
                let (got, shown) = receive(&b);
                prop_assert_eq!(got, data);
                prop_assert_eq!(shown.iter().map(|(_, header)| header.len() + 1).sum::<usize>(), sent.len());
            }
            Err(error) => {
                prop_assert_eq!(error, Error::MessageSize);
                prop_assert!(40 + sent.len() + 16 > mtu);
            }
        }
    }
}
