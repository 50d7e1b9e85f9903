//! Addresses of one remote node, and the choice of the best way to it.
//!
//! There is one [`Reach`] per node, whatever networks it shares with this one, because its addresses do not
//! depend on a network. It knows nothing of sessions, keys or members. Its owner reports received datagrams
//! to it, seals what it wants to send in any session with the node, and publishes its path to all senders to
//! that node.
//!
//! # Addresses and credit
//!
//! An address is learned from the user, a hello on a local network, a handshake message, or a packet of a
//! session ([`Source`]). All but the first are source addresses of datagrams, which anyone can forge. Members
//! can too, and in an open network anyone is a member. So an address means nothing until it is *proven*, and
//! before that it gets no more bytes than came from it, its *credit* (`candidates`). Three things prove an
//! address, each possible only for a node that receives there:
//!
//! - A **challenge**, 64 random bits, was repeated from there (`challenge`).
//! - A **handshake message** was answered that went to this address and nowhere else, or an answer to one of
//!   the peer's was used. A response to an initiation sent to several addresses shows that one of them works,
//!   but not which, because its sender chooses the source that we see.
//! - A **hello** had the nonce of one that was sent there.
//!
//! # The path
//!
//! The path is the place that packets are sent to, and is always proven. A configured address alone is not
//! enough, because it is only a claim and may name a third party, such as a name server. Questions to it are
//! free, but nothing more is sent. The path changes in three ways:
//!
//! - The peer has **moved**: an authentic packet came from elsewhere. That place is challenged, and the
//!   answer makes it the path. Challenges and answers themselves move nothing ("probing packets", RFC 9000
//!   section 9.1), so each side may test other places without the other side following.
//! - A **handshake** was completed over another place, because the path did not answer.
//! - Another place is **better** (`quality`). While traffic flows and there are several places, each is
//!   challenged now and then, the path too. A place becomes the path if its smoothed round-trip time and loss
//!   are better by a quarter and at least 5 ms, at most once in 30 s. So does one whose shortest round trip
//!   is shorter by a third and by 0.1 ms, because a tunnel between two machines of one local network costs
//!   less than 5 ms. Both sides measure the same round trips and so reach the same result. Where they do not,
//!   neither sees such a gain in going back.
//!
//! A place may also be **relayed** by a root, or by a TURN server of this node or the peer. It is proven and
//! measured like any other, and among relayed places the better wins. But a direct place that answers beats
//! them all, and keeps the path while it answers. Among relayed places those behind roots that relay only a
//! few messages rank last in the same way (`choice`). A path that has gone silent is left by a handshake,
//! which goes to all places at once.
//!
//! # Datagram size
//!
//! Each path finds its datagram size (`mtud`). The previous path is kept with its result, because peers
//! alternate between two paths.

mod candidates;
mod challenge;
mod choice;
mod mtud;
mod place;
mod quality;
mod relayed;
mod sockets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) use candidates::Source;
pub(crate) use challenge::{Answer, Why};
pub(crate) use choice::{Flow, Kind};
pub use mtud::SizeState;
pub(crate) use mtud::{BASE, BUSY_CONFIRM_INTERVAL, LOAD_MIN_BYTES};
pub use place::{Path, Place, RecvMeta, SocketIndex};
pub(crate) use place::{PlaceKey, Relay, is_discarded};
pub use sockets::SocketInfo;
pub(crate) use sockets::{place_of, socket_for, usable};

use crate::contact::Punching;
use crate::network::NetworkIndex;
use candidates::Candidates;
use challenge::Challenges;
use mtud::Mtud;

/// State of the ways to one node.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    candidates: Candidates,
    /// Configured addresses, by the network whose description has them.
    configured: BTreeMap<NetworkIndex, Vec<SocketAddr>>,
    challenges: Challenges,
    /// Search for a direct path; `None` if there never was a reason for one.
    punching: Option<Box<Punching>>,
    path: Option<Used>,
    /// Previous path, in case the node goes back to it.
    left: Option<Used>,
    /// Time of the last change of the path.
    moved: Option<Instant>,
    /// Time of the last change of the path for a better one.
    settled: Option<Instant>,
    /// Time from which places may be compared again.
    compare_at: Option<Instant>,
    /// Time since which datagrams are relayed, while they are.
    relayed_since: Option<Instant>,
    /// Network and time of the last question whether the node is there.
    asked: Option<(NetworkIndex, Instant)>,
    /// Time from which places may be compared again while no data flows.
    compare_idle_at: Option<Instant>,
    /// Number of bytes sent to the node in all sessions.
    sent: u64,
    /// Id of the next path MTU probe, on whatever path.
    next_probe: u32,
}

