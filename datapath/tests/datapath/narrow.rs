//! Datagrams over a path that begins to carry too little: their senders get an error, without any protocol
//! above that would notice.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::SizeState;
use peersock_stack::{Error, Ready, UdpOptions, UdpSocket};

use crate::net::Net;

const PORT: u16 = 7;
const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);

/// Datagram size that lets only acknowledgements and keepalives pass.
const NARROW: usize = 130;

/// Promised time until the sender gets the error.
const ERROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns two nodes; the second has a socket that is connected with the first one's, and has had an answer.
fn pair() -> (Net, [Arc<UdpSocket>; 2]) {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    let bind = |node: usize, port| {
        let stack = net.nodes[node].datapath.stack();
        stack.udp_bind(None, SocketAddr::new(ANY.ip(), port), UdpOptions::default()).expect("a free port")
    };
    let (server, client) = (bind(0, PORT), bind(1, 0));
    client.connect(SocketAddr::new(net.address(0), PORT)).expect("a route");
    exchange(&mut net, &server, &client);
    // Path MTU discovery completes.
    net.run(Duration::from_secs(5), |_| false);
    (net, [server, client])
}

fn send(net: &Net, client: &UdpSocket) {
    net.nodes[1].datapath.send_udp(net.now, client, None, &[7; 500]).expect("a route");
}

fn pass_a_second(net: &mut Net) {
    let end = net.now + Duration::from_secs(1);
    net.run(Duration::from_secs(1), |_| false);
    net.now = end;
}

fn exchange(net: &mut Net, server: &UdpSocket, client: &UdpSocket) {
    send(net, client);
    net.run(Duration::from_secs(5), |_| server.readiness().contains(Ready::READABLE));
    let received = server.recv_from(&mut [0; 1000]).expect("a datagram");
    net.nodes[0].datapath.send_udp(net.now, server, Some(received.source), b"y").expect("a route back");
    net.run(Duration::from_secs(5), |_| client.readiness().contains(Ready::READABLE));
    client.recv_from(&mut [0; 1000]).expect("an answer");
}

fn size(net: &Net) -> Option<SizeState> {
    let node = &net.nodes[1];
    node.datapath.size_state(net.now, &node.network, net.address(0), false)
}

#[test]
fn who_waits_for_an_answer_to_one_datagram_is_told() {
    let (mut net, [server, client]) = pair();
    assert_eq!(size(&net), Some(SizeState::Passes));
    net.longest = NARROW;
    let sent = net.now;
    send(&net, &client);
    assert!(net.run(ERROR_TIMEOUT, |_| client.readiness().contains(Ready::ERROR)), "nobody says anything");
    assert_eq!(client.recv_from(&mut [0; 10]), Err(Error::MessageSize));
    assert!(net.now - sent < ERROR_TIMEOUT, "{:?}", net.now - sent);
    assert_eq!((size(&net), server.take_error()), (Some(SizeState::TooSmall), None));
    // A sender that continues gets the error again.
    send(&net, &client);
    assert!(net.run(ERROR_TIMEOUT, |_| client.readiness().contains(Ready::ERROR)), "nobody says it again");
    assert_eq!(client.recv_from(&mut [0; 10]), Err(Error::MessageSize));

    // The path carries more again.
    net.longest = usize::MAX;
    send(&net, &client);
    net.run(Duration::from_secs(5), |_| false);
    server.recv_from(&mut [0; 1000]).expect("it arrives");
    exchange(&mut net, &server, &client);
    assert_eq!(size(&net), Some(SizeState::Passes));
}

#[test]
fn who_only_sends_has_the_path_looked_at_more_and_more_rarely() {
    let (mut net, [server, client]) = pair();
    let before = net.nodes[1].overlay_counter("probes_sent");
    for _ in 0..600 {
        send(&net, &client);
        pass_a_second(&mut net);
        while server.recv_from(&mut [0; 1000]).is_ok() {}
    }
    assert_eq!(client.take_error(), None);
    // Each check is a probe and its companion: after 1, 2, 4 ... 64 s, and then every 64 s.
    let probes = net.nodes[1].overlay_counter("probes_sent") - before;
    assert!((10..200).contains(&probes), "{probes} in ten minutes");
}

#[test]
fn a_peer_that_is_gone_is_no_narrow_path() {
    let (mut net, [_, client]) = pair();
    net.longest = 0;
    for _ in 0..30 {
        send(&net, &client);
        pass_a_second(&mut net);
    }
    assert_eq!(client.take_error(), None);
    assert_ne!(size(&net), Some(SizeState::TooSmall));
}
