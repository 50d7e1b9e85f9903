//! Nodes that cannot reach each other, and their roots.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Channel, Relayed};
use peersock_overlay::{Event, Identity, NetworkId, Place, RecvMeta, RootConfig, RootState, SocketIndex};
use peersock_testnet::{FakeRoot, Random, RealRoot, TestRoot};

use crate::net::{Net, RootNode, Sent, UNIX_TIME, open_network};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_node_registers_at_its_roots_at_once_and_stays_there() {
    let mut net = apart(2);
    net.run(100 * MS);
    let infos = net.nodes[0].endpoint.roots(net.now);
    assert_eq!(infos.len(), 2);
    for (info, root) in infos.iter().zip(&net.roots) {
        assert_eq!((info.state, info.identity), (RootState::Registered, *root.root.identity()));
        assert_eq!((info.address, info.observed), (Some(root.socket), Some(net.nodes[0].socket)));
        assert_eq!(info.rtt, Some(2 * MS));
    }
    let since = infos[0].registered;
    net.run(Duration::from_secs(3600));
    let infos = net.nodes[0].endpoint.roots(net.now);
    assert!(infos.iter().all(|info| info.state == RootState::Registered && info.registered == since));
    // A root is no peer, its network counts as not joined, and no event reports it.
    assert_eq!((net.nodes[0].endpoint.peers().len(), net.nodes[0].endpoint.networks().len()), (0, 1));
    assert!(net.nodes[0].events.is_empty(), "{:?}", net.nodes[0].events);
}

#[test]
fn an_idle_node_costs_a_root_little_and_keeps_its_mapping() {
    let mut net = apart(1);
    net.run(Duration::from_secs(600));
    let (node, root) = (net.nodes[0].socket, net.roots[0].socket);
    let begin = net.now;
    net.run(Duration::from_secs(1200));
    let to_root = |sent: &&Sent| sent.at >= begin && sent.from == node && sent.to == root;
    let sent: Vec<_> = net.sent.iter().filter(to_root).collect();
    let longest = sent.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    // Many NAT boxes forget a UDP mapping after 30 s.
    assert!(longest <= Duration::from_secs(25), "{longest:?}");
    // A question in 25 s, a handshake and a registration in 110 s.
    assert!(sent.len() <= 1200 / 25 + 4 * 1200 / 110, "{}", sent.len());
}

#[test]
fn nodes_that_cannot_reach_each_other_talk_through_a_root() {
    let mut net = apart(1);
    net.run(SECOND);
    net.latency = 20 * MS;
    let begin = net.now;
    net.send(0, 1, b"first");
    let took = net.wait(SECOND, |net| !net.received(1).is_empty());
    // A look-up is one round trip to the root, and each way from node to node another.
    assert_eq!(took, 4 * 2 * net.latency, "look-up, initiation, response, packet");
    assert!(net.now - begin <= 3 * 4 * net.latency + 200 * MS);
    net.send(1, 0, b"back");
    net.wait(SECOND, |net| net.received(0) == [b"back".to_vec()]);
    for (at, of) in [(0, 1), (1, 0)] {
        let path = net.peer(at, of).path().unwrap();
        assert!(matches!(path.place, Place::Relayed { root, .. } if root == net.roots[0].socket));
        let info = &net.nodes[at].endpoint.peers()[0];
        assert_eq!(info.root, Some(net.roots[0].root.identity().node_id()));
        assert_eq!(info.candidates, [], "the root's address is not the peer's");
        assert_eq!(net.nodes[at].endpoint.roots(net.now)[0].relayed_peers, 1);
    }
}

#[test]
fn a_look_up_waits_for_a_node_that_registers_a_moment_later() {
    let mut net = apart(1);
    net.nodes[1].up = false;
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(1500 * MS);
    net.restart(1, 4000, UNIX_TIME);
    net.join(1, &open_network());
    use_roots(&mut net, 1);
    net.wait(4 * SECOND, |net| !net.received(1).is_empty());
}

