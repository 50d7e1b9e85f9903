//! IPv4 sockets in a network without IPv4 addresses: its members have aliases.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use libc::IPPROTO_IP;
use peersock_fd::{Details, Errno, Family, Kind, SocketFlags};
use rustix::event::PollFlags;

use crate::common::{Served, errno, overlay, poll, receive, send_to, set, try_receive};

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn v4_server(node: &Served, port: u16) -> OwnedFd {
    let fd = node.open_in(Family::V4, Kind::Datagram);
    overlay(&fd).bind(any(port)).expect("a free port");
    fd
}

fn is_alias(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18)
}

/// Makes `a` send to `server`, on port 5000 of `b`. Returns `a`'s socket, and the sender's address that the
/// server sees.
fn alias_of(a: &Served, b: &Served, server: &OwnedFd) -> (OwnedFd, SocketAddr) {
    let client = a.open(Kind::Datagram);
    send_to(&client, b"question", SocketAddr::new(b.ip(), 5000)).expect("it is sent");
    let (data, received) = receive(server);
    assert_eq!(data, b"question");
    let from = received.remote.expect("its sender");
    assert!(is_alias(from.ip()), "{from}");
    assert_eq!(from.port(), overlay(&client).local_addr().expect("it is bound").port());
    (client, from)
}

#[test]
fn an_ipv4_udp_socket_hears_and_answers_members_without_ipv4() {
    let (a, b) = Served::pair();
    let server = v4_server(&b, 5000);
    assert_eq!(overlay(&server).local_addr(), Ok(any(5000)));
    let (client, from) = alias_of(&a, &b, &server);
    send_to(&server, b"answer", from).expect("it is sent");
    let (data, received) = receive(&client);
    assert_eq!((&data[..], received.remote), (&b"answer"[..], Some(SocketAddr::new(b.ip(), 5000))));
    // An unbound socket sends there as well.
    let target = SocketAddr::new(a.ip(), overlay(&client).local_addr().expect("bound").port());
    let other = b.open_in(Family::V4, Kind::Datagram);
    send_to(&other, b"other", SocketAddr::new(from.ip(), target.port())).expect("it is sent");
    assert_eq!(receive(&client).0, b"other");
    // The status says whom a log with that address is about.
    let of = |ip| {
        b.node().peers().into_iter().find(|peer| peer.addresses.contains(&ip)).map(|peer| peer.ipv4_aliases)
    };
    assert_eq!(
        of(a.ip()).map(|aliases| aliases.into_iter().map(IpAddr::V4).collect()),
        Some(vec![from.ip()])
    );
    assert!(
        a.node().peers().iter().all(|peer| peer.ipv4_aliases.is_empty()),
        "no program there has IPv4 sockets"
    );
    // An address that is not an alias leads nowhere.
    let nobody = SocketAddr::from(([198, 19, 1, 1], 5000));
    assert_eq!(errno(send_to(&other, b"x", nobody)), Errno::NETUNREACH);
}

#[test]
fn a_connected_ipv4_socket_has_aliases_at_both_ends() {
    let (a, b) = Served::pair();
    let server = v4_server(&b, 5000);
    set(&server, IPPROTO_IP, libc::IP_PKTINFO, 1).expect("an option");
    set(&server, IPPROTO_IP, libc::IP_RECVTTL, 1).expect("an option");
    set(&server, IPPROTO_IP, libc::IP_TTL, 9).expect("an option");
    let (client, from) = alias_of(&a, &b, &server);
    overlay(&server).connect(Some(from)).expect("it is known where");
    let local = overlay(&server).local_addr().expect("it is connected");
    assert!(is_alias(local.ip()) && local.port() == 5000, "{local}");
    assert_eq!(overlay(&server).peer_addr(), Ok(from));
    rustix::io::write(&server, b"connected").expect("room");
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1).expect("an option");
    rustix::io::write(&server, b"again").expect("room");
    assert_eq!(receive(&client).0, b"connected");
    let (data, received) = receive(&client);
    assert_eq!(data, b"again");
    assert!(received.details.is_none_or(|details| details.hop_limit == Some(9)), "{received:?}");
    send_to(&client, b"back", SocketAddr::new(b.ip(), 5000)).expect("it is sent");
    let (_, received) = receive(&server);
    let details = received.details.expect("it has asked");
    assert_eq!(details.packet_info.map(|info| info.local), Some(local.ip()));
    assert_eq!((received.remote, details.hop_limit), (Some(from), Some(64)));
    // Its own alias works as a source like its address.
    let from_alias = Details { packet_info: details.packet_info, ..Details::default() };
    let piece = [std::io::IoSlice::new(b"chosen")];
    overlay(&server).send(&piece, peersock_fd::SendFlags::empty(), Some(from_alias)).expect("it is sent");
    assert_eq!(receive(&client).0, b"chosen");
}

