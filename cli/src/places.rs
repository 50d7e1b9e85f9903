//! Who of many clients is served, who waits, and who is refused: no peer keeps the others out.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use peersock::overlay::NodeId;

/// Clients that are served at once.
pub(crate) const MOST: usize = 256;

/// Clients of one peer that are served at once.
pub(crate) const MOST_OF_PEER: usize = 64;

/// Clients that are served at once if each beyond [`MOST`] is the only one of its peer: a few peers that have
/// all they may have leave room for the others.
const MOST_WITH_ONLY_ONES: usize = 2 * MOST;

/// Clients of one peer that wait for a place; more are refused.
const MOST_WAITING_OF_PEER: usize = 64;

/// The same for all peers together.
const MOST_WAITING: usize = 1024;

/// Whose clients are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Member(NodeId),
    /// A member that the node does not know any more.
    Address(IpAddr),
}

/// The clients of all peers; `C` is one of them.
pub(crate) struct Places<C> {
    peers: BTreeMap<Peer, OfPeer<C>>,
    served: usize,
    waiting: usize,
    /// How many have arrived so far.
    arrived: u64,
}

struct OfPeer<C> {
    served: usize,
    /// With their numbers in the order of arrival.
    waiting: VecDeque<(u64, C)>,
}

/// What becomes of a client that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<C> {
    /// It has a place, until [`Places::leave`].
    Served(C),
    /// [`Places::leave`] returns it when it has a place.
    Waits,
    /// Too many wait already.
    Refused(C),
}

impl<C> Default for Places<C> {
    fn default() -> Self {
        Places { peers: BTreeMap::new(), served: 0, waiting: 0, arrived: 0 }
    }
}

impl<C> Places<C> {
    /// Takes a client in, if there is room.
    pub(crate) fn arrive(&mut self, peer: Peer, client: C) -> Arrival<C> {
        self.arrived += 1;
        let all = self.served;
        let own = self.peers.entry(peer).or_default();
        if own.may_have_more(all) {
            own.served += 1;
            self.served += 1;
            return Arrival::Served(client);
        }
        if own.waiting.len() >= MOST_WAITING_OF_PEER || self.waiting >= MOST_WAITING {
            self.forget_if_empty(peer);
            return Arrival::Refused(client);
        }
        own.waiting.push_back((self.arrived, client));
        self.waiting += 1;
        Arrival::Waits
    }

    /// A client has ended that was served: gives the one that has its place now. It is of the peer with the
    /// fewest.
    pub(crate) fn leave(&mut self, peer: Peer) -> Option<(Peer, C)> {
        if let Some(own) = self.peers.get_mut(&peer) {
            own.served -= 1;
            self.served -= 1;
        }
        self.forget_if_empty(peer);
        let all = self.served;
        let longest = |own: &OfPeer<C>| own.waiting.front().map(|(number, _)| *number);
        let candidates = self.peers.iter_mut().filter(|(_, own)| own.may_have_more(all));
        let candidates = candidates.filter_map(|(peer, own)| Some(((own.served, longest(own)?), *peer, own)));
        let (_, next, own) = candidates.min_by_key(|(order, ..)| *order)?;
        let (_, client) = own.waiting.pop_front()?;
        own.served += 1;
        self.served += 1;
        self.waiting -= 1;
        Some((next, client))
    }

    fn forget_if_empty(&mut self, peer: Peer) {
        if self.peers.get(&peer).is_some_and(|own| own.served == 0 && own.waiting.is_empty()) {
            self.peers.remove(&peer);
        }
    }
}

impl<C> OfPeer<C> {
    /// Whether one more may be served, if so many of all peers are.
    fn may_have_more(&self, all: usize) -> bool {
        let most = if self.served == 0 { MOST_WITH_ONLY_ONES } else { MOST };
        self.served < MOST_OF_PEER && all < most
    }
}

impl<C> Default for OfPeer<C> {
    fn default() -> Self {
        OfPeer { served: 0, waiting: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> Peer {
        Peer::Address(IpAddr::V4((0x0a00_0000 + number as u32).into()))
    }

    #[test]
    fn one_peer_has_its_limit_and_others_get_in() {
        let mut places = Places::default();
        let arrivals: Vec<_> = (0..200).map(|number| places.arrive(peer(0), number)).collect();
        assert!(arrivals[..MOST_OF_PEER].iter().all(|arrival| matches!(arrival, Arrival::Served(_))));
        let waiting = &arrivals[MOST_OF_PEER..MOST_OF_PEER + MOST_WAITING_OF_PEER];
        assert!(waiting.iter().all(|arrival| *arrival == Arrival::Waits));
        let refused = &arrivals[MOST_OF_PEER + MOST_WAITING_OF_PEER..];
        assert!(refused.iter().all(|arrival| matches!(arrival, Arrival::Refused(_))));
        assert_eq!(places.arrive(peer(1), 500), Arrival::Served(500));
        // Who leaves makes room for its own peer's, in the order of arrival.
        assert_eq!(places.leave(peer(0)), Some((peer(0), MOST_OF_PEER)));
        assert_eq!(places.leave(peer(1)), None);
    }

    #[test]
    fn peers_that_have_all_they_may_have_leave_room_for_the_others() {
        let mut places = Places::default();
        for greedy in 0..MOST / MOST_OF_PEER {
            for _ in 0..MOST_OF_PEER + 1 {
                places.arrive(peer(greedy), greedy);
            }
        }
        for other in 100..100 + MOST {
            assert_eq!(places.arrive(peer(other), other), Arrival::Served(other));
            assert_eq!(places.arrive(peer(other), other), Arrival::Waits);
        }
        assert_eq!(places.arrive(peer(1000), 1000), Arrival::Waits, "there is an end");
        let next = places.leave(peer(100));
        assert_eq!(next, Some((peer(100), 100)), "of those that have none it has waited longest");
        assert_eq!(places.leave(peer(100)), Some((peer(1000), 1000)));
        for other in 101..100 + MOST {
            assert_eq!(places.leave(peer(other)), Some((peer(other), other)));
        }
        for other in 101..100 + MOST {
            assert_eq!(places.leave(peer(other)), None, "those that wait have all they may have");
        }
        assert_eq!(places.leave(peer(1000)), None);
        assert_eq!(places.leave(peer(0)), Some((peer(0), 0)));
    }

    #[test]
    fn nothing_is_kept_of_peers_that_have_gone() {
        let mut places = Places::default();
        for number in 0..10 {
            places.arrive(peer(number), ());
        }
        for number in 0..10 {
            assert_eq!(places.leave(peer(number)), None);
        }
        assert!(places.peers.is_empty());
        assert_eq!((places.served, places.waiting), (0, 0));
    }
}
