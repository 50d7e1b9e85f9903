//! Tests of ICMP echo and errors.

use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn echo_comes_back_in_both_families_with_and_without_checksums() {
    for (ipv6, checksums) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = Pair::with(1, Config::default(), checksums);
        let Host { stack, net, .. } = &pair.hosts[A];
        let socket = stack.icmp_open(*net, ipv6).unwrap();
        let other = stack.icmp_open(*net, ipv6).unwrap();
        assert_ne!(socket.ident(), other.ident());
        let payload: Vec<u8> = (0..1000).map(pattern).collect();
        let destination = address(B, ipv6, 0).ip();
        let request = EchoRequest { destination, sequence: 7, payload: &payload, hop_limit: 9 };
        let mut buf = vec![0; MAX_PACKET];
        let ip = IpOptions { fragmentation: Fragmentation::Never, ..IpOptions::default() };
        socket.set_ip_options(ip).unwrap();
        assert_eq!(socket.send(&request, 500, &mut buf), Err(Error::MessageSize));
        let len = socket.send(&request, 1280, &mut buf).unwrap();
        pair.transmit(A, buf[..len].to_vec());
        pair.run(SECOND, |_| socket.readiness().contains(Ready::READABLE));
        let reply = socket.recv(&mut buf).unwrap();
        assert_eq!((reply.source, reply.sequence, reply.error), (destination, 7, None));
        assert_eq!((reply.len, reply.hop_limit), (1000, 64));
        assert_eq!(buf[..1000], payload);
        assert_eq!(socket.recv(&mut buf), Err(Error::WouldBlock));
        assert_eq!(other.recv(&mut buf), Err(Error::WouldBlock));
        socket.close();
        assert_eq!(socket.recv(&mut buf), Err(Error::Closed));
    }
}

#[test]
fn large_echoes_go_and_come_in_fragments() {
    for ipv6 in [false, true] {
        let mut pair = Pair::with(1, Config::default(), true);
        let Host { stack, net, .. } = &pair.hosts[A];
        let socket = stack.icmp_open(*net, ipv6).unwrap();
        let payload: Vec<u8> = (0..65_000).map(pattern).collect();
        let destination = address(B, ipv6, 0).ip();
        let request = EchoRequest { destination, sequence: 7, payload: &payload, hop_limit: 64 };
        let mut buf = vec![0; MAX_DATAGRAM];
        let len = socket.send(&request, pair.link.mtu, &mut buf).unwrap();
        pair.send(A, &buf[..len]);
        pair.run(SECOND, |_| socket.readiness().contains(Ready::READABLE));
        assert_eq!(socket.recv(&mut buf).unwrap().len, payload.len());
        assert_eq!(buf[..payload.len()], payload);
    }
}

/// Returns an ICMPv6 error from B about the packet `quoted`.
fn error(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 48];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(8 + quoted.len() as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&[58, 64]);
    let octets = |side| match address(side, true, 0).ip() {
        std::net::IpAddr::V6(v6) => v6.octets(),
        std::net::IpAddr::V4(_) => unreachable!(),
    };
    packet[8..24].copy_from_slice(&octets(B));
    packet[24..40].copy_from_slice(&octets(A));
    packet[40..42].copy_from_slice(&[kind, code]);
    packet.extend_from_slice(quoted);
    packet
}

#[test]
fn errors_end_a_connection_attempt_but_not_a_connection() {
    let mut pair = Pair::new(1);
    for (code, expected) in [
        (0, Error::NetworkUnreachable),
        (1, Error::PermissionDenied),
        (3, Error::HostUnreachable),
        (4, Error::ConnectionRefused),
    ] {
        pair.capture = Some(Vec::new());
        let flow = pair.connect(A, 80);
        let mut syn = pair.capture.take().unwrap().remove(0).1;
        pair.inject(A, &error(1, code, &syn));
        assert_eq!(flow.take_error(), Some(expected));
        syn[44] ^= 1;
        let flow = pair.connect(A, 80);
        pair.inject(A, &error(1, code, &syn));
        assert_eq!(flow.state(), State::SynSent, "not a SYN of ours");
        flow.abort(pair.now);
    }
    let (a, _b) = pair.connected();
    pair.capture = Some(Vec::new());
    a.write(pair.now, b"x").unwrap();
    pair.kick(A, &a);
    let data = pair.capture.take().unwrap().remove(0).1;
    pair.inject(A, &error(1, 3, &data));
    assert_eq!((a.state(), a.take_error()), (State::Established, None));
}

#[test]
fn an_error_about_an_echo_request_reaches_its_socket() {
    let mut pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let socket = stack.icmp_open(*net, true).unwrap();
    let destination = address(B, true, 0).ip();
    let request = EchoRequest { destination, sequence: 3, payload: b"abc", hop_limit: 1 };
    let mut buf = [0; 100];
    let len = socket.send(&request, 1280, &mut buf).unwrap();
    let quoted = buf[..len].to_vec();
    pair.inject(A, &error(3, 0, &quoted));
    let reply = socket.recv(&mut buf).unwrap();
    assert_eq!((reply.sequence, reply.len, reply.error), (3, 0, Some(Error::HostUnreachable)));
    assert_eq!(reply.source, destination);
}
