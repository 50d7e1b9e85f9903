//! Guests: roots used for a while because a peer is registered there and at no root this node was given. One
//! of the latter has referred this node to them.
//!
//! A guest is asked for that peer, relays to it, and is left when no longer needed. It learns neither which
//! other nodes this node looks for, nor the access token of the roots this node was given.
//! # Third parties
//!
//! Anyone with two keys can sign that a node is at a root, and that this root listens at any address. So a
//! root's referral causes only a few initiations to such an address until an answer comes, and then TCP
//! connection attempts for a while. Each of this node's own roots has a share of the guests and of such
//! addresses, so that none takes them from the others.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::contact::{Candidate, CandidateKind};
use crate::link::{PeerKey, Timer};
use crate::reach::place_of;
use crate::roots::{Guest, RETRY_INTERVAL, Root};
use crate::wire::{Initiation, LookUpKey, Referral, RootRecord, StreamWay};

/// Maximum number of guests while this node's own roots do not change; and maximum named by one of them.
const MAX_GUESTS: usize = 16;
const MAX_GUESTS_OF_PEER: usize = 8;
/// Minimum number that each root may name, however many roots there are.
const MIN_OF_ONE: usize = 2;
/// Maximum number of guests after changes of this node's own roots.
const MAX_GUESTS_IN_TRANSITION: usize = 2 * MAX_GUESTS;
/// Maximum number of addresses of a guest that are tried.
const MAX_ADDRESSES: usize = 4;
/// Maximum number of ways by streams that are tried.
const MAX_WAYS: usize = 4;
/// Delay of streams after UDP addresses.
const STREAM_DELAY: Duration = Duration::from_secs(1);
/// Time for which streams are tried, unless the root answers.
const STREAM_TRIED: Duration = Duration::from_secs(10);
/// First port that may be tried, apart from the web's: lower ports belong to unrelated services.
const FIRST_PORT: u16 = 1024;
const WEB_PORTS: [u16; 2] = [80, 443];
/// Number of bytes sent to an address before something has come from there.
const GRANTED: usize = 4 * Initiation::MIN;
/// Maximum number of nodes that a guest is asked for; others wait until it is left.
const MAX_NODES: usize = 256;
/// Time without a peer reached through it after which a guest is left.
const UNUSED_GUEST_TIMEOUT: Duration = Duration::from_secs(120);

impl Endpoint {
    /// Handles a referral: a root says that a wanted node is registered at another root. Believes it if the
    /// node has signed its registration there and the other root has signed its addresses. The other root
    /// then shows whether it is true.
    pub(super) fn on_referred(
        &mut self,
        now: Instant,
        key: PeerKey,
        wanted: &LookUpKey,
        pass: &[u8; 32],
        referral: &Referral,
    ) {
        let (node, root) = (referral.identity.node_id(), referral.root.identity.node_id());
        // Both the node and its root have signed, so the root that refers cannot invent either of them.
        if !wanted.matches(&node) || [node, root].contains(&self.own_id) || !referral.verify() {
            tracing::debug!("a root's referral is not the node's and the other root's own word");
            return self.core.counters.root_answers_refused.increment();
        }
        self.core.counters.root_referrals.increment();
        // The referring root has said what it knows.
        self.roots.look_ups.found(key, wanted, now);
        // A guest refers in the name of the root that named it, or a chain of guests would multiply the
        // share.
        let Some(own) = self.named_by(key) else { return };
        let known = self.roots.list.iter().find(|(_, root)| root.identity == referral.root.identity);
        let guest = match known {
            // An own root is already asked for every node.
            Some((_, own)) if own.guest.is_none() => return,
            Some((guest, _)) => Some(*guest),
            None => self.take_place(now, own, referral, pass, key),
        };
        let Some(guest) = guest else { return self.core.counters.root_referrals_ignored.increment() };
        self.grant_again(now, guest, own, &referral.root, key);
        let Some(root) = self.roots.get_mut(guest) else { return };
        root.take_pass(own, *pass);
        let is_registered = root.registering.standing(now).is_some();
        let Some(state) = &mut root.guest else { return };
        state.used = now;
        // Bounded, because the referring root chooses the nodes.
        let is_new = state.nodes.len() < MAX_NODES && state.nodes.insert(node);
        self.step_root(now, guest);
        if is_new && is_registered {
            self.ask_root(now, guest);
        }
    }

    /// Returns the own root that is responsible for what this root says.
    fn named_by(&self, key: PeerKey) -> Option<PeerKey> {
        match &self.roots.get(key)?.guest {
            None => Some(key),
            Some(guest) => guest.named_by.first().map(|(own, _)| *own),
        }
    }

