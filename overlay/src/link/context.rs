//! What a link works with besides its own state.

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
use crate::noise::Timestamp;
use crate::reach::{Place, Reach, SocketInfo, usable};
use crate::session::{Peer, Session, SessionTable, Watched};
use crate::wire::SessionIndex;

/// Events kept for a driver that does not ask for them; the oldest are lost beyond that.
const MAX_EVENTS: usize = 16_384;

/// What all links of a node share: who it is, its sockets, and the queues of what is to be done.
pub(crate) struct Core {
    pub(crate) identity: Arc<Identity>,
    pub(crate) own_id: NodeId,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) receive_buffer: u32,
    /// Random per start, so that peers notice a restart.
    pub(crate) instance: u64,
    pub(crate) clock: Clock,
    /// Indices, jitter and times: what an attacker may know afterwards.
    pub(crate) rng: ChaCha20Rng,
    /// Keys, and numbers that must not repeat or be guessed.
    pub(crate) keys: KeySource,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) sockets: Vec<SocketInfo>,
    /// Our initiations that wait for a response, by the index in them.
    pub(crate) initiations: BTreeMap<SessionIndex, PeerKey>,
    /// Rounds of handshakes in which each address gets an initiation of its own.
    pub(crate) apart: Bucket,
    pub(crate) timers: Timers<Timer>,
    pub(crate) standstills: Standstills,
    pub(crate) outbox: Outbox,
    pub(crate) events: VecDeque<Event>,
    /// Where this node can be reached.
    pub(crate) contact: OwnContact,
    /// The roots that this node uses: their word counts about where other nodes are.
    pub(crate) witnesses: Vec<Witness>,
    /// Addresses of the roots that relay no more than what is free.
    pub(crate) scarce: Vec<SocketAddr>,
    /// What may still be sent to addresses that peers name and no root of this node's own vouches for.
    pub(crate) allowances: Allowances,
    /// The search for a direct way by many ports, of which there is one at a time.
    pub(crate) birthday: Birthday<NodeKey>,
    /// TCP connections to other nodes.
    pub(crate) tcp: TcpStreams<NodeKey>,
    /// Whether there are roots at which nodes can be looked for.
    pub(crate) has_roots: bool,
    /// How many peers have connections.
    pub(crate) watched: Watched,
    /// What would be told to the driver, of peers that are roots.
    pub(crate) root_events: VecDeque<Event>,
}

/// So many rounds a second have an initiation for each address: 24 X25519 operations at most.
const APART_PER_SECOND: u32 = 20;
const APART_BURST: u32 = 40;

/// A full bucket for [`Core::apart`].
pub(crate) fn apart(now: Instant) -> Bucket {
    Bucket::new(Rate::per_second(APART_PER_SECOND, APART_BURST), now)
}

impl Core {
    /// To be called before anything is judged by the time. A node that was stopped, or that its machine gives
    /// no processor, has heard nobody, and must not take that for the silence of all its peers at once.
    pub(crate) fn note_time(&mut self, now: Instant) {
        self.standstills.note(self.timers.next(), now);
    }

    /// Returns the end of this node's last standstill.
    pub(crate) fn awake_since(&self) -> Option<Instant> {
        self.standstills.last_end()
    }

    /// Returns the later one of a time and the end of the last standstill: before, this node could hear
    /// nobody.
    pub(crate) fn awake_from(&self, since: Instant) -> Instant {
        self.awake_since().map_or(since, |awake| awake.max(since))
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if event.peer().is_root() {
            return self.root_events.push_back(event);
        }
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
            self.counters.events_lost.increment();
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

    /// Random bytes that others may know afterwards.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A key of its own for one handshake. Counted if there is none.
    pub(crate) fn ephemeral(&mut self) -> Option<Zeroizing<[u8; 32]>> {
        let drawn = self.keys.draw();
        self.count_failure(drawn)
    }

    /// Bytes that are never repeated and cannot be guessed. Counted if there are none.
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

    /// Frees an index that a handshake has reserved, unless it is a session's now.
    pub(crate) fn release(&mut self, index: SessionIndex) {
        if self.initiations.remove(&index).is_some() {
            self.sessions.remove(index);
        }
    }
}

/// What one step of a link works with: the time, what the links share, and what the link's peer is.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    /// The link's own name.
    pub(crate) key: PeerKey,
    pub(crate) core: &'a mut Core,
    /// The node that the peer is, and the ways to it. Links in other networks use them too.
    pub(crate) node: NodeKey,
    pub(crate) reach: &'a mut Reach,
    /// The peers that the node is, this link's among them.
    pub(crate) handles: &'a [(PeerKey, Arc<Peer>)],
    pub(crate) network: NetworkId,
    pub(crate) psk: &'a Psk,
    /// What concerns more than this link, for its owner to do after the step.
    pub(crate) effects: Vec<Effect>,
}

/// What a step of a link means for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The peer does not answer, or there is nowhere to ask: it is to be looked for on the local networks.
    Solicit,
    /// Nothing is known of where the peer is, or it does not answer there: it is to be looked for at the
    /// roots.
    LookUp,
    /// Data to the peer has been unanswered since then, or the peer has used no response to its handshakes
    /// since then and begins another one.
    Silent(Instant),
    /// What the peer is worth has changed, for when its network needs room.
    Refile,
    /// The peer has been met at this place.
    Met(Place),
    /// The node's path has changed; this was it before.
    PathMoved(Option<Place>),
    /// Datagrams of the path have another size; it was this before.
    SizeChanged(usize),
    /// The node's path carries less than the least datagram.
    PathTooSmall,
    /// The node has shown that packets pass.
    Confirmed,
    /// The node's machine refuses packets, or its program was started again.
    Doubted,
    /// The peer has said goodbye.
    Departed,
    /// The peer's last session is gone.
    SessionLost,
}

impl Context<'_> {
    /// Makes a later step come at a time, or none.
    pub(crate) fn set_timer(&mut self, timer: fn(PeerKey) -> Timer, at: Option<Instant>) {
        match at {
            Some(at) => self.core.timers.set(timer(self.key), at),
            None => self.core.timers.clear(timer(self.key)),
        }
    }

    pub(crate) fn has_path(&self) -> bool {
        self.reach.place().is_some()
    }

    /// When the node was last heard from in any network; but not as a root, which may be another program.
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

    /// The wall clock at `now`, as time since the Unix epoch.
    pub(crate) fn unix_time(&self, now: Instant) -> Duration {
        self.unix_time.saturating_add(now.saturating_duration_since(self.start))
    }

    /// The present time, and always later than the last answer and than `floor`.
    ///
    /// A floor is what one peer says: it concerns the initiations to that peer alone.
    pub(crate) fn timestamp(&mut self, now: Instant, floor: Option<Timestamp>) -> Timestamp {
        let time = self.unix_time(now);
        let timestamp = Timestamp::after(time, self.last);
        self.last = Some(timestamp);
        timestamp.max(Timestamp::after(time, floor))
    }
}