/// A shared node leaves a network with its last program, and joins it again with the next one.
#[test]
fn a_node_that_joins_again_finds_its_peer_at_once() {
    let mut net = apart(1);
    net.run(SECOND);
    for round in 0..3 {
        let begin = net.now;
        net.send(0, 1, b"word");
        net.wait(SECOND, |net| !net.received(1).is_empty());
        assert!(net.now - begin < SECOND / 2, "round {round}");
        net.nodes[1].inbox.clear();
        let network = net.peer(0, 1).network();
        net.nodes[0].endpoint.leave(net.now, network);
        net.pump();
        // For so long the root is not asked again for a node that it has found.
        net.run(2 * SECOND);
        net.join(0, &open_network());
    }
}

#[test]
fn the_search_for_the_size_of_datagrams_leaves_room_for_the_header() {
    for (mtu, expected) in
        [(1472, 1460..=1460), (1400, 1372..=1388), (1212, 1200..=1200), (1180, 1130..=1168)]
    {
        let mut net = apart(1);
        net.mtu = mtu;
        net.run(SECOND);
        net.send(0, 1, b"first");
        net.run(Duration::from_secs(20));
        for (at, of) in [(0, 1), (1, 0)] {
            let size = net.peer(at, of).path().unwrap().datagram_size;
            assert!(expected.contains(&size), "{mtu}: {size}");
        }
    }
}

#[test]
fn traffic_goes_on_over_another_root_when_one_dies() {
    for dead in 0..2 {
        let mut net = apart(2);
        net.run(SECOND);
        net.send(0, 1, b"first");
        net.run(5 * SECOND);
        let used = net.peer(0, 1).path().unwrap().remote();
        // Either one.
        let dead = if dead == 0 { used } else { other(&net, used) };
        net.roots.iter_mut().filter(|root| root.socket == dead).for_each(|root| root.up = false);
        let longest = talk(&mut net, Duration::from_secs(40));
        assert!(longest <= if dead == used { 2 * SECOND } else { 300 * MS }, "{longest:?}");
        assert_ne!(net.peer(0, 1).path().unwrap().remote(), dead);
        let lost = |event: &Event| matches!(event, Event::SessionLost(_) | Event::PeerGone(..));
        assert_eq!(net.count(0, lost) + net.count(1, lost), 0);
    }
}

