//! One peer in one network: how a session with it is made, renewed, watched and ended.
//!
//! A [`Link`] is a state machine. Each step is a method that gets the time and everything else it works with
//! as a [`Context`], changes the link, and leaves behind what is to happen: datagrams, timers and events in
//! the queues that all links share ([`Core`]), and [`Effect`]s for what concerns more than this link. It
//! knows no other link, and nobody looks a peer up twice for one datagram.
//!
//! - An **attempt** (`attempt`) is a handshake of ours with its repetition; `answering` is the peer's.
//! - A handshake leaves a **session** (`sessions`): confirmed by the first packet on it, succeeded by newer
//!   ones, replaced every two minutes while in use, forgotten after three.
//! - **Silence** (`keepalive`) is answered by keepalives, and when it lasts by an attempt. So are ICMP errors
//!   (`refusal`). A peer with connections is asked for a sign of life now and then (`watch`).
//! - **Control messages** inside a session (`control`) and the ways to the peer (`paths`), which the link
//!   shares with those to the same node in other networks: they are in its [`Reach`](crate::reach::Reach).
//!   While it is heard only elsewhere, its path proves itself again (`proof`).
//!   While datagrams are relayed, a direct way is looked for (`punching`, and then `birthday`); the first
//!   question where the other node is travels in the handshake (`question`).

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

/// What a deadline is for. Peers that wait for nothing have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The next beacon of the regular schedule.
    Beacon,
    /// The next beacon because somebody is looked for.
    Solicit,
    /// The next step of a peer's attempt.
    Attempt(PeerKey),
    /// The end of a peer's oldest session.
    Expire(PeerKey),
    /// A keepalive is due, or silence has lasted too long.
    Activity(PeerKey),
    /// A path MTU probe is answered or lost.
    Mtu(NodeKey),
    /// Peers may have been gone for long enough.
    Forget,
    /// A peer whose machine refuses our packets is dead, unless it was heard.
    Refusal(PeerKey),
    /// The next challenge to nodes that may not know our new address.
    Announce,
    /// A root is to be told something, or to be heard from.
    Root(PeerKey),
    /// The next round of look-ups.
    LookUp,
    /// The next step of the search for a direct way to a node.
    Punch(NodeKey),
    /// The next step of that by many ports.
    Birthday(NodeKey),
    /// Extra sockets that no path uses are to be closed.
    Sockets,
    /// TCP connections that no path uses are to be closed.
    TcpStreams,
    /// Initiations wait for the processor.
    Backlog,
}

/// Everything about one peer in one network.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) handle: Arc<Peer>,
    /// The node that it is, with the ways to it.
    pub(crate) node: NodeKey,
    /// The driver has been told of it.
    announced: bool,
    /// When anybody last asked for or heard of it.
    pub(crate) used: Instant,
    /// It has said goodbye.
    pub(crate) departed: bool,
    /// The answers to this node's handshakes cannot be read, and no handshake has succeeded since.
    pub(crate) answer_unreadable: bool,
    /// What its sessions that have ended had carried.
    past: SessionStats,
    /// All its sessions in the session table, oldest first.
    sessions: Vec<Live>,
    /// It has a session, and no place is known yet at which it receives for certain. The driver does not know
    /// of the session.
    is_waiting_for_path: bool,
    /// It was told of a change of our addresses and has not answered. True if packets went to or came from it
    /// then.
    pub(crate) told: Option<bool>,
    /// Bytes that its session had sent when its path was looked at last.
    carried: u64,
    /// Bytes since then of path MTU probes that are much each.
    probed: u64,
    /// Errors that its machine sends.
    refusal: Option<Refusal>,
    /// When the oldest probe was sent that looks whether the peer is there and that nothing has followed.
    asked: Option<Instant>,
    /// Since when only what comes in this network shows that the peer is there, and not what comes from the
    /// same node in others: until something does.
    alone: Option<Instant>,
    /// When the peer was asked whether its path still works, because nothing came back from there.
    questioned: Option<Instant>,
    /// When it lost its last session.
    lost: Option<Instant>,
    /// The peer was heard behind a root though the path is better.
    stray: Option<Stray>,
    /// The peer was heard elsewhere than at its path.
    proof: Option<Proof>,
    /// Somebody above doubts the path, and it is not decided yet whether the peer is silent.
    doubted: bool,
    /// Our own handshake, while one runs.
    attempt: Option<Attempt>,
    /// The newest timestamp of the peer's initiations; older ones are replays.
    newest: Option<Timestamp>,
    /// Our initiations to the peer must be newer than this: the last one was, or the peer knows a newer one
    /// from a time when our clock was ahead.
    floor: Option<Timestamp>,
    /// Replies to initiations that are not new.
    stale_replies: Bucket,
    /// The peer's instance, as its last confirmed handshake said.
    pub(crate) instance: Option<u64>,
    /// Its instances before.
    former: Former,
    /// Whether two of them are alive.
    pub(crate) duplicate: Duplicate,
    /// Makes the MACs of our initiations, and keeps the cookie that the peer gave us.
    cookies: Cookies,
    /// Handshakes that we begin because of something that nobody authenticated.
    hints: Bucket,
    /// Refusals of which each may begin a handshake, because nothing was refused before it.
    refusals: Bucket,
}

