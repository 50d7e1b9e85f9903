//! The peer table: what the control half knows of each peer besides what the data path sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announce::Told;
use super::duplicates::{Duplicate, Former};
use super::eviction::Rank;
use super::handshake::Attempt;
use super::load::{Bucket, Rate};
use super::nodes::NodeKey;
use super::refusal::Refusal;
use crate::network::NetworkIndex;
use crate::noise::{MacWriter, Timestamp};
use crate::reach::Place;
use crate::session::{Peer, Session, SessionStats};

/// Names a peer in timers and indices. Never reused, so a stale one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerKey(u64);

/// Everything about one peer in one network.
#[derive(Debug)]
pub(super) struct PeerState {
    pub(super) handle: Arc<Peer>,
    /// The node that it is, with the ways to it.
    pub(super) node: NodeKey,
    /// Listed in a static network: never evicted.
    pub(super) listed: bool,
    /// The driver has been told of it.
    pub(super) announced: bool,
    /// The source prefix from which it was learned of.
    pub(super) origin: u64,
    /// Where it stands in its network's order of those that can make room.
    pub(super) rank: Option<Rank>,
    /// When anybody last asked for or heard of it.
    pub(super) used: Instant,
    /// When local discovery last heard of it.
    pub(super) heard: Option<Instant>,
    /// It has said goodbye.
    pub(super) departed: bool,
    /// What its sessions that have ended had carried.
    pub(super) past: SessionStats,
    /// All its sessions in the session table, oldest first.
    pub(super) sessions: Vec<Live>,
    /// It has a session, and no place is known yet at which it receives for certain. The driver does not know of the
    /// session.
    pub(super) is_waiting_for_path: bool,
    /// It was told of a change of our addresses, and has not answered.
    pub(super) told: Option<Told>,
    /// Errors that its machine sends.
    pub(super) refusal: Option<Refusal>,
    /// Our own handshake, while one runs.
    pub(super) attempt: Option<Attempt>,
    /// The newest timestamp of the peer's initiations; older ones are replays.
    pub(super) newest: Option<Timestamp>,
    /// Our initiations to the peer must be newer than this: the last one was, or the peer knows a newer one
    /// from a time when our clock was ahead.
    pub(super) floor: Option<Timestamp>,
    /// Replies to initiations that are not new.
    pub(super) stale_replies: Bucket,
    /// The peer's instance, as its last confirmed handshake said.
    pub(super) instance: Option<u64>,
    /// Its instances before.
    pub(super) former: Former,
    /// Whether two of them are alive.
    pub(super) duplicate: Duplicate,
    /// Makes the MACs of our initiations, and keeps the cookie that the peer gave us.
    pub(super) macs: MacWriter,
    /// Handshakes that we begin because of something that nobody authenticated.
    pub(super) hints: Bucket,
    /// Refusals of which each may begin a handshake, because nothing was refused before it.
    pub(super) refusals: Bucket,
}

/// One session and what its handshake said about the peer.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Arc<Session>,
    pub(super) instance: u64,
    pub(super) receive_buffer: u32,
    /// Where the handshake has shown that the peer receives, if it has.
    pub(super) place: Option<Place>,
    /// When the session is replaced if it is in use then.
    pub(super) rekey_at: Instant,
}

impl Live {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.session.established())
    }
}

/// At most this many sessions per peer can be received on: the present one, the one before, and the other one of a
/// simultaneous handshake.
const MAX_CONFIRMED: usize = 3;

/// At most this many answered handshakes of a peer are kept without that it used one.
pub(super) const MAX_UNCONFIRMED: usize = 4;

/// Once there are so many, another one is answered no sooner than this after the last.
const ANSWER_INTERVAL: Duration = Duration::from_millis(200);

/// Unauthenticated hints are heeded once per 5 s, after a few at once.
const HINT_INTERVAL: Duration = Duration::from_secs(5);
const HINT_BURST: u32 = 3;

/// Somebody on the way can forge a refusal after each sign of life. Live peers have to deny so many.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(500);
const REFUSAL_BURST: u32 = 2;

/// Initiations of one peer that are not new are answered as often as a live peer repeats them, after a few at
/// once. It needs one answer, or two if one is lost.
const STALE_REPLY_INTERVAL: Duration = Duration::from_millis(250);
const STALE_REPLY_BURST: u32 = 8;

