//! Floods by a stranger who is a member, as any node can be in an open network, and their effect on others.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::noise::{InitiationPayload, Initiator, MacWriter, Timestamp};
use peersock_overlay::wire::{Channel, CookieReply, Hello, RelayToken, Relayed, UnknownSession};
use peersock_overlay::{Event, Identity, Limits, RecvMeta, SessionIndex, SocketIndex, SuiteSet};

use crate::net::{Net, Sent, UNIX_TIME, open_network};

const DATA: u8 = 0xD4;
const INITIATION: u8 = 0xD1;
const RESPONSE: u8 = 0xD2;

#[test]
fn forged_responses_do_not_keep_a_node_from_connecting_to_others() {
    for (per_round, spread) in [(1, false), (10, false), (10, true)] {
        let mut net = Net::acquainted_pair();
        let stranger = Stranger::new("198.51.100.1:1000");
        // Long enough that no budget of the node is fresh when the honest handshake begins.
        for round in 0..500 {
            if round % 10 == 0 {
                stranger.provoke_an_initiation(&mut net, round as u32);
            }
            if round == 450 {
                net.send(0, 1, b"hello");
            }
            for n in 0..per_round {
                stranger.forge_responses(&mut net, round * per_round + n, spread);
            }
            net.run(Duration::from_millis(10));
        }
        assert_eq!(net.received(1), [b"hello".to_vec()], "{per_round} per 10 ms, spread: {spread}");
        assert!(net.counter(0, "handshake_unauthentic") > 5, "the stranger must have cost something");
    }
}

#[test]
fn forged_responses_to_one_initiation_cost_a_bounded_number_of_diffie_hellman_operations() {
    let mut net = Net::acquainted_pair();
    let stranger = Stranger::new("198.51.100.1:1000");
    stranger.provoke_an_initiation(&mut net, 0);
    let before = net.counter(0, "handshake_x25519");
    for n in 0..1000 {
        stranger.forge_responses(&mut net, n, true);
    }
    let spent = net.counter(0, "handshake_x25519") - before;
    let most = stranger.initiations(&net).count() as u64 * 8 * 2;
    assert!((2..=most).contains(&spent), "{spent} of {most}");
}

#[test]
fn strangers_with_cookies_from_everywhere_do_not_delay_the_sessions_of_others() {
    let mut net = pair_with(Limits { handshakes_per_second: 1, handshake_burst: 2, ..Limits::default() });
    net.send(1, 0, b"hello");
    net.run(Duration::from_secs(1));
    // A hundred prefixes, each with a cookie, flood node 0, which can begin no handshake itself.
    let flooded = net.nodes[0].socket;
    net.filter = Box::new(move |sent| sent.from != flooded || sent.bytes[0] != INITIATION);
    let mut strangers: Vec<_> = (0..100).map(WithCookie::new).collect();
    for n in 0..32 * 250u32 {
        strangers[n as usize % 100].initiate(&mut net, n);
        if n % 32 == 0 {
            net.send(1, 0, b"x");
        }
        net.run(Duration::from_micros(31_250));
        let peers = net.nodes[1].endpoint.peers();
        let age = net.now - peers[0].established.expect("a session");
        // The renewal is due at 120 s at the latest; then follow a cookie, and the initiation with it.
        assert!(age < Duration::from_secs(123), "{age:?}");
    }
    assert!(net.counter(0, "handshakes_refused") > 1000, "the flood must have been too much");
    assert_eq!(net.received(0).len(), 251);
}