    /// Begins to use a root named by `said_by`, if `own` has a place left and some of its addresses may be
    /// tried.
    fn take_place(
        &mut self,
        now: Instant,
        own: PeerKey,
        referral: &Referral,
        pass: &[u8; 32],
        said_by: PeerKey,
    ) -> Option<PeerKey> {
        let guests = || self.roots.list.iter().filter_map(|(_, root)| root.guest.as_ref());
        let of_one =
            guests().filter(|guest| guest.named_by.first().is_some_and(|(by, _)| *by == own)).count();
        let all = guests().count();
        // A share for each root, so that one root's referrals cannot take the places of the others'.
        let share = (MAX_GUESTS / (self.roots.list.len() - all).max(1)).clamp(MIN_OF_ONE, MAX_GUESTS_OF_PEER);
        if of_one >= share || all >= MAX_GUESTS_IN_TRANSITION {
            return None;
        }
        let granted = self.granted(now, own, &referral.root, said_by);
        if granted.is_empty() {
            return None;
        }
        tracing::info!(root = %referral.root.identity.node_id(), "uses a root that another one has named");
        let guest = self.add_root(now, referral.root.identity);
        let root = self.roots.get_mut(guest)?;
        root.access = pass.to_vec();
        root.guest = Some(Guest {
            nodes: BTreeSet::new(),
            used: now,
            named_by: vec![(own, *pass)],
            shown: 0,
            refused: 0,
            granted: now,
        });
        self.publish_roots();
        self.grant(now, guest, &granted);
        Some(guest)
    }

    /// Tries the addresses that were granted to a guest.
    fn grant(&mut self, now: Instant, guest: PeerKey, granted: &Granted) {
        let (Some(peer), Some(root)) = (self.peers.get(guest), self.roots.get_mut(guest)) else { return };
        self.nodes[peer.link.node].reach.add_named(&granted.addresses, GRANTED);
        if !granted.ways.is_empty() {
            let after = if granted.addresses.is_empty() { Duration::ZERO } else { STREAM_DELAY };
            root.stream.try_named(granted.ways.clone(), after, now + after + STREAM_TRIED);
        }
    }

    /// Tries a guest's addresses once more if they have not answered for a while.
    fn grant_again(
        &mut self,
        now: Instant,
        guest: PeerKey,
        own: PeerKey,
        record: &RootRecord,
        said_by: PeerKey,
    ) {
        let (Some(peer), Some(root)) = (self.peers.get(guest), self.roots.get(guest)) else { return };
        // A guest reached by UDP before may be reachable only by a stream now.
        let is_lost = root.stream.is_silent() && !root.stream.is_wanted;
        let is_reached = peer.link.current().is_some() && !is_lost;
        let is_due = root.guest.as_ref().is_some_and(|state| now >= state.granted + RETRY_INTERVAL);
        if is_reached || !is_due {
            return;
        }
        let granted = self.granted(now, own, record, said_by);
        self.grant(now, guest, &granted);
        if let Some(state) = self.roots.get_mut(guest).and_then(|root| root.guest.as_mut()) {
            state.granted = now;
        }
        let places =
            granted.addresses.iter().filter_map(|remote| place_of(&self.core.sockets, None, *remote));
        for place in places.collect::<Vec<_>>() {
            self.link(now, guest, |link, cx| link.try_at(cx, &place));
        }
    }

    /// Returns the addresses and streams of a record that may be tried now. Private addresses count only from
    /// a root that is itself at such an address, and loopback addresses only from a root on this machine.
    fn granted(&mut self, now: Instant, own: PeerKey, record: &RootRecord, said_by: PeerKey) -> Granted {
        let path = self.peers.get(said_by).and_then(|peer| peer.link.handle.path());
        let here = path.filter(|path| !path.socket().is_stream()).map(|path| path.remote());
        let nearest = here.map_or(Scope::Global, Scope::of);
        let Some(root) = self.roots.get_mut(own) else { return Granted::default() };
        // Otherwise a referral could aim this node at hosts inside its own network that the root cannot
        // reach.
        let is_good = |address: &SocketAddr| candidate(*address).is_valid() && Scope::of(*address) >= nearest;
        let sockets = &self.core.sockets;
        let is_in_reach = |address: &SocketAddr| place_of(sockets, None, *address).is_some();
        let good = record.addresses().into_iter().filter(|address| is_good(address) && is_in_reach(address));
        let addresses: Vec<_> = good.take(MAX_ADDRESSES).take_while(|_| root.named.take(now)).collect();
        // Each host costs budget only once.
        let mut hosts: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        // A lying root must not make this node talk to mail or login servers in its own name.
        let is_allowed_port = |port: u16| port >= FIRST_PORT || WEB_PORTS.contains(&port);
        let good = record.streams().into_iter();
        let good = good.filter(|way| is_good(&way.address) && is_allowed_port(way.address.port()));
        let ways = good.take(MAX_WAYS).take_while(|way| {
            let host = way.address.ip();
            let is_paid = hosts.contains(&host) || root.named.take(now);
            hosts.push(host);
            is_paid
        });
        Granted { ways: ways.collect(), addresses }
    }

