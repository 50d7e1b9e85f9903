//! Places where a relay is involved: a root, this node's TURN server, or the peer's.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Reach;
use super::candidates::Candidate;
use super::place::{Place, PlaceKey, Relay};
use crate::wire::Channel;

impl Reach {
    /// Returns true if a root or a TURN server relays on the path.
    pub(crate) fn is_relayed(&self) -> bool {
        self.place().is_some_and(|place| self.relays(&place.key()))
    }

    /// Returns true if there is a path without a relay.
    pub(crate) fn is_direct(&self) -> bool {
        self.place().is_some_and(|place| !self.relays(&place.key()))
    }

    /// Returns true if a root or a TURN server relays there: this node's, or the peer's as far as the peer
    /// has said so.
    pub(crate) fn relays(&self, key: &PlaceKey) -> bool {
        let theirs = self.punching.as_ref().and_then(|punching| punching.theirs());
        key.is_relayed() || theirs.is_some_and(|contact| contact.is_relayed_at(&key.remote))
    }

    /// Adds `place`, where a root says that the node is, with the node's signature. Returns true if that is
    /// new.
    pub(crate) fn add_relayed(&mut self, place: &Place) -> bool {
        let path = self.path.as_ref().map(|used| used.place.key());
        self.candidates.add_relayed(place, path)
    }

    /// Returns true if the node is known to be behind the root at this address.
    pub(crate) fn is_behind(&self, root: &SocketAddr) -> bool {
        let mut keys = self.candidates.iter().map(Candidate::key);
        keys.any(|key| key.is_behind_root() && key.remote == *root)
    }

    /// Returns the node's places behind a root that is reached through `relay`.
    pub(crate) fn places_behind(&self, relay: &Relay) -> Vec<Place> {
        let keys = self.candidates.iter().map(Candidate::key).filter(|key| key.remote == relay.root);
        keys.filter_map(|key| key.channel).map(|channel| relay.place(channel)).collect()
    }

    /// Returns the number of roots at which the node is known to be.
    pub(crate) fn roots(&self) -> usize {
        let keys = self.candidates.iter().map(Candidate::key).filter(|key| key.is_behind_root());
        keys.map(|key| key.remote).collect::<BTreeSet<_>>().len()
    }

    /// Forgets the node's places at `root`, for one channel or all, because the root knows no such node. The
    /// path stays until there is another one.
    pub(crate) fn forget_relayed(&mut self, root: &SocketAddr, channel: Option<Channel>) {
        self.candidates.remove(|key| {
            key.remote == *root && key.channel.is_some_and(|own| channel.is_none_or(|other| own == other))
        });
    }

    /// Updates all places behind the root that was reached at `before`, after its address, socket or token
    /// has changed. Returns true if that changes the path.
    pub(crate) fn move_relay(&mut self, before: SocketAddr, now: &Relay) -> bool {
        self.candidates.move_relay(before, now);
        let mut moved = false;
        for (used, is_path) in [(&mut self.path, true), (&mut self.left, false)] {
            let Some(used) = used else { continue };
            if let Some(header) = used.place.relay().filter(|_| used.place.remote() == before) {
                used.place = now.place(header.channel);
                moved |= is_path;
            }
        }
        moved
    }
}
