//! The control state machine: known peers, the ways to them, and their sessions.
//!
//! # How it works
//!
//! A node **learns** of a peer from a static network's list, by local discovery (`discovery`), or from the
//! peer's own handshake. That makes a `Peer` with *candidates*, places where it may be (`reach`). Nothing
//! more happens until a program wants to talk to it.
//!
//! Each peer is a [`Link`](crate::link), a separate machine that gets the datagrams, calls and deadlines that
//! concern it (`dispatch`). [`Endpoint::want_session`] starts an **attempt**: an initiation to every
//! candidate, repeated with a growing interval until a response comes. The first response decides the path.
//! The initiator confirms the session at once by a packet on it; before that the responder does not use it.
//! If both sides begin at the same time, each answers the other, and packets use the newest confirmed
//! session. A session in use is replaced every two minutes; an unused one is forgotten after three.
//!
//! The module [`reach`](crate::reach) decides where a node is and which way to it is best: one machine per
//! node, whose path all its peers use. Data unanswered for too long, a hint that the peer has lost the
//! session, a hello with another instance number, or an ICMP error (`hints`) starts a new attempt. None of
//! them ends the existing session, because none is authenticated. When this node's own address changes it
//! tells its peers (`announce`).
//!
//! A node found neither on a local network nor at a known address is looked up at the **roots** (`roots`),
//! and reached through one.
//!
//! The layer above is told what it cannot see: that a peer's program is gone ([`Event::PeerGone`]), and that
//! packets pass after a time in which they may have been lost ([`Event::PathConfirmed`]). Both follow from
//! authentic packets; only refusals that continue while a peer is silent count without one.
//!
//! Strangers' packets are counted, limited and forgotten (`load`, `reach`). They cost little, occupy only
//! bounded memory, and never make this node send more to an address than came from there.

mod announce;
mod asking;
mod backlog;
mod config;
mod contacts;
mod credentials;
mod discovery;
mod dispatch;
mod duplicates;
mod eviction;
mod extra_sockets;
mod forgetting;
mod guests;
mod hints;
mod limiter;
mod load;
mod log;
mod look_ups;
mod members;
mod networks;
mod nicknames;
mod nodes;
mod peers;
mod programs;
mod readdress;
mod relays;
mod responder;
mod responses;
mod revocations;
mod root_checks;
mod root_sessions;
mod roots;
mod rules;
mod streams;
mod tcp;
mod views;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroize;

pub use config::{EndpointConfig, JoinError, Limits, Lookup, NetworkInfo, PeerInfo};
pub use limiter::{Limiter, prefix_of, provider_of};
pub use load::{Admission, HandshakeLoad};
pub use readdress::AddressError;
pub use responder::Recent;

use crate::bucket::{Bucket, Rate};
use crate::contact::{Allowances, Birthday, OwnContact, TcpStreams};
use crate::counters::Counters;
use crate::crypto::KeySource;
use crate::id::NodeId;
use crate::link::{Clock, Core, Duplicate, Event, Link, Outbox, Standstills, Timer, Timers, Transmit, apart};
use crate::network::is_endpoint;
use crate::noise::CookieJar;
use crate::reach::{RecvMeta, SocketInfo};
use crate::routes::Routes;
use crate::session::{SessionTable, Watched};
use crate::wire::MessageType;
use announce::Announcement;
use backlog::Backlog;
use discovery::Discovery;
use networks::Networks;
use nodes::Nodes;
use peers::Peers;
use roots::Roots;

/// All control state of one node. Performs no I/O, reads no clock, spawns no thread.
///
/// Mutate, then drain: after any call that takes `&mut self`, call [`Endpoint::poll_transmit`] and
/// [`Endpoint::poll_event`] until they return `None`, then ask [`Endpoint::poll_timeout`] when to call
/// [`Endpoint::handle_timeout`]. Iteration order, random numbers and time all come from the arguments, so the
/// same calls give the same datagrams.
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use peersock_overlay::{Endpoint, EndpointConfig, Identity, NetworkConfig, NetworkId};
///
/// # fn now() -> Instant { Instant::now() }
/// let now = now();
/// let config = EndpointConfig::new(Arc::new(Identity::from_seed(&[7; 32])));
/// let mut node = Endpoint::new(config, [1; 32], now, Duration::from_secs(1_800_000_000));
/// let network = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(8080..=8089)?, psk: None };
/// let index = node.join(now, network).expect("a good network");
///
/// let mut datagram = Vec::new();
/// while let Some(transmit) = node.poll_transmit(now, &mut datagram) {
///     println!("send {} bytes to {}", transmit.len, transmit.place);
/// }
/// while let Some(event) = node.poll_event() {
///     println!("{event:?}");
/// }
/// println!("wake up at {:?}", node.poll_timeout());
/// assert_eq!(node.addresses(index).len(), 1);
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
pub struct Endpoint {
    own_id: NodeId,
    limits: Limits,
    /// True if hellos, which identify this node, are sent.
    introduce: bool,
    core: Core,
    routes: Arc<Routes>,
    networks: Networks,
    roots: Roots,
    next_network: u32,
    peers: Peers,
    nodes: Nodes,
    load: HandshakeLoad,
    /// Budget for initiations handled as they come.
    at_once: Bucket,
    backlog: Backlog,
    hints: load::HintLimits,
    cookies: CookieJar,
    recent: Recent,
    discovery: Discovery,
    announcement: Announcement,
    /// Detector for another node with this node's identity.
    duplicate: Duplicate,
    refusals_logged: Bucket,
    /// Time of the last warning that a non-member was refused.
    stranger_told: Option<Instant>,
}

