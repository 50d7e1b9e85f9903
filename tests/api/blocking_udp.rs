//! Blocking UDP and ICMP echo between two nodes on the loopback interface.

use std::io::ErrorKind;
use std::time::Duration;

use peersock::blocking::{Ping, UdpSocket};

use crate::common::{PATIENCE, member, network, pair, pattern};

#[test]
fn datagrams_keep_their_bounds_and_source() {
    let [(a, ja), (b, jb)] = pair();
    let one = UdpSocket::bind_on(&a, (ja.address(), 1000)).expect("bind");
    let two = UdpSocket::bind_on(&b, (jb.address(), 1001)).expect("bind");
    let to = one.local_addr().expect("address");
    let mut buf = [0; 4096];
    for len in [0, 1, 1000, 1124] {
        let data = pattern(1, len);
        two.send_to(&data, to).expect("send");
        one.set_read_timeout(Some(PATIENCE)).expect("set");
        let (n, from) = one.recv_from(&mut buf).expect("receive");
        assert_eq!((&buf[..n], from), (&data[..], two.local_addr().expect("address")));
    }
}

#[test]
fn a_short_buffer_cuts_and_peek_leaves_the_datagram() {
    let (node, joined) = member(network());
    let socket = UdpSocket::bind_on(&node, (joined.address(), 1000)).expect("bind");
    socket.send_to(b"abcdef", socket.local_addr().expect("address")).expect("send");
    let mut buf = [0; 3];
    assert_eq!(socket.peek_from(&mut buf).expect("peek").0, 3);
    assert_eq!(socket.recv(&mut buf).expect("receive"), 3);
    assert_eq!(&buf, b"abc");
    socket.set_nonblocking(true).expect("set");
    assert_eq!(socket.recv(&mut buf).expect_err("one datagram only").kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_closed_port_is_connection_refused_on_a_connected_socket() {
    let [(_keep, joined), (node, _)] = pair();
    let socket = UdpSocket::bind_on(&node, "[::]:0").expect("bind");
    socket.connect((joined.address(), 1999)).expect("connect");
    socket.send(b"anybody?").expect("send");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let error = socket.recv(&mut [0; 8]).expect_err("the peer says that nobody is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn the_largest_datagrams_pass_between_nodes_and_within_one() {
    let [(a, ja), (b, jb)] = pair();
    let one = UdpSocket::bind_on(&a, (ja.address(), 1000)).expect("bind");
    let two = UdpSocket::bind_on(&b, (jb.address(), 1001)).expect("bind");
    let to = one.local_addr().expect("address");
    one.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut buf = vec![0; 70_000];
    // The first datagram waits as a whole for the session.
    for len in [65_507, 1125, 9000, 30_000, 65_527] {
        let data = pattern(3, len);
        for sender in [&two, &one] {
            sender.send_to(&data, to).expect("send");
            let (n, from) = one.recv_from(&mut buf).expect("receive");
            assert_eq!((n, from), (len, sender.local_addr().expect("address")));
            assert!(buf[..n] == data);
        }
    }
}

#[test]
fn a_datagram_to_all_nodes_reaches_the_node_itself() {
    let (node, _joined) = member(network());
    let socket = UdpSocket::bind_on(&node, "[::]:1000").expect("bind");
    socket.send_to(b"anybody?", "[ff02::1]:1000").expect("send");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut buf = [0; 10];
    assert_eq!(socket.recv(&mut buf).expect("receive"), 8);
}

#[test]
fn too_large_datagrams_are_refused_not_lost() {
    let [(_keep, joined), (node, _)] = pair();
    let socket = UdpSocket::bind_on(&node, "[::]:0").expect("bind");
    let error = socket.send_to(&[0; 65_528], (joined.address(), 1000)).expect_err("larger than any packet");
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn a_read_timeout_is_would_block() {
    let (node, _joined) = member(network());
    let socket = UdpSocket::bind_on(&node, "[::]:0").expect("bind");
    socket.set_read_timeout(Some(Duration::from_millis(10))).expect("set");
    assert_eq!(socket.recv(&mut [0; 1]).expect_err("nothing came").kind(), ErrorKind::WouldBlock);
}

#[test]
fn peers_answer_pings_and_so_does_the_node_itself() {
    let [(_keep, theirs), (node, ours)] = pair();
    for address in [theirs.address(), ours.address()] {
        let ping = Ping::open_on(&node, address.into()).expect("open");
        for sequence in 0..3 {
            let pong = ping.ping(sequence, &pattern(2, 56), PATIENCE).expect("a reply");
            assert_eq!(pong.len, 56);
        }
    }
}
