//! Announcements of our new address to the nodes that send to us.
//!
//! A peer follows an authentic packet from a new address. A node that mostly receives sends few of those: if
//! its address changes, its peers go on sending to the old one. So a node whose interfaces have changed
//! challenges every node with a session at once. The challenge shows the new address, and the answer shows
//! that packets pass both ways.
//!
//! Interfaces may change all the time, by a fault or because an attacker on the link advertises prefixes. So
//! announcements begin at least a second apart; the last change is always announced. Replacing an address
//! makes two changes in quick succession. The announcement begun by the first continues, to the nodes that
//! have not answered, so that the second need not wait for a new one.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::link::{Link, Reason, Timer};
use crate::reach::Why;

/// Minimum interval between the beginnings of announcements.
const MIN_ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);

/// Times of the challenges after a change.
// Several, because a route, a neighbour or a carrier may take a while to appear.
const LADDER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Rung at which a peer in use that has not answered is tried at all its addresses.
const SEARCH: usize = 2;

/// Time since the last packet within which a peer is in use.
const IN_USE: Duration = Duration::from_secs(15);

/// Position of a node on the ladder.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Announcement {
    /// Beginning of the running announcement.
    since: Option<Instant>,
    rung: usize,
    /// Beginning of the last announcement.
    last: Option<Instant>,
    /// Set by another change since then: the next announcement begins as soon as allowed.
    again: bool,
}

impl Endpoint {
    /// Tells all nodes with a session this node's address, and retries waiting handshakes at once. Waits if
    /// the last announcement began less than a second ago.
    pub(super) fn announce_address(&mut self, now: Instant) {
        let next = self.announcement.last.map_or(now, |last| last + MIN_ANNOUNCEMENT_INTERVAL);
        // Interfaces change in bursts, and each announcement sends to all peers.
        if now < next {
            self.announcement.again = true;
            return self.core.timers.set_earlier(Timer::Announce, next);
        }
        let mut any = false;
        for peer in self.peers.iter_mut() {
            let link = &mut peer.link;
            let activity = link.handle.activity();
            let last = activity.last_sent().max(activity.last_received());
            let in_use = last.is_some_and(|at| now.saturating_duration_since(at) < IN_USE);
            link.told = link.current().map(|_| in_use);
            any |= link.told.is_some();
        }
        let waiting = self.peers.keys(|peer| peer.link.is_connecting());
        let last = (any || !waiting.is_empty()).then_some(now);
        for key in waiting {
            self.link(now, key, Link::retry_at_once);
        }
        self.announcement = Announcement { since: any.then_some(now), rung: 0, last, again: false };
        self.announce_next(now);
    }

    pub(super) fn on_announce_timer(&mut self, now: Instant) {
        let is_due = |last: Instant| now >= last + MIN_ANNOUNCEMENT_INTERVAL;
        match self.announcement {
            Announcement { since: Some(_), again: false, .. } => self.announce_next(now),
            Announcement { since: Some(_), last, .. } if !last.is_none_or(is_due) => self.announce_next(now),
            _ => self.announce_address(now),
        }
    }

    /// Sends the next challenge to the nodes that have not answered.
    fn announce_next(&mut self, now: Instant) {
        let Announcement { since: Some(since), rung, last, again } = self.announcement else {
            return self.core.timers.clear(Timer::Announce);
        };
        let told = self.peers.keys(|peer| peer.link.told.is_some());
        // Peers in several networks share one path, so one challenge per node is enough.
        let mut nodes: Vec<_> = told.iter().filter_map(|&key| Some(self.peers.get(key)?.link.node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            self.challenge_path(now, node, Why::Announce);
        }
        // Later than the first challenges, because a handshake costs both sides more than a challenge.
        for &key in told.iter().filter(|_| rung == SEARCH) {
            if self.peers.get(key).is_some_and(|peer| peer.link.told == Some(true)) {
                self.link(now, key, |link, cx| link.attempt(cx, Reason::Hint));
            }
        }
        let next = LADDER.get(rung + 1).filter(|_| !told.is_empty()).map(|wait| since + *wait);
        self.announcement = match next {
            Some(_) => Announcement { rung: rung + 1, ..self.announcement },
            None => Announcement { since: None, rung: 0, ..self.announcement },
        };
        let anew = last.filter(|_| again).map(|last| last + MIN_ANNOUNCEMENT_INTERVAL);
        match next.into_iter().chain(anew).min() {
            Some(at) => self.core.timers.set(Timer::Announce, at),
            None => self.core.timers.clear(Timer::Announce),
        }
    }
}
