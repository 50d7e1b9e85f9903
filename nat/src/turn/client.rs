//! The client: its allocation, and the requests under way.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::ChaCha20Rng};
use stun_types::attribute::{ErrorCode, XorMappedAddress};
use stun_types::message::{BINDING, Message, MessageClass, MessageWrite as _};

use super::auth::Auth;
use super::message::{self as wire, REFRESH, RELAYED_ADDRESS};
use super::peers::{Ask, Peers, Way};
use super::request::{Purpose, Request, refusal};
use super::{Event, Failure, Received, Sent, TurnServer};
use crate::quiet;
use crate::scope::Scope;
use crate::stun::canonical;

/// So often a request is signed anew at once, because the server wants another nonce.
const MAX_SIGNED: u32 = 3;

/// An allocation is refreshed so often at most, and so seldom at least, whatever lifetime the server names.
const REFRESH_AFTER: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1800)];

/// How often the server is asked as what it sees the client: NATs forget what is silent for 30 s.
const KEEP: Duration = Duration::from_secs(25);

/// The same over TCP, where nothing else shows that the other end is gone.
const KEEP_STREAM: Duration = Duration::from_secs(10);

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
    /// Whether TCP carries the messages.
    is_stream: bool,
    /// Where the server is.
    scope: Scope,
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
        /// As what the server knew the client when it last said that the allocation is there.
        mapped: Option<SocketAddr>,
        /// As what it has seen it since, if that is something else.
        moved: Option<SocketAddr>,
        refresh_at: Instant,
        until: Instant,
    },
    Ended,
}

/// Returns the scope of a server, as far as its text shows it: a name may be that of a private address.
fn scope_of(server: &TurnServer) -> Scope {
    match server.target().host.as_str() {
        "localhost" => Scope::Machine,
        host => host.parse().map_or(Scope::Network, Scope::of),
    }
}

