//! Events about paths over a TURN server, coturn. Needs root, `natlab` and coturn; the test skips otherwise.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use peersock::{Dht, Event, Events, IdentitySource, Network, Node, NodeId, RootAddress, TurnServer};
use peersock_testnet::{Lab, LocalDht, find_in_path};

use crate::common::{PATIENCE, network};

/// First address of the DHT nodes, which use free addresses of the lab's public network.
const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
const NODES: u32 = 20;

/// The nodes meet by a DHT. A root as near as the TURN server would relay, and the path would stay there.
#[test]
fn events_say_that_a_path_leads_over_a_turn_server() {
    const TEST: &str = "events-turn";
    if find_in_path("turnserver").is_none() {
        eprintln!("SKIP {TEST}: there is no turnserver (coturn)");
        return;
    }
    // Both NATs take a new random port for each destination, so that no hole can be punched.
    let Some(lab) = Lab::build(TEST, "relay=turn root=public home=symmetric work=symmetric") else { return };
    let add = "dev=$(ip -o -4 addr | awk '/203.0.113/ { print $2; exit }'); \
               for i in $(seq 100 119); do ip addr add 203.0.113.$i/24 dev $dev || exit 1; done";
    lab.natlab(&["exec", "root", "--", "sh", "-c", add]);
    let dht = lab.within("root", || LocalDht::on_addresses(FIRST, NODES));
    let start = |turn: Vec<TurnServer>| {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).port_mapping(false).turn(turn);
        let builder = builder.roots(Vec::<RootAddress>::new()).dht(Dht::Nodes(dht.entries()));
        builder.start().expect("sockets")
    };
    let server: TurnServer =
        format!("turn:natlab:natlab@{}:3478", lab.ip4("relay")).parse().expect("a server");
    let alpha = lab.within("home1", || start(vec![server]));
    let beta = lab.within("work1", || start(Vec::new()));
    let since = Instant::now();
    while alpha.status().turn.iter().all(|turn| turn.relayed.is_none()) {
        assert!(since.elapsed() < PATIENCE, "{:?}", alpha.status().turn);
        thread::sleep(Duration::from_millis(20));
    }
    let heard = [alpha.events(), beta.events()];
    let id = network();
    let target = alpha.join(Network::ad_hoc(id)).expect("joined").address();
    let away = beta.join(Network::ad_hoc(id)).expect("joined");
    away.wait_peer(target.into(), PATIENCE).expect("it is found by the DHT");
    let mut told = [false; 2];
    let since = Instant::now();
    while told != [true; 2] {
        assert!(since.elapsed() < PATIENCE, "{told:?} {:?}", alpha.status().peers);
        for (which, peer) in [beta.id(), alpha.id()].into_iter().enumerate() {
            told[which] |= says_turn(&heard[which], peer);
        }
    }
    for node in [&alpha, &beta] {
        let peer = &node.status().peers[0];
        assert!(peer.turn && peer.root.is_none(), "{peer:?}");
    }
}

/// Returns true if the next event says that the path to this peer uses a TURN server and no root.
fn says_turn(events: &Events, peer: NodeId) -> bool {
    match events.next_timeout(Duration::from_millis(20)) {
        Some(Event::PeerReachable { id, relayed, turn } | Event::PathChanged { id, relayed, turn }) => {
            id == peer && turn && !relayed
        }
        _ => false,
    }
}
