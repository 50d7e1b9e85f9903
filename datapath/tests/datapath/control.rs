//! Packets of an established session never involve control: its lock is not taken at all.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_stack::{Batch, Flow, IpOptions, TcpOptions, UdpOptions, UdpSocket};

use crate::net::Net;

const PORT: u16 = 7;
const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);

fn udp(net: &Net, node: usize, port: u16) -> Arc<UdpSocket> {
    let options = UdpOptions { reuse_address: true, ..UdpOptions::default() };
    let local = SocketAddr::new(ANY.ip(), port);
    net.nodes[node].datapath.stack().udp_bind(None, local, options).expect("a free port")
}

/// Echoes the datagrams of a socket; returns their number.
fn echo(net: &Net, node: usize, socket: &UdpSocket) -> usize {
    let mut buf = [0; 100];
    let mut count = 0;
    while let Ok(received) = socket.recv_from(&mut buf) {
        let datapath = &net.nodes[node].datapath;
        datapath
            .send_udp(net.now, socket, Some(received.source), &buf[..received.len])
            .expect("a route back");
        count += 1;
    }
    count
}

#[test]
fn a_server_of_a_thousand_alternating_clients_never_waits_for_control() {
    const CLIENTS: usize = 1000;
    let mut net = Net::star(CLIENTS + 1, |_| [vec![], vec![]]);
    let server = udp(&net, 0, PORT);
    let to = SocketAddr::new(net.address(0), PORT);
    let clients: Vec<_> = (1..=CLIENTS).map(|node| udp(&net, node, 0)).collect();

    let round = |net: &mut Net, say: &[u8]| {
        for (at, client) in clients.iter().enumerate() {
            net.nodes[at + 1].datapath.send_udp(net.now, client, Some(to), say).expect("a route");
            net.deliver();
            assert_eq!(echo(net, 0, &server), 1);
            net.nodes[0].datapath.poll_timeout();
            net.deliver();
            let mut buf = [0; 100];
            let received = client.recv_from(&mut buf).expect("an answer");
            assert_eq!((&buf[..received.len], received.source), (say, to));
        }
    };
    // The first round makes the sessions.
    round(&mut net, b"hello");
    let before = net.control_locked();
    for say in [&b"one"[..], b"two", b"three"] {
        net.now += Duration::from_millis(10);
        round(&mut net, say);
    }
    assert_eq!(net.control_locked(), before, "6,000 datagrams");
}

/// Connects node 1 with node 0; returns both ends.
fn connection(net: &mut Net) -> [Arc<Flow>; 2] {
    let (to, mut batch) = (SocketAddr::new(net.address(0), PORT), Batch::default());
    let stack = net.nodes[0].datapath.stack();
    let listener = stack.tcp_listen(net.now, None, ANY, 4, TcpOptions::default()).expect("a free port");
    let client = &net.nodes[1];
    let interface = client.network.interface;
    let flow = client.datapath.stack().tcp_connect(net.now, interface, None, to, TcpOptions::default());
    let flow = flow.expect("a route");
    client.datapath.pump(net.now, &flow, &mut batch);
    let mut accepted = None;
    net.run(Duration::from_secs(5), |net| {
        accepted = accepted.take().or_else(|| listener.accept(net.now).ok());
        accepted.is_some()
    });
    [accepted.expect("a connection"), flow]
}

#[test]
fn a_connection_never_waits_for_control() {
    transfers_without_control(Net::star(2, |_| [vec![], vec![]]));
}

#[test]
fn a_relayed_connection_never_waits_for_control_and_leaves_in_batches() {
    let net = transfers_without_control(Net::relayed(2));
    let (datagrams, bytes) = net.root.relayed;
    assert!(bytes > 4 << 20, "both ways: {bytes}");
    assert!(net.batches_relayed > 0 && net.batches_relayed < datagrams / 4, "{}", net.batches_relayed);
}

#[test]
fn datagrams_through_a_root_never_wait_for_control() {
    let mut net = Net::relayed(3);
    let server = udp(&net, 0, PORT);
    let to = SocketAddr::new(net.address(0), PORT);
    let clients = [1, 2].map(|node| udp(&net, node, 0));
    let round = |net: &mut Net, say: &[u8]| {
        for (at, client) in clients.iter().enumerate() {
            net.nodes[at + 1].datapath.send_udp(net.now, client, Some(to), say).expect("a route");
            net.deliver();
            assert_eq!(echo(net, 0, &server), 1);
            net.deliver();
            assert_eq!(client.recv_from(&mut [0; 2000]).expect("an answer").len, say.len());
        }
    };
    round(&mut net, b"hello");
    let before = net.control_locked();
    for say in [&[1; 10][..], &[2; 100]] {
        round(&mut net, say);
    }
    assert_eq!(net.control_locked(), before);
    net.nodes[0].receive_garbage(net.now, 0x1234);
    assert_eq!(net.control_locked(), before);
    assert_eq!(net.nodes[0].overlay_counter("relayed_unknown"), 1);
}

