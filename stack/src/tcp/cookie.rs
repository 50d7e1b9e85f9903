//! SYN cookies (RFC 4987 3.6): while a listener's backlog is full, a handshake is kept in the sequence number
//! of the SYN-ACK instead of in memory.
//!
//! The price is what does not fit: no window scale, no SACK, no timestamps, and a segment size out of a
//! table.

use std::net::SocketAddr;

use crate::host::clock::Time;
use peersock_primitives::Key;

/// Segment sizes that a cookie can name: the defaults, common paths, and what loopback paths carry.
const SIZES: [u16; 8] = [536, 1220, 1300, 1388, 1440, 1460, 8920, 65_475];

/// A cookie is good in the period in which it was made and in the next.
const PERIOD_SECONDS: i64 = 64;

/// Bits of the sequence number: the period, the size, and the rest authenticates them.
const SIZE_BITS: u32 = 3;
const PERIOD_BITS: u32 = 3;
const MAC_BITS: u32 = 32 - SIZE_BITS - PERIOD_BITS;

/// Makes and checks cookies.
pub(crate) struct Cookies(Key);

impl Cookies {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self(Key::new(seed, "SYN cookie"))
    }

    /// The initial sequence number that stands for the SYN with number `irs` of a peer that takes segments of
    /// `mss` bytes.
    pub(crate) fn make(
        &self,
        now: Time,
        (local, remote): (SocketAddr, SocketAddr),
        irs: u32,
        mss: u16,
    ) -> u32 {
        let size = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0) as u32;
        self.cookie((local, remote), irs, period(now), size)
    }

    /// The segment size, if `isn` is a cookie for these addresses that was made lately.
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
        (made(now) || made(now.wrapping_sub(1))).then(|| SIZES[size as usize])
    }

    fn cookie(&self, addresses: (SocketAddr, SocketAddr), irs: u32, period: u64, size: u32) -> u32 {
        let mac = self.0.digest((addresses, irs, period, size)) as u32 >> (32 - MAC_BITS);
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
