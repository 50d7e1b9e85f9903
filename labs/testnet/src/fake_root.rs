use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_overlay::noise::{MacWriter, Received, ResponsePayload, SessionKeys};
use peersock_overlay::wire::{
    Channel, Control, Data, Entry, LookUpKey, MessageType, NicknameMessage, NicknameOwner, NotFound,
    NoticeCode, Referral, Registered, Registration, RelayToken, Relayed, RootMessage, RootRecord, Voucher,
};
use peersock_overlay::{
    AeadKey, DATA_HEADER, DATA_OVERHEAD, Identity, NetworkId, Nickname, NodeId, Portable, Provider, Psk,
    PublicIdentity, SessionIndex, Suite,
};

use crate::Random;

/// A root that serves nodes, or lies to them. It has no limits, so it is not fit for the Internet.
pub struct FakeRoot {
    identity: Identity,
    unix_time: Duration,
    random: Random,
    sessions: BTreeMap<SessionIndex, RootSession>,
    clients: BTreeMap<NodeId, Client>,
    /// Owners of nicknames. The last claim wins.
    nicknames: BTreeMap<Nickname, NicknameOwner>,
    /// The last frames passed on, if the root repeats them.
    passed: Out,
    /// The lies of this root.
    pub lies: Lies,
    /// Numbers of relayed datagrams and of their bytes.
    pub relayed: (usize, usize),
    /// Number of look-ups received.
    pub look_ups: usize,
    /// Number of registrations received.
    pub registrations: usize,
    /// Access data in the last registration.
    pub shown: Vec<u8>,
    /// All datagrams received, and the opened content of those for the root. `None` unless the test records
    /// them.
    pub heard: Option<Vec<Vec<u8>>>,
    /// Referrals for nodes that the root does not have, with the pass for the other root.
    pub referrals: Vec<(Referral, [u8; 32])>,
}

/// Misbehaviour of a root.
#[derive(Debug, Clone, Default)]
pub struct Lies {
    /// Look-ups of any node find this entry.
    pub entry: Option<Entry>,
    /// Look-ups find the right node with a wrong channel.
    pub wrong_channel: bool,
    /// The root takes frames and passes none on.
    pub swallows: bool,
    /// The root passes no frames on, and reports each as over the rate.
    pub over_rate: bool,
    /// Vouchers are signed by another identity.
    pub wrong_voucher: bool,
    /// Relayed frames appear to come from a channel that no node has.
    pub wrong_origin: bool,
    /// Frames go to the first client that is not their receiver, which may be their sender.
    pub misdelivers: bool,
    /// The last few frames are repeated unchanged with each new frame.
    pub repeats: bool,
    /// Vouchers are for this address, validly signed.
    pub seen_at: Option<SocketAddr>,
    /// The root says that it relays only handshakes and a few messages.
    pub is_scarce: bool,
    /// The root refuses all registrations.
    pub refuses: bool,
    /// The root registers only nodes that show this access data.
    pub wants: Option<[u8; 32]>,
    /// Every nickname belongs to this owner, or has none.
    pub owner: Option<Option<NicknameOwner>>,
}

struct RootSession {
    keys: SessionKeys,
    send: Box<dyn AeadKey>,
    receive: Box<dyn AeadKey>,
    counter: u64,
    client: PublicIdentity,
    made: Instant,
}

struct Client {
    identity: PublicIdentity,
    address: SocketAddr,
    token: RelayToken,
    channel: Channel,
    registration: Registration,
}

type Out = Vec<(SocketAddr, Vec<u8>)>;

impl FakeRoot {
    /// Makes a root with these keys and no registered nodes.
    pub fn new(identity: Identity, unix_time: Duration, random: Random) -> Self {
        Self {
            identity,
            unix_time,
            random,
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            nicknames: BTreeMap::new(),
            lies: Lies::default(),
            passed: Vec::new(),
            relayed: (0, 0),
            look_ups: 0,
            registrations: 0,
            shown: Vec::new(),
            heard: None,
            referrals: Vec::new(),
        }
    }

    /// Returns the root's public keys.
    pub fn identity(&self) -> &PublicIdentity {
        self.identity.public()
    }

