//! The test vectors to which `docs/reference/PROTOCOL.md` refers, made from fixed seeds and compared with the
//! committed ones.
//!
//! After a deliberate change of the protocol, `PEERSOCK_WRITE_VECTORS=1 cargo test -p peersock-overlay --test
//! protocol_vectors` rewrites `vectors/protocol.json`.
#![cfg(feature = "aws-lc")]

mod managed;
mod messages;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use peersock_overlay::noise::{
    CookieJar, InitiationPayload, Initiator, MacWriter, Received, ResponsePayload, SessionKeys, Timestamp,
};
use peersock_overlay::wire::{Beacon, Data, Hello, UnknownSession};
use peersock_overlay::{
    AwsLc, DATA_HEADER, DATA_OVERHEAD, DiscoveryKey, Identity, NetworkId, Provider, Psk, SessionIndex, Suite,
    SuiteSet,
};
use serde_json::{Value, json};

#[test]
fn committed_vectors_are_what_the_code_does() {
    let sections = sections();
    let json = format!("{:#}\n", as_json(&sections));
    if std::env::var_os("PEERSOCK_WRITE_VECTORS").is_some() {
        std::fs::write(json_path(), json).expect("can write the vectors");
        return;
    }
    let committed = std::fs::read_to_string(json_path()).expect("vectors/protocol.json is there");
    assert_eq!(committed, json, "vectors/protocol.json is not what the code does");
}

/// A titled list of named values.
struct Section {
    title: &'static str,
    values: Vec<(&'static str, String)>,
}

impl Section {
    fn new(title: &'static str) -> Self {
        Self { title, values: Vec::new() }
    }

    fn hex(&mut self, name: &'static str, bytes: impl AsRef<[u8]>) {
        self.values.push((name, HEXLOWER.encode(bytes.as_ref())));
    }

    fn text(&mut self, name: &'static str, value: impl ToString) {
        self.values.push((name, value.to_string()));
    }
}

fn sections() -> Vec<Section> {
    let world = World::new();
    let (handshake, keys) = world.handshake();
    let [statements, questions] = managed::sections(&world.b, &world.a);
    vec![
        world.node("Node A, the initiator", &world.a, 1),
        world.node("Node B, the responder", &world.b, 2),
        world.discovery(),
        handshake,
        world.question(),
        world.cookie(),
        world.stale(),
        world.data(&keys),
        messages::control(),
        messages::candidates(),
        messages::of_roots(),
        statements,
        questions,
    ]
}

/// Two nodes on one secret ad-hoc network.
struct World {
    a: Identity,
    b: Identity,
    network: NetworkId,
    psk: Psk,
    now: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any time will do; no vector depends on it")]
    fn new() -> Self {
        Self {
            a: Identity::from_seed(&[1; 32]),
            b: Identity::from_seed(&[2; 32]),
            network: "ff1f901f99000000".parse().expect("an ad-hoc ID"),
            psk: Psk::new([3; 32]),
            now: Instant::now(),
        }
    }

    fn node(&self, title: &'static str, identity: &Identity, seed: u8) -> Section {
        let public = identity.public();
        let mut section = Section::new(title);
        section.hex("seed", [seed; 32]);
        section.hex("X25519 public key", public.x25519());
        section.hex("Ed25519 public key", public.ed25519());
        section.text("public identity", public);
        section.text("node ID", identity.node_id());
        section.text("network", self.network);
        section.text("address in it", self.network.address_of(&identity.node_id()));
        section
    }

    fn discovery(&self) -> Section {
        let mut section = Section::new("Discovery");
        let key = DiscoveryKey::new(self.network, Some(&self.psk), None);
        let open = DiscoveryKey::new(self.network, None, None);
        let static_network = "fe00000000000001".parse().expect("a static ID");
        let members = [self.a.node_id(), self.b.node_id()];
        let of_static = DiscoveryKey::new(static_network, None, Some(&members));
        section.hex("pre-shared key", [3; 32]);
        section.hex("salt", [0x10; 16]);
        section.hex("tag", key.beacon_tag(&[0x10; 16]));
        section.hex("tag without pre-shared key", open.beacon_tag(&[0x10; 16]));
        section.hex("tag of static network fe00000000000001 of A and B", of_static.beacon_tag(&[0x10; 16]));

        let mut beacon = Vec::new();
        Beacon::emit([0x10; 16], &[key.beacon_tag(&[0x10; 16])], |rest| rest.fill(0x77), &mut beacon);
        section.hex("beacon, its other 15 tags all 77", &beacon);

        let hello = Hello {
            identity: *self.a.public(),
            instance: 0x1111_2222_3333_4444,
            reply_wanted: true,
            suites: suites(),
            echo: [0; 24],
        };
        let mut datagram = Vec::new();
        hello.seal(&key, [0x11; 24], &mut datagram);
        section.hex("hello of A, reply wanted, nonce 11..", &datagram);
        section
    }

