//! Roots that are reached by a stream if UDP has no answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_overlay::wire::StreamKind;
use peersock_overlay::{
    Event, Place, RecvMeta, RootConfig, RootState, SocketIndex, SocketInfo, WantedStream,
};
use peersock_testnet::TestRoot;

use crate::net::{Net, Node, RootNode, Sent, lan_socket, open_network};
use crate::roots::{add_root, config_of, fake_root, id, place};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_stream_is_wanted_after_a_second_of_silence_and_nodes_talk_by_it() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    net.filter = Box::new(is_by_stream);
    net.run(900 * MS);
    assert_eq!(net.nodes[0].streams, [], "UDP has its second");
    let took =
        net.wait(SECOND, |net| registered(net) && net.nodes.iter().all(|node| node.streams.len() == 1));
    assert!(took < 200 * MS, "{took:?}");
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    net.send(1, 0, b"back");
    net.wait(SECOND, |net| net.received(0) == [b"back".to_vec()]);
    for (at, of) in [(0, 1), (1, 0)] {
        let place = net.peer(at, of).path().unwrap().place;
        assert!(place.relay().is_some() && place.socket().is_stream(), "{place}");
        let info = &net.nodes[at].endpoint.roots(net.now)[0];
        assert_eq!((info.address, info.stream), (None, Some(place.socket())));
        assert_eq!(info.endpoints, [net.roots[0].socket], "the end of a stream is nowhere");
        assert_eq!(info.relayed_peers, 1);
    }
}

#[test]
fn a_root_without_streams_gets_none_and_one_without_udp_gets_one_at_once() {
    let mut net = apart(&[None, Some(Duration::ZERO)]);
    net.filter = Box::new(is_by_stream);
    net.run(10 * MS);
    assert_eq!((net.nodes[0].streams.len(), net.nodes[1].streams.len()), (0, 1));
    net.run(60 * SECOND);
    assert_eq!(net.nodes[0].streams, []);
    assert_eq!(net.nodes[0].endpoint.roots(net.now)[0].state, RootState::Unreachable);
    assert_eq!(net.nodes[1].endpoint.roots(net.now)[0].state, RootState::Registered);
}

#[test]
fn where_udp_answers_no_stream_is_opened() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    for _ in 0..600 {
        net.run(SECOND);
        assert_eq!((&net.nodes[0].streams[..], &net.nodes[1].streams[..]), (&[][..], &[][..]));
    }
}

#[test]
fn connections_go_on_when_udp_ends_and_when_it_comes_back() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    net.wait(SECOND, registered);
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    assert!(!net.peer(0, 1).path().unwrap().socket().is_stream());

    net.filter = Box::new(is_by_stream);
    let longest = talk(&mut net, 60);
    assert!(longest <= 4 * SECOND, "{longest:?}");
    assert!(net.nodes.iter().all(|node| node.streams.len() == 1));
    assert!(net.peer(0, 1).path().unwrap().socket().is_stream());

    net.filter = Box::new(|sent| is_through_root(sent) || is_by_stream(sent));
    // UDP is asked every 30 s at least, and no packet waits for that.
    assert!(talk(&mut net, 60) <= SECOND);
    assert!(net.nodes.iter().all(|node| node.streams.is_empty()), "UDP answers");
    assert!(!net.peer(0, 1).path().unwrap().socket().is_stream());
    let lost = |event: &Event| matches!(event, Event::SessionLost(_) | Event::PeerGone(..));
    assert_eq!(net.count(0, lost) + net.count(1, lost), 0);
}

#[test]
fn an_idle_node_notices_within_its_keepalive_interval_that_udp_has_ended() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    net.filter = Box::new(is_by_stream);
    net.wait(3 * SECOND, registered);
    net.filter = Box::new(|sent| is_through_root(sent) || is_by_stream(sent));
    net.wait(60 * SECOND, |net| net.nodes.iter().all(|node| node.streams.is_empty()));
    net.run(5 * SECOND);
    net.filter = Box::new(is_by_stream);
    let is_by = |net: &mut Net| net.nodes.iter().all(|node| node.endpoint.roots(net.now)[0].stream.is_some());
    net.wait(30 * SECOND, is_by);
    assert!(registered(&mut net));
}

