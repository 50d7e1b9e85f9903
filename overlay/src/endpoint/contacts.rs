//! Addresses of this node, and nodes met elsewhere than on a local network or at a root.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::Endpoint;
use crate::contact::Contact;
use crate::id::{NetworkId, PublicIdentity};
use crate::link::{Link, NodeKey};

impl Endpoint {
    /// Sets where this node can be reached as far as its driver knows: interfaces, ports that routers
    /// forward, STUN, and the behaviour of its NAT box. Replaces the previous contact. The endpoint adds what
    /// roots have seen. Peers reached through roots learn the change at once, at most once a second.
    pub fn set_contact(&mut self, now: Instant, contact: Contact) {
        if self.core.contact.set_given(contact) {
            self.tell_contact(now);
        }
    }

    /// Returns where this node can be reached, as its peers learn it: the contact of [`Self::set_contact`]
    /// plus what roots have seen. If the driver has not given the mapping, it is
    /// [`EndpointIndependent`](crate::Mapping::EndpointIndependent) or
    /// [`AddressDependent`](crate::Mapping::AddressDependent) when two roots saw one address or two.
    pub fn contact(&self) -> &Contact {
        self.core.contact.contact()
    }

    /// Handles a member's contact from elsewhere, for example from a DHT. Adds the member as a peer, if the
    /// network admits it and has room, and sends initiations by the plan of [`HolePunch`](crate::HolePunch).
    /// The member does the same if it has this node's contact. Both begin at `start`, at most ten seconds
    /// from now. With a session through a root, challenges are sent instead; with a direct path, nothing is
    /// sent.
    ///
    /// The caller bounds how often others can cause this: a plan sends at most
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
        // An attacker that writes many contacts into the DHT from one prefix gets only that prefix's share of
        // the table.
        let source = first.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |candidate| candidate.address.ip());
        let Some(key) = self.find_or_add(now, index, identity, source) else { return };
        self.link(now, key, Link::announce);
        self.link(now, key, |link, cx| link.meet(cx, contact, start));
    }

    /// Updates the contact after a possible change of the roots or of what they have seen.
    pub(super) fn renew_contact(&mut self, now: Instant) {
        self.core.contact.set_seen_by_tcp(self.seen_by_tcp(now));
        let seen = self.seen_by_roots(now);
        if self.core.contact.set_seen(seen) {
            self.tell_contact(now);
        }
    }

    /// Tells the nodes that are reached through roots this node's addresses.
    fn tell_contact(&mut self, now: Instant) {
        for node in self.nodes.keys() {
            // A node with a direct path needs no other addresses until that path fails.
            if self.nodes.get(node).is_some_and(|node| node.reach.is_relayed())
                && let Some(key) = self.carrier(node)
            {
                self.link(now, key, Link::contact_changed);
            }
        }
    }

    /// Performs the due step of the search for a direct path to a node.
    pub(super) fn on_punch_timer(&mut self, now: Instant, node: NodeKey) {
        let first = || self.nodes.get(node)?.peers().next();
        if let Some(key) = self.carrier(node).or_else(first) {
            self.link(now, key, Link::step_punching);
        }
    }
}
