//! Possible addresses of a node, and the budget for addresses that no trusted source has confirmed.
//!
//! A candidate is *proven* once a packet from it showed that its owner receives there: an answer to a
//! challenge, to a handshake message that went nowhere else, or a hello that repeats our nonce. An address
//! that is neither proven nor configured gets at most as many bytes as came from it (the amplification limit
//! of RFC 9000 section 8, at factor 1). So a forged source address causes no traffic to its victim that the
//! forger has not paid for.

use std::net::SocketAddr;
use std::time::Instant;

use super::place::{Place, PlaceKey, Relay, SocketIndex};
use super::quality::Quality;
use super::sockets::{SocketInfo, place_of};
use crate::wire::{RelayToken, Relayed};

/// Maximum number of candidates per node. The one heard least recently makes room: unproven ones first, then
/// those that only hellos have claimed. Configured addresses and the path stay.
pub(super) const MAX_CANDIDATES: usize = 8;

/// Maximum number of candidates behind one root. A root chooses which source it reports for a datagram, and
/// must not push out addresses from other sources.
const MAX_PER_ROOT: usize = 2;

/// Origin of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The user's description of a network.
    Configured,
    /// A hello on a local network.
    Hello,
    /// A handshake message that came from there.
    Handshake,
    /// A packet of a session that came from there.
    Session,
    /// A root where the node is registered, with the node's signature. The root relays only to registered
    /// nodes, so datagrams sent there reach no node that did not ask for them.
    Root,
    /// A root that says that the node, also a root, listens there. The address may belong to a victim, so
    /// little is sent there until the node is heard from it.
    Named,
}

impl Source {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Evidence that a node receives at an address, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    /// A hello echoed one that was sent there: some receiver there claims to be the node.
    Claimed,
    /// A message that only the node can make answered one that was sent there.
    Authentic,
}

/// Addresses at which one node may be reached.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
}

/// One possible address.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    key: PlaceKey,
    /// This node's own token at the root, if a root relays there.
    token: Option<RelayToken>,
    /// Socket it was heard on; `None` for a configured address that never answered.
    socket: Option<SocketIndex>,
    /// Origins of the address, one bit per [`Source`].
    sources: u8,
    proven: Option<Proof>,
    /// Time of the last proof.
    proven_at: Option<Instant>,
    /// Bytes that may still be sent while the address is neither proven nor configured: the bytes that came
    /// from there, or the grant of an address that a root has named.
    credit: usize,
    heard: Option<Instant>,
    pub(super) quality: Quality,
}

impl Candidate {
    fn new(key: PlaceKey) -> Self {
        Self {
            key,
            token: None,
            socket: None,
            sources: 0,
            proven: None,
            proven_at: None,
            credit: 0,
            heard: None,
            quality: Quality::default(),
        }
    }

    fn is_from(&self, source: Source) -> bool {
        self.sources & source.bit() != 0
    }

    /// Returns true if a node has shown that it receives there.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.is_some()
    }

    /// Returns true if packets to this address need no credit.
    fn is_free(&self) -> bool {
        // All others get no more bytes than came from there. A forged source would otherwise turn this node
        // into an amplifier (RFC 9000, section 8).
        self.is_proven() || self.is_from(Source::Configured) || self.is_from(Source::Root)
    }

    /// Returns true if a root has the node's signed registration for this place.
    pub(super) fn is_free_relay(&self) -> bool {
        self.is_from(Source::Root)
    }

    /// Returns true if `bytes` may be sent here.
    pub(super) fn may_spend(&self, bytes: usize) -> bool {
        self.is_free() || self.credit >= bytes
    }

    pub(super) fn key(&self) -> PlaceKey {
        self.key
    }

    /// Returns when a node last showed that it receives there.
    pub(super) fn proven_at(&self) -> Option<Instant> {
        self.proven_at
    }

    /// Takes `bytes` from the credit. Returns false if the credit is too small.
    fn spend(&mut self, bytes: usize) -> bool {
        if self.is_free() {
            return true;
        }
        match self.credit.checked_sub(bytes) {
            Some(rest) => self.credit = rest,
            None => return false,
        }
        true
    }

    /// Returns the place, if a socket can reach it.
    pub(super) fn place(&self, sockets: &[SocketInfo]) -> Option<Place> {
        let Some(channel) = self.key.channel else {
            return place_of(sockets, self.key.via.or(self.socket), self.key.remote);
        };
        let (socket, token) = (self.socket?, self.token?);
        let (root, header) = (self.key.remote, Relayed { token, channel });
        sockets.iter().any(|one| one.index == socket).then_some(Place::Relayed { socket, root, header })
    }

    /// Records the socket and token of a datagram's place.
    fn note_way(&mut self, place: &Place) {
        self.socket = Some(place.socket());
        self.token = place.relay().map(|header| header.token);
    }
}

