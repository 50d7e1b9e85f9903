//! Arbitrary bytes that arrive at a stack.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use peersock_stack::{
    Error, ExtensionHeaders, Flow, HeaderParts, IpOptions, MAX_DATAGRAM, RawOptions, Ready, ReceivedHeaders,
    SendOptions, UdpOptions, UdpSocket, read_membership_report,
};
use peersock_testnet::StackHost;

use super::host::{A, B, PORT, RECEIVE_BUFFER, Travel, address, listen};
use super::pair::Pair;
use crate::input::{Damage, damaged, pick, sequence};

/// Maximum number of packets in one input.
const MAX_PACKETS: usize = 200;

/// Maximum number of answers. Duplicate acknowledgements represent the coalesced segments, up to this number.
const MAX_ANSWERS: usize = 3;

#[derive(Debug, Arbitrary)]
enum Arriving {
    /// Any bytes.
    Anything {
        bytes: Vec<u8>,
    },
    /// A payload for this host, behind a valid IP header.
    Addressed {
        ipv6: bool,
        protocol: Protocol,
        hop_limit: u8,
        bytes: Vec<u8>,
    },
    /// The same, addressed to one of the sockets.
    ForSocket {
        ipv6: bool,
        protocol: Protocol,
        port: u16,
        bytes: Vec<u8>,
    },
    Wait {
        millis: u16,
    },
    /// A fragment, perhaps of a packet whose other fragments have arrived.
    Fragment {
        ipv6: bool,
        protocol: Protocol,
        ident: bool,
        eighths: u8,
        more: bool,
        bytes: Vec<u8>,
    },
    /// Valid extension headers before a payload.
    Extended {
        first: Extension,
        headers: Vec<(Extension, [u8; 6])>,
        bytes: Vec<u8>,
    },
    /// A payload for a group that sockets have joined.
    ForGroup {
        ipv6: bool,
        protocol: Protocol,
        port: u16,
        bytes: Vec<u8>,
    },
    /// An error about a packet that this host may have sent.
    Complaint {
        ipv6: bool,
        kind: u8,
        code: u8,
        word: u32,
        protocol: Protocol,
        port: u16,
        bytes: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
    /// A protocol that only a raw socket accepts.
    Other,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Extension {
    HopByHop,
    Routing,
    Fragment,
    Destination,
    Udp,
    None,
    Unknown,
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop => 0,
            Self::Routing => 43,
            Self::Fragment => 44,
            Self::Destination => 60,
            Self::Udp => 17,
            Self::None => 59,
            Self::Unknown => 250,
        }
    }
}

/// Multicast groups that sockets join, by address family.
const GROUPS: [&str; 2] = ["239.0.0.9", "ff05::9"];
/// Protocol of the raw sockets.
const OTHER: u8 = 200;

