use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::noise::{
    InitiationPayload, Initiator, MacWriter, Received, ResponsePayload, SessionKeys, Timestamp,
};
use peersock_overlay::wire::{Beacon, Data, Hello, Initiation, MessageType, Response};
use peersock_overlay::{
    AeadKey, DATA_HEADER, DATA_OVERHEAD, DiscoveryKey, Identity, NetworkConfig, NetworkId, NodeId, Portable,
    Provider, Psk, PublicIdentity, SessionIndex, Suite, SuiteSet,
};

use crate::Random;

/// A network member who attacks one node of that network, its *target*.
///
/// The adversary takes part in handshakes and holds their keys. Its caller decides when it sends which
/// message, and it answers nothing unless told to.
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use peersock_overlay::{Identity, NetworkConfig, NetworkId};
/// use peersock_testnet::{Adversary, Random};
///
/// let network = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(80..=80).unwrap(), psk: None };
/// let target = *Identity::from_seed(&[1; 32]).public();
/// let clock = Duration::from_secs(1_800_000_000);
/// let own = Arc::new(Identity::from_seed(&[2; 32]));
/// let mut adversary = Adversary::new(own, &network, target, clock, Random::from_seed(1));
/// let initiation = adversary.initiate(Instant::now());
/// assert_eq!(initiation.len(), 198);
/// assert_eq!(adversary.seal(&[0; 7]), None, "there is no session before the target has answered");
/// ```
pub struct Adversary {
    id: NodeId,
    identity: Arc<Identity>,
    target: PublicIdentity,
    network: NetworkId,
    psk: Psk,
    discovery: DiscoveryKey,
    macs: MacWriter,
    random: Random,
    /// Timestamp of the last initiation. Each new one is later.
    next_timestamp: Duration,
    oldest_timestamp: Duration,
    instance: u64,
    /// Initiations that the target may still answer.
    pending: VecDeque<Initiator>,
    /// Initiations of the target that the adversary may still answer.
    initiations: VecDeque<Vec<u8>>,
    /// Sessions whose keys the adversary has, the newest last.
    sessions: VecDeque<Keys>,
}

struct Keys {
    index: SessionIndex,
    remote_index: SessionIndex,
    send: Box<dyn AeadKey>,
    receive: Box<dyn AeadKey>,
    counter: u64,
}

/// Meaning of a datagram from the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A response that completes a handshake. [`Adversary::seal`] works from now on.
    Session,
    /// An initiation; [`Adversary::respond`] and [`Adversary::forge_response`] answer it.
    Initiation,
    /// The plaintext of a data packet of one of the adversary's sessions.
    Plaintext(Vec<u8>),
    /// Anything else.
    Other,
}

/// Number of handshakes and sessions of each kind that the adversary remembers.
const MAX_OF_EACH_KIND: usize = 8;

impl Adversary {
    /// Makes `identity` a member of `network` that attacks `target`. `clock` is the wall clock in its
    /// initiations.
    pub fn new(
        identity: Arc<Identity>,
        network: &NetworkConfig,
        target: PublicIdentity,
        clock: Duration,
        mut random: Random,
    ) -> Self {
        Self {
            id: identity.node_id(),
            identity,
            target,
            network: network.id(),
            psk: network.psk().cloned().unwrap_or_else(Psk::open),
            discovery: network.discovery_key(),
            macs: MacWriter::new(&target.node_id()),
            next_timestamp: clock,
            oldest_timestamp: clock,
            instance: random.number(),
            random,
            pending: VecDeque::new(),
            initiations: VecDeque::new(),
            sessions: VecDeque::new(),
        }
    }

    /// Makes `identity` a client of the root `target`.
    pub fn of_root(identity: Arc<Identity>, target: PublicIdentity, clock: Duration, random: Random) -> Self {
        let any = NetworkId::ad_hoc(1..=1).expect("one port");
        let network = NetworkConfig::AdHoc { id: any, psk: None };
        Self { network: NetworkId::ROOTS, ..Self::new(identity, &network, target, clock, random) }
    }

    /// Returns the adversary's node ID.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Returns the adversary's public keys.
    pub fn identity(&self) -> &PublicIdentity {
        self.identity.public()
    }

    /// Returns the target's public keys.
    pub fn target(&self) -> &PublicIdentity {
        &self.target
    }

    /// Returns the adversary's network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Sets the instance in the next messages. Two alternating instances look like two nodes with one
    /// identity.
    pub fn set_instance(&mut self, instance: u64) {
        self.instance = instance;
    }

    /// Returns the number of sessions whose keys the adversary has.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Makes a beacon of the network.
    pub fn beacon(&mut self) -> Vec<u8> {
        let salt = self.random.bytes();
        let tags = [self.discovery.beacon_tag(&salt)];
        let mut datagram = Vec::new();
        Beacon::emit(salt, &tags, |filler| self.random.fill(filler), &mut datagram);
        datagram
    }

    /// Makes a hello in the adversary's name.
    pub fn hello(&mut self, reply_wanted: bool) -> Vec<u8> {
        let identity = *self.identity.public();
        self.hello_of(identity, reply_wanted)
    }

