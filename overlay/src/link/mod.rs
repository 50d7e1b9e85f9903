//! One peer in one network: how the node makes, renews, watches and ends sessions with it.
//!
//! A [`Link`] is a state machine. Each step is a method that gets the time and all other inputs as a
//! [`Context`] and changes the link. It leaves datagrams, timers and events in the queues that all links
//! share ([`Core`]), and [`Effect`]s for what concerns more than this link. A link knows no other link, so
//! one datagram needs only one look-up of its peer.
//!
//! - An **attempt** (`attempt`) is a handshake of ours with its repetition; `answering` is the peer's.
//! - A handshake leaves a **session** (`sessions`): confirmed by the first packet on it, succeeded by newer
//!   ones, replaced every two minutes while in use, forgotten after three.
//! - **Silence** (`keepalive`) is answered by keepalives, and when it lasts by an attempt. So are ICMP errors
//!   (`refusal`). The node now and then asks a peer with connections for a sign of life (`watch`).
//! - **Control messages** inside a session (`control`) and the ways to the peer (`paths`), which the link
//!   shares with those to the same node in other networks: they are in its [`Reach`](crate::reach::Reach).
//!   While the peer is heard only elsewhere, its path has to prove itself again (`proof`).
//!   While datagrams are relayed, the node searches for a direct path (`punching`, and then `birthday`); the
//!   first question about the other node's addresses travels in the handshake (`question`).

mod answering;
mod attempt;
mod birthday;
mod context;
mod control;
mod cookies;
mod event;
mod first_relay;
mod instances;
mod keepalive;
mod key;
mod outbox;
mod paths;
mod pending;
mod proof;
mod punching;
mod question;
mod refusal;
mod sessions;
mod standstill;
mod tcp;
mod timers;
mod timing;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use attempt::{Reason, Tried};
pub(crate) use context::{Clock, Context, Core, Effect, apart};
pub(crate) use control::Report;
pub use event::{Event, Gone};
pub use instances::Elsewhere;
pub(crate) use instances::{Duplicate, Former};
pub(crate) use keepalive::answers_within;
pub(crate) use key::{NodeKey, PeerKey};
pub(crate) use outbox::Outbox;
pub use outbox::Transmit;
pub(crate) use refusal::QUOTED;
pub use sessions::Attention;
pub(crate) use standstill::Standstills;
pub(crate) use timers::Timers;

use crate::bucket::{Bucket, Rate};
use crate::network::NetworkIndex;
use crate::noise::Timestamp;
use crate::reach::{Place, PlaceKey};
use crate::session::{Peer, Session, SessionStats};
use crate::wire::UnknownSession;
use attempt::Attempt;
use cookies::Cookies;
use paths::Stray;
use proof::Proof;
use question::Question;
use refusal::Refusal;

/// Purpose of a deadline. Peers that wait for nothing have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The next beacon of the regular schedule.
    Beacon,
    /// The next beacon sent because a node is looked for.
    Solicit,
    /// The next step of a peer's attempt.
    Attempt(PeerKey),
    /// The end of a peer's oldest session.
    Expire(PeerKey),
    /// A keepalive is due, or silence has lasted too long.
    Activity(PeerKey),
    /// A path MTU probe is acknowledged or lost by then.
    Mtu(NodeKey),
    /// Peers may have been gone for long enough.
    Forget,
    /// A peer whose machine refuses our packets is dead, unless it was heard.
    Refusal(PeerKey),
    /// The next challenge to nodes that may not know our new address.
    Announce,
    /// A message to a root, or one from it, is due.
    Root(PeerKey),
    /// The next round of look-ups.
    LookUp,
    /// The next step of the search for a direct way to a node.
    Punch(NodeKey),
    /// The next step of the search by many ports.
    Birthday(NodeKey),
    /// Extra sockets that no path uses are due for closing.
    Sockets,
    /// TCP connections that no path uses are due for closing.
    TcpStreams,
    /// Initiations wait for the processor.
    Backlog,
    /// Credentials are due for repetition, or a peer's credentials end.
    Shown(PeerKey),
    /// A question to a controller is due for repetition.
    Asking(NetworkIndex),
    /// Peers are due to hear which revocations this node knows.
    Heads(NetworkIndex),
    /// Peers are due to hear which access rules this node knows, or rules are being fetched.
    Rules(NetworkIndex),
    /// A program's certificate ends, or this program's session with its machine is due for a look.
    Programs(NetworkIndex),
}

