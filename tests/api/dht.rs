//! Nodes that know only an overlay address of each other, and a DHT.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use peersock::{Dht, IdentitySource, Interfaces, Network, Node, StartError};
use peersock_testnet::LocalDht;

use crate::common::{PATIENCE, network};

fn node(dht: Dht) -> Node {
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    builder
        .discovery(false)
        .roots(Vec::<peersock::RootAddress>::new())
        .dht(dht)
        .start()
        .expect("loopback sockets")
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_nodes_meet_by_the_dht_and_talk_directly() {
    let swarm = LocalDht::new(20);
    let [alpha, beta] = [(), ()].map(|()| node(Dht::Nodes(swarm.entries())));
    let network = network();
    let home = alpha.join(Network::ad_hoc(network)).expect("joined");
    let target = beta.join(Network::ad_hoc(network)).expect("joined").address();
    let listener = peersock::blocking::TcpListener::bind_on(&beta, "[::]:1000").expect("a free port");
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("all of it");
        stream.write_all(&all).expect("room");
    });
    // Do not wait for the peer first: the connection itself waits until the peer is found.
    let address = SocketAddr::new(target.into(), 1000);
    let mut stream = peersock::blocking::TcpStream::connect_on(&alpha, address).expect("connected");
    stream.write_all(b"by nobody's server").expect("room");
    stream.shutdown(std::net::Shutdown::Write).expect("connected");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("all of it");
    assert_eq!(back, b"by nobody's server");
    echo.join().expect("no panic");

    let status = alpha.status();
    assert!(home.peers()[0].path.is_some_and(|path| beta.status().endpoints.contains(&path)));
    let contact = status.contact.expect("it finds out where it is");
    assert!(contact.candidates.iter().any(|one| status.endpoints.contains(&one.address)), "{contact:?}");
    let dht = status.dht.expect("it is used");
    assert!(dht.nodes >= 3 && dht.error.is_none(), "{dht:?}");
    wait("both can be found", || {
        [&alpha, &beta].iter().all(|node| node.status().dht.unwrap().published == 1)
    });
    wait("the search ends", || alpha.status().dht.unwrap().searches == 0);
}

#[test]
fn a_node_that_starts_again_needs_none_of_those_by_which_it_entered() {
    let mut swarm = LocalDht::new(20);
    let last = swarm.addresses().pop().expect("there are twenty");
    let place = tempfile::tempdir().expect("a folder");
    let start = || {
        let identity = IdentitySource::StateDir(place.path().join("state"));
        let builder = Node::builder().identity(identity).interfaces(Interfaces::Loopback).discovery(false);
        let builder = builder.roots(Vec::<peersock::RootAddress>::new()).dht(Dht::Nodes(vec![last]));
        let node = builder.start().expect("loopback sockets");
        node.join(Network::ad_hoc(network())).expect("joined");
        node
    };
    let knows = |node: &Node| node.status().dht.expect("it is used").nodes;
    let node = start();
    wait("it knows nodes", || knows(&node) > 3);
    let file = place.path().join("state/dht-nodes");
    wait("they are kept", || file.exists());
    drop(node);
    // The named node has gone for ever.
    swarm.kill(1);
    let mut silent = None;
    wait("its port is free", || {
        silent = std::net::UdpSocket::bind(last).ok();
        silent.is_some()
    });
    let node = start();
    wait("it knows nodes again", || knows(&node) > 3);
}

#[test]
fn nodes_that_were_kept_and_are_gone_keep_nobody_out() {
    let swarm = LocalDht::new(10);
    let entry = swarm.entries()[0];
    let place = tempfile::tempdir().expect("a folder");
    let state = peersock::state::StateDir::open(&place.path().join("state")).expect("it is ours");
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let gone = gone.local_addr().expect("bound");
    let file = state.path().join("dht-nodes");
    std::fs::write(&file, format!("peersock-dht 1 {entry}\n{gone}\n")).expect("room");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let identity = IdentitySource::StateDir(state.path().to_owned());
    drop(state);
    let builder = Node::builder().identity(identity).interfaces(Interfaces::Loopback).discovery(false);
    let builder = builder.roots(Vec::<peersock::RootAddress>::new()).dht(Dht::Nodes(vec![entry]));
    let node = builder.start().expect("loopback sockets");
    node.join(Network::ad_hoc(network())).expect("joined");
    wait("it knows nodes", || node.status().dht.expect("it is used").nodes > 3);
}

