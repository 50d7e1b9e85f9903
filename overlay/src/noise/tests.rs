//! The pattern against published vectors and against `snow`; whole handshakes; MACs and cookies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hex_literal::hex;
use proptest::prelude::*;
use snow::params::NoiseParams;
use x25519_dalek::{PublicKey, StaticSecret};

use super::ik::{read_first, write_first};
use super::*;
use crate::contact::tests::contact;
use crate::crypto::{AeadKey, Portable, Provider, Suite, SuiteSet};
use crate::id::{Identity, NetworkId, Psk};
use crate::testing::instant;
use crate::wire::SessionIndex;
use crate::wire::{Candidates, CookieReply, Initiation, Response};

const MACS: usize = 32;

// From cacophony (https://github.com/haskell-cryptography/cacophony), vectors/cacophony.txt, as in `snow`
// 0.10.
#[test]
fn cacophony_vector_of_ikpsk2() {
    let prologue = b"John Galt";
    let psk = b"This is my Austrian perspective!";
    let initiator =
        StaticSecret::from(hex!("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"));
    let responder =
        StaticSecret::from(hex!("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"));
    let responder_public = hex!("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62");
    assert_eq!(PublicKey::from(&responder).to_bytes(), responder_public);

    let mut first = Vec::new();
    let sent = write_first(
        prologue,
        &initiator,
        &responder_public,
        hex!("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a").into(),
        b"Ludwig von Mises",
        &mut first,
    )
    .expect("good keys");
    assert_eq!(
        first,
        hex!(
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98ddd8e2ad575272"
            "07feb56253c9c94a9e496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab5000980c84831215f2441eba6"
            "16548e832985464cf17e51ee93109008399a21f7e13f"
        )
    );

    let (received, payload) = read_first(prologue, &responder, &first).expect("authentic");
    assert_eq!(payload, b"Ludwig von Mises");
    assert_eq!(received.initiator(), PublicKey::from(&initiator).as_bytes());
    let mut second = Vec::new();
    let ephemeral = hex!("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b").into();
    let theirs =
        received.write_second(&[], psk, &ephemeral, b"Murray Rothbard", &mut second).expect("good keys");
    assert_eq!(
        second,
        hex!(
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843cb765f2caef0751b8f007572da"
            "b0322217755c0632f365717edbf34d33e87a"
        )
    );

    let (ours, payload) = sent.read_second(&[], &initiator, psk, &second).expect("authentic");
    assert_eq!(payload, b"Murray Rothbard");
    let hash = hex!("f5191b875290abcd41347ac3622d9679688a7e980229cb937ef748336cfde0e5");
    assert_eq!((ours.hash, theirs.hash), (hash, hash));

    // The first transport message of each side.
    for (key, plaintext, sealed) in [
        (ours.initiator, b"F. A. Hayek", hex!("8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7")),
        (ours.responder, b"Carl Menger", hex!("07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef")),
    ] {
        let mut out = [0; 27];
        chacha(&key).seal(0, plaintext, &mut out);
        assert_eq!(out, sealed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_snow_on_either_side(
        secrets: [[u8; 32]; 3],
        psk: [u8; 32],
        prologue in prop::collection::vec(any::<u8>(), 0..80),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        begins: bool,
    ) {
        let [ours, theirs, ephemeral] = secrets;
        let (ours, ephemeral) = (StaticSecret::from(ours), StaticSecret::from(ephemeral));
        let our_public = PublicKey::from(&ours).to_bytes();
        let their_public = PublicKey::from(&StaticSecret::from(theirs)).to_bytes();
        let params: NoiseParams = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().expect("snow knows it");
        let builder = snow::Builder::new(params)
            .local_private_key(&theirs)?
            .psk(2, &psk)?
            .prologue(&prologue)?;
        let mut buffer = [0; 1024];

        let (snow, split) = if begins {
            let mut snow = builder.build_responder()?;
            let mut first = Vec::new();
            let sent = write_first(&prologue, &ours, &their_public, ephemeral, &payload, &mut first)?;
            let n = snow.read_message(&first, &mut buffer)?;
            prop_assert_eq!(&buffer[..n], &payload);
            let n = snow.write_message(b"answer", &mut buffer)?;
            let (split, answer) = sent.read_second(&[], &ours, &psk, &buffer[..n])?;
            prop_assert_eq!(answer, b"answer");
            (snow, split)
        } else {
            let mut snow = builder.remote_public_key(&our_public)?.build_initiator()?;
            let n = snow.write_message(&payload, &mut buffer)?;
            let (received, said) = read_first(&prologue, &ours, &buffer[..n])?;
            prop_assert_eq!(said, payload);
            prop_assert_eq!(received.initiator(), &their_public);
            let mut second = Vec::new();
            let split = received.write_second(&[], &psk, &ephemeral, b"answer", &mut second)?;
            let n = snow.read_message(&second, &mut buffer)?;
            prop_assert_eq!(&buffer[..n], b"answer");
            (snow, split)
        };

        prop_assert_eq!(snow.get_handshake_hash(), &split.hash);
        let mut transport = snow.into_transport_mode()?;
        let (send, receive) =
            if begins { (split.initiator, split.responder) } else { (split.responder, split.initiator) };
        let mut sealed = [0; 4 + 16];
        chacha(&send).seal(0, b"ours", &mut sealed);
        let n = transport.read_message(&sealed, &mut buffer)?;
        prop_assert_eq!(&buffer[..n], b"ours");
        let n = transport.write_message(b"theirs", &mut buffer)?;
        let mut opened = [0; 6];
        prop_assert!(chacha(&receive).open(0, &buffer[..n], &mut opened).is_ok());
        prop_assert_eq!(&opened, b"theirs");
    }

    #[test]
    fn any_bytes_are_refused(mut datagram in prop::collection::vec(any::<u8>(), 0..300), kind in 0xD1u8..0xD3) {
        if let Some(first) = datagram.first_mut() {
            *first = kind;
        }
        let pair = Pair::new();
        prop_assert!(Received::read(&pair.responder, &datagram).is_err());
        prop_assert!(pair.initiate().0.read_response(&pair.initiator, &pair.psk, &datagram).is_err());
    }
}

// The points of low order on Curve25519 and its twist (https://cr.yp.to/ecdh.html#validate).
#[test]
fn keys_of_low_order_are_refused() {
    let secret = StaticSecret::from([1; 32]);
    for point in [
        hex!("0000000000000000000000000000000000000000000000000000000000000000"),
        hex!("0100000000000000000000000000000000000000000000000000000000000000"),
        hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ] {
        let mut out = vec![9];
        assert!(write_first(&[], &secret, &point, [2; 32].into(), &[], &mut out).is_err());
        assert_eq!(out, [9], "nothing of a failed message is left behind");
        let first = [&point[..], &[0; 200]].concat();
        assert!(read_first(&[], &secret, &first).is_err());
    }
}

#[test]
fn handshake_agrees_on_everything() {
    let pair = Pair::new();
    let (pending, initiation) = pair.initiate();
    assert_eq!(initiation.len(), Initiation::MIN);
    let received = Received::read(&pair.responder, &initiation).expect("authentic");
    assert_eq!(received.initiator(), pair.initiator.public());
    assert_eq!(*received.payload(), payload());
    assert_eq!(received.sender(), pending.index());

    let (theirs, response) = pair.respond(received, Suite::Aes256Gcm);
    assert_eq!(response.len(), Response::MIN);
    let (ours, answer) = pending.read_response(&pair.initiator, &pair.psk, &response).expect("authentic");
    assert_eq!(answer, ANSWER);
    assert_eq!((ours.send, ours.receive, ours.hash), (theirs.receive, theirs.send, theirs.hash));
    assert_ne!(ours.send, ours.receive);
    assert_eq!((ours.index, ours.remote_index), (theirs.remote_index, theirs.index));
    assert_eq!((ours.suite, theirs.suite), (Suite::Aes256Gcm, Suite::Aes256Gcm));
    assert!(ours.initiator && !theirs.initiator);
}

#[test]
fn a_question_needs_no_more_than_the_room_that_the_initiation_leaves() {
    let pair = Pair::new();
    let question = Candidates {
        of_tcp: false,
        is_question: true,
        id: 7,
        round_trip: 0,
        contact: contact(&["198.51.100.7:5", "10.0.0.7:5"]),
        vouchers: Vec::new(),
    };
    for room in [0, 50, 5000] {
        let (pending, initiation) = pair.initiate_with(InitiationPayload { room, ..payload() });
        assert_eq!(initiation.len(), Initiation::MIN + room.min(InitiationPayload::MAX_ROOM));
        let received = Received::read(&pair.responder, &initiation).expect("authentic");
        let left = received.payload().room_in_response();
        assert_eq!(left, initiation.len() - Response::MIN);
        assert!(question.len() <= left);
        let answer = ResponsePayload { question: Some(question.clone()), ..ANSWER };
        let (_, response) = pair.respond_with(received, Suite::ChaCha20Poly1305, &answer);
        assert_eq!(response.len(), Response::MIN + question.len());
        let (_, said) = pending.read_response(&pair.initiator, &pair.psk, &response).expect("authentic");
        assert_eq!(said, answer);
    }
}

#[test]
fn what_is_no_question_in_a_response_means_nothing() {
    let message = |of_tcp, is_question| {
        let (contact, vouchers) = (contact(&["198.51.100.7:5"]), Vec::new());
        let mut bytes = ANSWER.emit();
        Candidates { of_tcp, is_question, id: 7, round_trip: 0, contact, vouchers }.emit(&mut bytes);
        bytes
    };
    let question = message(false, true);
    let read = |bytes: &[u8]| ResponsePayload::parse(bytes).expect("long enough").question;
    assert!(read(&question).is_some());
    assert!(read(&[&question[..], b"more"].concat()).is_some(), "later versions may put more behind it");
    for other in [message(true, true), message(false, false), ANSWER.emit()] {
        assert_eq!(read(&other), None);
    }
    (ResponsePayload::LEN..question.len()).for_each(|end| assert_eq!(read(&question[..end]), None));
    assert_eq!(ResponsePayload::parse(&question[..ResponsePayload::LEN - 1]), None);
}

#[test]
fn another_network_key_fails_only_at_the_initiator() {
    let mut pair = Pair::new();
    let (pending, initiation) = pair.initiate();
    let received = Received::read(&pair.responder, &initiation).expect("the key is not needed yet");
    let (_, response) = pair.respond(received, Suite::ChaCha20Poly1305);
    pair.psk = Psk::open();
    let result = pending.read_response(&pair.initiator, &pair.psk, &response);
    assert_eq!(result.err(), Some(HandshakeError::Unauthentic));
}

// Byte by byte: headers (version, suite, indices), keys and payloads are all bound.
#[test]
fn every_altered_byte_before_the_macs_is_noticed() {
    let pair = Pair::new();
    let (pending, mut initiation) = pair.initiate();
    for at in 0..initiation.len() - MACS {
        initiation[at] ^= 0x03;
        assert!(Received::read(&pair.responder, &initiation).is_err(), "initiation, byte {at}");
        initiation[at] ^= 0x03;
    }
    let received = Received::read(&pair.responder, &initiation).expect("authentic again");
    let (_, mut response) = pair.respond(received, Suite::Aes256Gcm);
    for at in 0..response.len() - MACS {
        // 1 ^ 3 = 2, so the suite becomes the other one, and that must be detected as well.
        response[at] ^= 0x03;
        let result = pending.read_response(&pair.initiator, &pair.psk, &response);
        assert!(result.is_err(), "response, byte {at}");
        response[at] ^= 0x03;
    }
    assert!(pending.read_response(&pair.initiator, &pair.psk, &response).is_ok(), "forgeries change nothing");
}

// An initiator that was given a victim's X25519 key with another Ed25519 key does not reach the victim.
#[test]
fn responder_must_have_both_keys() {
    let pair = Pair::new();
    let (victim, other) = (pair.responder.public(), Identity::from_seed(&[77; 32]));
    let mut mixed = victim.to_bytes();
    mixed[32..].copy_from_slice(other.public().ed25519());
    let mixed = crate::PublicIdentity::from_bytes(&mixed).expect("two good keys");
    let mut initiation = Vec::new();
    Initiator::start(&pair.initiator, &mixed, [1; 32], index(1), &payload(), &mut initiation)
        .expect("good keys");
    initiation.extend([0; MACS]);
    assert_eq!(Received::read(&pair.responder, &initiation).err(), Some(HandshakeError::Unauthentic));
}

#[test]
fn mac1_needs_the_right_node_and_every_byte() {
    let (now, pair) = (instant(), Pair::new());
    let jar = CookieJar::new(&pair.responder.node_id(), [1; 32], now);
    let (_, mut message) = pair.initiate();
    message.truncate(message.len() - MACS);
    MacWriter::new(&pair.responder.node_id()).append(now, &mut message);
    assert!(jar.check_mac1(&message));
    assert!(!CookieJar::new(&pair.initiator.node_id(), [1; 32], now).check_mac1(&message));
    for at in 0..message.len() - 16 {
        message[at] ^= 1;
        assert!(!jar.check_mac1(&message), "byte {at}");
        message[at] ^= 1;
    }
    for len in 0..MACS {
        assert!(!jar.check_mac1(&message[..len]));
    }
}

#[test]
fn cookie_shows_that_the_sender_receives_at_its_address() {
    let mut scene = Cookies::new();
    let first = scene.message(Duration::ZERO);
    assert!(!scene.jar.check_mac2(scene.base, scene.remote, &first), "no cookie yet");
    assert!(scene.give_cookie(Duration::ZERO, &first));

    let second = scene.message(Duration::ZERO);
    assert!(scene.jar.check_mac2(scene.base, scene.remote, &second));
    assert!(
        !scene.jar.check_mac2(scene.base, "192.0.2.1:5001".parse::<SocketAddr>().expect("valid"), &second),
        "other port"
    );
    assert!(
        !scene.jar.check_mac2(scene.base, "192.0.2.2:5000".parse::<SocketAddr>().expect("valid"), &second),
        "other host"
    );
    let mapped = "[::ffff:192.0.2.1]:5000".parse::<SocketAddr>().expect("valid");
    assert!(scene.jar.check_mac2(scene.base, mapped, &second), "the same address on another kind of socket");
}

#[test]
fn cookie_is_accepted_as_long_as_it_is_used_and_not_much_longer() {
    for given in [0, 60, 119] {
        let mut scene = Cookies::new();
        let given = Duration::from_secs(given);
        let first = scene.message(given);
        assert!(scene.give_cookie(given, &first));
        let used = given + Duration::from_millis(119_999);
        let message = scene.message(used);
        assert!(scene.jar.check_mac2(scene.base + used, scene.remote, &message), "given at {given:?}");
        // The secret behind cookies changes every 120 s, and the previous one counts too.
        let much_later = scene.base + given + Duration::from_secs(241);
        assert!(!scene.jar.check_mac2(much_later, scene.remote, &message), "given at {given:?}");
        let unused = scene.message(given + Duration::from_secs(120));
        assert_eq!(unused[unused.len() - 16..], [0; 16], "the sender has forgotten it");
    }
}

#[test]
fn cookie_reply_counts_once_and_only_for_the_last_message() {
    let mut scene = Cookies::new();
    let old = scene.message(Duration::ZERO);
    let new = scene.message(Duration::from_secs(1));
    assert!(!scene.give_cookie(Duration::from_secs(1), &old), "answers another message");
    assert!(scene.give_cookie(Duration::from_secs(1), &new));
    assert!(!scene.give_cookie(Duration::from_secs(1), &new), "one reply per message");
}

/// A busy node and a peer that sends it handshake messages.
struct Cookies {
    base: Instant,
    remote: SocketAddr,
    jar: CookieJar,
    writer: MacWriter,
    sent: u8,
}

impl Cookies {
    fn new() -> Self {
        let (base, node) = (instant(), Identity::from_seed(&[2; 32]).node_id());
        Self {
            base,
            remote: "192.0.2.1:5000".parse().expect("valid"),
            jar: CookieJar::new(&node, [8; 32], base),
            writer: MacWriter::new(&node),
            sent: 0,
        }
    }

    fn message(&mut self, at: Duration) -> Vec<u8> {
        self.sent += 1;
        let mut message = vec![self.sent; 150];
        self.writer.append(self.base + at, &mut message);
        message
    }

    fn give_cookie(&mut self, at: Duration, message: &[u8]) -> bool {
        let reply = self
            .jar
            .reply(self.base + at, self.remote, message, index(5), [6; 24])
            .expect("the message has MACs");
        let mut wire = Vec::new();
        reply.emit(&mut wire);
        assert!(wire.len() <= message.len());
        let parsed = CookieReply::parse(&wire).expect("its own form");
        assert_eq!(parsed, reply);
        let mut forged = parsed;
        forged.sealed[0] ^= 1;
        assert!(!self.writer.receive_cookie(self.base + at, &forged));
        self.writer.receive_cookie(self.base + at, &parsed)
    }
}

/// Two nodes with one network key.
struct Pair {
    initiator: Identity,
    responder: Identity,
    psk: Psk,
}

impl Pair {
    fn new() -> Self {
        Self {
            initiator: Identity::from_seed(&[1; 32]),
            responder: Identity::from_seed(&[2; 32]),
            psk: Psk::new([3; 32]),
        }
    }

    fn initiate(&self) -> (Initiator, Vec<u8>) {
        self.initiate_with(payload())
    }

    fn initiate_with(&self, payload: InitiationPayload) -> (Initiator, Vec<u8>) {
        let mut out = Vec::new();
        let responder = self.responder.public();
        let pending =
            Initiator::start(&self.initiator, responder, [4; 32], index(0x01_02_03), &payload, &mut out)
                .expect("good keys");
        out.extend([0; MACS]);
        (pending, out)
    }

    fn respond(&self, received: Received, suite: Suite) -> (SessionKeys, Vec<u8>) {
        self.respond_with(received, suite, &ANSWER)
    }

    fn respond_with(
        &self,
        received: Received,
        suite: Suite,
        answer: &ResponsePayload,
    ) -> (SessionKeys, Vec<u8>) {
        let mut out = Vec::new();
        let keys = received
            .respond(&self.psk, [5; 32], index(0x0a_0b_0c), suite, answer, &mut out)
            .expect("good keys");
        out.extend([0; MACS]);
        (keys, out)
    }
}

const ANSWER: ResponsePayload = ResponsePayload { instance: 22, receive_buffer: 4 << 20, question: None };

fn payload() -> InitiationPayload {
    InitiationPayload {
        network: NetworkId::ad_hoc(80..=90).expect("a range"),
        timestamp: Timestamp::from_unix(Duration::from_secs(1_700_000_000)),
        instance: 11,
        receive_buffer: 1 << 20,
        suites: SuiteSet::AES_256_GCM | SuiteSet::CHACHA20_POLY1305,
        introduction: Vec::new(),
        room: 0,
    }
}

fn index(n: u32) -> SessionIndex {
    let [_, a, b, c] = n.to_be_bytes();
    SessionIndex::from_be_bytes([a, b, c])
}

fn chacha(key: &[u8; 32]) -> Box<dyn AeadKey> {
    Portable.key(Suite::ChaCha20Poly1305, key).expect("always has it")
}
