//! Tests that parse the written text with a reader of the format.

mod format;

use std::collections::BTreeSet;

use peersock_overlay::{NetworkId, NodeId};

use crate::config::Network;
use crate::node::status::{AttemptStatus, PeerStatus, Presence, Status, Traffic, TurnStatus};
use crate::{IdentitySource, Interfaces, Node};
use format::{Line, parse};

const NETWORK: &str = "ff00500050000000";

#[test]
fn every_line_is_as_the_format_wants_it() {
    let status = status(3);
    let lines = parse(&status.prometheus(3));
    // All counters occur, with a description.
    for name in status.counters.keys() {
        let family = format!("peersock_node_{name}_total");
        let line = lines.iter().find(|line| line.name == family).unwrap_or_else(|| panic!("no {family}"));
        assert_eq!((line.kind.as_str(), line.labels.len()), ("counter", 1));
        assert!(line.help.len() > 5 && !line.help.contains("]("), "{family}: {}", line.help);
    }
    for line in &lines {
        assert_eq!(line.label("node"), Some(status.node_id.to_string().as_str()), "{}", line.name);
        assert_eq!(line.kind == "counter", line.name.ends_with("_total"), "{}", line.name);
        let of_network = line.name.starts_with("peersock_network_");
        let of_peer = line.name.starts_with("peersock_peer_");
        assert_eq!(line.label("network").is_some(), of_network || of_peer, "{}", line.name);
        assert_eq!(line.label("peer").is_some(), of_peer, "{}", line.name);
    }
    let peers = |state| {
        let peers =
            |line: &&Line| line.name == "peersock_network_peers" && line.label("state") == Some(state);
        lines.iter().find(peers).expect("there is one").value
    };
    assert_eq!((peers("connected"), peers("known"), peers("gone")), (1.0, 2.0, 0.0));
}

#[test]
fn a_name_with_quotation_marks_is_read_back_as_it_is() {
    let name = "the \"first\" \\ one\nof all";
    let mut status = status(1);
    status.peers[0].name = Some(name.into());
    let lines = parse(&status.prometheus(1));
    let info = lines.iter().find(|line| line.name == "peersock_peer_info").expect("there is one");
    assert_eq!(info.label("name"), Some(name));
}

#[test]
fn only_the_foremost_peers_have_numbers_of_their_own() {
    let lines = parse(&status(5).prometheus(2));
    let peers: BTreeSet<_> = lines.iter().filter_map(|line| line.label("peer")).collect();
    // The connected peer, and the one seen last.
    assert_eq!(peers, [node(1).to_string(), node(2).to_string()].iter().map(String::as_str).collect());
    let omitted = lines.iter().find(|line| line.name == "peersock_node_peers_omitted").expect("it is told");
    assert_eq!(omitted.value, 3.0);
    assert!(parse(&status(5).prometheus(0)).iter().all(|line| line.label("peer").is_none()));
}

#[test]
fn a_path_has_its_kind_and_the_root_that_relays() {
    type Change = fn(&mut PeerStatus);
    let paths: [(Change, &str, bool); 4] = [
        (|_| {}, "direct", false),
        (|peer| peer.tcp = true, "tcp", false),
        (|peer| peer.turn = true, "turn", false),
        (|peer| peer.root = Some(node(9)), "root", true),
    ];
    for (change, kind, is_relayed) in paths {
        let mut status = status(2);
        change(&mut status.peers[0]);
        let lines = parse(&status.prometheus(2));
        let paths: Vec<_> = lines.iter().filter(|line| line.name == "peersock_peer_path").collect();
        // A peer without a session has no path.
        assert_eq!((paths.len(), paths[0].label("path")), (1, Some(kind)));
        assert_eq!(paths[0].label("root") == Some(&node(9).to_string()), is_relayed, "{kind}");
    }
}

#[test]
fn no_secret_and_no_address_is_in_the_text() {
    let mut status = status(2);
    status.turn.push(TurnStatus {
        server: "turn:alice@192.0.2.77:3478".into(),
        family: "ipv4".into(),
        relayed: None,
        error: Some("refused".into()),
    });
    status.peers[0].attempts.push(AttemptStatus {
        address: "192.0.2.77:5".parse().expect("an address"),
        kind: "mapped".into(),
        vouched: true,
        sent: 1,
        tried_s: None,
        answered: false,
        outcome: "no answer".into(),
    });
    let text = status.prometheus(2);
    for secret in ["alice", "192.0.2.77", "127.0.0.1", &status.public_key] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let lines = parse(&text);
    let of_turn = lines.iter().filter(|line| line.name == "peersock_node_turn_allocations");
    let counts: Vec<_> = of_turn.map(|line| (line.label("state").expect("a state"), line.value)).collect();
    assert_eq!(counts, [("relaying", 0.0), ("failed", 1.0), ("asking", 0.0)]);
}

/// Returns the status of a node with `peers` peers, the first of which is connected.
fn status(peers: u8) -> Status {
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.start().expect("the node starts");
    let network: NetworkId = NETWORK.parse().expect("an ID");
    node.join(Network::ad_hoc(network)).expect("the node joins");
    let mut status = node.status();
    // Replaces other nodes of this machine that may have been found.
    status.peers = (1..=peers).map(|number| peer(network, number)).collect();
    let joined = &mut status.networks[0];
    (joined.connected, joined.known, joined.gone) = (1, usize::from(peers - 1), 0);
    status
}

fn peer(network: NetworkId, number: u8) -> PeerStatus {
    let connected = number == 1;
    PeerStatus {
        id: node(number),
        network,
        name: None,
        standing: None,
        machine: None,
        label: None,
        known_epoch: None,
        known_rules: None,
        tags: Vec::new(),
        addresses: Vec::new(),
        ipv4_aliases: Vec::new(),
        connected,
        state: if connected { Presence::Connected } else { Presence::Known },
        last_seen_s: Some(number.into()),
        last_heard_s: None,
        path: connected.then(|| "127.0.0.1:9".parse().expect("an address")),
        stream: None,
        root: None,
        turn: false,
        tcp: false,
        datagram_size: connected.then_some(1400),
        cipher: None,
        rtt_ms: connected.then_some(0.25),
        session_age_s: connected.then_some(3.0),
        traffic: None,
        total_traffic: Traffic {
            sent_packets: 1,
            sent_bytes: 2,
            received_packets: 3,
            received_bytes: 4,
            lost_packets: 5,
        },
        candidates: Vec::new(),
        attempts: Vec::new(),
        answer_unreadable: false,
        at_roots: 0,
        conflict: None,
    }
}

fn node(number: u8) -> NodeId {
    format!("{number:02x}").repeat(32).parse().expect("an ID")
}
