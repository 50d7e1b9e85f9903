//! Networks joined for a device. The tests make and take the packets of another IP stack by hand.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream, UdpSocket};
use peersock::device::{Device, DeviceSender, Offload, PartialChecksum, Segments};
use peersock::{Joined, Network, NetworkId, Node};

use crate::common::{PATIENCE, member, network, node, pattern};

const TCP: u8 = 6;
const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 58;

/// Datagram repeated until the other node answers. On a busy machine the node may be found too late for the
/// first one.
const GREETING: &[u8] = b"greeting";

/// Header lengths of IPv6 and of UDP in bytes.
pub(crate) const IP: usize = 40;

/// Device that keeps the packets it gets.
#[derive(Debug)]
struct Shelf(SyncSender<(Vec<u8>, Offload)>);

impl Device for Shelf {
    fn deliver(&self, packet: &[u8], offload: &Offload) {
        let _ = self.0.try_send((packet.to_vec(), *offload));
    }
}

/// A node with a network joined for a device.
pub(crate) struct Host {
    node: Node,
    pub(crate) joined: Joined,
    sender: DeviceSender,
    got: Receiver<(Vec<u8>, Offload)>,
}

impl Host {
    pub(crate) fn start(id: NetworkId) -> Host {
        let (keep, got) = mpsc::sync_channel(1024);
        let node = node();
        let joined = node.join_device(Network::ad_hoc(id), Arc::new(Shelf(keep))).expect("a fresh node");
        let sender = joined.device_sender().expect("it was joined for a device");
        Host { node, joined, sender, got }
    }

    pub(crate) fn send(&mut self, packet: &[u8], offload: Offload) {
        self.sender.send(&mut packet.to_vec(), &offload);
        self.sender.flush();
    }

    /// Returns the next packet of a protocol.
    pub(crate) fn next(&self, protocol: u8) -> (Vec<u8>, Offload) {
        self.next_within(protocol, PATIENCE).expect("a packet")
    }

    /// Returns the next packet of a protocol; `None` if none comes within `wait`.
    fn next_within(&self, protocol: u8, wait: Duration) -> Option<(Vec<u8>, Offload)> {
        loop {
            let got = self.next_of_any(wait)?;
            if got.0[6] == protocol {
                return Some(got);
            }
        }
    }

    fn next_of_any(&self, wait: Duration) -> Option<(Vec<u8>, Offload)> {
        loop {
            let got = self.got.recv_timeout(wait).ok()?;
            if !got.0.ends_with(GREETING) {
                return Some(got);
            }
        }
    }

    /// Sends greetings until one has come, for which `has_come` waits a second.
    fn greet(&mut self, to: SocketAddr, mut has_come: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !has_come() {
            assert!(Instant::now() < end, "they do not find each other");
            self.send(&self.datagram(40_900, to, GREETING), Offload::default());
        }
    }

    /// Makes a UDP datagram of this host.
    pub(crate) fn datagram(&self, from: u16, to: SocketAddr, data: &[u8]) -> Vec<u8> {
        let length = (8 + data.len()) as u16;
        let header = [from.to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
        ip(self.joined.address(), to.ip(), UDP, &[&header[..], data].concat())
    }
}

pub(crate) fn ip(from: Ipv6Addr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V6(to) = to else { panic!("IPv6") };
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], protocol, 64], &from.octets()[..], &to.octets(), payload].concat()
}

/// Makes a TCP segment without options.
fn segment((from, to): (SocketAddr, SocketAddr), (seq, ack): (u32, u32), flags: u8, data: &[u8]) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
    let rest = [0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    let IpAddr::V6(source) = from.ip() else { panic!("IPv6") };
    ip(source, to.ip(), TCP, &[&ports, &numbers, &rest[..], data].concat())
}

fn number(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"))
}