    /// Leaves a guest through which no peer was reached for a while. Returns true if it was left.
    pub(super) fn leave_idle_guest(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(root) = self.roots.get(key) else { return false };
        let Some(guest) = &root.guest else { return false };
        let is_reached = |relay: &crate::reach::Relay| {
            let mut peers = guest.nodes.iter().flat_map(|node| self.nodes.peers_of(node));
            peers.any(|peer| {
                let link = self.peers.get(peer).map(|peer| &peer.link);
                link.is_some_and(|link| {
                    link.current().is_some() && self.nodes[link.node].reach.is_behind(&relay.root)
                })
            })
        };
        let is_used = root.relay.as_ref().is_some_and(is_reached);
        let is_over = root.registering.is_refused() || (!is_used && now >= guest.used + UNUSED_GUEST_TIMEOUT);
        if is_over {
            self.leave_root(now, key);
            self.publish_roots();
        } else if is_used && let Some(guest) = self.roots.get_mut(key).and_then(|root| root.guest.as_mut()) {
            guest.used = now;
        }
        is_over
    }

    /// Says goodbye to a root and forgets it.
    pub(super) fn leave_root(&mut self, now: Instant, key: PeerKey) {
        let Some(at) = self.roots.list.iter().position(|(known, _)| *known == key) else { return };
        let (_, root) = self.roots.list.remove(at);
        // Guests that other roots have named too stay, with the passes of those roots.
        self.roots.list.iter_mut().for_each(|(_, root)| root.forget_pass(key));
        self.link(now, key, |link, cx| link.say_goodbye(cx));
        self.remove_peer(now, key);
        self.roots.look_ups.forget_root(key);
        self.roots.claims.forget_root(key);
        self.roots.questions.forget_root(key);
        self.core.timers.clear(Timer::Root(key));
        self.core.sockets.retain(|known| known.index != root.stream.socket);
        self.roots.streams_changed |= root.stream.is_wanted;
        if let Some(relay) = root.relay {
            self.forget_relayed(now, relay.root, None);
        }
    }
}

impl Root {
    /// Records the pass that one of this node's own roots has given for this guest.
    fn take_pass(&mut self, own: PeerKey, pass: [u8; 32]) {
        let Some(guest) = &mut self.guest else { return };
        let at = match guest.named_by.iter().position(|(by, _)| *by == own) {
            Some(at) => at,
            None => {
                guest.named_by.push((own, pass));
                guest.named_by.len() - 1
            }
        };
        guest.named_by[at].1 = pass;
        // Only the pass in use is replaced, because one root's word must not replace another's.
        if at == guest.shown {
            self.access = pass.to_vec();
        }
    }

    /// Forgets the pass from an own root that is no longer used.
    fn forget_pass(&mut self, own: PeerKey) {
        let Some(guest) = &mut self.guest else { return };
        let Some(at) = guest.named_by.iter().position(|(by, _)| *by == own) else { return };
        guest.named_by.remove(at);
        guest.shown = 0;
        if let Some((_, pass)) = guest.named_by.first() {
            self.access = pass.to_vec();
        }
    }

    /// Shows the next pass after this guest has refused one. Returns false once every pass was refused since
    /// the last good one.
    pub(super) fn show_next_pass(&mut self, now: Instant) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        guest.refused += 1;
        if guest.refused >= guest.named_by.len() {
            return false;
        }
        guest.shown = (guest.shown + 1) % guest.named_by.len();
        self.access = guest.named_by[guest.shown].1.to_vec();
        self.registering.ask_again(now);
        true
    }
}

/// Addresses of a root named by another that may be tried.
#[derive(Debug, Default)]
struct Granted {
    /// Addresses by UDP.
    addresses: Vec<SocketAddr>,
    ways: Vec<StreamWay>,
}

impl Granted {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ways.is_empty()
    }
}

/// Range from which an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Machine,
    Private,
    Global,
}

impl Scope {
    fn of(address: SocketAddr) -> Self {
        match candidate(address) {
            one if one.address.ip().is_loopback() => Self::Machine,
            one if one.is_global() => Self::Global,
            _ => Self::Private,
        }
    }
}

/// Returns the address in the form in which others would learn it.
fn candidate(address: SocketAddr) -> Candidate {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    Candidate { kind: CandidateKind::Interface, address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_known_in_every_form() {
        for (text, scope) in [
            ("127.0.0.1:1", Scope::Machine),
            ("[::1]:1", Scope::Machine),
            ("[::ffff:127.1.2.3]:1", Scope::Machine),
            ("10.0.0.1:1", Scope::Private),
            ("[::ffff:192.168.0.1]:1", Scope::Private),
            ("100.64.0.1:1", Scope::Private),
            ("[fd00::1]:1", Scope::Private),
            ("[fec0::1]:1", Scope::Private),
            ("[64:ff9b::10.0.0.1]:1", Scope::Private),
            ("[64:ff9b::127.0.0.1]:1", Scope::Private),
            ("[2002:c0a8:101::1]:1", Scope::Private),
            ("[64:ff9b::203.0.113.1]:1", Scope::Global),
            ("203.0.113.1:1", Scope::Global),
            ("[2001:db8::1]:1", Scope::Global),
        ] {
            assert_eq!(Scope::of(text.parse().unwrap()), scope, "{text}");
        }
    }
}
