//! The easy side: challenges to many different ports of one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Draw, LAST_ANSWERS, MOST_GUESSES, Shot, TICK, TICK_SHOTS};
use crate::reach::Place;

#[derive(Debug)]
pub(super) struct Guessing {
    host: IpAddr,
    /// What the challenge to each port says.
    tried: BTreeMap<u16, [u8; 8]>,
    next: Instant,
    /// When the last one was sent.
    last: Option<Instant>,
}

impl Guessing {
    pub(super) fn new(host: IpAddr, begin: Instant) -> Self {
        Self { host, tried: BTreeMap::new(), next: begin, last: None }
    }

    pub(super) fn host(&self) -> IpAddr {
        self.host
    }

    /// How many challenges were sent.
    pub(super) fn sent(&self) -> u32 {
        self.tried.len() as u32
    }

    /// Whether something was sent there.
    pub(super) fn has_tried(&self, remote: &SocketAddr) -> bool {
        remote.ip() == self.host && self.tried.contains_key(&remote.port())
    }

    /// The other side has answered what was sent there. How long that took was not noted.
    pub(super) fn answered(&self, place: Place, data: [u8; 8]) -> Option<Option<Duration>> {
        let Place::Direct { socket, remote } = place else { return None };
        let is_right = remote.ip() == self.host && self.tried.get(&remote.port()) == Some(&data);
        (is_right && !socket.makes_place()).then_some(None)
    }

    pub(super) fn take_due(&mut self, now: Instant, draw: &mut impl Draw) -> Vec<Shot> {
        let mut shots = Vec::new();
        if now < self.next {
            return shots;
        }
        while shots.len() < TICK_SHOTS && self.tried.len() < MOST_GUESSES {
            let port = draw.port();
            if self.tried.contains_key(&port) {
                continue;
            }
            let Some(data) = draw.number() else { break };
            self.tried.insert(port, data);
            shots.push((None, SocketAddr::new(self.host, port), data));
        }
        self.next = now + TICK;
        if self.tried.len() >= MOST_GUESSES {
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
