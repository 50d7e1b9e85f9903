//! Discovery runs over links of one size each, with losses.

use proptest::prelude::*;

use super::trial::MAX_PROBES;
use super::*;
use crate::reach::SocketIndex;
use crate::testing::instant;

const MAX_DATAGRAM_BYTES: usize = 65_507;
const V4: &str = "192.0.2.1:7";
const V6: &str = "[2001:db8::1]:7";
const LOOPBACK: &str = "127.0.0.1:7";

#[test]
fn reaches_what_the_link_carries() {
    for (remote, max, link, expected) in [
        (V4, MAX_DATAGRAM_BYTES, 1472, 1472),
        (V6, MAX_DATAGRAM_BYTES, 1452, 1452),
        (V4, MAX_DATAGRAM_BYTES, 8972, 8972),
        (V6, MAX_DATAGRAM_BYTES, 8952, 8952),
        // Except on loopback, the search ends at jumbo frames.
        (V4, MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES, 8972),
        (LOOPBACK, MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES),
        (LOOPBACK, 16_000, MAX_DATAGRAM_BYTES, 16_000),
        (V4, 1400, MAX_DATAGRAM_BYTES, 1400),
        (V4, 1000, 1000, 1000),
    ] {
        let mut path = Run::new(remote, max);
        path.finish(link);
        assert_eq!(path.mtud.current(), expected, "{remote} {max} {link}");
    }
}

#[test]
fn searches_between_the_usual_sizes() {
    for (link, at_least) in [(1200, 1200), (1372, 1350), (1464, 1440), (8868, 8500)] {
        let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
        path.finish(link);
        let found = path.mtud.current();
        assert!((at_least..=link).contains(&found), "{link}: {found}");
    }
}

#[test]
fn a_path_that_carries_less_than_the_base_is_used_as_it_is() {
    for link in [1199, 1172, 1152, 900, 548, 547, 300, Initiation::MIN] {
        let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
        let start = path.now;
        while path.mtud.current() > link {
            assert!(path.step(link), "{link}: it rests at {}", path.mtud.current());
        }
        assert!(path.now - start <= Duration::from_millis(200), "{link}: {:?}", path.now - start);
        path.finish(link);
        let found = path.mtud.current();
        assert!((link - 20..=link).contains(&found), "{link}: {found}");
        path.mtud.confirm(true);
        path.finish(link);
        assert_eq!(path.mtud.current(), found, "{link}");
    }
}

#[test]
fn ethernet_costs_few_lost_probes() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.finish(1472);
    // Two sizes above Ethernet's are given up, and then the search ends.
    assert_eq!(path.lost, 2 * MAX_PROBES);
}

#[test]
fn a_black_hole_falls_back_and_then_finds_the_new_size() {
    for link in [1350, 1190] {
        let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
        path.finish(8972);
        path.now += CONFIRM_SPACING;
        path.mtud.confirm(true);
        let start = path.now;
        while path.mtud.current() > link {
            path.step(link);
        }
        assert!(path.now - start <= Duration::from_millis(100), "{:?}", path.now - start);
        path.finish(link);
        assert!((link - 30..=link).contains(&path.mtud.current()), "{}", path.mtud.current());
    }
}

// A sender over a long path waits only for these round trips.
#[test]
fn each_size_that_no_longer_passes_costs_a_round_trip_and_a_half_once_it_is_suspected() {
    let rtt = Duration::from_millis(200);
    for (link, sizes) in [(1350, 1), (1000, 2), (300, 3)] {
        let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
        path.finish(1472);
        path.now += CONFIRM_SPACING;
        path.mtud.confirm(true);
        let (start, mut answers) = (path.now, Vec::new());
        while path.mtud.current() > link {
            let next = answers.iter().map(|(at, _)| *at).chain(path.mtud.deadline()).min();
            path.now = path.now.max(next.unwrap_or(path.now));
            let (due, later) = answers.into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= path.now);
            answers = later;
            for (_, id) in due {
                path.mtud.acknowledged(id, path.now);
            }
            path.id += 2;
            if let Some(size) = path.mtud.poll(path.now, Some(rtt), path.id) {
                let passes = [(path.id, size), (path.id + 1, COMPANION_BYTES)]
                    .into_iter()
                    .filter(|(_, size)| *size <= link);
                answers.extend(passes.map(|(id, _)| (path.now + rtt, id)));
            }
        }
        assert!(path.now - start <= sizes * rtt * 3 / 2, "{link}: {:?}", path.now - start);
    }
}

#[test]
fn one_lost_confirmation_is_not_a_black_hole() {
    for suspected in [true, false] {
        let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
        path.finish(1472);
        path.mtud.confirm(suspected);
        path.step(0);
        path.step(COMPANION_BYTES);
        path.finish(1472);
        assert_eq!(path.mtud.current(), 1472);
    }
}

