//! Where one remote node can be reached, and on which way best.
//!
//! There is one [`Reach`] per node, whatever networks it shares with this one: its addresses do not depend on
//! a network. It knows nothing of sessions, keys or members. Who owns it tells it what came from where, sends
//! what it asks for, sealed in any session with the node, and makes its path known to all who talk to that
//! node.
//!
//! # Addresses and credit
//!
//! An address is learned from the user, from a hello on a local network, from a handshake message, or from a
//! packet of a session ([`Source`]). All but the first are source addresses of datagrams, and anybody can
//! write any source address there, members too: a member of an open network is anybody. So an address means
//! nothing until it is *proven*, and before that it gets no more bytes than came from it, its *credit*
//! (`candidates`). Three things prove an address, and each is something that only who receives there can say:
//!
//! - a **challenge**, 64 random bits, was repeated from there (`challenge`);
//! - a **handshake message** was answered that went to this address and nowhere else, or an answer to one of
//!   the peer's was used. A response to an initiation that went to several addresses shows that one of them
//!   works, and not which: its sender chooses the source that we see;
//! - a **hello** had the nonce of one that was sent there.
//!
//! # The path
//!
//! The path is the place that packets are sent to. It is proven, never less: a configured address is where
//! somebody says that the node is, perhaps the node's own name server. So there it is asked for freely, and
//! no more. The path changes in three ways:
//!
//! - The peer has **moved**: a packet that is authentic came from elsewhere. That place is challenged, and
//!   the answer makes it the path. Challenges and their answers move nothing by themselves ("probing
//!   packets", RFC 9000 section 9.1), so that both sides may look at other places without the other side's
//!   following.
//! - A **handshake** was completed over another place, because the path did not answer.
//! - Another place is **better** (`quality`). While traffic flows and there are several places, each is
//!   challenged now and then, the path too. A place that is better by a quarter and by 5 ms at least, by its
//!   smoothed round-trip time and its loss, becomes the path, once in 30 s at most; and so does one whose
//!   shortest round trip is shorter by a third and by 0.1 ms, since a tunnel between two machines of one
//!   local network costs less than 5 ms. Both sides measure the same round trips, so they come to the same
//!   result; where they do not, neither sees such a gain in going back.
//!
//! A place may also be **relayed**: a root passes datagrams on, or a TURN server, this node's or the peer's.
//! It is proven and measured as any other, and among relayed ones the better wins; but a direct place that
//! answers beats them all, and no relayed one takes the path from it while it does. Among relayed places
//! those behind roots that relay only a few messages come last in the same way (`choice`). A path that has
//! gone silent is left by a handshake, which goes to all places at once.
//!
//! # Datagram size
//!
//! Each path finds its datagram size (`mtud`). The path before the present one is kept with what is known of
//! it, since peers go to and fro between two.

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
pub(crate) use mtud::{BASE, BUSY, BUSY_CONFIRM_INTERVAL};
pub use place::{Path, Place, RecvMeta, SocketIndex};
pub(crate) use place::{PlaceKey, Relay, is_discarded};
pub use sockets::SocketInfo;
pub(crate) use sockets::{place_of, socket_for, usable};

use crate::contact::Punching;
use crate::network::NetworkIndex;
use candidates::Candidates;
use challenge::Challenges;
use mtud::Mtud;

/// Everything about the ways to one node.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    candidates: Candidates,
    /// What the user configured, by the network whose description has it.
    configured: BTreeMap<NetworkIndex, Vec<SocketAddr>>,
    challenges: Challenges,
    /// The search for a direct way; none if there never was a reason for one.
    punching: Option<Box<Punching>>,
    path: Option<Used>,
    /// The path before this one, in case that the node goes back to it.
    left: Option<Used>,
    /// When the path was last changed.
    moved: Option<Instant>,
    /// When the path was last changed for a better one.
    settled: Option<Instant>,
    /// When places may be compared again.
    compare_at: Option<Instant>,
    /// Since when datagrams are relayed, if they are.
    relayed_since: Option<Instant>,
    /// In which network the node was last asked whether it is there, and when.
    asked: Option<(NetworkIndex, Instant)>,
    /// When places may be compared again while no data flows.
    compare_idle_at: Option<Instant>,
    /// Bytes sent to the node in all sessions.
    sent: u64,
    /// The id of the next path MTU probe, on whatever path.
    next_probe: u32,
}

/// A place that is or was the path.
#[derive(Debug)]
struct Used {
    place: Place,
    mtud: Mtud,
    /// The datagram size that its users know.
    known: usize,
    /// Its users know that it carries less than they need.
    too_small: bool,
}

/// A path MTU probe to send, and what the last answers have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MtuStep {
    /// The size of a probe with this id; its companion, with the next id, is as short as can be.
    pub(crate) probe: Option<(u32, usize)>,
    /// The path's datagram size before and now, if that has changed.
    pub(crate) changed: Option<(usize, usize)>,
    /// It was found out just now that the path carries less than the least size.
    pub(crate) became_too_small: bool,
    /// When to ask again.
    pub(crate) deadline: Option<Instant>,
}

