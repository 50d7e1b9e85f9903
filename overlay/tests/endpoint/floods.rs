//! Floods by a stranger who is a member, as anybody can be of an open network: what they take away from others.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::noise::{InitiationPayload, Initiator, MacWriter, Timestamp};
use peersock_overlay::wire::{CookieReply, Hello};
use peersock_overlay::{Identity, Limits, RecvMeta, SessionIndex, SocketIndex, SuiteSet};

use crate::net::{Net, Sent, UNIX_TIME, open_network};

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
    let mut net = Net::new();
    net.limits = Limits { handshakes_per_second: 1, handshake_burst: 2, ..Limits::default() };
    net.add(1);
    net.add(2);
    for node in 0..2 {
        net.join(node, &open_network());
    }
    net.run(Duration::from_secs(4));
    net.send(1, 0, b"hello");
    net.run(Duration::from_secs(1));
    // Node 0 is flooded by a hundred prefixes, each with a cookie, and can begin no handshake itself.
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
        // It is due at 120 s at the latest; then come a cookie, and the initiation with it.
        assert!(age < Duration::from_secs(123), "{age:?}");
    }
    assert!(net.counter(0, "handshakes_refused") > 1000, "the flood must have been too much");
    assert_eq!(net.received(0).len(), 251);
}

/// A stranger who receives at an address in a prefix of its own.
struct WithCookie {
    stranger: Stranger,
    macs: MacWriter,
}

impl WithCookie {
    fn new(n: u8) -> Self {
        let at = SocketAddr::from(([203, 0, n, 1], 1000));
        let identity = Identity::from_seed(&[n; 32].map(|byte| byte ^ 0xA5));
        let macs = MacWriter::new(&Identity::from_seed(&[1; 32]).node_id());
        Self { stranger: Stranger { at, identity }, macs }
    }

    /// Sends an initiation, with a cookie if the node has given one.
    fn initiate(&mut self, net: &mut Net, n: u32) {
        let Self { stranger, macs } = self;
        let mut bytes = stranger.noise(n, Duration::from_millis(n.into()));
        macs.append(net.now, &mut bytes);
        let seen = net.sent.len();
        net.deliver(0, meta(stranger.at), &bytes);
        net.pump();
        let answers = net.sent[seen..].iter().filter(|sent| sent.to == stranger.at);
        for reply in answers.filter_map(|sent| CookieReply::parse(&sent.bytes).ok()) {
            macs.receive_cookie(net.now, &reply);
        }
    }
}

/// A member of the open network that nobody wants anything of.
struct Stranger {
    at: SocketAddr,
    identity: Identity,
}

impl Stranger {
    fn new(at: &str) -> Self {
        Self { at: at.parse().unwrap(), identity: Identity::from_seed(&[0x55; 32]) }
    }

    /// Two initiations of which the second is not newer make the node begin a handshake of its own, and a hello pays
    /// for the initiation.
    fn provoke_an_initiation(&self, net: &mut Net, n: u32) {
        for copy in 0..2 {
            let initiation = self.initiation(net, 2 * n + copy, Duration::ZERO);
            net.deliver(0, meta(self.at), &initiation);
        }
        let hello = Hello {
            identity: *self.identity.public(),
            instance: 1,
            reply_wanted: false,
            suites: SuiteSet::CHACHA20_POLY1305,
            echo: [0; 24],
        };
        let mut nonce = [0; 24];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        let mut bytes = Vec::new();
        hello.seal(&open_network().discovery_key(), nonce, &mut bytes);
        net.deliver(0, meta(self.at), &bytes);
        net.pump();
        assert!(self.initiations(net).next().is_some(), "the node must have sent an initiation");
    }

    /// Those that the node has sent to the stranger, the last one first.
    fn initiations<'a>(&self, net: &'a Net) -> impl Iterator<Item = &'a Sent> {
        let at = self.at;
        net.sent.iter().rev().filter(move |sent| sent.to == at && sent.bytes[0] == INITIATION)
    }

    /// An initiation to node 0, sent so long after the start.
    fn initiation(&self, net: &Net, n: u32, age: Duration) -> Vec<u8> {
        let mut bytes = self.noise(n, age);
        MacWriter::new(&Identity::from_seed(&[1; 32]).node_id()).append(net.now, &mut bytes);
        bytes
    }

    /// The same without MACs.
    fn noise(&self, n: u32, age: Duration) -> Vec<u8> {
        let target = Identity::from_seed(&[1; 32]);
        let payload = InitiationPayload {
            network: open_network().id(),
            timestamp: Timestamp::from_unix(UNIX_TIME + age),
            instance: 1,
            receive_buffer: 0,
            suites: SuiteSet::CHACHA20_POLY1305,
        };
        let mut ephemeral = [0x66; 32];
        ephemeral[..4].copy_from_slice(&n.to_be_bytes());
        let index = SessionIndex::from_be_bytes([1, 2, 3]);
        let mut bytes = Vec::new();
        Initiator::start(&self.identity, target.public(), ephemeral, index, &payload, &mut bytes).unwrap();
        bytes
    }

    /// Garbage in answer to each of the last four initiations that were sent to the stranger.
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
    RecvMeta { remote, socket: SocketIndex(0), multicast: false }
}