/// Place that is or was the path.
#[derive(Debug)]
struct Used {
    place: Place,
    mtud: Mtud,
    /// Datagram size published to the path's users.
    known: usize,
    /// Set once the users know that the path carries less than they need.
    too_small: bool,
}

/// Path MTU probe to send, and changes caused by the last answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MtuStep {
    /// Id and size of a probe; its companion, with the next id, has the minimum size.
    pub(crate) probe: Option<(u32, usize)>,
    /// Datagram size of the path before and now, if changed.
    pub(crate) changed: Option<(usize, usize)>,
    /// True if the path was just found to carry less than the smallest datagram.
    pub(crate) became_too_small: bool,
    /// Time of the next call.
    pub(crate) deadline: Option<Instant>,
}

impl Reach {
    /// Returns the path, if there is one.
    pub(crate) fn path(&self) -> Option<Path> {
        let used = self.path.as_ref()?;
        // A place behind a root is relayed too, but not by TURN.
        let turn = used.place.relay().is_none() && self.relays(&used.place.key());
        Some(Path { place: used.place, datagram_size: used.known, turn })
    }

    /// Returns the place that packets are sent to.
    pub(crate) fn place(&self) -> Option<Place> {
        self.path.as_ref().map(|used| used.place)
    }

    /// Returns the place that packets are sent to, if its socket still exists.
    pub(crate) fn usable_path(&self, sockets: &[SocketInfo]) -> Option<Place> {
        self.place().filter(|place| sockets.iter().any(|socket| socket.index == place.socket()))
    }

    /// Returns the search for a direct path, and creates it if missing.
    pub(crate) fn punching(&mut self, now: Instant) -> &mut Punching {
        self.punching.get_or_insert_with(|| Box::new(Punching::new(now)))
    }

    /// Returns the search for a direct path, if there ever was one.
    pub(crate) fn known_punching(&self) -> Option<&Punching> {
        self.punching.as_deref()
    }

    /// Checks whether an answer from `place` answers a challenge of that search. If so, returns the
    /// round-trip time if known.
    pub(crate) fn is_answer(
        &mut self,
        place: Place,
        data: [u8; 8],
        now: Instant,
    ) -> Option<Option<Duration>> {
        self.punching.as_mut()?.answered(place, data, now)
    }

    /// Proves `place` by the search for a direct path, with the round-trip time if known.
    pub(crate) fn punched(&mut self, place: Place, rtt: Option<Duration>, now: Instant) {
        self.prove(place, Source::Session, now);
        if let Some(candidate) = self.candidates.get_mut(&place.key()) {
            candidate.quality.answered();
            rtt.into_iter().for_each(|rtt| candidate.quality.sample(rtt));
        }
    }

    /// Forgets the places reached through an extra socket that is closed. The path stays until there is
    /// another one.
    pub(crate) fn forget_socket(&mut self, closed: SocketIndex) {
        self.candidates.remove(|key| key.via == Some(closed));
    }

    /// Forgets the place at the end of a closed TCP connection. The path stays until there is another one.
    pub(crate) fn forget_stream(&mut self, closed: SocketIndex) {
        self.candidates.remove(|key| Some(key.remote) == closed.stream_end());
    }

    /// Returns the time until which the search for the path's datagram size waits. A direct path will
    /// probably be found in a moment, and size probes are many times larger than the messages needed for
    /// that.
    pub(crate) fn hold_probes(&self, now: Instant) -> Option<Instant> {
        self.punching.as_ref().filter(|_| self.is_relayed())?.hold(now)
    }

