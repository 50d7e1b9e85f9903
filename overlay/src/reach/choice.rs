//! Which place of a node is to be its path: by the kind of way first, and then by what was measured of it.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Reach;
use super::candidates::Candidate;
use super::place::{Place, PlaceKey};
use super::quality::SETTLE;
use super::sockets::SocketInfo;

/// What kind of way a place is. Of two that work, the one of the greater kind is used, however long its round
/// trip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A root relays no more than what it relays for everybody: handshakes and a few messages.
    Scarce,
    /// A root relays, or a TURN server.
    Relayed,
    /// Nobody relays.
    Direct,
}

/// What passes between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Signs of life: only a way of a greater kind is worth a question.
    None,
    /// What is said to a root, for which all ways are of one kind, and which may relay data at any time.
    Root,
    /// Data.
    Data,
}

/// Two comparisons are at least this far apart, whatever the number of places.
const COMPARE_SPACING: Duration = Duration::from_secs(1);

/// The same while no data flows: an idle node is to cost little.
const COMPARE_SPACING_IDLE: Duration = Duration::from_secs(100);

/// Relayed places are not compared for so long after the path has become one, nor while many ports are tried:
/// a direct way is looked for then, and mostly found.
const RELAYS_SETTLE: Duration = Duration::from_secs(1);

impl Reach {
    /// What kind of way a place is. `scarce` has the addresses of the roots that relay no more than what is
    /// free.
    pub(crate) fn kind(&self, key: &PlaceKey, scarce: &[SocketAddr]) -> Kind {
        match self.relays(key) {
            false => Kind::Direct,
            true if key.is_behind_root() && scarce.contains(&key.remote) => Kind::Scarce,
            true => Kind::Relayed,
        }
    }

    /// Packets pass: the place that is to be challenged now for comparison, if there is a choice and one is
    /// due. Where they are signs of life alone, that is seldom.
    pub(crate) fn compare(
        &mut self,
        flow: Flow,
        sockets: &[SocketInfo],
        scarce: &[SocketAddr],
        bytes: usize,
        now: Instant,
    ) -> Option<Place> {
        let candidates = &self.candidates;
        let timeout =
            |place: Place| candidates.get(&place.key()).map_or(Duration::ZERO, |c| c.quality.timeout());
        if let Some(lost) = self.challenges.take_unanswered(timeout, now)
            && let Some(candidate) = self.candidates.get_mut(&lost.key())
        {
            candidate.quality.lost();
        }
        let current = self.place()?;
        if self.compare_at.is_some_and(|at| now < at) || self.challenges.is_busy(now) {
            return None;
        }
        let is_idle = flow != Flow::Data;
        if is_idle && self.compare_idle_at.is_some_and(|at| now < at) {
            return None;
        }
        self.compare_at = Some(now + COMPARE_SPACING);
        let tries_many_ports = self.punching.as_ref().is_some_and(|one| one.tries_many_ports(now));
        let is_settled =
            !tries_many_ports && self.relayed_since.is_none_or(|since| now >= since + RELAYS_SETTLE);
        let own = self.kind(&current.key(), scarce);
        let counts = |key: &PlaceKey| match self.kind(key, scarce).cmp(&own) {
            // While the path answers, nothing is gained by knowing how good what is worse by its kind is.
            Ordering::Less => false,
            Ordering::Equal if flow == Flow::None => false,
            Ordering::Equal => own == Kind::Direct || is_settled,
            Ordering::Greater => true,
        };
        let counts: Vec<_> = self.candidates.iter().map(Candidate::key).filter(counts).collect();
        let is_rival = |c: &Candidate| counts.contains(&c.key()) && c.may_spend(bytes);
        let is_other = |c: &Candidate| c.place(sockets).is_some_and(|place| place.key() != current.key());
        if !self.candidates.iter().any(|c| is_rival(c) && is_other(c)) {
            return None;
        }
        let rivals = self.candidates.iter_mut().filter(|c| is_rival(c));
        let due = rivals.filter(|c| c.quality.is_due(now));
        let next = due.min_by_key(|c| (c.quality.ask_at(), c.key()))?;
        // The path keeps its own socket.
        let place = if next.key() == current.key() { current } else { next.place(sockets)? };
        // Relayed places are left for a direct one: it is not worth a relay's while to know soon which is
        // better.
        next.quality.asked(flow == Flow::Data && own == Kind::Direct, now);
        if is_idle {
            self.compare_idle_at = Some(now + COMPARE_SPACING_IDLE);
        }
        Some(place)
    }

    /// The place that the path should be changed to, if one is so much better that it is worth it.
    pub(crate) fn better(
        &mut self,
        sockets: &[SocketInfo],
        scarce: &[SocketAddr],
        now: Instant,
    ) -> Option<Place> {
        let current = self.place()?;
        let own_kind = self.kind(&current.key(), scarce);
        let kind = |candidate: &Candidate| self.kind(&candidate.key(), scarce);
        let greater = self.candidates.iter().filter(|candidate| kind(candidate) > own_kind);
        let works = greater.filter(|candidate| candidate.is_proven() && candidate.quality.works());
        // An extra socket may be closed.
        let there = works.filter_map(|candidate| Some((candidate, candidate.place(sockets)?)));
        let order = |candidate: &Candidate| {
            (std::cmp::Reverse(kind(candidate)), candidate.quality.rtt(), candidate.key())
        };
        if let Some((_, place)) = there.min_by_key(|(candidate, _)| order(candidate)) {
            self.settled = Some(now);
            return Some(place);
        }
        if self.settled.is_some_and(|at| now < at + SETTLE) {
            return None;
        }
        let own = self.candidates.get(&current.key())?.quality;
        let mut best: Option<&Candidate> = None;
        for candidate in self.candidates.iter() {
            let may_win = candidate.is_proven() && kind(candidate) >= own_kind;
            let beats = may_win && own.is_beaten_by(&candidate.quality);
            if beats && best.as_ref().is_none_or(|best| candidate.quality.is_cheaper_than(&best.quality)) {
                best = Some(candidate);
            }
        }
        let place = best?.place(sockets)?;
        self.settled = Some(now);
        Some(place)
    }

    /// A root relays little from now on: if the path leads there, other ways are asked at once.
    pub(crate) fn root_yields(&mut self, root: &SocketAddr, scarce: &[SocketAddr]) {
        if let Some(place) = self.place().filter(|place| place.relay().is_some() && place.remote() == *root) {
            self.doubt_better(self.kind(&place.key(), scarce), scarce);
            (self.compare_at, self.compare_idle_at) = (None, None);
        }
    }

    /// The path is of this kind from now on: a place of a greater kind is the path again as soon as it
    /// answers, and not before. So each is asked at once.
    pub(super) fn doubt_better(&mut self, than: Kind, scarce: &[SocketAddr]) {
        let greater = |key: &PlaceKey| self.kind(key, scarce) > than;
        for key in self.candidates.iter().map(Candidate::key).filter(greater).collect::<Vec<_>>() {
            if let Some(candidate) = self.candidates.get_mut(&key) {
                candidate.quality.doubt();
            }
        }
    }
}