#[test]
fn a_path_that_is_down_keeps_its_size() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.finish(1472);
    for _ in 0..3 {
        path.mtud.confirm(true);
        path.finish(0);
        assert_eq!(path.mtud.current(), 1472);
    }
    // A path that comes back smaller is detected as usual.
    path.mtud.confirm(true);
    path.finish(1300);
    assert!((1280..=1300).contains(&path.mtud.current()), "{}", path.mtud.current());
}

#[test]
fn confirms_only_when_due() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.finish(1472);
    path.mtud.confirm_if_due(path.now);
    assert_eq!(path.poll(path.now), None);
    let later = path.now + CONFIRM_INTERVAL;
    path.mtud.confirm_if_due(later);
    assert_eq!(path.poll(later), Some(1472));
}

#[test]
fn confirms_twice_a_second_while_much_is_sent() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.finish(1472);
    let mut total = 0;
    let mut probes = 0;
    for tenth in 0..200 {
        path.now += Duration::from_millis(100);
        // Load in the first ten seconds, then little traffic.
        total += if tenth < 100 { 100_000 } else { 100 };
        path.mtud.carried(total, path.now);
        probes += usize::from(path.step(1472));
    }
    // Ten seconds of load, with two confirmations a second.
    assert!((18..=20).contains(&probes), "{probes}");
}

#[test]
fn a_search_is_begun_again_while_the_size_is_confirmed() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.finish(1300);
    let before = path.mtud.current();
    path.now += RAISE_INTERVAL;
    path.mtud.confirm_if_due(path.now);
    path.finish(1472);
    assert!(before <= 1300 && path.mtud.current() == 1472);
}

#[test]
fn suspicion_interrupts_a_search_and_does_not_end_it() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.step(1472);
    path.step(1472);
    assert_eq!(path.mtud.current(), 1472);
    path.mtud.confirm(false);
    assert!(matches!(path.mtud.phase, Phase::Search { .. }));
    path.mtud.confirm(true);
    path.finish(8972);
    assert_eq!(path.mtud.current(), 8972);
}

proptest! {
    // For any link and losses, the size stays within the link and the ceiling, and the search ends.
    #[test]
    fn never_exceeds_the_link(
        link in Initiation::MIN..70_000, max in 1200usize..70_000, [losses, dead]: [u64; 2]
    ) {
        let mut path = Run::new(LOOPBACK, max);
        for n in 0..64 {
            let passes = if dead >> n & 1 == 1 { 0 } else { COMPANION_BYTES };
            path.step(if losses >> n & 1 == 1 { passes } else { link });
        }
        path.mtud.confirm(true);
        path.finish(link);
        prop_assert!(path.mtud.current() <= link.min(max));
    }
}

/// Size that lets companions pass, but no probe.
const COMPANION_BYTES: usize = 35;

// A silent peer does not get large datagrams because of its silence.
#[test]
fn silence_costs_a_test_in_fifteen_seconds() {
    let mut path = Run::new(V4, MAX_DATAGRAM_BYTES);
    path.finish(1472);
    let (mut probes, end) = (0, path.now + Duration::from_secs(60));
    while path.now < end {
        path.mtud.confirm_if_due(path.now);
        probes += usize::from(path.poll(path.now).is_some());
        path.now += Duration::from_millis(100);
    }
    assert!((6..=6 * 4).contains(&probes), "{probes}");
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
        let place = Place::Direct { socket: SocketIndex(0), remote: remote.parse().unwrap() };
        Self { mtud: Mtud::new(place, max_datagram, now), now, lost: 0, id: 0 }
    }

    /// Sends what is due over a link of this size with a round-trip time of 1 ms. Returns false when there is
    /// nothing to do.
    fn step(&mut self, link: usize) -> bool {
        if let Some(deadline) = self.mtud.deadline() {
            self.now = self.now.max(deadline);
        }
        let Some(size) = self.poll(self.now) else { return false };
        if link >= COMPANION_BYTES {
            self.now += Duration::from_millis(1);
            self.mtud.acknowledged(self.id + 1, self.now);
        }
        if size <= link {
            self.mtud.acknowledged(self.id, self.now);
        } else {
            self.lost += 1;
        }
        true
    }

    fn poll(&mut self, now: Instant) -> Option<usize> {
        self.id += 2;
        self.mtud.poll(now, Some(Duration::from_millis(1)), self.id)
    }

    /// Runs until the discovery has nothing to send.
    fn finish(&mut self, link: usize) {
        for _ in 0..400 {
            if !self.step(link) {
                return;
            }
        }
        panic!("the search does not end");
    }
}
