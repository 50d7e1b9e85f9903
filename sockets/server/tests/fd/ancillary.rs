//! Ancillary data of received datagrams, and of sent ones.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use peersock_fd::{Details, Errno, Family, Kind, PacketInfo, SendFlags, interface_index};
use rustix::event::PollFlags;

use crate::common::{Served, errno, get_bytes, overlay, poll, receive, send_to, set, set_bytes, try_receive};

const WANTED: [i32; 3] = [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS];

fn want_all(fd: &OwnedFd) {
    for option in WANTED {
        set(fd, libc::IPPROTO_IPV6, option, 1).expect("an option");
    }
}

fn send_with(fd: &OwnedFd, data: &[u8], remote: SocketAddr, details: Details) -> Result<usize, Errno> {
    overlay(fd).send_to(&[IoSlice::new(data)], SendFlags::empty(), remote, Some(details))
}

fn info(local: IpAddr, interface: u16) -> Option<PacketInfo> {
    Some(PacketInfo { local, interface })
}

#[test]
fn a_socket_is_told_what_it_has_asked_for() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, b"nothing", address).expect("it is sent");
    assert_eq!(receive(&server).1.details, None);
    set(&server, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1).expect("an option");
    send_to(&client, b"hops", address).expect("it is sent");
    assert_eq!(receive(&server).1.details, Some(Details { hop_limit: Some(64), ..Details::default() }));
    want_all(&server);
    let own = Details { hop_limit: Some(9), traffic_class: Some(0xb8), ..Details::default() };
    send_with(&client, b"all", address, own).expect("it is sent");
    let (_, received) = receive(&server);
    assert_eq!(received.details, Some(Details { packet_info: info(b.ip(), 1), ..own }));
    // Other datagrams use the socket's own options.
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 33).expect("an option");
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 8).expect("an option");
    send_to(&client, b"usual", address).expect("it is sent");
    let details = receive(&server).1.details.expect("it has asked");
    assert_eq!((details.hop_limit, details.traffic_class), (Some(33), Some(8)));
}

#[test]
fn a_connected_socket_is_told_each_datagram_s_own() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, b"hello", address).expect("it is sent");
    let from = receive(&server).1.remote;
    want_all(&server);
    overlay(&server).connect(from).expect("it is known where");
    for hops in [5, 5, 6] {
        let own = Details { hop_limit: Some(hops), traffic_class: Some(0), ..Details::default() };
        send_with(&client, &[hops], address, own).expect("it is sent");
    }
    for hops in [5, 5, 6] {
        let (data, received) = receive(&server);
        let details = received.details.expect("it has asked");
        assert_eq!(
            (&data[..], details.hop_limit, details.packet_info),
            (&[hops][..], Some(hops), info(b.ip(), 1))
        );
    }
    // A plain read leaves no descriptor behind.
    send_to(&client, b"plain", address).expect("it is sent");
    poll(&server, PollFlags::IN);
    assert_eq!(rustix::io::read(&server, &mut [0; 10]), Ok(5));
    // The socket may also set options for its own datagrams.
    let own = Details { hop_limit: Some(3), ..Details::default() };
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1).expect("an option");
    overlay(&server).send(&[IoSlice::new(b"back")], SendFlags::empty(), Some(own)).expect("it is sent");
    assert_eq!(receive(&client).1.details, Some(own));
}

#[test]
fn the_source_address_can_be_chosen() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open(Kind::Datagram);
    overlay(&server).bind("[::]:5000".parse().expect("an address")).expect("a free port");
    want_all(&server);
    let client = a.open(Kind::Datagram);
    let to = SocketAddr::new(b.ip(), 5000);
    let from = |local| Details { packet_info: info(local, 0), ..Details::default() };
    send_with(&client, b"x", to, from(a.ip())).expect("an own address");
    let (_, received) = receive(&server);
    assert_eq!(received.remote.map(|remote| remote.ip()), Some(a.ip()));
    assert_eq!(errno(send_with(&client, b"x", to, from(b.ip()))), Errno::ADDRNOTAVAIL);
    let elsewhere = Details { packet_info: info("::".parse().expect("any"), 9), ..Details::default() };
    assert_eq!(errno(send_with(&client, b"x", to, elsewhere)), Errno::NETUNREACH);
    // A wildcard socket shows the destination of an IPv4 datagram as a mapped address.
    let four = a.open_in(Family::V4, Kind::Datagram);
    send_to(&four, b"four", SocketAddr::new(b.v4(), 5000)).expect("it is sent");
    let mapped = "::ffff:10.7.0.2".parse().expect("an address");
    assert_eq!(
        receive(&server).1.details,
        Some(Details { packet_info: info(mapped, 1), ..Details::default() })
    );
}

