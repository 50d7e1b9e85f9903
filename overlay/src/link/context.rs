//! Everything a link works with besides its own state.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::ChaCha20Rng;
use zeroize::Zeroizing;

use super::key::{NodeKey, PeerKey};
use super::outbox::Outbox;
use super::timers::Timers;
use super::{Event, Standstills, Timer};
use crate::bucket::{Bucket, Rate};
use crate::contact::{Allowances, Birthday, OwnContact, TcpStreams, Witness};
use crate::counters::Counters;
use crate::crypto::{KeySource, NoEntropy, Provider};
use crate::id::{Identity, NetworkId, NodeId, Psk};
use crate::noise::{InitiationPayload, Timestamp};
use crate::reach::{Place, Reach, SocketInfo, usable};
use crate::session::{Peer, Session, SessionTable, Watched};
use crate::wire::{Initiation, SessionIndex};

/// Maximum number of events kept for a driver that does not poll them; beyond it the oldest are lost.
const MAX_EVENTS: usize = 16_384;

/// State that all links of a node share: its identity, its sockets, and the queues of pending work.
pub(crate) struct Core {
    pub(crate) identity: Arc<Identity>,
    pub(crate) own_id: NodeId,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) receive_buffer: u32,
    /// Random per start, so that peers notice a restart.
    pub(crate) instance: u64,
    pub(crate) clock: Clock,
    /// Source of indices, jitter and times: values that an attacker may know afterwards.
    pub(crate) rng: ChaCha20Rng,
    /// Source of keys, and of numbers that must neither repeat nor be guessed.
    pub(crate) keys: KeySource,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) sockets: Vec<SocketInfo>,
    /// Our initiations that wait for a response, by their index.
    pub(crate) initiations: BTreeMap<SessionIndex, PeerKey>,
    /// Budget for handshake rounds in which each address gets a separate initiation.
    pub(crate) apart: Bucket,
    pub(crate) timers: Timers<Timer>,
    pub(crate) standstills: Standstills,
    pub(crate) outbox: Outbox,
    pub(crate) events: VecDeque<Event>,
    /// Addresses at which this node can be reached.
    pub(crate) contact: OwnContact,
    /// Roots that this node uses: it trusts their word about where other nodes are.
    pub(crate) witnesses: Vec<Witness>,
    /// Addresses of the roots that relay no more than the free quota.
    pub(crate) scarce: Vec<SocketAddr>,
    /// Budget for addresses that peers name and no root of this node's own vouches for.
    pub(crate) allowances: Allowances,
    /// Search for a direct path by many ports; only one runs at a time.
    pub(crate) birthday: Birthday<NodeKey>,
    /// TCP connections to other nodes.
    pub(crate) tcp: TcpStreams<NodeKey>,
    /// True if there are roots at which nodes can be looked up.
    pub(crate) has_roots: bool,
    /// Number of peers with connections.
    pub(crate) watched: Watched,
    /// Events about peers that are roots, which the driver does not see.
    pub(crate) root_events: VecDeque<Event>,
}

/// Rate of rounds with a separate initiation per address, which cost at most 24 X25519 operations each.
const APART_PER_SECOND: u32 = 20;
const APART_BURST: u32 = 40;

/// Returns a full bucket for [`Core::apart`].
pub(crate) fn apart(now: Instant) -> Bucket {
    Bucket::new(Rate::per_second(APART_PER_SECOND, APART_BURST), now)
}

impl Core {
    /// Records the time. Call this before judging anything by the time: a node that was stopped or got no
    /// processor has received nothing, and must not take that for the silence of all its peers.
    pub(crate) fn note_time(&mut self, now: Instant) {
        self.standstills.note(self.timers.next(), now);
    }

    /// Returns the end of this node's last standstill.
    pub(crate) fn awake_since(&self) -> Option<Instant> {
        self.standstills.last_end()
    }

    /// Returns the later of `since` and the end of the last standstill, before which this node could receive
    /// nothing.
    pub(crate) fn awake_from(&self, since: Instant) -> Instant {
        self.awake_since().map_or(since, |awake| awake.max(since))
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if event.peer().is_root() {
            return self.root_events.push_back(event);
        }
        if self.events.len() >= MAX_EVENTS {
            // The oldest goes, because the latest events describe the present state.
            self.events.pop_front();
            self.counters.events_lost.increment();
        }
        // The driver must not use a session in which nothing may pass yet; see `Endpoint::admit`.
        if matches!(event, Event::SessionReady(_)) && !event.peer().is_admitted() {
            return;
        }
        self.events.push_back(event);
    }

    /// Queues finished bytes, or drops them as a network would.
    pub(crate) fn transmit(&mut self, place: &Place, datagram: Vec<u8>) {
        if let Some(place) = usable(&self.sockets, place)
            && self.outbox.push(place, datagram)
        {
            return;
        }
        self.counters.transmits_dropped.increment();
    }

