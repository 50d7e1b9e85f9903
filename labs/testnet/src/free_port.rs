//! A port for a program that must be told one.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports below those that the system gives out by itself (from 32,768 on Linux, 49,152 elsewhere).
const FIRST: u32 = 12_288;
const COUNT: u32 = 16_384;

/// The ports that are next to each other in a process, so that tests at the same time get others.
const PER_PROCESS: u32 = 16;

/// Returns a TCP and UDP port that is free on all of the machine's addresses.
///
/// A port that the system gave out and got back may belong to another test's connection a moment later. The
/// system gives out none of these ports by itself, and tests at the same time get different ones.
///
/// # Panics
/// Panics if none of them is free.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = process::id().wrapping_mul(PER_PROCESS);
    (0..COUNT)
        .map(|_| FIRST + first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .map(|port| u16::try_from(port).expect("the last one is below 65,536"))
        .find(|&port| is_free(port))
        .expect("a port is free")
}

fn is_free(port: u16) -> bool {
    // A socket of IPv6 has both families, where the machine has IPv6.
    let places = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()];
    let free = |place| TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok();
    let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    places.into_iter().take(1 + usize::from(has_ipv6)).all(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_and_none_is_given_twice() {
        let next = free_port() + 1;
        let _taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, next));
        let others = [free_port(), free_port()];
        assert!(!others.contains(&next) && others[0] != others[1], "{next} {others:?}");
    }
}