    /// Returns a handshake for each suite. Both give the same keys, because only the hash binds the suite.
    fn handshake(&self) -> (Section, SessionKeys) {
        let mut section = Section::new("Handshake of A with B");
        let (pending, initiation) = self.initiate();
        section.hex("ephemeral secret of A", [4; 32]);
        section.hex("initiation", &initiation);
        section.hex("ephemeral secret of B", [5; 32]);
        for (suite, [response_name, hash_name]) in [
            (Suite::ChaCha20Poly1305, ["response, ChaCha20-Poly1305", "handshake hash, ChaCha20-Poly1305"]),
            (Suite::Aes256Gcm, ["response, AES-256-GCM", "handshake hash, AES-256-GCM"]),
        ] {
            let received = Received::read(&self.b, &initiation).expect("A's own");
            let answer = answer();
            let mut response = Vec::new();
            let theirs = received
                .respond(&self.psk, [5; 32], index([0x0a, 0x0b, 0x0c]), suite, &answer, &mut response)
                .expect("good keys");
            MacWriter::new(&self.a.node_id()).append(self.now, &mut response);
            section.hex(response_name, &response);
            section.hex(hash_name, theirs.hash);

            let (ours, said) = pending.read_response(&self.a, &self.psk, &response).expect("B's own");
            assert_eq!(said, answer);
            assert_eq!((ours.send, ours.receive), (theirs.receive, theirs.send));
            if suite == Suite::Aes256Gcm {
                section.hex("key from A to B", ours.send);
                section.hex("key from B to A", ours.receive);
                return (section, ours);
            }
        }
        unreachable!("AES-256-GCM is the last in the list")
    }

    /// Returns the same handshake, with a question of B in its response.
    fn question(&self) -> Section {
        let mut section = Section::new("Handshake of A with B by a root");
        let (pending, initiation) = self.initiate_with_room(200);
        let received = Received::read(&self.b, &initiation).expect("A's own");
        let question = messages::candidates_of_b();
        let mut plaintext = Vec::new();
        question.emit(&mut plaintext);
        let answer = ResponsePayload { question: Some(question), ..answer() };
        let mut response = Vec::new();
        let (index, suite) = (index([0x0a, 0x0b, 0x0c]), Suite::ChaCha20Poly1305);
        received.respond(&self.psk, [5; 32], index, suite, &answer, &mut response).expect("good keys");
        MacWriter::new(&self.a.node_id()).append(self.now, &mut response);
        section.hex("initiation with room of 200 bytes", &initiation);
        section.hex("question of B (plaintext)", &plaintext);
        section.hex("response with it, ChaCha20-Poly1305", &response);
        let (_, said) = pending.read_response(&self.a, &self.psk, &response).expect("B's own");
        assert_eq!(said, answer);
        section
    }

    fn initiate(&self) -> (Initiator, Vec<u8>) {
        self.initiate_with_room(0)
    }

    fn initiate_with_room(&self, room: usize) -> (Initiator, Vec<u8>) {
        let payload = InitiationPayload {
            network: self.network,
            timestamp: Timestamp::from_unix(Duration::new(1_700_000_000, 123_456_789)),
            instance: 0x1111_2222_3333_4444,
            receive_buffer: 0x10_0000,
            suites: suites(),
            introduction: Vec::new(),
            room,
        };
        let mut initiation = Vec::new();
        let pending =
            Initiator::start(&self.a, self.b.public(), [4; 32], index([1, 2, 3]), &payload, &mut initiation)
                .expect("good keys");
        MacWriter::new(&self.b.node_id()).append(self.now, &mut initiation);
        (pending, initiation)
    }

