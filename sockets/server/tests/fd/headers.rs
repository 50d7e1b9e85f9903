//! Extension headers: as options, and beside datagrams in both directions.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use peersock_fd::{Details, Errno, Family, Header, HeaderKind, Kind, Request, SendFlags, Which};

use crate::common::{Served, errno, get, get_bytes, overlay, receive, send_to, set, set_bytes};

const LEVEL: i32 = libc::IPPROTO_IPV6;
const RECV: [i32; 3] = [53, 56, 58];

/// Returns an options header of `eighths` times eight bytes, with an option that hosts skip.
fn options(eighths: u8, fill: u8) -> Vec<u8> {
    let rest = 8 * usize::from(eighths) - 4;
    [&[0, eighths - 1, 0x1e, rest as u8][..], &vec![fill; rest]].concat()
}

fn header(kind: HeaderKind, eighths: u8, fill: u8) -> Header {
    Header { kind, bytes: options(eighths, fill) }
}

fn send_with(
    fd: &OwnedFd,
    data: &[u8],
    remote: Option<SocketAddr>,
    headers: &[Header],
) -> Result<usize, Errno> {
    let (data, flags) = ([IoSlice::new(data)], SendFlags::empty());
    overlay(fd).send_with_headers(&data, flags, remote, None, headers.to_vec())
}

fn want_all(fd: &OwnedFd) {
    RECV.into_iter().for_each(|option| set(fd, LEVEL, option, 1).expect("an option"));
}

/// Returns the headers without the byte that names the next header.
fn shown(headers: &[Header]) -> Vec<(HeaderKind, &[u8])> {
    headers.iter().map(|header| (header.kind, &header.bytes[1..])).collect()
}

#[test]
fn a_datagram_comes_with_its_headers_to_who_has_asked() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    let sent = [header(HeaderKind::HopByHop, 1, 3), header(HeaderKind::Destination, 2, 4)];
    send_with(&client, b"nobody has asked", Some(address), &sent).expect("it is sent");
    let (data, received) = receive(&server);
    assert_eq!((&data[..], &received.headers[..]), (&b"nobody has asked"[..], &[][..]));
    for (at, option) in RECV.into_iter().enumerate() {
        assert_eq!(get(&server, LEVEL, option), Ok(0));
        set(&server, LEVEL, option, 1).expect("an option");
        assert_eq!(get(&server, LEVEL, option), Ok(1));
        send_with(&client, b"x", Some(address), &sent).expect("it is sent");
        let expected = [&sent[..1], &sent[..1], &sent[..]][at];
        assert_eq!(shown(&receive(&server).1.headers), shown(expected));
    }
    // Together with all other requested details.
    set(&server, LEVEL, libc::IPV6_RECVHOPLIMIT, 1).expect("an option");
    send_with(&client, b"y", Some(address), &sent).expect("it is sent");
    let (_, received) = receive(&server);
    assert_eq!(received.details, Some(Details { hop_limit: Some(64), ..Details::default() }));
    assert_eq!(
        (received.remote.map(|remote| remote.ip()), shown(&received.headers)),
        (Some(a.ip()), shown(&sent))
    );
    // Datagrams without headers have none, and other datagrams of the same socket have their own.
    send_to(&client, b"plain", address).expect("it is sent");
    assert!(receive(&server).1.headers.is_empty());
    for fill in 0..20 {
        let own = [header(HeaderKind::Destination, 32, fill)];
        send_with(&client, &[fill; 3000], Some(address), &own).expect("it is sent");
        let (data, received) = receive(&server);
        assert_eq!((data, shown(&received.headers)), (vec![fill; 3000], shown(&own)));
    }
}

#[test]
fn headers_of_options_go_with_all_datagrams_that_bring_none() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    want_all(&server);
    let client = a.open(Kind::Datagram);
    let value = options(2, 7);
    for kind in [HeaderKind::HopByHop, HeaderKind::BeforeRouting, HeaderKind::Destination] {
        assert_eq!(get_bytes(&client, LEVEL, kind.option()), Ok(Vec::new()));
        assert_eq!(errno(set_bytes(&client, LEVEL, kind.option(), &value[..8])), Errno::INVAL);
        set_bytes(&client, LEVEL, kind.option(), &value).expect("a header");
        assert_eq!(get_bytes(&client, LEVEL, kind.option()), Ok(value.clone()));
    }
    let old_route = [&[0, 2, 0, 1, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    assert_eq!(errno(set_bytes(&client, LEVEL, HeaderKind::Routing.option(), &old_route)), Errno::INVAL);
    send_to(&client, b"all", address).expect("it is sent");
    let both = [header(HeaderKind::HopByHop, 2, 7), header(HeaderKind::Destination, 2, 7)];
    assert_eq!(shown(&receive(&server).1.headers), shown(&both));
    // A datagram with any headers replaces all of the options; without a route not even its own remains.
    for (own, count) in [(HeaderKind::Destination, 1), (HeaderKind::BeforeRouting, 0)] {
        send_with(&client, b"own", Some(address), &[header(own, 1, 1)]).expect("it is sent");
        assert_eq!(receive(&server).1.headers.len(), count);
    }
    let IpAddr::V6(ip) = b.ip() else { panic!("it is IPv4") };
    let route = [&[0, 2, 4, 0, 0, 0, 0, 0][..], &ip.octets()].concat();
    set_bytes(&client, LEVEL, HeaderKind::Routing.option(), &route).expect("a route");
    send_to(&client, b"routed", address).expect("it is sent");
    let kinds: Vec<_> = receive(&server).1.headers.iter().map(|header| header.kind).collect();
    let expected =
        [HeaderKind::HopByHop, HeaderKind::Destination, HeaderKind::Routing, HeaderKind::Destination];
    assert_eq!(kinds, expected);
    for kind in HeaderKind::ALL {
        set_bytes(&client, LEVEL, kind.option(), &[]).expect("it is taken away");
        assert_eq!(get_bytes(&client, LEVEL, kind.option()), Ok(Vec::new()));
    }
    send_to(&client, b"none", address).expect("it is sent");
    assert!(receive(&server).1.headers.is_empty());
    // Streams have none.
    let stream = a.open(Kind::Stream);
    assert_eq!(errno(set_bytes(&stream, LEVEL, HeaderKind::Destination.option(), &value)), Errno::NOPROTOOPT);
}

#[test]
fn connected_sockets_send_and_see_headers() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    want_all(&server);
    let client = a.open(Kind::Datagram);
    overlay(&client).connect(Some(address)).expect("it is known where");
    let own = [header(HeaderKind::Destination, 3, 9)];
    send_with(&client, b"hello", None, &own).expect("it is sent");
    let (_, received) = receive(&server);
    assert_eq!(shown(&received.headers), shown(&own));
    overlay(&server).connect(received.remote).expect("it is known where");
    for _ in 0..2 {
        send_with(&client, b"again", None, &own).expect("it is sent");
        assert_eq!(shown(&receive(&server).1.headers), shown(&own));
        rustix::io::write(&client, b"plain").expect("room");
        assert!(receive(&server).1.headers.is_empty());
    }
    // A plain read drops the accompanying descriptor.
    send_with(&client, b"read", None, &own).expect("it is sent");
    let mut buf = [0; 9];
    crate::common::poll(&server, rustix::event::PollFlags::IN);
    assert_eq!(rustix::io::read(&server, &mut buf), Ok(4));
    let lone = a.open(Kind::Datagram);
    assert_eq!(errno(send_with(&lone, b"x", None, &own)), Errno::DESTADDRREQ);
}

