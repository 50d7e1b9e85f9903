//! Budgets for addresses that nodes have named.
//!
//! A node may name any address as its own. So an address counts as *vouched* for only if a root this node was
//! given has seen the node at that IP address, or if it is private and both nodes are behind one such
//! address. Addresses seen only by guests share one budget, because an attacker could have any number of
//! guests named. All other addresses get only a plan's first few challenges, from a budget of the node and
//! one of all nodes. Another budget covers all addresses of a node, because other hosts may be behind an
//! address that is vouched for.
//!
//! For a node known only from the DHT, no root vouches for any address, and there is no session. The
//! initiations to all such nodes share one budget. Nodes that have knocked but that no local program wants
//! get half of it, because an attacker who knocks constantly must not keep this node from others.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};
use crate::contact::{Candidate, Contact, Vouched};

/// Number of challenges to one unvouched address in one round.
pub(super) const UNVOUCHED_SHOTS: u32 = 6;

/// Burst and interval of challenges to such addresses of one node.
const UNVOUCHED_BURST: u32 = 24;
const UNVOUCHED_INTERVAL: Duration = Duration::from_secs(5);

/// Burst and interval of challenges to all addresses of one node, vouched ones included.
const CHALLENGE_BURST: u32 = 200;
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(250);

/// Rate of challenges to unvouched addresses of all nodes.
const ALL_UNVOUCHED_PER_SECOND: u32 = 20;
const ALL_UNVOUCHED_BURST: u32 = 240;

/// Burst and interval of challenges to addresses of all nodes that only guests vouch for.
const BY_GUESTS_BURST: u32 = 60;
const BY_GUESTS_INTERVAL: Duration = Duration::from_secs(1);

/// Rate of initiations of 198 bytes to all nodes known only from elsewhere. A meeting of two honest nodes
/// needs a hundred in 14 s.
const MEETINGS_PER_SECOND: u32 = 20;
const MEETINGS_BURST: u32 = 480;

/// The same for nodes that no local program wants.
const UNWANTED_PER_SECOND: u32 = MEETINGS_PER_SECOND / 2;
const UNWANTED_BURST: u32 = MEETINGS_BURST / 2;

/// Burst and interval of TCP connections to addresses of all nodes that no root this node was given vouches
/// for. Each connection is at most three SYN packets.
const TCP_UNVOUCHED_BURST: u32 = 8;
const TCP_UNVOUCHED_INTERVAL: Duration = Duration::from_secs(30);

/// Budgets for addresses of all nodes that no root this node was given vouches for.
#[derive(Debug)]
pub(crate) struct Allowances {
    /// Budget for addresses without any voucher.
    unvouched: Bucket,
    /// Budget for addresses that only guests vouch for.
    by_guests: Bucket,
    /// Budget for initiations to nodes known from elsewhere, without a session yet.
    meetings: Bucket,
    /// Budget for initiations to nodes no local program has asked for.
    unwanted: Bucket,
    /// Budget for TCP connections to addresses without a voucher, or with one from guests only.
    tcp_unvouched: Bucket,
}

impl Allowances {
    /// Creates full budgets.
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

    /// Returns true if a TCP connection may be tried to an address with this voucher.
    pub(super) fn take_tcp(&mut self, word: Word, now: Instant) -> bool {
        word == Word::Root || self.tcp_unvouched.take(now)
    }

    /// Returns true if an initiation may be sent to an address from a record or a knock. `is_wanted` is true
    /// if a local program waits for the node.
    pub(super) fn take_meeting(&mut self, is_wanted: bool, now: Instant) -> bool {
        // Checked first, because the smaller budget must not pay for an initiation that the common one
        // refuses.
        let is_allowed = is_wanted || (self.meetings.has(1, now) && self.unwanted.take(now));
        is_allowed && self.meetings.take(now)
    }
}

/// Origin of the claim that the node is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The node alone claims it.
    Own,
    /// A guest, which another root has named, has seen the node.
    Guest,
    /// A root this node was given has seen the node.
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

    /// Returns true if a root has seen the node behind a public address that this node has too.
    pub(super) fn is_neighbour(&self, own: &Contact) -> bool {
        own.public().any(|ip| self.by_own.contains(&ip))
    }

    /// Splits the node's candidates into credible ones and the others. Private addresses are credible only if
    /// a root has seen the node behind the same address as this one. A node without any public address has no
    /// such proof, and believes all.
    pub(super) fn believed(&self, own: &Contact, theirs: &Contact) -> (Contact, Vec<Candidate>) {
        let is_near = own.public().next().is_none() || self.is_neighbour(own);
        let is_believed = |candidate: &Candidate| is_near || candidate.is_global();
        let (believed, doubted): (Vec<_>, Vec<_>) =
            theirs.candidates().iter().copied().partition(is_believed);
        (Contact::new(theirs.nat, believed), doubted)
    }
}

/// Budgets for the addresses of one node.
#[derive(Debug)]
pub(super) struct Bounds {
    all: Bucket,
    unvouched: Bucket,
}

impl Bounds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::new(Rate::every(CHALLENGE_INTERVAL, CHALLENGE_BURST), now),
            unvouched: Bucket::new(Rate::every(UNVOUCHED_INTERVAL, UNVOUCHED_BURST), now),
        }
    }

    /// Returns true if a challenge may be sent to an address with this voucher.
    pub(super) fn take(&mut self, word: Word, allowances: &mut Allowances, now: Instant) -> bool {
        // Checked first, because a budget shared with other nodes must not pay for a packet that is not sent.
        if !self.all.has(1, now) {
            return false;
        }
        let is_vouched = match word {
            Word::Root => true,
            Word::Guest => allowances.by_guests.take(now),
            Word::Own => false,
        };
        // The node's own bucket is checked first, so that a node without tokens does not drain the common
        // one.
        let is_allowed = is_vouched
            || (self.unvouched.has(1, now) && allowances.unvouched.take(now) && self.unvouched.take(now));
        is_allowed && self.all.take(now)
    }
}
