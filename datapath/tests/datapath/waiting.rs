//! Tests that a task waiting for a connection is woken for its interest, and for nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use peersock_datapath::SocketState;
use peersock_primitives::wait::Interest;
use peersock_stack::{Batch, Error, Flow, Listener, Ready, TcpOptions, UdpOptions};

use crate::net::{Net, Node};

const PORT: u16 = 7;

/// Waker that counts its calls.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Returns a listener of node 0, and a connection of node 1 to it whose SYN has not left.
fn connecting(net: &Net) -> (Arc<Listener>, Arc<Flow>) {
    let local = SocketAddr::new(net.address(0), PORT);
    // Less than the free space that makes a full send queue writable again.
    let options = TcpOptions { receive_buffer: Some(32 << 10), ..TcpOptions::default() };
    let listener = net.nodes[0].datapath.stack().tcp_listen(net.now, None, local, 1, options);
    let Node { datapath, network, .. } = &net.nodes[1];
    let options = TcpOptions::default();
    let flow = datapath.stack().tcp_connect(net.now, network.interface, None, local, options);
    (listener.expect("a free port"), flow.expect("a route"))
}

/// Connects two nodes; returns the end of the node that opened the connection, and the other one.
fn connected(net: &mut Net) -> (Arc<Flow>, Arc<Flow>) {
    let (listener, flow) = connecting(net);
    net.nodes[1].datapath.pump(net.now, &flow, &mut Batch::default());
    let mut accepted = None;
    net.run(Duration::from_secs(5), |net| {
        accepted = listener.accept(net.now).ok();
        accepted.is_some() && flow.readiness().contains(Ready::CONNECTED)
    });
    (flow, accepted.expect("it came"))
}

#[test]
fn who_waits_for_room_does_not_hear_of_each_acknowledgement() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    let (writer, reader) = connected(&mut net);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    while writer.write(net.now, &[7; 100_000]).is_ok() {}
    SocketState::of(writer.context()).waiters().register(Interest::Write, &waker);
    net.nodes[1].datapath.pump(net.now, &writer, &mut Batch::default());
    let unacked = writer.unacked();
    // The peer acknowledges a part, and takes no more until its application reads.
    net.run(Duration::from_millis(100), |_| false);
    assert!(writer.unacked() < unacked, "nothing was acknowledged");
    assert!(!writer.readiness().contains(Ready::WRITABLE), "there is room already");
    assert_eq!(count.get(), 0, "told of an acknowledgement that made no room");
    let mut buffer = vec![0; 100_000];
    net.run(Duration::from_secs(5), |net| {
        while reader.read(net.now, &mut buffer).is_ok_and(|length| length > 0) {}
        net.nodes[0].datapath.pump(net.now, &reader, &mut Batch::default());
        writer.readiness().contains(Ready::WRITABLE)
    });
    assert_eq!(count.get(), 1, "told once that there is room");
}

#[test]
fn who_waits_for_a_connection_hears_that_it_stands() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    let (_listener, flow) = connecting(&net);
    let count = Arc::new(Count::default());
    SocketState::of(flow.context()).waiters().register(Interest::Write, &Waker::from(Arc::clone(&count)));
    net.nodes[1].datapath.pump(net.now, &flow, &mut Batch::default());
    assert!(net.run(Duration::from_secs(5), |_| flow.readiness().contains(Ready::CONNECTED)));
    assert_eq!(count.get(), 1);
}

/// A stranger's packet to a closed port must not make the node search for the stranger once it is silent.
#[test]
fn nobody_waits_for_an_answer_to_a_reset() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    let (listener, flow) = connecting(&net);
    listener.close(net.now);
    net.nodes[1].datapath.pump(net.now, &flow, &mut Batch::default());
    assert!(net.run(Duration::from_secs(5), |_| flow.readiness().contains(Ready::ERROR)), "it is refused");
    let unanswered = |node: usize| {
        let peers = net.nodes[node].datapath.peers();
        peers.iter().map(|info| info.peer.unanswered(net.now)).collect::<Vec<_>>()
    };
    assert_eq!(unanswered(0), [None]);
}

/// The peer has an address, and may be busy: nothing shows that it is gone.
#[test]
fn connections_to_a_silent_peer_wait_as_long_as_tcp_asks_and_datagrams_twelve_seconds() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    net.longest = 0;
    let (_listener, flow) = connecting(&net);
    let Node { datapath, network, .. } = &net.nodes[1];
    let to = flow.remote();
    let closed = datapath.stack().tcp_connect(net.now, network.interface, None, to, TcpOptions::default());
    let closed = closed.expect("a route");
    let any = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0);
    let socket = datapath.stack().udp_bind(None, any, UdpOptions::default()).expect("a free port");
    socket.connect(to).expect("a route");
    for flow in [&flow, &closed] {
        datapath.pump(net.now, flow, &mut Batch::default());
    }
    datapath.send_udp(net.now, &socket, None, b"x").expect("a route");
    let begun = net.now;
    let run_until = |net: &mut Net, seconds| {
        let end = begun + Duration::from_secs(seconds);
        net.run(end - net.now, |_| false);
        net.now = end;
    };
    run_until(&mut net, 11);
    assert_eq!(net.nodes[1].counter("out_unreachable"), 0);
    run_until(&mut net, 13);
    assert_eq!(net.nodes[1].counter("out_unreachable"), 1);
    closed.abort(net.now);
    run_until(&mut net, 126);
    assert!(flow.state().is_connecting());
    run_until(&mut net, 140);
    assert_eq!(flow.take_error(), Some(Error::TimedOut));
    // Nothing is left of either in what waits.
    run_until(&mut net, 600);
    assert_eq!((Arc::strong_count(&flow), Arc::strong_count(&closed)), (1, 1));
}

#[test]
fn connections_to_a_silent_peer_stand_as_soon_as_it_answers() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    net.longest = 0;
    let (_listener, flow) = connecting(&net);
    net.nodes[1].datapath.pump(net.now, &flow, &mut Batch::default());
    net.run(Duration::from_secs(40), |_| false);
    net.longest = usize::MAX;
    // Initiations come every five seconds, and SYNs every half a minute.
    assert!(net.run(Duration::from_secs(6), |_| flow.readiness().contains(Ready::CONNECTED)));
}