impl Candidates {
    /// Makes at most [`MAX_CANDIDATES`] of `remotes` the configured ones. An address that is no longer
    /// configured stays only if it was heard. Returns the new addresses.
    pub(super) fn set_configured(
        &mut self,
        remotes: impl Iterator<Item = SocketAddr>,
        path: Option<PlaceKey>,
    ) -> Vec<SocketAddr> {
        let remotes: Vec<_> = remotes.take(MAX_CANDIDATES).collect();
        for candidate in &mut self.list {
            if candidate.key != PlaceKey::direct(candidate.key.remote)
                || !remotes.contains(&candidate.key.remote)
            {
                candidate.sources &= !Source::Configured.bit();
            }
        }
        let is_kept = |candidate: &Candidate| candidate.is_free() || candidate.is_from(Source::Named);
        self.list.retain(|candidate| is_kept(candidate) || candidate.heard.is_some());
        let mut new = Vec::new();
        for remote in remotes {
            let key = PlaceKey::direct(remote);
            if self.get(&key).is_none() {
                new.push(remote);
            }
            self.entry(key, path).sources |= Source::Configured.bit();
        }
        new
    }

    /// Adds `remote`, where a root says that the node listens. It may get `granted` bytes before it is
    /// proven.
    pub(super) fn add_named(&mut self, remote: SocketAddr, granted: usize, path: Option<PlaceKey>) {
        let candidate = self.entry(PlaceKey::direct(remote), path);
        candidate.sources |= Source::Named.bit();
        candidate.credit = candidate.credit.max(granted);
    }

    /// Adds `place`, where a root says that the node is. Returns true if that is new.
    pub(super) fn add_relayed(&mut self, place: &Place, path: Option<PlaceKey>) -> bool {
        let key = place.key();
        let is_new =
            self.get(&key).is_none_or(|known| known.token != place.relay().map(|header| header.token));
        let candidate = self.entry(key, path);
        candidate.note_way(place);
        candidate.sources |= Source::Root.bit();
        is_new
    }

    /// Forgets the candidates that fulfil `condition`.
    pub(super) fn remove(&mut self, condition: impl Fn(&PlaceKey) -> bool) {
        self.list.retain(|candidate| !condition(&candidate.key));
    }

    /// Replaces the way to all places behind the root that was reached at `before`.
    pub(super) fn move_relay(&mut self, before: SocketAddr, now: &Relay) {
        for candidate in &mut self.list {
            if candidate.key.is_behind_root() && candidate.key.remote == before {
                candidate.key.remote = now.root;
                (candidate.socket, candidate.token) = (Some(now.socket), Some(now.token));
            }
        }
    }

    /// Records `bytes` that came from `place`, apparently from this node. Unspent credit does not accumulate.
    pub(super) fn heard(
        &mut self,
        place: Place,
        bytes: usize,
        source: Source,
        now: Instant,
        path: Option<PlaceKey>,
    ) {
        let candidate = self.entry(place.key(), path);
        candidate.note_way(&place);
        candidate.sources |= source.bit();
        // No sum: many small packets with a forged source must not add up to one large burst at the victim.
        candidate.credit = candidate.credit.max(bytes);
        candidate.heard = Some(now);
    }