fn transfers_without_control(mut net: Net) -> Net {
    const BYTES: usize = 2 << 20;
    let flows = connection(&mut net);
    // Sends more packets, so that the timers of both sides run.
    let transfer = |net: &mut Net, bytes: usize| {
        let (mut written, mut read) = ([0; 2], [0; 2]);
        let mut buf = vec![7; 64 << 10];
        net.run(Duration::from_secs(2), |net| {
            for (node, flow) in flows.iter().enumerate() {
                let rest = (bytes - written[node]).min(buf.len());
                written[node] += flow.write(net.now, &buf[..rest]).unwrap_or(0);
                read[node] += flow.read(net.now, &mut buf).unwrap_or(0);
                net.nodes[node].datapath.pump(net.now, flow, &mut Batch::default());
            }
            read == [bytes; 2]
        })
    };
    assert!(transfer(&mut net, 1000));
    let before = net.control_locked();
    assert!(transfer(&mut net, BYTES));
    assert_eq!(net.control_locked(), before);
    net
}

/// A peer's last packets often cause an answer: a FIN that was repeated, or a datagram to a closed port.
#[test]
fn what_a_peer_that_leaves_has_sent_last_makes_no_handshake() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    let server = udp(&net, 0, PORT);
    let client = udp(&net, 1, 0);
    let send = |net: &Net, port| {
        let to = SocketAddr::new(net.address(0), port);
        net.nodes[1].datapath.send_udp(net.now, &client, Some(to), b"hello").expect("a route");
    };
    send(&net, PORT);
    net.deliver();
    assert_eq!(echo(&net, 0, &server), 1);
    net.deliver();
    send(&net, PORT + 1);
    net.nodes[1].leave(net.now);
    assert_eq!(net.under_way(), 2, "a datagram to a port that nobody has, and the goodbye");
    net.deliver_together();
    assert_eq!(net.under_way(), 0);
    assert_eq!(net.nodes[0].counter("out_unreachable"), 1);
}

#[test]
fn datagrams_to_a_group_never_wait_for_control() {
    let mut net = Net::star(4, |_| [vec![], vec![]]);
    let group: IpAddr = "ff05::7".parse().expect("a group");
    let sender = udp(&net, 0, 0);
    sender
        .set_ip_options(IpOptions { multicast_hop_limit: 8, ..IpOptions::default() })
        .expect("sound options");
    let members: Vec<_> = (1..4).map(|node| udp(&net, node, PORT)).collect();
    members.iter().for_each(|member| member.join(None, group).expect("a group"));

    let round = |net: &mut Net| {
        let to = SocketAddr::new(group, PORT);
        net.nodes[0].datapath.send_udp(net.now, &sender, Some(to), b"all").expect("a route");
        net.deliver();
        let received = members.iter().filter(|member| member.recv_from(&mut [0; 100]).is_ok()).count();
        assert_eq!(received, 3);
    };
    // Each other node has a session with node 0 then.
    for node in 1..4 {
        let socket = udp(&net, node, 0);
        let to = SocketAddr::new(net.address(0), PORT);
        net.nodes[node].datapath.send_udp(net.now, &socket, Some(to), b"hello").expect("a route");
    }
    net.deliver();
    round(&mut net);
    let before = net.control_locked();
    for _ in 0..100 {
        round(&mut net);
    }
    assert_eq!(net.control_locked(), before);
}

#[test]
fn after_the_machine_was_suspended_what_is_due_can_be_done() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    connection(&mut net);
    let datapath = &net.nodes[0].datapath;
    datapath.note_suspended(Duration::from_secs(8 * 3600));
    // Only timers run: each call does the due work, and the next deadline is later.
    let mut now = net.now;
    for _ in 0..20 {
        let Some(at) = datapath.poll_timeout() else { return };
        now = now.max(at);
        datapath.handle_timeout(now, &mut Batch::default());
    }
    let next = datapath.poll_timeout();
    assert!(
        next.is_none_or(|at| at > now),
        "a deadline that never passes: {:?} ago",
        next.map(|at| now - at)
    );
}