/// Checks unsolicited IP packets at a host with sockets of every kind. Answers are few and go only to the
/// source.
pub fn packets(data: &[u8]) {
    let mut pair = Pair::new(Travel::Plain);
    let StackHost { stack, net, .. } = &pair.hosts[B];
    let listener = listen(&pair.hosts[B], pair.now, true, 4);
    let any = address(B, true);
    let ip = IpOptions { receive_errors: true, receive_headers: true, ..IpOptions::default() };
    let options = UdpOptions { ip: IpOptions { receive_errors: false, ..ip }, ..UdpOptions::default() };
    let udp = stack.udp_bind(Some(*net), any, options).expect("the port is free");
    send_headers(data, &pair.hosts[B], &udp, pair.now);
    let pings = [true, false].map(|ipv6| stack.icmp_open(*net, ipv6).expect("an identifier is free"));
    pings.iter().for_each(|ping| ping.set_ip_options(ip).expect("hops"));
    let members = GROUPS.map(|group| {
        let group: IpAddr = group.parse().expect("an address");
        let local = SocketAddr::new(group, PORT);
        let options = UdpOptions { ip, ..UdpOptions::default() };
        let socket = stack.udp_bind(Some(*net), local, options).expect("the port is free");
        socket.join(None, group).expect("a group");
        socket
    });
    let raws =
        [(true, OTHER), (false, OTHER), (true, 58), (false, 1), (false, 17)].map(|(ipv6, protocol)| {
            let options = RawOptions { ip, checksum_offset: Some(2), ..RawOptions::default() };
            stack.raw_open(None, ipv6, protocol, options).expect("an interface")
        });

    for arriving in sequence::<Arriving>(data, MAX_PACKETS) {
        let packet = match arriving {
            Arriving::Anything { bytes } => bytes,
            Arriving::Addressed { ipv6, protocol, hop_limit, bytes } => {
                ip_to_b(ipv6, protocol, hop_limit, &bytes)
            }
            Arriving::ForSocket { ipv6, protocol, port, bytes } => {
                ip_to_b(ipv6, protocol, 64, &for_socket(protocol, port, &bytes))
            }
            Arriving::Wait { millis } => {
                pair.wait(Duration::from_millis(millis.into()), false);
                pair.wire.clear();
                continue;
            }
            Arriving::Fragment { ipv6, protocol, ident, eighths, more, bytes } => {
                fragment(ipv6, protocol, ident, eighths, more, &bytes)
            }
            Arriving::Extended { first, headers, bytes } => extended(first, &headers, &bytes),
            Arriving::ForGroup { ipv6, protocol, port, bytes } => {
                for_group(ipv6, ip_to_b(ipv6, protocol, 1, &for_socket(protocol, port, &bytes)))
            }
            Arriving::Complaint { ipv6, kind, code, word, protocol, port, bytes } => {
                let quoted = swapped(&ip_to_b(ipv6, protocol, 64, &for_socket(protocol, port, &bytes)));
                let message = [&[kind, code, 0, 0][..], &word.to_be_bytes(), &quoted].concat();
                ip_to_b(ipv6, Protocol::Icmp, 64, &message)
            }
        };
        for (group, _) in read_membership_report(&packet).unwrap_or_default() {
            assert!(group.is_multicast());
        }
        pair.hosts[B].receive(pair.now, &packet);
        pair.finish();
        assert!(pair.wire.len() <= MAX_ANSWERS);
        for answer in pair.wire.drain(..) {
            assert_eq!((answer.to, destination(&answer.bytes)), (A, source(&packet)));
        }
    }
    let (mut buf, mut headers) = ([0; 100], ReceivedHeaders::default());
    while let Ok(received) = udp.recv_with_headers(&mut buf, &mut headers) {
        assert!(received.len <= buf.len() && received.destination.port() == PORT);
        for (kind, header) in headers.iter() {
            assert!([0, 43, 60].contains(&kind) && header.len() == 8 * (1 + usize::from(header[1])));
        }
    }
    for ping in pings {
        while ping.recv_with_headers(&mut buf, &mut headers).is_ok() {}
    }
    for socket in members {
        while !matches!(socket.recv_from(&mut buf), Err(Error::WouldBlock)) {}
        while socket.recv_error(&mut buf).is_ok() {}
    }
    for socket in raws {
        while !matches!(socket.recv_with_headers(&mut buf, &mut headers), Err(Error::WouldBlock)) {}
        while socket.recv_error(&mut buf).is_ok() {}
        socket.close();
    }
    while let Ok(flow) = listener.accept(pair.now) {
        assert_eq!(flow.local().port(), PORT);
        flow.close(pair.now);
        pair.kick(B, &flow);
    }
    listener.close(pair.now);
    pair.wait(Duration::from_secs(300), false);
    assert_eq!(pair.hosts[B].stack.flows(), 0, "no side answers, so all must come to an end");
}

/// Makes an IP packet from A to B.
fn ip_to_b(ipv6: bool, protocol: Protocol, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [A, B].map(|side| match address(side, ipv6).ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    });
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Icmp if ipv6 => 58,
        Protocol::Icmp => 1,
        Protocol::Other => OTHER,
    };
    let payload = &payload[..payload.len().min(2000)];
    let header = if ipv6 {
        let [high, low] = (payload.len() as u16).to_be_bytes();
        [0x60, 0, 0, 0, high, low, number, hop_limit].to_vec()
    } else {
        let [high, low] = (20 + payload.len() as u16).to_be_bytes();
        [0x45, 0, high, low, 0, 0, 0, 0, hop_limit, number, 0, 0].to_vec()
    };
    [&header, &addresses.concat(), payload].concat()
}

/// Puts ports or an identifier, and lengths, into a transport header.
fn for_socket(protocol: Protocol, port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = [bytes, &[0; 20]].concat();
    match protocol {
        Protocol::Icmp => bytes[4..6].copy_from_slice(&1u16.to_be_bytes()),
        Protocol::Other => {}
        Protocol::Tcp | Protocol::Udp => {
            bytes[..2].copy_from_slice(&port.max(1).to_be_bytes());
            bytes[2..4].copy_from_slice(&PORT.to_be_bytes());
        }
    }
    match protocol {
        Protocol::Tcp => bytes[12] = bytes[12].max(5 << 4),
        Protocol::Udp => {
            let len = bytes.len().min(2000) as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
        }
        Protocol::Icmp | Protocol::Other => {}
    }
    bytes
}

