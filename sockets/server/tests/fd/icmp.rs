//! ICMP echo sockets, as Linux's ping sockets.

use std::net::SocketAddr;

use peersock_fd::{Errno, Family, Kind, RecvFlags};
use rustix::event::PollFlags;

use crate::common::{Served, errno, overlay, poll_for, receive, send_to, set, try_receive};

/// Returns an echo request with a wrong identifier and no checksum; the node fills in both.
fn request(kind: u8, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0xde, 0xad];
    message.extend(sequence.to_be_bytes());
    message.extend(payload);
    message
}

#[test]
fn a_request_is_answered_with_the_socket_s_identifier() {
    let (a, b) = Served::pair_with_ipv4();
    for (family, types, target, own) in
        [(Family::V4, [8, 0], b.v4(), a.v4()), (Family::V6, [128, 129], b.ip(), a.ip())]
    {
        let fd = a.open_in(family, Kind::Echo);
        let to = SocketAddr::new(target, 0);
        assert_eq!(send_to(&fd, &request(types[0], 7, b"payload"), to), Ok(15));
        let (data, received) = receive(&fd);
        assert_eq!((data[0], data[1], &data[6..8], &data[8..]), (types[1], 0, &[0, 7][..], &b"payload"[..]));
        assert_eq!(received.remote, Some(to));
        let ident = u16::from_be_bytes([data[4], data[5]]);
        assert_eq!(overlay(&fd).local_addr().expect("it is bound").port(), ident);
        // The port in the address is ignored.
        overlay(&fd).connect(Some(SocketAddr::new(target, 1025))).expect("it is known where");
        assert_eq!(overlay(&fd).local_addr(), Ok(SocketAddr::new(own, ident)));
        rustix::io::write(&fd, &request(types[0], 8, b"")).expect("room");
        let mut buf = [0; 100];
        assert_eq!(receive(&fd).0[6..], [0, 8]);
        assert_eq!(errno(rustix::net::recv(&fd, &mut buf, RecvFlags::DONTWAIT).map(drop)), Errno::AGAIN);
    }
}

#[test]
fn only_requests_are_sent() {
    let a = Served::new("ff0001ffff000000");
    let fd = a.open(Kind::Echo);
    let own = SocketAddr::new(a.ip(), 0);
    send_to(&fd, &request(129, 1, b"a reply"), own).expect("it is taken and dropped");
    send_to(&fd, b"short", own).expect("it is taken and dropped");
    assert_eq!(poll_for(&fd, PollFlags::IN, 1), PollFlags::empty());
    send_to(&fd, &request(128, 1, b""), own).expect("it is sent");
    assert_eq!(receive(&fd).0.len(), 8);
}

#[test]
fn an_identifier_can_be_chosen_and_belongs_to_one_socket() {
    let a = Served::new("ff0001ffff000000");
    let (one, other) = (a.open(Kind::Echo), a.open(Kind::Echo));
    let local = SocketAddr::new(a.ip(), 4242);
    overlay(&one).bind(local).expect("a free identifier");
    assert_eq!(overlay(&one).local_addr(), Ok(local));
    assert_eq!(errno(overlay(&other).bind(local)), Errno::ADDRINUSE);
    send_to(&one, &request(128, 1, b""), SocketAddr::new(a.ip(), 0)).expect("it is sent");
    assert_eq!(receive(&one).0[4..6], 4242u16.to_be_bytes());
    assert_eq!(errno(try_receive(&other, RecvFlags::DONTWAIT)), Errno::AGAIN);
    let nowhere: SocketAddr = "[2001:db8::1]:0".parse().expect("an address");
    assert_eq!(errno(send_to(&other, &request(128, 1, b""), nowhere)), Errno::NETUNREACH);
    set(&other, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 3).expect("an option");
}
