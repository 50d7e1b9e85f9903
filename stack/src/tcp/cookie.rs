//! SYN cookies (RFC 4987 3.6): while a listener's backlog is full, the SYN-ACK's sequence number holds the
//! handshake's state instead of memory.
//!
//! A cookie has no room for window scale, SACK or timestamps, and its segment size comes from a table.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::host::clock::Time;
use peersock_primitives::Key;

/// Segment sizes that a cookie can encode: the defaults, common paths, and loopback paths.
const SIZES: [u16; 8] = [536, 1220, 1300, 1388, 1440, 1460, 8920, 65_475];

/// Length of a period. A cookie is valid in the period that made it and in the next.
const PERIOD_SECONDS: i64 = 64;

/// Layout of the sequence number in bits: the period, the size, and an authentication code in the rest.
const SIZE_BITS: u32 = 3;
const PERIOD_BITS: u32 = 3;
const MAC_BITS: u32 = 32 - SIZE_BITS - PERIOD_BITS;

/// Makes and checks cookies.
pub(crate) struct Cookies {
    key: Key,
    /// Number of times that all cookies were made void.
    voided: AtomicU32,
}

impl Cookies {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self { key: Key::new(seed, "SYN cookie"), voided: AtomicU32::new(0) }
    }

    /// Makes all cookies void: who has one may connect no more.
    pub(crate) fn make_void(&self) {
        self.voided.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the initial sequence number that encodes the SYN `irs` of a peer whose largest segment is
    /// `mss` bytes.
    pub(crate) fn make(
        &self,
        now: Time,
        (local, remote): (SocketAddr, SocketAddr),
        irs: u32,
        mss: u16,
    ) -> u32 {
        // Rounded down, so that segments fit the peer. Below 536, the default of IPv4 applies.
        let size = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0) as u32;
        self.cookie((local, remote), irs, period(now), size)
    }

    /// Returns the segment size if `isn` is a valid cookie for these addresses from this period or the last.
    pub(crate) fn check(
        &self,
        now: Time,
        (local, remote): (SocketAddr, SocketAddr),
        irs: u32,
        isn: u32,
    ) -> Option<u16> {
        let size = isn >> MAC_BITS & ((1 << SIZE_BITS) - 1);
        let made = |period: u64| self.cookie((local, remote), irs, period, size) == isn;
        let now = period(now);
        // The previous period counts, too, because a period may end while the SYN-ACK is on its way.
        (made(now) || made(now.wrapping_sub(1))).then(|| SIZES[size as usize])
    }

    fn cookie(&self, addresses: (SocketAddr, SocketAddr), irs: u32, period: u64, size: u32) -> u32 {
        // Of all 2^32 numbers 16 are valid at a time: one for each of eight sizes in two periods.
        let voided = self.voided.load(Ordering::Relaxed);
        let mac = self.key.digest((addresses, irs, period, size, voided)) as u32 >> (32 - MAC_BITS);
        let period = period as u32 % (1 << PERIOD_BITS);
        period << (32 - PERIOD_BITS) | size << MAC_BITS | mac
    }
}

fn period(now: Time) -> u64 {
    (now.total_micros() / 1_000_000 / PERIOD_SECONDS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_holds_for_its_addresses_its_number_and_a_while() {
        let cookies = Cookies::new(&[5; 32]);
        let addresses = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:999".parse().unwrap());
        let others = (addresses.0, "10.0.0.2:998".parse().unwrap());
        let at = Time::from_secs;
        for (mss, kept) in [(100, 536), (1399, 1388), (u16::MAX, 65_475)] {
            let isn = cookies.make(at(100), addresses, 77, mss);
            assert_eq!(cookies.check(at(100), addresses, 77, isn), Some(kept));
            assert_eq!(cookies.check(at(164), addresses, 77, isn), Some(kept));
            assert_eq!(cookies.check(at(300), addresses, 77, isn), None);
            assert_eq!(cookies.check(at(100), addresses, 78, isn), None);
            assert_eq!(cookies.check(at(100), others, 77, isn), None);
        }
        let guesses = (0..100_000u32).map(|guess| guess.wrapping_mul(2_654_435_761));
        let hits = guesses.filter(|&guess| cookies.check(at(100), addresses, 77, guess).is_some()).count();
        assert!(hits < 5, "{hits}");
    }
}