/// Makes a fragment of one of two packets from A to B.
fn fragment(ipv6: bool, protocol: Protocol, ident: bool, eighths: u8, more: bool, bytes: &[u8]) -> Vec<u8> {
    // Short fragments, mostly of a length that permits a successor, have a chance to fit each other.
    let mut bytes = bytes[..bytes.len().min(1000)].to_vec();
    if more && bytes.len() % 16 > 1 {
        bytes.resize(8 * (1 + bytes.len() % 2), 0);
    }
    let eighths = if eighths < 250 { eighths % 4 } else { eighths };
    let mut packet = ip_to_b(ipv6, protocol, 64, &bytes);
    if ipv6 {
        let [high, low] = (u16::from(eighths) << 3 | u16::from(more)).to_be_bytes();
        let header = [packet[6], 0, high, low, 0, 0, 0, u8::from(ident)];
        packet.splice(40..40, header);
        packet[6] = 44;
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
    } else {
        packet[5] = u8::from(ident);
        packet[6] = u8::from(more) << 5;
        packet[7] = eighths;
    }
    packet
}

/// Sends datagrams with headers of arbitrary bytes but valid lengths. The headers are refused, or make
/// packets that fit and contain them.
fn send_headers(data: &[u8], host: &StackHost, udp: &UdpSocket, now: Instant) {
    let parts: Vec<Vec<u8>> = data
        .chunks(data.len().div_ceil(4).max(1))
        .map(|part| {
            let mut part = part[..part.len().min(2048) / 8 * 8].to_vec();
            let eighths = part.len() / 8;
            part.get_mut(1).into_iter().for_each(|length| *length = (eighths - 1) as u8);
            part
        })
        .collect();
    let part = |at: usize| parts.get(at).map(Vec::as_slice).filter(|part| !part.is_empty());
    for routing in [part(2), None] {
        let parts =
            HeaderParts { hop_by_hop: part(0), before_routing: part(1), routing, destination: part(3) };
        let Ok(Some(headers)) = ExtensionHeaders::new(&parts) else { continue };
        let options = SendOptions { headers: Some(&headers), ..SendOptions::default() };
        let Ok(route) = udp.route_with(Some(address(A, true)), &options) else { continue };
        let mut buf = vec![0; MAX_DATAGRAM];
        let Ok(len) = udp.send_with(now, &route, &[7; 2000], &options, 1280, &mut buf) else { continue };
        assert_eq!(len, 40 + headers.len() + 8 + 2000);
        let mut fragments = host.stack.fragments(host.net, &buf[..len], 1280).expect("it was found to fit");
        while let Some(fragment) = fragments.next(&mut buf) {
            assert!(fragment.len() <= 1280);
        }
    }
}

/// Makes a packet from A to B with extension headers of eight bytes each.
fn extended(first: Extension, headers: &[(Extension, [u8; 6])], bytes: &[u8]) -> Vec<u8> {
    let chain = headers
        .iter()
        .take(20)
        .flat_map(|(next, [a, b, c, d, e, f])| [next.number(), 0, *a, *b, *c, *d, *e, *f]);
    let payload: Vec<u8> = chain.chain(for_socket(Protocol::Udp, PORT, bytes)).collect();
    let mut packet = ip_to_b(true, Protocol::Other, 64, &payload);
    packet[6] = first.number();
    packet
}

/// Redirects a packet to a group.
fn for_group(ipv6: bool, mut packet: Vec<u8>) -> Vec<u8> {
    match GROUPS[usize::from(ipv6)].parse().expect("an address") {
        IpAddr::V4(v4) => packet[16..20].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => packet[24..40].copy_from_slice(&v6.octets()),
    }
    packet
}

/// Returns the packet in the opposite direction, as B would have sent it.
fn swapped(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (addresses, ports) = if packet[0] >> 4 == 4 { (12..20, 20) } else { (8..40, 40) };
    let half = addresses.len() / 2;
    packet[addresses].rotate_left(half);
    packet[ports..ports + 4].rotate_left(2);
    packet
}

fn source(packet: &[u8]) -> Option<&[u8]> {
    if packet.first()? >> 4 == 4 { packet.get(12..16) } else { packet.get(8..24) }
}

fn destination(packet: &[u8]) -> Option<&[u8]> {
    if packet.first()? >> 4 == 4 { packet.get(16..20) } else { packet.get(24..40) }
}