    /// Returns the root's entry for a registered node.
    pub fn entry(&self, node: &NodeId) -> Option<Entry> {
        let client = self.clients.get(node)?;
        let Client { identity, channel, registration, .. } = *client;
        Some(Entry { identity, channel, registration })
    }

    /// Returns the referral that another root of the same set would give for a node registered here. This
    /// root listens at `endpoints`.
    pub fn referral(&self, node: &NodeId, endpoints: &str) -> Option<Referral> {
        let Client { identity, registration, .. } = *self.clients.get(node)?;
        let root = RootRecord::sign(&self.identity, self.unix_time.as_secs(), endpoints)?;
        Some(Referral { identity, registration, root })
    }

    /// Forgets all sessions and registrations, as a restart would.
    pub fn restart(&mut self) {
        self.sessions.clear();
        self.clients.clear();
    }

    /// Forgets only registrations, and notifies each node.
    pub fn forget_clients(&mut self) -> Out {
        let clients = std::mem::take(&mut self.clients);
        let notice = RootMessage::Notice { code: NoticeCode::NotRegistered, channel: Channel(0) };
        let tell = |(node, client): (&NodeId, &Client)| {
            let session = self.sessions.values_mut().rfind(|one| one.client.node_id() == *node)?;
            Some((client.address, session.say(&notice)))
        };
        clients.iter().filter_map(tell).collect()
    }

    /// Sends a registered node its registration again without a request, with another relay token.
    pub fn register_again(&mut self, node: &NodeId) -> Out {
        let token = RelayToken::from_be_bytes(self.random.bytes());
        if let Some(client) = self.clients.get_mut(node) {
            client.token = token;
        }
        let Some(message) = self.registered(node) else { return Vec::new() };
        self.say(node, &message)
    }

    /// Sends a message to a node in its newest session.
    pub fn say(&mut self, node: &NodeId, message: &RootMessage) -> Out {
        let Some(client) = self.clients.get(node) else { return Vec::new() };
        let session = self.sessions.values_mut().filter(|one| one.client.node_id() == *node);
        let session = session.max_by_key(|session| session.made);
        session.map(|session| (client.address, session.say(message))).into_iter().collect()
    }

