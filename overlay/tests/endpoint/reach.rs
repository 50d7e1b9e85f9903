//! Addresses that a node believes, and its traffic to those it does not: peers with keys lie about where they
//! are.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Control, Hello};
use peersock_overlay::{
    DATA_OVERHEAD, Event, Identity, NetworkConfig, NetworkId, RecvMeta, SocketIndex, SuiteSet,
};

use crate::net::{Net, lan_socket, open_network};

const SECOND: Duration = Duration::from_secs(1);
const RESPONSE: u8 = 0xD2;
const BEACON: u8 = 0xD5;
const STALE_REPLY: u8 = 0xD8;

/// Address of an uninvolved victim.
const VICTIM: &str = "203.0.113.9:9";

#[test]
fn an_acknowledgement_or_answer_that_is_guessed_moves_no_path() {
    let mut net = Net::connected_pair();
    net.run(5 * SECOND);
    let mut account = Account::default();
    // The peer claims to be there, and then answers all questions that may have been sent there.
    let keepalive = sealed(&mut net, &[0; 100]);
    account.deliver(&mut net, &keepalive);
    for guess in 0..2000u32 {
        let acknowledgement = message(&Control::ProbeAck { id: guess, size: 37 });
        let mut data = [0; 8];
        data[4..].copy_from_slice(&guess.to_be_bytes());
        let answer = message(&Control::Answer { data });
        for plaintext in [acknowledgement, answer] {
            let datagram = sealed(&mut net, &plaintext);
            account.deliver(&mut net, &datagram);
        }
    }
    assert!(net.counter(0, "answers_wrong") >= 2000);
    let home = net.nodes[1].socket;
    assert_eq!(net.peer(0, 1).path().map(|path| path.remote()), Some(home));
    // It continues to claim that while it gets packets.
    for _ in 0..200 {
        let packet = sealed(&mut net, &[0x60; 60]);
        account.deliver(&mut net, &packet);
        net.send(0, 1, &[0; 1400]);
        net.run(SECOND / 10);
        account.account(&net);
    }
    assert!(account.received > 0, "it is asked, with what it paid for");
    assert_eq!(net.peer(0, 1).path().map(|path| path.remote()), Some(home));
}

#[test]
fn a_response_from_an_address_that_did_not_get_the_initiation_alone_proves_nothing() {
    for from_candidate in [true, false] {
        let (mut net, mut account) = strangers();
        net.filter = Box::new(|sent| ![RESPONSE, BEACON].contains(&sent.bytes[0]));
        net.send(0, 1, b"to whom?");
        if from_candidate {
            account.deliver(&mut net, &hello_of_node_1());
        }
        let home = net.nodes[1].socket;
        // Another hello from its true address makes two candidates, neither of them proven.
        let true_address = RecvMeta { remote: home, socket: SocketIndex(0), multicast: false, relay: None };
        net.deliver(0, true_address, &hello_of_node_1());
        net.run(SECOND / 10);
        let response =
            net.sent.iter().rfind(|sent| sent.bytes[0] == RESPONSE).expect("a response").bytes.clone();
        account.deliver(&mut net, &response);
        for _ in 0..200 {
            net.send(0, 1, &[0; 1400]);
            net.run(SECOND / 10);
            account.account(&net);
        }
        // It is found at its place as soon as it can be asked there.
        net.filter = Box::new(|sent| sent.bytes[0] != BEACON);
        net.deliver(0, true_address, &hello_of_node_1());
        net.wait(10 * SECOND, |net| net.peer(0, 1).path().is_some_and(|path| path.remote() == home));
        account.account(&net);
        assert!(account.received > 0, "{from_candidate}");
    }
}

