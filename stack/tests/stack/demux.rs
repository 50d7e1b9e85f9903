//! Tests of ports, listeners, port ranges, sequence numbers, interfaces.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::craft::{UDP, udp, v6_to};
use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

fn seq(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[44], packet[45], packet[46], packet[47]])
}

#[test]
fn initial_sequence_numbers_follow_rfc_6528_for_both_sides() {
    // The same connection later: only the clock of 4 µs has moved the number.
    let numbers = |seed, wait: Duration| {
        let mut pair = Pair::new(seed);
        pair.listen(B, 80);
        pair.run_for(wait);
        pair.capture = Some(Vec::new());
        let host = &pair.hosts[A];
        let (local, remote) = (address(A, true, 5000), address(B, true, 80));
        let options = TcpOptions::default();
        let flow = host.stack.tcp_connect(pair.now, host.net, Some(local), remote, options).unwrap();
        pair.kick(A, &flow);
        pair.run(SECOND, |_| flow.state() == State::Established);
        let capture = pair.capture.take().unwrap();
        [seq(&capture[0].1), seq(&capture[1].1)]
    };
    let first = numbers(1, Duration::ZERO);
    let later = numbers(1, SECOND);
    for (first, later) in first.into_iter().zip(later) {
        assert_eq!(later.wrapping_sub(first), 250_000);
    }
    let other = numbers(2, Duration::ZERO);
    assert!(first[0] != other[0] && first[1] != other[1], "they depend on the secret");
}

#[test]
fn ephemeral_ports_do_not_collide_and_run_out_in_order() {
    let config = Config { ephemeral_ports: 40_000..=40_099, ..small_buffers() };
    let mut pair = Pair::with(1, config, false);
    let flows: Vec<_> = (0..100).map(|_| pair.connect(A, 80)).collect();
    let ports: BTreeSet<u16> = flows.iter().map(|flow| flow.local().port()).collect();
    assert_eq!(ports, (40_000..=40_099).collect());
    let full = pair.connect_with(A, address(B, true, 80), TcpOptions::default());
    assert_eq!(full.unwrap_err(), Error::AddrNotAvailable);
    // Another destination has all ports again.
    pair.connect_with(A, address(B, true, 81), TcpOptions::default()).unwrap();
    // Ports of refused connections are free.
    pair.run(SECOND, |pair| pair.hosts[A].stack.flows() == 0);
    pair.connect(A, 80);
}

#[test]
fn a_connection_to_an_own_port_never_meets_itself() {
    let config = Config { ephemeral_ports: 40_000..=40_003, ..small_buffers() };
    let mut pair = Pair::with(1, config, false);
    let mut connect = || pair.connect_with(A, address(A, true, 40_001), TcpOptions::default());
    let ports: BTreeSet<u16> = (0..3).map(|_| connect().unwrap().local().port()).collect();
    assert_eq!(ports, [40_000, 40_002, 40_003].into());
    assert_eq!(connect().unwrap_err(), Error::AddrNotAvailable);
}

#[test]
fn a_connection_exists_once() {
    let pair = Pair::new(1);
    let host = &pair.hosts[A];
    let (local, remote) = (address(A, true, 5000), address(B, true, 80));
    let connect = |local, remote| {
        host.stack.tcp_connect(pair.now, host.net, Some(local), remote, TcpOptions::default())
    };
    connect(local, remote).unwrap();
    assert_eq!(connect(local, remote).unwrap_err(), Error::AddrInUse);
    connect(local, address(B, true, 81)).unwrap();
    assert_eq!(connect(address(B, true, 1), remote).unwrap_err(), Error::AddrNotAvailable);
    assert_eq!(connect(address(A, false, 1), remote).unwrap_err(), Error::AddressFamily);
    assert_eq!(connect(local, address(B, true, 0)).unwrap_err(), Error::InvalidInput);
    let multicast = SocketAddr::new("ff02::1".parse().unwrap(), 80);
    assert_eq!(connect(local, multicast).unwrap_err(), Error::NetworkUnreachable);
    pair.listen(A, 6000);
    let host = &pair.hosts[A];
    let on_listener = host.stack.tcp_connect(
        pair.now,
        host.net,
        Some(address(A, true, 6000)),
        remote,
        TcpOptions::default(),
    );
    assert_eq!(on_listener.unwrap_err(), Error::AddrInUse);
}