#[test]
fn raw_and_echo_sockets_have_headers_too() {
    let (a, b) = Served::pair();
    let own = [header(HeaderKind::HopByHop, 1, 5)];
    let raw = b.open(Kind::Raw(200));
    want_all(&raw);
    overlay(&raw).bind(SocketAddr::new(b.ip(), 0)).expect("its own");
    let sender = a.open(Kind::Raw(200));
    let to = SocketAddr::new(b.ip(), 0);
    send_with(&sender, b"raw", Some(to), &own).expect("it is sent");
    let (data, received) = receive(&raw);
    assert_eq!((&data[..], shown(&received.headers)), (&b"raw"[..], shown(&own)));
    // A raw ICMPv6 socket sees the headers of an echo request.
    let watcher = b.open(Kind::Raw(58));
    want_all(&watcher);
    overlay(&watcher).bind(to).expect("its own");
    let echo = a.open(Kind::Echo);
    send_with(&echo, &[128, 0, 0, 0, 0, 0, 0, 7, 1, 2], Some(to), &own).expect("it is sent");
    let (request, received) = receive(&watcher);
    assert_eq!((request[0], shown(&received.headers)), (128, shown(&own)));
    // The answer has none.
    assert_eq!(receive(&echo).0[8..], [1, 2]);
}

#[test]
fn what_is_too_long_is_refused_and_ipv4_has_no_headers() {
    let (a, b) = Served::pair_with_ipv4();
    let (_server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    let own = [header(HeaderKind::Destination, 2, 1)];
    let data = vec![0; 65_535 - 8 - 15];
    assert_eq!(errno(send_with(&client, &data, Some(address), &own)), Errno::MSGSIZE);
    set_bytes(&client, LEVEL, own[0].kind.option(), &own[0].bytes).expect("a header");
    assert_eq!(errno(send_to(&client, &data, address)), Errno::MSGSIZE);
    // The longest possible header.
    let long = Header { kind: HeaderKind::HopByHop, bytes: [&[0, 255][..], &[0; 2046]].concat() };
    let v4 = b.open_in(Family::V4, Kind::Datagram);
    let at = SocketAddr::new(b.v4(), 5001);
    overlay(&v4).bind(at).expect("a free port");
    let mapped = match at {
        SocketAddr::V4(at) => SocketAddr::new(at.ip().to_ipv6_mapped().into(), at.port()),
        SocketAddr::V6(_) => panic!("it is IPv4"),
    };
    send_with(&client, b"without", Some(mapped), &[long]).expect("it is sent");
    assert_eq!(receive(&v4).0, b"without");
}

#[test]
fn a_program_that_lies_about_lengths_gets_einval_and_nothing_leaves() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, b"first", address).expect("it is sent");
    assert_eq!(receive(&server).0, b"first");
    let Which::Opened(socket) = overlay(&client).which() else { panic!("it was opened") };
    let lies = [vec![], vec![0], vec![0, 9, 0, 0, 0, 0, 0, 0], vec![0; 9], vec![0; 4096]];
    for bytes in lies {
        for kind in HeaderKind::ALL {
            let headers = vec![Header { kind, bytes: bytes.clone() }];
            let reach = Request::Reach(socket, address, None, headers.clone());
            assert_eq!(errno(overlay(&client).client().ask(reach)), Errno::INVAL);
            assert_eq!(errno(send_with(&client, b"lie", Some(address), &headers)), Errno::INVAL);
        }
    }
    // Of many of one kind the last counts. No descriptor is left behind.
    let many = vec![header(HeaderKind::Destination, 1, 8); 300];
    want_all(&server);
    send_with(&client, b"many", Some(address), &many).expect("it is sent");
    let (data, received) = receive(&server);
    assert_eq!((&data[..], shown(&received.headers)), (&b"many"[..], shown(&many[..1])));
}