#[test]
fn a_registration_that_is_repeated_in_vain_shows_that_udp_has_ended() {
    let mut net = apart(&[Some(SECOND), None]);
    net.wait(SECOND, |net| net.nodes[0].endpoint.roots(net.now)[0].state == RootState::Registered);
    net.filter = Box::new(is_by_stream);
    // The node registers again.
    net.nodes[0].endpoint.set_sockets(net.now, vec![lan_socket()]);
    net.wait(5 * SECOND, |net| net.nodes[0].endpoint.roots(net.now)[0].stream.is_some());
}

#[test]
fn a_stream_that_ends_is_missed_at_once_and_used_again_when_it_is_back() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    net.filter = Box::new(is_by_stream);
    net.wait(3 * SECOND, registered);
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    // The root has forgotten everything meanwhile.
    let now = net.now;
    net.roots[0].root.restart(now);
    for node in &mut net.nodes {
        let root = node.endpoint.roots(net.now)[0].node;
        node.endpoint.set_stream(net.now, &root, false, None);
    }
    net.run(5 * SECOND);
    assert!(net.nodes.iter().all(|node| node.streams.len() == 1), "they are still wanted");
    for node in &mut net.nodes {
        let root = node.endpoint.roots(net.now)[0].node;
        node.endpoint.set_stream(net.now, &root, true, None);
    }
    net.wait(SECOND, |net| net.nodes.iter().all(|node| node.endpoint.roots(net.now)[0].address.is_none()));
    assert!(talk(&mut net, 10) <= 2 * SECOND);
}

#[test]
fn the_end_of_a_stream_is_no_source_of_udp() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    net.filter = Box::new(is_by_stream);
    net.wait(3 * SECOND, registered);
    let before = net.counter(0, "bad_source");
    let remote = SocketIndex::stream(0).stream_end().unwrap();
    let meta = RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None };
    net.nodes[0].endpoint.handle_datagram(net.now, meta, &[0xd1; 200]);
    assert_eq!(net.counter(0, "bad_source"), before + 1);
}

#[test]
fn sockets_change_and_streams_stay() {
    let mut net = apart(&[Some(SECOND), Some(SECOND)]);
    net.filter = Box::new(is_by_stream);
    net.wait(3 * SECOND, registered);
    let other = SocketInfo { index: SocketIndex(1), ..lan_socket() };
    net.nodes[0].endpoint.set_sockets(net.now, vec![lan_socket(), other]);
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    // A root that is no longer used needs no stream.
    net.nodes[0].endpoint.set_roots(net.now, Vec::new());
    net.run(10 * MS);
    assert_eq!(net.nodes[0].streams, []);
}

#[test]
fn a_root_that_another_one_has_named_is_reached_by_a_stream_where_no_udp_passes() {
    let mut net = each_at_its_own_root_and_one_without_udp();
    let there = net.roots[1].socket;
    let endpoints = format!("{there},wss:a.name:443,tcp:{}:443,tls:{}:8443", there.ip(), there.ip());
    name_root(&mut net, &endpoints);
    net.send(0, 1, b"first");
    net.run(2 * SECOND);
    // UDP has a second, and no name from another root is looked up.
    let guest = net.nodes[0].streams.iter().find(|one| one.identity == *net.roots[1].root.identity());
    let ways: Vec<_> = guest.expect("one is wanted").ways.iter().map(|way| (way.kind, way.address)).collect();
    let at = |port| SocketAddr::new(there.ip(), port);
    assert_eq!(ways, [(StreamKind::Tcp, at(443)), (StreamKind::Tls, at(8443))]);
    assert!(net.nodes[0].streams.iter().any(|one| one.ways.is_empty()), "its own root's the driver knows");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    let infos = net.nodes[0].endpoint.roots(net.now);
    assert!(infos[1].is_guest && infos[1].stream.is_some(), "{infos:?}");
    let path = net.peer(0, 1).path().expect("a path");
    assert!(path.place.relay().is_some() && path.socket() == infos[1].stream.unwrap());
    assert!(talk(&mut net, 300) <= SECOND, "as long as it is used");
    // The peer goes, and with it the root through which no peer is reached.
    net.nodes[1].up = false;
    net.run(900 * SECOND);
    assert_eq!((net.nodes[0].streams.len(), net.nodes[0].endpoint.roots(net.now).len()), (1, 1));
}

