//! The client against a server built on the STUN library, in virtual time.

mod hostile;
mod peers;
mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use stun_types::attribute::{
    AlternateServer, AttributeType, ErrorCode, Nonce, RawAttribute, Realm, Username, XorMappedAddress,
    XorSocketAddr,
};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials,
    MessageType, MessageWrite as _, MessageWriteExt as _, MessageWriteVec, Method, TransactionId,
};

use super::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND};
use super::*;

const RELAYED: &str = "203.0.113.9:50000";
const MAPPED: &str = "198.51.100.7:4000";
const PEER: &str = "192.0.2.1:7000";

const CHANNEL_NUMBER: AttributeType = AttributeType::new(0x000c);
const LIFETIME: AttributeType = AttributeType::new(0x000d);
const PEER_ADDRESS: AttributeType = AttributeType::new(0x0012);
const DATA_VALUE: AttributeType = AttributeType::new(0x0013);
const RELAYED_ADDRESS: AttributeType = AttributeType::new(0x0016);
const FAMILY: AttributeType = AttributeType::new(0x0017);

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A server with one allocation, as a client sees it.
struct Server {
    nonce: &'static str,
    mapped: SocketAddr,
    relayed: &'static str,
    realm: &'static str,
    /// Error codes with which it refuses requests, by method.
    refuses: BTreeMap<u16, u16>,
    signs: bool,
    /// True if it names the lifetime of a refreshed allocation.
    names_lifetime: bool,
    is_silent: bool,
    knows_binding: bool,
    /// Number of datagrams that have arrived, answered or not.
    asked: usize,
    /// The methods of the requests that it has answered, and of indications.
    seen: Vec<Method>,
    channel: Option<u16>,
    /// Datagrams that were sent to peers.
    passed: Vec<(String, Vec<u8>)>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            nonce: "first",
            mapped: at(MAPPED),
            relayed: RELAYED,
            realm: "realm",
            refuses: BTreeMap::new(),
            signs: true,
            names_lifetime: true,
            is_silent: false,
            knows_binding: true,
            asked: 0,
            seen: Vec::new(),
            channel: None,
            passed: Vec::new(),
        }
    }
}

impl Server {
    fn key() -> MessageIntegrityCredentials {
        LongTermKeyCredentials::new("alice".into(), "sesame".into(), "realm".into()).into()
    }

    fn count(&self, method: Method) -> usize {
        self.seen.iter().filter(|seen| **seen == method).count()
    }