#[test]
fn a_time_wait_pair_gives_way_to_a_new_connection() {
    let mut pair = Pair::new(1);
    let listener = pair.listen(B, 80);
    let (local, remote) = (address(A, true, 5000), address(B, true, 80));
    let connect = |pair: &Pair| {
        let host = &pair.hosts[A];
        host.stack.tcp_connect(pair.now, host.net, Some(local), remote, TcpOptions::default())
    };
    let a = connect(&pair).unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| a.state() == State::Established);
    pair.run_for(SECOND);
    let b = listener.accept(pair.now).unwrap();
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run_for(SECOND / 10);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::TimeWait);
    assert_eq!(connect(&pair).unwrap_err(), Error::AddrInUse, "too young");
    pair.run_for(2 * SECOND);
    let again = connect(&pair).unwrap();
    pair.kick(A, &again);
    pair.run(SECOND, |_| again.state() == State::Established);
    assert_eq!(pair.counter(A, "tcp_time_wait_reused"), 1);
    assert_eq!(a.state(), State::Closed);
}

#[test]
fn time_wait_on_the_server_gives_way_to_a_syn() {
    let mut pair = Pair::new(1);
    let listener = pair.listen(B, 80);
    let (local, remote) = (address(A, true, 5000), address(B, true, 80));
    let connect = |pair: &mut Pair| {
        let host = &pair.hosts[A];
        let options = TcpOptions::default();
        let flow = host.stack.tcp_connect(pair.now, host.net, Some(local), remote, options).unwrap();
        pair.kick(A, &flow);
        flow
    };
    let a = connect(&mut pair);
    pair.run(SECOND, |_| a.state() == State::Established);
    pair.run_for(SECOND / 10);
    let b = listener.accept(pair.now).unwrap();
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::CloseWait);
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run(SECOND, |_| a.state() == State::Closed && b.state() == State::TimeWait);
    let again = connect(&mut pair);
    pair.run(SECOND, |_| again.state() == State::Established);
    assert_eq!(pair.counter(B, "tcp_time_wait_reused"), 1);
}

#[test]
fn listeners_conflict_where_they_overlap() {
    let mut pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let (net, now) = (*net, pair.now);
    let listen = |interface, address: &str, port| {
        let local = SocketAddr::new(address.parse().unwrap(), port);
        stack.tcp_listen(now, interface, local, 1, TcpOptions::default()).map(|one| one.local())
    };
    assert!(listen(Some(net), "fd00::a", 80).is_ok());
    for (interface, address) in [(Some(net), "fd00::a"), (None, "fd00::a"), (Some(net), "::"), (None, "::")] {
        assert_eq!(listen(interface, address, 80), Err(Error::AddrInUse), "{interface:?} {address}");
    }
    assert!(listen(None, "0.0.0.0", 80).is_ok(), "the other family is another address");
    assert_eq!(listen(Some(net), "fd00::b", 81), Err(Error::AddrNotAvailable));
    assert_eq!(listen(Some(InterfaceId(99)), "::", 81), Err(Error::NetworkUnreachable));
    let any = listen(Some(net), "::", 0).unwrap();
    assert!((32768..61000).contains(&any.port()));

    // Connections left on a port block a listener without SO_REUSEADDR.
    let (a, b) = pair.connected();
    let Host { stack, net, .. } = &pair.hosts[B];
    let again = |reuse_address| {
        let options = TcpOptions { reuse_address, ..TcpOptions::default() };
        stack
            .tcp_listen(pair.now, Some(*net), address(B, true, 80), 1, options)
            .map(|one| one.close(pair.now))
    };
    assert_eq!(again(false), Err(Error::AddrInUse));
    assert_eq!(again(true), Ok(()));
    drop((a, b));
}

