//! Cache of datagram lengths that the node has accepted, so that the library seldom asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::name::SocketId;

/// Payload that every network carries whole, bytes: an overlay datagram of 1,200 bytes, less its header and
/// tag, and the longest IP and UDP headers.
pub const ALWAYS_WHOLE: usize = 1200 - 28 - 48;

/// Payload that fits a packet of any family and protocol, bytes: that of UDP over IPv4.
pub const ALWAYS_FITS: usize = 65_535 - 20 - 8;

/// Lifetime of an answer. A path that gets narrower meanwhile costs datagrams, as on any network.
const ANSWER_LIFETIME: Duration = Duration::from_secs(1);
/// Maximum number of destinations remembered.
const MAX_DESTINATIONS: usize = 256;

/// The longest datagrams that sockets are known to send to their destinations.
#[derive(Debug, Default)]
pub(crate) struct KnownSizes(HashMap<(SocketId, SocketAddr), (usize, Instant)>);

impl KnownSizes {
    pub(crate) fn contains(&self, now: Instant, to: (SocketId, SocketAddr), length: usize) -> bool {
        self.0.get(&to).is_some_and(|(longest, until)| length <= *longest && now < *until)
    }

    pub(crate) fn note(&mut self, now: Instant, to: (SocketId, SocketAddr), length: usize) {
        if self.0.len() >= MAX_DESTINATIONS && !self.0.contains_key(&to) {
            self.0.clear();
        }
        self.0.insert(to, (length, now + ANSWER_LIFETIME));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_passed_passes_for_a_while_and_nothing_longer_does() {
        let now = Instant::now();
        let mut sizes = KnownSizes::default();
        let to = (SocketId(1), SocketAddr::from(([10, 0, 0, 1], 53)));
        sizes.note(now, to, 1300);
        assert!(sizes.contains(now, to, 1300) && !sizes.contains(now, to, 1301));
        assert!(!sizes.contains(now, (SocketId(2), to.1), 1300));
        assert!(!sizes.contains(now + ANSWER_LIFETIME, to, 1300));
        for id in 2..1000 {
            sizes.note(now, (SocketId(id), to.1), 1300);
        }
        assert!(sizes.0.len() <= MAX_DESTINATIONS);
    }
}
