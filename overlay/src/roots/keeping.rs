//! Interval of packets to a root, which keeps the mappings of the NAT boxes on the way alive.
//!
//! RFC 4787 asks boxes for two minutes at least, and most keep a mapping for half a minute. If a box keeps it
//! for less, no node can reach an idle node through its root between the mapping's end and the next packet.
//! The root's answers show that: it then sees the node at another port, though nothing about the node itself
//! has changed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::reach::SocketIndex;

/// Maximum pauses in seconds, from the first to the one for the shortest mapping lifetime.
const MAX_PAUSE_SECONDS: [u64; 3] = [25, 15, 10];

/// Pauses between packets to one root.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Index of the present pause.
    at: usize,
    /// Socket and root address, and the address at which the root saw packets from there.
    seen: Option<((SocketIndex, SocketAddr), SocketAddr)>,
    /// IP address at which the root last saw this node.
    behind: Option<IpAddr>,
}

impl Keeping {
    /// Returns the maximum pause.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_secs(MAX_PAUSE_SECONDS[self.at])
    }

    /// Records that the root sees packets by `way`, a UDP socket and an address of the root, come from
    /// `address`.
    pub(crate) fn note(&mut self, way: (SocketIndex, SocketAddr), address: SocketAddr) {
        if self.behind.replace(address.ip()).is_some_and(|before| before != address.ip()) {
            // This is another box, whose mapping lifetime is unknown.
            self.at = 0;
        }
        let before = self.seen.replace((way, address));
        let Some((_, before)) = before.filter(|(known, _)| *known == way) else { return };
        // The NAT box has dropped the mapping within the pause, so the pause was too long.
        if before.ip() == address.ip() && before.port() != address.port() {
            self.at = (self.at + 1).min(MAX_PAUSE_SECONDS.len() - 1);
        }
    }

    /// Forgets the mapping, because this node's sockets, and so the mappings, have changed.
    pub(crate) fn forget_mapping(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn pauses_grow_shorter_when_a_mapping_was_lost_and_only_then() {
        let mut keeping = Keeping::default();
        let way = (SocketIndex(0), address("198.51.100.1:7420"));
        let seen = |keeping: &mut Keeping, way, text| {
            keeping.note(way, address(text));
            keeping.pause().as_secs()
        };
        assert_eq!(seen(&mut keeping, way, "203.0.113.1:4000"), 25);
        assert_eq!(seen(&mut keeping, way, "203.0.113.1:4000"), 25, "it is still there");
        assert_eq!(seen(&mut keeping, way, "203.0.113.2:4001"), 25, "another box");
        let other = (SocketIndex(0), address("198.51.100.2:7420"));
        assert_eq!(seen(&mut keeping, other, "203.0.113.2:4002"), 25, "another destination");
        assert_eq!(seen(&mut keeping, other, "203.0.113.2:4003"), 15);
        assert_eq!(seen(&mut keeping, other, "203.0.113.2:4003"), 15);
        assert_eq!(seen(&mut keeping, other, "203.0.113.2:4004"), 10);
        assert_eq!(seen(&mut keeping, other, "203.0.113.2:4005"), 10, "no shorter");
        keeping.forget_mapping();
        assert_eq!(seen(&mut keeping, other, "203.0.113.2:4006"), 10, "other sockets behind the same box");
        keeping.forget_mapping();
        assert_eq!(seen(&mut keeping, other, "203.0.113.9:4007"), 25, "another box");
    }
}
