//! Our initiations that a response may still answer.
//!
//! One initiation goes to all possible addresses of the peer, so anyone claiming to be the peer at some
//! address gets a copy, with the index that an answer needs. An initiation that gets several garbage answers
//! is given up. Once that has happened, the attempt continues *apart*: each address gets a separate
//! initiation, and a forgery for one does not affect the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::timing::closest_to_neighbours;
use crate::noise::Initiator;
use crate::reach::Place;
use crate::wire::SessionIndex;

/// Number of failed responses to one initiation after which no further response to it is read.
const MAX_FAILED_RESPONSES: u8 = 8;

/// Maximum number of initiations of one attempt kept for a response, if they went to all addresses.
const MAX_SHARED: usize = 8;

/// The same limit for initiations to one address, per address and in total.
const MAX_PER_PLACE: usize = 2;
const MAX_APART: usize = 24;

/// Maximum age of an initiation for a response: the longest round trip plus the responder's queueing time.
pub(super) const PENDING_FOR: Duration = Duration::from_secs(12);

/// One initiation that waits for its response.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) initiator: Initiator,
    pub(super) sent: Instant,
    /// Round of the attempt in which it was sent.
    pub(super) round: u32,
    /// Places it was sent to.
    pub(super) targets: Vec<Place>,
    /// Bytes of the initiation.
    pub(super) datagram: Vec<u8>,
    /// True if it went to one address alone, and others went elsewhere.
    pub(super) is_apart: bool,
    /// Number of responses that were not authentic.
    pub(super) failed: u8,
}

impl Pending {
    pub(super) fn index(&self) -> SessionIndex {
        self.initiator.index()
    }

    /// Returns true if the initiation went to `place`.
    pub(super) fn went_to(&self, place: &Place) -> bool {
        self.targets.iter().any(|target| target.key() == place.key())
    }

    /// Returns true if the initiation went to `place` alone, so that an answer proves that the peer receives
    /// there.
    pub(super) fn went_only_to(&self, place: &Place) -> bool {
        // A copy sent elsewhere could have been answered from anywhere.
        matches!(&self.targets[..], [only] if only.key() == place.key())
    }

    /// Returns true if the initiation and `beginning` agree in their common length.
    pub(super) fn begins_with(&self, beginning: &[u8]) -> bool {
        // An ICMP error may quote less than the whole datagram.
        let common = self.datagram.len().min(beginning.len());
        common > 0 && self.datagram[..common] == beginning[..common]
    }

    /// Counts a forged response. Returns true if no further response to this initiation should be read.
    pub(super) fn note_failure(&mut self) -> bool {
        self.failed += 1;
        self.failed >= MAX_FAILED_RESPONSES
    }
}

/// Removes an initiation that is unlikely to be answered, if there are too many of the kind that was added
/// last.
pub(super) fn thin(pending: &mut VecDeque<Pending>, now: Instant) -> Option<Pending> {
    let newest = pending.back()?;
    let (apart, place) = (newest.is_apart, newest.targets.first().copied());
    let of_kind = |one: &Pending| one.is_apart == apart;
    let alike = |one: &Pending| of_kind(one) && (!apart || place.is_some_and(|place| one.went_to(&place)));
    let positions = |is_one: &dyn Fn(&Pending) -> bool| -> Vec<usize> {
        (0..pending.len()).filter(|&at| is_one(&pending[at])).collect()
    };
    if apart {
        // Anyone can claim addresses, so the oldest initiations are the least likely to be answered.
        let all = positions(&of_kind);
        if all.len() > MAX_APART {
            return pending.remove(all[0]);
        }
    }
    let (alike, most) = (positions(&alike), if apart { MAX_PER_PLACE } else { MAX_SHARED });
    if alike.len() <= most {
        return None;
    }
    let first = alike[0];
    if now >= pending[first].sent + PENDING_FOR {
        return pending.remove(first);
    }
    // Removing the one closest in time to its neighbours keeps the first, whose answer comes first even on a
    // long path, and spreads the rest over the time that an answer may take.
    let sent: Vec<_> = alike.iter().map(|&at| pending[at].sent).collect();
    pending.remove(alike[closest_to_neighbours(&sent)?])
}