    /// Returns all known addresses.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = SocketAddr> + Clone {
        self.candidates.remotes()
    }

    /// Replaces the addresses from a network's description; at most eight of all networks are kept. An
    /// address that is no longer configured stays only if the node was heard there. Returns the new
    /// addresses.
    pub(crate) fn set_configured(
        &mut self,
        network: NetworkIndex,
        remotes: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        if remotes.is_empty() {
            self.configured.remove(&network);
        } else {
            self.configured.insert(network, remotes.to_vec());
        }
        // The newest come first, because the user has just asked for them.
        let others = self.configured.iter().filter(|(index, _)| **index != network);
        let others = others.flat_map(|(_, remotes)| remotes);
        let all = remotes.iter().chain(others).copied();
        self.candidates.set_configured(all, self.path.as_ref().map(|used| used.place.key()))
    }

    /// Adds addresses where a root says that the node, also a root, listens. Each may get `granted` bytes
    /// before the node is heard from it.
    pub(crate) fn add_named(&mut self, remotes: &[SocketAddr], granted: usize) {
        let path = self.path.as_ref().map(|used| used.place.key());
        remotes.iter().for_each(|remote| self.candidates.add_named(*remote, granted, path));
    }

    /// Returns true if the user configured this address.
    pub(crate) fn is_configured(&self, remote: &SocketAddr) -> bool {
        self.candidates.is_configured(&PlaceKey::direct(*remote))
    }

    /// Records `bytes` that came from `place`, apparently from this node; the same number may be sent back.
    pub(crate) fn heard(&mut self, place: Place, bytes: usize, source: Source, now: Instant) {
        let path = self.path.as_ref().map(|used| used.place.key());
        self.candidates.heard(place, bytes, source, now, path);
    }

    /// Records proof that the node, heard at `place`, receives there.
    pub(crate) fn prove(&mut self, place: Place, source: Source, now: Instant) {
        // No bytes: an answer proves the place, and a proven place needs no credit.
        self.heard(place, 0, source, now);
        self.candidates.prove(place.key(), source, now);
    }

    /// Returns true if a place is proven, so that it may be the path.
    pub(crate) fn is_proven(&self, place: &Place) -> bool {
        self.candidates.get(&place.key()).is_some_and(|candidate| candidate.is_proven())
    }

    /// Returns true if the node has shown since `begin` that it receives at a place.
    pub(crate) fn is_proven_since(&self, place: &Place, begin: Instant) -> bool {
        // Packets from there are not enough, because a path may work in one direction only.
        let candidate = self.candidates.get(&place.key());
        candidate.and_then(|candidate| candidate.proven_at()).is_some_and(|at| at >= begin)
    }

    /// Returns true if the node has shown that it receives at some place.
    pub(crate) fn any_proven(&self) -> bool {
        self.candidates.any_proven()
    }

    /// Spends `bytes` of a place's credit. Returns false if the credit is too small.
    pub(crate) fn spend(&mut self, place: &Place, bytes: usize) -> bool {
        self.candidates.spend(&place.key(), bytes)
    }

    /// Spends `bytes` on every place that has the credit and that a socket can reach. Returns those places:
    /// proven ones first, then those heard most recently.
    pub(crate) fn spend_everywhere(&mut self, bytes: usize, sockets: &[SocketInfo]) -> Vec<Place> {
        self.candidates.spend_everywhere(bytes, sockets)
    }

    /// Records that the node was asked for a sign of life in a network.
    pub(crate) fn note_asked(&mut self, network: NetworkIndex, now: Instant) {
        self.asked = Some((network, now));
    }

    /// Returns when the node was last asked for a sign of life, if that was in another network.
    pub(crate) fn asked_elsewhere(&self, network: NetworkIndex) -> Option<Instant> {
        self.asked.filter(|(asked, _)| *asked != network).map(|(_, at)| at)
    }

    /// Returns the smoothed round-trip time of the path.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt_at(&self.place()?)
    }

    /// Returns the smoothed round-trip time of a place.
    pub(crate) fn rtt_at(&self, place: &Place) -> Option<Duration> {
        self.candidates.get(&place.key())?.quality.rtt()
    }

    /// Records a round-trip time of `place`.
    pub(crate) fn sample(&mut self, place: Place, rtt: Duration) {
        if let Some(candidate) = self.candidates.get_mut(&place.key()) {
            candidate.quality.sample(rtt);
        }
    }

    /// Returns the challenge to send to `place`, unless one is outstanding or the credit does not cover its
    /// `bytes`. `fresh` is random.
    pub(crate) fn challenge(
        &mut self,
        place: Place,
        why: Why,
        fresh: [u8; 8],
        bytes: usize,
        now: Instant,
    ) -> Option<[u8; 8]> {
        // An unaffordable challenge must not replace an outstanding one.
        if !self.candidates.get(&place.key()).is_some_and(|candidate| candidate.may_spend(bytes)) {
            return None;
        }
        let data = self.challenges.ask(place, why, fresh, self.rtt(), now)?;
        // Only for a challenge that is really sent, because credit is scarce.
        self.candidates.spend(&place.key(), bytes);
        Some(data)
    }

    /// Judges the answer to a challenge, which came from `place`. A right answer proves the place.
    pub(crate) fn answer(&mut self, place: Place, data: [u8; 8], now: Instant) -> Answer {
        let answer = self.challenges.answer(place, data, now);
        if let Answer::Right { rtt, .. } = answer {
            self.prove(place, Source::Session, now);
            if let Some(candidate) = self.candidates.get_mut(&place.key()) {
                candidate.quality.answered();
                rtt.into_iter().for_each(|rtt| candidate.quality.sample(rtt));
            }
        }
        answer
    }

    /// Makes the proven `place` the path, from a socket that sends at most `max_datagram` bytes. Returns true
    /// if it was not the path before.
    pub(crate) fn use_place(
        &mut self,
        place: Place,
        max_datagram: usize,
        scarce: &[SocketAddr],
        now: Instant,
    ) -> bool {
        if self.place() == Some(place) {
            return false;
        }
        let is_relayed = self.relays(&place.key());
        self.relayed_since = self.relayed_since.or(Some(now)).filter(|_| is_relayed);
        self.doubt_better(self.kind(&place.key(), scarce), scarce);
        // A path that was used before need not search its datagram size again.
        let left = self.left.take_if(|left| left.place == place);
        let used = left.unwrap_or_else(|| {
            let mtud = Mtud::new(place, max_datagram, now);
            Used { place, known: mtud.current(), mtud, too_small: false }
        });
        // Kept with its proven size, because peers alternate between two paths.
        self.left = self.path.replace(used);
        (self.moved, self.compare_idle_at) = (Some(now), None);
        true
    }

    /// Returns when the path left `place` for the present one.
    pub(crate) fn left_at(&self, place: &Place) -> Option<Instant> {
        self.moved.filter(|_| self.left.as_ref().is_some_and(|left| left.place == *place))
    }

    /// Returns true if the node has shown that it receives at a place other than the path.
    pub(crate) fn has_choice(&self) -> bool {
        let path = self.place().map(|place| place.key());
        self.candidates.iter().any(|candidate| {
            // An unproven place is no choice, because nothing shows that the node is there.
            Some(candidate.key()) != path && (candidate.is_proven() || candidate.is_free_relay())
        })
    }

    /// Returns the path MTU probe that is due. Call this after every event that may change the result.
    pub(crate) fn probe_mtu(&mut self, now: Instant) -> MtuStep {
        let rtt = self.rtt();
        let Some(used) = &mut self.path else {
            return MtuStep { probe: None, changed: None, became_too_small: false, deadline: None };
        };
        let id = self.next_probe;
        let size = used.mtud.poll(now, rtt, id);
        if size.is_some() {
            // The companion of the probe uses the id in between.
            self.next_probe = id.wrapping_add(2);
        }
        let current = used.mtud.current();
        let before = std::mem::replace(&mut used.known, current);
        let too_small = used.mtud.is_too_small();
        let was_too_small = std::mem::replace(&mut used.too_small, too_small);
        MtuStep {
            probe: size.map(|size| (id, size)),
            changed: (before != current).then_some((before, current)),
            became_too_small: too_small && !was_too_small,
            deadline: used.mtud.deadline(),
        }
    }

    /// Records the acknowledgement of a path MTU probe.
    pub(crate) fn probe_acknowledged(&mut self, id: u32, now: Instant) {
        let Some(used) = &mut self.path else { return };
        if let Some(rtt) = used.mtud.acknowledged(id, now) {
            let place = used.place;
            self.sample(place, rtt);
        }
    }

    /// Records `bytes` more sent to the node. Under load, confirms the path's datagram size twice a second.
    pub(crate) fn carried(&mut self, bytes: u64, now: Instant) {
        self.sent += bytes;
        if let Some(used) = &mut self.path {
            used.mtud.carried(self.sent, now);
        }
    }

    /// Returns the path's datagram size discovery, if there is a path.
    pub(crate) fn mtud(&mut self) -> Option<&mut Mtud> {
        self.path.as_mut().map(|used| &mut used.mtud)
    }
}