    /// Makes a hello in any name, because hellos prove no identity.
    pub fn hello_of(&mut self, identity: PublicIdentity, reply_wanted: bool) -> Vec<u8> {
        let hello = Hello {
            identity,
            instance: self.instance,
            reply_wanted,
            suites: SuiteSet::CHACHA20_POLY1305,
            echo: [0; 24],
        };
        let mut datagram = Vec::new();
        hello.seal(&self.discovery, self.random.bytes(), &mut datagram);
        datagram
    }

    /// Makes an initiation that is newer than all earlier ones.
    pub fn initiate(&mut self, now: Instant) -> Vec<u8> {
        self.next_timestamp += Duration::from_millis(1);
        let time = self.next_timestamp;
        self.initiation(now, time)
    }

    /// Makes an initiation that is authentic but not newer than the first. It copies no other, so the target
    /// has to read it.
    pub fn initiate_stale(&mut self, now: Instant) -> Vec<u8> {
        let time = self.oldest_timestamp;
        self.initiation(now, time)
    }

    fn initiation(&mut self, now: Instant, time: Duration) -> Vec<u8> {
        let payload = InitiationPayload {
            network: self.network,
            timestamp: Timestamp::from_unix(time),
            instance: self.instance,
            receive_buffer: 1 << 20,
            suites: SuiteSet::CHACHA20_POLY1305,
            introduction: Vec::new(),
            room: 0,
        };
        let index = SessionIndex::from_be_bytes(self.random.bytes());
        let mut datagram = Vec::new();
        let ephemeral = self.random.bytes();
        let pending =
            Initiator::start(&self.identity, &self.target, ephemeral, index, &payload, &mut datagram)
                .expect("the target's key is sound");
        self.macs.append(now, &mut datagram);
        remember(&mut self.pending, pending);
        datagram
    }

    /// Reads a datagram that the target has sent to one of the adversary's addresses.
    pub fn hear(&mut self, datagram: &[u8]) -> Heard {
        match MessageType::of(datagram) {
            Some(MessageType::Initiation) => {
                remember(&mut self.initiations, datagram.to_vec());
                Heard::Initiation
            }
            Some(MessageType::Response) => {
                let mut read = self
                    .pending
                    .iter()
                    .filter_map(|p| p.read_response(&self.identity, &self.psk, datagram).ok());
                match read.next() {
                    Some((keys, _)) => {
                        remember(&mut self.sessions, Keys::new(&keys));
                        Heard::Session
                    }
                    None => Heard::Other,
                }
            }
            Some(MessageType::Data) => self.open(datagram).map_or(Heard::Other, Heard::Plaintext),
            _ => Heard::Other,
        }
    }

    fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let data = Data::parse(datagram).ok()?;
        let keys = self.sessions.iter().find(|keys| keys.index == data.receiver)?;
        let mut plaintext = vec![0; datagram.len() - DATA_OVERHEAD];
        keys.receive.open(data.counter, data.sealed, &mut plaintext).ok()?;
        Some(plaintext)
    }

    /// Makes the response that completes the target's last initiation, and keeps the session's keys.
    pub fn respond(&mut self, now: Instant) -> Option<Vec<u8>> {
        let received = Received::read(&self.identity, self.initiations.back()?).ok()?;
        let index = SessionIndex::from_be_bytes(self.random.bytes());
        let payload = ResponsePayload { instance: self.instance, receive_buffer: 1 << 20, question: None };
        let (ephemeral, suite) = (self.random.bytes(), Suite::ChaCha20Poly1305);
        let mut datagram = Vec::new();
        let keys = received.respond(&self.psk, ephemeral, index, suite, &payload, &mut datagram).ok()?;
        self.macs.append(now, &mut datagram);
        remember(&mut self.sessions, Keys::new(&keys));
        Some(datagram)
    }

    /// Makes garbage in the form of a response to the target's last initiation, with its index and a valid
    /// MAC1.
    pub fn forge_response(&mut self, now: Instant) -> Option<Vec<u8>> {
        let index = Initiation::parse(self.initiations.back()?).ok()?.sender;
        let own = SessionIndex::from_be_bytes(self.random.bytes());
        let mut datagram = Response::header(Suite::ChaCha20Poly1305, index, own).to_vec();
        let begin = datagram.len();
        datagram.resize(Response::MIN - MACS, 0);
        self.random.fill(&mut datagram[begin..]);
        self.macs.append(now, &mut datagram);
        Some(datagram)
    }

    /// Makes a data packet with any plaintext on the newest session, if there is one.
    pub fn seal(&mut self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let keys = self.sessions.back_mut()?;
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        Data::write_header(&mut datagram, keys.remote_index, keys.counter);
        keys.send.seal(keys.counter, plaintext, &mut datagram[DATA_HEADER..]);
        keys.counter += 1;
        Some(datagram)
    }

    /// Returns the adversary's generator, which callers use to choose the next act.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

impl Keys {
    fn new(keys: &SessionKeys) -> Self {
        let key = |bytes| Portable.key(keys.suite, bytes).expect("it has every suite");
        Self {
            index: keys.index,
            remote_index: keys.remote_index,
            send: key(&keys.send),
            receive: key(&keys.receive),
            counter: 0,
        }
    }
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == MAX_OF_EACH_KIND {
        list.pop_front();
    }
    list.push_back(item);
}

/// Bytes of MAC1 and MAC2.
const MACS: usize = 32;
