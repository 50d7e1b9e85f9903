//! Nodes: identities, state directories, networks, events and status.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use peersock::blocking::{Ping, TcpListener, TcpStream};
use peersock::overlay::{Identity, Psk};
use peersock::{Event, IdentitySource, Interfaces, JoinError, Network, Node, Presence, Seed, StartError};
use peersock_testnet::free_port;
use serde_json::Value;

use crate::common::{PATIENCE, member, network, node, pair};

#[test]
fn an_identity_in_a_state_directory_stays_and_is_locked() {
    let place = tempfile::tempdir().expect("a directory");
    let start = || {
        Node::builder()
            .identity(IdentitySource::StateDir(place.path().join("state")))
            .interfaces(Interfaces::Loopback)
            .start()
    };
    let first = start().expect("start");
    let id = first.id();
    match start() {
        Err(StartError::State(error)) => {
            assert!(error.to_string().contains("use another directory"), "{error}")
        }
        other => panic!("a second node on one state directory: {other:?}"),
    }
    first.shutdown(Duration::ZERO);
    drop(first);
    assert_eq!(start().expect("start again").id(), id);
}

#[test]
fn a_taken_udp_port_is_said_clearly() {
    let first = node();
    let port = first.status().endpoints[0].port();
    let error = Node::builder()
        .identity(IdentitySource::Ephemeral)
        .interfaces(Interfaces::Loopback)
        .port(port)
        .start()
        .expect_err("the port is taken");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[test]
fn a_network_is_joined_once() {
    let (node, joined) = member(network());
    assert!(matches!(node.join(Network::ad_hoc(joined.id())), Err(JoinError::AlreadyJoined(_))));
    let secret = Network::ad_hoc(joined.id()).with_psk(Psk::new([7; 32]));
    let error = node.join(secret.clone()).expect_err("it was joined without a secret");
    assert!(matches!(error, JoinError::JoinedOtherwise(_)), "{error}");
    assert!(joined.leave());
    assert!(!joined.leave());
    node.join(secret.clone()).expect("joined again after leaving");
    assert!(matches!(node.join(secret), Err(JoinError::AlreadyJoined(_))));
    for other in [Network::ad_hoc(joined.id()), Network::ad_hoc(joined.id()).with_psk(Psk::new([8; 32]))] {
        assert!(matches!(node.join(other), Err(JoinError::JoinedOtherwise(_))));
    }
}

#[test]
fn the_key_that_open_networks_have_is_no_secret() {
    let (node, joined) = member(network());
    assert!(joined.leave());
    let error = node.join(Network::ad_hoc(joined.id()).with_psk(Psk::new([0; 32]))).expect_err("no secret");
    assert!(error.to_string().contains("zeros"), "{error}");
    let error = node
        .join(Network::ad_hoc(joined.id()).with_passphrase("").expect("memory"))
        .expect_err("no secret either");
    assert!(error.to_string().contains("empty"), "{error}");
    assert!(node.networks().is_empty());
}

#[test]
fn peers_find_each_other_and_say_so() {
    let [(a, ja), (b, jb)] = pair();
    let events = a.events();
    ja.wait_peer(jb.address().into(), PATIENCE).expect("the peer is found");
    let reached = std::iter::from_fn(|| events.next_timeout(Duration::from_millis(1)));
    let _ = reached.filter(|event| matches!(event, Event::PeerReachable { id, .. } if *id == b.id())).count();
    let peers = ja.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].id, b.id());
    assert!(peers[0].connected && peers[0].path.is_some() && peers[0].cipher.is_some());
    let status = serde_json::to_value(a.status()).expect("JSON");
    assert_eq!(status["node_id"], a.id().to_string());
    assert_eq!(status["peers"][0]["id"], b.id().to_string());
    assert_eq!(
        (&status["peers"][0]["state"], &status["peers"][0]["name"]),
        (&"connected".into(), &Value::Null)
    );
    assert!(peers[0].last_seen_s.is_some_and(|seconds| seconds < PATIENCE.as_secs_f64()));
    let network = &a.status().networks[0];
    assert_eq!((&*network.kind, network.peers, network.connected, network.known), ("ad-hoc", 1, 1, 0));
}

