//! Client of a root, made of the overlay's handshake and message types.

use std::time::{Duration, Instant};

use peersock_overlay::noise::{InitiationPayload, Initiator, MacWriter, SessionKeys, Timestamp};
use peersock_overlay::wire::{
    Channel, Control, CookieReply, DATA_OVERHEAD, Data, LookUpKey, MessageType, Registration, RelayToken,
    Relayed, RootMessage,
};
use peersock_overlay::{
    AeadKey, DATA_HEADER, Identity, NetworkId, Psk, PublicIdentity, SessionIndex, Suite, SuiteSet,
    default_provider,
};

use super::{World, config};
use crate::Source;

pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) source: Source,
    pub(crate) suites: SuiteSet,
    pub(crate) network: NetworkId,
    /// Timestamp of its next initiation, in seconds.
    pub(crate) time: u64,
    pub(crate) sequence: u64,
    pub(crate) access: Vec<u8>,
    pub(crate) token: RelayToken,
    pub(crate) channel: Channel,
    root: PublicIdentity,
    index: u32,
    macs: MacWriter,
    keys: Option<Keys>,
}

struct Keys {
    send: Box<dyn AeadKey>,
    receive: Box<dyn AeadKey>,
    remote: SessionIndex,
    next: u64,
    suite: Suite,
}

/// Initiation that waits for its response.
pub(crate) struct Begun {
    initiator: Initiator,
    pub(crate) datagram: Vec<u8>,
}

impl Node {
    pub(crate) fn new(seed: u8, source: Source) -> Self {
        Self::of(Identity::from_seed(&[seed; 32]), source)
    }

    pub(crate) fn of(identity: Identity, source: Source) -> Self {
        Self {
            identity,
            source,
            suites: SuiteSet::AES_256_GCM | SuiteSet::CHACHA20_POLY1305 | SuiteSet::FAST_AES,
            network: NetworkId::ROOTS,
            time: 1_700_000_000,
            sequence: 1_700_000_000_000,
            access: Vec::new(),
            token: RelayToken::from_be_bytes([0; 3]),
            channel: Channel(0),
            root: *config().identity.public(),
            index: 0,
            macs: MacWriter::new(&config().identity.node_id()),
            keys: None,
        }
    }

    /// Makes it a node of another root.
    #[allow(dead_code, reason = "tests of several roots use it")]
    pub(crate) fn use_root(&mut self, root: PublicIdentity) {
        self.macs = MacWriter::new(&root.node_id());
        self.root = root;
    }

    /// Builds an initiation to the root.
    pub(crate) fn begin(&mut self, now: Instant) -> Begun {
        self.time += 1;
        self.index += 1;
        let payload = InitiationPayload {
            network: self.network,
            timestamp: Timestamp::from_unix(Duration::from_secs(self.time)),
            instance: 1,
            receive_buffer: 1 << 20,
            suites: self.suites,
            introduction: Vec::new(),
            room: 0,
        };
        let [.., a, b, c] = self.index.to_be_bytes();
        let index = SessionIndex::from_be_bytes([a, b, c]);
        let root = self.root;
        let mut datagram = Vec::new();
        let initiator =
            Initiator::start(&self.identity, &root, [self.index as u8; 32], index, &payload, &mut datagram)
                .expect("a good key");
        self.macs.append(now, &mut datagram);
        Begun { initiator, datagram }
    }

    pub(crate) fn take_cookie(&mut self, now: Instant, reply: &[u8]) -> bool {
        self.macs.receive_cookie(now, &CookieReply::parse(reply).expect("a cookie reply"))
    }

    pub(crate) fn finish(&mut self, begun: &Begun, response: &[u8]) {
        let (keys, _) =
            begun.initiator.read_response(&self.identity, &Psk::open(), response).expect("a response");
        self.keys = Some(Keys::new(&keys));
    }

    /// Makes a session, and shows that it has the keys.
    pub(crate) fn connect(&mut self, world: &mut World) {
        let begun = self.begin(world.now);
        let sent = world.send(self.source, &begun.datagram);
        let [(to, response)] = &sent[..] else { panic!("one response, not {sent:?}") };
        assert_eq!((*to, MessageType::of(response)), (self.source, Some(MessageType::Response)));
        self.finish(&begun, response);
        assert_eq!(world.send(self.source, &self.seal(&[0; 10])), []);
    }

    /// Registers and stores the answer.
    pub(crate) fn register(&mut self, world: &mut World, lifetime: u32) {
        let answer = self.ask_to_register(world, lifetime);
        let Some(RootMessage::Registered(answer)) = answer else { panic!("registered, not {answer:?}") };
        (self.token, self.channel) = (answer.token, answer.channel);
    }

    pub(crate) fn ask_to_register(&mut self, world: &mut World, lifetime: u32) -> Option<RootMessage> {
        let message = self.registration(lifetime);
        self.ask(world, &message)
    }

    /// Builds the next registration message.
    pub(crate) fn registration(&mut self, lifetime: u32) -> RootMessage {
        self.sequence += 1;
        let root = self.root.node_id();
        let registration = Registration::sign(&self.identity, &root, self.sequence, lifetime);
        RootMessage::Register { registration, access: self.access.clone() }
    }

    pub(crate) fn look_up(&mut self, world: &mut World, key: LookUpKey) -> Option<RootMessage> {
        self.ask(world, &RootMessage::LookUp { id: 77, key })
    }

    /// Sends a message and returns the answer, if any.
    pub(crate) fn ask(&mut self, world: &mut World, message: &RootMessage) -> Option<RootMessage> {
        let datagram = self.seal_message(message);
        let sent = world.send(self.source, &datagram);
        let answer = sent.iter().find(|(to, _)| *to == self.source)?;
        Some(RootMessage::parse(&self.open(&answer.1)?).expect("a message of roots"))
    }

    pub(crate) fn seal_message(&mut self, message: &RootMessage) -> Vec<u8> {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.seal(&plaintext)
    }

    pub(crate) fn seal_control(&mut self, message: Control) -> Vec<u8> {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.seal(&plaintext)
    }

    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_mut().expect("a session");
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        Data::write_header(&mut datagram, keys.remote, keys.next);
        keys.send.seal(keys.next, plaintext, &mut datagram[DATA_HEADER..]);
        keys.next += 1;
        datagram
    }

    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let (data, keys) = (Data::parse(datagram).ok()?, self.keys.as_ref()?);
        let mut plaintext = vec![0; datagram.len() - DATA_OVERHEAD];
        keys.receive.open(data.counter, data.sealed, &mut plaintext).ok()?;
        Some(plaintext)
    }

    pub(crate) fn suite(&self) -> Option<Suite> {
        self.keys.as_ref().map(|keys| keys.suite)
    }

    /// Builds a frame for the node with that channel.
    pub(crate) fn frame(&self, to: Channel, inner: &[u8]) -> Vec<u8> {
        [&Relayed { token: self.token, channel: to }.to_bytes()[..], inner].concat()
    }
}

impl Keys {
    fn new(keys: &SessionKeys) -> Self {
        let provider = default_provider();
        let key = |bytes| provider.key(keys.suite, bytes).expect("a suite that was offered");
        Self {
            send: key(&keys.send),
            receive: key(&keys.receive),
            remote: keys.remote_index,
            next: 0,
            suite: keys.suite,
        }
    }
}
