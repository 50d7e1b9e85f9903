//! The first question about the other node's addresses, in the response of a handshake by a root.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peersock_overlay::noise::{InitiationPayload, Initiator, MacWriter, Timestamp};
use peersock_overlay::wire::{Channel, Initiation, Relayed, Response};
use peersock_overlay::{Identity, RecvMeta, SessionIndex, SocketIndex, SuiteSet};

use crate::net::{Net, Node, Sent, UNIX_TIME, instant, open_network};
use crate::punching::{PORT_CONE, homes, is_direct};
use crate::roots::apart;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const INITIATION: u8 = 0xD1;
const RESPONSE: u8 = 0xD2;
const DATA: u8 = 0xD4;

/// Length of a relayed frame with a short IP packet in a session.
const PACKET: usize = 200;

#[test]
fn the_response_by_a_root_asks_so_that_each_side_tells_once_where_it_is() {
    let mut net = homes(PORT_CONE, PORT_CONE, 1, 20 * MS);
    let begin = net.now;
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| is_direct(net, 0) && is_direct(net, 1));
    let frames = relayed(&net, begin);
    let of = |kind: u8| frames.iter().filter(move |(_, inner)| inner[0] == kind);
    let [(_, initiation)] = of(INITIATION).collect::<Vec<_>>()[..] else { panic!("{frames:?}") };
    let [(_, response)] = of(RESPONSE).collect::<Vec<_>>()[..] else { panic!("{frames:?}") };
    assert!(response.len() > Response::MIN + 100, "it has a question with a voucher");
    assert!(response.len() <= initiation.len(), "no answer is longer than what it answers");
    // The initiator's first packet is the answer. The other side does not repeat its addresses.
    let long: Vec<_> = of(DATA).filter(|(_, inner)| inner.len() > 150 && inner.len() < PACKET).collect();
    assert_eq!(long.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [0], "{frames:?}");
    assert_eq!([0, 1].map(|node| net.counter(node, "candidates_sent")), [1, 0]);
    net.run(10 * SECOND);
    assert_eq!([0, 1].map(|node| net.counter(node, "candidates_sent")), [1, 0], "nor does anybody later");
}

#[test]
fn a_session_that_is_only_renewed_by_a_root_asks_nothing() {
    let mut net = apart(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(2 * SECOND);
    let begin = net.now;
    crate::roots::talk(&mut net, Duration::from_secs(125));
    let frames = relayed(&net, begin);
    let lengths = |kind: u8| frames.iter().filter(move |(_, inner)| inner[0] == kind).map(|(_, b)| b.len());
    assert!(lengths(INITIATION).count() >= 1, "the session was renewed");
    assert!(lengths(INITIATION).all(|len| len == Initiation::MIN));
    assert!(lengths(RESPONSE).all(|len| len == Response::MIN));
}

#[test]
fn a_response_asks_only_where_the_initiation_has_left_room() {
    // A question with one address and one voucher has 131 bytes, 98 of which fit in any case.
    for room in [0, 1, 32, 33, 200, InitiationPayload::MAX_ROOM] {
        let mut net = homes(PORT_CONE, PORT_CONE, 1, 20 * MS);
        let initiation = initiation_of_stranger(room);
        assert_eq!(initiation.len(), Initiation::MIN + room);
        let begin = net.now;
        deliver_relayed(&mut net, 1, &initiation);
        net.run(SECOND);
        let frames = relayed(&net, begin);
        let [(1, response)] = &frames[..] else { panic!("{frames:?}") };
        assert!(response.len() <= initiation.len());
        assert_eq!(response.len() > Response::MIN, room >= 33, "{room}: {}", response.len());
    }
}

/// Returns the frames that nodes have sent through roots since `begin`: the node, and the datagram.
fn relayed(net: &Net, begin: Instant) -> Vec<(usize, Vec<u8>)> {
    let is_root = |at: &SocketAddr| net.roots.iter().any(|root| root.socket == *at);
    let frame = |sent: &Sent| {
        // Behind a box each node appears at that box's address.
        let outside = |number: usize| IpAddr::from([203, 0, 113, number as u8 + 1]);
        let mut nodes = net.nodes.iter().enumerate();
        let is_from = |(number, node): (usize, &Node)| {
            node.socket == sent.from || node.nat.is_some() && sent.from.ip() == outside(number)
        };
        let node = nodes.position(is_from)?;
        let (_, inner) = Relayed::parse(&sent.bytes).ok().filter(|_| is_root(&sent.to))?;
        Some((node, inner.to_vec()))
    };
    net.sent.iter().filter(|sent| sent.at >= begin).filter_map(frame).collect()
}

/// Delivers a datagram to a node as relayed by its root.
fn deliver_relayed(net: &mut Net, node: usize, datagram: &[u8]) {
    let root = net.roots[0].socket;
    let token = peersock_overlay::wire::RelayToken::from_be_bytes([0; 3]);
    let relay = Some(Relayed { token, channel: Channel(99) });
    let meta = RecvMeta { remote: root, socket: SocketIndex(0), multicast: false, relay };
    net.deliver(node, meta, datagram);
    net.pump();
}

/// Returns an initiation to the second node.
fn initiation_of_stranger(room: usize) -> Vec<u8> {
    let (target, stranger) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[0x77; 32]));
    let payload = InitiationPayload {
        network: open_network().id(),
        timestamp: Timestamp::from_unix(UNIX_TIME),
        instance: 1,
        receive_buffer: 0,
        suites: SuiteSet::CHACHA20_POLY1305,
        introduction: Vec::new(),
        room,
    };
    let index = SessionIndex::from_be_bytes([1, 2, 3]);
    let mut bytes = Vec::new();
    Initiator::start(&stranger, target.public(), [9; 32], index, &payload, &mut bytes).unwrap();
    MacWriter::new(&target.node_id()).append(instant(), &mut bytes);
    bytes
}