#[test]
fn errors_of_aliases_are_told_with_aliases() {
    let (a, b) = Served::pair();
    let server = v4_server(&b, 5000);
    let (_client, from) = alias_of(&a, &b, &server);
    set(&server, IPPROTO_IP, libc::IP_RECVERR, 1).expect("an option");
    let nobody = SocketAddr::new(from.ip(), 9);
    send_to(&server, b"anybody?", nobody).expect("it is sent");
    assert!(poll(&server, PollFlags::IN).contains(PollFlags::IN));
    assert_eq!(errno(try_receive(&server, peersock_fd::RecvFlags::DONTWAIT)), Errno::CONNREFUSED);
    let report = overlay(&server).recv_error().expect("a report");
    assert_eq!((report.destination, report.offender), (nobody, Some(from.ip())));
}

#[test]
fn an_ipv4_echo_socket_pings_members_without_ipv4() {
    let (a, b) = Served::pair();
    let server = v4_server(&b, 5000);
    let (_client, from) = alias_of(&a, &b, &server);
    let ping = b.open_in(Family::V4, Kind::Echo);
    let request = [8, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3];
    send_to(&ping, &request, SocketAddr::new(from.ip(), 0)).expect("it is sent");
    let (reply, received) = receive(&ping);
    let ident = overlay(&ping).local_addr().expect("it is bound").port().to_be_bytes();
    assert_eq!(reply, [&[0, 0, 0, 0][..], &ident, &[0, 7, 1, 2, 3]].concat());
    assert_eq!(received.remote, Some(SocketAddr::new(from.ip(), 0)));
    overlay(&ping).connect(Some(from)).expect("it is known where");
    assert!(is_alias(overlay(&ping).local_addr().expect("it is connected").ip()));
    rustix::io::write(&ping, &request).expect("room");
    assert_eq!(receive(&ping).0, reply);
}

#[test]
fn an_ipv6_socket_gets_the_port_that_an_ipv4_one_has_for_aliases_only() {
    let b = Served::new("ff0001ffff000000");
    let four = v4_server(&b, 5000);
    let tcp = peersock_fd::open(&b.client, Family::V4, Kind::Stream, SocketFlags::empty()).expect("a socket");
    overlay(&tcp).bind(any(5000)).expect("TCP's ports are others");
    let [client, both] = [(); 2].map(|()| b.open(Kind::Datagram));
    let to = SocketAddr::new(b.ip(), 5000);
    let dual = "[::]:5000".parse().expect("an address");
    // A socket that wants IPv4's as well fails, and nothing changes.
    assert_eq!(errno(overlay(&both).bind(dual)), Errno::ADDRINUSE);
    send_to(&client, b"four", to).expect("it is sent");
    assert_eq!(receive(&four).0, b"four");
    let six = b.open(Kind::Datagram);
    set(&six, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).expect("an option");
    overlay(&six).bind(dual).expect("it is IPv6's");
    send_to(&client, b"six", to).expect("it is sent");
    assert_eq!(receive(&six).0, b"six");
    assert_eq!(errno(try_receive(&four, peersock_fd::RecvFlags::DONTWAIT)), Errno::AGAIN);
}

