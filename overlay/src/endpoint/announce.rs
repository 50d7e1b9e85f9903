//! What our own change of address means for those who send to us.
//!
//! A peer follows an authentic packet from a new address. A node that mostly receives sends few of those: if
//! its address changes, its peers go on sending to the old one and hear nothing. So a node whose interfaces
//! have changed says at once where it is, to every peer with a session, by a probe. The answer shows that
//! packets pass both ways.

use std::time::{Duration, Instant};

use super::handshake::Reason;
use super::peers::{PeerKey, PeerState};
use super::{Endpoint, Event, Timer};
use crate::wire::{Control, ProbeSize};

/// When a probe leaves after a change: a route, a neighbour or a carrier may take a while to be there.
const LADDER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// The rung at which a peer that is in use and has not answered is looked for at all its addresses.
const SEARCH: usize = 2;

/// A peer that was sent to within this time is in use.
const IN_USE: Duration = Duration::from_secs(15);

/// Where a node stands on the ladder.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    since: Option<Instant>,
    rung: usize,
}

/// A peer that was told, and has not answered.
#[derive(Debug)]
pub(super) struct Told {
    /// The id of the first probe.
    first: u32,
    /// Packets went to or came from it when our address changed.
    in_use: bool,
}

impl Endpoint {
    /// Tells all peers with a session where this node is now, and has handshakes that wait tried again at
    /// once.
    pub(super) fn announce_address(&mut self, now: Instant) {
        let mut any = false;
        for peer in self.peers.iter_mut() {
            let activity = peer.handle.activity();
            let last = activity.last_sent().max(activity.last_received());
            let in_use = last.is_some_and(|at| now.saturating_duration_since(at) < IN_USE);
            peer.told = peer.current().map(|_| Told { first: peer.next_probe, in_use });
            any |= peer.told.is_some();
        }
        for key in self.peers.keys(|peer| peer.attempt.is_some()) {
            self.retry_at_once(now, key);
        }
        self.announcement = Announcement { since: any.then_some(now), rung: 0 };
        self.on_announce_timer(now);
    }

    /// Sends the next probe to the peers that have not answered.
    pub(super) fn on_announce_timer(&mut self, now: Instant) {
        let Announcement { since: Some(since), rung } = self.announcement else {
            return self.timers.clear(Timer::Announce);
        };
        let told = self.peers.keys(|peer| peer.told.is_some());
        for &key in &told {
            self.ask(now, key);
            let searched = |peer: &PeerState| peer.told.as_ref().is_some_and(|told| told.in_use);
            if rung == SEARCH && self.peers.get(key).is_some_and(searched) {
                self.attempt(now, key, Reason::Hint);
            }
        }
        self.announcement.rung += 1;
        match LADDER.get(self.announcement.rung) {
            Some(&wait) if !told.is_empty() => self.timers.set(Timer::Announce, since + wait),
            _ => {
                self.announcement = Announcement::default();
                self.timers.clear(Timer::Announce);
            }
        }
    }

    fn ask(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.next_probe;
        peer.next_probe = id.wrapping_add(1);
        self.counters.probes_sent.increment();
        self.send_on_current(now, key, Control::Probe { id, len: ProbeSize::MIN });
    }

    /// A probe of ours was answered: if it was sent after our addresses had changed, the path stands.
    pub(super) fn note_answer(&mut self, key: PeerKey, id: u32) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.told.take_if(|told| id.wrapping_sub(told.first) < u32::MAX / 2).is_some() {
            let handle = peer.handle.clone();
            self.emit(Event::PathConfirmed(handle));
        }
    }
}
