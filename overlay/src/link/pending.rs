//! Our initiations that a response may still answer.
//!
//! One initiation goes to all addresses at which the peer may be, so everybody who says to be the peer at
//! some address gets a copy, and with it the index that an answer needs. Who answers with garbage has that
//! initiation given up after some answers. So when that has happened once, the attempt goes on *apart*: each
//! address gets an initiation of its own, and what is forged for one says nothing about the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::timing::closest_to_neighbours;
use crate::noise::Initiator;
use crate::reach::Place;
use crate::wire::SessionIndex;

/// Responses to one initiation that may fail to authenticate; then nothing more is read that answers it.
const MAX_FAILED_RESPONSES: u8 = 8;

/// Initiations of one attempt that a response may still answer, if they went to all addresses.
const MAX_SHARED: usize = 8;

/// The same of those that went to one address only, for each address and for all together.
const MAX_PER_PLACE: usize = 2;
const MAX_APART: usize = 24;

/// A response may come so late: the longest round trip, and the time that the responder's queue may add.
pub(super) const PENDING_FOR: Duration = Duration::from_secs(12);

/// One initiation that waits for its response.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) initiator: Initiator,
    pub(super) sent: Instant,
    /// The round of the attempt in which it was sent.
    pub(super) round: u32,
    /// Where it went.
    pub(super) targets: Vec<Place>,
    /// As it was sent.
    pub(super) datagram: Vec<u8>,
    /// It went to one address, and others went elsewhere.
    pub(super) is_apart: bool,
    /// Responses to it that were not authentic.
    pub(super) failed: u8,
}

impl Pending {
    pub(super) fn index(&self) -> SessionIndex {
        self.initiator.index()
    }

    /// Whether it went there.
    pub(super) fn went_to(&self, place: &Place) -> bool {
        self.targets.iter().any(|target| target.key() == place.key())
    }

    /// Whether it went there, and nowhere else: then its answer shows that the peer receives there. A copy
    /// that went elsewhere too may have been answered from anywhere.
    pub(super) fn went_only_to(&self, place: &Place) -> bool {
        matches!(&self.targets[..], [only] if only.key() == place.key())
    }

    /// Whether it begins like this.
    pub(super) fn begins_with(&self, beginning: &[u8]) -> bool {
        let common = self.datagram.len().min(beginning.len());
        common > 0 && self.datagram[..common] == beginning[..common]
    }

    /// Counts a forged response; true if nothing more is to be read that answers it.
    pub(super) fn note_failure(&mut self) -> bool {
        self.failed += 1;
        self.failed >= MAX_FAILED_RESPONSES
    }
}

/// Takes out an initiation that is unlikely to be answered, if there are too many of the kind that was added
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
        // Addresses come and go by what anybody says; the oldest are the least likely to be answered.
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
    // The one that is closest in time to its neighbours: so the first, whose answer comes first however long
    // the way is, stays, and what is kept is spread over the time that an answer may take.
    let sent: Vec<_> = alike.iter().map(|&at| pending[at].sent).collect();
    pending.remove(alike[closest_to_neighbours(&sent)?])
}