    /// Handles a datagram. Returns the answers and the relayed datagrams.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Out {
        let opened = self.heard.is_some().then(|| self.open(datagram)).flatten();
        if let Some(heard) = &mut self.heard {
            heard.push(datagram.to_vec());
            heard.extend(opened.map(|(_, plaintext)| plaintext));
        }
        match MessageType::of(datagram) {
            Some(MessageType::Initiation) => self.respond(now, from, datagram).into_iter().collect(),
            Some(MessageType::Data) => self.on_data(from, datagram),
            Some(MessageType::Relayed) => self.relay(from, datagram),
            _ => Vec::new(),
        }
    }

    fn respond(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let received = Received::read(&self.identity, datagram).ok()?;
        if received.payload().network != NetworkId::ROOTS {
            return None;
        }
        let index = SessionIndex::from_be_bytes(self.random.bytes());
        let payload = ResponsePayload { instance: 1, receive_buffer: 1 << 20, question: None };
        let (ephemeral, suite) = (self.random.bytes(), Suite::ChaCha20Poly1305);
        let client = *received.initiator();
        let mut response = Vec::new();
        let keys = received.respond(&Psk::open(), ephemeral, index, suite, &payload, &mut response).ok()?;
        MacWriter::new(&client.node_id()).append(now, &mut response);
        self.sessions.insert(index, RootSession::new(keys, client, now));
        Some((from, response))
    }

    fn on_data(&mut self, from: SocketAddr, datagram: &[u8]) -> Out {
        let Some((index, plaintext)) = self.open(datagram) else { return Vec::new() };
        let node = self.sessions[&index].client.node_id();
        // This message does not move the client's address.
        if RootMessage::parse(&plaintext) == Ok(RootMessage::Vouch) {
            let say = self.clients.contains_key(&node).then(|| self.voucher(&node, from));
            let session = self.sessions.get_mut(&index).expect("it was there just now");
            let say = say.map(|voucher| Say::Root(RootMessage::Vouched(voucher)));
            return say.into_iter().map(|say| (from, session.say_any(&say))).collect();
        }
        let has_moved = self.clients.get_mut(&node).is_some_and(|client| {
            let before = std::mem::replace(&mut client.address, from);
            before != from
        });
        let answer = match RootMessage::parse(&plaintext) {
            Ok(message) => self.answer(index, from, message),
            Err(_) => match Control::parse(&plaintext) {
                Ok(Control::Challenge { data, .. }) => Some(Say::Control(Control::Answer { data })),
                Ok(Control::Probe { id, .. }) => {
                    Some(Say::Control(Control::ProbeAck { id, size: datagram.len() as u16 }))
                }
                Ok(Control::Close { .. }) => {
                    self.clients.remove(&node);
                    None
                }
                _ => None,
            },
        };
        // Tell a node that has moved where the root sees it now.
        let moved = has_moved.then(|| self.registered(&node)).flatten().map(Say::Root);
        let session = self.sessions.get_mut(&index).expect("it was there just now");
        answer.into_iter().chain(moved).map(|say| (from, session.say_any(&say))).collect()
    }

    fn open(&self, datagram: &[u8]) -> Option<(SessionIndex, Vec<u8>)> {
        let data = Data::parse(datagram).ok()?;
        let session = self.sessions.get(&data.receiver)?;
        let mut plaintext = vec![0; datagram.len() - DATA_OVERHEAD];
        session.receive.open(data.counter, data.sealed, &mut plaintext).ok()?;
        Some((data.receiver, plaintext))
    }

    fn answer(&mut self, index: SessionIndex, from: SocketAddr, message: RootMessage) -> Option<Say> {
        let identity = self.sessions[&index].client;
        match message {
            RootMessage::Register { registration, access } => {
                self.registrations += 1;
                self.shown = access;
                let is_stranger = !self.clients.contains_key(&identity.node_id());
                let lacks = |wanted: [u8; 32]| is_stranger && self.shown != wanted;
                if self.lies.refuses || self.lies.wants.is_some_and(lacks) {
                    let notice = RootMessage::Notice { code: NoticeCode::Refused, channel: Channel(0) };
                    return Some(Say::Root(notice));
                }
                let node = identity.node_id();
                registration.verify(&identity, &self.identity.node_id()).then_some(())?;
                let (token, channel) = match self.clients.get(&node) {
                    Some(known) => (known.token, known.channel),
                    None => (RelayToken::from_be_bytes(self.random.bytes()), Channel(self.random.number())),
                };
                self.clients.insert(node, Client { identity, address: from, token, channel, registration });
                self.registered(&node).map(Say::Root)
            }
            RootMessage::LookUp { id, key } => {
                self.look_ups += 1;
                let is_there = |(referral, _): &&(Referral, _)| key.matches(&referral.identity.node_id());
                if self.find(&key).is_err()
                    && let Some((referral, pass)) = self.referrals.iter().find(is_there)
                {
                    let referral = Box::new(referral.clone());
                    return Some(Say::Root(RootMessage::Referred { id, pass: *pass, referral }));
                }
                Some(Say::Root(RootMessage::Found { id, result: self.find(&key) }))
            }
            RootMessage::Nickname(message) => self.on_nickname(identity, message),
            _ => None,
        }
    }

    fn on_nickname(&mut self, identity: PublicIdentity, message: NicknameMessage) -> Option<Say> {
        let answer = match message {
            NicknameMessage::Claim { nickname, claim } => {
                self.nicknames.insert(nickname, NicknameOwner { identity, claim });
                NicknameMessage::Claimed { sequence: claim.sequence, result: Ok(claim.lifetime) }
            }
            NicknameMessage::Find { id, nickname } => {
                let owner = self.lies.owner.unwrap_or_else(|| self.nicknames.get(&nickname).copied());
                NicknameMessage::Found { id, result: owner.ok_or(NotFound::Unknown) }
            }
            _ => return None,
        };
        Some(Say::Root(RootMessage::Nickname(answer)))
    }

    /// Returns the answer to a registered node.
    fn registered(&self, node: &NodeId) -> Option<RootMessage> {
        let Client { address, token, channel, registration, .. } = *self.clients.get(node)?;
        Some(RootMessage::Registered(Registered {
            sequence: registration.sequence,
            lifetime: registration.lifetime,
            relays: !self.lies.is_scarce,
            drains: false,
            token,
            channel,
            rate: 0,
            voucher: self.voucher(node, address),
            tcp: None,
        }))
    }

    /// Returns a voucher for a node that the root sees at this address.
    fn voucher(&self, node: &NodeId, address: SocketAddr) -> Voucher {
        let stranger = Identity::from_seed(&[0xee; 32]);
        let signer = if self.lies.wrong_voucher { &stranger } else { &self.identity };
        Voucher::sign(signer, node, self.unix_time.as_secs(), self.lies.seen_at.unwrap_or(address))
    }

    fn find(&mut self, key: &LookUpKey) -> Result<Entry, NotFound> {
        if let Some(entry) = self.lies.entry {
            return Ok(entry);
        }
        let found = self.clients.keys().find(|node| key.matches(node)).copied();
        let mut entry = found.and_then(|node| self.entry(&node)).ok_or(NotFound::Unknown)?;
        if self.lies.wrong_channel {
            entry.channel.0 ^= 1;
        }
        Ok(entry)
    }

    fn relay(&mut self, from: SocketAddr, frame: &[u8]) -> Out {
        let Ok((header, datagram)) = Relayed::parse(frame) else { return Vec::new() };
        let sender = self.clients.values().find(|client| client.address == from);
        let Some(sender) = sender.filter(|client| client.token == header.token) else { return Vec::new() };
        let (node, mut origin) = (sender.identity.node_id(), sender.channel);
        let receiver = self.clients.values().find(|client| client.channel == header.channel);
        let Some(receiver) = receiver.filter(|_| !self.lies.over_rate) else {
            let code = if receiver.is_some() { NoticeCode::OverRate } else { NoticeCode::NoChannel };
            let notice = RootMessage::Notice { code, channel: header.channel };
            let session = self.sessions.values_mut().rfind(|one| one.client.node_id() == node);
            return session.map(|session| (from, session.say(&notice))).into_iter().collect();
        };
        if self.lies.swallows {
            return Vec::new();
        }
        let others = || self.clients.values().find(|client| client.channel != header.channel);
        let receiver = others().filter(|_| self.lies.misdelivers).unwrap_or(receiver);
        self.relayed = (self.relayed.0 + 1, self.relayed.1 + datagram.len());
        if self.lies.wrong_origin {
            origin = Channel(self.random.number());
        }
        let front = Relayed { token: receiver.token, channel: origin }.to_bytes();
        let frame = (receiver.address, [&front[..], datagram].concat());
        if !self.lies.repeats {
            return vec![frame];
        }
        self.passed.push(frame);
        self.passed.drain(..self.passed.len().saturating_sub(MAX_REPEATED_FRAMES));
        self.passed.iter().rev().cloned().collect()
    }
}

/// Number of frames that a repeating root keeps.
const MAX_REPEATED_FRAMES: usize = 10;

enum Say {
    Root(RootMessage),
    Control(Control),
}

impl RootSession {
    fn new(keys: SessionKeys, client: PublicIdentity, made: Instant) -> Self {
        let key = |bytes| Portable.key(keys.suite, bytes).expect("it has every suite");
        let (send, receive) = (key(&keys.send), key(&keys.receive));
        Self { keys, send, receive, counter: 0, client, made }
    }

    fn say(&mut self, message: &RootMessage) -> Vec<u8> {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.seal(&plaintext)
    }

    fn say_any(&mut self, say: &Say) -> Vec<u8> {
        let mut plaintext = Vec::new();
        match say {
            Say::Root(message) => message.emit(&mut plaintext),
            Say::Control(message) => message.emit(&mut plaintext),
        }
        self.seal(&plaintext)
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        Data::write_header(&mut datagram, self.keys.remote_index, self.counter);
        self.send.seal(self.counter, plaintext, &mut datagram[DATA_HEADER..]);
        self.counter += 1;
        datagram
    }
}
