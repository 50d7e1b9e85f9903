//! Members whose addresses change during their sessions.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{AddressError, Event, Prefix};
use peersock_stack::{Batch, Config, Error, Flow, TcpOptions, UdpOptions};

use crate::net::{Net, Node};

const PORT: u16 = 80;
const TEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns a net in which node 1 has both addresses, and node 0 knows only the first.
fn pair() -> Net {
    Net::star(2, |node| match node {
        0 => [vec![ip(1)], vec![]],
        _ => [vec![ip(2), ip(3)], vec![ip(2)]],
    })
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 7, 0, last])
}

/// Makes a session with node 0, begun by the side that knows the other's endpoint.
fn acquaint(net: &mut Net, node: usize) {
    let to = SocketAddr::new(net.address(0), PORT);
    let node = &net.nodes[node];
    let any = "[::]:0".parse().expect("an address");
    let socket = node.datapath.stack().udp_bind(None, any, UdpOptions::default()).expect("a port");
    node.datapath.send_udp(net.now, &socket, Some(to), b"hello").expect("a route");
    net.deliver();
}

fn set(net: &Net, addresses: &[Prefix]) -> Result<(), AddressError> {
    let node = &net.nodes[0];
    node.datapath.set_addresses(net.now, &node.network, &net.id(1), addresses, &mut Batch::default())
}

fn connect(net: &Net, to: IpAddr) -> Arc<Flow> {
    let node = &net.nodes[0];
    let (to, options) = (SocketAddr::new(to, PORT), TcpOptions::default());
    let flow = node.datapath.stack().tcp_connect(net.now, node.network.interface, None, to, options);
    let flow = flow.expect("the network is there");
    node.datapath.pump(net.now, &flow, &mut Batch::default());
    flow
}

fn is_established(net: &mut Net, flow: &Arc<Flow>) -> bool {
    net.run(TEST_TIMEOUT, |_| !flow.state().is_connecting()) && flow.write(net.now, b"x").is_ok()
}

#[test]
fn connections_to_an_address_end_when_it_is_taken_away_and_others_stand() {
    let mut net = pair();
    acquaint(&mut net, 1);
    let stack = net.nodes[1].datapath.stack();
    let any = SocketAddr::new("::".parse().expect("an address"), PORT);
    let v4 = SocketAddr::new(IpAddr::from([0; 4]), PORT);
    let listen = |at| stack.tcp_listen(net.now, None, at, 8, TcpOptions::default()).expect("a free port");
    let _listeners = [listen(any), listen(v4)];

    let by_listed = connect(&net, ip(2));
    let by_certified = connect(&net, net.address(1));
    assert!(is_established(&mut net, &by_listed) && is_established(&mut net, &by_certified));

    let events = net.nodes[0].datapath.subscribe();
    set(&net, &[ip(3).into()]).expect("nobody has it");
    assert!(matches!(
        events.try_next(),
        Some(Event::AddressesChanged(peer, lost))
            if *peer.id() == net.id(1) && *lost == [ip(2).into()] && peer.addresses() == [net.address(1), ip(3)]
    ));
    assert_eq!(by_listed.write(net.now, b"x"), Err(Error::ConnectionReset));
    assert!(by_certified.write(net.now, b"x").is_ok(), "its address has stayed");

    let later = connect(&net, ip(3));
    assert!(is_established(&mut net, &later), "the new address leads there");
    let never = connect(&net, ip(2));
    assert_eq!(never.write(net.now, b"x"), Err(Error::NetworkUnreachable));
}

#[test]
fn what_comes_from_an_address_that_was_taken_away_is_dropped() {
    let mut net = pair();
    acquaint(&mut net, 1);
    let server = net.nodes[0].datapath.stack();
    let server = server.udp_bind(None, SocketAddr::new(ip(1), PORT), UdpOptions::default()).expect("a port");
    let client = net.nodes[1].datapath.stack();
    let client = client.udp_bind(None, SocketAddr::new(ip(2), 0), UdpOptions::default()).expect("a port");
    let arrives = |net: &mut Net| {
        let to = SocketAddr::new(ip(1), PORT);
        net.nodes[1].datapath.send_udp(net.now, &client, Some(to), b"x").expect("a route");
        net.deliver();
        server.recv_from(&mut [0; 10]).is_ok()
    };
    assert!(arrives(&mut net));
    set(&net, &[]).expect("it may have none");
    assert!(!arrives(&mut net));
    assert_eq!(net.nodes[0].counter("inner_source_not_owned"), 1);
    // A block of addresses behind node 1.
    set(&net, &[Prefix::new(ip(0), 24).expect("at most 32 bits")]).expect("nobody has it");
    assert!(arrives(&mut net));
}

