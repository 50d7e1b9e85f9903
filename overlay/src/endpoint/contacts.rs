//! Where this node is, and where others are that are met elsewhere than on a local network or at a root.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::Endpoint;
use crate::contact::Contact;
use crate::id::{NetworkId, PublicIdentity};
use crate::link::{Link, NodeKey};

impl Endpoint {
    /// Says where this node can be reached as far as its driver knows: by its interfaces, by ports that
    /// routers forward, by STUN; and what its NAT box does. Replaces what was said before. What roots have
    /// seen is added. Peers that are reached through roots are told at once, at most once a second.
    pub fn set_contact(&mut self, now: Instant, contact: Contact) {
        if self.core.contact.set_given(contact) {
            self.tell_contact(now);
        }
    }

    /// Where this node can be reached, as its peers are told: what [`Self::set_contact`] said and what roots
    /// have seen. The mapping is [`EndpointIndependent`](crate::Mapping::EndpointIndependent) or
    /// [`AddressDependent`](crate::Mapping::AddressDependent) if the driver has not said it and two roots saw
    /// one address or two.
    pub fn contact(&self) -> &Contact {
        self.core.contact.contact()
    }

    /// A member's contact was learned elsewhere, for example by a DHT: makes it known as a peer, if the
    /// network admits it and has room, and sends initiations by the plan of [`HolePunch`](crate::HolePunch),
    /// as it does itself if it has this node's. Both begin at `start`, which is taken as ten seconds from now
    /// at most. If there is a session through a root, challenges are sent instead, and nothing if there is a
    /// direct path.
    ///
    /// Whoever calls this bounds how often others can cause it: a plan sends at most
    /// [`HolePunch::MAX_SHOTS_EACH`](crate::HolePunch::MAX_SHOTS_EACH) datagrams of 198 bytes to one address.
    pub fn meet(
        &mut self,
        now: Instant,
        network: &NetworkId,
        identity: &PublicIdentity,
        contact: &Contact,
        start: Instant,
    ) {
        let joined = self.networks.values().find(|joined| joined.id == *network);
        let Some(index) = joined.map(|joined| joined.index) else { return };
        let first = contact.candidates().first();
        let source = first.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |candidate| candidate.address.ip());
        let Some(key) = self.find_or_add(now, index, identity, source) else { return };
        self.link(now, key, Link::announce);
        self.link(now, key, |link, cx| link.meet(cx, contact, start));
    }

    /// The roots, or what they have seen, may have changed.
    pub(super) fn renew_contact(&mut self, now: Instant) {
        self.core.contact.set_seen_by_tcp(self.seen_by_tcp(now));
        let seen = self.seen_by_roots(now);
        if self.core.contact.set_seen(seen) {
            self.tell_contact(now);
        }
    }

    /// Tells the nodes that are reached through roots where this node is.
    fn tell_contact(&mut self, now: Instant) {
        for node in self.nodes.keys() {
            if self.nodes.get(node).is_some_and(|node| node.reach.is_relayed())
                && let Some(key) = self.carrier(node)
            {
                self.link(now, key, Link::contact_changed);
            }
        }
    }

    /// Does what is due of the search for a direct way to a node.
    pub(super) fn on_punch_timer(&mut self, now: Instant, node: NodeKey) {
        let first = || self.nodes.get(node)?.peers().next();
        if let Some(key) = self.carrier(node).or_else(first) {
            self.link(now, key, Link::step_punching);
        }
    }
}
