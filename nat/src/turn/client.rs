//! The client: its allocation, and the requests under way.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::ChaCha20Rng};
use stun_types::attribute::{AlternateServer, ErrorCode, XorMappedAddress};
use stun_types::message::{BINDING, Message, MessageClass, MessageWrite as _, MessageWriteVec};

use super::auth::Auth;
use super::message::{
    self as wire, ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, PEER_ADDRESS, REFRESH, RELAYED_ADDRESS,
};
use super::peers::{Ask, Peers, Way};
use super::{Failure, TurnServer};
use crate::stun::canonical;

/// RFC 8489 (6.2.1): the first repetition of a request; the wait doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// So often a request is sent; it is given up after 15.5 s. RFC 8489 has seven and 39.5 s, which is longer
/// than anybody waits for a path.
const TIMES: u32 = 5;

/// So often a request is signed anew, because the server wants another nonce.
const MAX_SIGNED: u32 = 3;

/// The lifetime that is asked for, seconds: RFC 8656's default.
const LIFETIME: u32 = 600;

/// An allocation is refreshed so often at most, and so seldom at least, whatever lifetime the server names.
const REFRESH_AFTER: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1800)];

/// How often the server is asked as what it sees the client: NATs forget what is silent for 30 s.
const KEEP: Duration = Duration::from_secs(25);

/// A client of one TURN server, with one allocation.
///
/// After each call, take everything from [`Client::poll_transmit`] and [`Client::poll_event`]; then call
/// again when something comes from the server, or at [`Client::poll_timeout`].
///
/// ```
/// use std::time::Instant;
/// use peersock_nat::turn::{Client, Sent};
///
/// let now = Instant::now();
/// let mut client = Client::new(&"turn:alice:sesame@192.0.2.1".parse()?, true, [7; 32], now);
/// assert!(client.poll_transmit().is_some(), "it asks for an allocation at once");
/// let mut out = Vec::new();
/// assert_eq!(client.send(now, "198.51.100.7:4000".parse()?, b"too early", &mut out), Sent::Dropped);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    is_ipv4: bool,
    auth: Auth,
    rng: ChaCha20Rng,
    state: State,
    requests: BTreeMap<u128, Request>,
    outgoing: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    peers: Peers,
    /// The question as what the server sees the client: its transaction, and when the next one is due.
    question: (Option<u128>, Instant),
}

#[derive(Debug)]
enum State {
    Allocating,
    Allocated {
        relayed: SocketAddr,
        /// As what the server saw the client.
        mapped: Option<SocketAddr>,
        refresh_at: Instant,
        until: Instant,
    },
    Ended,
}

/// What happens to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server relays at this address.
    Allocated(SocketAddr),
    /// There is no allocation, or none any more. Nothing follows.
    Ended(Failure),
}

/// What came from the server for the client's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The peer that has sent it to the relayed address, as the server says.
    pub peer: SocketAddr,
    /// What it has sent.
    pub data: &'a [u8],
}

/// What has become of a datagram to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was appended, wrapped, to be sent to the server.
    Written,
    /// It waits for the server's permission, and is sent then. Two for each address wait at most.
    Held,
    /// It was dropped: there is no allocation, the server does not want it, or too many peers have
    /// permissions.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Allocate,
    Refresh,
    Ask(Ask),
}

#[derive(Debug)]
struct Request {
    purpose: Purpose,
    data: Vec<u8>,
    next: Instant,
    wait: Duration,
    left: u32,
    /// How often it was signed anew.
    signed: u32,
    is_signed: bool,
}

impl Client {
    /// Begins to ask for an allocation with an IPv4 address, or with an IPv6 one. `seed` must be
    /// unpredictable.
    pub fn new(server: &TurnServer, is_ipv4: bool, seed: [u8; 32], now: Instant) -> Self {
        let mut client = Self {
            is_ipv4,
            auth: Auth::new(server.user(), server.password()),
            rng: ChaCha20Rng::from_seed(seed),
            state: State::Allocating,
            requests: BTreeMap::new(),
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            peers: Peers::default(),
            question: (None, now),
        };
        client.ask(Purpose::Allocate, 0, now);
        client
    }

