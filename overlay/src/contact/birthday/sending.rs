//! The hard side: a challenge from each of many sockets to one address, until the other side is heard.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Draw, Pace, Shot, WantedSocket};
use crate::reach::Place;

/// Times of further challenges from the socket on which the other side was heard.
const CHOSEN_SHOTS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(2000),
];

/// Time after the other side was heard after which no path can be expected.
const CHOSEN: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Sending {
    to: SocketAddr,
    pace: Pace,
    probes: Vec<Probe>,
    /// Number of probes that have sent.
    position: usize,
    sent: u32,
    next: Instant,
    ends: Instant,
    /// Time when the other side was heard on the only remaining socket, and the number of packets sent from
    /// it since.
    chosen: Option<(Instant, usize)>,
}

/// One socket and the data of its challenge.
#[derive(Debug)]
struct Probe {
    socket: WantedSocket,
    data: [u8; 8],
    last: Option<Instant>,
    sent: u32,
}

impl Sending {
    /// Creates the search. Omits sockets for which there is no randomness.
    pub(super) fn new(
        (to, pace): (SocketAddr, Pace),
        sockets: Vec<WantedSocket>,
        now: Instant,
        draw: &mut impl Draw,
    ) -> Self {
        let probe = |socket| Some(Probe { socket, data: draw.number()?, last: None, sent: 0 });
        let probes = sockets.into_iter().filter_map(probe).collect();
        let ends = now + pace.listening();
        Self { to, pace, probes, position: 0, sent: 0, next: now, ends, chosen: None }
    }

    pub(super) fn to(&self) -> SocketAddr {
        self.to
    }

    /// Returns the number of challenges sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns the sockets that stay open.
    pub(super) fn sockets(&self) -> impl Iterator<Item = WantedSocket> {
        self.probes.iter().map(|probe| probe.socket)
    }

    /// Records that the other side was heard at `place`. Returns true if that selects a socket.
    pub(super) fn heard(&mut self, place: Place, now: Instant) -> bool {
        let is_it = |probe: &Probe| Place::Direct { socket: probe.socket.index, remote: self.to } == place;
        if self.chosen.is_some() || !self.probes.iter().any(is_it) {
            return false;
        }
        // The first socket stays and the others close, so that both sides choose the same one.
        self.probes.retain(|probe| probe.socket.index == place.socket());
        self.chosen = Some((now, 0));
        // The remaining time is for proof on the one socket, which a lost packet must not end.
        (self.next, self.ends) = (now, now + CHOSEN);
        true
    }

    /// Checks an answer from `place`; returns the round-trip time if known.
    pub(super) fn answered(&self, place: Place, data: [u8; 8], now: Instant) -> Option<Option<Duration>> {
        let is_it = |probe: &&Probe| {
            let there = Place::Direct { socket: probe.socket.index, remote: self.to };
            there == place && probe.data == data && probe.sent > 0
        };
        let probe = self.probes.iter().find(is_it)?;
        // After several challenges with the same data it is unknown which one was answered (RFC 6298, section
        // 3).
        let only = probe.last.filter(|_| probe.sent == 1);
        Some(only.map(|at| now.saturating_duration_since(at)))
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Shot> {
        if now < self.next {
            return Vec::new();
        }
        let range = match &mut self.chosen {
            Some((since, times)) => {
                let is_due = CHOSEN_SHOTS.get(*times).is_some_and(|after| now >= *since + *after);
                *times += usize::from(is_due);
                self.next = CHOSEN_SHOTS.get(*times).map_or(self.ends, |after| *since + *after);
                0..usize::from(is_due)
            }
            None => {
                let first = self.position;
                self.position = self.probes.len().min(first + self.pace.tick_shots());
                self.next =
                    if self.position < self.probes.len() { now + self.pace.tick() } else { self.ends };
                first..self.position
            }
        };
        let to = self.to;
        let shot = |probe: &mut Probe| {
            (probe.last, probe.sent) = (Some(now), probe.sent + 1);
            (Some(probe.socket.index), to, probe.data)
        };
        let shots: Vec<_> = self.probes[range].iter_mut().map(shot).collect();
        self.sent += shots.len() as u32;
        shots
    }

    pub(super) fn next(&self) -> Instant {
        self.next.min(self.ends)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }
}