#[test]
fn a_stale_reply_proves_an_address_only_if_the_initiation_went_nowhere_else() {
    let (mut net, mut account) = strangers();
    // Node 1 knows initiations of node 0 from the future.
    net.send(1, 0, b"x");
    let home = net.nodes[1].socket;
    let true_address = RecvMeta { remote: home, socket: SocketIndex(0), multicast: false, relay: None };
    net.send(0, 1, b"so that it knows the time");
    net.deliver(0, true_address, &hello_of_node_1());
    net.run(5 * SECOND);
    assert!(!net.nodes[1].inbox.is_empty());
    net.restart(0, 4001, crate::net::UNIX_TIME - Duration::from_secs(86_400));
    net.nodes[0].endpoint.set_sockets(net.now, vec![without_beacons()]);
    net.join(0, &open_network());
    net.filter = Box::new(|sent| ![STALE_REPLY, BEACON, RESPONSE].contains(&sent.bytes[0]));
    net.send(0, 1, b"to whom?");
    account.deliver(&mut net, &hello_of_node_1());
    net.deliver(0, true_address, &hello_of_node_1());
    net.run(SECOND / 10);
    let reply = net.sent.iter().rfind(|sent| sent.bytes[0] == STALE_REPLY).expect("a reply").bytes.clone();
    account.deliver(&mut net, &reply);
    assert_eq!(net.counter(0, "clock_behind"), 1);
    for _ in 0..100 {
        net.run(SECOND / 10);
        account.account(&net);
    }
}

#[test]
fn a_response_from_the_only_address_that_was_tried_needs_no_further_proof() {
    let (mut net, _) = strangers();
    let home =
        RecvMeta { remote: net.nodes[1].socket, socket: SocketIndex(0), multicast: false, relay: None };
    net.send(0, 1, b"hello");
    net.deliver(0, home, &hello_of_node_1());
    let took = net.wait(SECOND, |net| !net.nodes[1].inbox.is_empty());
    // Initiation, response and packet, at a latency of 1 ms.
    assert_eq!(took, Duration::from_millis(3));
    assert_eq!(net.counter(0, "challenges_sent"), 0);
}

#[test]
fn of_two_unproven_addresses_the_one_that_answers_is_used_after_one_more_round_trip() {
    let (mut net, mut account) = strangers();
    net.send(0, 1, b"hello");
    account.deliver(&mut net, &hello_of_node_1());
    let home =
        RecvMeta { remote: net.nodes[1].socket, socket: SocketIndex(0), multicast: false, relay: None };
    net.deliver(0, home, &hello_of_node_1());
    let took = net.wait(SECOND, |net| !net.nodes[1].inbox.is_empty());
    // The same, and a challenge with its answer.
    assert_eq!(took, Duration::from_millis(5));
    assert_eq!(net.count(0, |event| matches!(event, Event::SessionReady(_))), 1);
    account.account(&net);
}

#[test]
fn a_peer_moves_over_a_link_whose_round_trip_is_longer_than_the_interval_of_challenges() {
    for latency in [100, 400, 5000] {
        let mut net = Net::connected_pair();
        net.latency = Duration::from_millis(latency);
        net.nodes[1].socket.set_port(5555);
        let begin = net.now;
        while net.peer(0, 1).path().is_some_and(|path| path.remote().port() != 5555) {
            net.send(1, 0, b"from elsewhere");
            net.run(SECOND / 50);
            assert!(net.now - begin <= Duration::from_millis(3 * latency + 40), "{latency}");
        }
    }
}

