//! Tests that segments of several flows to one peer leave with one call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_datapath::GsoBatch;
use peersock_stack::{Batch, Flow, TcpOptions};
use proptest::prelude::*;

use crate::net::Net;

const FLOWS: usize = 70;

/// Connects node 1 with node 0; returns the ends of node 1, and the ends of node 0 in the same order.
fn connections(net: &mut Net) -> (Vec<Arc<Flow>>, Vec<Arc<Flow>>) {
    let (to, options) = (SocketAddr::new(net.address(0), 7), TcpOptions::default());
    let stack = net.nodes[0].datapath.stack();
    let listener = stack.tcp_listen(net.now, None, to, FLOWS, options.clone()).expect("a free port");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..FLOWS {
        let client = &net.nodes[1];
        let interface = client.network.interface;
        let flow = client.datapath.stack().tcp_connect(net.now, interface, None, to, options.clone());
        clients.push(flow.expect("a route"));
        client.datapath.pump(net.now, &clients[clients.len() - 1], &mut Batch::default());
        let accepted = &mut servers;
        let stands = |net: &mut Net| {
            listener.accept(net.now).is_ok_and(|flow| {
                accepted.push(flow);
                true
            })
        };
        assert!(net.run(Duration::from_secs(5), stands));
    }
    net.deliver();
    (clients, servers)
}

fn pump_together(net: &Net, flows: &[Arc<Flow>]) {
    let (mut flows, mut gso) = (flows.to_vec(), GsoBatch::default());
    net.nodes[1].datapath.pump_together(net.now, &mut flows, &mut gso, &mut Batch::default());
    assert!(flows.is_empty() && gso.is_empty());
}

fn received(net: &Net, flow: &Flow) -> Vec<u8> {
    let mut bytes = vec![0; 200_000];
    let length = flow.read(net.now, &mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

#[test]
fn small_segments_of_equal_size_leave_with_one_call() {
    let mut net = Net::star(2, |_| [vec![], vec![]]);
    let (clients, servers) = connections(&mut net);
    assert_eq!(net.under_way(), 0);
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(client.write(net.now, &[at as u8; 40]), Ok(40));
    }
    pump_together(&net, &clients);
    // One call takes 64 datagrams.
    assert_eq!(net.under_way(), 2);
    net.deliver();
    for (at, server) in servers.iter().enumerate() {
        assert_eq!(received(&net, server), [at as u8; 40]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Long segments, which leave alone, are not overtaken by short ones of the same flow, whatever their
    /// sizes.
    #[test]
    fn every_flow_gets_what_is_its_own_and_in_order(
        writes in prop::collection::vec((0..8_usize, 1..6000_usize), 1..60),
        turn in 1..9_usize,
    ) {
        let mut net = Net::star(2, |_| [vec![], vec![]]);
        let (clients, servers) = connections(&mut net);
        let mut expected = vec![Vec::new(); FLOWS];
        let mut got = vec![Vec::new(); FLOWS];
        for some in writes.chunks(turn) {
            for &(at, length) in some {
                let byte = (expected[at].len() * 31 + at) as u8;
                prop_assert_eq!(clients[at].write(net.now, &vec![byte; length]), Ok(length));
                expected[at].extend(std::iter::repeat_n(byte, length));
            }
            let written: Vec<_> = some.iter().map(|(at, _)| Arc::clone(&clients[*at])).collect();
            pump_together(&net, &written);
            net.deliver();
            for (server, got) in servers.iter().zip(&mut got) {
                got.extend(received(&net, server));
            }
        }
        net.run(Duration::from_secs(2), |_| false);
        for (server, got) in servers.iter().zip(&mut got) {
            got.extend(received(&net, server));
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(net.nodes[1].counter("out_unreachable"), 0);
    }
}