/// One session and what its handshake said about the peer.
#[derive(Debug)]
struct Live {
    session: Arc<Session>,
    instance: u64,
    receive_buffer: u32,
    /// Where the handshake has shown that the peer receives, if it has.
    place: Option<Place>,
    /// When the session is replaced if it is in use then.
    rekey_at: Instant,
    /// The question that was in its response, until the search for a direct way begins with it.
    question: Option<Question>,
}

/// Unauthenticated hints are heeded once per 5 s, after a few at once.
const HINT_INTERVAL: Duration = Duration::from_secs(5);
const HINT_BURST: u32 = 3;

/// A hint says nothing new for so long, or a round trip, after an initiation.
const ANSWER_ON_ITS_WAY: Duration = Duration::from_millis(50);

/// Somebody on the way can forge a refusal after each sign of life. Live peers have to deny so many.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(500);
const REFUSAL_BURST: u32 = 2;

/// Initiations of one peer that are not new are answered as often as a live peer repeats them, after a few at
/// once. It needs one answer, or two if one is lost.
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

    /// The session that packets are sent on.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        self.handle.session()
    }

    /// Whether a handshake of ours runs.
    pub(crate) fn is_connecting(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| !attempt.is_given_up())
    }

    /// Whether traffic waits for the peer, and was not told that it is unreachable.
    pub(crate) fn is_wanted(&self) -> bool {
        self.attempt.as_ref().is_some_and(Attempt::is_wanted)
    }

    /// Whether a session was confirmed. One that the peer has not used does not count.
    pub(crate) fn has_confirmed_session(&self) -> bool {
        self.sessions.iter().any(|live| live.session.is_confirmed())
    }

    /// When the peer last proved to be there.
    pub(crate) fn last_seen(&self) -> Option<Instant> {
        let established = self.current().map(|session| session.established());
        established.max(self.handle.activity().last_received())
    }

    /// What all its sessions have carried.
    pub(crate) fn traffic(&self) -> SessionStats {
        let mut total = self.past;
        self.sessions.iter().for_each(|live| total.add(&live.session.stats()));
        total
    }

    /// Whether the peer is sent to there.
    pub(crate) fn is_at(&self, key: &PlaceKey) -> bool {
        self.handle.path().is_some_and(|path| path.place.key() == *key)
    }

    /// Whether a packet that somebody says not to know was sent on one of its sessions.
    pub(crate) fn has_sent(&self, hint: &UnknownSession) -> bool {
        self.sessions.iter().any(|live| {
            live.session.remote_index() == hint.index && hint.counter < live.session.stats().sent_packets
        })
    }

    /// Something that nobody authenticated suggests that the peer has lost the session: a handshake shows
    /// whether that is so, and one that runs goes on at once. Nothing is sent while an answer may be under
    /// way, or if there were many hints lately.
    pub(crate) fn heed_hint(&mut self, cx: &mut Context<'_>) -> bool {
        // An answer to what an attempt has sent last is on its way, or may be.
        let round_trip = cx.reach.rtt().unwrap_or_default().max(ANSWER_ON_ITS_WAY);
        let waits = self.attempt.as_ref().is_some_and(|attempt| attempt.has_sent_since(cx.now, round_trip));
        let heeded = !waits && self.hints.take(cx.now);
        match self.is_connecting() {
            _ if !heeded => {}
            // Who says so is back.
            true => self.next_round(cx),
            false => self.attempt(cx, Reason::Hint),
        }
        heeded
    }

    /// Local discovery has heard an instance of the peer that is not the one of its session: it was
    /// restarted.
    pub(crate) fn heed_restart(&mut self, cx: &mut Context<'_>) {
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

    /// Tells the driver of the peer, once.
    pub(crate) fn announce(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.announced, true) {
            cx.core.emit(Event::PeerAdded(self.handle.clone()));
        }
    }

    /// The peer is forgotten: frees all that it occupies.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        self.end_attempt(cx);
        self.handle.set_forgotten();
        self.handle.set_session(None);
        self.handle.set_path(None);
        let sessions = std::mem::take(&mut self.sessions);
        self.discard(cx, sessions.into_iter().map(|live| live.session).collect());
        for timer in [Timer::Attempt, Timer::Expire, Timer::Activity, Timer::Refusal] {
            cx.set_timer(timer, None);
        }
        if self.announced {
            cx.core.emit(Event::PeerRemoved(self.handle.clone()));
        }
    }

    /// A session and its peer hold each other, and others may hold either: breaks that circle and erases the
    /// keys.
    pub(crate) fn erase(&self) {
        self.handle.set_session(None);
        self.sessions.iter().for_each(|live| live.session.erase());
    }

    fn live(&self, session: &Arc<Session>) -> Option<&Live> {
        self.sessions.iter().find(|live| Arc::ptr_eq(&live.session, session))
    }
}