#[test]
fn a_root_that_another_one_has_named_is_reached_by_a_stream_when_udp_ends_later() {
    let mut net = each_at_its_own_root_and_one_without_udp();
    let blocked = std::mem::replace(&mut net.filter, Box::new(is_through_root));
    let there = net.roots[1].socket;
    name_root(&mut net, &format!("{there},tcp:{}:443", there.ip()));
    net.send(0, 1, b"first");
    net.wait(SECOND, |net| !net.received(1).is_empty());
    talk(&mut net, 60);
    assert!(!net.peer(0, 1).path().expect("a path").socket().is_stream());
    net.filter = blocked;
    let longest = talk(&mut net, 60);
    assert!(net.peer(0, 1).path().expect("a path").socket().is_stream());
    assert!(longest <= 6 * SECOND, "{longest:?}");
}

#[test]
fn a_root_that_is_named_and_does_not_answer_is_tried_by_streams_for_a_while() {
    let mut net = each_at_its_own_root_and_one_without_udp();
    let there = net.roots[1].socket;
    name_root(&mut net, &format!("tcp:{}:443", there.ip()));
    // No address answers, by any way.
    let here = net.nodes[0].socket.ip();
    net.filter = Box::new(move |sent| {
        is_by_stream(sent)
            && sent.to != there
            && sent.from != there
            && [sent.from, sent.to].iter().any(|at| at.ip() == here)
    });
    net.nodes[0].opens_streams = false;
    let begin = net.now;
    let (mut wanted, mut times) = (0, 0);
    for _ in 0..600 {
        net.send(0, 1, b"is anybody there");
        let before = net.nodes[0].streams.len();
        net.run(SECOND / 2);
        let after = net.nodes[0].streams.len();
        wanted += usize::from(after == 2);
        times += usize::from(before < after);
    }
    // Each time it is named again, but after 30 s at the earliest.
    let most = 1 + (net.now - begin).as_secs() as usize / 30;
    // A guest is tried by streams for 10 s at a time.
    assert!((1..=most).contains(&times) && wanted <= times * 21, "{times} times, {wanted} half seconds");
}

#[test]
fn no_stream_leads_to_services_and_addresses_inside_because_a_root_has_named_them() {
    let mut net = each_at_its_own_root_and_one_without_udp();
    for endpoints in
        ["tcp:203.0.113.9:25", "tls:127.0.0.1:443", "wss:[::1]:443", "tcp:10.0.0.1:443", "tcp:inside:443"]
    {
        name_root(&mut net, endpoints);
        let ignored = net.counter(0, "root_referrals_ignored");
        net.send(0, 1, b"first");
        net.wait(10 * SECOND, |net| net.counter(0, "root_referrals_ignored") > ignored);
        assert_eq!(net.nodes[0].streams.len(), 1, "{endpoints}");
    }
}

/// Creates two nodes at a root each, of which the first one reaches its root by a stream only.
fn each_at_its_own_root_and_one_without_udp() -> Net {
    let mut net = Net::pair();
    for number in 1..=2 {
        let root = fake_root(&net, number);
        place(&mut net, number, root);
    }
    let here = net.nodes[0].socket.ip();
    net.filter = Box::new(move |sent| {
        let by_udp = |at: SocketAddr| at.ip() == here && at.port() < STREAMS;
        is_through_root(sent) && !by_udp(sent.from) && !by_udp(sent.to)
    });
    for node in 0..2 {
        net.join(node, &open_network());
        let mut config = config_of(&net.roots[node]);
        config.stream_after = (node == 0).then_some(SECOND);
        net.nodes[node].endpoint.set_roots(net.now, vec![config]);
    }
    net.wait(3 * SECOND, registered);
    net
}

/// Makes the first root say that the second node is at the second root, and that this one listens at
/// `endpoints`.
fn name_root(net: &mut Net, endpoints: &str) {
    let TestRoot::Fake(root) = &net.roots[1].root else { panic!("it refers") };
    let referral = root.referral(&id(1), endpoints).expect("the node is registered");
    net.roots[0].root.fake().referrals = vec![(referral, [7; 32])];
}

