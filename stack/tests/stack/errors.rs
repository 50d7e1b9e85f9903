//! Tests of ICMP errors and the sockets they concern.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::craft::*;
use crate::pair::*;
use peersock_stack::*;

const PORT_UNREACHABLE: [[u8; 2]; 2] = [[3, 3], [1, 4]];
const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];
const TIME_EXCEEDED: [[u8; 2]; 2] = [[11, 0], [3, 0]];

fn bind(pair: &Pair, ipv6: bool, ip: IpOptions) -> Arc<UdpSocket> {
    let host = &pair.hosts[A];
    let options = UdpOptions { ip, ..UdpOptions::default() };
    host.stack.udp_bind(Some(host.net), address(A, ipv6, 0), options).unwrap()
}

/// Returns the packet that `socket` sends to a port of B.
fn datagram(now: Instant, socket: &UdpSocket, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let route = socket.route(Some(to)).unwrap();
    let mut buf = vec![0; MAX_DATAGRAM];
    let len = socket.send(now, &route, data, 1400, &mut buf).unwrap();
    buf.truncate(len);
    buf
}

#[test]
fn a_connected_socket_hears_of_errors_once() {
    for ipv6 in [false, true] {
        let own = usize::from(ipv6);
        let mut pair = Pair::new(1);
        let socket = bind(&pair, ipv6, IpOptions::default());
        let peer = address(B, ipv6, 9);
        socket.connect(peer).unwrap();
        let sent = datagram(pair.now, &socket, peer, b"x");
        let unreachable = [[3, 1], [1, 3]][own];
        let parameter = [[12, 0], [4, 0]][own];
        for (kind, expected) in [
            (PORT_UNREACHABLE[own], Some(Error::ConnectionRefused)),
            (unreachable, Some(Error::HostUnreachable)),
            (parameter, Some(Error::Protocol)),
            (TOO_BIG[own], Some(Error::MessageSize)),
            (TIME_EXCEEDED[own], None),
        ] {
            pair.inject(A, &icmp_error(A, kind, 1300, &sent));
            assert_eq!(socket.readiness().contains(Ready::ERROR), expected.is_some(), "{kind:?}");
            assert_eq!(socket.take_error(), expected, "{kind:?}");
            assert_eq!(socket.recv_from(&mut [0; 1]), Err(Error::WouldBlock));
        }
        assert_eq!(socket.recv_error(&mut []), Err(Error::WouldBlock), "nobody asked for reports");
    }
}

#[test]
fn what_a_socket_cannot_have_sent_is_ignored() {
    let mut pair = Pair::new(1);
    let ip = IpOptions { receive_errors: true, ..IpOptions::default() };
    let socket = bind(&pair, true, ip);
    let peer = address(B, true, 9);
    socket.connect(peer).unwrap();
    let sent = datagram(pair.now, &socket, peer, b"x");
    for (at, bits) in [(23, 1), (39, 1), (41, 1), (43, 1), (6, 1)] {
        let mut other = sent.clone();
        other[at] ^= bits;
        pair.inject(A, &icmp_error(A, PORT_UNREACHABLE[1], 0, &other));
    }
    // Only the first fragment has ports.
    let header = [fragment_header(UDP, 1, 8, true), sent[40..].to_vec()].concat();
    let fragment = [&sent[..6], &[FRAGMENT], &sent[7..40], &header].concat();
    pair.inject(A, &icmp_error(A, PORT_UNREACHABLE[1], 0, &fragment));
    assert_eq!((socket.take_error(), pair.counter(A, "icmp_errors_received")), (None, 0));
    // The first fragment has ports.
    let header = [fragment_header(UDP, 1, 0, true), sent[40..].to_vec()].concat();
    let fragment = [&sent[..6], &[FRAGMENT], &sent[7..40], &header].concat();
    pair.inject(A, &icmp_error(A, PORT_UNREACHABLE[1], 0, &fragment));
    assert_eq!(socket.take_error(), Some(Error::ConnectionRefused));
}