/// Maximum number of deadlines handled in one call of [`Endpoint::handle_timeout`]; further ones are due at
/// once again.
const TIMERS_PER_CALL: usize = 256;

impl Endpoint {
    /// Creates a node that has joined no network and has no socket yet.
    ///
    /// `seed` is 32 random bytes used for nothing else: all randomness, keys included, comes from it and from
    /// [`EndpointConfig::entropy`]. `unix_time` is the wall clock at `now`; later steps of the wall clock do
    /// not matter, because the endpoint's clock advances with `now`.
    pub fn new(config: EndpointConfig, mut seed: [u8; 32], now: Instant, unix_time: Duration) -> Self {
        // The seed has just been drawn for this purpose alone, so it is as good as fresh entropy.
        let mut keys = KeySource::new(&seed);
        seed.zeroize();
        let mut rng = ChaCha20Rng::from_seed(*keys.draw_from_seed());
        let own_id = config.identity.node_id();
        let limits = config.limits;
        let (instance, counters) = (rng.next_u64(), Arc::default());
        Self {
            own_id,
            limits,
            introduce: config.introduce,
            routes: Arc::new(Routes::new()),
            networks: Networks::default(),
            roots: Roots::new(Arc::clone(&counters), now),
            next_network: 0,
            peers: Peers::default(),
            nodes: Nodes::default(),
            load: HandshakeLoad::new(&limits, rng.next_u64(), now),
            at_once: responder::at_once(&limits, now),
            backlog: Backlog::default(),
            hints: load::HintLimits::new(rng.next_u64(), now),
            cookies: CookieJar::new(&own_id, *keys.draw_from_seed(), now),
            recent: Recent::default(),
            discovery: Discovery::new(*keys.draw_from_seed(), random(&mut rng), now),
            announcement: Announcement::default(),
            duplicate: Duplicate::default(),
            stranger_told: None,
            refusals_logged: Bucket::new(Rate::per_second(log::REFUSALS, log::REFUSALS), now),
            core: Core {
                identity: config.identity,
                own_id,
                provider: config.provider,
                receive_buffer: config.receive_buffer,
                instance,
                clock: Clock::new(now, unix_time),
                rng,
                keys: keys.with_entropy(config.entropy),
                counters,
                sessions: Arc::new(SessionTable::new(session_limit(&limits, 0))),
                sockets: Vec::new(),
                initiations: BTreeMap::new(),
                apart: apart(now),
                timers: Timers::new(),
                standstills: Standstills::new(now),
                outbox: Outbox::default(),
                events: VecDeque::new(),
                contact: OwnContact::default(),
                witnesses: Vec::new(),
                scarce: Vec::new(),
                allowances: Allowances::new(now),
                birthday: Birthday::new(config.birthday, now),
                tcp: TcpStreams::new(config.tcp_punch, now),
                has_roots: false,
                watched: Watched::default(),
                root_events: VecDeque::new(),
            },
        }
    }

    /// Returns the sessions, for the data path. A driver keeps this and asks it first about every data
    /// packet.
    pub fn sessions(&self) -> &Arc<SessionTable> {
        &self.core.sessions
    }