    /// Returns random bytes that others may know afterwards.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Returns a key for one handshake. Counts a failure if the system gives no entropy.
    pub(crate) fn ephemeral(&mut self) -> Option<Zeroizing<[u8; 32]>> {
        let drawn = self.keys.draw();
        self.count_failure(drawn)
    }

    /// Returns bytes that never repeat and cannot be guessed. Counts a failure if the system gives no
    /// entropy.
    pub(crate) fn nonce<const N: usize>(&mut self) -> Option<[u8; N]> {
        let drawn = self.keys.nonce();
        self.count_failure(drawn)
    }

    fn count_failure<T>(&self, drawn: Result<T, NoEntropy>) -> Option<T> {
        if drawn.is_err() {
            self.counters.entropy_failures.increment();
        }
        drawn.ok()
    }

    /// Frees an index that a handshake has reserved, unless a session uses it now.
    pub(crate) fn release(&mut self, index: SessionIndex) {
        // An index without a pending initiation belongs to a session, which stays.
        if self.initiations.remove(&index).is_some() {
            self.sessions.remove(index);
        }
    }
}

/// Everything one step of a link works with: the time, the shared state, and the link's peer.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    /// Key of the link.
    pub(crate) key: PeerKey,
    pub(crate) core: &'a mut Core,
    /// Node that the peer is, with the ways to it. Links in other networks use them too.
    pub(crate) node: NodeKey,
    pub(crate) reach: &'a mut Reach,
    /// All peers that the node is, this link's included.
    pub(crate) handles: &'a [(PeerKey, Arc<Peer>)],
    pub(crate) network: NetworkId,
    pub(crate) psk: &'a Psk,
    /// Bytes by which this node shows in handshakes that it is a program of a member; none in most networks.
    pub(crate) introduction: &'a [u8],
    /// Consequences beyond this link, which the owner handles after the step.
    pub(crate) effects: Vec<Effect>,
}

impl Context<'_> {
    /// Returns the length of an initiation without room, in bytes.
    pub(crate) fn initiation_len(&self) -> usize {
        Initiation::MIN + InitiationPayload::introduced(self.introduction)
    }
}

/// Consequence of a link's step for other parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The peer does not answer, or there is nowhere to send: look for it on the local networks.
    Solicit,
    /// The peer's address is unknown, or the peer does not answer there: look it up at the roots.
    LookUp,
    /// Data to the peer is unanswered since this time, or the peer has used no response to its handshakes
    /// since then and begins another one.
    Silent(Instant),
    /// The rank of the peer has changed, which matters when its network needs room.
    Refile,
    /// The peer was met at this place.
    Met(Place),
    /// The node's path has changed; the value is the path before.
    PathMoved(Option<Place>),
    /// The datagram size of the path has changed; the value is the size before.
    SizeChanged(usize),
    /// The node's path carries less than the smallest datagram.
    PathTooSmall,
    /// The node has shown that packets pass.
    Confirmed,
    /// The node's machine refuses packets, or its program was restarted.
    Doubted,
    /// The peer has said goodbye.
    Departed,
    /// The peer's last session is gone.
    SessionLost,
    /// The peer has a session that was not there before.
    Established,
}

impl Context<'_> {
    /// Sets or clears the time of a later step.
    pub(crate) fn set_timer(&mut self, timer: fn(PeerKey) -> Timer, at: Option<Instant>) {
        match at {
            Some(at) => self.core.timers.set(timer(self.key), at),
            None => self.core.timers.clear(timer(self.key)),
        }
    }

    pub(crate) fn has_path(&self) -> bool {
        self.reach.place().is_some()
    }

    /// Returns when the node was last heard in any network, except as a root, which may be another program.
    pub(crate) fn heard(&self) -> Option<Instant> {
        let peers = self.handles.iter().filter(|(_, handle)| !handle.is_root());
        peers.filter_map(|(_, handle)| handle.activity().last_received()).max()
    }

    /// Ends a session for good.
    pub(crate) fn erase(&mut self, session: &Session) {
        session.erase();
        self.core.sessions.remove(session.index());
    }
}

/// The wall clock as it was at the start, carried on by monotonic time.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    unix_time: Duration,
    last: Option<Timestamp>,
}

impl Clock {
    pub(crate) fn new(start: Instant, unix_time: Duration) -> Self {
        Self { start, unix_time, last: None }
    }

    /// Returns the wall clock at `now`, as time since the Unix epoch.
    pub(crate) fn unix_time(&self, now: Instant) -> Duration {
        self.unix_time.saturating_add(now.saturating_duration_since(self.start))
    }

    /// Returns the present time, always later than the last answer and than `floor`.
    pub(crate) fn timestamp(&mut self, now: Instant, floor: Option<Timestamp>) -> Timestamp {
        let time = self.unix_time(now);
        let timestamp = Timestamp::after(time, self.last);
        self.last = Some(timestamp);
        // `floor` is one peer's claim, so it must not raise the timestamps for others.
        timestamp.max(Timestamp::after(time, floor))
    }
}