#[test]
fn reports_say_everything_also_to_unconnected_sockets() {
    for ipv6 in [false, true] {
        let own = usize::from(ipv6);
        let mut pair = Pair::new(1);
        let ip = IpOptions { receive_errors: true, ..IpOptions::default() };
        let socket = bind(&pair, ipv6, ip);
        let to = address(B, ipv6, 9);
        let sent = datagram(pair.now, &socket, to, b"payload");
        pair.inject(A, &icmp_error(A, TIME_EXCEEDED[own], 0, &sent));
        assert!(socket.readiness().contains(Ready::ERROR));
        assert_eq!(socket.take_error(), Some(Error::HostUnreachable));
        let mut buf = [0; 4];
        let report = socket.recv_error(&mut buf).unwrap();
        let [kind, code] = TIME_EXCEEDED[own];
        let origin = [ErrorOrigin::Icmp, ErrorOrigin::Icmpv6][own];
        let expected = ErrorReport {
            error: Error::HostUnreachable,
            origin,
            kind,
            code,
            info: 0,
            offender: Some(to.ip()),
            destination: to,
            len: 4,
        };
        assert_eq!((report, &buf), (expected, b"payl"));
        for _ in 0..1000 {
            pair.inject(A, &icmp_error(A, TIME_EXCEEDED[own], 0, &sent));
        }
        let kept = std::iter::from_fn(|| socket.recv_error(&mut buf).ok()).count() as u64;
        assert_eq!(kept + pair.counter(A, "error_queue_overflows"), 1000);
        assert!(kept < 300);
    }
}

#[test]
fn a_path_s_mtu_is_remembered_for_ten_minutes() {
    for ipv6 in [false, true] {
        let own = usize::from(ipv6);
        let mut pair = Pair::new(1);
        let socket = bind(&pair, ipv6, IpOptions::default());
        let to = address(B, ipv6, 9);
        let sent = datagram(pair.now, &socket, to, &[0; 1300]);
        let mtu = |pair: &Pair| pair.hosts[A].stack.path_mtu(pair.hosts[A].net, to.ip());
        pair.inject(A, &icmp_error(A, TOO_BIG[own], 1290, &sent));
        assert_eq!(mtu(&pair), Some(1290));
        pair.inject(A, &icmp_error(A, TOO_BIG[own], 1399, &sent));
        assert_eq!(mtu(&pair), Some(1290));
        // A datagram that went whole before is now cut; with fragmentation forbidden it is refused.
        let Host { stack, net, .. } = &pair.hosts[A];
        let again = datagram(pair.now, &socket, to, &[0; 1300]);
        assert_eq!(stack.fragments(*net, &again, 1400).unwrap().packets(), 2);
        let ip = IpOptions { fragmentation: Fragmentation::Never, ..IpOptions::default() };
        socket.set_ip_options(ip).unwrap();
        let route = socket.route(Some(to)).unwrap();
        assert_eq!(socket.send(pair.now, &route, &[0; 1300], 1400, &mut [0; 2000]), Err(Error::MessageSize));
        let ip = IpOptions { fragmentation: Fragmentation::Probe, ..IpOptions::default() };
        socket.set_ip_options(ip).unwrap();
        assert!(socket.send(pair.now, &route, &[0; 1300], 1400, &mut [0; 2000]).is_ok());
        pair.run_for(Duration::from_secs(599));
        assert_eq!(mtu(&pair), Some(1290));
        pair.run_for(Duration::from_secs(2));
        assert_eq!(mtu(&pair), None);
    }
}