#[test]
fn a_socket_follows_an_address_to_its_new_owner() {
    let mut net = Net::star(3, |node| match node {
        0 => [vec![ip(1)], vec![]],
        1 => [vec![ip(9)], vec![ip(9)]],
        _ => [vec![ip(9)], vec![]],
    });
    for node in 1..3 {
        acquaint(&mut net, node);
    }
    let bind = |node: usize| {
        let local = SocketAddr::new(net.nodes[node].network.addresses[1], PORT);
        net.nodes[node].datapath.stack().udp_bind(None, local, UdpOptions::default()).expect("a port")
    };
    let [sender, first, second] = [0, 1, 2].map(bind);
    let send = |net: &mut Net| {
        let to = SocketAddr::new(ip(9), PORT);
        net.nodes[0].datapath.send_udp(net.now, &sender, Some(to), b"x").expect("a route");
        net.deliver();
        [&first, &second].map(|socket| socket.recv_from(&mut [0; 10]).is_ok())
    };
    assert_eq!(send(&mut net), [true, false]);
    let give = |net: &Net, node: usize, prefixes: &[Prefix]| {
        let own = &net.nodes[0];
        own.datapath.set_addresses(net.now, &own.network, &net.id(node), prefixes, &mut Batch::default())
    };
    assert_eq!(give(&net, 2, &[ip(9).into()]), Err(AddressError::Taken(ip(9).into())));
    give(&net, 1, &[]).expect("it may have none");
    give(&net, 2, &[ip(9).into()]).expect("nobody has it now");
    assert_eq!(send(&mut net), [false, true]);
}

/// Returns a net in which node 1 is given a block that contains an address of node 2; both talk to node 0.
fn with_a_block() -> Net {
    let mut net = Net::star(3, |node| match node {
        0 => [vec![ip(1)], vec![]],
        // Node 1 has both addresses, like an attacker that forges sources.
        1 => [vec![ip(9), ip(5)], vec![ip(9)]],
        _ => [vec![ip(5)], vec![ip(5)]],
    });
    for node in 1..3 {
        acquaint(&mut net, node);
    }
    set(&net, &[ip(9).into(), Prefix::new(ip(0), 24).expect("at most 32 bits")]).expect("nobody has it");
    net
}

#[test]
fn who_has_a_block_has_not_the_addresses_in_it_that_others_have() {
    let mut net = with_a_block();
    let server = net.nodes[0].datapath.stack();
    let server = server.udp_bind(None, SocketAddr::new(ip(1), PORT), UdpOptions::default()).expect("a port");
    let arrives = |net: &mut Net, node: usize, from: IpAddr| {
        let client = net.nodes[node].datapath.stack();
        let client = client.udp_bind(None, SocketAddr::new(from, 0), UdpOptions::default()).expect("a port");
        let to = SocketAddr::new(ip(1), PORT);
        net.nodes[node].datapath.send_udp(net.now, &client, Some(to), b"x").expect("a route");
        net.deliver();
        server.recv_from(&mut [0; 10]).is_ok()
    };
    assert!(arrives(&mut net, 1, ip(9)) && arrives(&mut net, 2, ip(5)));
    assert!(!arrives(&mut net, 1, ip(5)), "it is the other member's");
    assert_eq!(net.nodes[0].counter("inner_source_not_owned"), 1);
}

#[test]
fn what_happens_to_the_owner_of_a_block_ends_no_connections_with_the_members_in_it() {
    let mut net = with_a_block();
    let stack = net.nodes[2].datapath.stack();
    let at = SocketAddr::new(ip(5), PORT);
    let _listener = stack.tcp_listen(net.now, None, at, 8, TcpOptions::default()).expect("a free port");
    let flow = connect(&net, ip(5));
    assert!(is_established(&mut net, &flow));
    set(&net, &[ip(9).into()]).expect("it may have less");
    assert!(flow.write(net.now, b"x").is_ok(), "the block is gone, and the address was not in it");
    set(&net, &[ip(9).into(), Prefix::new(ip(0), 24).expect("at most 32 bits")]).expect("nobody has it");
    let id = net.nodes[1].network.id;
    net.nodes[1].datapath.leave(net.now, id, &mut Batch::default());
    net.deliver();
    assert!(flow.write(net.now, b"x").is_ok(), "another member has left");
}

/// A member that leads to a block of addresses opens no more connections than any other, from whichever of
/// them, and in either family.
#[test]
fn all_addresses_of_a_member_share_its_limits() {
    let config = Config { max_flows_per_peer: 3, ..Config::default() };
    let mut net = Net::star_with(&config, 3, |node| match node {
        0 => [vec![ip(1)], vec![]],
        1 => [(10..20).map(ip).collect(), vec![ip(10)]],
        _ => [vec![ip(5)], vec![ip(5)]],
    });
    for node in 1..3 {
        acquaint(&mut net, node);
    }
    set(&net, &[ip(10).into(), Prefix::new(ip(0), 24).expect("at most 32 bits")]).expect("nobody has it");
    let stack = net.nodes[0].datapath.stack();
    let listen = |at| stack.tcp_listen(net.now, None, at, 64, TcpOptions::default()).expect("a free port");
    let _v6 = listen(SocketAddr::new("::".parse().expect("an address"), PORT));
    let _v4 = listen(SocketAddr::new(IpAddr::from([0; 4]), PORT));
    let open = |net: &mut Net, node: usize, from: IpAddr| {
        let to = if from.is_ipv4() { ip(1) } else { net.address(0) };
        let (local, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, PORT));
        let Node { datapath, network, .. } = &net.nodes[node];
        let stack = datapath.stack();
        let flow = stack.tcp_connect(net.now, network.interface, Some(local), to, TcpOptions::default());
        let flow = flow.expect("the network is there");
        datapath.pump(net.now, &flow, &mut Batch::default());
        net.deliver();
        !flow.state().is_connecting()
    };
    let opened = (10..20).filter(|&last| open(&mut net, 1, ip(last))).count();
    assert_eq!(opened, 3);
    let certified = net.address(1);
    assert!(!open(&mut net, 1, certified));
    assert!(open(&mut net, 2, ip(5)), "another member's address in the block");
}