/// State of one peer in one network.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) handle: Arc<Peer>,
    /// Node that the peer is, with the ways to it.
    pub(crate) node: NodeKey,
    /// Set once the driver has been told of the peer.
    announced: bool,
    /// Time when a program last asked for the peer, or the peer was last heard.
    pub(crate) used: Instant,
    /// Set once the peer has said goodbye.
    pub(crate) departed: bool,
    /// Set while the answers to this node's handshakes are unreadable, until a handshake succeeds.
    pub(crate) answer_unreadable: bool,
    /// Traffic of the peer's sessions that have ended.
    past: SessionStats,
    /// All sessions of the peer in the session table, oldest first.
    sessions: Vec<Live>,
    /// Set while a session exists but no place is known at which the peer certainly receives. The driver does
    /// not know of the session yet.
    is_waiting_for_path: bool,
    /// Set while the peer has not answered a message about our new addresses. True if packets went to or came
    /// from the peer at that time.
    pub(crate) told: Option<bool>,
    /// Bytes that the session had sent at the last check of its path.
    carried: u64,
    /// Bytes since then of path MTU probes that have `BUSY` bytes or more each.
    probed: u64,
    /// ICMP errors from the peer's machine.
    refusal: Option<Refusal>,
    /// Time of the oldest liveness probe since which nothing was received.
    asked: Option<Instant>,
    /// Time since which only packets in this network show that the peer is there, because packets of the same
    /// node in other networks do not count. Cleared when one comes.
    alone: Option<Instant>,
    /// Time when the peer was asked whether its silent path still works.
    questioned: Option<Instant>,
    /// Time when the peer lost its last session.
    lost: Option<Instant>,
    /// Set while the peer is heard behind a root though its path is better.
    stray: Option<Stray>,
    /// Set while the peer is heard elsewhere than at its path.
    proof: Option<Proof>,
    /// Set while an upper layer doubts the path and it is not yet decided whether the peer is silent.
    doubted: bool,
    /// Our own handshake, while one runs.
    attempt: Option<Attempt>,
    /// The newest timestamp of the peer's initiations; older ones are replays.
    newest: Option<Timestamp>,
    /// Lower bound of the timestamps of our initiations to the peer: our last one, or a newer one that the
    /// peer knows from a time when our clock was ahead.
    floor: Option<Timestamp>,
    /// Budget for stale replies.
    stale_replies: Bucket,
    /// The peer's instance, from its last confirmed handshake.
    pub(crate) instance: Option<u64>,
    /// Earlier instances of the peer.
    former: Former,
    /// Detector for two live instances.
    pub(crate) duplicate: Duplicate,
    /// Maker of the MACs of our initiations, with the cookies that the peer gave us.
    cookies: Cookies,
    /// Budget for handshakes begun because of unauthenticated hints.
    hints: Bucket,
    /// Budget for handshakes begun by the first refusal after a sign of life.
    refusals: Bucket,
}

/// One session and what its handshake said about the peer.
#[derive(Debug)]
struct Live {
    session: Arc<Session>,
    instance: u64,
    receive_buffer: u32,
    /// Place at which the handshake has shown that the peer receives, if any.
    place: Option<Place>,
    /// Time when the session is replaced if in use.
    rekey_at: Instant,
    /// Question that came in its response, until the search for a direct path begins with it.
    question: Option<Question>,
}

/// Minimum interval between handshakes for unauthenticated hints, after a burst of three.
const HINT_INTERVAL: Duration = Duration::from_secs(5);
const HINT_BURST: u32 = 3;

/// Time after an initiation, at least one round trip, in which a hint says nothing new.
const ANSWER_ON_ITS_WAY: Duration = Duration::from_millis(50);

/// Minimum interval of refusals that a live peer has to deny.
// An attacker on the path can forge one after each sign of life.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(500);
const REFUSAL_BURST: u32 = 2;

/// Minimum interval of stale replies to one peer, after a burst: the rate at which a live peer repeats its
/// initiations. A live peer needs one reply, or two if one is lost.
const STALE_REPLY_INTERVAL: Duration = Duration::from_millis(250);
const STALE_REPLY_BURST: u32 = 8;

impl Link {
    pub(crate) fn new(handle: Arc<Peer>, node: NodeKey, now: Instant) -> Self {
        Self {
            cookies: Cookies::new(handle.id()),
            handle,
            node,
            announced: false,
            used: now,
            departed: false,
            answer_unreadable: false,
            past: SessionStats::default(),
            sessions: Vec::new(),
            is_waiting_for_path: false,
            told: None,
            carried: 0,
            probed: 0,
            asked: None,
            alone: None,
            questioned: None,
            lost: None,
            stray: None,
            proof: None,
            doubted: false,
            refusal: None,
            attempt: None,
            newest: None,
            floor: None,
            stale_replies: Bucket::new(Rate::every(STALE_REPLY_INTERVAL, STALE_REPLY_BURST), now),
            instance: None,
            former: Former::default(),
            duplicate: Duplicate::default(),
            hints: Bucket::new(Rate::every(HINT_INTERVAL, HINT_BURST), now),
            refusals: Bucket::new(Rate::every(REFUSAL_INTERVAL, REFUSAL_BURST), now),
        }
    }