#[test]
fn the_most_specific_listener_gets_the_connection() {
    let mut pair = Pair::new(1);
    let wide = pair.hosts[B].stack.tcp_listen(
        pair.now,
        None,
        SocketAddr::new("::".parse().unwrap(), 80),
        8,
        TcpOptions::default(),
    );
    let wide = wide.unwrap();
    let flow = pair.connect(A, 80);
    pair.run(SECOND, |_| flow.state() == State::Established);
    pair.run(SECOND, |_| wide.readiness().contains(Ready::READABLE));
    let server = wide.accept(pair.now).unwrap();
    assert_eq!(server.local(), address(B, true, 80));
    assert_eq!(server.remote(), flow.local());
    assert_eq!(wide.accept(pair.now).unwrap_err(), Error::WouldBlock);
}

#[test]
fn service_ports_outside_the_network_s_range_are_refused_on_both_sides() {
    let pair = Pair::new(1);
    let stack = &pair.hosts[A].stack;
    let mut config = InterfaceConfig::new("adhoc", ["fd01::a/40".parse().unwrap()]);
    config.ports = 8000..=8080;
    let net = stack.add_interface(config);
    let at = |host: &str, port| SocketAddr::new(host.parse().unwrap(), port);
    let connect =
        |port| stack.tcp_connect(pair.now, net, None, at("fd01::b", port), TcpOptions::default()).map(|_| ());
    assert_eq!(connect(7999), Err(Error::PermissionDenied));
    assert_eq!(connect(8000), Ok(()));
    let listen = |port| {
        let listener = stack.tcp_listen(pair.now, Some(net), at("::", port), 1, TcpOptions::default());
        listener.map(|one| one.local().port())
    };
    assert_eq!(listen(8081), Err(Error::PermissionDenied));
    assert_eq!(listen(8080), Ok(8080));
    assert!(listen(0).is_ok_and(|port| (8000..=8080).contains(&port)), "reachable");
    // For UDP, one allowed port suffices.
    let send = |from, to| {
        let socket = stack.udp_bind(Some(net), at("::", from), UdpOptions::default()).unwrap();
        let result = socket.route(Some(at("fd01::b", to))).map(|_| ());
        socket.close();
        result
    };
    assert_eq!(send(0, 8001), Ok(()));
    assert_eq!(send(8001, 40_000), Ok(()));
    assert_eq!(send(9000, 40_000), Err(Error::PermissionDenied));
}

#[test]
fn arriving_packets_for_ports_outside_the_range_are_dropped() {
    let mut pair = Pair::new(1);
    let any = SocketAddr::new("::".parse().unwrap(), 9000);
    let Host { stack, .. } = &pair.hosts[B];
    stack.tcp_listen(pair.now, None, any, 8, TcpOptions::default()).unwrap();
    let socket = stack.udp_bind(None, any, UdpOptions::default()).unwrap();
    let mut config = InterfaceConfig::new("adhoc", ["fd00::b/8".parse().unwrap()]);
    config.ports = 80..=80;
    let narrow = stack.add_interface(config);
    let flow = pair.connect(A, 9000);
    pair.capture = Some(Vec::new());
    flow.fail(pair.now, Error::NetworkDown);
    // The same SYN and a datagram, as if they had come over the narrow network.
    let mut pair_a = Pair::new(1);
    pair_a.capture = Some(Vec::new());
    pair_a.connect(A, 9000);
    let mut syn = pair_a.capture.take().unwrap().remove(0).1;
    let mut batch = Batch::new();
    let stack = &pair.hosts[B].stack;
    stack.receive(pair.now, narrow, &mut syn, &mut batch);
    assert!(batch.is_empty());
    let client = pair_a.hosts[A].stack.udp_bind(None, address(A, true, 5000), UdpOptions::default()).unwrap();
    let route = client.route(Some(address(B, true, 9000))).unwrap();
    let mut buf = [0; 100];
    let len = client.send(pair.now, &route, b"x", 1280, &mut buf).unwrap();
    stack.receive(pair.now, narrow, &mut buf[..len], &mut batch);
    assert!(batch.is_empty());
    assert_eq!(socket.recv_from(&mut buf).unwrap_err(), Error::WouldBlock);
    assert_eq!(pair.counter(B, "port_not_allowed"), 2);
}