impl Reach {
    /// The path, if there is one.
    pub(crate) fn path(&self) -> Option<Path> {
        let used = self.path.as_ref()?;
        let turn = used.place.relay().is_none() && self.relays(&used.place.key());
        Some(Path { place: used.place, datagram_size: used.known, turn })
    }

    /// The place that packets are sent to.
    pub(crate) fn place(&self) -> Option<Place> {
        self.path.as_ref().map(|used| used.place)
    }

    /// The place that packets are sent to, if the socket that they leave from is still there.
    pub(crate) fn usable_path(&self, sockets: &[SocketInfo]) -> Option<Place> {
        self.place().filter(|place| sockets.iter().any(|socket| socket.index == place.socket()))
    }

    /// The search for a direct way.
    pub(crate) fn punching(&mut self, now: Instant) -> &mut Punching {
        self.punching.get_or_insert_with(|| Box::new(Punching::new(now)))
    }

    /// The search for a direct way, if there ever was one.
    pub(crate) fn known_punching(&self) -> Option<&Punching> {
        self.punching.as_deref()
    }

    /// The answer to a challenge of that search came from `place`, if it is one: gives the round trip if it
    /// is known.
    pub(crate) fn is_answer(
        &mut self,
        place: Place,
        data: [u8; 8],
        now: Instant,
    ) -> Option<Option<Duration>> {
        self.punching.as_mut()?.answered(place, data, now)
    }

    /// A search for a direct way has proven `place`, with that round trip if it is known.
    pub(crate) fn punched(&mut self, place: Place, rtt: Option<Duration>, now: Instant) {
        self.prove(place, Source::Session, now);
        if let Some(candidate) = self.candidates.get_mut(&place.key()) {
            candidate.quality.answered();
            rtt.into_iter().for_each(|rtt| candidate.quality.sample(rtt));
        }
    }

    /// Forgets the places that were reached by an extra socket which is closed. The path stays until there is
    /// another one.
    pub(crate) fn forget_socket(&mut self, closed: SocketIndex) {
        self.candidates.remove(|key| key.via == Some(closed));
    }

    /// Forgets the place at the end of a TCP connection that is closed. The path stays until there is another
    /// one.
    pub(crate) fn forget_stream(&mut self, closed: SocketIndex) {
        self.candidates.remove(|key| Some(key.remote) == closed.stream_end());
    }

    /// Until when the search for the path's datagram size waits, because a direct way is likely to be found
    /// in a moment: what it sends is many times what the two nodes have to tell each other for that.
    pub(crate) fn hold_probes(&self, now: Instant) -> Option<Instant> {
        self.punching.as_ref().filter(|_| self.is_relayed())?.hold(now)
    }