    /// Returns the owners of addresses, for the data path. A driver keeps this and asks it about every packet
    /// to send; [`Endpoint::lookup`] is for unknown addresses.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Returns the counters. They are shared, and stay readable without the endpoint.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.core.counters
    }

    /// Handles a datagram of any type except data, or data whose session [`SessionTable::get`] does not know.
    pub fn handle_datagram(&mut self, now: Instant, meta: RecvMeta, datagram: &[u8]) {
        // An answer to a broadcast or multicast source would go to many hosts.
        if !is_endpoint(&meta.remote) && meta.socket.stream_end() != Some(meta.remote) {
            self.core.counters.bad_source.increment();
            return;
        }
        // Anyone can open a connection, so it counts for nothing until a session packet has shown whose it
        // is.
        if meta.socket.is_peer_stream() && !self.core.tcp.is_claimed(meta.socket) {
            return self.core.counters.tcp_strangers_dropped.increment();
        }
        let kind = MessageType::of(datagram);
        // The discovery socket is for beacons; a node that wants more knows our own port.
        if meta.multicast && kind != Some(MessageType::Beacon) {
            self.core.counters.unknown_message.increment();
            return;
        }
        // Local discovery is for the local network.
        let is_local = matches!(kind, Some(MessageType::Beacon | MessageType::Hello));
        if is_local && (meta.relay.is_some() || meta.socket.is_peer_stream()) {
            self.core.counters.unknown_message.increment();
            return;
        }
        match kind {
            Some(MessageType::Initiation) => self.on_initiation(now, meta, datagram),
            Some(MessageType::Response) => self.on_response(now, meta, datagram),
            Some(MessageType::CookieReply) => self.on_cookie_reply(now, datagram),
            Some(MessageType::Data) => self.on_unknown_data(now, meta, datagram),
            Some(MessageType::Beacon) => self.on_beacon(now, meta, datagram),
            Some(MessageType::Hello) => self.on_hello(now, meta, datagram),
            Some(MessageType::UnknownSession) => self.on_unknown_session(now, meta, datagram),
            Some(MessageType::StaleReply) => self.on_stale_reply(now, meta, datagram),
            // Its source is no root of this node.
            Some(MessageType::Relayed | MessageType::Announcement) | None => {
                self.core.counters.unknown_message.increment()
            }
        }
    }

    /// Does everything due at `now`. Call this at [`Self::poll_timeout`]; earlier or later calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.note_time(now);
        for _ in 0..TIMERS_PER_CALL {
            let Some(timer) = self.core.timers.pop_due(now) else { return };
            match timer {
                Timer::Beacon => self.on_beacon_timer(now),
                Timer::Solicit => self.on_solicit_timer(now),
                Timer::Attempt(key) => _ = self.link(now, key, Link::on_attempt_timer),
                Timer::Expire(key) => _ = self.link(now, key, Link::on_expire_timer),
                Timer::Activity(key) => _ = self.link(now, key, Link::on_activity_timer),
                Timer::Mtu(node) => self.on_mtu_timer(now, node),
                Timer::Forget => self.on_forget_timer(now),
                Timer::Refusal(key) => _ = self.link(now, key, Link::judge_refusal),
                Timer::Announce => self.on_announce_timer(now),
                Timer::Root(key) => self.step_root(now, key),
                Timer::LookUp => self.on_look_up_timer(now),
                Timer::Punch(node) => self.on_punch_timer(now, node),
                Timer::Birthday(node) => self.on_birthday_timer(now, node),
                Timer::Sockets => self.close_unused_sockets(now),
                Timer::TcpStreams => self.close_unused_streams(now),
                Timer::Backlog => self.work_off(now),
                Timer::Shown(key) => self.on_shown_timer(now, key),
                Timer::Asking(network) => self.on_asking_timer(now, network),
                Timer::Heads(network) => self.on_heads_timer(now, network),
                Timer::Rules(network) => self.on_rules_timer(now, network),
                Timer::Programs(network) => self.on_programs_timer(now, network),
            }
        }
    }

    /// Returns when to call [`Self::handle_timeout`] next; `None` means not before another call. Poll this
    /// after every `&mut self` call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }

    /// Takes the next datagram to send, written to `buf` from its start. Poll this until it returns `None`,
    /// after every other `&mut self` call.
    pub fn poll_transmit(&mut self, _now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.core.outbox.pop(buf)
    }

    /// Takes the next event. Poll this until it returns `None`, after every other `&mut self` call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Sets the driver's UDP sockets, replacing those set before, except streams and extra sockets. Call this
    /// again when interfaces appear, disappear or change their addresses. The node then announces itself at
    /// once, also to each peer with a session, and challenges peers of a lost socket from another. A socket
    /// keeps its index.
    pub fn set_sockets(&mut self, now: Instant, sockets: Vec<SocketInfo>) {
        let is_kept = |known: &mut SocketInfo| known.index.is_stream() || known.index.is_extra();
        let kept: Vec<_> = self.core.sockets.extract_if(.., is_kept).collect();
        self.core.sockets = sockets.into_iter().chain(kept).collect();
        self.ask_roots_by_udp();
        self.leave_lost_sockets(now);
        self.announce_address(now);
        self.renew_registrations(now);
        self.restart_beacons(now);
    }
}

impl Drop for Endpoint {
    /// Breaks the reference cycle between a peer and its session, which others may also hold, and erases the
    /// keys.
    fn drop(&mut self) {
        for (_, peer) in self.peers.iter() {
            peer.link.erase();
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.own_id)
            .field("networks", &self.networks.len())
            .field("sessions", &self.core.sessions.len())
            .finish_non_exhaustive()
    }
}

/// Minimum number of entries in the session table.
const MIN_SESSIONS: usize = 4096;
/// Number of entries per peer: old and new sessions, and handshakes from both sides.
const SESSIONS_PER_PEER: usize = 8;

/// Returns the number of entries in the session table, for the peers of a few full networks and the members
/// of static ones.
fn session_limit(limits: &Limits, listed: usize) -> usize {
    let peers = limits.peers_per_network.max(1).saturating_add(listed);
    peers.saturating_mul(SESSIONS_PER_PEER).max(MIN_SESSIONS)
}

fn random<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