#[test]
fn a_peer_that_left_is_gone_and_what_it_sent_still_counts() {
    let [(_a, ja), (b, jb)] = pair();
    jb.wait_peer(ja.address().into(), PATIENCE).expect("the peer is found");
    ja.wait_peer(jb.address().into(), PATIENCE).expect("the peer is found");
    let ping = Ping::open_on(&b, ja.address().into()).expect("open");
    ping.ping(1, &[7; 1000], PATIENCE).expect("a reply");
    let before = b.status();
    assert!(before.peers[0].total_traffic.received_bytes >= 1000, "{:?}", before.peers[0]);
    assert!(ja.leave());
    let deadline = Instant::now() + PATIENCE;
    while jb.peers()[0].state != Presence::Gone {
        assert!(Instant::now() < deadline, "{:?}", jb.peers());
        std::thread::sleep(Duration::from_millis(5));
    }
    let after = b.status();
    let peer = &after.peers[0];
    assert!(!peer.connected && peer.traffic.is_none() && peer.last_seen_s.is_some(), "{peer:?}");
    assert!(peer.total_traffic.received_bytes >= before.peers[0].total_traffic.received_bytes);
    assert_eq!(peer.total_traffic, after.networks[0].traffic);
    assert_eq!((after.networks[0].gone, after.traffic), (1, peer.total_traffic));
}

#[test]
fn a_node_that_does_not_introduce_itself_sees_the_others() {
    let (other, joined) = member(network());
    let observer = Node::builder()
        .identity(IdentitySource::Ephemeral)
        .interfaces(Interfaces::Loopback)
        .introduce(false)
        .start()
        .expect("start");
    let events = observer.events();
    observer.join(Network::ad_hoc(joined.id())).expect("join");
    let found = std::iter::from_fn(|| events.next_timeout(PATIENCE))
        .any(|event| event == Event::PeerFound { id: other.id() });
    assert!(found);
    let peer = &observer.peers()[0];
    assert_eq!((peer.state, peer.last_seen_s), (Presence::Known, None));
    assert!(peer.last_heard_s.is_some());
    assert!(joined.peers().is_empty());
}

#[test]
fn leaving_tells_the_peers() {
    let [(_a, ja), (b, jb)] = pair();
    // Both ends must have confirmed the session, because before that the responder cannot seal a goodbye.
    jb.wait_peer(ja.address().into(), PATIENCE).expect("the peer is found");
    ja.wait_peer(jb.address().into(), PATIENCE).expect("the peer is found");
    let events = b.events();
    assert!(ja.leave());
    let lost = std::iter::from_fn(|| events.next_timeout(PATIENCE))
        .any(|event| matches!(event, Event::PeerLost { .. }));
    assert!(lost);
}

#[test]
fn two_networks_on_one_node_do_not_mix() {
    let (one, two) = (network(), network());
    let hub = node();
    let hub_one = hub.join(Network::ad_hoc(one)).expect("join");
    let hub_two = hub.join(Network::ad_hoc(two)).expect("join");
    let (a, _) = member(one);
    let (b, _) = member(two);
    let listener =
        TcpListener::bind_on(&hub, (hub_one.address(), 1000)).expect("bind in the first network only");
    TcpStream::connect_on(&a, (hub_one.address(), 1000)).expect("a member of the first network");
    listener.accept().expect("accept");
    assert!(TcpStream::connect_on(&b, (hub_one.address(), 1000)).is_err(), "an address of the other network");
    assert!(
        TcpStream::connect_on(&b, (hub_two.address(), 1000)).is_err(),
        "nobody listens in the second network"
    );
}

