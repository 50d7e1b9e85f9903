//! The search for a direct path where one side's NAT gives each destination an unpredictable port.
//!
//! The other side's NAT has one port for all destinations, but admits only senders that its side has sent to,
//! by address and port. So the two need one pair of ports in common. The *hard* side sends from
//! [`MAX_SOCKETS`] sockets to the one port of the *easy* side, which makes as many mappings. The easy side
//! sends to [`MAX_GUESSES`] different ports of the hard side's address. By the birthday paradox one of them
//! is a mapping in 98 of 100 tries: 1 - (1 - 256 / 64,512)^1024. In the median it is the 175th. If none is,
//! the easy side continues at once with as many other ports, which count as another search: the chance with
//! 2,048 ports is 99.97 in 100.
//!
//! The packets are challenges of the session, each with a different number, 38 bytes long. The first socket
//! on which the easy side is heard stays, and all others are closed at once, so that both sides choose the
//! same one.
//!
//! Nearly all of the guessed ports are unused, or belong to others behind the same address. So the easy side
//! takes part only if a root this node was given has seen the hard side, only if the hard side has asked in
//! the session, and for one node at a time. [`SEARCH_BURST`] bounds the number of starts.
//!
//! The machine is pure. It says which sockets it wants; the driver opens them, and reports which are open.

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

/// Maximum number of sockets that the hard side sends from.
pub(crate) const MAX_SOCKETS: usize = 256;

/// Minimum number of sockets for a search; with 64, 64 of 100 tries succeed.
const MIN_SOCKETS: usize = 64;

/// Maximum number of ports that one try sends to.
pub(crate) const MAX_GUESSES: usize = 1024;

/// Burst and interval of searches that this node takes part in; second tries count too.
const SEARCH_BURST: u32 = 4;
const START_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time until a question is repeated, at least two round trips, and the maximum number of questions.
const MIN_REPEAT_INTERVAL: Duration = Duration::from_millis(500);
const MAX_ASKED: u32 = 3;

/// Time in which the driver has to open the sockets.
const OPENING: Duration = Duration::from_secs(2);

/// Time after the last packet in which an answer still counts.
const LAST_ANSWERS: Duration = Duration::from_millis(1500);

/// Maximum duration of a search. A longer one was forgotten by its driver, or the machine was suspended.
const MAX_SEARCH_DURATION: Duration = Duration::from_secs(30);

/// Time without a path after which a socket is closed.
const UNUSED: Duration = Duration::from_secs(60);

/// UDP socket that the endpoint wants in addition to the driver's regular ones; see
/// [`Endpoint::poll_extra_sockets`](crate::Endpoint::poll_extra_sockets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedSocket {
    /// Index of the socket.
    pub index: SocketIndex,
    /// Socket whose local address and interface it copies, with another port.
    pub like: SocketIndex,
}

/// All searches by many ports of a node; only one runs at a time. `K` names the other nodes.
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
    /// Latest end of the search.
    ends: Instant,
}

#[derive(Debug)]
enum Stage {
    /// The hard side asks the easy side to take part.
    Asking { to: SocketAddr, like: SocketIndex, times: u32, next: Instant },
    /// The hard side's driver opens the sockets.
    Opening { to: SocketAddr, wanted: Vec<WantedSocket>, pace: Pace, until: Instant },
    /// The hard side sends from many sockets.
    Sending(Sending),
    /// The easy side sends to many ports.
    Guessing(Guessing),
}

/// Socket that a path has used.
#[derive(Debug)]
struct Kept {
    socket: WantedSocket,
    used: Instant,
}

/// Source of values that differ each time.
pub(crate) trait Draw {
    /// Returns an unpredictable number; `None` if there is no randomness.
    fn number(&mut self) -> Option<[u8; 8]>;

    /// Returns a random port from 1024 on.
    fn port(&mut self) -> u16;
}

/// Challenge to send: the extra socket it leaves from, if any, and its destination.
pub(crate) type Shot = (Option<SocketIndex>, SocketAddr, [u8; 8]);

/// Work that is due now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Id of a question to the other node, and whether the search is by IPv4.
    pub(crate) ask: Option<(u32, bool)>,
    /// Id of the message to the other node that ends the search.
    pub(crate) stop: Option<u32>,
    pub(crate) shots: Vec<Shot>,
    /// Progress: the address, the number of packets sent, and the outcome.
    pub(crate) progress: Option<(SocketAddr, u32, DirectOutcome)>,
}