    /// Answers a datagram without logging, because tests examine the client's log only.
    fn handle(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        tracing::dispatcher::with_default(&tracing::Dispatch::none(), || self.answer(datagram))
    }

    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.asked += 1;
        if self.is_silent {
            return None;
        }
        if datagram[0] & 0xc0 == 0x40 {
            assert_eq!(Some(u16::from_be_bytes([datagram[0], datagram[1]])), self.channel);
            self.passed.push(("channel".into(), datagram[4..].to_vec()));
            return None;
        }
        let message = Message::from_bytes(datagram).expect("the client sends STUN messages");
        self.seen.push(message.method());
        let address = |kind| {
            let raw = message.raw_attribute(kind).expect("the address of a peer");
            XorSocketAddr::from_raw(&raw).expect("an address").addr(message.transaction_id())
        };
        if message.has_method(SEND) {
            let data = message.raw_attribute(DATA_VALUE).expect("data").value.to_vec();
            self.passed.push((address(PEER_ADDRESS).to_string(), data));
            return None;
        }
        if message.has_method(BINDING) && !self.knows_binding {
            return None;
        }
        if message.has_method(BINDING) {
            let mut answer = Message::builder_success(&message, MessageWriteVec::new());
            answer.add_attribute(&XorMappedAddress::new(self.mapped, message.transaction_id())).unwrap();
            return Some(answer.finish());
        }
        let Ok(nonce) = message.attribute::<Nonce>() else { return Some(self.refuse(&message, 401, false)) };
        if nonce.nonce() != self.nonce {
            return Some(self.refuse(&message, 438, false));
        }
        if message.validate_integrity(&Self::key()).is_err() {
            return Some(self.refuse(&message, 401, false));
        }
        assert_eq!(message.attribute::<Username>().expect("signed").username(), "alice");
        if let Some(code) = self.refuses.get(&message.method().value()) {
            return Some(self.refuse(&message, *code, true));
        }
        let mut answer = Message::builder_success(&message, MessageWriteVec::new());
        let id = message.transaction_id();
        match message.method() {
            ALLOCATE => {
                answer
                    .add_attribute(&XorSocketAddr::new(at(self.relayed), id).to_raw(RELAYED_ADDRESS))
                    .unwrap();
                answer.add_attribute(&XorMappedAddress::new(self.mapped, id)).unwrap();
                answer.add_attribute(&RawAttribute::new(LIFETIME, &600u32.to_be_bytes())).unwrap();
            }
            REFRESH if !self.names_lifetime => {}
            REFRESH => answer.add_attribute(&RawAttribute::new(LIFETIME, &600u32.to_be_bytes())).unwrap(),
            CHANNEL_BIND => {
                let number = message.raw_attribute(CHANNEL_NUMBER).expect("a number").value.to_vec();
                self.channel = Some(u16::from_be_bytes([number[0], number[1]]));
            }
            CREATE_PERMISSION => {}
            other => panic!("no server knows {other:?}"),
        }
        if self.signs {
            answer.add_message_integrity(&Self::key(), IntegrityAlgorithm::Sha1).unwrap();
        }
        Some(answer.finish())
    }

    fn refuse(&self, request: &Message<'_>, code: u16, is_signed: bool) -> Vec<u8> {
        let mut answer = Message::builder_error(request, MessageWriteVec::new());
        answer.add_attribute(&ErrorCode::builder(code).reason("no\u{7}").build().unwrap()).unwrap();
        if code == 300 {
            answer.add_attribute(&AlternateServer::new(at("192.0.2.77:3478"))).unwrap();
        }
        answer.add_attribute(&Realm::new(self.realm).unwrap()).unwrap();
        answer.add_attribute(&Nonce::new(self.nonce).unwrap()).unwrap();
        if is_signed && self.signs {
            answer.add_message_integrity(&Self::key(), IntegrityAlgorithm::Sha1).unwrap();
        }
        answer.finish()
    }

    fn data(peer: &str, data: &[u8]) -> Vec<u8> {
        let id = TransactionId::from(9);
        let kind = MessageType::from_class_method(MessageClass::Indication, DATA);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        message.add_attribute(&XorSocketAddr::new(at(peer), id).to_raw(PEER_ADDRESS)).unwrap();
        message.add_attribute(&RawAttribute::new(DATA_VALUE, data)).unwrap();
        message.finish()
    }
}

struct World {
    client: Client,
    server: Server,
    now: Instant,
}

impl World {
    fn new(server: Server) -> Self {
        Self::with(server, "turn:alice:sesame@h", true)
    }

    /// Makes a world in which the client's first request is lost.
    fn silent(host: &str) -> Self {
        let server = Server { is_silent: true, ..Server::default() };
        Self::with(server, &format!("turn:alice:sesame@{host}"), true)
    }

    fn with(server: Server, text: &str, is_ipv4: bool) -> Self {
        Self::by(server, text, is_ipv4, |client, _| client)
    }

    fn over_stream(server: Server) -> Self {
        Self::by(server, "turn:alice:sesame@h?transport=tcp", true, Client::over_stream)
    }

    fn by(server: Server, text: &str, is_ipv4: bool, set: fn(Client, Instant) -> Client) -> Self {
        let now = Instant::now();
        let client = Client::new(&text.parse().expect("a server"), is_ipv4, [7; 32], now);
        let client = set(client, now);
        let mut world = Self { client, server, now };
        world.exchange();
        world
    }

