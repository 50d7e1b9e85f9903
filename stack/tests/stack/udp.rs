//! Tests of UDP between two stacks, and of ICMP errors about it.

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
    let mut packet = vec![0; MAX_DATAGRAM];
    let len = socket.send(pair.now, &route, data, pair.link.mtu, &mut packet).unwrap();
    pair.send(side, &packet[..len]);
}

fn receive(pair: &mut Pair, socket: &UdpSocket) -> (SocketAddr, Vec<u8>) {
    let mut buf = vec![0; MAX_DATAGRAM];
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
fn the_largest_datagrams_go_in_fragments() {
    for (ipv6, checksums, len) in
        [(false, false, 65_507), (true, false, 65_527), (false, true, 9000), (true, true, 9000)]
    {
        let mut pair = Pair::with(1, Config::default(), checksums);
        let (client, server) = (bind(&pair, A, ipv6, 0), bind(&pair, B, ipv6, 53));
        let data: Vec<u8> = (0..len).map(pattern).collect();
        send(&mut pair, A, &client, Some(server.local()), &data);
        assert_eq!(receive(&mut pair, &server), (client.local(), data));
        let sent = pair.counter(A, "ip_fragments_sent");
        assert_eq!((sent, pair.counter(B, "ip_fragments")), (pair.sent[A] as u64, sent));
    }
}

#[test]
fn a_datagram_that_must_not_be_cut_must_fit_the_path() {
    let pair = Pair::new(1);
    let mut packet = vec![0; MAX_DATAGRAM];
    for ipv6 in [false, true] {
        let socket = bind(&pair, A, ipv6, 0);
        let route = socket.route(Some(address(B, ipv6, 1))).unwrap();
        let fits = 1280 - if ipv6 { 48 } else { 28 };
        let mut send = |len, fragmentation| {
            let ip = IpOptions { fragmentation, ..IpOptions::default() };
            socket.set_ip_options(ip).unwrap();
            socket.send(pair.now, &route, &vec![0; len], 1280, &mut packet)
        };
        assert_eq!(send(fits + 1, Fragmentation::AtSource), Ok(1281));
        for fragmentation in [Fragmentation::Never, Fragmentation::Probe] {
            assert_eq!(send(fits, fragmentation), Ok(1280));
            assert_eq!(send(fits + 1, fragmentation), Err(Error::MessageSize));
        }
        let longest = if ipv6 { 65_527 } else { 65_507 };
        assert_eq!(send(longest + 1, Fragmentation::AtSource), Err(Error::MessageSize));
        assert_eq!(
            socket.send(pair.now, &route, &[0; 100], 1280, &mut packet[..50]),
            Err(Error::MessageSize)
        );
    }
    // The IPv4 flag keeps routers and their like from cutting.
    let socket = bind(&pair, A, false, 0);
    let route = socket.route(Some(address(B, false, 1))).unwrap();
    let Host { stack, net, .. } = &pair.hosts[A];
    for (fragmentation, expected) in
        [(Fragmentation::Always, Ok(2)), (Fragmentation::AtSource, Err(Error::MessageSize))]
    {
        let ip = IpOptions { fragmentation, ..IpOptions::default() };
        socket.set_ip_options(ip).unwrap();
        let len = socket.send(pair.now, &route, &[0; 1000], 1280, &mut packet).unwrap();
        assert_eq!(stack.fragments(*net, &packet[..len], 600).map(|cut| cut.packets()), expected);
    }
}

#[test]
fn hop_limit_and_traffic_class_arrive() {
    for ipv6 in [false, true] {
        let mut pair = Pair::with(1, Config::default(), true);
        let (client, server) = (bind(&pair, A, ipv6, 0), bind(&pair, B, ipv6, 53));
        let ip = IpOptions { hop_limit: 7, traffic_class: TrafficClass(0xb8), ..IpOptions::default() };
        client.set_ip_options(ip).unwrap();
        assert_eq!(client.set_ip_options(IpOptions { hop_limit: 0, ..ip }), Err(Error::InvalidInput));
        assert_eq!(client.ip_options(), ip);
        let one = SendOptions {
            hop_limit: Some(1),
            traffic_class: Some(ip.traffic_class.with_ecn(Ecn::Capable1)),
            ..SendOptions::default()
        };
        let route = client.route(Some(server.local())).unwrap();
        let mut packet = [0; 100];
        for (options, expected) in [(SendOptions::default(), (7, 0xb8)), (one, (1, 0xb9))] {
            let len = client.send_with(pair.now, &route, b"x", &options, 1280, &mut packet).unwrap();
            pair.inject(B, &packet[..len]);
            let received = server.recv_from(&mut [0; 1]).unwrap();
            assert_eq!((received.hop_limit, received.traffic_class.0), expected);
            assert_eq!((received.destination, received.interface), (server.local(), pair.hosts[B].net));
        }
    }
}

#[test]
fn a_datagram_may_choose_its_source_and_interface() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let own = ["10.0.0.1/8", "10.0.0.9/8"].map(|own| own.parse().unwrap());
    stack.set_addresses(pair.now, *net, &own, &mut Batch::new());
    let any = stack.udp_bind(None, "0.0.0.0:5".parse().unwrap(), UdpOptions::default()).unwrap();
    let to = Some(address(B, false, 1));
    let source =
        |options: SendOptions| any.route_with(to, &options).map(|route| route.source.ip().to_string());
    let none = SendOptions::default();
    assert_eq!(source(none), Ok("10.0.0.1".into()));
    let with = |source: &str| SendOptions { source: Some(source.parse().unwrap()), ..none };
    assert_eq!(source(with("10.0.0.9")), Ok("10.0.0.9".into()));
    assert_eq!(source(with("0.0.0.0")), Ok("10.0.0.1".into()));
    assert_eq!(source(with("10.0.0.8")), Err(Error::AddrNotAvailable));
    assert_eq!(source(with("fd00::a")), Err(Error::AddressFamily));
    assert_eq!(source(SendOptions { interface: Some(*net), ..none }), Ok("10.0.0.1".into()));
    assert_eq!(
        source(SendOptions { interface: Some(InterfaceId(99)), ..none }),
        Err(Error::NetworkUnreachable)
    );
    any.connect(address(B, false, 2)).unwrap();
    let route = any.route_with(None, &with("10.0.0.9")).unwrap();
    assert_eq!((route.source.to_string(), route.destination.port()), ("10.0.0.9:5".into(), 2));
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
    // A connected socket takes only its own peer's datagrams; other sockets on its port get the stranger's.
    assert_eq!(receive(&mut pair, &wildcard).1, b"stranger");
    assert_eq!(connected.recv_from(&mut [0; 10]).unwrap_err(), Error::WouldBlock);
    connected.close();
    send(&mut pair, A, &stranger, Some(address(B, true, 53)), b"again");
    assert_eq!(receive(&mut pair, &wildcard).1, b"again");
    assert_eq!(connected.recv_from(&mut [0; 10]).unwrap_err(), Error::Closed);
}

