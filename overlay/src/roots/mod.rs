//! Roots: nodes that others can be found at, and that pass datagrams on between nodes which cannot reach each
//! other.
//!
//! This node has an ordinary session with each of its roots ([`Link`](crate::link::Link)), in a hidden
//! network of its own. What is here goes on inside that session, and is all that a root can do:
//!
//! - **Registration** (`registration`): this node says, signed, that it is to be found at the root, and gets
//!   a channel, which is its name there, a token for relayed frames, and a voucher for the address where the
//!   root sees it.
//! - **The other family** (`views`): a root that is reached by IPv6 is asked by IPv4 for a voucher, too, or
//!   the other way round.
//! - **Look-ups** (`lookups`): who has an address, and under which channel is it reached? All roots are
//!   asked. A root cannot make an answer up: the key follows from the address, and the node itself has signed
//!   that it is at this root. A root may refer to another one, which is then a guest for a while
//!   (`endpoint/guests`).
//! - **Nicknames** (`nicknames`): this node claims names, signed, and asks for those of others. Roots keep them
//!   for whoever comes first.
//! - **Relaying** (`relays`): a place behind a root is a [`Place`](crate::Place) like any other, proven and
//!   measured by the node's [`Reach`](crate::reach::Reach).
//!
//! - **Streams** (`stream`): where UDP does not pass, the driver opens a stream (TCP, TLS, WebSocket) to the
//!   root, which is one more way to it.
//!
//! So a root that lies can refuse its service and nothing more. What it does know is in `docs/reference/PROTOCOL.md`.
//!
//! Everything here is plain state: `endpoint/roots` moves it and sends what it says.

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

/// Most roots that one node uses at once, besides those that others have named. Each costs a small packet
/// every 25 s.
pub const MAX_ROOTS: usize = 8;

/// An answer from a root is waited for so long, then it is asked again.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A root that nothing was sent to for so long is asked when the path to a peer is doubted.
pub(crate) const DOUBT_INTERVAL: Duration = Duration::from_secs(2);

/// Questions without any answer after which a root gets a handshake.
pub(crate) const MAX_UNANSWERED: u32 = 3;

/// A root that could not be reached is tried again this often.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Addresses of other roots that are tried because one root has named them: so many at once, and one per
/// interval from then on.
const NAMED_BURST: u32 = 16;
const NAMED_INTERVAL: Duration = Duration::from_secs(10);

/// How often a root may cause something without being asked: some times at once, and then one in a while.
/// Without that a root that lies has its nodes send, and their applications see events, as fast as it likes.
#[derive(Debug, Default)]
pub(crate) struct Unasked {
    full_at: Option<Instant>,
}

impl Unasked {
    /// A node that moves, and roots that restart, cause a few at once.
    pub(crate) const BURST: u32 = 10;
    /// Then one in so long.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(3);

    /// Takes one, if there is one left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_of(Rate::every(Self::INTERVAL, Self::BURST), now)
    }

    /// Takes one of another rate.
    pub(crate) fn take_of(&mut self, rate: Rate, now: Instant) -> bool {
        rate.take(self.full_at.get_or_insert(now), now)
    }
}

/// One root of this node.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) identity: PublicIdentity,
    /// What its operator gave to those who may register.
    pub(crate) access: Vec<u8>,
    pub(crate) registering: Registering,
    pub(crate) keeping: Keeping,
    /// Where it sees this node by the other address family.
    pub(crate) other_view: OtherView,
    /// How it is reached as a relay, as it was last made known.
    pub(crate) relay: Option<Relay>,
    /// Changes of that, each of which moves the paths of all nodes behind it. They follow from what the root
    /// says, and from where it says it.
    pub(crate) moves: Unasked,
    /// When a change is made known that came too soon after others.
    pub(crate) move_at: Option<Instant>,
    /// What it says of channels that it does not know.
    pub(crate) notices: Unasked,
    /// Since when it owes an answer, and how often it was asked.
    pub(crate) asked: Option<(Instant, u32)>,
    /// It has not answered handshakes for a while.
    pub(crate) is_unreachable: bool,
    /// It has said that the directory which it shares with other roots does not answer.
    pub(crate) is_partial: bool,
    pub(crate) stream: Stream,
    /// What its clock said last, in seconds since the Unix epoch, and when that was.
    pub(crate) clock: Option<(u64, Instant)>,
    /// How many addresses of other roots are tried because of what it says.
    pub(crate) named: Bucket,
    /// Only if another root has named it.
    pub(crate) guest: Option<Guest>,
    /// It was found in a list that somebody else may have written.
    pub(crate) is_listed: bool,
}

/// What a root is used for that another one has named.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The nodes that are said to be there.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// When it was last named, or one of them was last seen to be reached through it.
    pub(crate) used: Instant,
    /// The roots of this node's own that have named it, each with the pass that it gave. The first one pays
    /// for the place; it is none only if that one was left.
    pub(crate) named_by: Vec<(PeerKey, [u8; 32])>,
    /// Which of the passes is shown, and how many were refused since one was good.
    pub(crate) shown: usize,
    pub(crate) refused: usize,
    /// When something was last sent to its addresses on the word of who has named it.
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

    /// How it is; `connected`: there is a session with it.
    pub(crate) fn state(&self, connected: bool, now: Instant) -> RootState {
        match self.registering.standing(now) {
            _ if self.registering.is_refused() => RootState::Refused,
            _ if self.is_unreachable => RootState::Unreachable,
            Some(answer) if connected && answer.drains => RootState::Draining,
            Some(_) if connected && self.registering.is_confirmed(now) => RootState::Registered,
            _ if connected => RootState::Connected,
            _ => RootState::Connecting,
        }
    }
}