impl Client {
    /// Begins to ask for an allocation with an IPv4 address, or with an IPv6 one. `seed` must be
    /// unpredictable.
    pub fn new(server: &TurnServer, is_ipv4: bool, seed: [u8; 32], now: Instant) -> Self {
        let mut client = Self {
            is_ipv4,
            is_stream: false,
            scope: scope_of(server),
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

    /// Says where the server is: then only relayed addresses that are as public as it are believed. Without
    /// this the name counts, if it is an address or `localhost`; of other names only loopback is refused.
    #[must_use]
    pub fn at(mut self, server: SocketAddr) -> Self {
        self.scope = Scope::of(server.ip());
        self
    }

    /// Says that TCP carries the messages, or TLS, which loses none. To be called before anything is polled.
    #[must_use]
    pub fn over_stream(mut self, now: Instant) -> Self {
        self.is_stream = true;
        let requests = std::mem::take(&mut self.requests);
        self.requests = requests.into_iter().map(|(id, request)| (id, request.once(now))).collect();
        self
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
        let message = quiet::message(datagram)?;
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
            self.repeat(id, now);
        }
        if let State::Allocated { refresh_at, until, .. } = self.state {
            let refreshes = self.requests.values().any(|request| request.purpose == Purpose::Refresh);
            if until <= now {
                self.end(Failure::Silent);
            } else if refresh_at <= now && !refreshes {
                self.ask(Purpose::Refresh, 0, now);
            }
            if self.question.1 <= now {
                // Nothing is lost over TCP: the server is gone, or does not answer such questions. A refresh
                // shows which.
                let is_doubted = self.is_stream && self.question.0.is_some();
                if is_doubted && !self.requests.values().any(|request| request.purpose == Purpose::Refresh) {
                    self.ask(Purpose::Refresh, 0, now);
                }
                let id = self.fresh_id();
                self.question = (Some(id), now + self.keep());
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
        // The owner sends one datagram more, perhaps.
        self.outgoing.clear();
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

    fn keep(&self) -> Duration {
        if self.is_stream { KEEP_STREAM } else { KEEP }
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
        let data = self.signed(purpose, id);
        self.outgoing.push_back(data.clone());
        let request = Request::new(purpose, data, signed, self.auth.is_known(), now);
        self.requests.insert(id, if self.is_stream { request.once(now) } else { request });
    }

    /// A request, with a signature if the server wants one.
    fn signed(&self, purpose: Purpose, id: u128) -> Vec<u8> {
        let mut message = purpose.message(self.is_ipv4, id);
        self.auth.sign(&mut message);
        message.finish()
    }

    /// Sends a request again, or gives it up.
    fn repeat(&mut self, id: u128, now: Instant) {
        let Some(mut request) = self.requests.remove(&id) else { return };
        if !request.repeat(now) {
            let why = request.doubtful.unwrap_or(Failure::Silent);
            return self.failed(request.purpose, why, now);
        }
        let mut id = id;
        if request.is_stale {
            id = self.fresh_id();
            (request.data, request.is_stale) = (self.signed(request.purpose, id), false);
        }
        self.outgoing.push_back(request.data.clone());
        self.requests.insert(id, request);
    }

    fn on_response(&mut self, response: &Message<'_>, now: Instant) {
        let id = u128::from(response.transaction_id());
        if self.question.0 == Some(id) {
            return self.on_mapped(response, now);
        }
        let Some(Request { purpose, signed, is_signed, .. }) = self.requests.get(&id) else { return };
        let (purpose, signed, is_signed) = (*purpose, *signed, *is_signed);
        let is_proven = !is_signed || self.auth.verifies(response);
        if !response.has_class(MessageClass::Error) {
            if is_proven {
                self.requests.remove(&id);
                self.succeeded(purpose, response, now);
            }
            return;
        }
        let (code, why) = refusal(response);
        let is_stale = match code {
            ErrorCode::STALE_NONCE => self.auth.renew(response),
            ErrorCode::UNAUTHORIZED => !is_signed && self.auth.learn(response),
            _ => false,
        };
        if is_stale && signed < MAX_SIGNED {
            self.requests.remove(&id);
            return self.ask(purpose, signed + 1, now);
        }
        // Who cannot sign, because the nonce is not its own or the request is not understood, does not. All
        // else is believed only with a signature, or a router on the way could end the allocation. A forger
        // can refuse so, too: where there is an allocation, the server has time to say otherwise.
        let needs_none =
            matches!(code, ErrorCode::BAD_REQUEST | ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE);
        if is_proven || (needs_none && purpose == Purpose::Allocate) {
            self.requests.remove(&id);
            self.failed(purpose, why, now);
        } else if needs_none && let Some(request) = self.requests.get_mut(&id) {
            request.is_stale |= is_stale;
            request.doubtful = Some(why);
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
                        && at.ip() != Ipv4Addr::BROADCAST
                        // It is told to peers as this node's, and must not mean a host of theirs.
                        && Scope::of(at.ip()) >= self.scope
                };
                let (Some(relayed), Some(lifetime)) = (relayed.filter(is_good), wire::lifetime(response))
                else {
                    return self.end(Failure::Nonsense);
                };
                let mapped = response.attribute::<XorMappedAddress>().ok();
                let mapped = mapped.map(|mapped| canonical(mapped.addr(response.transaction_id())));
                let (refresh_at, until) = lasts(lifetime, now);
                self.state = State::Allocated { relayed, mapped, moved: None, refresh_at, until };
                self.question = (None, now + self.keep());
                self.events.push_back(Event::Allocated(relayed));
            }
            Purpose::Refresh => {
                let Some(lifetime) = wire::lifetime(response) else { return self.end(Failure::Nonsense) };
                if let State::Allocated { mapped, moved, refresh_at, until, .. } = &mut self.state {
                    (*refresh_at, *until) = lasts(lifetime, now);
                    // The server goes on with the client where it is now.
                    *mapped = moved.take().or(*mapped);
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
        let State::Allocated { mapped, moved, refresh_at, .. } = &mut self.state else { return };
        // A server that did not say it with the allocation says it now.
        let known = *mapped.get_or_insert(seen);
        let before = std::mem::replace(moved, (known != seen).then_some(seen));
        if let Some(now_at) = *moved {
            *refresh_at = now;
            if before != Some(now_at) {
                // One that left earlier shows nothing of the new address.
                self.requests.retain(|_, request| request.purpose != Purpose::Refresh);
            }
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