#[test]
fn strangers_who_are_peers_do_not_delay_the_sessions_of_others() {
    let mut net = pair_with(Limits { handshakes_per_second: 1, handshake_burst: 2, ..Limits::default() });
    net.send(1, 0, b"hello");
    net.run(Duration::from_secs(1));
    let strangers: Vec<_> = (0..50).map(|n| sybil(&mut net, n)).collect();
    for &stranger in &strangers {
        net.join(stranger, &open_network());
    }
    net.run(Duration::from_secs(35));
    // Each has a session, and so an address at which a peer is reached.
    for &stranger in &strangers {
        net.send(stranger, 0, b"hello");
        net.run(Duration::from_secs(1));
        net.nodes[stranger].up = false;
    }
    assert_eq!(net.nodes[0].endpoint.networks()[0].connected, 51);
    let mut floods: Vec<_> =
        (0..50).map(|n| WithCookie::at(net.nodes[strangers[usize::from(n)]].socket, n)).collect();
    let flooded = net.nodes[0].socket;
    net.filter = Box::new(move |sent| sent.from != flooded || sent.bytes[0] != INITIATION);
    for n in 0..32 * 250u32 {
        floods[n as usize % 50].initiate(&mut net, n);
        if n % 32 == 0 {
            net.send(1, 0, b"x");
        }
        net.run(Duration::from_micros(31_250));
        let peers = net.nodes[1].endpoint.peers();
        let info = peers.iter().find(|info| *info.peer.id() == Identity::from_seed(&[1; 32]).node_id());
        let age = net.now - info.and_then(|info| info.established).expect("a session");
        assert!(age < Duration::from_secs(123), "{age:?}");
    }
}

#[test]
fn strangers_who_are_peers_do_not_use_up_what_others_may_say_about_lost_sessions() {
    let mut net = pair_with(Limits::default());
    net.send(0, 1, b"hello");
    net.run(Duration::from_secs(1));
    let at = |n| SocketAddr::from(([198, 51, n, 1], 1000));
    let strangers: Vec<_> =
        (0..20u8).map(|n| net.add_stranger([n; 32].map(|byte| byte ^ 0x99), at(n))).collect();
    for &stranger in &strangers {
        net.join(stranger, &open_network());
    }
    net.run(Duration::from_secs(35));
    for &stranger in &strangers {
        net.send(stranger, 0, b"hello");
        net.run(Duration::from_millis(10));
    }
    assert_eq!(net.nodes[0].endpoint.networks()[0].connected, 21);
    net.send(0, 1, b"lost");
    let packet = net.sent.iter().rfind(|sent| sent.bytes[0] == DATA && sent.to == net.nodes[1].socket);
    let mut hint = Vec::new();
    assert!(UnknownSession::answer(&packet.expect("a packet").bytes, &mut hint));
    for n in 0..2000 {
        net.deliver(0, meta(at((n % 20) as u8)), &hint);
    }
    let before = net.counter(0, "attempts_started");
    let remote = net.nodes[1].socket;
    net.deliver(0, meta(remote), &hint);
    assert_eq!(net.counter(0, "attempts_started"), before + 1);
}

#[test]
fn one_stranger_with_many_identities_does_not_close_the_network_to_newcomers() {
    for answered in [false, true] {
        let (mut net, held) = crowded(answered.then_some(Answer::Data));
        assert!(
            if answered { held < 20 } else { held >= 16 },
            "answered: {answered}, the stranger holds {held}"
        );
        let newcomer = net.add(2);
        gets_in(&mut net, newcomer);
    }
}

// Nodes behind one root, for example, all have its prefix.
#[test]
fn nor_does_he_to_those_with_his_prefix_once_programs_have_sent_nothing_for_a_while_to_all_he_is() {
    for answer in [None, Some(Answer::Reply), Some(Answer::Data)] {
        let (mut net, _) = crowded(answer);
        let newcomer = sybil(&mut net, 250);
        gets_in(&mut net, newcomer);
    }
}

#[test]
fn who_is_looked_for_is_taken_in_whoever_else_has_his_prefix() {
    let (mut net, _) = crowded(Some(Answer::Data));
    let wanted = sybil(&mut net, 250);
    net.join(wanted, &open_network());
    let joined = net.nodes[0].endpoint.networks().remove(0);
    let identity = Identity::from_seed(&[250; 32].map(|byte| byte ^ 0x99));
    let (network, address) = (joined.index, joined.id.address_of(&identity.node_id()).into());
    net.send_to(0, network, address, b"it is you");
    net.run(Duration::from_secs(2));
    assert_eq!(net.received(wanted), [b"it is you".to_vec()]);
}

