//! UDP between two stacks, and ICMP errors about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

fn bind(pair: &Pair, side: usize, ipv6: bool, port: u16) -> Arc<UdpSocket> {
    let host = &pair.hosts[side];
    host.stack.udp_bind(Some(host.net), address(side, ipv6, port), UdpOptions::default()).unwrap()
}

fn send(pair: &mut Pair, side: usize, socket: &UdpSocket, to: Option<SocketAddr>, data: &[u8]) {
    let route = socket.route(to).unwrap();
    let mut packet = vec![0; MAX_PACKET];
    let len = socket.send(&route, data, pair.link.mtu, &mut packet).unwrap();
    pair.transmit(side, packet[..len].to_vec());
}

fn receive(pair: &mut Pair, socket: &UdpSocket) -> (SocketAddr, Vec<u8>) {
    let mut buf = [0; 2000];
    pair.run(SECOND, |_| socket.readiness().contains(Ready::READABLE));
    let received = socket.recv_from(&mut buf).unwrap();
    (received.source, buf[..received.len].to_vec())
}

#[test]
fn datagrams_go_both_ways_in_both_families_with_and_without_checksums() {
    for (ipv6, checksums) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = Pair::with(1, Config::default(), checksums);
        let (client, server) = (bind(&pair, A, ipv6, 0), bind(&pair, B, ipv6, 53));
        send(&mut pair, A, &client, Some(address(B, ipv6, 53)), b"question");
        let (from, data) = receive(&mut pair, &server);
        assert_eq!((from, &data[..]), (client.local(), &b"question"[..]));
        send(&mut pair, B, &server, Some(from), b"");
        assert_eq!(receive(&mut pair, &client), (server.local(), vec![]));
    }
}

#[test]
fn a_datagram_must_fit_the_path() {
    let pair = Pair::new(1);
    let socket = bind(&pair, A, true, 0);
    let route = socket.route(Some(address(B, true, 1))).unwrap();
    let mut packet = vec![0; 2000];
    assert_eq!(socket.send(&route, &[0; 1280 - 48], 1280, &mut packet), Ok(1280));
    assert_eq!(socket.send(&route, &[0; 1280 - 47], 1280, &mut packet), Err(Error::MessageSize));
    assert_eq!(socket.send(&route, &[0; 100], 1280, &mut packet[..50]), Err(Error::MessageSize));
    assert_eq!(socket.send(&route, &[0; 70_000], 80_000, &mut vec![0; 80_000]), Err(Error::MessageSize));
}

#[test]
fn truncation_and_peeking() {
    let mut pair = Pair::new(1);
    let (client, server) = (bind(&pair, A, true, 0), bind(&pair, B, true, 53));
    for data in [&b"first datagram"[..], b"second"] {
        send(&mut pair, A, &client, Some(server.local()), data);
    }
    pair.run_for(SECOND);
    let mut buf = [0; 5];
    let peeked = server.peek_from(&mut buf).unwrap();
    assert_eq!((peeked.len, peeked.truncated, &buf), (5, true, b"first"));
    assert_eq!(server.recv_from(&mut buf).unwrap(), peeked);
    let second = server.recv_from(&mut [0; 100]).unwrap();
    assert_eq!((second.len, second.truncated), (6, false));
    assert_eq!((second.destination, second.interface), (server.local(), pair.hosts[B].net));
    assert_eq!(server.recv_from(&mut buf).unwrap_err(), Error::WouldBlock);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let config = Config { udp_receive_buffer: 1000, ..Config::default() };
    let mut pair = Pair::with(1, config, false);
    let (client, server) = (bind(&pair, A, true, 0), bind(&pair, B, true, 53));
    for _ in 0..10 {
        send(&mut pair, A, &client, Some(server.local()), &[0; 200]);
    }
    pair.run_for(SECOND);
    assert_eq!((pair.counter(B, "udp_received"), pair.counter(B, "udp_queue_overflows")), (3, 7));
}

