//! Handshakes: the common case, loss, races, replays, and nodes that have forgotten.

use std::time::Duration;

use peersock_overlay::Event;

use crate::net::Net;

#[test]
fn first_packet_arrives_after_discovery_and_one_round_trip() {
    let mut net = Net::acquainted_pair();
    net.send(0, 1, b"hello");
    let took = net.wait(Duration::from_secs(1), |net| !net.nodes[1].inbox.is_empty());
    // Initiation, response, data: three times the latency of 1 ms.
    assert_eq!(took, Duration::from_millis(3));
    assert_eq!(net.received(1), [b"hello".to_vec()]);
    assert_eq!(net.count(0, |event| matches!(event, Event::SessionReady(_))), 1);
    assert_eq!(net.count(1, |event| matches!(event, Event::SessionReady(_))), 1);
    assert_eq!((net.counter(0, "handshake_x25519"), net.counter(1, "handshake_x25519")), (5, 5));
}