/// A datagram from a service's port counts as an answer only after a request.
#[test]
fn a_socket_at_another_port_gets_answers_only() {
    let mut pair = Pair::new(1);
    let Host { stack, .. } = &pair.hosts[A];
    let mut config = InterfaceConfig::new("adhoc", ["fd01::a/40".parse().unwrap()]);
    config.ports = 8000..=8080;
    let net = stack.add_interface(config);
    let at = |host: &str, port| SocketAddr::new(host.parse().unwrap(), port);
    let bind = |port| stack.udp_bind(Some(net), at("::", port), UdpOptions::default()).unwrap();
    let (service, client) = (bind(8001), bind(40_000));
    let arrive = |now, from: (&str, u16), to: u16| {
        let datagram = udp(from.1, to, b"x");
        let (source, own) = (from.0.parse().unwrap(), "fd01::a".parse().unwrap());
        let mut batch = Batch::new();
        stack.receive(now, net, &mut v6_to(source, own, UDP, &datagram), &mut batch);
        assert_eq!(batch.replies().count(), 0, "nobody learns which ports are open");
    };
    let takes = |now, from: (&str, u16), socket: &UdpSocket| {
        arrive(now, from, socket.local().port());
        socket.recv_from(&mut [0; 1]).is_ok()
    };
    let send = |now, to: SocketAddr| {
        let route = client.route(Some(to)).unwrap();
        client.send(now, &route, b"x", 1280, &mut [0; 100]).unwrap();
    };
    let mut now = pair.now;
    let (b, c) = (("fd01::b", 8000), ("fd01::c", 8000));
    assert!(takes(now, b, &service) && takes(now, ("fd01::b", 50_000), &service));
    // An allowed source port alone does not open ephemeral ports.
    assert!(!takes(now, b, &client));
    arrive(now, b, 40_001);
    send(now, at("fd01::b", 8000));
    assert!(takes(now, b, &client) && takes(now, b, &client));
    assert!(!takes(now, c, &client) && !takes(now, ("fd01::b", 8001), &client));
    now += Duration::from_secs(301);
    assert!(!takes(now, b, &client), "he was silent for long");
    client.connect(at("fd01::c", 8000)).unwrap();
    assert!(takes(now, c, &client));
    client.disconnect();
    assert!(!takes(now, c, &client));
    // After a request to a group, its members may answer.
    send(now, at("ff05::1", 8080));
    assert!(takes(now, ("fd01::d", 8080), &client) && !takes(now, ("fd01::d", 8000), &client));
    // Group datagrams also go to services only.
    let group = "ff05::2".parse().unwrap();
    client.join(None, group).unwrap();
    let to_group = v6_to("fd01::e".parse().unwrap(), group, UDP, &udp(8002, 40_000, b"x"));
    stack.receive(now, net, &mut to_group.clone(), &mut Batch::new());
    assert!(client.recv_from(&mut [0; 1]).is_err());
    send(now, at("fd01::e", 8002));
    stack.receive(now, net, &mut to_group.clone(), &mut Batch::new());
    assert!(client.recv_from(&mut [0; 1]).is_ok());
    pair.now = now;
    assert_eq!(pair.counter(A, "port_not_allowed"), 7);
}

