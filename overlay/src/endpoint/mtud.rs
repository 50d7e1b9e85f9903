//! Datagram packetization-layer path MTU discovery (DPLPMTUD, RFC 8899) for one path.
//!
//! Sizes are UDP payloads in bytes. A path starts at [`BASE`] and is usable there at once; probes (sealed control
//! messages padded to the size under test, which the peer acknowledges) only ever raise it:
//!
//! 1. The search first jumps along what links usually have: Ethernet, jumbo frames, then the socket's own limit.
//! 2. A size is given up after [`MAX_PROBES`] losses (RFC 8899 section 5.1.2). Then the range between the largest
//!    size that passed and the smallest that did not is halved until it is narrow; two failures in a row above
//!    Ethernet's size end the search, because then the link almost surely is Ethernet.
//! 3. While traffic flows, the current size is confirmed now and then; when that fails, the path has become a black
//!    hole for it and falls back to the base at once (section 4.3), then searches below the size that failed.
//!
//! Packets of the base size that are lost are not this module's concern: dead peers are found by silence.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// BASE_PLPMTU for UDP payloads (RFC 8899 section 5.1.2 suggests 1200).
pub(super) const BASE: usize = 1200;

/// MAX_PROBES (RFC 8899 section 5.1.2).
const MAX_PROBES: u8 = 3;

/// The largest UDP payload over IPv4.
const LARGEST: usize = 65_507;

/// How often the current size is confirmed while traffic flows (CONFIRMATION_TIMER).
const CONFIRM_INTERVAL: Duration = Duration::from_secs(15);

/// Bounds of the first probe's timeout; each repetition doubles it.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

/// A search stops when the open range is not wider than this, or than a 64th of the size.
const GRANULARITY: usize = 16;

/// The discovery state of one path.
#[derive(Debug)]
pub(super) struct Mtud {
    current: usize,
    ceiling: usize,
    /// UDP payload of a 1500-byte packet on this path.
    ethernet: usize,
    jumbo: usize,
    phase: Phase,
    probe: Option<InFlight>,
    confirmed: Instant,
}

#[derive(Debug)]
enum Phase {
    /// Looking for a size above `current` and below `bound`, after `failures` failed sizes in a row.
    Search { bound: usize, failures: u8 },
    /// Asking whether `current` still passes.
    Confirm,
    /// Nothing to do until [`Mtud::confirm`] or [`Mtud::search`].
    Idle,
}

#[derive(Debug)]
struct InFlight {
    size: usize,
    ids: [u32; MAX_PROBES as usize],
    tries: u8,
    sent: Instant,
    timeout: Duration,
}

impl Mtud {
    /// A new path to `remote` from a socket that sends at most `max_datagram` bytes. The search starts at once.
    pub(super) fn new(remote: SocketAddr, max_datagram: usize, now: Instant) -> Self {
        let header = if remote.is_ipv4() { 28 } else { 48 };
        let (ethernet, jumbo) = (1500 - header, 9000 - header);
        let limit = if remote.ip().is_loopback() { LARGEST } else { jumbo };
        let ceiling = max_datagram.min(limit);
        let mut mtud = Self {
            current: BASE.min(max_datagram),
            ceiling,
            ethernet,
            jumbo,
            phase: Phase::Idle,
            probe: None,
            confirmed: now,
        };
        mtud.search();
        mtud
    }

    /// The largest datagram that is known to pass.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Starts another search upwards unless one runs.
    pub(super) fn search(&mut self) {
        if matches!(self.phase, Phase::Idle) && self.current < self.ceiling {
            self.phase = Phase::Search { bound: self.ceiling + 1, failures: 0 };
        }
    }

    /// Traffic flows: confirms the current size if that was not done lately.
    pub(super) fn confirm_if_due(&mut self, now: Instant) {
        if now.saturating_duration_since(self.confirmed) >= CONFIRM_INTERVAL {
            self.confirm();
        }
    }