#[test]
fn an_unused_port_is_reported_to_connected_sockets_only() {
    for ipv6 in [false, true] {
        let mut pair = Pair::new(1);
        let (connected, other) = (bind(&pair, A, ipv6, 0), bind(&pair, A, ipv6, 0));
        connected.connect(address(B, ipv6, 9)).unwrap();
        send(&mut pair, A, &connected, None, b"x");
        send(&mut pair, A, &other, Some(address(B, ipv6, 9)), b"x");
        pair.run(SECOND, |_| connected.readiness().contains(Ready::ERROR));
        pair.run_for(SECOND);
        assert_eq!(connected.recv_from(&mut [0; 10]).unwrap_err(), Error::ConnectionRefused);
        assert_eq!(connected.recv_from(&mut [0; 10]).unwrap_err(), Error::WouldBlock);
        assert_eq!(other.take_error(), None);
        assert_eq!(pair.counter(B, "icmp_errors_sent"), 2);
    }
}

#[test]
fn port_unreachables_are_limited() {
    let config = Config { icmp_errors_per_second: 5, ..Config::default() };
    let mut pair = Pair::with(1, config, false);
    let socket = bind(&pair, A, true, 0);
    for _ in 0..20 {
        send(&mut pair, A, &socket, Some(address(B, true, 9)), b"x");
    }
    pair.run_for(Duration::from_millis(6));
    assert_eq!((pair.counter(B, "icmp_errors_sent"), pair.counter(B, "icmp_rate_limited")), (5, 15));
}

#[test]
fn a_connected_socket_comes_before_a_wildcard_and_filters() {
    let mut pair = Pair::new(1);
    let any = SocketAddr::new("::".parse().unwrap(), 53);
    let options = UdpOptions { reuse_address: true, ..UdpOptions::default() };
    let stack = &pair.hosts[B].stack;
    let connected = stack.udp_bind(Some(pair.hosts[B].net), any, options.clone()).unwrap();
    let wildcard = stack.udp_bind(None, any, options).unwrap();
    let (friend, stranger) = (bind(&pair, A, true, 1000), bind(&pair, A, true, 1001));
    connected.connect(friend.local()).unwrap();
    assert_eq!(connected.local(), address(B, true, 53));
    assert_eq!(connected.peer(), Some(friend.local()));
    send(&mut pair, A, &friend, Some(address(B, true, 53)), b"friend");
    send(&mut pair, A, &stranger, Some(address(B, true, 53)), b"stranger");
    assert_eq!(receive(&mut pair, &connected).1, b"friend");
    pair.run_for(SECOND);
    assert_eq!(connected.recv_from(&mut [0; 10]).unwrap_err(), Error::WouldBlock);
    // The stranger's went to the socket that suits it best, which is bound to the interface and deaf.
    connected.close();
    send(&mut pair, A, &stranger, Some(address(B, true, 53)), b"again");
    assert_eq!(receive(&mut pair, &wildcard).1, b"again");
    assert_eq!(connected.recv_from(&mut [0; 10]).unwrap_err(), Error::Closed);
}

#[test]
fn binding_twice_needs_the_option_and_a_free_port_is_found() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let local = address(A, true, 53);
    let first = stack.udp_bind(Some(*net), local, UdpOptions::default()).unwrap();
    let again = || stack.udp_bind(Some(*net), local, UdpOptions::default()).map(|_| ());
    assert_eq!(again(), Err(Error::AddrInUse));
    first.close();
    assert_eq!(again(), Ok(()));
    let ports: std::collections::BTreeSet<u16> = (0..100)
        .map(|_| {
            let any = address(A, true, 0);
            stack.udp_bind(Some(*net), any, UdpOptions::default()).unwrap().local().port()
        })
        .collect();
    assert_eq!(ports.len(), 100);
}

#[test]
fn routes_say_why_there_is_none() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let any = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
    let socket = stack.udp_bind(None, any("::"), UdpOptions::default()).unwrap();
    assert_eq!(socket.route(None), Err(Error::NotConnected));
    assert_eq!(socket.route(Some(address(B, false, 1))), Err(Error::AddressFamily));
    assert_eq!(socket.route(Some("[2001:db8::1]:1".parse().unwrap())), Err(Error::NetworkUnreachable));
    assert_eq!(socket.route(Some(address(B, true, 0))), Err(Error::InvalidInput));
    let route = socket.route(Some(address(B, true, 1))).unwrap();
    assert_eq!((route.interface, route.source.ip()), (*net, address(A, true, 0).ip()));
    stack.remove_interface(pair.now, *net, &mut Batch::new());
    assert_eq!(socket.route(Some(address(B, true, 1))), Err(Error::NetworkUnreachable));
    socket.close();
    assert_eq!(socket.route(Some(address(B, true, 1))), Err(Error::Closed));
}