/// Starts another member, with a UDP socket.
fn member_with_socket(id: NetworkId) -> (Node, Joined, UdpSocket) {
    let (node, joined) = member(id);
    let socket = UdpSocket::bind_on(&node, (joined.address(), 1700)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (node, joined, socket)
}

#[test]
fn datagrams_pass_between_a_host_and_a_socket() {
    let id = network();
    let mut host = Host::start(id);
    let (_other, away, socket) = member_with_socket(id);
    let to = socket.local_addr().expect("it is bound");
    // The datagrams wait for the session, and some perhaps too long.
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut buf = [0; 2000];
    host.greet(to, || socket.recv_from(&mut buf).is_ok());
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for data in [pattern(1, 100), pattern(2, 0), pattern(3, 1000)] {
        host.send(&host.datagram(40_900, to, &data), Offload::default());
        let (length, from) = loop {
            let got = socket.recv_from(&mut buf).expect("a datagram");
            if buf[..got.0] != *GREETING {
                break got;
            }
        };
        assert_eq!(
            (&buf[..length], from),
            (&data[..], SocketAddr::new(host.joined.address().into(), 40_900))
        );
        socket.send_to(&data, from).expect("it is sent");
        let (packet, offload) = host.next(UDP);
        assert_eq!(packet[IP + 8..], data);
        assert_eq!(offload.checksum, Some(PartialChecksum { start: 40, offset: 6 }));
    }
    // The datagram may exceed the path MTU. Then it comes in fragments, with a complete checksum.
    let data = pattern(4, 60_000);
    socket.send_to(&data, (host.joined.address(), 40_900)).expect("it is sent");
    let mut received = vec![0; 8 + data.len()];
    let mut missing = received.len();
    let mut is_whole = false;
    while missing > 0 {
        let (packet, offload) = host.got.recv_timeout(PATIENCE).expect("a packet");
        let (at, part) = match packet[6] {
            UDP => (0, &packet[IP..]),
            44 => (usize::from(u16::from_be_bytes([packet[42], packet[43]]) & !7), &packet[48..]),
            _ => continue,
        };
        is_whole = packet[6] == UDP;
        assert_eq!(offload.checksum.is_some(), is_whole, "nobody could complete that of a part");
        received[at..at + part.len()].copy_from_slice(part);
        missing -= part.len();
    }
    assert_eq!(received[8..], data);
    assert!(is_whole || is_right(&host, away.address(), &received));
}

/// Returns true if the checksum of a UDP datagram from `from` is correct (RFC 768, RFC 8200 8.1).
fn is_right(host: &Host, from: Ipv6Addr, datagram: &[u8]) -> bool {
    let length = (datagram.len() as u32).to_be_bytes();
    let pseudo = [&from.octets()[..], &host.joined.address().octets(), &length, &[0, 0, 0, UDP]].concat();
    let sum = pseudo.chunks(2).chain(datagram.chunks(2)).map(|two| match two {
        [one, other] => u64::from(*one) << 8 | u64::from(*other),
        [one, ..] => u64::from(*one) << 8,
        [] => 0,
    });
    let mut sum: u64 = sum.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn a_large_packet_becomes_segments_and_they_one_packet() {
    let id = network();
    let mut host = Host::start(id);
    let (other, away) = member(id);
    let listener = TcpListener::bind_on(&other, (away.address(), 1700)).expect("a port");
    let ends =
        (SocketAddr::new(host.joined.address().into(), 40_900), SocketAddr::new(away.address().into(), 1700));
    host.send(&segment(ends, (1000, 0), 2, &[]), Offload::default());
    let (answer, _) = host.next(TCP);
    assert_eq!((answer[IP + 13], number(&answer, IP + 8)), (0x12, 1001));
    let theirs = number(&answer, IP + 4).wrapping_add(1);
    host.send(&segment(ends, (1001, theirs), 0x10, &[]), Offload::default());
    let (mut stream, _) = listener.accept().expect("a connection");
    // The segments exceed every path's size, because a kernel may have an outdated path MTU.
    for payload in [500, 9000] {
        let data = pattern(7, 40_000);
        let at = if payload == 500 { 1001 } else { 41_001 };
        let segments = Some(Segments { header_len: 60, payload });
        host.send(&segment(ends, (at, theirs), 0x18, &data), Offload { checksum: None, segments });
        let mut received = vec![0; data.len()];
        stream.read_exact(&mut received).expect("all of it");
        assert_eq!(received, data);
    }
    let data = pattern(8, 8000);
    stream.write_all(&data).expect("there is room");
    let mut received = vec![0; data.len()];
    let mut count = 0;
    while count < data.len() {
        let (packet, offload) = host.next(TCP);
        assert_eq!(offload.checksum, Some(PartialChecksum { start: 40, offset: 16 }));
        let payload = &packet[IP + 20..];
        match offload.segments {
            Some(segments) => assert!(segments.header_len == 60 && segments.payload < payload.len()),
            None => assert!(packet.len() < 1500),
        }
        // Data acknowledged late comes again.
        let at = number(&packet, IP + 4).wrapping_sub(theirs) as usize;
        received[at..at + payload.len()].copy_from_slice(payload);
        count = count.max(at + payload.len());
        let so_far = theirs.wrapping_add(count as u32);
        host.send(&segment(ends, (81_001, so_far), 0x10, &[]), Offload::default());
    }
    assert_eq!(received, data);
}

#[test]
fn what_may_not_pass_does_not_and_the_host_is_told() {
    let id = network();
    let mut host = Host::start(id);
    let (_other, away, socket) = member_with_socket(id);
    let to = socket.local_addr().expect("it is bound");
    // These have a foreign source, or are no IP packets. They are dropped, so the last datagram comes first.
    let mut forged = host.datagram(40_900, to, b"forged");
    forged[8..24].copy_from_slice(&away.address().octets());
    for packet in [&forged[..], &[], &[0x60; 10], &[0xff; 60]] {
        host.send(packet, Offload::default());
    }
    host.send(&host.datagram(40_900, to, b"own"), Offload::default());
    let mut buf = [0; 100];
    assert_eq!(socket.recv(&mut buf).expect("a datagram"), 3);
    // A port that the network does not allow.
    let forbidden = SocketAddr::new(to.ip(), away.allowed_ports().end() + 1);
    // Use a forbidden source port too, else the datagram may be an answer to a client.
    host.send(&host.datagram(forbidden.port(), forbidden, b"x"), Offload::default());
    let (error, _) = host.next(ICMP);
    assert_eq!(error[IP..IP + 2], [1, 1], "administratively prohibited");
    assert_eq!(error[8..24], away.address().octets());
    // The first address cannot exist in the network, and the second belongs to no node.
    let elsewhere = SocketAddr::new("2001:db8::1".parse().expect("an address"), 1700);
    host.send(&host.datagram(40_900, elsewhere, b"x"), Offload::default());
    assert_eq!(host.next(ICMP).0[IP..IP + 2], [1, 0], "no route");
    let mut nobody = away.address().octets();
    nobody[15] ^= 1;
    host.send(&host.datagram(40_900, SocketAddr::new(nobody.into(), 1700), b"x"), Offload::default());
    assert_eq!(host.next(ICMP).0[IP..IP + 2], [1, 3], "address unreachable");
    // A datagram too large for the path must yield an error with the path MTU. A path below IPv6's minimum
    // gets fragments instead. The node finds the path MTU meanwhile.
    let large = pattern(1, 65_527);
    let end = Instant::now() + PATIENCE;
    let (error, offload) = loop {
        assert!(Instant::now() < end, "nobody says that it is too large");
        host.send(&host.datagram(40_900, to, &large), Offload::default());
        if let Some(told) = host.next_within(ICMP, Duration::from_secs(1)) {
            break told;
        }
    };
    assert_eq!((error[IP], offload), (2, Offload::default()));
    let mtu = number(&error, IP + 4) as usize;
    let fitting = pattern(2, mtu - IP - 8);
    host.send(&host.datagram(40_900, to, &fitting), Offload::default());
    let mut buf = vec![0; 70_000];
    let mut lengths = std::iter::repeat_with(|| socket.recv(&mut buf).expect("a datagram"));
    assert_eq!(lengths.find(|length| *length != large.len()), Some(fitting.len()));
}

#[test]
fn two_hosts_have_one_network() {
    let id = network();
    let [mut sender, host] = [Host::start(id), Host::start(id)];
    let to = SocketAddr::new(host.joined.address().into(), 1700);
    sender.greet(to, || host.got.recv_timeout(Duration::from_secs(1)).is_ok());
    let udp = PartialChecksum { start: 40, offset: 6 };
    for data in [pattern(1, 10), pattern(2, 1000)] {
        let offload = Offload { checksum: Some(udp), segments: None };
        sender.send(&sender.datagram(40_900, to, &data), offload);
        let (packet, offload) = host.next(UDP);
        assert_eq!((&packet[IP + 8..], offload.checksum), (&data[..], Some(udp)));
    }
}

/// Routers behind a gateway have addresses outside the network. A member without a gateway has no such
/// routers. If accepted, it could make another machine's kernel believe in a router's error.
#[test]
fn a_member_does_not_speak_for_routers_that_it_has_not() {
    let id = network();
    let [mut forger, host] = [Host::start(id), Host::start(id)];
    let to = SocketAddr::new(host.joined.address().into(), 1700);
    forger.greet(to, || host.got.recv_timeout(Duration::from_secs(1)).is_ok());
    let own = SocketAddr::new(forger.joined.address().into(), 1700);
    let quoted = host.datagram(40_900, own, b"quoted");
    let router = "2001:db8::1".parse().expect("an address");
    // Packet too big, with an MTU of 1280 bytes.
    let error = [&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat();
    forger.send(&ip(router, to.ip(), ICMP, &error), Offload::default());
    forger.send(&ip(forger.joined.address(), to.ip(), ICMP, &error), Offload::default());
    forger.send(&forger.datagram(40_900, to, b"own"), Offload::default());
    // The error in the member's own name comes, but none in a router's name.
    for protocol in [ICMP, UDP] {
        let (packet, _) = host.next_of_any(PATIENCE).expect("a packet");
        assert_eq!((packet[6], &packet[8..24]), (protocol, &forger.joined.address().octets()[..]));
    }
}

#[test]
fn sockets_of_the_node_take_their_packets_and_the_device_all_others() {
    let id = network();
    let mut host = Host::start(id);
    let (other, away, socket) = member_with_socket(id);
    let to = socket.local_addr().expect("it is bound");
    let mut buf = [0; 2000];
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    host.greet(to, || socket.recv_from(&mut buf).is_ok());
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let own = |port: u16| SocketAddr::new(host.joined.address().into(), port);
    // Without a socket, a datagram is the device's; with one, it is the socket's.
    let (there, pattern_of) = (own(1801), pattern(7, 300));
    socket.send_to(&pattern_of, there).expect("a session");
    assert!(host.next(UDP).0.ends_with(&pattern_of), "nobody else takes it");
    let beside = UdpSocket::bind_on(&host.node, there).expect("a port");
    beside.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.send_to(&pattern_of, there).expect("a session");
    assert_eq!(beside.recv_from(&mut buf).expect("a datagram"), (300, to));
    beside.send_to(b"back", to).expect("a session");
    while socket.recv_from(&mut buf).expect("a datagram") != (4, there) {}
    // Connections of both kinds, in both directions, at once.
    let listener = TcpListener::bind_on(&host.node, own(1802)).expect("a port");
    let mut client = TcpStream::connect_on(&other, own(1802)).expect("it listens");
    let (mut served, _) = listener.accept().expect("a connection");
    client.write_all(&pattern(8, 100_000)).expect("it is read");
    let mut got = vec![0; 100_000];
    served.read_exact(&mut got).expect("all of it");
    assert!(got == pattern(8, 100_000));
    let far = TcpListener::bind_on(&other, (away.address(), 1803)).expect("a port");
    let mut dialed = TcpStream::connect_on(&host.node, (away.address(), 1803)).expect("it listens");
    let (mut accepted, _) = far.accept().expect("a connection");
    accepted.write_all(b"from afar").expect("it is read");
    dialed.read_exact(&mut got[..9]).expect("all of it");
    assert_eq!(&got[..9], b"from afar");
    assert!(host.next_within(TCP, Duration::ZERO).is_none(), "the device has seen nothing of it");
    let refused = SocketAddr::new(host.joined.address().into(), 1804);
    let attempt = std::thread::spawn(move || TcpStream::connect_on(&other, refused).map(drop));
    let (syn, _) = host.next(TCP);
    assert_eq!((syn[IP + 13], u16::from_be_bytes([syn[IP + 2], syn[IP + 3]])), (2, 1804));
    drop((dialed, accepted, listener, far));
    drop(attempt);
}