impl PeerState {
    pub(super) fn new(handle: Arc<Peer>, node: NodeKey, listed: bool, origin: u64, now: Instant) -> Self {
        Self {
            macs: MacWriter::new(handle.id()),
            handle,
            node,
            listed,
            announced: false,
            origin,
            rank: None,
            used: now,
            heard: None,
            departed: false,
            past: SessionStats::default(),
            sessions: Vec::new(),
            is_waiting_for_path: false,
            told: None,
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
    pub(super) fn current(&self) -> Option<Arc<Session>> {
        self.handle.session()
    }

    pub(super) fn live(&self, session: &Arc<Session>) -> Option<&Live> {
        self.sessions.iter().find(|live| Arc::ptr_eq(&live.session, session))
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.sessions.iter().filter(|live| !live.session.is_confirmed()).count()
    }

    /// Takes out the sessions that `newest`, just confirmed, makes obsolete: older ones of another instance of the peer,
    /// the oldest over the limit, and those that the peer did not choose when it chose `newest`. Answers to its
    /// initiations that crossed ours are not among these: it may yet use one.
    pub(super) fn take_obsolete(&mut self, newest: &Session, instance: u64) -> Vec<Arc<Session>> {
        let confirmed = self.sessions.iter().filter(|live| live.session.is_confirmed()).count();
        let mut surplus = confirmed.saturating_sub(MAX_CONFIRMED);
        self.take(|live| {
            if live.session.index() == newest.index() || live.session.established() > newest.established() {
                return false;
            }
            if !live.session.is_confirmed() {
                return !newest.is_initiator();
            }
            let over = surplus > 0;
            surplus -= usize::from(over);
            over || live.instance != instance
        })
    }

    /// Takes out the sessions of that age or that have no keys any more.
    pub(super) fn take_expired(&mut self, lifetime: Duration, now: Instant) -> Vec<Arc<Session>> {
        self.take(|live| live.age(now) >= lifetime || live.session.is_erased())
    }

    /// Takes out the sessions of that age that were never confirmed.
    pub(super) fn take_unconfirmed(&mut self, lifetime: Duration, now: Instant) -> Vec<Arc<Session>> {
        self.take(|live| !live.session.is_confirmed() && live.age(now) >= lifetime)
    }

    /// Takes out one of the sessions that the peer has not used, if there are so many that another one has no room: the
    /// one that is closest in time to its neighbours, the one to come included. So the first answer stays, which is used
    /// first however long the way is, and the last ones, of which one is used when the way has been blocked for a while.
    pub(super) fn take_unlikely(&mut self, now: Instant) -> Option<Arc<Session>> {
        let unused: Vec<_> = self.sessions.iter().filter(|live| !live.session.is_confirmed()).collect();
        let mut times: Vec<_> = unused.iter().map(|live| live.session.established()).collect();
        if times.len() < MAX_UNCONFIRMED || times.last().is_some_and(|last| now < *last + ANSWER_INTERVAL) {
            return None;
        }
        times.push(now);
        let at = (1..unused.len()).min_by_key(|&at| times[at + 1] - times[at - 1])?;
        let unlikely = unused[at].session.clone();
        self.sessions.retain(|live| !Arc::ptr_eq(&live.session, &unlikely));
        Some(unlikely)
    }

    /// Takes out all sessions with one instance of the peer.
    pub(super) fn take_instance(&mut self, instance: u64) -> Vec<Arc<Session>> {
        self.take(|live| live.instance == instance)
    }

    fn take(&mut self, condition: impl FnMut(&mut Live) -> bool) -> Vec<Arc<Session>> {
        self.sessions.extract_if(.., condition).map(|live| live.session).collect()
    }

    /// Notes that local discovery heard of it.
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.used = now;
        self.heard = Some(now);
        self.departed = false;
    }

    /// When the peer last proved to be there.
    pub(super) fn last_seen(&self) -> Option<Instant> {
        let established = self.current().map(|session| session.established());
        established.max(self.handle.activity().last_received())
    }

    /// What all its sessions have carried.
    pub(super) fn traffic(&self) -> SessionStats {
        let mut total = self.past;
        self.sessions.iter().for_each(|live| total.add(&live.session.stats()));
        total
    }

    /// Whether it is neither listed nor connected. A handshake that the peer has not completed does not protect it.
    pub(super) fn is_evictable(&self) -> bool {
        !self.listed && !self.sessions.iter().any(|live| live.session.is_confirmed())
    }
}

/// All peers of all networks.
#[derive(Debug, Default)]
pub(super) struct Peers {
    table: BTreeMap<PeerKey, PeerState>,
    next: u64,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: PeerState) -> PeerKey {
        let key = PeerKey(self.next);
        self.next += 1;
        self.table.insert(key, peer);
        key
    }

    pub(super) fn get(&self, key: PeerKey) -> Option<&PeerState> {
        self.table.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut PeerState> {
        self.table.get_mut(&key)
    }

    pub(super) fn remove(&mut self, key: PeerKey) -> Option<PeerState> {
        self.table.remove(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerKey, &PeerState)> {
        self.table.iter().map(|(&key, peer)| (key, peer))
    }

    /// Names the peers for which the condition holds.
    pub(super) fn keys(&self, condition: impl Fn(&PeerState) -> bool) -> Vec<PeerKey> {
        self.iter().filter(|(_, peer)| condition(peer)).map(|(key, _)| key).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PeerState> {
        self.table.values_mut()
    }

    pub(super) fn of_network(&self, network: NetworkIndex) -> impl Iterator<Item = (PeerKey, &PeerState)> {
        self.iter().filter(move |(_, peer)| peer.handle.network() == network)
    }
}
