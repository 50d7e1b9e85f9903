//! The hard side: a challenge from each of many sockets to one address, until the other side is heard.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Draw, Pace, Shot, WantedSocket};
use crate::reach::Place;

/// A socket on which the other side was heard sends its challenge again after so long.
const CHOSEN_SHOTS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(2000),
];

/// If there is no path so long after the other side was heard, there will be none.
const CHOSEN: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Sending {
    to: SocketAddr,
    pace: Pace,
    probes: Vec<Probe>,
    /// How many of them have sent.
    position: usize,
    sent: u32,
    next: Instant,
    ends: Instant,
    /// When the other side was heard, on the only socket that is left, and how often that has sent since.
    chosen: Option<(Instant, usize)>,
}

/// One socket and what its challenge says.
#[derive(Debug)]
struct Probe {
    socket: WantedSocket,
    data: [u8; 8],
    last: Option<Instant>,
    sent: u32,
}

impl Sending {
    /// Sockets for which there is no randomness are left out.
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

    /// How many challenges were sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Those that are to stay open.
    pub(super) fn sockets(&self) -> impl Iterator<Item = WantedSocket> {
        self.probes.iter().map(|probe| probe.socket)
    }

    /// The other side was heard there. True if that decides for a socket.
    pub(super) fn heard(&mut self, place: Place, now: Instant) -> bool {
        let is_it = |probe: &Probe| Place::Direct { socket: probe.socket.index, remote: self.to } == place;
        if self.chosen.is_some() || !self.probes.iter().any(is_it) {
            return false;
        }
        self.probes.retain(|probe| probe.socket.index == place.socket());
        self.chosen = Some((now, 0));
        (self.next, self.ends) = (now, now + CHOSEN);
        true
    }

    /// The other side has answered what was sent there: gives the round trip if it is known.
    pub(super) fn answered(&self, place: Place, data: [u8; 8], now: Instant) -> Option<Option<Duration>> {
        let is_it = |probe: &&Probe| {
            let there = Place::Direct { socket: probe.socket.index, remote: self.to };
            there == place && probe.data == data && probe.sent > 0
        };
        let probe = self.probes.iter().find(is_it)?;
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