#[test]
fn a_connection_s_packet_that_was_too_big_lowers_the_mtu() {
    let mut pair = Pair::new(1);
    let (a, _b) = pair.connected();
    let to = a.remote().ip();
    pair.capture = Some(Vec::new());
    a.write(pair.now, &[1; 1300]).unwrap();
    pair.kick(A, &a);
    let sent = pair.capture.take().unwrap().remove(0).1;
    let mut other = sent.clone();
    other[43] ^= 1;
    let Host { net, .. } = pair.hosts[A];
    pair.inject(A, &icmp_error(A, TOO_BIG[1], 1300, &other));
    assert_eq!(pair.hosts[A].stack.path_mtu(net, to), None);
    pair.inject(A, &icmp_error(A, TOO_BIG[1], 1300, &sent));
    assert_eq!(pair.hosts[A].stack.path_mtu(net, to), Some(1300));
}

/// RFC 5927 7.2: a segment not in flight cannot have been too big.
#[test]
fn a_segment_that_is_not_under_way_was_not_too_big() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    pair.transfer(A, &a, &b, 3000);
    pair.run_for(Duration::from_secs(1));
    pair.capture = Some(Vec::new());
    a.write(pair.now, &[1; 1300]).unwrap();
    pair.kick(A, &a);
    let sent = pair.capture.take().unwrap().remove(0).1;
    let Host { net, .. } = pair.hosts[A];
    let seq = u32::from_be_bytes(sent[44..48].try_into().unwrap());
    for wrong in [seq.wrapping_sub(1), seq.wrapping_add(1300), seq.wrapping_add(1 << 31)] {
        let mut other = sent.clone();
        other[44..48].copy_from_slice(&wrong.to_be_bytes());
        pair.inject(A, &icmp_error(A, TOO_BIG[1], 1300, &other));
        assert_eq!(pair.hosts[A].stack.path_mtu(net, a.remote().ip()), None, "{wrong} for {seq}");
    }
    pair.inject(A, &icmp_error(A, TOO_BIG[1], 1300, &sent));
    assert_eq!(pair.hosts[A].stack.path_mtu(net, a.remote().ip()), Some(1300));
}

/// No router is between two members, so a third member has not seen the packet it quotes.
#[test]
fn only_the_destination_or_this_node_complains() {
    for ipv6 in [false, true] {
        let own = usize::from(ipv6);
        let third = ["10.0.0.3", "fd00::c"][own].parse().unwrap();
        let (mtu, own_address) = (1290, address(A, ipv6, 0).ip());
        let Host { net, .. } = Pair::new(1).hosts[A];
        for (offender, counts) in [(third, false), (address(B, ipv6, 0).ip(), true), (own_address, true)] {
            let mut pair = Pair::new(1);
            let socket = bind(&pair, ipv6, IpOptions::default());
            let peer = address(B, ipv6, 9);
            socket.connect(peer).unwrap();
            let sent = datagram(pair.now, &socket, peer, b"x");
            let known = |pair: &Pair| pair.hosts[A].stack.path_mtu(net, peer.ip());

            let unreachable = icmp_error(A, PORT_UNREACHABLE[own], 0, &sent);
            pair.inject(A, &sent_by(offender, unreachable));
            assert_eq!(socket.take_error(), counts.then_some(Error::ConnectionRefused), "{offender}");

            let too_big = icmp_error(A, TOO_BIG[own], mtu, &sent);
            pair.inject(A, &sent_by(offender, too_big));
            assert_eq!(known(&pair), counts.then_some(mtu as usize), "{offender}");

            // A connection attempt ends at any error.
            pair.capture = Some(Vec::new());
            let attempt = pair.connect_with(A, address(B, ipv6, 80), TcpOptions::default()).unwrap();
            let syn = pair.capture.take().unwrap().remove(0).1;
            let unreachable = icmp_error(A, PORT_UNREACHABLE[own], 0, &syn);
            pair.inject(A, &sent_by(offender, unreachable));
            assert_eq!(attempt.state() == State::Closed, counts, "{offender}");

            // A ping.
            let Host { stack, net, .. } = &pair.hosts[A];
            let ping = stack.icmp_open(*net, ipv6).unwrap();
            let request = EchoRequest { destination: peer.ip(), sequence: 1, payload: &[], hop_limit: 64 };
            let mut buf = [0; 100];
            let len = ping.send(&request, 1400, &mut buf).unwrap();
            let unreachable = icmp_error(A, PORT_UNREACHABLE[own], 0, &buf[..len]);
            pair.inject(A, &sent_by(offender, unreachable));
            assert_eq!(ping.recv(&mut buf).is_ok(), counts, "{offender}");
            assert_eq!(pair.counter(A, "icmp_strangers"), if counts { 0 } else { 4 });
        }
    }
}

