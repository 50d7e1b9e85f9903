//! Attacks by nodes that claim a peer's address or identity, and the node's reaction.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::wire::{Control, Hello, UnknownSession};
use peersock_overlay::{
    DATA_OVERHEAD, Identity, NetworkConfig, RecvMeta, SocketIndex, StaticMember, StaticNetwork, SuiteSet,
};
use peersock_testnet::{Adversary, Heard, Random};

use crate::attack::{home, victim};
use crate::net::{Net, UNIX_TIME, lan_socket, open_network};

const SECOND: Duration = Duration::from_secs(1);
const HELLO: u8 = 0xD6;
const DATA: u8 = 0xD4;

// A hello proves no identity, so an attacker can get a copy of the initiations for a peer. The attacker then
// knows the index, and may be nearer than the peer.
#[test]
fn forged_answers_of_one_who_claims_a_peers_address_do_not_keep_the_peer_away() {
    let mut net = Net::acquainted_pair();
    for port in [6666, 6667, 6668] {
        claim(&mut net, SocketAddr::new(home().ip(), port));
    }
    net.latency = Duration::from_millis(50);
    let mut adversary = adversary();
    let mut seen = net.sent.len();
    let mut forged = 0;
    net.send(0, 1, b"hello");
    net.wait(60 * SECOND, |net| {
        let new = net.sent.split_off(seen);
        net.sent.extend_from_slice(&new);
        seen = net.sent.len();
        for sent in new {
            if sent.to.ip() != home().ip() || adversary.hear(&sent.bytes) != Heard::Initiation {
                continue;
            }
            // After eight forged answers the node gives an initiation up.
            for _ in 0..8 {
                let response = adversary.forge_response(net.now).expect("an initiation");
                let meta =
                    RecvMeta { remote: sent.to, socket: SocketIndex(0), multicast: false, relay: None };
                net.deliver(0, meta, &response);
                forged += 1;
            }
        }
        !net.nodes[1].inbox.is_empty()
    });
    assert!(forged >= 8, "{forged}");
    assert!(net.nodes[0].endpoint.sessions().len() < 20, "{}", net.nodes[0].endpoint.sessions().len());
}

// Claiming many addresses in a peer's name does not push out those at which the peer itself was reached.
#[test]
fn claims_push_out_claims_and_not_where_a_peer_has_proved_to_be() {
    let mut net = Net::connected_pair();
    let first = net.nodes[1].socket;
    // The peer moves, and may come back.
    net.nodes[1].socket.set_port(4001);
    net.send(1, 0, b"moved");
    net.run(SECOND);
    for port in 7000..7020 {
        claim(&mut net, SocketAddr::new(home().ip(), port));
    }
    let peers = net.nodes[0].endpoint.peers();
    assert!(peers[0].candidates.contains(&first), "{:?}", peers[0].candidates);
}

// A configured address is where the user, or the peer's own name server, says that the peer is. That is a
// reason to ask there, but not to send everything there.
#[test]
fn a_configured_address_gets_no_more_than_questions_until_it_has_answered() {
    let mut net = Net::pair();
    let target = net.nodes[1].socket;
    let other = SocketAddr::from(([203, 0, 113, 10], 9));
    join_static(&mut net, &[victim(), other]);
    let mut adversary = Adversary::new(
        Arc::new(Identity::from_seed(&[2; 32])),
        &static_network(&[]),
        *Identity::from_seed(&[1; 32]).public(),
        UNIX_TIME,
        Random::from_seed(1),
    );
    // Node 1 is the adversary's; it receives at its own address and answers in the name of the configured
    // one.
    net.nodes[1].up = false;
    let meta = |remote| RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None };
    let hello = hello_of(2, [9; 24], &static_network(&[]));
    net.deliver(0, meta(target), &hello);
    net.send(0, 1, b"to whom?");
    let initiation = net.sent.iter().rfind(|sent| sent.to == target && sent.bytes[0] == 0xD1);
    let initiation = initiation.expect("an initiation").bytes.clone();
    assert_eq!(adversary.hear(&initiation), Heard::Initiation);
    let now = net.now;
    let response = adversary.respond(now).expect("an answer");
    net.deliver(0, meta(victim()), &response);
    net.pump();
    let begin = net.sent.len();
    for _ in 0..100 {
        let mut packet = vec![0x60; 60];
        packet[1] = 1;
        let datagram = adversary.seal(&packet).expect("a session");
        net.deliver(0, meta(victim()), &datagram);
        net.send(0, 1, &[0; 1200]);
        net.run(SECOND / 10);
    }
    assert_ne!(net.peer(0, 1).path().map(|path| path.remote()), Some(victim()));
    let sizes: Vec<usize> =
        net.sent[begin..].iter().filter(|sent| sent.to == victim()).map(|sent| sent.bytes.len()).collect();
    assert!(sizes.iter().all(|size| *size <= 198), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() < 10_000, "{sizes:?}");
}