    fn exchange(&mut self) {
        for _ in 0..100 {
            let Some(datagram) = self.client.poll_transmit() else { return };
            if let Some(answer) = self.server.handle(&datagram) {
                assert_eq!(self.client.handle(self.now, &answer), None);
            }
        }
        panic!("client and server do not come to an end");
    }

    fn send(&mut self, peer: &str, data: &[u8]) -> Sent {
        let mut out = Vec::new();
        let sent = self.client.send(self.now, at(peer), data, &mut out);
        if sent == Sent::Written {
            assert_eq!(self.server.handle(&out), None);
        }
        self.exchange();
        sent
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.client.poll_timeout(self.now).filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.client.handle_timeout(self.now);
            self.exchange();
        }
        self.now = end;
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_allocation_is_made_with_credentials_and_kept() {
    let mut world = World::new(Server::default());
    assert_eq!(world.events(), [Event::Allocated(at(RELAYED))]);
    assert_eq!(world.server.seen, [ALLOCATE, ALLOCATE]);
    world.pass(60 * MINUTE);
    assert_eq!((world.events(), world.client.relayed()), (vec![], Some(at(RELAYED))));
    assert_eq!(world.server.count(REFRESH), 8, "each 450 s");
    assert_eq!(world.server.count(BINDING), 144, "each 25 s");
    world.client.close();
    world.exchange();
    assert_eq!((world.server.count(REFRESH), world.client.relayed()), (9, None));
    assert_eq!(world.client.poll_timeout(world.now), None);
}

#[test]
fn a_wrong_password_is_tried_once() {
    let mut world = World::with(Server::default(), "turn:alice:simsim@h", true);
    assert_eq!(world.events(), [Event::Ended(Failure::Unauthorized)]);
    world.pass(60 * MINUTE);
    assert_eq!(world.server.seen, [ALLOCATE, ALLOCATE]);
}

#[test]
fn what_a_server_refuses_is_said() {
    let cases = [
        (300, Failure::Elsewhere(at("192.0.2.77:3478"))),
        (437, Failure::Refused(437, "no".into())),
        (440, Failure::NoFamily),
        (441, Failure::Unauthorized),
        (486, Failure::Refused(486, "no".into())),
    ];
    for (code, why) in cases {
        let refuses = [(ALLOCATE.value(), code)].into();
        let mut world = World::new(Server { refuses, ..Server::default() });
        assert_eq!(world.events(), [Event::Ended(why)]);
    }
    let mut world = World::new(Server { is_silent: true, ..Server::default() });
    world.pass(Duration::from_secs(15));
    assert_eq!(world.events(), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.events(), [Event::Ended(Failure::Silent)]);
    let mut world = World::new(Server { relayed: "0.0.0.0:5", ..Server::default() });
    assert_eq!(world.events(), [Event::Ended(Failure::Nonsense)]);
}

#[test]
fn answers_without_a_signature_are_no_answers() {
    let mut world = World::new(Server { signs: false, ..Server::default() });
    assert_eq!(world.events(), []);
    let mut world = World::new(Server::default());
    world.events();
    world.server.signs = false;
    world.server.refuses = [(REFRESH.value(), 437)].into();
    world.pass(Duration::from_secs(456));
    assert_eq!(world.events(), [], "anybody can say that");
    world.server.signs = true;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.events(), [Event::Ended(Failure::Refused(437, "no".into()))]);
}

#[test]
fn a_new_nonce_is_used_and_endless_ones_are_not() {
    let mut world = World::new(Server::default());
    world.server.nonce = "second";
    assert_eq!(world.send(PEER, b"hello"), Sent::Held);
    assert_eq!(world.server.count(CREATE_PERMISSION), 2);
    assert_eq!(world.server.passed, [(PEER.to_owned(), b"hello".to_vec())]);

    let mut world = World::new(Server { refuses: [(ALLOCATE.value(), 438)].into(), ..Server::default() });
    assert!(world.server.seen.len() <= 5, "{:?}", world.server.seen);
    assert!(matches!(world.events()[..], [Event::Ended(Failure::Refused(438, _))]));
}