#[test]
fn a_static_network_has_names_ipv4_and_endpoints_and_needs_no_discovery() {
    let seeds = [[1; 32], [2; 32]].map(Seed);
    let ports = [free_port(), free_port()];
    let keys = seeds.each_ref().map(|seed| Identity::from_seed(&seed.0).public().to_string());
    let file = format!(
        r#"
        network = "fe000000000000{:02x}"
        [[member]]
        name = "alpha"
        key = "{}"
        addresses = ["10.7.0.1"]
        endpoints = ["127.0.0.1:{}"]
        [[member]]
        name = "beta"
        key = "{}"
        addresses = ["10.7.0.2", "fd99::2"]
        endpoints = ["[::1]:{}"]
        "#,
        ports[0] & 0xff,
        keys[0],
        ports[0],
        keys[1],
        ports[1],
    );
    let [alpha, beta] = [0, 1].map(|i| {
        let node = Node::builder()
            .identity(IdentitySource::Seed(seeds[i].clone()))
            .interfaces(Interfaces::Loopback)
            .discovery(false)
            .port(ports[i])
            .start()
            .expect("start");
        let joined = node.join(Network::parse_toml(&file).expect("a valid file")).expect("join");
        (node, joined)
    });
    assert_eq!(alpha.1.addresses()[1], "10.7.0.1".parse::<IpAddr>().expect("address"));
    alpha
        .1
        .wait_peer("10.7.0.2".parse().expect("address"), PATIENCE)
        .expect("beta is reached at its endpoint");
    assert_eq!(alpha.1.peers()[0].name.as_deref(), Some("beta"));
    assert_eq!(alpha.0.status().networks[0].name.as_deref(), Some("alpha"));
    assert_eq!(alpha.1.peers()[0].path, Some(format!("[::1]:{}", ports[1]).parse().expect("address")));
    let listener = TcpListener::bind_on(&beta.0, "0.0.0.0:80").expect("bind");
    let by_name = TcpListener::bind_on(&beta.0, "[fd99::2]:81").expect("bind");
    let four = TcpStream::connect_on(&alpha.0, "10.7.0.2:80").expect("by IPv4 address");
    assert_eq!(listener.accept().expect("accept").1, four.local_addr().expect("address"));
    assert_eq!(four.local_addr().expect("address").ip(), "10.7.0.1".parse::<IpAddr>().expect("address"));
    TcpStream::connect_on(&alpha.0, "beta:81").expect("by name");
    by_name.accept().expect("accept");
    let error = TcpStream::connect_on(&alpha.0, "gamma:81").expect_err("no such member");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let root = *Identity::from_seed(&[9; 32]).public();
    let with_root = file.replacen("[[member]]", &format!("roots = [\"{root}@127.0.0.1:1\"]\n[[member]]"), 1);
    let third =
        Node::builder().identity(IdentitySource::Seed(seeds[0].clone())).interfaces(Interfaces::Loopback);
    let third = third.discovery(false).start().expect("start");
    assert!(third.roots().is_empty());
    third.join(Network::parse_toml(&with_root).expect("a valid file")).expect("a member");
    assert_eq!(third.roots()[0].endpoints, ["127.0.0.1:1".parse().expect("an address")]);
    let stranger = node();
    let refused = stranger.join(Network::parse_toml(&file).expect("a valid file"));
    assert!(matches!(refused, Err(JoinError::NotAMember { .. })));
}

#[test]
fn a_member_is_found_at_an_endpoint_that_is_a_host_name() {
    let seeds = [[3; 32], [4; 32]].map(Seed);
    let keys = seeds.each_ref().map(|seed| Identity::from_seed(&seed.0).public().to_string());
    let start = |seed: &Seed| {
        let builder = Node::builder().identity(IdentitySource::Seed(seed.clone()));
        builder.interfaces(Interfaces::Loopback).discovery(false).start().expect("start")
    };
    let (alpha, beta) = (start(&seeds[0]), start(&seeds[1]));
    let port = beta.status().endpoints[0].port();
    let file = format!(
        "network = \"fe000000000100{:02x}\"\n[[member]]\nkey = \"{}\"\n[[member]]\nkey = \"{}\"\n\
         endpoints = [\"no-such-host.invalid:7420\", \"localhost:{port}\"]\n",
        port & 0xff,
        keys[0],
        keys[1]
    );
    let network = Network::parse_toml(&file).expect("a valid file");
    let target = beta.join(network.clone()).expect("beta is a member").address();
    let home = alpha.join(network).expect("alpha is a member, whatever its names lead to");
    home.wait_peer(target.into(), PATIENCE).expect("beta is found by its host name");
}
