//! Admission of clients: which are served, wait or are refused, so that no peer can crowd out others.

use std::collections::{BTreeMap, VecDeque};

use peersock_proxy::serving::Owner;

/// Maximum number of clients served at once.
pub(crate) const MAX_SERVED: usize = 256;

/// Maximum number of clients of one peer served at once.
pub(crate) const MAX_OF_PEER: usize = 64;

/// Limit for clients beyond [`MAX_SERVED`] that are the only ones of their peer. It keeps room for other
/// peers when a few peers use their full share.
const MAX_WITH_FIRST_ONES: usize = 2 * MAX_SERVED;

/// Maximum number of waiting clients of one peer; further ones are refused.
pub(crate) const MAX_WAITING_OF_PEER: usize = 64;

/// Maximum number of waiting clients of all peers together.
pub(crate) const MAX_WAITING: usize = 1024;

/// The clients of all peers; `C` is a client.
pub(crate) struct Admission<C> {
    peers: BTreeMap<Owner, OfPeer<C>>,
    served: usize,
    waiting: usize,
    /// Number of clients that have arrived so far.
    arrived: u64,
}

struct OfPeer<C> {
    served: usize,
    /// Waiting clients with their arrival numbers, in that order.
    waiting: VecDeque<(u64, C)>,
}

/// The fate of an arriving client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<C> {
    /// The client is served, until [`Admission::leave`].
    Served(C),
    /// The client waits; [`Admission::leave`] returns it when its turn comes.
    Waits,
    /// The client is refused, because too many wait already.
    Refused(C),
}

impl<C> Default for Admission<C> {
    fn default() -> Self {
        Admission { peers: BTreeMap::new(), served: 0, waiting: 0, arrived: 0 }
    }
}

impl<C> Admission<C> {
    /// Admits a client if there is room.
    pub(crate) fn arrive(&mut self, peer: Owner, client: C) -> Arrival<C> {
        self.arrived += 1;
        let all = self.served;
        let own = self.peers.entry(peer).or_default();
        if own.may_have_more(all) {
            own.served += 1;
            self.served += 1;
            return Arrival::Served(client);
        }
        if own.waiting.len() >= MAX_WAITING_OF_PEER || self.waiting >= MAX_WAITING {
            self.forget_if_empty(peer);
            return Arrival::Refused(client);
        }
        own.waiting.push_back((self.arrived, client));
        self.waiting += 1;
        Arrival::Waits
    }

    /// Removes a served client and returns the next one, of the peer with the fewest served clients.
    pub(crate) fn leave(&mut self, peer: Owner) -> Option<(Owner, C)> {
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

    fn forget_if_empty(&mut self, peer: Owner) {
        if self.peers.get(&peer).is_some_and(|own| own.served == 0 && own.waiting.is_empty()) {
            self.peers.remove(&peer);
        }
    }
}

impl<C> OfPeer<C> {
    /// Returns true if one more client may be served while `all` clients of all peers are.
    fn may_have_more(&self, all: usize) -> bool {
        let most = if self.served == 0 { MAX_WITH_FIRST_ONES } else { MAX_SERVED };
        self.served < MAX_OF_PEER && all < most
    }
}

impl<C> Default for OfPeer<C> {
    fn default() -> Self {
        OfPeer { served: 0, waiting: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn peer(number: usize) -> Owner {
        Owner::Address(IpAddr::V4((0x0a00_0000 + number as u32).into()))
    }

    #[test]
    fn one_peer_has_its_limit_and_others_get_in() {
        let mut admission = Admission::default();
        let arrivals: Vec<_> = (0..200).map(|number| admission.arrive(peer(0), number)).collect();
        assert!(arrivals[..MAX_OF_PEER].iter().all(|arrival| matches!(arrival, Arrival::Served(_))));
        let waiting = &arrivals[MAX_OF_PEER..MAX_OF_PEER + MAX_WAITING_OF_PEER];
        assert!(waiting.iter().all(|arrival| *arrival == Arrival::Waits));
        let refused = &arrivals[MAX_OF_PEER + MAX_WAITING_OF_PEER..];
        assert!(refused.iter().all(|arrival| matches!(arrival, Arrival::Refused(_))));
        assert_eq!(admission.arrive(peer(1), 500), Arrival::Served(500));
        // A leaving client makes room for clients of the same peer, in the order of arrival.
        assert_eq!(admission.leave(peer(0)), Some((peer(0), MAX_OF_PEER)));
        assert_eq!(admission.leave(peer(1)), None);
    }

    #[test]
    fn peers_that_have_all_they_may_have_leave_room_for_the_others() {
        let mut admission = Admission::default();
        for greedy in 0..MAX_SERVED / MAX_OF_PEER {
            for _ in 0..MAX_OF_PEER + 1 {
                admission.arrive(peer(greedy), greedy);
            }
        }
        for other in 100..100 + MAX_SERVED {
            assert_eq!(admission.arrive(peer(other), other), Arrival::Served(other));
            assert_eq!(admission.arrive(peer(other), other), Arrival::Waits);
        }
        assert_eq!(admission.arrive(peer(1000), 1000), Arrival::Waits, "there is an end");
        let next = admission.leave(peer(100));
        assert_eq!(next, Some((peer(100), 100)), "of those that have none it has waited longest");
        assert_eq!(admission.leave(peer(100)), Some((peer(1000), 1000)));
        for other in 101..100 + MAX_SERVED {
            assert_eq!(admission.leave(peer(other)), Some((peer(other), other)));
        }
        for other in 101..100 + MAX_SERVED {
            assert_eq!(admission.leave(peer(other)), None, "those that wait have all they may have");
        }
        assert_eq!(admission.leave(peer(1000)), None);
        assert_eq!(admission.leave(peer(0)), Some((peer(0), 0)));
    }

    #[test]
    fn nothing_is_kept_of_peers_that_have_gone() {
        let mut admission = Admission::default();
        for number in 0..10 {
            admission.arrive(peer(number), ());
        }
        for number in 0..10 {
            assert_eq!(admission.leave(peer(number)), None);
        }
        assert!(admission.peers.is_empty());
        assert_eq!((admission.served, admission.waiting), (0, 0));
    }
}