#[test]
fn a_sticky_source_is_what_all_datagrams_leave_with() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open(Kind::Datagram);
    overlay(&server).bind("[::]:5000".parse().expect("an address")).expect("a free port");
    let client = a.open(Kind::Datagram);
    let value = |ip: IpAddr, index: u32| {
        let IpAddr::V6(ip) = ip else { panic!("IPv6") };
        [&ip.octets()[..], &index.to_ne_bytes()].concat()
    };
    let sticky = |value: &[u8]| set_bytes(&client, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, value);
    let none = "::".parse().expect("any");
    assert_eq!(errno(sticky(&value(b.ip(), 0))), Errno::ADDRNOTAVAIL);
    assert_eq!(errno(sticky(&value(none, 9))), Errno::NODEV);
    assert_eq!(errno(sticky(&[0; 19])), Errno::INVAL);
    sticky(&value(a.ip(), interface_index(1))).expect("its own");
    let asked = get_bytes(&client, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
    assert_eq!(asked, Ok(value(a.ip(), interface_index(1))));
    let to = SocketAddr::new(b.ip(), 5000);
    send_to(&client, b"x", to).expect("it is sent");
    assert_eq!(receive(&server).1.remote.map(|remote| remote.ip()), Some(a.ip()));
    overlay(&client).connect(Some(to)).expect("it is known where");
    assert_eq!(overlay(&client).local_addr().map(|local| local.ip()), Ok(a.ip()));
    // The single datagram's option takes precedence; a different network does not match.
    a.node().join(peersock::Network::ad_hoc("ff0001fffe000000".parse().expect("an ID"))).expect("a network");
    overlay(&client).connect(None).expect("it forgets its peer");
    sticky(&value(none, interface_index(2))).expect("an interface");
    let other = SocketAddr::new(b.ip(), 5001);
    assert_eq!(errno(send_to(&client, b"x", other)), Errno::NETUNREACH);
    let own = Details { packet_info: info(a.ip(), 1), ..Details::default() };
    send_with(&client, b"own", to, own).expect("it is sent");
    assert_eq!(receive(&server).0, b"own");
    sticky(&[0; 20]).expect("no source");
    send_to(&client, b"usual", other).expect("it is sent");
}

#[test]
fn ipv4_has_options_of_its_own() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open_in(Family::V4, Kind::Datagram);
    let address = SocketAddr::new(b.v4(), 5000);
    overlay(&server).bind(address).expect("a free port");
    for option in [libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS] {
        set(&server, libc::IPPROTO_IP, option, 1).expect("an option");
    }
    let client = a.open_in(Family::V4, Kind::Datagram);
    set(&client, libc::IPPROTO_IP, libc::IP_TTL, 7).expect("an option");
    set(&client, libc::IPPROTO_IP, libc::IP_TOS, 0x10).expect("an option");
    send_to(&client, b"x", address).expect("it is sent");
    let packet_info = info(b.v4(), 1);
    let details =
        Details { packet_info, hop_limit: Some(7), traffic_class: Some(0x10), ..Details::default() };
    assert_eq!(receive(&server).1.details, Some(details));
}

#[test]
fn errors_are_queued_for_those_who_ask() {
    let (a, b) = Served::pair();
    let client = a.open(Kind::Datagram);
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1).expect("an option");
    assert_eq!(errno(overlay(&client).recv_error()), Errno::AGAIN);
    let nobody = SocketAddr::new(b.ip(), 9);
    // An unconnected socket becomes readable.
    send_to(&client, b"anybody?", nobody).expect("it is sent");
    assert!(poll(&client, PollFlags::IN).contains(PollFlags::IN));
    assert_eq!(errno(try_receive(&client, peersock_fd::RecvFlags::DONTWAIT)), Errno::CONNREFUSED);
    let report = overlay(&client).recv_error().expect("a report");
    assert_eq!((report.errno, report.origin, report.kind, report.code), (libc::ECONNREFUSED, 3, 1, 4));
    assert_eq!((report.destination, report.offender), (nobody, Some(b.ip())));
    assert_eq!(report.quoted, b"anybody?");
    // An error taken with its report is not reported again.
    send_to(&client, b"anybody?", nobody).expect("it is sent");
    poll(&client, PollFlags::IN);
    overlay(&client).recv_error().expect("a report");
    assert_eq!(errno(try_receive(&client, peersock_fd::RecvFlags::DONTWAIT)), Errno::AGAIN);
    // A connected socket has an error.
    overlay(&client).connect(Some(nobody)).expect("it is known where");
    rustix::io::write(&client, b"hello?").expect("room");
    assert!(poll(&client, PollFlags::IN).contains(PollFlags::ERR));
    assert_eq!(overlay(&client).recv_error().expect("a report").quoted, b"hello?");
}