#[test]
fn sockets_are_bound_to_the_node_s_own_alias() {
    let (a, b) = Served::pair();
    // No program has seen the alias yet.
    let IpAddr::V6(ip) = b.ip() else { panic!("an ad-hoc network has IPv6") };
    let own = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | (ip.to_bits() as u32 & 0x1_ffff));
    let at = |port| SocketAddr::from((own, port));
    let client = a.open(Kind::Datagram);

    let udp = b.open_in(Family::V4, Kind::Datagram);
    set(&udp, IPPROTO_IP, libc::IP_TTL, 9).expect("an option");
    overlay(&udp).bind(at(5000)).expect("it is its own");
    assert_eq!(overlay(&udp).local_addr(), Ok(at(5000)));
    send_to(&client, b"question", SocketAddr::new(b.ip(), 5000)).expect("it is sent");
    let (data, received) = receive(&udp);
    assert_eq!(data, b"question");
    let from = received.remote.expect("its sender");
    assert!(is_alias(from.ip()), "{from}");
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1).expect("an option");
    send_to(&udp, b"answer", from).expect("it is sent");
    let (data, received) = receive(&client);
    assert_eq!((&data[..], received.remote), (&b"answer"[..], Some(SocketAddr::new(b.ip(), 5000))));
    assert_eq!(received.details.and_then(|details| details.hop_limit), Some(9), "it is an IPv4 socket's");

    let ping = b.open_in(Family::V4, Kind::Echo);
    overlay(&ping).bind(at(0)).expect("it is its own");
    let request = [8, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3];
    send_to(&ping, &request, SocketAddr::new(from.ip(), 0)).expect("it is sent");
    assert_eq!(receive(&ping).0[0], 0, "an echo reply of ICMP for IPv4");

    let listener = b.open_in(Family::V4, Kind::Stream);
    overlay(&listener).bind(at(0)).expect("it is its own");
    overlay(&listener).listen(5).expect("it listens");
    let local = overlay(&listener).local_addr().expect("it is bound");
    assert_eq!(local.ip(), own);
    let stream = a.socket(SocketFlags::empty());
    overlay(&stream).connect(Some(SocketAddr::new(b.ip(), local.port()))).expect("it listens");
    let (accepted, peer) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!((overlay(&accepted).local_addr(), peer.ip()), (Ok(local), from.ip()));
    // From this node's alias to another one.
    let back = b.open_in(Family::V4, Kind::Stream);
    overlay(&back).bind(at(0)).expect("it is its own");
    let (there, target) = a.listen(SocketFlags::empty());
    overlay(&back).connect(Some(SocketAddr::new(from.ip(), target.port()))).expect("it listens");
    let (_there, peer) = overlay(&there).accept(SocketFlags::empty()).expect("a connection");
    let local = overlay(&back).local_addr().expect("it is connected");
    assert_eq!((local.ip(), peer), (own.into(), SocketAddr::new(b.ip(), local.port())));
}

#[test]
fn an_alias_is_bound_to_by_its_own_node_alone_and_its_port_by_one_socket() {
    let (a, b) = Served::pair();
    let server = v4_server(&b, 5000);
    let (_client, other) = alias_of(&a, &b, &server);
    let udp = || b.open_in(Family::V4, Kind::Datagram);
    let nobody = SocketAddr::from(([198, 19, 1, 1], 5001));
    for not_here in [SocketAddr::new(other.ip(), 5001), nobody] {
        assert_eq!(errno(overlay(&udp()).bind(not_here)), Errno::ADDRNOTAVAIL, "{not_here}");
    }
    overlay(&server).connect(Some(other)).expect("it is known where");
    let own = overlay(&server).local_addr().expect("it is connected");
    // The wildcard socket has the port, and keeps the datagrams of members without IPv4.
    assert_eq!(errno(overlay(&udp()).bind(own)), Errno::ADDRINUSE);
    let raw = b.open_in(Family::V4, Kind::Raw(17));
    assert_eq!(errno(overlay(&raw).bind(SocketAddr::new(own.ip(), 0))), Errno::ADDRNOTAVAIL);
}
