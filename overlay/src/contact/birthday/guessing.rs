//! The easy side: challenges to many different ports of one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Draw, LAST_ANSWERS, MAX_GUESSES, Pace, Shot};
use crate::reach::Place;

#[derive(Debug)]
pub(super) struct Guessing {
    host: IpAddr,
    pace: Pace,
    /// Number of tries begun.
    tries: usize,
    /// Data of the challenge to each port.
    tried: BTreeMap<u16, [u8; 8]>,
    next: Instant,
    /// Time of the last challenge.
    last: Option<Instant>,
}

impl Guessing {
    pub(super) fn new(host: IpAddr, pace: Pace, begin: Instant) -> Self {
        Self { host, pace, tries: 1, tried: BTreeMap::new(), next: begin, last: None }
    }

    pub(super) fn host(&self) -> IpAddr {
        self.host
    }

    /// Returns the number of challenges sent.
    pub(super) fn sent(&self) -> u32 {
        self.tried.len() as u32
    }

    /// Returns true if a challenge was sent to `remote`.
    pub(super) fn has_tried(&self, remote: &SocketAddr) -> bool {
        remote.ip() == self.host && self.tried.contains_key(&remote.port())
    }

    /// Checks an answer from `place`, whose round-trip time stays unknown.
    pub(super) fn answered(&self, place: Place, data: [u8; 8]) -> Option<Option<Duration>> {
        let Place::Direct { socket, remote } = place else { return None };
        let is_right = remote.ip() == self.host && self.tried.get(&remote.port()) == Some(&data);
        // No round-trip time, because the sending times of a thousand packets are not kept.
        (is_right && !socket.makes_place()).then_some(None)
    }

    /// Takes what is due. Calls `may_try_again` once all ports of a try were sent to and another try may
    /// follow.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        draw: &mut impl Draw,
        may_try_again: impl FnOnce() -> bool,
    ) -> Vec<Shot> {
        let mut shots = Vec::new();
        if now < self.next {
            return shots;
        }
        while shots.len() < self.pace.tick_shots() && self.tried.len() < self.tries * MAX_GUESSES {
            let port = draw.port();
            // A second packet to a port that did not answer would waste a draw.
            if self.tried.contains_key(&port) {
                continue;
            }
            // Without entropy a challenge could be forged, so none is sent.
            let Some(data) = draw.number() else { break };
            self.tried.insert(port, data);
            shots.push((None, SocketAddr::new(self.host, port), data));
        }
        self.next = now + self.pace.tick();
        if self.tried.len() >= self.tries * MAX_GUESSES {
            // The hard side's mappings still exist, so another try needs no new agreement.
            if self.last.is_none() && self.tries < self.pace.tries() && may_try_again() {
                self.tries += 1;
                return shots;
            }
            let last = *self.last.get_or_insert(now);
            self.next = last + LAST_ANSWERS;
        }
        shots
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now >= last + LAST_ANSWERS)
    }
}
