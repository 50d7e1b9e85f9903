//! Initial sequence numbers (RFC 6528) in spite of smoltcp.
//!
//! smoltcp draws its initial sequence number from the interface's generator (a PCG whose state is the
//! seed) and takes no other. The generator can be run backwards, so a seed is computed that makes the
//! draw come out as the number that we want.

use std::net::SocketAddr;

use crate::clock::Time;
use crate::keyed::Key;

/// RFC 6528 3: a clock that ticks every 4 µs plus a keyed hash of the connection's addresses.
pub(crate) fn initial_sequence(key: &Key, time: Time, local: SocketAddr, remote: SocketAddr) -> u32 {
    let clock = (time.total_micros() / 4) as u32;
    clock.wrapping_add(key.digest((local, remote)) as u32)
}

/// smoltcp's generator: `state = state * MULTIPLIER + INCREMENT`, see its `rand.rs`.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
const INVERSE: u64 = inverse(MULTIPLIER);

/// A seed for an interface whose next sequence number shall be `isn`.
pub(super) fn seed_for(isn: u32) -> u64 {
    // A state's output is its upper bits, shifted by 29 less its top three bits. With those zero,
    // the output is bits 29 to 60, and the lower 29 bits are free.
    let base = u64::from(isn) << 29;
    (0..u64::from(u16::MAX))
        .map(|low| previous(base | low))
        // Making the interface draws its first IPv4 identification, and again if that is 0.
        .find(|&drawn| identification(drawn) != 0)
        .map_or(0, previous)
}

fn previous(state: u64) -> u64 {
    state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE)
}

fn output(state: u64) -> u32 {
    (state >> (29 - (state >> 61))) as u32
}

fn identification(state: u64) -> u16 {
    (output(state) ^ output(state) >> 16) as u16
}

/// The inverse of an odd number modulo 2^64 by Newton's iteration; each round doubles the right bits.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_runs_backwards() {
        for state in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let next = state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
            assert_eq!(previous(next), state);
        }
    }

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
