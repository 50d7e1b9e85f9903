//! The client: its allocation, and its pending requests.

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

/// Limit of immediate retries with a new signature, when the server wants another nonce.
const MAX_SIGNED: u32 = 3;

/// Shortest and longest interval between refreshes of an allocation, whatever lifetime the server names.
const REFRESH_AFTER: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1800)];

/// Interval of the binding requests, because NATs forget mappings that are silent for 30 s.
const BINDING_INTERVAL: Duration = Duration::from_secs(25);

/// The same over TCP, where nothing else shows that the other end is gone.
const KEEP_STREAM: Duration = Duration::from_secs(10);

/// A client of one TURN server, with one allocation.
///
/// After each call, take everything from [`Client::poll_transmit`] and [`Client::poll_event`]; then call
/// again when a datagram comes from the server, or at [`Client::poll_timeout`].
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
    /// True if TCP carries the messages.
    is_stream: bool,
    /// The scope of the server's address.
    scope: Scope,
    auth: Auth,
    rng: ChaCha20Rng,
    state: State,
    requests: BTreeMap<u128, Request>,
    outgoing: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    peers: Peers,
    /// The pending binding request: its transaction, and the time of the next one.
    question: (Option<u128>, Instant),
}

#[derive(Debug)]
enum State {
    Allocating,
    Allocated {
        relayed: SocketAddr,
        /// The client's endpoint as the server saw it when it last confirmed the allocation.
        mapped: Option<SocketAddr>,
        /// The endpoint as the server has seen it since, if it differs.
        moved: Option<SocketAddr>,
        refresh_at: Instant,
        until: Instant,
    },
    Ended,
}

/// Returns the scope of a server, as far as its text shows it, because a name may resolve to a private
/// address.
fn scope_of(server: &TurnServer) -> Scope {
    match server.target().host.as_str() {
        "localhost" => Scope::Machine,
        host => host.parse().map_or(Scope::Network, Scope::of),
    }
}

impl Client {
    /// Starts with a request for an allocation with an IPv4 or an IPv6 address. `seed` must be unpredictable.
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

    /// Sets the server's address: only relayed addresses with at least its scope are then accepted. Without
    /// this the text counts, if it is an address or `localhost`; for other names only loopback is refused.
    #[must_use]
    pub fn at(mut self, server: SocketAddr) -> Self {
        self.scope = Scope::of(server.ip());
        self
    }

    /// Declares that the messages go over TCP or TLS, which lose none. Call this before anything is polled.
    #[must_use]
    pub fn over_stream(mut self, now: Instant) -> Self {
        self.is_stream = true;
        let requests = std::mem::take(&mut self.requests);
        self.requests = requests.into_iter().map(|(id, request)| (id, request.once(now))).collect();
        self
    }

    /// Returns the relayed address, if there is an allocation.
    pub fn relayed(&self) -> Option<SocketAddr> {
        match self.state {
            State::Allocated { relayed, .. } => Some(relayed),
            State::Allocating | State::Ended => None,
        }
    }

    /// Wraps a datagram for a peer and appends it to `out`, for sending to the server.
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

    /// Takes a datagram of the server; the caller ensures that it comes from no other host. Returns the data
    /// if it comes from a peer.
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

    /// Handles the timers that are due.
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
                // TCP loses nothing, so the server is gone, or does not answer binding requests. A refresh
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

    /// Returns the time to call [`Client::handle_timeout`], if any.
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

    /// Returns the next datagram for the server.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives the allocation back by a last datagram for the server, whose answer is not awaited.
    pub fn close(&mut self) {
        // Drop queued datagrams, because the owner may send only one more.
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
        if self.is_stream { KEEP_STREAM } else { BINDING_INTERVAL }
    }

    /// Sends the requests that peers need.
    fn ask_due(&mut self, now: Instant) {
        while self.relayed().is_some()
            && let Some(ask) = self.peers.take_due(now)
        {
            self.ask(Purpose::Ask(ask), 0, now);
        }
    }

    /// Sends a request; `signed` is the number of earlier attempts with other nonces.
    fn ask(&mut self, purpose: Purpose, signed: u32, now: Instant) {
        let id = self.fresh_id();
        let data = self.signed(purpose, id);
        self.outgoing.push_back(data.clone());
        let request = Request::new(purpose, data, signed, self.auth.is_known(), now);
        self.requests.insert(id, if self.is_stream { request.once(now) } else { request });
    }

    /// Encodes a request, with a signature if the server wants one.
    fn signed(&self, purpose: Purpose, id: u128) -> Vec<u8> {
        let mut message = purpose.message(self.is_ipv4, id);
        self.auth.sign(&mut message);
        message.finish()
    }

    /// Retransmits a request, or gives it up.
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
        // A server that cannot sign, because the nonce is foreign or it does not understand the request,
        // refuses without a signature. Other refusals need a signature, because a router on the path could
        // otherwise end the allocation. A forger can send unsigned refusals too, so an existing allocation
        // waits for a better answer.
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
                        // Peers get this address as the node's address, so it must not denote a host of the
                        // peers' networks.
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
                    // The server now associates the allocation with the client's new endpoint.
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
            // The server does not have the allocation: RFC 8656 (5) defines this error for all requests.
            Purpose::Ask(_) if matches!(why, Failure::Refused(437, _)) => self.end(why),
            Purpose::Ask(Ask::Permission(ip)) => {
                self.peers.permitted(ip, false, now);
            }
            Purpose::Ask(Ask::Channel(peer, _)) => self.peers.bound(peer, false, now),
        }
    }

    /// Handles the server's view of the client's endpoint. If the endpoint is new, the server may not
    /// associate the allocation with it; a refresh shows that.
    fn on_mapped(&mut self, response: &Message<'_>, now: Instant) {
        self.question.0 = None;
        let Ok(seen) = response.attribute::<XorMappedAddress>() else { return };
        let seen = canonical(seen.addr(response.transaction_id()));
        let State::Allocated { mapped, moved, refresh_at, .. } = &mut self.state else { return };
        // A server that did not send the mapped address with the allocation sends it now.
        let known = *mapped.get_or_insert(seen);
        let before = std::mem::replace(moved, (known != seen).then_some(seen));
        if let Some(now_at) = *moved {
            *refresh_at = now;
            if before != Some(now_at) {
                // A refresh that left earlier shows nothing about the new endpoint.
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

/// Returns the times at which an allocation with this lifetime is refreshed, and ends.
fn lasts(seconds: u32, now: Instant) -> (Instant, Instant) {
    let lifetime = Duration::from_secs(seconds.into());
    let [soonest, latest] = REFRESH_AFTER;
    (now + (lifetime * 3 / 4).clamp(soonest, latest), now + lifetime.min(latest * 2))
}