#[test]
fn a_root_that_was_restarted_is_used_again_and_what_it_forgot_is_asked_anew() {
    let mut net = apart(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(2 * SECOND);
    let now = net.now;
    net.roots[0].root.restart(now);
    // Until its sessions are requested anew nothing passes; that is noticed within a keepalive interval.
    net.run(Duration::from_secs(40));
    assert!((0..2).all(|node| net.nodes[node].endpoint.roots(net.now)[0].state == RootState::Registered));
    net.nodes[1].inbox.clear();
    net.send(0, 1, b"again");
    talk(&mut net, Duration::from_secs(10));
    assert!(net.received(1).contains(&b"to and fro".to_vec()));
}

#[test]
fn each_change_of_a_root_is_told_once() {
    let mut net = apart(1);
    let told = |net: &mut Net| {
        let now = net.now;
        net.nodes[0].endpoint.poll_root_change(now)
    };
    let state = |net: &Net| net.nodes[0].endpoint.roots(net.now)[0].state;
    net.run(SECOND);
    assert!(told(&mut net), "it has come");
    net.run(300 * SECOND);
    assert!(!told(&mut net), "it is registered all the time");
    net.roots[0].up = false;
    net.wait(120 * SECOND, |net| state(net) == RootState::Unreachable);
    assert!(told(&mut net));
    net.run(5 * SECOND);
    assert!(!told(&mut net));
    net.roots[0].up = true;
    net.wait(40 * SECOND, |net| state(net) == RootState::Registered);
    assert!(told(&mut net));
    let now = net.now;
    net.nodes[0].endpoint.set_roots(now, Vec::new());
    assert!(told(&mut net), "it is gone");
    assert!(!told(&mut net));
}

#[test]
fn a_registration_counts_from_the_end_of_an_outage_and_none_is_shown_while_it_lasts() {
    let mut net = apart(1);
    net.run(Duration::from_secs(60));
    let root = |net: &Net| net.nodes[0].endpoint.roots(net.now).remove(0);
    let before = root(&net).registered.expect("it is registered");
    net.roots[0].up = false;
    net.wait(Duration::from_secs(120), |net| root(net).state == RootState::Unreachable);
    // The session and the root's promise last longer than this.
    for _ in 0..30 {
        net.run(SECOND);
        let info = root(&net);
        assert_eq!((info.state, info.registered), (RootState::Unreachable, None));
    }
    net.roots[0].up = true;
    let back = net.now;
    net.wait(40 * SECOND, |net| root(net).state == RootState::Registered);
    let since = root(&net).registered.expect("it is registered again");
    assert!(before < back && since >= back, "{:?} after it was back", since - back);
    // The same if the root is another program, and forgets.
    net.run(Duration::from_secs(60));
    let now = net.now;
    net.roots[0].root.restart(now);
    net.run(Duration::from_secs(60));
    assert_eq!(root(&net).state, RootState::Registered);
    assert!(root(&net).registered.expect("registered") > now);
}

#[test]
fn a_root_that_says_it_has_forgotten_a_node_is_told_at_once() {
    let mut net = apart_with(1, fake_root);
    net.run(SECOND);
    let (root, now) = (net.roots[0].socket, net.now);
    for (to, bytes) in net.roots[0].root.fake().forget_clients() {
        net.inject(Sent { at: now, from: root, to, bytes });
    }
    net.run(10 * MS);
    assert!((0..2).all(|node| net.roots[0].root.fake().entry(&id(node)).is_some()));
}

#[test]
fn a_direct_way_takes_over_and_gives_back_what_it_cannot_carry() {
    let mut net = apart(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(SECOND);
    assert!(net.peer(0, 1).path().unwrap().place.relay().is_some());
    // The nodes are on one network from now on, and hear each other's beacons.
    net.filter = Box::new(|_| true);
    for node in 0..2 {
        let sockets = vec![crate::net::lan_socket()];
        net.nodes[node].endpoint.set_sockets(net.now, sockets);
    }
    talk(&mut net, 2 * SECOND);
    for (at, of) in [(0, 1), (1, 0)] {
        assert_eq!(net.peer(at, of).path().unwrap().remote(), net.nodes[of].socket);
    }
    let relayed = net.roots[0].root.relayed().0;
    let moved = [0, 1].map(|node| net.counter(node, "paths_moved"));
    talk(&mut net, 60 * SECOND);
    assert_eq!([0, 1].map(|node| net.counter(node, "paths_moved")), moved);
    assert_eq!(net.roots[0].root.relayed().0, relayed, "nothing is relayed while the direct way works");
    net.filter = through_roots();
    let longest = talk(&mut net, 10 * SECOND);
    assert!(longest <= 2 * SECOND, "{longest:?}");
    assert!(net.peer(0, 1).path().unwrap().place.relay().is_some());
    net.filter = Box::new(|_| true);
    talk(&mut net, 60 * SECOND);
    assert!(net.peer(0, 1).path().unwrap().place.relay().is_none(), "it is tried again now and then");
}

#[test]
fn a_node_that_doubts_a_path_asks_its_roots_too() {
    let mut net = on_one_network();
    let (peer, doubted) = (net.peer(0, 1), net.now);
    let (node, root) = (net.nodes[0].socket, net.roots[0].socket);
    let asked = |net: &Net| {
        net.sent.iter().filter(|sent| sent.at >= doubted && sent.from == node && sent.to == root).count()
    };
    for _ in 0..10 {
        let now = net.now;
        net.nodes[0].endpoint.path_suspected(now, &peer);
        net.run(100 * MS);
        assert_eq!(asked(&net), 1, "a NAT box that has forgotten this node has it in mind again");
    }
}

#[test]
fn a_node_whose_answers_do_not_arrive_asks_its_roots() {
    let mut net = on_one_network();
    let peer = net.peer(1, 0);
    net.run(5 * SECOND);
    let [node, other, root] = [net.nodes[0].socket, net.nodes[1].socket, net.roots[0].socket];
    // The node's box has forgotten the roots, and then the way from it to the peer fails.
    net.filter = Box::new(move |sent| (sent.from, sent.to) != (node, other) && sent.from != root);
    let begin = net.now;
    let answered = net.counter(0, "handshakes_answered");
    net.nodes[1].endpoint.peer_unresponsive(begin, &peer);
    net.wait(2 * SECOND, |net| net.counter(0, "handshakes_answered") >= answered + 2);
    let is_asked = |sent: &Sent| sent.at >= begin && sent.from == node && sent.to == root;
    assert!(net.sent.iter().any(is_asked), "the box has the root in mind again");
}

#[test]
fn roots_are_asked_about_a_silent_path_though_they_were_just_told_something() {
    let mut net = on_one_network();
    let peer = net.peer(0, 1);
    let _connection = peer.watch();
    let (node, root) = (net.nodes[0].socket, net.roots[0].socket);
    let now = net.now;
    net.nodes[0].endpoint.path_suspected(now, &peer);
    net.run(100 * MS);
    // From now on neither is reached from the node's old address, and the node appears elsewhere.
    let elsewhere: SocketAddr = "203.0.113.77:4242".parse().unwrap();
    net.filter = Box::new(move |sent| sent.from != node && sent.to != node);
    let begin = net.now;
    let mut asked = None;
    while asked.is_none() {
        net.send(0, 1, b"one way");
        net.run(20 * MS);
        let found = net.sent.iter().rfind(|sent| sent.at >= begin && sent.from == node && sent.to == root);
        asked = found.cloned();
        assert!(net.now - begin <= 600 * MS, "the root is not asked");
    }
    // The root follows: it asks back at the source of the question, and does not only answer.
    net.filter = Box::new(|_| true);
    let begin = net.now;
    net.inject(Sent { from: elsewhere, ..asked.unwrap() });
    net.run(10 * MS);
    let back = net.sent.iter().filter(|sent| sent.at >= begin && sent.from == root && sent.to == elsewhere);
    assert_eq!(back.count(), 2, "an answer and a challenge");
}

#[test]
fn packets_that_nobody_answers_leave_a_dead_way_too() {
    let mut net = on_one_network();
    assert_eq!(net.roots[0].root.look_ups(), 0, "a root need not know who talks on a local network");
    net.filter = through_roots();
    net.nodes[1].inbox.clear();
    let begin = net.now;
    while net.received(1).is_empty() {
        net.send(0, 1, b"one way");
        net.run(20 * MS);
        assert!(net.now - begin <= 2 * SECOND, "{:?}", net.now - begin);
    }
}

#[test]
fn only_a_root_of_this_node_with_its_token_can_deliver_frames() {
    let mut net = apart(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(SECOND);
    let (root, node) = (net.roots[0].socket, net.nodes[1].socket);
    net.send(0, 1, b"second");
    let frame = net.sent.iter().rfind(|sent| sent.bytes[0] == 0xD9).unwrap().clone();
    assert_eq!(frame.to, root, "it is on its way to the root");
    net.run(10 * MS);
    let frame = net.sent.iter().rfind(|sent| sent.bytes[0] == 0xD9 && sent.to == node).unwrap().clone();
    net.filter = Box::new(|_| true);
    net.nodes[1].inbox.clear();
    let replayed = net.counter(1, "data_replayed");
    for from in ["203.0.113.9:7420".parse().unwrap(), net.nodes[0].socket] {
        net.inject(Sent { from, ..frame.clone() });
    }
    let mut forged = frame.clone();
    forged.bytes[2] ^= 1;
    net.inject(forged);
    net.run(10 * MS);
    assert_eq!(net.counter(1, "data_replayed"), replayed, "none of these was opened");
    net.inject(frame);
    net.run(10 * MS);
    assert_eq!(net.counter(1, "data_replayed"), replayed + 1, "the root itself may repeat it");
}

#[test]
fn what_belongs_to_the_local_network_is_not_taken_from_roots() {
    let mut net = apart(1);
    net.run(SECOND);
    let beacon = net.sent.iter().find(|sent| sent.bytes[0] == 0xD5).unwrap().bytes.clone();
    let token = peersock_overlay::wire::RelayToken::from_be_bytes([0; 3]);
    let relay = Some(Relayed { token, channel: Channel(1) });
    let meta = RecvMeta { remote: net.roots[0].socket, socket: SocketIndex(0), multicast: false, relay };
    let before = net.counter(1, "unknown_message");
    net.deliver(1, meta, &beacon);
    net.deliver(1, meta, &[0xD9; 60]);
    assert_eq!(net.counter(1, "unknown_message"), before + 2);
    assert_eq!(net.counter(1, "hellos_sent"), 0);
}

#[test]
fn a_root_that_is_not_there_is_tried_now_and_then_and_found_when_it_comes() {
    let mut net = apart(0);
    add_root(&mut net, 1);
    net.roots[0].up = false;
    use_roots(&mut net, 0);
    net.run(Duration::from_secs(600));
    assert_eq!(net.nodes[0].endpoint.roots(net.now)[0].state, RootState::Unreachable);
    let begin = net.now;
    net.run(Duration::from_secs(600));
    let tried = net.sent.iter().filter(|sent| sent.at >= begin && sent.to == net.roots[0].socket).count();
    // One short attempt of a few initiations in 30 s.
    assert!((15..=120).contains(&tried), "{tried}");
    net.roots[0].up = true;
    // The next attempt begins within 30 s.
    net.wait(35 * SECOND, |net| net.nodes[0].endpoint.roots(net.now)[0].state == RootState::Registered);
}

#[test]
fn roots_that_are_not_named_any_more_are_left() {
    let mut net = apart(2);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(5 * SECOND);
    let used = net.peer(0, 1).path().unwrap().remote();
    let kept = net.roots.iter().position(|root| root.socket != used).unwrap();
    let config = config_of(&net.roots[kept]);
    net.nodes[0].endpoint.set_roots(net.now, vec![config]);
    net.pump();
    let longest = talk(&mut net, 10 * SECOND);
    assert!(longest <= 2 * SECOND, "{longest:?}");
    assert_eq!(net.nodes[0].endpoint.roots(net.now).len(), 1);
    assert_eq!(net.peer(0, 1).path().unwrap().remote(), net.roots[kept].socket);
    assert_eq!(net.roots[1 - kept].root.real().root().registered(), 1, "it was told");
}

#[test]
fn nobody_can_join_the_network_of_the_roots_or_begin_a_handshake_in_it() {
    let mut net = apart(1);
    net.run(SECOND);
    let config = peersock_overlay::NetworkConfig::AdHoc { id: NetworkId::ROOTS, psk: None };
    assert!(net.nodes[0].endpoint.join(net.now, config).is_err());
    // A root that begins a handshake: an initiation in its network, made with its keys.
    let refused = net.counter(0, "strangers_refused");
    let mut stranger = peersock_overlay::Endpoint::new(
        peersock_overlay::EndpointConfig::new(std::sync::Arc::new(root_identity(1))),
        [7; 32],
        net.now,
        UNIX_TIME,
    );
    stranger.set_sockets(net.now, vec![crate::net::lan_socket()]);
    let victim = *Identity::from_seed(&[1; 32]).public();
    stranger.set_roots(net.now, vec![RootConfig::new(victim, vec![net.nodes[0].socket])]);
    let mut bytes = Vec::new();
    let initiation = loop {
        stranger.poll_transmit(net.now, &mut bytes).expect("an initiation");
        if bytes[0] == 0xD1 {
            break bytes.clone();
        }
    };
    let meta =
        RecvMeta { remote: net.roots[0].socket, socket: SocketIndex(0), multicast: false, relay: None };
    net.deliver(0, meta, &initiation);
    assert_eq!(net.counter(0, "strangers_refused"), refused + 1);
}

#[test]
fn a_change_of_address_keeps_relayed_connections() {
    let mut net = apart(1);
    net.run(SECOND);
    net.send(0, 1, b"first");
    net.run(2 * SECOND);
    net.nodes[0].socket = "192.0.2.1:4999".parse().unwrap();
    net.nodes[0].endpoint.set_sockets(net.now, vec![crate::net::lan_socket()]);
    let longest = talk(&mut net, 10 * SECOND);
    assert!(longest <= 2 * SECOND, "{longest:?}");
    let observed = net.nodes[0].endpoint.roots(net.now)[0].observed;
    assert_eq!(observed, Some(net.nodes[0].socket), "a new voucher was asked for");
}

/// Creates two nodes in the open network that reach only `roots` roots.
pub(crate) fn apart(roots: u8) -> Net {
    apart_with(roots, real_root)
}

/// Creates the same with roots that can lie, but do not yet.
pub(crate) fn apart_with_liars(roots: u8) -> Net {
    apart_with(roots, fake_root)
}

fn apart_with(roots: u8, make: fn(&Net, u8) -> TestRoot) -> Net {
    let mut net = Net::pair();
    net.filter = through_roots();
    for number in 1..=roots {
        let root = make(&net, number);
        place(&mut net, number, root);
    }
    for node in 0..2 {
        net.join(node, &open_network());
        use_roots(&mut net, node);
    }
    net
}

/// Creates two nodes with a root that have found each other on a local network.
fn on_one_network() -> Net {
    let mut net = apart(1);
    net.filter = Box::new(|_| true);
    net.run(5 * SECOND);
    net.send(0, 1, b"first");
    net.run(5 * SECOND);
    assert!(net.peer(0, 1).path().unwrap().place.relay().is_none());
    net
}

/// Makes a node use that root and no other.
pub(crate) fn use_root(net: &mut Net, node: usize, root: usize) {
    let config = config_of(&net.roots[root]);
    net.nodes[node].endpoint.set_roots(net.now, vec![config]);
    net.pump();
}

pub(crate) fn through_roots() -> Box<dyn FnMut(&Sent) -> bool> {
    let is_root = |address: &SocketAddr| address.port() == 7420;
    Box::new(move |sent| is_root(&sent.from) || is_root(&sent.to))
}

fn root_identity(number: u8) -> Identity {
    Identity::from_seed(&[0xA0 + number; 32])
}

pub(crate) fn add_root(net: &mut Net, number: u8) {
    let root = real_root(net, number);
    place(net, number, root);
}

/// Adds a root that can lie, but does not yet.
pub(crate) fn add_liar(net: &mut Net, number: u8) {
    let root = fake_root(net, number);
    place(net, number, root);
}

fn real_root(net: &Net, number: u8) -> TestRoot {
    let random = Random::from_seed(number.into());
    RealRoot::new(root_identity(number), net.now, UNIX_TIME, random).into()
}

pub(crate) fn fake_root(_: &Net, number: u8) -> TestRoot {
    FakeRoot::new(root_identity(number), UNIX_TIME, Random::from_seed(number.into())).into()
}

pub(crate) fn place(net: &mut Net, number: u8, root: TestRoot) {
    let socket = SocketAddr::from(([198, 51, 100, number], 7420));
    net.roots.push(RootNode { root, socket, up: true });
}

pub(crate) fn config_of(root: &RootNode) -> RootConfig {
    RootConfig::new(*root.root.identity(), vec![root.socket])
}

pub(crate) fn use_roots(net: &mut Net, node: usize) {
    let configs = net.roots.iter().map(config_of).collect();
    net.nodes[node].endpoint.set_roots(net.now, configs);
    net.pump();
}

pub(crate) fn id(node: usize) -> peersock_overlay::NodeId {
    Identity::from_seed(&[node as u8 + 1; 32]).node_id()
}

fn other(net: &Net, used: SocketAddr) -> SocketAddr {
    net.roots.iter().map(|root| root.socket).find(|socket| *socket != used).unwrap()
}

/// Makes both send every 20 ms; returns the longest time in which one of them heard nothing.
pub(crate) fn talk(net: &mut Net, time: Duration) -> Duration {
    let (end, begin) = (net.now + time, net.now);
    let mut last = [begin; 2];
    let mut longest = Duration::ZERO;
    for node in 0..2 {
        net.nodes[node].inbox.clear();
    }
    while net.now < end {
        net.send(0, 1, b"to and fro");
        net.send(1, 0, b"to and fro");
        net.run(20 * MS);
        for (node, last) in net.nodes.iter().zip(&mut last) {
            *last = node.inbox.last().map_or(*last, |(at, ..)| *at);
            longest = longest.max(net.now - *last);
        }
    }
    longest
}
