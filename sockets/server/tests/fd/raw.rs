//! Raw sockets.

use std::net::{IpAddr, SocketAddr};

use peersock_fd::{Errno, Family, Kind};
use rustix::event::PollFlags;

use crate::common::{Served, errno, get_bytes, overlay, poll_for, receive, send_to, set, set_bytes};

/// A protocol for experiments (RFC 3692).
const EXPERIMENTAL_PROTOCOL: u8 = 253;

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}

#[test]
fn ipv4_packets_come_with_their_header_and_ipv6_s_without() {
    let (a, b) = Served::pair_with_ipv4();
    let (server, client) = (
        b.open_in(Family::V4, Kind::Raw(EXPERIMENTAL_PROTOCOL)),
        a.open_in(Family::V4, Kind::Raw(EXPERIMENTAL_PROTOCOL)),
    );
    assert_eq!(send_to(&client, b"four", at(b.v4())), Ok(4));
    let (packet, received) = receive(&server);
    assert_eq!(
        (packet.len(), packet[0], packet[9], &packet[20..]),
        (24, 0x45, EXPERIMENTAL_PROTOCOL, &b"four"[..])
    );
    assert_eq!(received.remote, Some(at(a.v4())));
    let (server, client) =
        (b.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)), a.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)));
    assert_eq!(send_to(&client, b"six", at(b.ip())), Ok(3));
    let (packet, received) = receive(&server);
    assert_eq!((&packet[..], received.remote), (&b"six"[..], Some(at(a.ip()))));
    // A connected socket can be read and written.
    overlay(&client).connect(Some(at(b.ip()))).expect("it is known where");
    assert_eq!(overlay(&client).local_addr(), Ok(at(a.ip())));
    rustix::io::write(&client, b"written").expect("room");
    assert_eq!(receive(&server).0, b"written");
}

#[test]
fn a_header_may_be_the_application_s_own() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open_in(Family::V4, Kind::Raw(EXPERIMENTAL_PROTOCOL));
    let client = a.open_in(Family::V4, Kind::Raw(EXPERIMENTAL_PROTOCOL));
    set(&client, libc::IPPROTO_IP, libc::IP_HDRINCL, 1).expect("an option");
    let (IpAddr::V4(from), IpAddr::V4(to)) = (a.v4(), b.v4()) else { panic!("IPv4") };
    let mut packet = vec![0x45, 0x20, 0, 0, 0, 0, 0, 0, 17, EXPERIMENTAL_PROTOCOL, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(b"own header");
    send_to(&client, &packet, at(b.v4())).expect("it is sent");
    let received = receive(&server).0;
    assert_eq!((received[1], received[8], &received[20..]), (0x20, 17, &b"own header"[..]));
    assert_eq!(u16::from_be_bytes([received[2], received[3]]), 30);
}

#[test]
fn a_filter_decides_which_icmp_messages_are_received() {
    let (a, b) = Served::pair();
    let icmpv6 = libc::IPPROTO_ICMPV6 as u8;
    let raw = a.open(Kind::Raw(icmpv6));
    // Everything is blocked except echo replies.
    let mut filter = [0xff; 32];
    filter[16] = !2;
    set_bytes(&raw, libc::IPPROTO_ICMPV6, 1, &filter).expect("a filter");
    assert_eq!(get_bytes(&raw, libc::IPPROTO_ICMPV6, 1).expect("a filter"), filter);
    // The node fills in the checksum.
    send_to(&raw, &[128, 0, 0, 0, 1, 2, 3, 4], at(b.ip())).expect("it is sent");
    assert_eq!(receive(&raw).0[..1], [129]);
    send_to(&raw, &[128, 0, 0, 0, 1, 2, 3, 4], at(a.ip())).expect("it is sent");
    assert_eq!(receive(&raw).0[..1], [129]);
    assert_eq!(poll_for(&raw, PollFlags::IN, 1), PollFlags::empty());
}

#[test]
fn a_checksum_is_filled_in_where_the_socket_says() {
    let (a, b) = Served::pair();
    let (server, client) =
        (b.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)), a.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)));
    let at_two = |value| set(&client, libc::IPPROTO_IPV6, 7, value);
    assert_eq!(errno(at_two(3)), Errno::INVAL);
    at_two(2).expect("an even number");
    send_to(&client, &[1, 2, 0, 0, 3, 4], at(b.ip())).expect("it is sent");
    let packet = receive(&server).0;
    assert_eq!((&packet[..2], &packet[4..]), (&[1, 2][..], &[3, 4][..]));
    assert_ne!(packet[2..4], [0, 0]);
}

#[test]
fn a_bound_raw_socket_receives_what_comes_to_its_address() {
    let (a, b) = Served::pair();
    let (server, client) =
        (b.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)), a.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)));
    overlay(&server).bind(at(b.ip())).expect("an own address");
    assert_eq!(overlay(&server).local_addr(), Ok(at(b.ip())));
    assert_eq!(errno(overlay(&server).bind(at(a.ip()))), Errno::ADDRNOTAVAIL);
    send_to(&client, b"x", at(b.ip())).expect("it is sent");
    assert_eq!(receive(&server).0, b"x");
}