/// Answer that a stranger gets to a packet.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// A program sends something back.
    Data,
    /// The stack refuses it.
    Reply,
}

/// Creates node 0 with room for 32 peers, to which a stranger with 40 identities behind one prefix has sent a
/// packet as each of them. Each got `answer`. Returns how many of them are connected.
fn crowded(answer: Option<Answer>) -> (Net, usize) {
    let mut net = Net::new();
    net.limits = Limits { peers_per_network: 32, ..Limits::default() };
    net.add(1);
    let network = net.join(0, &open_network());
    let sybils: Vec<_> = (0..40).map(|n| sybil(&mut net, n)).collect();
    for &sybil in &sybils {
        net.join(sybil, &open_network());
    }
    net.run(Duration::from_secs(35));
    for &sybil in &sybils {
        net.send(sybil, 0, b"hello");
        net.run(Duration::from_millis(10));
        let (_, peer, _) = net.nodes[0].inbox.last().expect("a packet").clone();
        match answer.filter(|_| !peer.is_forgotten()) {
            Some(Answer::Data) => net.send_to(0, network, peer.addresses()[0], b"yes"),
            Some(Answer::Reply) => net.reply(0, &peer, b"no"),
            None => {}
        }
    }
    net.run(Duration::from_millis(10));
    let held = net.nodes[0].endpoint.networks()[0].connected;
    (net, held)
}

#[track_caller]
fn gets_in(net: &mut Net, newcomer: usize) {
    net.join(newcomer, &open_network());
    // By the end it has heard a beacon.
    net.run(Duration::from_secs(35));
    net.send(newcomer, 0, b"a newcomer");
    net.run(Duration::from_secs(1));
    assert!(net.received(0).contains(&b"a newcomer".to_vec()));
    assert_eq!(net.count(newcomer, |event| matches!(event, Event::SessionLost(_))), 0);
}

#[test]
fn a_full_table_is_not_searched_for_each_newcomer() {
    let mut net = pair_with(Limits { peers_per_network: 64, ..Limits::default() });
    net.send(1, 0, b"hello");
    for n in 0..1000 {
        let identity = Identity::from_seed(&[n as u8; 32].map(|byte| byte ^ (n >> 8) as u8 ^ 0x77));
        let at = SocketAddr::from(([198, 51, (n % 250) as u8, 1], 1000));
        let initiation = Stranger { at, identity }.initiation(&net, n, Duration::ZERO);
        net.deliver(0, meta(at), &initiation);
        net.run(Duration::from_millis(10));
    }
    let (evicted, steps) = (net.counter(0, "peers_evicted"), net.counter(0, "eviction_steps"));
    assert!(evicted > 800, "{evicted}");
    assert!((evicted..=2 * evicted + 64).contains(&steps), "{steps} peers looked at for {evicted} evictions");
    assert_eq!(
        net.count(0, |event| matches!(event, Event::PeerRemoved(_))),
        0,
        "nobody that was known is forgotten"
    );
}

#[test]
fn who_repeats_our_nonce_is_taken_in_and_who_replays_that_elsewhere_is_not() {
    let mut net = Net::new();
    net.add(1);
    net.join(0, &open_network());
    let stranger = Stranger::new("198.51.100.1:1000");
    net.deliver(0, meta(stranger.at), &stranger.hello(0, true, [0; 24]));
    net.pump();
    let answer = net.sent.iter().rev().find(|sent| sent.to == stranger.at).expect("an answer").bytes.clone();
    let nonce: [u8; 24] = answer[2..26].try_into().unwrap();
    let echo = stranger.hello(1, false, nonce);
    let known = |net: &Net| net.nodes[0].endpoint.peers().len();
    net.deliver(0, meta("198.51.100.1:1001".parse().unwrap()), &echo);
    let mut altered = nonce;
    altered[0] ^= 1;
    net.deliver(0, meta(stranger.at), &stranger.hello(2, false, altered));
    assert_eq!(known(&net), 0);
    net.deliver(0, meta(stranger.at), &echo);
    assert_eq!(known(&net), 1);
    // Old traffic proves nothing any more.
    let mut late = Net::new();
    late.add(1);
    late.join(0, &open_network());
    late.deliver(0, meta(stranger.at), &stranger.hello(0, true, [0; 24]));
    late.pump();
    late.run(Duration::from_secs(21));
    late.deliver(0, meta(stranger.at), &echo);
    assert_eq!(known(&late), 0);
}

