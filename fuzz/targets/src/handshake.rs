//! Handshake messages with their cryptography. Altered messages are refused, and the genuine one still works.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_overlay::noise::{
    CookieJar, InitiationPayload, Initiator, MacWriter, Received, ResponsePayload, SessionKeys, Timestamp,
};
use peersock_overlay::wire::{CookieReply, StaleReply};
use peersock_overlay::{Identity, NetworkId, Psk, SessionIndex, Suite, SuiteSet};

use crate::input::{Damage, damaged, instant, one};

/// Length of MAC1 and MAC2, which the Noise message does not cover.
const MACS: usize = 32;

/// Messages of two nodes, and the damage to them.
#[derive(Debug, Arbitrary)]
struct Exchange {
    network: u64,
    timestamp: [u8; 12],
    instance: u64,
    receive_buffer: u32,
    suites: u8,
    chacha: bool,
    indices: [[u8; 3]; 2],
    psk: u8,
    introduction: Vec<u8>,
    damages: Vec<Damage>,
}

impl Exchange {
    fn payload(&self) -> InitiationPayload {
        InitiationPayload {
            network: NetworkId::new(self.network)
                .unwrap_or_else(|_| NetworkId::ad_hoc(80..=80).expect("one port")),
            timestamp: Timestamp::from_bytes(self.timestamp),
            instance: self.instance,
            receive_buffer: self.receive_buffer,
            suites: SuiteSet::from_wire(self.suites),
            introduction: self.introduction.iter().copied().take(255).collect(),
            room: 0,
        }
    }

    fn suite(&self) -> Suite {
        if self.chacha { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm }
    }

    /// Makes the initiation, complete with its MACs.
    fn initiate(&self) -> (Initiator, MacWriter, Vec<u8>) {
        let mut message = Vec::new();
        let index = SessionIndex::from_be_bytes(self.indices[0]);
        let initiator =
            Initiator::start(alice(), bob().public(), [3; 32], index, &self.payload(), &mut message)
                .expect("a good key");
        let mut macs = MacWriter::new(&bob().node_id());
        macs.append(instant(), &mut message);
        (initiator, macs, message)
    }

    /// Makes Bob's response to Alice's initiation, without valid MACs.
    fn respond(&self, initiation: &[u8]) -> (SessionKeys, Vec<u8>) {
        let received = Received::read(bob(), initiation).expect("the true initiation");
        let mut message = Vec::new();
        let keys = received
            .respond(
                &Psk::new([self.psk; 32]),
                [4; 32],
                SessionIndex::from_be_bytes(self.indices[1]),
                self.suite(),
                &self.answer(),
                &mut message,
            )
            .expect("good keys");
        message.extend([0; MACS]);
        (keys, message)
    }

    fn answer(&self) -> ResponsePayload {
        ResponsePayload { instance: !self.instance, receive_buffer: self.receive_buffer, question: None }
    }
}

/// Checks initiations. They read as written, and with any altered byte before the MACs they are refused
/// without a panic.
pub fn initiation(data: &[u8]) {
    let Some(exchange) = one::<Exchange>(data) else { return };
    let (_, _, message) = exchange.initiate();
    let received = Received::read(bob(), &message).expect("the true message");
    assert_eq!(received.initiator(), alice().public());
    assert_eq!(received.sender().to_be_bytes(), exchange.indices[0]);
    assert_eq!(*received.payload(), exchange.payload());
    assert!(Received::read(alice(), &message).is_err(), "it is for somebody else");

    let jar = CookieJar::new(&bob().node_id(), [9; 32], instant());
    assert!(jar.check_mac1(&message));
    let altered = damaged(&message, &exchange.damages);
    let unlike = |tail: usize| without(&altered, tail) != without(&message, tail);
    if unlike(MACS) {
        assert!(Received::read(bob(), &altered).is_err());
    }
    if unlike(MACS / 2) {
        assert!(!jar.check_mac1(&altered));
    }
    assert!(!jar.check_mac2(instant(), SOURCE, &altered), "no cookie was given");
}

