//! How much is sent to addresses that nodes have named.
//!
//! A node may name any address as its own. So an address counts as *vouched* for only if a root that this
//! node was told to use has seen the node at that IP address, or if both nodes are behind one such address
//! and the address is a private one. Those that only a root has seen which another one has named share one
//! allowance: who has such roots named could make any number of them. All others get a plan's first
//! few challenges only, from an allowance of the node and one of all nodes. There is one for all addresses of
//! a node, too: others may be behind an address that is vouched for.
//!
//! Of a node that was heard of elsewhere, in the DHT, nobody vouches for any address, and there is no
//! session. The initiations to all such nodes have one allowance, of which those that nobody here wants, but
//! who have knocked, get one half: whoever knocks as often as he can must not keep this node from others.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};
use crate::contact::{Candidate, Contact, Vouched};

/// Challenges to one address that nobody vouches for, in one round.
pub(super) const UNVOUCHED_SHOTS: u32 = 6;

/// Challenges to such addresses of one node: so many at once, and one per interval from then on.
const UNVOUCHED_BURST: u32 = 24;
const UNVOUCHED_INTERVAL: Duration = Duration::from_secs(5);

/// Challenges to all addresses of one node, vouched ones included: so many at once, and one per interval.
const BURST: u32 = 200;
const INTERVAL: Duration = Duration::from_millis(250);

/// Challenges to addresses of all nodes that nobody vouches for.
const ALL_UNVOUCHED_PER_SECOND: u32 = 20;
const ALL_UNVOUCHED_BURST: u32 = 240;

/// Challenges to addresses of all nodes that only guests vouch for: so many at once, and one per interval.
const BY_GUESTS_BURST: u32 = 60;
const BY_GUESTS_INTERVAL: Duration = Duration::from_secs(1);

/// Initiations of 198 bytes to all nodes that were heard of elsewhere. A meeting of two nodes that are honest
/// needs a hundred in 14 s.
const MEETINGS_PER_SECOND: u32 = 20;
const MEETINGS_BURST: u32 = 480;

/// Those of them to nodes that no program here wants.
const UNWANTED_PER_SECOND: u32 = MEETINGS_PER_SECOND / 2;
const UNWANTED_BURST: u32 = MEETINGS_BURST / 2;

/// TCP connections to addresses of all nodes that no root of this node's own vouches for: so many at once,
/// and one per interval. Each is three SYN packets at most.
const TCP_UNVOUCHED_BURST: u32 = 8;
const TCP_UNVOUCHED_INTERVAL: Duration = Duration::from_secs(30);

/// What may be sent to addresses of all nodes that no root of this node's own vouches for.
#[derive(Debug)]
pub(crate) struct Allowances {
    /// Nobody does.
    unvouched: Bucket,
    /// Roots do that others have named.
    by_guests: Bucket,
    /// Initiations to nodes that were heard of elsewhere, and with which there is no session yet.
    meetings: Bucket,
    /// Those of them to nodes that nobody here wants.
    unwanted: Bucket,
    /// TCP connections to addresses that nobody vouches for, or only guests.
    tcp_unvouched: Bucket,
}

impl Allowances {
    /// Full ones.
    pub(crate) fn new(now: Instant) -> Self {
        let unvouched = Rate::per_second(ALL_UNVOUCHED_PER_SECOND, ALL_UNVOUCHED_BURST);
        let by_guests = Rate::every(BY_GUESTS_INTERVAL, BY_GUESTS_BURST);
        let meetings = Rate::per_second(MEETINGS_PER_SECOND, MEETINGS_BURST);
        let unwanted_meetings = Rate::per_second(UNWANTED_PER_SECOND, UNWANTED_BURST);
        let tcp_unvouched = Rate::every(TCP_UNVOUCHED_INTERVAL, TCP_UNVOUCHED_BURST);
        Self {
            tcp_unvouched: Bucket::new(tcp_unvouched, now),
            unvouched: Bucket::new(unvouched, now),
            by_guests: Bucket::new(by_guests, now),
            meetings: Bucket::new(meetings, now),
            unwanted: Bucket::new(unwanted_meetings, now),
        }
    }

    /// Whether a TCP connection may be tried to an address that is known by this word.
    pub(super) fn take_tcp(&mut self, word: Word, now: Instant) -> bool {
        word == Word::Root || self.tcp_unvouched.take(now)
    }

    /// Whether an initiation may be sent to an address that a record or a knock has named; `is_wanted` says
    /// whether a program here waits for the node.
    pub(super) fn take_meeting(&mut self, is_wanted: bool, now: Instant) -> bool {
        let is_allowed = is_wanted || (self.meetings.has(1, now) && self.unwanted.take(now));
        is_allowed && self.meetings.take(now)
    }
}

/// Who says that the node is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The node alone.
    Own,
    /// A root that another one has named.
    Guest,
    /// A root that this node was told to use.
    Root,
}

impl Vouched {
    pub(super) fn word_on(&self, ip: &IpAddr) -> Word {
        match self {
            vouched if vouched.by_own.contains(ip) => Word::Root,
            vouched if vouched.by_guests.contains(ip) => Word::Guest,
            _ => Word::Own,
        }
    }

    /// Whether a root has seen the node behind an address that this node has, too.
    pub(super) fn is_neighbour(&self, own: &Contact) -> bool {
        own.public().any(|ip| self.by_own.contains(&ip))
    }

    /// The node's candidates that may be what it says, and the others. Private addresses are for nodes that a
    /// root has seen behind the same address as this one; a node without any public address has no such
    /// proof.
    pub(super) fn believed(&self, own: &Contact, theirs: &Contact) -> (Contact, Vec<Candidate>) {
        let is_near = own.public().next().is_none() || self.is_neighbour(own);
        let is_believed = |candidate: &Candidate| is_near || candidate.is_global();
        let (believed, doubted): (Vec<_>, Vec<_>) =
            theirs.candidates().iter().copied().partition(is_believed);
        (Contact::new(theirs.nat, believed), doubted)
    }
}

/// What may be sent to the addresses of one node.
#[derive(Debug)]
pub(super) struct Bounds {
    all: Bucket,
    unvouched: Bucket,
}

impl Bounds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::new(Rate::every(INTERVAL, BURST), now),
            unvouched: Bucket::new(Rate::every(UNVOUCHED_INTERVAL, UNVOUCHED_BURST), now),
        }
    }

    /// Whether a challenge may be sent to an address that is known by this word.
    pub(super) fn take(&mut self, word: Word, allowances: &mut Allowances, now: Instant) -> bool {
        if !self.all.has(1, now) {
            return false;
        }
        let is_vouched = match word {
            Word::Root => true,
            Word::Guest => allowances.by_guests.take(now),
            Word::Own => false,
        };
        let is_allowed = is_vouched
            || (self.unvouched.has(1, now) && allowances.unvouched.take(now) && self.unvouched.take(now));
        is_allowed && self.all.take(now)
    }
}