#[test]
fn sockets_that_reuse_a_port_get_their_shares() {
    let mut pair = Pair::new(1);
    let options = UdpOptions { reuse_port: true, ..UdpOptions::default() };
    let host = &pair.hosts[B];
    let bound = || host.stack.udp_bind(Some(host.net), address(B, true, 53), options.clone());
    let sockets: Vec<_> = (0..4).map(|_| bound().unwrap()).collect();
    let other = UdpOptions { reuse_address: true, ..UdpOptions::default() };
    let refused = host.stack.udp_bind(Some(host.net), address(B, true, 53), other).map(drop);
    assert_eq!(refused, Err(Error::AddrInUse));
    for port in 1000..1100 {
        let client = bind(&pair, A, true, port);
        // One socket gets all datagrams of a sender.
        send(&mut pair, A, &client, Some(address(B, true, 53)), &port.to_be_bytes());
        send(&mut pair, A, &client, Some(address(B, true, 53)), &port.to_be_bytes());
    }
    pair.run_for(SECOND);
    let mut total = 0;
    for socket in &sockets {
        let mut buf = [0; 2];
        let mut ports = Vec::new();
        while socket.recv_from(&mut buf).is_ok() {
            ports.push(buf);
        }
        total += ports.len();
        assert!(ports.chunks(2).all(|pair| pair.len() == 2 && pair[0] == pair[1]));
        assert!((10..=90).contains(&ports.len()), "{}", ports.len());
    }
    assert_eq!(total, 200);
}

#[test]
fn a_queue_may_be_given_more_room_or_less() {
    let mut pair = Pair::new(1);
    let (client, server) = (bind(&pair, A, true, 0), bind(&pair, B, true, 53));
    let mut arrived = |limit| {
        server.set_receive_buffer(limit);
        for _ in 0..20 {
            send(&mut pair, A, &client, Some(server.local()), &[0; 1000]);
        }
        pair.run_for(SECOND);
        let mut count = 0;
        while server.recv_from(&mut [0; 1000]).is_ok() {
            count += 1;
        }
        count
    };
    assert_eq!((arrived(5000), arrived(1 << 20)), (4, 20));
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
fn port_zero_gives_a_free_port_that_the_network_allows() {
    let pair = Pair::new(1);
    let stack = &pair.hosts[A].stack;
    let mut config = InterfaceConfig::new("adhoc", ["fd01::a/40".parse().unwrap()]);
    config.ports = 5000..=5002;
    let net = stack.add_interface(config);
    let own = "[fd01::a]:0".parse().unwrap();
    let bind = |options| stack.udp_bind(Some(net), own, options).unwrap();
    let client = bind(UdpOptions { any_port: true, ..UdpOptions::default() });
    assert!(client.local().port() >= 32768, "it leaves those of services alone");
    let listener = stack.tcp_bind(Some(net), own, TcpOptions::default()).unwrap();
    assert!((5000..=5002).contains(&listener.local().port()), "TCP has ports of its own");
    let sockets = [(); 3].map(|()| bind(UdpOptions::default()));
    let ports: std::collections::BTreeSet<u16> = sockets.iter().map(|one| one.local().port()).collect();
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), [5000, 5001, 5002]);
    // Clients may use ports beyond these, because answers reach any port.
    assert!(bind(UdpOptions::default()).local().port() >= 32768);
    sockets[1].close();
    assert_eq!(bind(UdpOptions::default()).local().port(), sockets[1].local().port());
}

/// The network of a socket on a wildcard address is unknown, so the ports of any network are allowed.
#[test]
fn port_zero_of_a_wildcard_is_allowed_by_one_of_the_networks() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    stack.remove_interface(pair.now, *net, &mut Batch::new());
    let bind = || stack.udp_bind(None, "[::]:0".parse().unwrap(), UdpOptions::default()).unwrap();
    assert!(bind().local().port() >= 32768, "without networks any may be allowed later");
    for (prefix, ports) in [("fd01::a/40", 80..=80), ("fd02::a/40", 90..=90)] {
        let mut config = InterfaceConfig::new("adhoc", [prefix.parse().unwrap()]);
        config.ports = ports;
        stack.add_interface(config);
    }
    let mut ports = [bind(), bind()].map(|socket| socket.local().port());
    ports.sort_unstable();
    assert_eq!(ports, [80, 90]);
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
