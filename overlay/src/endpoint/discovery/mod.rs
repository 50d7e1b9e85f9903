//! Discovery of peers on the local networks by beacons and hellos.
//!
//! A **beacon** goes to multicast and broadcast addresses. It has a salt and, for each network of its sender,
//! a hash of the salt that only nodes that know the network can make. A node that recognises one answers with
//! a **hello**, by unicast and sealed for that network, which identifies it. The answer to that identifies
//! the beacon's sender. Then both know each other's keys and address, and can begin a handshake when needed.
//!
//! - The salt of regular beacons stays the same for a while, so that nodes that have met need not answer
//!   again. A restart, a change of the own networks, and a beacon that asks for a node use a new salt.
//! - A hello carries its sender's *instance*, random at each start. If it differs from that of the session,
//!   the peer has been restarted and a handshake begins at once.
//! - A hello makes its sender a peer only if a program here waits for it, or if it repeats a nonce that was
//!   sent to its address. Any other hello is answered without keeping state, and the answer asks for such an
//!   echo.
//! - Source addresses are unproven here. One beacon buys one hello, and one hello buys one hello or one
//!   initiation, never longer than itself. More is possible only after the other side has repeated a nonce
//!   that was sent to its address.

mod beacons;
mod hellos;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use crate::link::PeerKey;
use crate::network::NetworkIndex;

/// Maximum number of remembered beacon sources; the one heard longest ago makes room.
const MAX_BEACON_SOURCES: usize = 1024;

/// State of local discovery: what this node announces, and what it has heard.
#[derive(Debug)]
pub(super) struct Discovery {
    /// Secret that makes the fillers of beacons, and nonces that are recognised when they come back.
    secret: [u8; 32],
    salt: [u8; 16],
    salt_since: Instant,
    /// Salts of our own beacons, because multicast delivers them to us too.
    own_salts: VecDeque<[u8; 16]>,
    /// Next rung of the ladder.
    rung: usize,
    /// First network of the next beacon, if not all fit into one.
    turn: usize,
    solicited: Option<Instant>,
    heard: BTreeMap<SocketAddr, Heard>,
    /// Start of the epochs of nonces.
    start: Instant,
}

/// Knowledge about the sender of a beacon.
#[derive(Debug)]
struct Heard {
    /// Salt of its last beacon; `None` if the next one must be examined in any case.
    salt: Option<[u8; 16]>,
    at: Instant,
    /// Set once the log has reported that its beacons are refused.
    is_refusal_said: bool,
    /// Common networks in which we have not met yet; the first is the next to try.
    unmet: VecDeque<NetworkIndex>,
    /// Peers that it is in the networks in which we have met.
    met: BTreeMap<NetworkIndex, PeerKey>,
}

impl Discovery {
    /// Creates the state. `secret` and `salt` are random and used for nothing else.
    pub(super) fn new(secret: [u8; 32], salt: [u8; 16], now: Instant) -> Self {
        Self {
            secret,
            salt,
            salt_since: now,
            own_salts: VecDeque::from([salt]),
            rung: 0,
            turn: 0,
            solicited: None,
            heard: BTreeMap::new(),
            start: now,
        }
    }

    /// Forgets whose beacons were answered, but not whose refusal was reported: another network does not make
    /// such a report new.
    pub(super) fn forget_heard(&mut self) {
        self.heard.retain(|_, heard| {
            heard.salt = None;
            heard.is_refusal_said
        });
    }

    /// Records that we have met the node behind `remote` in this network. `peer` is `None` for a node with
    /// our own identity. Returns true if its beacon named the network and we had not met there before.
    pub(super) fn acknowledged(
        &mut self,
        remote: &SocketAddr,
        network: NetworkIndex,
        peer: impl Into<Option<PeerKey>>,
    ) -> bool {
        let Some(heard) = self.heard.get_mut(remote) else { return false };
        let before = heard.unmet.len();
        // An answer has come, so the next beacon of this source need not be answered in this network.
        heard.unmet.retain(|unmet| *unmet != network);
        heard.met.extend(peer.into().map(|peer| (network, peer)));
        heard.unmet.len() < before
    }

    /// Forgets a removed peer, so that its next beacon is answered like a newcomer's.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.heard.retain(|_, heard| !heard.met.values().any(|met| *met == peer));
    }

    /// Records a beacon. Returns `None` if the same beacon came from there before and needs no more work.
    fn hear(&mut self, remote: SocketAddr, salt: [u8; 16], now: Instant) -> Option<&mut Heard> {
        if self.heard.len() >= MAX_BEACON_SOURCES && !self.heard.contains_key(&remote) {
            let oldest = self.heard.iter().min_by_key(|(_, heard)| heard.at).map(|(&remote, _)| remote);
            // Sources are forged easily, so the table has a limit.
            oldest.and_then(|remote| self.heard.remove(&remote));
        }
        // An equal salt means an equal beacon, whose tags were compared already.
        let fresh = self.heard.get(&remote).is_none_or(|heard| heard.salt != Some(salt));
        if fresh {
            let before = self.heard.remove(&remote);
            let is_refusal_said = before.as_ref().is_some_and(|heard| heard.is_refusal_said);
            let met = before.map(|heard| heard.met).unwrap_or_default();
            let unmet = VecDeque::new();
            self.heard.insert(remote, Heard { salt: Some(salt), at: now, is_refusal_said, unmet, met });
        }
        let heard = self.heard.get_mut(&remote)?;
        heard.at = now;
        (fresh || !heard.unmet.is_empty()).then_some(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    #[test]
    fn a_network_more_has_all_beacons_looked_at_again_and_no_refusal_said_twice() {
        let (now, salt) = (instant(), [7; 16]);
        let [said, unsaid] = [1, 2].map(|host| SocketAddr::from(([192, 0, 2, host], 4000)));
        let mut discovery = Discovery::new([1; 32], [2; 16], now);
        for remote in [said, unsaid] {
            let heard = discovery.hear(remote, salt, now).expect("it is the first one");
            heard.is_refusal_said = remote == said;
            assert!(discovery.hear(remote, salt, now).is_none());
        }
        discovery.forget_heard();
        for remote in [said, unsaid] {
            let heard = discovery.hear(remote, salt, now).expect("the networks are others");
            assert_eq!(heard.is_refusal_said, remote == said);
        }
    }
}