/// Checks responses. Both sides get the same keys. An altered response, or one under another pre-shared key,
/// gives none and leaves the genuine one valid.
pub fn response(data: &[u8]) {
    let Some(exchange) = one::<Exchange>(data) else { return };
    let (initiator, _, initiation) = exchange.initiate();
    let (theirs, message) = exchange.respond(&initiation);
    let psk = Psk::new([exchange.psk; 32]);
    let altered = damaged(&message, &exchange.damages);
    if without(&altered, MACS) != without(&message, MACS) {
        assert!(initiator.read_response(alice(), &psk, &altered).is_err());
    }
    assert!(initiator.read_response(alice(), &Psk::new([!exchange.psk; 32]), &message).is_err());

    let (ours, said) = initiator.read_response(alice(), &psk, &message).expect("the true message");
    assert_eq!(said, exchange.answer());
    assert_eq!((ours.send, ours.receive, ours.hash), (theirs.receive, theirs.send, theirs.hash));
    assert_eq!((ours.index, ours.remote_index), (theirs.remote_index, theirs.index));
    assert_eq!((ours.suite, theirs.suite), (exchange.suite(), exchange.suite()));
    stale_reply(&exchange);
}

/// Checks stale replies. An altered one tells nothing. The genuine one tells the newest timestamp, but only
/// for its initiation.
fn stale_reply(exchange: &Exchange) {
    let (initiator, _, initiation) = exchange.initiate();
    let received = Received::read(bob(), &initiation).expect("the true message");
    let newest = Timestamp::from_bytes([exchange.psk; 12]);
    let reply = received.stale_reply(newest, [exchange.psk; 24]);
    let mut bytes = Vec::new();
    reply.emit(&mut bytes);
    if let Ok(altered) = StaleReply::parse(&damaged(&bytes, &exchange.damages))
        && altered != reply
    {
        assert_eq!(initiator.read_stale_reply(&altered), None);
    }
    assert_eq!(initiator.read_stale_reply(&reply), Some(newest));
    assert!(Timestamp::after(Duration::ZERO, Some(newest)) >= newest);
}

/// Checks cookie replies. An altered one gives no cookie. The genuine one makes the next MAC2 valid, for its
/// address only.
pub fn cookie(data: &[u8]) {
    let Some(exchange) = one::<Exchange>(data) else { return };
    let now = instant();
    let (_, mut macs, message) = exchange.initiate();
    let jar = CookieJar::new(&bob().node_id(), [9; 32], now);
    let sender = SessionIndex::from_be_bytes(exchange.indices[0]);
    let reply = jar.reply(now, SOURCE, &message, sender, [exchange.psk; 24]).expect("long enough");
    let mut bytes = Vec::new();
    reply.emit(&mut bytes);
    if let Ok(altered) = CookieReply::parse(&damaged(&bytes, &exchange.damages))
        && (altered.nonce, altered.sealed) != (reply.nonce, reply.sealed)
    {
        assert!(!macs.receive_cookie(now, &altered));
    }
    assert!(macs.receive_cookie(now, &reply));
    assert!(!macs.receive_cookie(now, &reply), "one reply per message");

    let mut next = message[..message.len() - MACS].to_vec();
    macs.append(now + Duration::from_secs(1), &mut next);
    assert!(jar.check_mac1(&next) && jar.check_mac2(now + Duration::from_secs(1), SOURCE, &next));
    assert!(!jar.check_mac2(now, SocketAddr::new(SOURCE.ip(), 2), &next));
    assert!(!jar.check_mac2(now + Duration::from_secs(240), SOURCE, &next), "the secret has changed twice");
}

const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

/// Identities, made once because key generation is expensive.
static NODES: LazyLock<[Identity; 2]> = LazyLock::new(|| [1, 2].map(|seed| Identity::from_seed(&[seed; 32])));

fn alice() -> &'static Identity {
    &NODES[0]
}

fn bob() -> &'static Identity {
    &NODES[1]
}

/// Returns a message without its last bytes.
fn without(message: &[u8], tail: usize) -> &[u8] {
    &message[..message.len().saturating_sub(tail)]
}