#[test]
fn an_echo_socket_gets_the_report_with_the_error() {
    let mut pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let socket = stack.icmp_open(*net, true).unwrap();
    let destination = address(B, true, 0).ip();
    let request = EchoRequest { destination, sequence: 3, payload: &[1; 1300], hop_limit: 1 };
    let mut buf = [0; 2000];
    let len = socket.send(&request, 1400, &mut buf).unwrap();
    pair.inject(A, &icmp_error(A, TOO_BIG[1], 1280, &buf[..len]));
    let reply = socket.recv(&mut buf).unwrap();
    assert_eq!((reply.error, reply.sequence), (Some(Error::MessageSize), 3));
    let report = reply.report.unwrap();
    assert_eq!((report.info, report.kind, report.destination.ip()), (1280, 2, destination));
    assert_eq!(pair.hosts[A].stack.path_mtu(pair.hosts[A].net, destination), Some(1280));
}

#[test]
fn who_sends_datagrams_that_do_not_arrive_is_told_once() {
    for ipv6 in [false, true] {
        let pair = Pair::new(1);
        let Host { stack, net, .. } = &pair.hosts[A];
        let (peer, another) = (address(B, ipv6, 9), address(A, ipv6, 9));
        let [told, elsewhere, unconnected] = [(); 3].map(|()| bind(&pair, ipv6, IpOptions::default()));
        // Fragments get the same error as whole packets.
        let ip = IpOptions { fragmentation: Fragmentation::Always, ..IpOptions::default() };
        let in_fragments = bind(&pair, ipv6, ip);
        told.connect(peer).unwrap();
        in_fragments.connect(peer).unwrap();
        elsewhere.connect(another).unwrap();
        let [waits, answered] = [(); 2].map(|()| stack.icmp_open(*net, ipv6).unwrap());
        let request =
            |destination, sequence| EchoRequest { destination, sequence, payload: b"", hop_limit: 9 };
        let mut buf = [0; 100];
        waits.send(&request(peer.ip(), 7), 1280, &mut buf).unwrap();
        answered.send(&request(another.ip(), 8), 1280, &mut buf).unwrap();
        let mut batch = Batch::new();
        let remotes = [Cidr::new(peer.ip(), if ipv6 { 128 } else { 32 }).unwrap()];
        let fail = |batch: &mut Batch| stack.fail_datagrams(*net, &remotes, Error::MessageSize, batch);
        fail(&mut batch);
        for socket in [&told, &in_fragments] {
            assert_eq!(socket.recv_from(&mut buf), Err(Error::MessageSize));
            assert_eq!(socket.recv_from(&mut buf), Err(Error::WouldBlock));
        }
        assert_eq!([elsewhere.take_error(), unconnected.take_error()], [None; 2]);
        let reply = waits.recv(&mut buf).unwrap();
        assert_eq!((reply.source, reply.sequence, reply.error), (peer.ip(), 7, Some(Error::MessageSize)));
        fail(&mut batch);
        assert_eq!(waits.recv(&mut buf), Err(Error::WouldBlock), "it waits for nothing more");
        assert_eq!(answered.recv(&mut buf), Err(Error::WouldBlock));
    }
}