#[test]
fn who_was_in_a_false_dht_once_finds_others_in_the_true_one_after_a_restart() {
    let [truth, lie] = [20, 20].map(LocalDht::new);
    let (place, entry) = (tempfile::tempdir().expect("a folder"), truth.entries()[0]);
    let file = remember(place.path(), entry, &lie.addresses());
    let alpha = start_in(place.path(), entry);
    let beta = node(Dht::Nodes(truth.entries()));
    let network = network();
    let home = alpha.join(Network::ad_hoc(network)).expect("joined");
    let target = beta.join(Network::ad_hoc(network)).expect("joined").address();
    home.wait_peer(target.into(), PATIENCE).expect("it is found");
    let known = truth.addresses();
    wait("the next start knows nodes of the true DHT, too", || {
        let text = std::fs::read_to_string(&file).expect("it stays there");
        text.lines().skip(1).any(|line| known.contains(&line.parse().expect("an endpoint")))
    });
}

#[test]
fn who_gets_answers_of_a_false_dht_alone_leaves_it_when_a_named_node_is_there() {
    let (mut truth, lie) = (LocalDht::new(20), LocalDht::new(20));
    // No node answers there yet.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let entry = silent.local_addr().expect("bound").to_string().parse().expect("IPv4");
    let place = tempfile::tempdir().expect("a folder");
    let file = remember(place.path(), entry, &lie.addresses()[..8]);
    let before = std::fs::read(&file).expect("it is there");
    let alpha = start_in(place.path(), entry);
    let beta = node(Dht::Nodes(truth.entries()));
    let network = network();
    let home = alpha.join(Network::ad_hoc(network)).expect("joined");
    let target = beta.join(Network::ad_hoc(network)).expect("joined").address();
    wait("it is in the false one", || alpha.status().dht.expect("it is used").nodes > 8);
    home.wait_peer(target.into(), Duration::from_secs(3)).expect_err("it is elsewhere");
    assert_eq!(std::fs::read(&file).expect("it is there"), before, "nothing of that is kept");
    drop(silent);
    truth.join_at(entry);
    home.wait_peer(target.into(), PATIENCE).expect("it is found");
}

/// Makes a state directory in which a node finds `nodes` as remembered nodes of the DHT with this entry.
fn remember(place: &Path, entry: SocketAddrV4, nodes: &[SocketAddrV4]) -> PathBuf {
    let state = peersock::state::StateDir::open(&place.join("state")).expect("it is ours");
    let file = state.path().join("dht-nodes");
    let lines = nodes.iter().map(|node| format!("{node}\n"));
    std::fs::write(&file, format!("peersock-dht 1 {entry}\n{}", lines.collect::<String>())).expect("room");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    file
}

fn start_in(place: &Path, entry: SocketAddrV4) -> Node {
    let identity = IdentitySource::StateDir(place.join("state"));
    let builder = Node::builder().identity(identity).interfaces(Interfaces::Loopback).discovery(false);
    let builder = builder.roots(Vec::<peersock::RootAddress>::new()).dht(Dht::Nodes(vec![entry]));
    builder.start().expect("loopback sockets")
}

#[test]
fn a_member_of_another_network_is_not_found() {
    let swarm = LocalDht::new(10);
    let [alpha, beta] = [(), ()].map(|()| node(Dht::Nodes(swarm.entries())));
    let home = alpha.join(Network::ad_hoc(network())).expect("joined");
    beta.join(Network::ad_hoc(network())).expect("joined");
    wait("it can be found", || beta.status().dht.unwrap().published == 1);
    let target = home.id().address_of(&beta.id());
    let error = home.wait_peer(target.into(), Duration::from_secs(3)).expect_err("it is elsewhere");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(alpha.peers().is_empty());
}

#[test]
fn a_node_that_stays_on_this_machine_enters_no_dht_elsewhere() {
    for dht in [Dht::Public, Dht::Nodes(vec!["192.0.2.1:6881".parse().unwrap()])] {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let started = builder.discovery(false).roots(Vec::<peersock::RootAddress>::new()).dht(dht).start();
        assert!(matches!(&started, Err(StartError::Dht(_))), "{started:?}");
    }
}

#[test]
fn a_node_without_roots_and_dht_does_not_look_where_it_is() {
    let node = node(Dht::Off);
    node.join(Network::ad_hoc(network())).expect("joined");
    let status = node.status();
    assert!(status.contact.is_none() && status.dht.is_none());
}