    /// Returns the session for outgoing packets.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        self.handle.session()
    }

    /// Returns true if a handshake of ours runs.
    pub(crate) fn is_connecting(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| !attempt.is_given_up())
    }

    /// Returns true if traffic waits for the peer and was not told that the peer is unreachable.
    pub(crate) fn is_wanted(&self) -> bool {
        self.attempt.as_ref().is_some_and(Attempt::is_wanted)
    }

    /// Returns true if a session is confirmed. One that the peer has not used does not count.
    pub(crate) fn has_confirmed_session(&self) -> bool {
        self.sessions.iter().any(|live| live.session.is_confirmed())
    }

    /// Returns when the peer last proved to be there.
    pub(crate) fn last_seen(&self) -> Option<Instant> {
        let established = self.current().map(|session| session.established());
        established.max(self.handle.activity().last_received())
    }

    /// Returns the traffic of all sessions of the peer.
    pub(crate) fn traffic(&self) -> SessionStats {
        let mut total = self.past;
        self.sessions.iter().for_each(|live| total.add(&live.session.stats()));
        total
    }

    /// Returns true if the peer's path leads to `key`.
    pub(crate) fn is_at(&self, key: &PlaceKey) -> bool {
        self.handle.path().is_some_and(|path| path.place.key() == *key)
    }

    /// Returns true if the packet quoted in an unknown-session message was sent on one of the peer's
    /// sessions.
    pub(crate) fn has_sent(&self, hint: &UnknownSession) -> bool {
        self.sessions.iter().any(|live| {
            // A forger must have seen a packet of the session, or guess its index and a counter in use.
            live.session.remote_index() == hint.index && hint.counter < live.session.stats().sent_packets
        })
    }

    /// Handles an unauthenticated hint that the peer has lost the session: begins a handshake, or sends the
    /// next round of a running one at once. Sends nothing while an answer may be on its way, or after many
    /// recent hints.
    pub(crate) fn heed_hint(&mut self, cx: &mut Context<'_>) -> bool {
        // An answer to the last initiation may be on its way.
        let round_trip = cx.reach.rtt().unwrap_or_default().max(ANSWER_ON_ITS_WAY);
        let waits = self.attempt.as_ref().is_some_and(|attempt| attempt.has_sent_since(cx.now, round_trip));
        let heeded = !waits && self.hints.take(cx.now);
        match self.is_connecting() {
            _ if !heeded => {}
            // The sender of the hint is back.
            true => self.next_round(cx),
            false => self.attempt(cx, Reason::Hint),
        }
        heeded
    }

    /// Handles a restart of the peer: local discovery has heard an instance other than that of its session.
    pub(crate) fn heed_restart(&mut self, cx: &mut Context<'_>) {
        // Limited, because every member can make a hello with another instance.
        if !self.hints.take(cx.now) {
            return;
        }
        let connecting = self.is_connecting();
        cx.core.counters.restarts_noticed.increment();
        self.attempt(cx, Reason::Hint);
        if connecting {
            self.retry_at_once(cx);
        }
    }

    /// Handles a beacon or a hello of the peer: begins a handshake if connections wait for a session with it.
    ///
    /// After a long outage nothing else would for many minutes. The last packet that wanted the peer is old
    /// by then, and it is searched for ever more rarely.
    pub(crate) fn heed_presence(&mut self, cx: &mut Context<'_>) {
        // A session may have expired while the machine slept and no timer ran.
        self.expire_sessions(cx);
        // Peers without connections stay without a session: nodes that only hear each other cost nothing.
        if self.current().is_some() || self.is_connecting() || !self.handle.is_watched() {
            return;
        }
        // Limited, because anyone on the local network can repeat a beacon.
        if self.hints.take(cx.now) {
            tracing::debug!(peer = %self.handle.logged(), "a peer with connections is heard again");
            self.attempt(cx, Reason::Heard);
        }
    }

    /// Tells the driver of the peer, once.
    pub(crate) fn announce(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.announced, true) {
            cx.core.emit(Event::PeerAdded(self.handle.clone()));
        }
    }

    /// Frees everything a forgotten peer occupies.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        self.end_attempt(cx);
        self.handle.set_forgotten();
        self.handle.set_session(None);
        self.handle.set_path(None);
        let sessions = std::mem::take(&mut self.sessions);
        self.discard(cx, sessions.into_iter().map(|live| live.session).collect());
        for timer in [Timer::Attempt, Timer::Expire, Timer::Activity, Timer::Refusal, Timer::Shown] {
            cx.set_timer(timer, None);
        }
        if self.announced {
            cx.core.emit(Event::PeerRemoved(self.handle.clone()));
        }
    }

    /// Breaks the reference cycle between a session and its peer, which others may also hold, and erases the
    /// keys.
    pub(crate) fn erase(&self) {
        self.handle.set_session(None);
        self.sessions.iter().for_each(|live| live.session.erase());
    }

    fn live(&self, session: &Arc<Session>) -> Option<&Live> {
        self.sessions.iter().find(|live| Arc::ptr_eq(&live.session, session))
    }
}