    /// Confirms the current size now, because something suggests that it no longer passes.
    pub(super) fn confirm(&mut self) {
        if !matches!(self.phase, Phase::Confirm) && self.current > BASE {
            self.phase = Phase::Confirm;
            self.probe = None;
        }
    }

    /// When [`Self::poll`] is to be called again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.probe.as_ref().map(|probe| probe.sent + probe.timeout)
    }

    /// Returns the size of a probe that is to be sent now, if any, under `id`, which was not used before. `rtt` is the
    /// path's round-trip time, as far as it is known. May lower [`Self::current`].
    pub(super) fn poll(&mut self, now: Instant, rtt: Option<Duration>, id: u32) -> Option<usize> {
        if let Some(probe) = &mut self.probe {
            if now < probe.sent + probe.timeout {
                return None;
            }
            if let Some(slot) = probe.ids.get_mut(usize::from(probe.tries)) {
                *slot = id;
                probe.tries += 1;
                probe.sent = now;
                probe.timeout *= 2;
                return Some(probe.size);
            }
            let size = probe.size;
            self.probe = None;
            self.fail(size);
        }
        let size = self.target()?;
        let timeout = rtt.map_or(MAX_TIMEOUT / 2, |rtt| rtt * 3).clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        self.probe = Some(InFlight { size, ids: [id; MAX_PROBES as usize], tries: 1, sent: now, timeout });
        Some(size)
    }

    /// The peer received probe `id`. Returns a round-trip sample if the probe was sent once only.
    pub(super) fn acknowledged(&mut self, id: u32, now: Instant) -> Option<Duration> {
        let probe = self.probe.take_if(|probe| probe.ids.contains(&id))?;
        self.confirmed = now;
        match &mut self.phase {
            Phase::Search { failures, .. } => {
                self.current = probe.size;
                *failures = 0;
            }
            Phase::Confirm => {
                self.phase = Phase::Idle;
                self.search();
            }
            Phase::Idle => {}
        }
        (probe.tries == 1).then(|| now.saturating_duration_since(probe.sent))
    }

    fn fail(&mut self, size: usize) {
        match &mut self.phase {
            Phase::Search { bound, failures } => {
                *bound = size;
                *failures = failures.saturating_add(1);
            }
            Phase::Confirm => {
                self.current = BASE.min(self.current);
                self.phase = Phase::Search { bound: size, failures: 0 };
            }
            Phase::Idle => {}
        }
    }

    /// The size to probe next; ends the search when there is none.
    fn target(&mut self) -> Option<usize> {
        let (bound, failures) = match self.phase {
            Phase::Idle => return None,
            Phase::Confirm => return Some(self.current),
            Phase::Search { bound, failures } => (bound, failures),
        };
        let usual = [self.ethernet, self.jumbo, self.ceiling]
            .into_iter()
            .find(|&size| size > self.current && size < bound && size <= self.ceiling);
        if usual.is_some() {
            return usual;
        }
        let open = bound - self.current;
        let narrow = open <= GRANULARITY.max(self.current / 64);
        let hopeless = failures >= 2 && self.current >= self.ethernet;
        if narrow || hopeless || self.current + open / 2 > self.ceiling {
            self.phase = Phase::Idle;
            return None;
        }
        Some(self.current + open / 2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::instant;

    const V4: &str = "192.0.2.1:7";
    const V6: &str = "[2001:db8::1]:7";
    const LOOPBACK: &str = "127.0.0.1:7";

    #[test]
    fn reaches_what_the_link_carries() {
        for (remote, max, link, expected) in [
            (V4, LARGEST, 1472, 1472),
            (V6, LARGEST, 1452, 1452),
            (V4, LARGEST, 8972, 8972),
            (V6, LARGEST, 8952, 8952),
            (V4, LARGEST, LARGEST, 8972),
            (LOOPBACK, LARGEST, LARGEST, LARGEST),
            (LOOPBACK, 16_000, LARGEST, 16_000),
            (V4, 1400, LARGEST, 1400),
            (V4, 1000, 1000, 1000),
        ] {
            let mut path = Run::new(remote, max);
            path.settle(link);
            assert_eq!(path.mtud.current(), expected, "{remote} {max} {link}");
        }
    }

    #[test]
    fn searches_between_the_usual_sizes() {
        for (link, at_least) in [(1200, 1200), (1372, 1350), (1464, 1440), (8868, 8500)] {
            let mut path = Run::new(V4, LARGEST);
            path.settle(link);
            let found = path.mtud.current();
            assert!((at_least..=link).contains(&found), "{link}: {found}");
        }
    }

    #[test]
    fn ethernet_costs_few_lost_probes() {
        let mut path = Run::new(V4, LARGEST);
        path.settle(1472);
        assert_eq!(path.lost, 2 * usize::from(MAX_PROBES));
    }

    #[test]
    fn a_black_hole_falls_back_and_then_finds_the_new_size() {
        let mut path = Run::new(V4, LARGEST);
        path.settle(8972);
        path.mtud.confirm();
        let start = path.now;
        while path.mtud.current() > BASE {
            path.step(1350);
        }
        assert!(path.now - start <= Duration::from_secs(1), "{:?}", path.now - start);
        path.settle(1350);
        assert!((1320..=1350).contains(&path.mtud.current()), "{}", path.mtud.current());
    }

    #[test]
    fn one_lost_confirmation_is_not_a_black_hole() {
        let mut path = Run::new(V4, LARGEST);
        path.settle(1472);
        path.mtud.confirm();
        path.step(0);
        path.settle(1472);
        assert_eq!(path.mtud.current(), 1472);
    }

    #[test]
    fn confirms_only_when_due() {
        let mut path = Run::new(V4, LARGEST);
        path.settle(1472);
        path.mtud.confirm_if_due(path.now);
        assert_eq!(path.poll(path.now), None);
        let later = path.now + CONFIRM_INTERVAL;
        path.mtud.confirm_if_due(later);
        assert_eq!(path.poll(later), Some(1472));
    }

    proptest! {
        /// Whatever the link and its losses: never above the link, at most the ceiling, and the search ends.
        #[test]
        fn never_exceeds_the_link(link in 1200usize..70_000, max in 1200usize..70_000, losses: u64) {
            let mut path = Run::new(LOOPBACK, max);
            for n in 0..64 {
                path.step(if losses >> n & 1 == 1 { 0 } else { link });
            }
            path.settle(link);
            prop_assert!(path.mtud.current() <= link.min(max));
        }
    }

    struct Run {
        mtud: Mtud,
        now: Instant,
        lost: usize,
        id: u32,
    }

    impl Run {
        fn new(remote: &str, max_datagram: usize) -> Self {
            let now = instant();
            Self { mtud: Mtud::new(remote.parse().unwrap(), max_datagram, now), now, lost: 0, id: 0 }
        }

        /// Sends what is due over a link of this size and 1 ms round-trip time; false when there is nothing to do.
        fn step(&mut self, link: usize) -> bool {
            if let Some(deadline) = self.mtud.deadline() {
                self.now = self.now.max(deadline);
            }
            let Some(size) = self.poll(self.now) else { return false };
            if size <= link {
                self.now += Duration::from_millis(1);
                self.mtud.acknowledged(self.id, self.now);
            } else {
                self.lost += 1;
            }
            true
        }

        fn poll(&mut self, now: Instant) -> Option<usize> {
            self.id += 1;
            self.mtud.poll(now, Some(Duration::from_millis(1)), self.id)
        }

        fn settle(&mut self, link: usize) {
            for _ in 0..200 {
                if !self.step(link) {
                    return;
                }
            }
            panic!("the search does not end");
        }
    }
}
