//! Addresses of this node that roots see in the address family not used by its path to them; see
//! [`OtherView`](crate::roots::OtherView).

use std::time::Instant;

use super::Endpoint;
use crate::link::PeerKey;
use crate::reach::{Place, place_of};
use crate::wire::{RootMessage, Voucher};

impl Endpoint {
    /// Asks a root for a voucher of the other family, if due; returns when to check again.
    pub(super) fn step_other_view(&mut self, now: Instant, key: PeerKey) -> Option<Instant> {
        let root = self.roots.get(key)?;
        let next = root.other_view.next()?;
        if now < next {
            return Some(next);
        }
        let way = root.other_view.due(now).and_then(|tries| self.other_way(now, key, tries));
        let Some(place) = way else {
            // There is no such way, or nothing came back from it.
            if self.roots.get_mut(key)?.other_view.forget() {
                self.renew_contact(now);
            }
            return None;
        };
        let root = self.roots.get_mut(key)?;
        root.other_view.asked(place.remote(), now);
        let next = root.other_view.next();
        let mut plaintext = Vec::new();
        RootMessage::Vouch.emit(&mut plaintext);
        self.core.counters.root_vouchers_asked.increment();
        self.link(now, key, |link, cx| link.send_beside_path(cx, &place, &plaintext));
        next
    }

    /// Handles a root's answer, which says nothing about the path to the root.
    pub(super) fn on_vouched(&mut self, now: Instant, key: PeerKey, voucher: Voucher) {
        let own = self.own_id;
        let Some(root) = self.roots.get_mut(key) else { return };
        let identity = root.identity;
        if !root.other_view.answered(voucher, &identity, &own) {
            return self.core.counters.root_answers_refused.increment();
        }
        self.renew_contact(now);
    }

    /// Returns one of the root's addresses in the family not used by the path, each in turn.
    fn other_way(&self, now: Instant, key: PeerKey, turn: u32) -> Option<Place> {
        let root = self.roots.get(key).filter(|root| root.guest.is_none())?;
        // Only beside a way by UDP. By a stream the root sees an address at which no datagram arrives.
        let relay = root.relay.filter(|relay| !relay.socket.makes_place() && !relay.socket.is_stream())?;
        root.registering.standing(now)?;
        self.peers.get(key).filter(|peer| peer.link.current().is_some())?;
        let is_other = |place: &Place| {
            let remote = place.remote();
            remote.is_ipv4() != relay.root.is_ipv4() && !remote.ip().is_loopback()
        };
        let endpoints = root.stream.endpoints.iter();
        let ways = endpoints.filter_map(|remote| place_of(&self.core.sockets, None, *remote));
        let ways: Vec<Place> = ways.filter(is_other).collect();
        let turn = usize::try_from(turn).unwrap_or_default();
        // In turn, because a root may listen at addresses that this node cannot reach.
        ways.get(turn.checked_rem(ways.len())?).copied()
    }
}