    /// The relayed address, if there is an allocation.
    pub fn relayed(&self) -> Option<SocketAddr> {
        match self.state {
            State::Allocated { relayed, .. } => Some(relayed),
            State::Allocating | State::Ended => None,
        }
    }

    /// A datagram of the next peer, for the server: appends it to `out`, wrapped.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, data: &[u8], out: &mut Vec<u8>) -> Sent {
        let peer = canonical(peer);
        let is_possible = peer.is_ipv4() == self.is_ipv4 && peer.port() != 0 && !peer.ip().is_multicast();
        if self.relayed().is_none() || !is_possible || peer.ip().is_unspecified() {
            return Sent::Dropped;
        }
        let length = out.len();
        match self.peers.send(peer, data, now) {
            Way::Channel(number) => wire::emit_channel(number, data, out),
            Way::Indication => wire::emit_send(peer, data, self.fresh_id(), out),
            Way::Held => {
                self.ask_due(now);
                return Sent::Held;
            }
            Way::No => return Sent::Dropped,
        }
        if out.len() > length { Sent::Written } else { Sent::Dropped }
    }

    /// Takes a datagram of the server; the caller has seen to it that no other's is given. Returns what a
    /// peer has sent, if that is what it is.
    pub fn handle<'a>(&mut self, now: Instant, datagram: &'a [u8]) -> Option<Received<'a>> {
        if let Some((number, data)) = wire::channel_of(datagram) {
            let peer = self.peers.by_number(number, now)?;
            return Some(Received { peer, data });
        }
        let message = Message::from_bytes(datagram).ok()?;
        if let Some((peer, data)) = wire::data_of(&message, datagram) {
            return self.peers.heard(peer, now).then_some(Received { peer, data });
        }
        if message.is_response() {
            self.on_response(&message, now);
            self.ask_due(now);
        }
        None
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<_> =
            self.requests.iter().filter(|(_, one)| one.next <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            if request.left > 0 {
                request.left -= 1;
                request.wait *= 2;
                request.next = now + request.wait;
                self.outgoing.push_back(request.data.clone());
            } else if let Some(request) = self.requests.remove(&id) {
                self.failed(request.purpose, Failure::Silent, now);
            }
        }
        if let State::Allocated { refresh_at, until, .. } = self.state {
            let refreshes = self.requests.values().any(|request| request.purpose == Purpose::Refresh);
            if until <= now {
                self.end(Failure::Silent);
            } else if refresh_at <= now && !refreshes {
                self.ask(Purpose::Refresh, 0, now);
            }
            if self.question.1 <= now {
                let id = self.fresh_id();
                self.question = (Some(id), now + KEEP);
                self.outgoing.push_back(wire::request(BINDING, id).finish());
            }
        }
        self.ask_due(now);
    }

    /// When to call [`Client::handle_timeout`], if ever.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let requests = self.requests.values().map(|request| request.next);
        let own = match self.state {
            State::Allocated { refresh_at, until, .. } => {
                let refreshes = self.requests.values().any(|request| request.purpose == Purpose::Refresh);
                let refresh = if refreshes { until } else { refresh_at.min(until) };
                Some(refresh.min(self.question.1))
            }
            State::Allocating | State::Ended => None,
        };
        let peers = self.peers.next(now).filter(|_| self.relayed().is_some());
        requests.chain(own).chain(peers).min()
    }

    /// The next datagram for the server.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives the allocation back, by a last datagram for the server; nobody waits for its answer.
    pub fn close(&mut self) {
        if self.relayed().is_some() {
            let id = self.fresh_id();
            let mut message = wire::request(REFRESH, id);
            wire::add_lifetime(&mut message, 0);
            self.auth.sign(&mut message);
            self.outgoing.push_back(message.finish());
        }
        self.state = State::Ended;
        self.requests.clear();
    }

    fn fresh_id(&mut self) -> u128 {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes[4..]);
        u128::from_be_bytes(bytes)
    }

    /// Asks for what peers need.
    fn ask_due(&mut self, now: Instant) {
        while self.relayed().is_some()
            && let Some(ask) = self.peers.take_due(now)
        {
            self.ask(Purpose::Ask(ask), 0, now);
        }
    }

    /// Sends a request, which was signed so often with another nonce.
    fn ask(&mut self, purpose: Purpose, signed: u32, now: Instant) {
        let id = self.fresh_id();
        let mut message = self.request(purpose, id);
        self.auth.sign(&mut message);
        let data = message.finish();
        self.outgoing.push_back(data.clone());
        let is_signed = self.auth.is_known();
        let (next, wait, left) = (now + FIRST_WAIT, FIRST_WAIT, TIMES - 1);
        self.requests.insert(id, Request { purpose, data, next, wait, left, signed, is_signed });
    }

    fn request(&self, purpose: Purpose, id: u128) -> MessageWriteVec {
        match purpose {
            Purpose::Allocate => {
                let mut message = wire::request(ALLOCATE, id);
                wire::add_transport(&mut message);
                wire::add_lifetime(&mut message, LIFETIME);
                // RFC 8656 (7.1): without it the server gives an IPv4 address.
                if !self.is_ipv4 {
                    wire::add_ipv6(&mut message);
                }
                message
            }
            Purpose::Refresh => {
                let mut message = wire::request(REFRESH, id);
                wire::add_lifetime(&mut message, LIFETIME);
                message
            }
            Purpose::Ask(Ask::Permission(ip)) => {
                let mut message = wire::request(CREATE_PERMISSION, id);
                wire::add_address(&mut message, PEER_ADDRESS, SocketAddr::new(ip, 0), id);
                message
            }
            Purpose::Ask(Ask::Channel(peer, number)) => {
                let mut message = wire::request(CHANNEL_BIND, id);
                wire::add_channel(&mut message, number);
                wire::add_address(&mut message, PEER_ADDRESS, peer, id);
                message
            }
        }
    }

    fn on_response(&mut self, response: &Message<'_>, now: Instant) {
        let id = u128::from(response.transaction_id());
        if self.question.0 == Some(id) {
            return self.on_mapped(response, now);
        }
        let Some(request) = self.requests.get(&id) else { return };
        let error = response.has_class(MessageClass::Error).then(|| response.attribute::<ErrorCode>());
        let code = error.as_ref().map(|error| error.as_ref().map_or(0, ErrorCode::code));
        // Who cannot sign, because the nonce is not its own or the request is not understood, does not. All
        // else is believed only with a signature, or a router on the way could end the allocation.
        let needs_none =
            matches!(code, Some(ErrorCode::BAD_REQUEST | ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE));
        if request.is_signed && !needs_none && !self.auth.verifies(response) {
            return;
        }
        let Some(Request { purpose, signed, is_signed, .. }) = self.requests.remove(&id) else { return };
        match (error, code) {
            (None, _) => self.succeeded(purpose, response, now),
            (_, Some(ErrorCode::STALE_NONCE)) if signed < MAX_SIGNED && self.auth.learn(response) => {
                self.ask(purpose, signed + 1, now);
            }
            (_, Some(ErrorCode::UNAUTHORIZED)) if !is_signed && self.auth.learn(response) => {
                self.ask(purpose, signed + 1, now);
            }
            (_, Some(ErrorCode::UNAUTHORIZED | ErrorCode::WRONG_CREDENTIALS)) => {
                self.failed(purpose, Failure::Unauthorized, now);
            }
            (_, Some(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)) => {
                self.failed(purpose, Failure::NoFamily, now)
            }
            (_, Some(ErrorCode::TRY_ALTERNATE)) => {
                let other = response.attribute::<AlternateServer>().map(|other| canonical(other.server()));
                self.failed(purpose, other.map_or(Failure::Nonsense, Failure::Elsewhere), now);
            }
            (Some(Ok(error)), _) => {
                // It is shown to people, and the server chooses it.
                let text = error.reason().chars().filter(|c| !c.is_control()).take(100).collect();
                self.failed(purpose, Failure::Refused(error.code(), text), now);
            }
            (Some(Err(_)), _) => self.failed(purpose, Failure::Nonsense, now),
        }
    }

    fn succeeded(&mut self, purpose: Purpose, response: &Message<'_>, now: Instant) {
        match purpose {
            Purpose::Allocate => {
                let relayed = wire::address(response, RELAYED_ADDRESS);
                let is_good = |at: &SocketAddr| {
                    at.is_ipv4() == self.is_ipv4
                        && at.port() != 0
                        && !at.ip().is_unspecified()
                        && !at.ip().is_multicast()
                };
                let (Some(relayed), Some(lifetime)) = (relayed.filter(is_good), wire::lifetime(response))
                else {
                    return self.end(Failure::Nonsense);
                };
                let mapped = response.attribute::<XorMappedAddress>().ok();
                let mapped = mapped.map(|mapped| canonical(mapped.addr(response.transaction_id())));
                let (refresh_at, until) = lasts(lifetime, now);
                self.state = State::Allocated { relayed, mapped, refresh_at, until };
                self.question = (None, now + KEEP);
                self.events.push_back(Event::Allocated(relayed));
            }
            Purpose::Refresh => {
                let Some(lifetime) = wire::lifetime(response) else { return };
                if let State::Allocated { refresh_at, until, .. } = &mut self.state {
                    (*refresh_at, *until) = lasts(lifetime, now);
                }
            }
            Purpose::Ask(Ask::Permission(ip)) => {
                for (peer, data) in self.peers.permitted(ip, true, now) {
                    let mut out = Vec::new();
                    if self.send(now, peer, &data, &mut out) == Sent::Written {
                        self.outgoing.push_back(out);
                    }
                }
            }
            Purpose::Ask(Ask::Channel(peer, _)) => self.peers.bound(peer, true, now),
        }
    }

    fn failed(&mut self, purpose: Purpose, why: Failure, now: Instant) {
        match purpose {
            Purpose::Allocate | Purpose::Refresh => self.end(why),
            // The server does not have the allocation: RFC 8656 (5) has this error for all requests.
            Purpose::Ask(_) if matches!(why, Failure::Refused(437, _)) => self.end(why),
            Purpose::Ask(Ask::Permission(ip)) => {
                self.peers.permitted(ip, false, now);
            }
            Purpose::Ask(Ask::Channel(peer, _)) => self.peers.bound(peer, false, now),
        }
    }

    /// The server says as what it sees the client. If that is something new, it does not know the allocation
    /// by it, which a refresh shows.
    fn on_mapped(&mut self, response: &Message<'_>, now: Instant) {
        self.question.0 = None;
        let Ok(seen) = response.attribute::<XorMappedAddress>() else { return };
        let seen = canonical(seen.addr(response.transaction_id()));
        if let State::Allocated { mapped: Some(mapped), refresh_at, .. } = &mut self.state
            && *mapped != seen
        {
            *refresh_at = now;
            self.handle_timeout(now);
        }
    }

    fn end(&mut self, why: Failure) {
        self.state = State::Ended;
        self.requests.clear();
        self.outgoing.clear();
        self.events.push_back(Event::Ended(why));
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("state", &self.state)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// When an allocation with this lifetime is refreshed, and when it ends.
fn lasts(seconds: u32, now: Instant) -> (Instant, Instant) {
    let lifetime = Duration::from_secs(seconds.into());
    let [soonest, latest] = REFRESH_AFTER;
    (now + (lifetime * 3 / 4).clamp(soonest, latest), now + lifetime.min(latest * 2))
}
