//! Choice of a node's path among its places: first by the kind of way, then by measured quality.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Reach;
use super::candidates::Candidate;
use super::place::{Place, PlaceKey};
use super::quality::MIN_CHANGE_INTERVAL;
use super::sockets::SocketInfo;

/// Kind of way to a place. Of two working places, the one of the greater kind is used, however long its round
/// trip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A root relays only the free quota: handshakes and a few messages.
    Scarce,
    /// A root or a TURN server relays.
    Relayed,
    /// No relay is involved.
    Direct,
}

/// Traffic between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Signs of life: only a way of a greater kind is worth a question.
    None,
    /// Messages to a root. All ways to a root are of one kind, and it may have to relay data at any time.
    Root,
    /// Data.
    Data,
}

/// Minimum interval between two comparisons, whatever the number of places.
const COMPARE_SPACING: Duration = Duration::from_secs(1);

/// The same while no data flows, to keep an idle node cheap.
const COMPARE_SPACING_IDLE: Duration = Duration::from_secs(100);

/// Time after the path has become relayed in which relayed places are not compared. A direct path is searched
/// for then and usually found. The same holds during a search by many ports.
const RELAYS_SETTLE: Duration = Duration::from_secs(1);

impl Reach {
    /// Returns the kind of way to a place. `scarce` lists the roots that relay only the free quota.
    pub(crate) fn kind(&self, key: &PlaceKey, scarce: &[SocketAddr]) -> Kind {
        match self.relays(key) {
            false => Kind::Direct,
            true if key.is_behind_root() && scarce.contains(&key.remote) => Kind::Scarce,
            true => Kind::Relayed,
        }
    }

    /// Returns the place to challenge now for comparison, if there is a choice and one is due. Called when
    /// packets pass. Signs of life alone make comparisons rare.
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
            // A question without an answer is a lost packet, as far as a sender can tell.
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
            // While the path answers, measuring a place of a lower kind gains nothing.
            Ordering::Less => false,
            Ordering::Equal if flow == Flow::None => false,
            Ordering::Equal => own == Kind::Direct || is_settled,
            Ordering::Greater => true,
        };
        let counts: Vec<_> = self.candidates.iter().map(Candidate::key).filter(counts).collect();
        // The path is one of them: its quality must be known as well for a comparison.
        let is_rival = |c: &Candidate| counts.contains(&c.key()) && c.may_spend(bytes);
        let is_other = |c: &Candidate| c.place(sockets).is_some_and(|place| place.key() != current.key());
        if !self.candidates.iter().any(|c| is_rival(c) && is_other(c)) {
            return None;
        }
        let rivals = self.candidates.iter_mut().filter(|c| is_rival(c));
        let due = rivals.filter(|c| c.quality.is_due(now));
        let next = due.min_by_key(|c| (c.quality.ask_at(), c.key()))?;
        // A challenge to the path has to leave from the path's own socket.
        let place = if next.key() == current.key() { current } else { next.place(sockets)? };
        // A relayed place gives way to a direct one, so a quick comparison is not worth the relay's
        // bandwidth.
        next.quality.asked(flow == Flow::Data && own == Kind::Direct, now);
        if is_idle {
            self.compare_idle_at = Some(now + COMPARE_SPACING_IDLE);
        }
        Some(place)
    }

    /// Returns the place that should become the path, if its advantage is worth the change.
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
        // An extra socket may already be closed.
        let there = works.filter_map(|candidate| Some((candidate, candidate.place(sockets)?)));
        let order = |candidate: &Candidate| {
            // The key last, so that equal places give the same choice in every run.
            (std::cmp::Reverse(kind(candidate)), candidate.quality.rtt(), candidate.key())
        };
        if let Some((_, place)) = there.min_by_key(|(candidate, _)| order(candidate)) {
            self.settled = Some(now);
            return Some(place);
        }
        // A change within the settling time would let places of similar quality alternate.
        if self.settled.is_some_and(|at| now < at + MIN_CHANGE_INTERVAL) {
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

    /// Asks other places at once if the path leads through this root, which relays little from now on.
    pub(crate) fn root_yields(&mut self, root: &SocketAddr, scarce: &[SocketAddr]) {
        if let Some(place) = self.place().filter(|place| place.relay().is_some() && place.remote() == *root) {
            self.doubt_better(self.kind(&place.key(), scarce), scarce);
            // At once, because the root relays little from now on.
            (self.compare_at, self.compare_idle_at) = (None, None);
        }
    }

    /// Asks each place of a kind greater than `than` at once. The path has just become one of kind `than`,
    /// and such a place becomes the path again only once it answers.
    pub(super) fn doubt_better(&mut self, than: Kind, scarce: &[SocketAddr]) {
        let greater = |key: &PlaceKey| self.kind(key, scarce) > than;
        for key in self.candidates.iter().map(Candidate::key).filter(greater).collect::<Vec<_>>() {
            if let Some(candidate) = self.candidates.get_mut(&key) {
                candidate.quality.doubt();
            }
        }
    }
}
