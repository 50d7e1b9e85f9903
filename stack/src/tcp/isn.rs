//! Initial sequence numbers: RFC 6528.

use std::net::SocketAddr;

use crate::host::clock::Time;
use peersock_primitives::Key;

/// Returns an initial sequence number: a clock of 4 µs ticks plus a keyed hash of the addresses (RFC 6528 3).
pub(crate) fn initial_sequence(key: &Key, time: Time, local: SocketAddr, remote: SocketAddr) -> u32 {
    let clock = (time.total_micros() / 4) as u32;
    // The clock keeps successive connections of two endpoints apart. The hash keeps an attacker from
    // computing the numbers that other endpoints get from the numbers that it gets itself.
    clock.wrapping_add(key.digest((local, remote)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_move_with_the_clock_and_differ_between_connections_and_keys() {
        let (a, b) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
        let key = Key::new(&[1; 32], "isn");
        let at = |micros| initial_sequence(&key, Time::from_micros(micros), a, b);
        assert_eq!(at(4_000_000).wrapping_sub(at(0)), 1_000_000);
        assert_ne!(at(0), initial_sequence(&key, Time::from_micros(0), b, a));
        assert_ne!(at(0), initial_sequence(&Key::new(&[2; 32], "isn"), Time::from_micros(0), a, b));
    }
}
