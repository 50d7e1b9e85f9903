//! Meetings through a real DHT of 50 nodes, all on loopback.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use peersock_dht::{Config, Event, Target};
use peersock_testnet::LocalDht;

use support::liar::Liar;
use support::{Node, measure_meetings};

#[test]
fn two_nodes_meet_in_a_dht_of_fifty() {
    let dht = LocalDht::new(50);
    measure_meetings("50 nodes", &dht.entries(), 5);
}

#[test]
fn they_meet_with_a_third_of_the_nodes_dead() {
    let mut dht = LocalDht::new(50);
    let entries = dht.entries();
    dht.kill(17);
    measure_meetings("50 nodes, 17 of them dead", &entries, 3);
}

#[test]
fn they_meet_with_a_third_of_the_nodes_lying() {
    let dht = LocalDht::new(33);
    let honest = dht.addresses();
    let liars: Vec<_> = (0..17).map(|seed| Liar::new(seed, &honest)).collect();
    let mut entries = dht.entries();
    entries.push(liars[0].address);
    measure_meetings("50 nodes, 17 of them lying", &entries, 3);
    let asked: usize = liars.iter().map(|liar| liar.asked.load(Ordering::Relaxed)).sum();
    assert!(asked > 20, "the liars were asked {asked} times only");
}

#[test]
fn a_record_outlives_the_death_of_a_third_of_those_that_store_it() {
    let mut dht = LocalDht::new(50);
    let entries = dht.entries();
    let [a, b] = [1, 2].map(|seed| Node::new(seed, &entries));
    a.publish();
    a.wait("publication", |event| matches!(event, Event::Published { .. }).then_some(()));
    dht.kill(17);
    assert_eq!(b.wait_found(Target::Node(a.identity)).contact, a.contact);
}

#[test]
fn the_newest_of_several_publications_is_found() {
    let dht = LocalDht::new(50);
    let mut a = Node::new(1, &dht.entries());
    a.publish();
    a.wait("publication", |event| matches!(event, Event::Published { .. }).then_some(()));
    let other = Node::new(77, &dht.entries());
    a.contact = other.contact.clone();
    a.publish();
    a.wait("publication", |event| matches!(event, Event::Published { .. }).then_some(()));
    let mut record = other.wait_found(Target::Node(a.identity));
    // One of its two places may still have the older record at first.
    while record.contact != a.contact {
        record = other.wait_found(Target::Node(a.identity));
    }
    assert!(!a.service.known_nodes().is_empty());
}

#[test]
fn members_of_another_network_meet_nobody() {
    let dht = LocalDht::new(10);
    let config = Config { search: Duration::from_secs(5), ..Config::default() };
    let [a, b] = [1, 2].map(|seed| Node::with(seed, &dht.entries(), config));
    a.publish();
    a.wait("publication", |event| matches!(event, Event::Published { .. }).then_some(()));
    let open = peersock_overlay::NetworkId::ad_hoc(80..=80).expect("a port range");
    let elsewhere = b.service.join(&peersock_overlay::DiscoveryKey::new(open, None, None));
    b.service.find(elsewhere, Target::Node(a.identity));
    let found = b.wait("end of the search", |event| match event {
        Event::Found { .. } => Some(true),
        Event::NotFound { .. } => Some(false),
        _ => None,
    });
    assert!(!found);
}

#[test]
fn without_any_node_of_the_dht_a_search_ends_and_nothing_hangs() {
    // Bound and never read from, so datagrams to this socket get no answer.
    let silent = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let std::net::SocketAddr::V4(entry) = silent.local_addr().expect("bound") else { unreachable!("IPv4") };
    let config = Config { search: Duration::from_secs(3), ..Config::default() };
    let node = Node::with(1, &[entry], config);
    let absent = Node::with(2, &[entry], config);
    node.publish();
    node.service.knock(node.network, absent.target().tail());
    node.service.find(node.network, absent.target());
    node.wait("end of the search", |event| matches!(event, Event::NotFound { .. }).then_some(()));
}

#[test]
fn a_service_does_not_start_without_a_node_to_enter_by() {
    let own = std::sync::Arc::new(peersock_overlay::Identity::from_seed(&[1; 32]));
    let settings = peersock_dht::Settings::new(peersock_dht::Bootstrap::Nodes(Vec::new()));
    let started = peersock_dht::Service::start(own, settings, |_| {});
    assert!(matches!(started, Err(peersock_dht::StartError::NoBootstrap)));
}