#[test]
fn removing_an_interface_or_an_address_ends_its_flows() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    let Host { stack, net, .. } = &pair.hosts[A];
    stack.set_addresses(pair.now, *net, &["fd00::a/8".parse().unwrap()], &mut Batch::new());
    assert_eq!(a.state(), State::Established);
    stack.set_addresses(pair.now, *net, &["fd00::c/8".parse().unwrap()], &mut Batch::new());
    assert_eq!(a.take_error(), Some(Error::AddrNotAvailable));
    let Host { stack, net, .. } = &pair.hosts[B];
    stack.remove_interface(pair.now, *net, &mut Batch::new());
    assert_eq!(b.take_error(), Some(Error::NetworkDown));
    assert_eq!(stack.flows(), 0);
    let connect = stack.tcp_connect(pair.now, *net, None, address(A, true, 80), TcpOptions::default());
    assert_eq!(connect.unwrap_err(), Error::NetworkUnreachable);
}

#[test]
fn flows_are_limited_and_dropping_the_stack_frees_them() {
    let config = Config { max_flows: 3, ..small_buffers() };
    let mut pair = Pair::with(1, config, false);
    pair.listen(B, 80);
    let flows: Vec<_> = (0..3).map(|_| pair.connect(A, 80)).collect();
    let more = pair.connect_with(A, address(B, true, 80), TcpOptions::default());
    assert_eq!(more.unwrap_err(), Error::OutOfMemory);
    pair.run(SECOND, |_| flows.iter().all(|flow| flow.state() == State::Established));
    let weak: Vec<_> = flows.iter().map(std::sync::Arc::downgrade).collect();
    drop(flows);
    assert!(weak.iter().all(|flow| flow.strong_count() == 2), "the stack's table and index keep them");
    drop(pair);
    assert!(weak.iter().all(|flow| flow.strong_count() == 0));
}

/// Receiving and answering costs nothing that depends on the number of flows. A flow with an earlier entry is
/// not entered in the timer wheel again, and packets find their flow by hash.
#[test]
fn a_steady_flow_costs_no_timer_operations() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    pair.run_for(SECOND);
    let mut earliest = Vec::new();
    for _ in 0..100 {
        a.write(pair.now, b"ping").unwrap();
        pair.kick(A, &a);
        earliest.push(pair.hosts[A].stack.poll_timeout().unwrap());
        pair.now += Duration::from_micros(10);
        b.write(pair.now, b"pong").unwrap();
        pair.kick(B, &b);
        pair.now += Duration::from_micros(10);
    }
    earliest.dedup();
    assert_eq!(earliest.len(), 1, "one entry serves them all");
}

#[test]
fn a_node_talks_to_itself_if_the_driver_brings_packets_back() {
    let pair = Pair::new(1);
    let listener = pair.listen(A, 80);
    let own = address(A, true, 80);
    let host = &pair.hosts[A];
    let client = host.stack.tcp_connect(pair.now, host.net, None, own, TcpOptions::default()).unwrap();
    let limits = Egress { segment: 1368, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };
    let mut buf = vec![0; MAX_PACKET];
    let mut batch = Batch::new();
    let mut drive = |first: &std::sync::Arc<Flow>, now| {
        let mut flows = vec![first.clone()];
        while let Some(flow) = flows.pop() {
            while let Some(packets) = flow.egress(now, &limits, &mut buf) {
                // A packet to the node itself need not be cut.
                host.stack.receive(now, host.net, &mut buf[..packets.len()], &mut batch);
            }
            flows.append(&mut batch.flows);
            batch.clear();
        }
    };
    drive(&client, pair.now);
    let server = listener.accept(pair.now).unwrap();
    client.write(pair.now, &[1; 50_000]).unwrap();
    let mut read = 0;
    while read < 50_000 {
        drive(&client, pair.now);
        read += server.read(pair.now, &mut [0; 100_000]).unwrap();
        drive(&server, pair.now);
    }
}