/// Answer to a node that asks this one to join a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// This node joins from now on.
    New,
    /// This node has joined before.
    Again,
    /// This node has joined too many searches, or is in another one.
    Not,
}

impl<K: Copy + PartialEq> Birthday<K> {
    pub(crate) fn new(is_on: bool, now: Instant) -> Self {
        let starts = Bucket::new(Rate::every(START_INTERVAL, SEARCH_BURST), now);
        Self { is_on, run: None, starts, kept: Vec::new(), next_socket: 0, is_changed: false }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Returns true if a search for that node runs.
    pub(crate) fn is_for(&self, node: K) -> bool {
        self.run.as_ref().is_some_and(|run| run.node == node)
    }

    /// Returns the latest end of the search for that node; `None` if there is none.
    pub(crate) fn ends(&self, node: K) -> Option<Instant> {
        self.run.as_ref().filter(|run| run.node == node).map(|run| run.ends)
    }

    /// Returns the node that is searched for.
    pub(crate) fn node(&self) -> Option<K> {
        self.run.as_ref().map(|run| run.node)
    }

    /// Ends the search for a node that has no session any more. Returns its address and the number of packets
    /// sent, if there was a search.
    pub(crate) fn abandon(&mut self, node: K) -> Option<(SocketAddr, u32)> {
        let so_far = self.run.as_ref().filter(|run| run.node == node).map(Run::so_far)?;
        self.end();
        Some(so_far)
    }

    /// Begins as the hard side: asks the node, whose one port is at `to`. Returns false if that is not
    /// possible now.
    pub(crate) fn begin(
        &mut self,
        node: K,
        id: u32,
        (like, to): (SocketIndex, SocketAddr),
        now: Instant,
    ) -> bool {
        self.drop_stale(now);
        // One search at a time: hundreds of sockets and thousands of mappings can fill a small NAT box.
        if !self.is_on || self.run.is_some() || !self.starts.take(now) {
            return false;
        }
        let stage = Stage::Asking { to, like, times: 0, next: now };
        self.run = Some(Run { node, id, stage, ends: now + MAX_SEARCH_DURATION });
        true
    }

    /// Handles the node's request to send to many ports of `host`, beginning half a round trip later than
    /// agreed.
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
            // A repeated question gets the same answer, because the first answer may be lost.
            Some(run) if run.node == node && run.id == id => {
                let guesses = matches!(run.stage, Stage::Guessing(_));
                return if guesses { Join::Again } else { Join::Not };
            }
            Some(_) => return Join::Not,
            // A peer's question costs this node as much as its own search, so it pays from the same budget.
            None if !self.is_on || !self.starts.take(now) => return Join::Not,
            None => {}
        }
        let stage = Stage::Guessing(Guessing::new(host, pace, now + pace.lead() + half));
        self.run = Some(Run { node, id, stage, ends: now + MAX_SEARCH_DURATION });
        Join::New
    }

    /// Requests the sockets, because the easy side takes part.
    pub(crate) fn agreed(&mut self, node: K, id: u32, pace: Pace, now: Instant) {
        let next = self.next_socket;
        let Some(run) = self.run.as_mut().filter(|run| run.node == node && run.id == id) else { return };
        // Only an answer to a question that was sent counts.
        let Stage::Asking { to, like, times: 1.., .. } = run.stage else { return };
        // New numbers for each search, so that a late packet of an earlier one fits no socket.
        let index = |number: usize| SocketIndex::extra(next.wrapping_add(number as u16));
        let wanted = (0..MAX_SOCKETS).map(|number| WantedSocket { index: index(number), like }).collect();
        run.stage = Stage::Opening { to, wanted, pace, until: now + OPENING };
        self.next_socket = next.wrapping_add(MAX_SOCKETS as u16);
        self.is_changed = true;
    }

    /// Ends the search, because the other side refuses it or stops it. Returns its progress, if it ran.
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

    /// Handles the driver's report of open extra sockets.
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
        if sockets.len() < MIN_SOCKETS {
            // The driver will not get more of them, so end the search now.
            if let Stage::Opening { until, .. } = &mut run.stage {
                *until = now;
            }
            return;
        }
        run.stage = Stage::Sending(Sending::new((*to, *pace), sockets, now, draw));
    }

    /// Records that the node was heard at `place`. The first such socket stays, and a challenge asks whether
    /// the node receives there. Returns true if something is due.
    pub(crate) fn heard(&mut self, node: K, place: Place, now: Instant) -> bool {
        let Some(run) = self.run.as_mut().filter(|run| run.node == node) else { return false };
        let Stage::Sending(sending) = &mut run.stage else { return false };
        let is_first = sending.heard(place, now);
        self.is_changed |= is_first;
        is_first
    }

    /// Checks an answer from `place`. If it matches a packet sent there, returns the round-trip time if
    /// known. Returns `None` otherwise.
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

    /// Ends the search, because a direct path to the node leads to `place`. Returns its progress.
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
                // This socket stays open, because the NAT mapping of the path belongs to it.
                self.kept.extend(socket.map(|socket| Kept { socket, used: now }));
                socket.is_some()
            }
            Stage::Guessing(guessing) => guessing.has_tried(&place.remote()),
            Stage::Asking { .. } | Stage::Opening { .. } => false,
        };
        // Another search may have found the path meanwhile.
        let outcome = if is_by_this { DirectOutcome::Answered } else { DirectOutcome::Silent };
        let (address, sent) = run.so_far();
        self.end();
        Some((address, sent, outcome))
    }

    /// Takes the work due for that node. `rtt` is the relayed path's round-trip time.
    pub(crate) fn take_due(&mut self, node: K, rtt: Duration, now: Instant, draw: &mut impl Draw) -> Due {
        let mut due = Due::default();
        let Some(run) = self.run.as_mut().filter(|run| run.node == node) else { return due };
        let mut over = (now >= run.ends).then_some(DirectOutcome::Silent);
        match &mut run.stage {
            Stage::Asking { to, times, next, .. } if now >= *next => {
                if *times >= MAX_ASKED {
                    over = over.or(Some(DirectOutcome::NotTried(NotTried::Refused)));
                } else {
                    *next = now + MIN_REPEAT_INTERVAL.max(rtt * 2) * 2u32.pow(*times);
                    *times += 1;
                    due.ask = Some((run.id, to.is_ipv4()));
                }
            }
            Stage::Asking { .. } => {}
            // The other side is told, because it would otherwise go on sending to many ports.
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

    /// Returns when something is due for that node.
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

    /// Returns the extra sockets that the driver should have, if they have changed since the last call.
    pub(crate) fn poll_wanted(&mut self) -> Option<Vec<WantedSocket>> {
        std::mem::take(&mut self.is_changed).then(|| self.wanted().collect())
    }

    /// Returns the extra sockets that the driver should have.
    fn wanted(&self) -> impl Iterator<Item = WantedSocket> {
        let of_run = self.run.as_ref().map_or_else(Vec::new, |run| match &run.stage {
            Stage::Opening { wanted, .. } => wanted.clone(),
            Stage::Sending(sending) => sending.sockets().collect(),
            Stage::Asking { .. } | Stage::Guessing(_) => Vec::new(),
        });
        self.kept.iter().map(|kept| kept.socket).chain(of_run)
    }

    /// Returns true if any extra socket is wanted.
    pub(crate) fn is_wanting(&self) -> bool {
        self.wanted().next().is_some()
    }

    /// Closes the sockets that no path has used for a while. `used` lists the sockets of present paths.
    pub(crate) fn close_unused(&mut self, used: &[SocketIndex], now: Instant) {
        let before = self.kept.len();
        for kept in self.kept.iter_mut().filter(|kept| used.contains(&kept.socket.index)) {
            kept.used = now;
        }
        // A path that is left for a moment may come back, and its mapping cannot be made again.
        self.kept.retain(|kept| now < kept.used + UNUSED);
        self.is_changed |= self.kept.len() != before;
    }

    /// Ends an expired search. If the other node was forgotten or has no session, no step has ended it.
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
    /// Returns the address and the number of packets sent.
    fn so_far(&self) -> (SocketAddr, u32) {
        match &self.stage {
            Stage::Asking { to, .. } | Stage::Opening { to, .. } => (*to, 0),
            Stage::Sending(sending) => (sending.to(), sending.sent()),
            // Port 0, because this side tries a thousand of them.
            Stage::Guessing(guessing) => (SocketAddr::new(guessing.host(), 0), guessing.sent()),
        }
    }
}