    /// Returns B's cookie for A, and A's initiation with it.
    fn cookie(&self) -> Section {
        let mut section = Section::new("Cookie from B for A at 192.0.2.1:5000");
        let remote: SocketAddr = "192.0.2.1:5000".parse().expect("an address");
        let jar = CookieJar::new(&self.b.node_id(), [6; 32], self.now);
        let (_, initiation) = self.initiate();
        let without_macs = initiation.len() - 32;
        let mut writer = MacWriter::new(&self.b.node_id());
        let mut message = initiation[..without_macs].to_vec();
        writer.append(self.now, &mut message);
        assert_eq!(message, initiation);

        let reply = jar.reply(self.now, remote, &message, index([1, 2, 3]), [7; 24]).expect("long enough");
        let mut datagram = Vec::new();
        reply.emit(&mut datagram);
        section.hex("B's cookie seed", [6; 32]);
        section.hex("cookie reply to the initiation, nonce 07..", &datagram);
        assert!(writer.receive_cookie(self.now, &reply));
        message.truncate(without_macs);
        writer.append(self.now, &mut message);
        assert!(jar.check_mac2(self.now, remote, &message));
        section.hex("MAC2 of the same initiation, sent again", &message[without_macs + 16..]);
        section
    }

    /// Returns B's stale reply: B has read a newer initiation of A before this one.
    fn stale(&self) -> Section {
        let mut section = Section::new("Stale reply from B to A");
        let (pending, initiation) = self.initiate();
        let received = Received::read(&self.b, &initiation).expect("A's own");
        let newest = Timestamp::from_unix(Duration::new(1_800_000_000, 5));
        let reply = received.stale_reply(newest, [8; 24]);
        assert_eq!(pending.read_stale_reply(&reply), Some(newest));
        let mut datagram = Vec::new();
        reply.emit(&mut datagram);
        section.hex("newest timestamp, 1,800,000,000.000000005 s", newest.as_bytes());
        section.hex("stale reply to the initiation, nonce 08..", &datagram);
        section
    }

    /// Returns the first packets from A to B, with the same keys in both suites.
    fn data(&self, keys: &SessionKeys) -> Section {
        let mut section = Section::new("Data from A to B");
        let packet = HEXLOWER.decode(b"60000000000011400102030405060708").expect("hex");
        section.hex("plaintext of counter 1", &packet);
        for (suite, names) in [
            (
                Suite::ChaCha20Poly1305,
                ["ChaCha20-Poly1305, counter 0, keepalive", "ChaCha20-Poly1305, counter 1"],
            ),
            (Suite::Aes256Gcm, ["AES-256-GCM, counter 0, keepalive", "AES-256-GCM, counter 1"]),
        ] {
            let key = AwsLc.key(suite, &keys.send).expect("AWS-LC has both");
            for (counter, (name, plaintext)) in names.into_iter().zip([&[][..], &packet]).enumerate() {
                let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
                Data::write_header(&mut datagram, keys.remote_index, counter as u64);
                key.seal(counter as u64, plaintext, &mut datagram[DATA_HEADER..]);
                section.hex(name, &datagram);
                if (suite, counter) == (Suite::Aes256Gcm, 1) {
                    let mut reply = Vec::new();
                    assert!(UnknownSession::answer(&datagram, &mut reply));
                    section.hex("unknown session, to the last of these", &reply);
                }
            }
        }
        section
    }
}

fn answer() -> ResponsePayload {
    ResponsePayload { instance: 0x5555_6666_7777_8888, receive_buffer: 0x40_0000, question: None }
}

fn suites() -> SuiteSet {
    SuiteSet::AES_256_GCM | SuiteSet::CHACHA20_POLY1305 | SuiteSet::FAST_AES
}

fn index(bytes: [u8; 3]) -> SessionIndex {
    SessionIndex::from_be_bytes(bytes)
}

fn as_json(sections: &[Section]) -> Value {
    let one = |section: &Section| {
        let values: Vec<Value> =
            section.values.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({ "section": section.title, "values": values })
    };
    sections.iter().map(one).collect()
}

fn json_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/protocol.json")
}
