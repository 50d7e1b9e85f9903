//! A direct way where one side's NAT gives each destination a port that nobody can guess.
//!
//! The other side's NAT has one port for all destinations, but lets in only whom that side has sent to, by
//! address and port. So the two need one pair of ports in common. The *hard* side sends from
//! [`MOST_SOCKETS`] sockets to the one port of the *easy* side, which makes as many mappings; the easy side
//! sends to [`MOST_GUESSES`] different ports of the hard side's address. By the birthday paradox one of them
//! is a mapping in 98 of 100 tries: 1 - (1 - 256 / 64,512)^1024. In the median it is the 175th. If none of
//! them is one, the easy side goes on at once with as many others, which count as another search: the chance
//! of 2,048 is 99.97 in 100.
//!
//! What is sent are challenges of the session, each with a number of its own, which are 38 bytes long. The
//! first socket on which the easy side is heard is the one that stays; all others are closed at once, so that
//! both sides choose the same one.
//!
//! The easy side sends to ports of which nearly all belong to nobody, or to others behind the same address.
//! So it does that only where a root of its own has seen the hard side, only if that side has asked for it in
//! the session, and to one node at a time; there are so many starts in all ([`STARTS`]).
//!
//! The machine is pure. It says which sockets it wants; the driver opens them, and says which there are.

mod guessing;
mod pace;
mod sending;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{DirectOutcome, NotTried};
use crate::bucket::{Bucket, Rate};
use crate::reach::{Place, SocketIndex};
use guessing::Guessing;
pub(crate) use pace::Pace;
use sending::Sending;

/// The most sockets that are sent from.
pub(crate) const MOST_SOCKETS: usize = 256;

/// With fewer it is not worth it: 64 are found in 64 of 100 tries.
const LEAST_SOCKETS: usize = 64;

/// The most ports that are sent to in one try.
pub(crate) const MOST_GUESSES: usize = 1024;

/// Searches that this node takes part in, and second tries: so many at once, and one per interval from then
/// on.
const STARTS: u32 = 4;
const START_INTERVAL: Duration = Duration::from_secs(60);

/// A question is repeated after so long, or two round trips if that is longer, and so often.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
const MAX_ASKED: u32 = 3;

/// The driver has so long to open the sockets.
const OPENING: Duration = Duration::from_secs(2);

/// What is answered so late counts still.
const LAST_ANSWERS: Duration = Duration::from_millis(1500);

/// A search that takes longer was forgotten by its driver, or the machine was suspended.
const MOST: Duration = Duration::from_secs(30);

/// A socket that no path has used for so long is closed.
const UNUSED: Duration = Duration::from_secs(60);

/// A UDP socket that the endpoint wants besides those that the driver has anyway; see
/// [`Endpoint::poll_extra_sockets`](crate::Endpoint::poll_extra_sockets).
///
/// ```
/// use peersock_overlay::{SocketIndex, WantedSocket};
///
/// let wanted = WantedSocket { index: SocketIndex::extra(3), like: SocketIndex(0) };
/// assert!(wanted.index.is_extra() && !wanted.like.is_extra());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedSocket {
    /// Its name.
    pub index: SocketIndex,
    /// The socket whose local address and interface it is to have, and another port.
    pub like: SocketIndex,
}

/// All searches by many ports of a node, of which there is one at a time. `K` names the other nodes.
#[derive(Debug)]
pub(crate) struct Birthday<K> {
    is_on: bool,
    run: Option<Run<K>>,
    starts: Bucket,
    /// Sockets of searches that have led to a path.
    kept: Vec<Kept>,
    next_socket: u16,
    is_changed: bool,
}

/// One search.
#[derive(Debug)]
struct Run<K> {
    node: K,
    id: u32,
    stage: Stage,
    /// It is over then, whatever happens.
    ends: Instant,
}

#[derive(Debug)]
enum Stage {
    /// The easy side is asked to take part.
    Asking { to: SocketAddr, like: SocketIndex, times: u32, next: Instant },
    /// The driver opens the sockets.
    Opening { to: SocketAddr, wanted: Vec<WantedSocket>, pace: Pace, until: Instant },
    /// The hard side sends from many sockets.
    Sending(Sending),
    /// The easy side sends to many ports.
    Guessing(Guessing),
}