#[test]
fn an_ipv6_address_is_asked_for_and_serves_ipv6_peers() {
    let server = Server { relayed: "[2001:db8::9]:50000", ..Server::default() };
    let mut world = World::with(server, "turn:alice:sesame@h", false);
    assert_eq!(world.events(), [Event::Allocated(at("[2001:db8::9]:50000"))]);
    assert_eq!(world.send(PEER, b"x"), Sent::Dropped);
    assert_eq!(world.send("[2001:db8::1]:7", b"x"), Sent::Held);
    assert_eq!(world.server.passed, [("[2001:db8::1]:7".to_owned(), b"x".to_vec())]);
    let now = world.now;
    let mut client = Client::new(&"turn:alice:sesame@h".parse().unwrap(), false, [7; 32], now);
    let request = client.poll_transmit().expect("a request");
    let message = Message::from_bytes(&request).expect("a message");
    assert_eq!(message.raw_attribute(FAMILY).expect("a family").value.to_vec(), [2, 0, 0, 0]);
    // An IPv4 address does not satisfy the request.
    let mut world = World::with(Server::default(), "turn:alice:sesame@h", false);
    assert_eq!(world.events(), [Event::Ended(Failure::Nonsense)]);
}

#[test]
fn a_client_that_has_moved_notices_it() {
    let mut world = World::new(Server::default());
    world.events();
    world.server.mapped = at("198.51.100.7:4001");
    world.server.refuses = [(REFRESH.value(), 437)].into();
    world.pass(Duration::from_secs(26));
    assert_eq!(world.events(), [Event::Ended(Failure::Refused(437, "no".into()))]);
}

#[test]
fn an_allocation_that_outlives_a_move_is_refreshed_for_it_once() {
    let mut world = World::new(Server::default());
    world.pass(Duration::from_secs(26));
    assert_eq!(world.server.count(REFRESH), 0, "nothing has changed");
    for (moves, port) in [(1, 4001), (2, 4002), (3, 4000)] {
        // The server continues under the new address, as one behind a proxy does.
        world.server.mapped = at(&format!("198.51.100.7:{port}"));
        world.pass(Duration::from_secs(26));
        assert_eq!(world.server.count(REFRESH), moves);
        world.pass(2 * MINUTE);
        assert_eq!(world.server.count(REFRESH), moves, "it is known by that address now");
    }
    assert_eq!(world.events(), [Event::Allocated(at(RELAYED))]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..4usize) {
        let mut world = World::new(Server::default());
        world.send(PEER, b"x");
        let mut datagram = Server::data(PEER, b"data");
        let method = [DATA, ALLOCATE, REFRESH, BINDING][kind].value();
        datagram[..2].copy_from_slice(&method.to_be_bytes());
        let at = bytes.len() % datagram.len();
        datagram.splice(at.., bytes.iter().copied());
        world.client.handle(world.now, &datagram);
        world.client.handle(world.now, &bytes);
        prop_assert_eq!(world.client.relayed(), Some(self::at(RELAYED)));
    }

    #[test]
    fn any_data_arrives_as_it_was_sent(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut world = World::new(Server::default());
        prop_assert_eq!(world.send(PEER, &data), Sent::Held);
        let passed = std::mem::take(&mut world.server.passed);
        prop_assert_eq!(passed, vec![(PEER.to_owned(), data.clone())]);
        let mut out = Vec::new();
        prop_assert_eq!(world.client.send(world.now, at(PEER), &data, &mut out), Sent::Written);
        prop_assert!(out.len() <= data.len() + MAX_OVERHEAD);
        let answer = Server::data(PEER, &data);
        let received = world.client.handle(world.now, &answer).map(|received| received.data.to_vec());
        prop_assert_eq!(received, Some(data));
    }
}