#[test]
fn what_one_source_behind_a_root_sends_leaves_the_others_there_their_handshakes() {
    let mut net = Net::new();
    net.limits = Limits { handshakes_per_second: 1000, handshake_burst: 300, ..Limits::default() };
    net.add(1);
    net.join(0, &open_network());
    let [mut hostile, mut honest] = [1, 2].map(|n| {
        let root = SocketAddr::from(([198, 51, 100, 9], 7420));
        let header = Relayed { token: RelayToken::from_be_bytes([9; 3]), channel: Channel(n.into()) };
        WithCookie { relay: Some(header), ..WithCookie::at(root, n) }
    });
    for n in 0..600 {
        hostile.initiate(&mut net, n);
    }
    assert!(net.counter(0, "cookies_sent") > 0, "the flood must have been too much");
    let refused = net.counter(0, "handshakes_refused");
    assert!(refused > 50, "{refused}");
    let before = (net.counter(0, "handshake_x25519"), net.counter(0, "cookies_sent"));
    honest.initiate(&mut net, 0);
    assert_eq!(net.counter(0, "cookies_sent"), before.1 + 1, "a cookie is good for whom it was given to");
    honest.initiate(&mut net, 1);
    net.run(Duration::from_millis(1));
    assert!(net.counter(0, "handshake_x25519") > before.0, "it was read");
}

/// Adds a node with a different identity behind the same prefix.
fn sybil(net: &mut Net, n: u8) -> usize {
    net.add_stranger([n; 32].map(|byte| byte ^ 0x99), SocketAddr::from(([198, 51, 100, n], 1000)))
}

/// A stranger that receives at an address in a separate prefix.
struct WithCookie {
    stranger: Stranger,
    macs: MacWriter,
    /// Header that a root puts in front of its messages, if it is behind one.
    relay: Option<Relayed>,
}

impl WithCookie {
    fn new(n: u8) -> Self {
        let at = SocketAddr::from(([203, 0, n, 1], 1000));
        Self::at(at, n)
    }

    fn at(at: SocketAddr, n: u8) -> Self {
        let identity = Identity::from_seed(&[n; 32].map(|byte| byte ^ 0xA5));
        let macs = MacWriter::new(&Identity::from_seed(&[1; 32]).node_id());
        Self { stranger: Stranger { at, identity }, macs, relay: None }
    }

    /// Sends an initiation, with a cookie if the node has given one.
    fn initiate(&mut self, net: &mut Net, n: u32) {
        let Self { stranger, macs, relay } = self;
        let mut bytes = stranger.noise(n, Duration::from_millis(n.into()));
        macs.append(net.now, &mut bytes);
        let seen = net.sent.len();
        net.deliver(0, RecvMeta { relay: *relay, ..meta(stranger.at) }, &bytes);
        net.pump();
        let answers = net.sent[seen..].iter().filter(|sent| sent.to == stranger.at);
        let bare = |sent: &Sent| sent.bytes[relay.map_or(0, |_| Relayed::LEN)..].to_vec();
        for reply in answers.filter_map(|sent| CookieReply::parse(&bare(sent)).ok()) {
            macs.receive_cookie(net.now, &reply);
        }
    }
}

/// A member of the open network that no program has asked for.
struct Stranger {
    at: SocketAddr,
    identity: Identity,
}