    /// All known addresses.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = SocketAddr> + Clone {
        self.candidates.remotes()
    }

    /// Replaces the addresses that a network's description has for the node; at most eight of all networks
    /// are kept. One that is not configured any more stays only if the node was heard there. Returns those
    /// that are new.
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
        // The newest first: they are the ones that were asked for.
        let others = self.configured.iter().filter(|(index, _)| **index != network);
        let others = others.flat_map(|(_, remotes)| remotes);
        let all = remotes.iter().chain(others).copied();
        self.candidates.set_configured(all, self.path.as_ref().map(|used| used.place.key()))
    }

    /// A root says that the node, which is a root, listens there; at most so many bytes are sent to each of
    /// the addresses before it was heard from there.
    pub(crate) fn add_named(&mut self, remotes: &[SocketAddr], granted: usize) {
        let path = self.path.as_ref().map(|used| used.place.key());
        remotes.iter().for_each(|remote| self.candidates.add_named(*remote, granted, path));
    }

    /// Whether the user configured that address.
    pub(crate) fn is_configured(&self, remote: &SocketAddr) -> bool {
        self.candidates.is_configured(&PlaceKey::direct(*remote))
    }

    /// Notes that `bytes` came from there and seemed to be from this node; so many may be sent back.
    pub(crate) fn heard(&mut self, place: Place, bytes: usize, source: Source, now: Instant) {
        let path = self.path.as_ref().map(|used| used.place.key());
        self.candidates.heard(place, bytes, source, now, path);
    }

    /// The node, heard at `place`, has shown that it receives there.
    pub(crate) fn prove(&mut self, place: Place, source: Source, now: Instant) {
        self.heard(place, 0, source, now);
        self.candidates.prove(place.key(), source, now);
    }

    /// Whether a place is proven, so that it may be the path.
    pub(crate) fn is_proven(&self, place: &Place) -> bool {
        self.candidates.get(&place.key()).is_some_and(|candidate| candidate.is_proven())
    }

    /// Whether the node has shown since then that it receives at a place. That it is heard there does not
    /// tell: a path may work in one direction only.
    pub(crate) fn is_proven_since(&self, place: &Place, begin: Instant) -> bool {
        let candidate = self.candidates.get(&place.key());
        candidate.and_then(|candidate| candidate.proven_at()).is_some_and(|at| at >= begin)
    }

    /// Whether the node has shown that it receives somewhere.
    pub(crate) fn any_proven(&self) -> bool {
        self.candidates.any_proven()
    }

    /// Spends `bytes` of what may be sent to a place; false if that is too much.
    pub(crate) fn spend(&mut self, place: &Place, bytes: usize) -> bool {
        self.candidates.spend(&place.key(), bytes)
    }

    /// Spends `bytes` on every place for which that is allowed and that a socket can reach. Returns where to
    /// send them: proven places first, then those heard from most recently.
    pub(crate) fn spend_everywhere(&mut self, bytes: usize, sockets: &[SocketInfo]) -> Vec<Place> {
        self.candidates.spend_everywhere(bytes, sockets)
    }

    /// The node is asked for a sign of life in a network.
    pub(crate) fn note_asked(&mut self, network: NetworkIndex, now: Instant) {
        self.asked = Some((network, now));
    }

    /// When it was last asked for one, if that was in another network.
    pub(crate) fn asked_elsewhere(&self, network: NetworkIndex) -> Option<Instant> {
        self.asked.filter(|(asked, _)| *asked != network).map(|(_, at)| at)
    }

    /// The smoothed round-trip time of the path.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt_at(&self.place()?)
    }

    /// The smoothed round-trip time by way of a place.
    pub(crate) fn rtt_at(&self, place: &Place) -> Option<Duration> {
        self.candidates.get(&place.key())?.quality.rtt()
    }

    /// Something sent to `place` was answered after `rtt`.
    pub(crate) fn sample(&mut self, place: Place, rtt: Duration) {
        if let Some(candidate) = self.candidates.get_mut(&place.key()) {
            candidate.quality.sample(rtt);
        }
    }

    /// Asks whether the node receives at `place`: gives the challenge to send there, unless one is on its way
    /// or its `bytes` may not be sent. `fresh` is random.
    pub(crate) fn challenge(
        &mut self,
        place: Place,
        why: Why,
        fresh: [u8; 8],
        bytes: usize,
        now: Instant,
    ) -> Option<[u8; 8]> {
        // What cannot be paid must not take the place of what was.
        if !self.candidates.get(&place.key()).is_some_and(|candidate| candidate.may_spend(bytes)) {
            return None;
        }
        let data = self.challenges.ask(place, why, fresh, self.rtt(), now)?;
        self.candidates.spend(&place.key(), bytes);
        Some(data)
    }

    /// Judges the answer to a challenge, which came from `place`. A right one proves the place.
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

    /// Makes `place`, which is proven, the path, from a socket that sends at most `max_datagram` bytes.
    /// True if it was not the path before.
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
        let left = self.left.take_if(|left| left.place == place);
        let used = left.unwrap_or_else(|| {
            let mtud = Mtud::new(place, max_datagram, now);
            Used { place, known: mtud.current(), mtud, too_small: false }
        });
        self.left = self.path.replace(used);
        (self.moved, self.compare_idle_at) = (Some(now), None);
        true
    }

    /// When the path was changed from `place` to the one that it has now.
    pub(crate) fn left_at(&self, place: &Place) -> Option<Instant> {
        self.moved.filter(|_| self.left.as_ref().is_some_and(|left| left.place == *place))
    }

    /// Whether there is another place than the path at which the node has shown that it receives.
    pub(crate) fn has_choice(&self) -> bool {
        let path = self.place().map(|place| place.key());
        self.candidates.iter().any(|candidate| {
            Some(candidate.key()) != path && (candidate.is_proven() || candidate.is_free_relay())
        })
    }

    /// Says which path MTU probe is due. To be asked after all that may have changed that.
    pub(crate) fn probe_mtu(&mut self, now: Instant) -> MtuStep {
        let rtt = self.rtt();
        let Some(used) = &mut self.path else {
            return MtuStep { probe: None, changed: None, became_too_small: false, deadline: None };
        };
        let id = self.next_probe;
        let size = used.mtud.poll(now, rtt, id);
        if size.is_some() {
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

    /// A path MTU probe was acknowledged.
    pub(crate) fn probe_acknowledged(&mut self, id: u32, now: Instant) {
        let Some(used) = &mut self.path else { return };
        if let Some(rtt) = used.mtud.acknowledged(id, now) {
            let place = used.place;
            self.sample(place, rtt);
        }
    }

    /// So many bytes more were sent to the node: confirms the path's datagram size twice a second while that
    /// is much.
    pub(crate) fn carried(&mut self, bytes: u64, now: Instant) {
        self.sent += bytes;
        if let Some(used) = &mut self.path {
            used.mtud.carried(self.sent, now);
        }
    }

    /// The path's discovery of its datagram size, if there is a path.
    pub(crate) fn mtud(&mut self) -> Option<&mut Mtud> {
        self.path.as_mut().map(|used| &mut used.mtud)
    }
}
