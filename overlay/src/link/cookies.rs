//! Cookies that a peer under load has given us, one for each way to it.
//!
//! A peer binds a cookie to the source address that it sees, and a cookie reply to one message. One round
//! sends several initiations, directly and through roots, and any of them may get a cookie reply.

use std::time::Instant;

use crate::id::NodeId;
use crate::noise::MacWriter;
use crate::reach::{Place, PlaceKey};
use crate::wire::CookieReply;

/// Maximum number of ways whose cookies are kept. Beyond it the least recently used one goes.
const MAX_COOKIES: usize = 8;

/// Maker of the MACs of initiations to one peer.
#[derive(Debug)]
pub(super) struct Cookies {
    /// Writer for initiations to several places at once, none of them behind a root. The peer mostly sees
    /// them from one address of ours.
    shared: MacWriter,
    /// Writers for initiations to one place, the most recently used last.
    alone: Vec<(PlaceKey, MacWriter)>,
}

impl Cookies {
    pub(super) fn new(remote: &NodeId) -> Self {
        Self { shared: MacWriter::new(remote), alone: Vec::new() }
    }

    /// Appends the MACs to an initiation to `targets`.
    pub(super) fn append(
        &mut self,
        now: Instant,
        remote: &NodeId,
        (targets, is_apart): (&[Place], bool),
        message: &mut Vec<u8>,
    ) {
        let key = key(targets, is_apart);
        if let Some(key) = key
            && self.position(key).is_none()
        {
            if self.alone.len() >= MAX_COOKIES {
                // The list is ordered by use, so the first entry is the least recently used.
                self.alone.remove(0);
            }
            self.alone.push((key, MacWriter::new(remote)));
        }
        self.writer(key).append(now, message);
    }

    /// Takes the cookie out of the reply to such an initiation. Returns `false` if the reply does not belong
    /// to the last initiation that went that way.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        (targets, is_apart): (&[Place], bool),
        reply: &CookieReply,
    ) -> bool {
        self.writer(key(targets, is_apart)).receive_cookie(now, reply)
    }

    fn position(&self, key: PlaceKey) -> Option<usize> {
        self.alone.iter().position(|(known, _)| *known == key)
    }

    fn writer(&mut self, key: Option<PlaceKey>) -> &mut MacWriter {
        let Some(at) = key.and_then(|key| self.position(key)) else { return &mut self.shared };
        // Moves the entry to the end, so that the least recently used one is the first.
        self.alone[at..].rotate_left(1);
        let last = self.alone.len() - 1;
        &mut self.alone[last].1
    }
}

/// Returns the key that distinguishes one way of an initiation from others.
fn key(targets: &[Place], is_apart: bool) -> Option<PlaceKey> {
    targets.first().filter(|_| is_apart).map(Place::key)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::id::Identity;
    use crate::noise::CookieJar;
    use crate::reach::SocketIndex;
    use crate::testing::instant;
    use crate::wire::SessionIndex;

    const REMOTE: [u8; 4] = [192, 0, 2, 1];

    fn place(port: u16) -> Place {
        Place::Direct { socket: SocketIndex(0), remote: (REMOTE, port).into() }
    }

    // The peer sees a relayed initiation come from the root, and a direct one from our address.
    #[test]
    fn every_way_has_the_cookie_that_came_for_it() {
        let (now, peer) = (instant(), Identity::from_seed(&[2; 32]).node_id());
        let (jar, mut cookies) = (CookieJar::new(&peer, [8; 32], now), Cookies::new(&peer));
        let ways = [(vec![place(1)], true), (vec![place(2)], true), (vec![place(3), place(4)], false)];
        let seen: Vec<SocketAddr> = (0..3).map(|at| ([198, 51, 100, at], 5000).into()).collect();
        let round = |now, cookies: &mut Cookies| -> Vec<Vec<u8>> {
            let sent = ways.iter().enumerate().map(|(at, (targets, is_apart))| {
                let mut message = vec![at as u8; 150];
                cookies.append(now, &peer, (targets, *is_apart), &mut message);
                message
            });
            sent.collect()
        };
        let first = round(now, &mut cookies);
        // The replies arrive in reverse order.
        for at in (0..3).rev() {
            let (targets, is_apart) = &ways[at];
            let reply = jar
                .reply(now, seen[at], &first[at], SessionIndex::from_bits(1), [6; 24])
                .expect("it has MACs");
            assert!(cookies.receive(now, (targets, *is_apart), &reply), "{at}");
            assert!(!cookies.receive(now, (targets, *is_apart), &reply), "one reply for each message");
        }
        let later = now + Duration::from_secs(1);
        for (at, message) in round(later, &mut cookies).iter().enumerate() {
            assert!(jar.check_mac2(later, seen[at], message), "{at}");
        }
    }

    #[test]
    fn few_ways_are_kept() {
        let (now, peer) = (instant(), Identity::from_seed(&[2; 32]).node_id());
        let mut cookies = Cookies::new(&peer);
        for port in 0..100 {
            cookies.append(now, &peer, (&[place(1)], true), &mut vec![1; 150]);
            cookies.append(now, &peer, (&[place(port)], true), &mut vec![1; 150]);
        }
        assert_eq!(cookies.alone.len(), MAX_COOKIES);
        assert!(cookies.position(place(1).key()).is_some(), "the one that is used most");
    }
}
