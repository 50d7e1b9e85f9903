//! What the node has let pass: so that it is asked about the length of datagrams once in a while only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::name::SocketId;

/// What every network takes whole, bytes of payload: 1,200 bytes of a datagram of the overlay, less its own
/// header, tag and the longest IP and UDP headers.
pub const ALWAYS_WHOLE: usize = 1200 - 28 - 48;

/// What a packet of any family and protocol has room for, bytes of payload: UDP's over IPv4.
pub const ALWAYS_FITS: usize = 65_535 - 20 - 8;

/// How long an answer is good for. A path that gets narrower meanwhile costs datagrams, as on any network.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Destinations that are remembered.
const MOST: usize = 256;

/// The longest datagrams that sockets may send to their destinations, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct KnownSizes(HashMap<(SocketId, SocketAddr), (usize, Instant)>);

impl KnownSizes {
    pub(crate) fn contains(&self, now: Instant, to: (SocketId, SocketAddr), length: usize) -> bool {
        self.0.get(&to).is_some_and(|(longest, until)| length <= *longest && now < *until)
    }

    pub(crate) fn note(&mut self, now: Instant, to: (SocketId, SocketAddr), length: usize) {
        if self.0.len() >= MOST && !self.0.contains_key(&to) {
            self.0.clear();
        }
        self.0.insert(to, (length, now + GOOD_FOR));
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
        assert!(!sizes.contains(now + GOOD_FOR, to, 1300));
        for id in 2..1000 {
            sizes.note(now, (SocketId(id), to.1), 1300);
        }
        assert!(sizes.0.len() <= MOST);
    }
}