impl Stranger {
    fn new(at: &str) -> Self {
        Self { at: at.parse().unwrap(), identity: Identity::from_seed(&[0x55; 32]) }
    }

    /// Makes the node begin a handshake: two initiations are sent of which the second is not newer, and a
    /// hello pays for the node's initiation.
    fn provoke_an_initiation(&self, net: &mut Net, n: u32) {
        for copy in 0..2 {
            let initiation = self.initiation(net, 2 * n + copy, Duration::ZERO);
            net.deliver(0, meta(self.at), &initiation);
        }
        let hello = self.hello(n, false, [0; 24]);
        net.deliver(0, meta(self.at), &hello);
        net.pump();
        assert!(self.initiations(net).next().is_some(), "the node must have sent an initiation");
    }

    fn hello(&self, n: u32, reply_wanted: bool, echo: [u8; 24]) -> Vec<u8> {
        let identity = *self.identity.public();
        let suites = SuiteSet::CHACHA20_POLY1305;
        let hello = Hello { identity, instance: 1, reply_wanted, suites, echo };
        let mut nonce = [0; 24];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        let mut bytes = Vec::new();
        hello.seal(&open_network().discovery_key(), nonce, &mut bytes);
        bytes
    }

    /// Returns the node's initiations to the stranger, the last one first.
    fn initiations<'a>(&self, net: &'a Net) -> impl Iterator<Item = &'a Sent> {
        let at = self.at;
        net.sent.iter().rev().filter(move |sent| sent.to == at && sent.bytes[0] == INITIATION)
    }

    /// Returns an initiation to node 0, sent `age` after the start.
    fn initiation(&self, net: &Net, n: u32, age: Duration) -> Vec<u8> {
        let mut bytes = self.noise(n, age);
        MacWriter::new(&Identity::from_seed(&[1; 32]).node_id()).append(net.now, &mut bytes);
        bytes
    }

    /// Returns the same without MACs.
    fn noise(&self, n: u32, age: Duration) -> Vec<u8> {
        let target = Identity::from_seed(&[1; 32]);
        let payload = InitiationPayload {
            network: open_network().id(),
            timestamp: Timestamp::from_unix(UNIX_TIME + age),
            instance: 1,
            receive_buffer: 0,
            suites: SuiteSet::CHACHA20_POLY1305,
            introduction: Vec::new(),
            room: 0,
        };
        let mut ephemeral = [0x66; 32];
        ephemeral[..4].copy_from_slice(&n.to_be_bytes());
        let index = SessionIndex::from_be_bytes([1, 2, 3]);
        let mut bytes = Vec::new();
        Initiator::start(&self.identity, target.public(), ephemeral, index, &payload, &mut bytes).unwrap();
        bytes
    }

    /// Sends garbage in answer to each of the last four initiations to the stranger.
    fn forge_responses(&self, net: &mut Net, n: usize, spread: bool) {
        let indices: Vec<[u8; 3]> =
            self.initiations(net).take(4).map(|s| s.bytes[2..5].try_into().unwrap()).collect();
        for index in indices {
            let mut bytes = vec![RESPONSE, 2];
            bytes.extend(index);
            bytes.extend([7; 3]);
            bytes.extend([(n % 100) as u8 + 9; 32 + 28]);
            MacWriter::new(&Identity::from_seed(&[1; 32]).node_id()).append(net.now, &mut bytes);
            let [.., high, low] = (n as u32).to_be_bytes();
            let from = if spread { SocketAddr::from(([203, high, low, 1], 1000)) } else { self.at };
            net.deliver(0, meta(from), &bytes);
            net.pump();
        }
    }
}

fn meta(remote: SocketAddr) -> RecvMeta {
    RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None }
}

/// Creates two nodes with these limits that have met.
fn pair_with(limits: Limits) -> Net {
    let mut net = Net::new();
    net.limits = limits;
    net.add(1);
    net.add(2);
    for node in 0..2 {
        net.join(node, &open_network());
    }
    net.run(Duration::from_secs(4));
    net
}