#[derive(Debug, Arbitrary)]
enum Segment {
    /// The last packet of one side, with other numbers, flags, options and payload.
    Altered {
        to_b: bool,
        seq: i32,
        ack: i32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
        payload: u16,
    },
    /// An old packet with any damage, to either side.
    Damaged {
        which: u8,
        to_b: bool,
        damages: Vec<Damage>,
    },
    /// The next packets on the wire arrive, or are lost.
    Pass {
        count: u8,
        lost: bool,
    },
    Write {
        by_b: bool,
        len: u16,
    },
    Read {
        by_b: bool,
        len: u16,
    },
    Shutdown {
        by_b: bool,
    },
    Wait {
        millis: u16,
    },
}

/// Checks almost valid segments for a live connection. Queues stay within bounds, readiness is correct, and
/// everything ends.
pub fn segments(data: &[u8]) {
    let mut pair = Pair::new(Travel::Plain);
    let (a, b) = pair.connected(true);
    let flows = [a, b];
    a_few_bytes_each_way(&mut pair, &flows);
    let mut past: Vec<Vec<u8>> = pair.wire.iter().map(|packet| packet.bytes.clone()).collect();
    let samples =
        [A, B].map(|to| pair.wire.iter().find(|packet| packet.to == to).expect("data").bytes.clone());

    for segment in sequence::<Segment>(data, MAX_PACKETS) {
        match segment {
            Segment::Altered { to_b, seq, ack, flags, window, options, payload } => {
                let packet =
                    altered(&samples[usize::from(to_b)], [seq, ack], flags, window, &options, payload);
                pair.hosts[usize::from(to_b)].receive(pair.now, &packet);
            }
            Segment::Damaged { which, to_b, damages } => {
                let Some(packet) = pick(&past, which) else { continue };
                pair.hosts[usize::from(to_b)].receive(pair.now, &damaged(packet, &damages));
            }
            Segment::Pass { count, lost } => {
                let count = usize::from(count).min(pair.wire.len());
                past.extend(pair.wire.iter().take(count).map(|packet| packet.bytes.clone()));
                past.truncate(256);
                if lost { drop(pair.wire.drain(..count)) } else { pair.deliver(count) }
            }
            Segment::Write { by_b, len } => {
                let _ = flows[usize::from(by_b)].write(pair.now, &vec![7; len.into()]);
            }
            Segment::Read { by_b, len } => read(&pair, &flows[usize::from(by_b)], len.into()),
            Segment::Shutdown { by_b } => drop(flows[usize::from(by_b)].shutdown_write(pair.now)),
            Segment::Wait { millis } => pair.wait(Duration::from_millis(millis.into()), false),
        }
        pair.finish();
        for (side, flow) in flows.iter().enumerate() {
            pair.kick(side, flow);
            assert!(flow.readable() <= RECEIVE_BUFFER);
        }
    }
    pair.wire.clear();
    for (side, flow) in flows.iter().enumerate() {
        flow.close(pair.now);
        pair.kick(side, flow);
    }
    pair.wait(Duration::from_secs(300), false);
    assert!(
        pair.hosts.iter().all(|host| host.stack.flows() == 0),
        "no side answers, so all must come to an end"
    );
}

fn a_few_bytes_each_way(pair: &mut Pair, flows: &[Arc<Flow>; 2]) {
    for (side, flow) in flows.iter().enumerate() {
        flow.write(pair.now, &[1; 100]).expect("connected");
        pair.kick(side, flow);
    }
}

fn read(pair: &Pair, flow: &Flow, len: usize) {
    let ready = flow.readiness();
    let result = flow.read(pair.now, &mut vec![0; len]);
    match result {
        Err(Error::WouldBlock) => assert!(!ready.contains(Ready::READABLE), "{ready:?}"),
        Ok(0) if len > 0 => assert!(ready.contains(Ready::READ_CLOSED), "{ready:?}"),
        _ => assert!(len == 0 || ready.contains(Ready::READABLE), "{result:?} {ready:?}"),
    }
}

/// Makes a segment like `sample`, which is an IPv6 packet with a plain TCP header.
fn altered(
    sample: &[u8],
    numbers: [i32; 2],
    flags: u8,
    window: u16,
    options: &[u8],
    payload: u16,
) -> Vec<u8> {
    let mut packet = sample[..60].to_vec();
    for (at, by) in [44, 48].into_iter().zip(numbers) {
        let field = i32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"));
        packet[at..at + 4].copy_from_slice(&field.wrapping_add(by).to_be_bytes());
    }
    let words = options.len().div_ceil(4).min(10);
    packet[52] = (5 + words as u8) << 4;
    packet[53] = flags & 0x3f;
    packet[54..56].copy_from_slice(&window.to_be_bytes());
    packet.extend(options.iter().take(4 * words));
    packet.resize(60 + 4 * words + usize::from(payload % 3000), 7);
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}