    /// Marks a place as proven by a message of kind `source`.
    pub(super) fn prove(&mut self, key: PlaceKey, source: Source, now: Instant) {
        // Anybody on the local network can echo a hello; only the node itself can answer the others.
        let proof = if source == Source::Hello { Proof::Claimed } else { Proof::Authentic };
        if let Some(candidate) = self.get_mut(&key) {
            // Hellos have no signature, so one must not lower the proof of a handshake.
            candidate.proven = candidate.proven.max(Some(proof));
            candidate.proven_at = Some(now);
        }
    }

    pub(super) fn get(&self, key: &PlaceKey) -> Option<&Candidate> {
        self.list.iter().find(|candidate| candidate.key == *key)
    }

    pub(super) fn get_mut(&mut self, key: &PlaceKey) -> Option<&mut Candidate> {
        self.list.iter_mut().find(|candidate| candidate.key == *key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.list.iter_mut()
    }

    /// Returns true if the user configured this address.
    pub(super) fn is_configured(&self, key: &PlaceKey) -> bool {
        self.get(key).is_some_and(|candidate| candidate.is_from(Source::Configured))
    }

    /// Spends `bytes` on one candidate. Returns false if its credit is too small.
    pub(super) fn spend(&mut self, key: &PlaceKey, bytes: usize) -> bool {
        self.get_mut(key).is_some_and(|candidate| candidate.spend(bytes))
    }

    /// Spends `bytes` on every candidate that has the credit and that a socket can reach. Returns their
    /// places: proven ones first, then those heard most recently.
    pub(super) fn spend_everywhere(&mut self, bytes: usize, sockets: &[SocketInfo]) -> Vec<Place> {
        self.list.sort_by_key(|c| (c.proven, c.heard, c.is_from(Source::Configured), c.key));
        let target = |candidate: &mut Candidate| {
            let place = candidate.place(sockets)?;
            candidate.spend(bytes).then_some(place)
        };
        self.list.iter_mut().rev().filter_map(target).collect()
    }

    pub(super) fn any_proven(&self) -> bool {
        self.list.iter().any(Candidate::is_proven)
    }

    /// Returns the node's own addresses. Excludes places behind roots, and places where it was heard only
    /// through this node's TURN server or an extra socket.
    pub(super) fn remotes(&self) -> impl Iterator<Item = SocketAddr> + Clone {
        let is_plain = |candidate: &&Candidate| candidate.key == PlaceKey::direct(candidate.key.remote);
        self.list.iter().filter(is_plain).map(|candidate| candidate.key.remote)
    }

    /// Returns the candidate for `key`, and adds it if missing. The path's candidate never makes room for it.
    fn entry(&mut self, key: PlaceKey, path: Option<PlaceKey>) -> &mut Candidate {
        let at = match self.list.iter().position(|candidate| candidate.key == key) {
            Some(at) => at,
            None => {
                self.make_room(key, path);
                // Most nodes have one or two candidates.
                self.list.reserve_exact(1);
                self.list.push(Candidate::new(key));
                self.list.len() - 1
            }
        };
        &mut self.list[at]
    }

    fn make_room(&mut self, new: PlaceKey, path: Option<PlaceKey>) {
        let of_root =
            |key: &PlaceKey| new.is_behind_root() && key.is_behind_root() && key.remote == new.remote;
        let same = self.list.iter().filter(|candidate| of_root(&candidate.key)).count();
        let is_crowded = same >= MAX_PER_ROOT;
        if self.list.len() < MAX_CANDIDATES && !is_crowded {
            return;
        }
        let evict = (0..self.list.len())
            .filter(|&at| !self.list[at].is_from(Source::Configured) && !self.list[at].is_from(Source::Named))
            .filter(|&at| Some(self.list[at].key) != path)
            .filter(|&at| !is_crowded || of_root(&self.list[at].key))
            // `None` is the least, so unproven places go first. The key makes the choice the same in every
            // run.
            .min_by_key(|&at| (self.list[at].proven, self.list[at].heard, self.list[at].key));
        // If configured addresses fill the list, the last of them goes, because the limit is strict.
        self.list.remove(evict.unwrap_or(self.list.len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::instant;

    #[test]
    fn unproven_candidates_get_back_what_they_sent() {
        let now = instant();
        let mut candidates = Candidates::default();
        hear(&mut candidates, 1, 100, now);
        assert!(!candidates.spend(&key(1), 101));
        assert!(candidates.spend(&key(1), 60));
        assert!(!candidates.spend(&key(1), 41));
        // A new packet from it renews the credit, but does not accumulate.
        hear(&mut candidates, 1, 100, now);
        assert!(!candidates.spend(&key(1), 101));
        candidates.prove(key(1), Source::Session, now);
        assert!(candidates.spend(&key(1), 100_000) && candidates.spend(&key(1), 100_000));
    }

    #[test]
    fn an_address_that_a_root_has_named_gets_no_more_than_was_granted() {
        let now = instant();
        let mut candidates = Candidates::default();
        candidates.add_named(remote(1), 300, None);
        let spent = (0..10).filter(|_| !candidates.spend_everywhere(100, &[socket()]).is_empty()).count();
        assert_eq!(spent, 3);
        candidates.add_named(remote(1), 100, None);
        assert!(candidates.spend(&key(1), 100) && !candidates.spend(&key(1), 1), "it does not add up");
        candidates.prove(key(1), Source::Session, now);
        assert!(candidates.spend(&key(1), 100_000));
    }

    #[test]
    fn strangers_push_out_strangers_only() {
        let now = instant();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut candidates = Candidates::default();
        candidates.set_configured([remote(1)].into_iter(), None);
        hear(&mut candidates, 2, 1, at(0));
        candidates.prove(key(2), Source::Session, now);
        for port in 3..100 {
            hear(&mut candidates, port, 1, at(port.into()));
        }
        let targets = candidates.spend_everywhere(1, &[socket()]);
        let kept: Vec<_> = targets.iter().map(|place| place.remote().port()).collect();
        // The proven address, those heard last, and the configured one.
        assert_eq!(kept, [2, 99, 98, 97, 96, 95, 94, 1]);
    }

    #[test]
    fn the_path_stays_a_candidate() {
        let now = instant();
        let mut candidates = Candidates::default();
        hear(&mut candidates, 1, 1, now);
        for port in 2..100 {
            candidates.heard(place(port), 1, Source::Hello, now + Duration::from_secs(1), Some(key(1)));
        }
        assert!(candidates.get(&key(1)).is_some());
        assert_eq!(candidates.remotes().count(), MAX_CANDIDATES);
    }

    #[test]
    fn configured_addresses_are_bounded_too() {
        let mut candidates = Candidates::default();
        candidates.set_configured((0..20).map(remote), None);
        hear(&mut candidates, 99, 1, instant());
        assert_eq!(candidates.remotes().count(), MAX_CANDIDATES);
    }

    #[test]
    fn configured_addresses_are_replaced_and_those_that_answered_stay() {
        let mut candidates = Candidates::default();
        assert_eq!(
            candidates.set_configured([remote(1), remote(2)].into_iter(), None),
            [remote(1), remote(2)]
        );
        hear(&mut candidates, 2, 1, instant());
        hear(&mut candidates, 3, 1, instant());
        assert_eq!(candidates.set_configured([remote(4), remote(3)].into_iter(), None), [remote(4)]);
        let mut kept: Vec<_> = candidates.remotes().map(|remote| remote.port()).collect();
        kept.sort_unstable();
        assert_eq!(kept, [2, 3, 4]);
        candidates.set_configured((0..20).map(remote), None);
        assert_eq!(candidates.remotes().count(), MAX_CANDIDATES);
    }

    fn hear(candidates: &mut Candidates, port: u16, bytes: usize, now: Instant) {
        candidates.heard(place(port), bytes, Source::Hello, now, None);
    }

    fn socket() -> SocketInfo {
        let index = SocketIndex(0);
        SocketInfo { index, ipv4: true, loopback: false, max_datagram: 1472, beacon_targets: Vec::new() }
    }

    fn place(port: u16) -> Place {
        Place::Direct { socket: SocketIndex(0), remote: remote(port) }
    }

    fn key(port: u16) -> PlaceKey {
        PlaceKey::direct(remote(port))
    }

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }
}
