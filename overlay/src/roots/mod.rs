//! Roots: nodes at which other nodes are found, and which relay between nodes that cannot reach each other.
//!
//! This node has an ordinary session with each of its roots ([`Link`](crate::link::Link)), in a separate
//! hidden network. This module has everything that happens inside that session, which is all that a root can
//! do:
//!
//! - **Registration** (`registration`): this node signs that it can be found at the root. It gets a channel,
//!   which is its name there, a token for relayed frames, and a voucher for the address where the root sees
//!   it.
//! - **The other family** (`views`): this node asks a root reached by IPv6 for another voucher by IPv4, or
//!   the other way round.
//! - **Look-ups** (`lookups`): this node asks all roots for the owner of an address and its channel. A root
//!   cannot forge an answer, because the key follows from the address, and the node itself has signed that it
//!   is at this root. A root may refer to another one, which is then a guest for a while (`endpoint/guests`).
//! - **Nicknames** (`nicknames`): this node claims names, signed, and looks up other nodes' names. Roots give
//!   a name to the first node that claims it.
//! - **Relaying** (`relays`): a place behind a root is a [`Place`](crate::Place) like any other, which the
//!   node's [`Reach`](crate::reach::Reach) proves and measures.
//! - **Streams** (`stream`): where UDP does not pass, the driver opens a stream (TCP, TLS, WebSocket) to the
//!   root, which is one more way to it.
//!
//! So a root that lies can refuse its service and nothing more. What it does know is in
//! `docs/reference/PROTOCOL.md`.
//!
//! Everything here is plain state: `endpoint/roots` drives it and sends its messages.

mod config;
mod keeping;
mod lookups;
mod nicknames;
mod registration;
mod relays;
mod stream;
mod views;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub use config::{RootConfig, RootInfo, RootState, WantedStream};
pub(crate) use keeping::Keeping;
pub(crate) use lookups::LookUps;
pub(crate) use nicknames::{Answered, Claims, Questions, is_current};
pub use nicknames::{NamedNode, NicknameError};
pub(crate) use registration::Registering;
pub use relays::{RelayReader, Relays};
pub(crate) use stream::{Reached, Stream};
pub(crate) use views::OtherView;

use crate::bucket::{Bucket, Rate};
use crate::id::{NodeId, PublicIdentity};
use crate::link::PeerKey;
use crate::reach::{Relay, SocketIndex};

/// Maximum number of roots that one node uses at once, without guests. Each costs a small packet every 25 s.
pub const MAX_ROOTS: usize = 8;

/// Time without an answer after which a root gets the question again.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Time since the last packet to a root after which a doubted path of a peer makes this node ask that root.
pub(crate) const DOUBT_INTERVAL: Duration = Duration::from_secs(2);

/// Number of unanswered questions after which a root gets a handshake.
pub(crate) const MAX_UNANSWERED: u32 = 3;

/// Interval of retries for a root that could not be reached.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Burst and interval of other roots' addresses that are tried because one root has named them.
const NAMED_BURST: u32 = 16;
const NAMED_INTERVAL: Duration = Duration::from_secs(10);

/// Limit on effects that a root causes without being asked: a burst, and then a low rate. Without it a lying
/// root could make its nodes send, and their applications see events, at any rate.
#[derive(Debug, Default)]
pub(crate) struct Unasked {
    full_at: Option<Instant>,
}

impl Unasked {
    /// Burst, because a node that moves, and roots that restart, cause a few at once.
    pub(crate) const BURST: u32 = 10;
    /// Interval after the burst.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(3);

    /// Takes one, if any is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_of(Rate::every(Self::INTERVAL, Self::BURST), now)
    }

    /// Takes one at another rate.
    pub(crate) fn take_of(&mut self, rate: Rate, now: Instant) -> bool {
        rate.take(self.full_at.get_or_insert(now), now)
    }
}

/// One root of this node.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) identity: PublicIdentity,
    /// Access token from its operator.
    pub(crate) access: Vec<u8>,
    pub(crate) registering: Registering,
    pub(crate) keeping: Keeping,
    /// Address at which it sees this node in the other address family.
    pub(crate) other_view: OtherView,
    /// Published way to it as a relay.
    pub(crate) relay: Option<Relay>,
    /// Limit on changes of that way, each of which moves the paths of all nodes behind it. The root's
    /// messages and their source cause them.
    pub(crate) moves: Unasked,
    /// Time for publishing a change that came too soon after others.
    pub(crate) move_at: Option<Instant>,
    /// Limit on its notices about channels that it does not know.
    pub(crate) notices: Unasked,
    /// Time since which it owes an answer, and the number of questions.
    pub(crate) asked: Option<(Instant, u32)>,
    /// True if it has not answered handshakes for a while.
    pub(crate) is_unreachable: bool,
    /// Set while it says that the directory shared with other roots does not answer.
    pub(crate) is_partial: bool,
    pub(crate) stream: Stream,
    /// Its last clock value, in seconds since the Unix epoch, and the time of its arrival.
    pub(crate) clock: Option<(u64, Instant)>,
    /// Budget for addresses of other roots that are tried because this root names them.
    pub(crate) named: Bucket,
    /// State of a guest; `None` if no other root has named it.
    pub(crate) guest: Option<Guest>,
    /// True if it comes from a list that an outsider may have written.
    pub(crate) is_listed: bool,
}

/// State of a root that another one has named.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Nodes that are said to be there.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Time when it was last named, or a node was last reached through it.
    pub(crate) used: Instant,
    /// Roots this node was given that have named it, each with its pass. The guest counts against the first
    /// one's share; the list is empty only after that one was left.
    pub(crate) named_by: Vec<(PeerKey, [u8; 32])>,
    /// Index of the pass in use, and the number of passes refused since one was good.
    pub(crate) shown: usize,
    pub(crate) refused: usize,
    /// Time when something was last sent to its addresses because another root has named it.
    pub(crate) granted: Instant,
}

impl Root {
    pub(crate) fn new(identity: PublicIdentity, stream: SocketIndex, now: Instant) -> Self {
        Self {
            identity,
            access: Vec::new(),
            registering: Registering::default(),
            keeping: Keeping::default(),
            other_view: OtherView::default(),
            relay: None,
            moves: Unasked::default(),
            move_at: None,
            notices: Unasked::default(),
            asked: None,
            is_unreachable: false,
            is_partial: false,
            stream: Stream::new(stream),
            clock: None,
            named: Bucket::new(Rate::every(NAMED_INTERVAL, NAMED_BURST), now),
            guest: None,
            is_listed: false,
        }
    }

    /// Returns the root's state; `connected` is true while it has a session.
    pub(crate) fn state(&self, connected: bool, now: Instant) -> RootState {
        match self.registering.standing(now) {
            // The most useful word first: a root that refuses this node is also connected.
            _ if self.registering.is_refused() => RootState::Refused,
            _ if self.is_unreachable => RootState::Unreachable,
            Some(answer) if connected && answer.drains => RootState::Draining,
            Some(_) if connected && self.registering.is_confirmed(now) => RootState::Registered,
            _ if connected => RootState::Connected,
            _ => RootState::Connecting,
        }
    }
}
