//! Ephemeral ports (RFC 6056).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

use peersock_primitives::Key;

/// Number of counters; RFC 6056 3.3.4 calls it TABLE_LENGTH.
const COUNTERS: usize = 64;

/// Double-hash port selection (RFC 6056 3.3.4). Ports to one destination are used in order, from an
/// unpredictable offset per destination. The counters of different destinations reveal little about each
/// other.
pub(crate) struct Ephemeral {
    first: u16,
    count: u32,
    offsets: Key,
    indexes: Key,
    counters: [AtomicU32; COUNTERS],
}

impl Ephemeral {
    pub(crate) fn new(seed: &[u8; 32], range: &RangeInclusive<u16>) -> Self {
        let count = u32::from(range.end().saturating_sub(*range.start())) + 1;
        Self {
            // Port 0 means "none".
            first: (*range.start()).max(1),
            count: count - u32::from(*range.start() == 0 && count > 1),
            offsets: Key::new(seed, "port offset"),
            indexes: Key::new(seed, "port index"),
            counters: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Returns ports to try for a connection, each once unless other threads draw at the same time. The
    /// remote endpoint itself is left out: a connection to a port where no socket listens would otherwise
    /// meet itself by a simultaneous open (RFC 9293 3.5), and would look accepted.
    pub(crate) fn candidates(
        &self,
        local: IpAddr,
        remote: Option<SocketAddr>,
    ) -> impl Iterator<Item = u16> + '_ {
        // RFC 6056 3.3.4: the order of ports depends on the endpoints, so an attacker off the path cannot
        // guess the next one.
        let offset = self.offsets.digest((local, remote)) as u32;
        let counter = &self.counters[self.indexes.digest((local, remote)) as usize % COUNTERS];
        let draw = move |_| {
            // An atomic counter, so that two threads never draw the same number.
            let next = offset.wrapping_add(counter.fetch_add(1, Ordering::Relaxed)) % self.count;
            self.first + next as u16
        };
        (0..self.count).map(draw).filter(move |port| remote != Some(SocketAddr::new(local, *port)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_port_of_the_range_is_tried_once() {
        let ephemeral = Ephemeral::new(&[3; 32], &(40000..=40099));
        let remote = Some("10.0.0.2:80".parse().unwrap());
        let tried: BTreeSet<u16> = ephemeral.candidates("10.0.0.1".parse().unwrap(), remote).collect();
        assert_eq!(tried, (40000..=40099).collect());
    }

    #[test]
    fn port_zero_is_never_a_candidate() {
        let ephemeral = Ephemeral::new(&[3; 32], &(0..=3));
        let tried: BTreeSet<u16> = ephemeral.candidates("10.0.0.1".parse().unwrap(), None).collect();
        assert_eq!(tried, (1..=3).collect());
    }

    #[test]
    fn no_connection_meets_itself() {
        let ephemeral = Ephemeral::new(&[3; 32], &(40000..=40099));
        let local = "10.0.0.1".parse().unwrap();
        let remote = Some(SocketAddr::new(local, 40042));
        let tried: BTreeSet<u16> = ephemeral.candidates(local, remote).collect();
        assert_eq!(tried, (40000..=40099).filter(|port| *port != 40042).collect());
    }

    #[test]
    fn destinations_start_at_different_ports() {
        let ephemeral = Ephemeral::new(&[3; 32], &(32768..=60999));
        let first = |port| {
            let remote = Some(SocketAddr::new("10.0.0.2".parse().unwrap(), port));
            ephemeral.candidates("10.0.0.1".parse().unwrap(), remote).next().unwrap()
        };
        let starts: BTreeSet<u16> = (1..100).map(first).collect();
        assert!(starts.len() > 90, "{}", starts.len());
    }
}