const MS: Duration = Duration::from_millis(1);

/// Creates two nodes that reach only one root, by streams too if they have a time for that.
fn apart(stream_after: &[Option<Duration>; 2]) -> Net {
    let mut net = Net::pair();
    net.filter = Box::new(|sent| is_through_root(sent) || is_by_stream(sent));
    add_root(&mut net, 1);
    for (node, after) in stream_after.iter().enumerate() {
        net.join(node, &open_network());
        let root = &net.roots[0];
        let mut config = RootConfig::new(*root.root.identity(), vec![root.socket]);
        if *after == Some(Duration::ZERO) {
            config.endpoints.clear();
        }
        config.stream_after = *after;
        net.nodes[node].endpoint.set_roots(net.now, vec![config]);
    }
    net
}

fn is_through_root(sent: &Sent) -> bool {
    sent.from.port() == 7420 || sent.to.port() == 7420
}

fn is_by_stream(sent: &Sent) -> bool {
    sent.from.port() >= STREAMS || sent.to.port() >= STREAMS
}

fn registered(net: &mut Net) -> bool {
    let now = net.now;
    net.nodes.iter().all(|node| node.endpoint.roots(now)[0].state == RootState::Registered)
}

/// Sends five packets a second from each to the other; returns the longest time in which one of them got
/// none. The endpoint is not told that answers are missing, because it knows that itself after half a second.
fn talk(net: &mut Net, seconds: u32) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = [net.now; 2];
    for _ in 0..5 * seconds {
        for (from, to) in [(0, 1), (1, 0)] {
            net.nodes[to].inbox.clear();
            net.send(from, to, b"to and fro");
        }
        net.run(200 * MS);
        for (node, last) in last.iter_mut().enumerate() {
            if !net.nodes[node].inbox.is_empty() {
                *last = net.now;
            }
            longest = longest.max(net.now - *last);
        }
    }
    longest
}

/// First port of the ends of streams, as the root sees them.
const STREAMS: u16 = 50_000;

/// Opens and closes the streams that a node wants, as a driver would.
pub(crate) fn keep(node: &mut Node, now: std::time::Instant) {
    let Some(wanted) = node.endpoint.poll_streams() else { return };
    let before = std::mem::replace(&mut node.streams, wanted);
    for gone in before.iter().filter(|one| !node.streams.contains(one)) {
        node.endpoint.set_stream(now, &gone.root, false, None);
    }
    let is_opened = |one: &&WantedStream| node.opens_streams || one.ways.is_empty();
    for new in node.streams.iter().filter(|one| !before.contains(one)).filter(is_opened) {
        node.endpoint.set_stream(now, &new.root, true, None);
    }
}

/// Converts a datagram on a stream to its root's view, with the stream's source address.
pub(crate) fn enter(roots: &[RootNode], sent: Sent) -> Sent {
    let IpAddr::V6(end) = sent.to.ip() else { return sent };
    let number = end.segments()[7];
    if SocketIndex::stream(number).stream_end() != Some(sent.to) {
        return sent;
    }
    let from = SocketAddr::new(sent.from.ip(), STREAMS + number);
    Sent { from, to: roots[usize::from(number)].socket, ..sent }
}

/// Returns the node that a root's datagram on a stream goes to, with the metadata at the node.
pub(crate) fn leave(nodes: &[Node], sent: &Sent) -> Option<(usize, RecvMeta)> {
    let socket = SocketIndex::stream(sent.to.port().checked_sub(STREAMS)?);
    let index = nodes.iter().position(|node| node.up && node.socket.ip() == sent.to.ip())?;
    let is_open = nodes[index].streams.iter().any(|stream| stream.socket == socket);
    let meta = RecvMeta { remote: socket.stream_end()?, socket, multicast: false, relay: None };
    is_open.then_some((index, meta))
}

#[test]
fn places_by_a_stream_say_so() {
    let socket = SocketIndex::stream(4);
    let place = Place::Direct { socket, remote: socket.stream_end().unwrap() };
    assert_eq!(place.to_string(), "stream 4");
}