#[test]
fn two_networks_of_one_node_share_its_path() {
    let mut net = Net::acquainted_pair();
    let second = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(8080..=8089).expect("a range"), psk: None };
    let networks = [0, 1].map(|node| net.join(node, &second));
    net.run(4 * SECOND);
    net.send(0, 1, b"one");
    let address = net.address(0, networks[0], 1);
    net.send_to(0, networks[0], address, b"two");
    net.run(5 * SECOND);
    assert_eq!(net.nodes[1].inbox.len(), 2);
    // It moves, and shows that in the first network only.
    net.nodes[1].socket.set_port(5555);
    net.send(1, 0, b"from elsewhere");
    net.run(SECOND);
    let paths: Vec<_> = net.nodes[0].endpoint.peers().iter().map(|info| info.path.expect("a path")).collect();
    assert_eq!(paths.len(), 2);
    assert!(paths.iter().all(|path| *path == paths[0] && path.remote().port() == 5555), "{paths:?}");
    assert_eq!(paths[0].datagram_size, 1472);
    // When it leaves one network it is still there in the other.
    let network = net.nodes[1].endpoint.networks()[0].index;
    net.nodes[1].endpoint.leave(net.now, network);
    net.nodes[1].inbox.clear();
    net.send_to(0, networks[0], address, b"three");
    net.run(SECOND);
    assert_eq!(net.nodes[1].inbox.len(), 1);
}

#[test]
fn a_flapping_interface_is_announced_once_a_second() {
    let mut net = Net::connected_pair();
    net.run(5 * SECOND);
    let before = net.counter(0, "challenges_sent");
    for _ in 0..1000 {
        net.nodes[0].endpoint.set_sockets(net.now, vec![lan_socket()]);
        net.run(SECOND / 100);
    }
    let sent = net.counter(0, "challenges_sent") - before;
    // Announcements begin a second apart, and the changes last ten seconds.
    assert!((5..=12).contains(&sent), "{sent}");
}

/// Creates two nodes in the open network that do not know each other, and the account of the victim.
fn strangers() -> (Net, Account) {
    let mut net = Net::pair();
    net.filter = Box::new(|sent| sent.bytes[0] != BEACON);
    for node in 0..2 {
        net.nodes[node].endpoint.set_sockets(net.now, vec![without_beacons()]);
        net.join(node, &open_network());
    }
    (net, Account::default())
}

fn without_beacons() -> peersock_overlay::SocketInfo {
    peersock_overlay::SocketInfo { beacon_targets: Vec::new(), ..lan_socket() }
}

/// Returns a hello in which node 1 introduces itself, as it may from any source.
fn hello_of_node_1() -> Vec<u8> {
    let hello = Hello {
        identity: *Identity::from_seed(&[2; 32]).public(),
        instance: 1,
        reply_wanted: false,
        suites: SuiteSet::CHACHA20_POLY1305,
        echo: [0; 24],
    };
    let mut bytes = Vec::new();
    hello.seal(&open_network().discovery_key(), [9; 24], &mut bytes);
    bytes
}

fn message(control: &Control) -> Vec<u8> {
    let mut plaintext = Vec::new();
    control.emit(&mut plaintext);
    plaintext
}

/// Returns a packet of node 1 to node 0 in their session.
fn sealed(net: &mut Net, plaintext: &[u8]) -> Vec<u8> {
    let session = net.peer(1, 0).session().expect("a session");
    let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
    session.seal(plaintext, &mut datagram).expect("a live session");
    datagram
}

/// Traffic to the victim, and traffic in its name.
#[derive(Default)]
struct Account {
    paid: usize,
    received: usize,
    seen: usize,
}

impl Account {
    /// Delivers a datagram to node 0 that seems to come from the victim.
    fn deliver(&mut self, net: &mut Net, datagram: &[u8]) {
        let remote: SocketAddr = VICTIM.parse().expect("an address");
        self.paid += datagram.len();
        net.deliver(0, RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }, datagram);
        net.pump();
        self.account(net);
    }

    /// Checks that the victim has got no more bytes than came in its name.
    fn account(&mut self, net: &Net) {
        let to_victim = net.sent[self.seen..].iter().filter(|sent| sent.to.to_string() == VICTIM);
        self.received += to_victim.map(|sent| sent.bytes.len()).sum::<usize>();
        self.seen = net.sent.len();
        assert!(self.received <= self.paid, "{} bytes for {}", self.received, self.paid);
    }
}