/// A socket that a path has used.
#[derive(Debug)]
struct Kept {
    socket: WantedSocket,
    used: Instant,
}

/// Draws what must be different each time.
pub(crate) trait Draw {
    /// A number that nobody can guess; `None` if there is no randomness.
    fn number(&mut self) -> Option<[u8; 8]>;

    /// Any port from 1024 on.
    fn port(&mut self) -> u16;
}

/// A challenge to send: from which extra socket, if from one, and where to.
pub(crate) type Shot = (Option<SocketIndex>, SocketAddr, [u8; 8]);

/// What is due now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The other node is to be asked, with this id, and to send by IPv4 or IPv6.
    pub(crate) ask: Option<(u32, bool)>,
    /// The other node is to be told that there is nothing more to do, with this id.
    pub(crate) stop: Option<u32>,
    pub(crate) shots: Vec<Shot>,
    /// How far it went: where, how many were sent, and what came of it.
    pub(crate) progress: Option<(SocketAddr, u32, DirectOutcome)>,
}

/// Whether a node takes part in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// From now on.
    New,
    /// As it has said before.
    Again,
    /// It has taken part in too many, or takes part in another one.
    Not,
}

impl<K: Copy + PartialEq> Birthday<K> {
    pub(crate) fn new(is_on: bool, now: Instant) -> Self {
        let starts = Bucket::new(Rate::every(START_INTERVAL, STARTS), now);
        Self { is_on, run: None, starts, kept: Vec::new(), next_socket: 0, is_changed: false }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether a search for that node runs.
    pub(crate) fn is_for(&self, node: K) -> bool {
        self.run.as_ref().is_some_and(|run| run.node == node)
    }

    /// When the search for that node is over, whatever happens. `None` if there is none.
    pub(crate) fn ends(&self, node: K) -> Option<Instant> {
        self.run.as_ref().filter(|run| run.node == node).map(|run| run.ends)
    }

    /// The node that is looked for.
    pub(crate) fn node(&self) -> Option<K> {
        self.run.as_ref().map(|run| run.node)
    }

    /// Ends the search for that node: there is no session with it any more. Gives where it went, and how many
    /// packets have, if there was one.
    pub(crate) fn abandon(&mut self, node: K) -> Option<(SocketAddr, u32)> {
        let so_far = self.run.as_ref().filter(|run| run.node == node).map(Run::so_far)?;
        self.end();
        Some(so_far)
    }

    /// Begins as the hard side: asks the node, which has its one port at `to`. False if that is not possible
    /// now.
    pub(crate) fn begin(
        &mut self,
        node: K,
        id: u32,
        (like, to): (SocketIndex, SocketAddr),
        now: Instant,
    ) -> bool {
        self.drop_stale(now);
        if !self.is_on || self.run.is_some() || !self.starts.take(now) {
            return false;
        }
        let stage = Stage::Asking { to, like, times: 0, next: now };
        self.run = Some(Run { node, id, stage, ends: now + MOST });
        true
    }

    /// The node asks this one to send to many ports of `host`, beginning half a round trip later than agreed.
    pub(crate) fn join(
        &mut self,
        node: K,
        id: u32,
        (host, pace): (IpAddr, Pace),
        half: Duration,
        now: Instant,
    ) -> Join {
        self.drop_stale(now);
        match &self.run {
            Some(run) if run.node == node && run.id == id => {
                let guesses = matches!(run.stage, Stage::Guessing(_));
                return if guesses { Join::Again } else { Join::Not };
            }
            Some(_) => return Join::Not,
            None if !self.is_on || !self.starts.take(now) => return Join::Not,
            None => {}
        }
        let stage = Stage::Guessing(Guessing::new(host, pace, now + pace.lead() + half));
        self.run = Some(Run { node, id, stage, ends: now + MOST });
        Join::New
    }

    /// The easy side takes part: has the sockets opened.
    pub(crate) fn agreed(&mut self, node: K, id: u32, pace: Pace, now: Instant) {
        let next = self.next_socket;
        let Some(run) = self.run.as_mut().filter(|run| run.node == node && run.id == id) else { return };
        let Stage::Asking { to, like, times: 1.., .. } = run.stage else { return };
        let index = |number: usize| SocketIndex::extra(next.wrapping_add(number as u16));
        let wanted = (0..MOST_SOCKETS).map(|number| WantedSocket { index: index(number), like }).collect();
        run.stage = Stage::Opening { to, wanted, pace, until: now + OPENING };
        self.next_socket = next.wrapping_add(MOST_SOCKETS as u16);
        self.is_changed = true;
    }

    /// The other side does not take part, or ends the search: how far it went, if it ran.
    pub(crate) fn refused(&mut self, node: K, id: u32) -> Option<(SocketAddr, u32, DirectOutcome)> {
        let run = self.run.as_ref().filter(|run| run.node == node && run.id == id)?;
        let outcome = match &run.stage {
            Stage::Asking { .. } => DirectOutcome::NotTried(NotTried::Refused),
            _ => DirectOutcome::Silent,
        };
        let (address, sent) = run.so_far();
        self.end();
        Some((address, sent, outcome))
    }

    /// The driver has these extra sockets open now.
    pub(crate) fn opened(
        &mut self,
        open: impl Iterator<Item = SocketIndex> + Clone,
        now: Instant,
        draw: &mut impl Draw,
    ) {
        let Some(run) = self.run.as_mut() else { return };
        let Stage::Opening { to, wanted, pace, .. } = &run.stage else { return };
        let sockets: Vec<_> =
            wanted.iter().filter(|one| open.clone().any(|index| index == one.index)).copied().collect();
        if sockets.len() < LEAST_SOCKETS {
            // It will not get more of them.
            if let Stage::Opening { until, .. } = &mut run.stage {
                *until = now;
            }
            return;
        }
        run.stage = Stage::Sending(Sending::new((*to, *pace), sockets, now, draw));
    }

    /// The node was heard there. If that was on one of the sockets, it is the one that stays, and the node is
    /// asked whether it receives there. True if something is due.
    pub(crate) fn heard(&mut self, node: K, place: Place, now: Instant) -> bool {
        let Some(run) = self.run.as_mut().filter(|run| run.node == node) else { return false };
        let Stage::Sending(sending) = &mut run.stage else { return false };
        let is_first = sending.heard(place, now);
        self.is_changed |= is_first;
        is_first
    }

    /// The node repeats, from `place`, what was sent there; gives the round trip if it is known. `None` if
    /// this was not sent there.
    pub(crate) fn answered(
        &self,
        node: K,
        place: Place,
        data: [u8; 8],
        now: Instant,
    ) -> Option<Option<Duration>> {
        let run = self.run.as_ref().filter(|run| run.node == node)?;
        match &run.stage {
            Stage::Sending(sending) => sending.answered(place, data, now),
            Stage::Guessing(guessing) => guessing.answered(place, data),
            Stage::Asking { .. } | Stage::Opening { .. } => None,
        }
    }

    /// The path to the node leads to `place`, directly: the search for it is over. Gives how far it went.
    pub(crate) fn succeeded(
        &mut self,
        node: K,
        place: Place,
        now: Instant,
    ) -> Option<(SocketAddr, u32, DirectOutcome)> {
        let run = self.run.as_ref().filter(|run| run.node == node)?;
        let is_by_this = match &run.stage {
            Stage::Sending(sending) => {
                let socket = sending.sockets().find(|one| one.index == place.socket());
                self.kept.extend(socket.map(|socket| Kept { socket, used: now }));
                socket.is_some()
            }
            Stage::Guessing(guessing) => guessing.has_tried(&place.remote()),
            Stage::Asking { .. } | Stage::Opening { .. } => false,
        };
        // Another way may have been found meanwhile.
        let outcome = if is_by_this { DirectOutcome::Answered } else { DirectOutcome::Silent };
        let (address, sent) = run.so_far();
        self.end();
        Some((address, sent, outcome))
    }

    /// Takes what is due for that node. `rtt` is that of the relayed path.
    pub(crate) fn take_due(&mut self, node: K, rtt: Duration, now: Instant, draw: &mut impl Draw) -> Due {
        let mut due = Due::default();
        let Some(run) = self.run.as_mut().filter(|run| run.node == node) else { return due };
        let mut over = (now >= run.ends).then_some(DirectOutcome::Silent);
        match &mut run.stage {
            Stage::Asking { to, times, next, .. } if now >= *next => {
                if *times >= MAX_ASKED {
                    over = over.or(Some(DirectOutcome::NotTried(NotTried::Refused)));
                } else {
                    *next = now + REPEAT_AFTER.max(rtt * 2) * 2u32.pow(*times);
                    *times += 1;
                    due.ask = Some((run.id, to.is_ipv4()));
                }
            }
            Stage::Asking { .. } => {}
            Stage::Opening { until, .. } if now >= *until => {
                due.stop = Some(run.id);
                over = Some(DirectOutcome::NotTried(NotTried::NoSockets));
            }
            Stage::Opening { .. } => {}
            Stage::Sending(sending) => {
                due.shots = sending.take_due(now);
                over = over.or(sending.is_over(now).then_some(DirectOutcome::Silent));
            }
            Stage::Guessing(guessing) => {
                due.shots = guessing.take_due(now, draw, || self.starts.take(now));
                over = over.or(guessing.is_over(now).then_some(DirectOutcome::Silent));
            }
        }
        let (address, sent) = run.so_far();
        due.progress = Some((address, sent, over.unwrap_or(DirectOutcome::Trying)));
        if over.is_some() {
            self.end();
        }
        due
    }

    /// When something is due for that node.
    pub(crate) fn next(&self, node: K) -> Option<Instant> {
        let run = self.run.as_ref().filter(|run| run.node == node)?;
        let next = match &run.stage {
            Stage::Asking { next, .. } => *next,
            Stage::Opening { until, .. } => *until,
            Stage::Sending(sending) => sending.next(),
            Stage::Guessing(guessing) => guessing.next(),
        };
        Some(next.min(run.ends))
    }

    /// The extra sockets that the driver is to have, if that has changed since the last call.
    pub(crate) fn poll_wanted(&mut self) -> Option<Vec<WantedSocket>> {
        std::mem::take(&mut self.is_changed).then(|| self.wanted().collect())
    }

    /// The extra sockets that the driver is to have.
    fn wanted(&self) -> impl Iterator<Item = WantedSocket> {
        let of_run = self.run.as_ref().map_or_else(Vec::new, |run| match &run.stage {
            Stage::Opening { wanted, .. } => wanted.clone(),
            Stage::Sending(sending) => sending.sockets().collect(),
            Stage::Asking { .. } | Stage::Guessing(_) => Vec::new(),
        });
        self.kept.iter().map(|kept| kept.socket).chain(of_run)
    }

    /// Whether any extra socket is wanted.
    pub(crate) fn is_wanting(&self) -> bool {
        self.wanted().next().is_some()
    }

    /// Paths lead over these sockets: has those closed that none has used for a while.
    pub(crate) fn close_unused(&mut self, used: &[SocketIndex], now: Instant) {
        let before = self.kept.len();
        for kept in self.kept.iter_mut().filter(|kept| used.contains(&kept.socket.index)) {
            kept.used = now;
        }
        self.kept.retain(|kept| now < kept.used + UNUSED);
        self.is_changed |= self.kept.len() != before;
    }

    /// The other node may be forgotten, or no session with it left: then nobody has asked what is due.
    fn drop_stale(&mut self, now: Instant) {
        if self.run.as_ref().is_some_and(|run| now >= run.ends) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.is_changed |= self.run.take().is_some();
    }
}

impl<K> Run<K> {
    /// Where it goes, and how many packets have.
    fn so_far(&self) -> (SocketAddr, u32) {
        match &self.stage {
            Stage::Asking { to, .. } | Stage::Opening { to, .. } => (*to, 0),
            Stage::Sending(sending) => (sending.to(), sending.sent()),
            Stage::Guessing(guessing) => (SocketAddr::new(guessing.host(), 0), guessing.sent()),
        }
    }
}