// A session whose way back was never proven is no reason to stop searching for one.
#[test]
fn a_session_without_a_path_does_not_stop_attempts() {
    let mut net = Net::pair();
    let home = net.nodes[1].socket;
    join_static(&mut net, &[home, victim()]);
    // Handshakes pass, and packets after them do not.
    net.filter = Box::new(|sent| sent.bytes[0] != DATA && sent.to != victim());
    net.send(0, 1, b"hello");
    net.run(100 * SECOND);
    assert!(net.nodes[1].inbox.is_empty());
    net.filter = Box::new(|_| true);
    let peer = net.peer(0, 1);
    let now = net.now;
    net.nodes[0].endpoint.want_session(now, &peer);
    net.wait(2 * SECOND, |net| !net.nodes[1].inbox.is_empty());
}

// A broadcast address has many owners, none of which has sent anything.
#[test]
fn nothing_is_sent_to_where_many_would_get_it() {
    let mut net = Net::connected_pair();
    let to_all: [SocketAddr; 2] = ["255.255.255.255:9", "239.1.2.3:9"].map(|text| text.parse().unwrap());
    let initiation = adversary().initiate(net.now);
    for from in to_all {
        let meta = RecvMeta { remote: from, socket: SocketIndex(0), multicast: false, relay: None };
        net.deliver(0, meta, &initiation);
        let mut challenge = Vec::new();
        Control::Challenge { data: [7; 8], here: true }.emit(&mut challenge);
        for plaintext in [&[0; 10][..], &[0x60; 60][..], &challenge] {
            let session = net.peer(1, 0).sender().expect("a session").session;
            let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
            session.seal(plaintext, &mut datagram).expect("room");
            net.deliver(0, meta, &datagram);
        }
    }
    net.run(SECOND);
    assert!(!net.sent.iter().any(|sent| to_all.contains(&sent.to)));
    assert!(net.counter(0, "bad_source") >= 6, "{}", net.counter(0, "bad_source"));
}

// Anyone can claim not to know a session. That uses up nothing of the budget of peers with one.
#[test]
fn strangers_do_not_use_up_what_peers_may_say_about_lost_sessions() {
    let mut net = Net::connected_pair();
    net.send(0, 1, b"lost");
    let packet = net.sent.iter().rfind(|sent| sent.bytes[0] == DATA && sent.to == net.nodes[1].socket);
    let mut hint = Vec::new();
    assert!(UnknownSession::answer(&packet.expect("a packet").bytes, &mut hint));
    for n in 0..20_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let remote = SocketAddr::from(([9 + a, b, c, 1], 9));
        net.deliver(0, RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }, &hint);
    }
    let before = net.counter(0, "attempts_started");
    let remote = net.nodes[1].socket;
    net.deliver(0, RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }, &hint);
    assert_eq!(net.counter(0, "attempts_started"), before + 1);
}

/// Makes node 0 believe that its peer, node 1, is at `at`, as far as a hello can.
fn claim(net: &mut Net, at: SocketAddr) {
    let meta = RecvMeta { remote: at, socket: SocketIndex(0), multicast: false, relay: None };
    // The first hello may pay for an initiation.
    let answer = (0..6).find_map(|_| {
        net.deliver(0, meta, &hello_of(2, [0; 24], &open_network()));
        net.pump();
        net.sent.iter().rfind(|sent| sent.to == at && sent.bytes[0] == HELLO).cloned()
    });
    let echo = answer.expect("a hello").bytes[2..26].try_into().expect("24 bytes");
    net.deliver(0, meta, &hello_of(2, echo, &open_network()));
    net.pump();
}

fn hello_of(identity: u8, echo: [u8; 24], network: &NetworkConfig) -> Vec<u8> {
    let hello = Hello {
        identity: *Identity::from_seed(&[identity; 32]).public(),
        instance: 0,
        reply_wanted: echo == [0; 24],
        suites: SuiteSet::CHACHA20_POLY1305,
        echo,
    };
    let mut datagram = Vec::new();
    hello.seal(&network.discovery_key(), [echo[0]; 24], &mut datagram);
    datagram
}

fn adversary() -> Adversary {
    let own = Arc::new(Identity::from_seed(&[66; 32]));
    let target = *Identity::from_seed(&[1; 32]).public();
    Adversary::new(own, &open_network(), target, UNIX_TIME, Random::from_seed(1))
}

/// Makes both nodes join a network whose description has these addresses for node 1, without beacons.
fn join_static(net: &mut Net, endpoints: &[SocketAddr]) {
    let now = net.now;
    for node in 0..2 {
        let silent = peersock_overlay::SocketInfo { beacon_targets: Vec::new(), ..lan_socket() };
        net.nodes[node].endpoint.set_sockets(now, vec![silent]);
        net.join(node, &static_network(if node == 0 { endpoints } else { &[] }));
    }
}

fn static_network(endpoints: &[SocketAddr]) -> NetworkConfig {
    let member = |seed: u8, endpoints: &[SocketAddr]| StaticMember {
        identity: *Identity::from_seed(&[seed; 32]).public(),
        name: None,
        addresses: Vec::new(),
        endpoints: endpoints.to_vec(),
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    let id = "fe00000000000001".parse().expect("an ID");
    let members = vec![member(1, &[]), member(2, endpoints)];
    NetworkConfig::Static(StaticNetwork { id, psk: None, members, exit: None, program: None })
}
