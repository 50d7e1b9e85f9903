//! The sessions with roots, and what is said in them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::eviction::Origin;
use super::peers::PeerState;
use crate::bucket::Rate;
use crate::contact::{Seen, Witness};
use crate::counters::Counters;
use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::link::{Event, Link, NodeKey, PeerKey, Reason, Timer};
use crate::network::{NetworkIndex, RootsPolicy, is_endpoint};
use crate::reach::{Place, Relay, SocketIndex, Why};
use crate::roots::{
    ANSWER_TIMEOUT, KEEP_INTERVAL, LookUps, MAX_ROOTS, MAX_UNANSWERED, RETRY_INTERVAL, Relays, Root,
    RootConfig, RootInfo, RootState, Unasked,
};
use crate::session::{Peer, Session};
use crate::wire::{Channel, Entry, LookUpKey, NoticeCode, Registered, RootMessage};

/// All that the endpoint has of its roots, besides their links.
#[derive(Debug)]
pub(super) struct Roots {
    /// In the order in which they were given, and those that others have named.
    pub(super) list: Vec<(PeerKey, Root)>,
    pub(super) look_ups: LookUps,
    relays: Arc<Relays>,
    /// The number of the next root's stream.
    next_stream: u16,
    /// Whether other streams are wanted than the driver knows.
    pub(super) streams_changed: bool,
}

impl Roots {
    pub(super) fn new(counters: Arc<Counters>, now: Instant) -> Self {
        Self {
            list: Vec::new(),
            look_ups: LookUps::new(now),
            relays: Arc::new(Relays::new(counters)),
            next_stream: 0,
            streams_changed: false,
        }
    }

    pub(super) fn get(&self, key: PeerKey) -> Option<&Root> {
        self.list.iter().find(|(known, _)| *known == key).map(|(_, root)| root)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Root> {
        self.list.iter_mut().find(|(known, _)| *known == key).map(|(_, root)| root)
    }

    /// The root that listens at that address, if it relays for this node.
    fn at(&self, address: SocketAddr) -> Option<&Root> {
        let is_there = |root: &Root| root.relay.is_some_and(|relay| relay.root == address);
        self.list.iter().map(|(_, root)| root).find(|root| is_there(root))
    }
}

impl Endpoint {
    /// Says which roots this node uses, in place of those before; at most eight are. Sessions with new ones
    /// are begun at once, and kept; those that are not named any more are told, and forgotten. A node that
    /// shuts down gives none, then drains the endpoint once more.
    pub fn set_roots(&mut self, now: Instant, roots: Vec<RootConfig>) {
        let mut named = BTreeSet::from([self.own_id]);
        let roots = roots.into_iter().filter(|root| named.insert(root.identity.node_id()));
        let roots: Vec<_> = roots.take(MAX_ROOTS).collect();
        // Who uses no roots is no guest of others.
        let is_kept = |root: &Root| {
            roots.iter().any(|one| one.identity == root.identity) || root.guest.is_some() && !roots.is_empty()
        };
        let gone = self.roots.list.iter().filter(|(_, root)| !is_kept(root)).map(|(key, _)| *key);
        for key in gone.collect::<Vec<_>>() {
            self.leave_root(now, key);
        }
        for config in roots {
            let endpoints: Vec<_> = config.endpoints.into_iter().filter(is_endpoint).collect();
            let known = self.roots.list.iter().find(|(_, root)| root.identity == config.identity);
            let key = match known.map(|(key, _)| *key) {
                Some(key) => key,
                None => self.add_root(now, config.identity),
            };
            if let Some(root) = self.roots.get_mut(key) {
                (root.access, root.guest) = (config.access, None);
                (root.stream.after, root.stream.endpoints) = (config.stream_after, endpoints);
            }
            self.publish_roots();
            self.configure_root(now, key);
            self.step_root(now, key);
        }
        self.publish_roots();
        self.renew_contact(now);
    }

    /// Makes known which roots there are.
    pub(super) fn publish_roots(&mut self) {
        let nodes = self.roots.list.iter().map(|(_, root)| root.identity.node_id()).collect();
        self.networks.set_roots(RootsPolicy { nodes });
        self.core.has_roots = !self.roots.list.is_empty();
        self.publish_clocks();
        self.publish_relays();
    }

    /// Makes known whose word counts about where other nodes are, and what time it is there.
    fn publish_clocks(&mut self) {
        let witness = |(_, root): &(PeerKey, Root)| Witness {
            root: root.identity,
            clock: root.clock,
            is_guest: root.guest.is_some(),
        };
        self.core.witnesses = self.roots.list.iter().map(witness).collect();
    }

    /// The roots, in the order in which they were given, and behind them those that others have named.
    pub fn roots(&self, now: Instant) -> Vec<RootInfo> {
        let info = |(key, root): &(PeerKey, Root)| {
            let link = &self.peers.get(*key)?.link;
            let reach = &self.nodes[link.node].reach;
            let connected = link.current().is_some();
            let path = link.handle.path().filter(|_| connected);
            let standing = root.registering.standing(now);
            let state = match standing {
                _ if root.registering.is_refused() => RootState::Refused,
                _ if root.is_unreachable => RootState::Unreachable,
                Some(answer) if connected && answer.drains => RootState::Draining,
                Some(_) if connected && root.registering.is_confirmed(now) => RootState::Registered,
                _ if connected => RootState::Connected,
                _ => RootState::Connecting,
            };
            let behind = |link: &Link| {
                let place = link.handle.path().map(|path| path.place);
                let is_behind = |place: &Place| {
                    place.relay().is_some() && Some(place.remote()) == root.relay.map(|relay| relay.root)
                };
                link.current().is_some() && place.as_ref().is_some_and(is_behind)
            };
            Some(RootInfo {
                node: *link.handle.id(),
                identity: root.identity,
                is_guest: root.guest.is_some(),
                endpoints: reach.remotes().filter(is_endpoint).collect(),
                state,
                address: path.map(|path| path.remote()).filter(is_endpoint),
                stream: path.map(|path| path.socket()).filter(|socket| socket.is_stream()),
                rtt: reach.rtt(),
                observed: standing
                    .filter(|_| connected)
                    .map(|answer| answer.voucher.address)
                    .filter(is_endpoint),
                channel: standing.map(|answer| answer.channel),
                registered: root.registering.since(now).filter(|_| connected && !root.is_unreachable),
                relays: standing.is_some_and(|answer| answer.relays),
                rate: standing.map_or(0, |answer| answer.rate),
                relayed_peers: self.peers.iter().filter(|(_, peer)| behind(&peer.link)).count(),
            })
        };
        self.roots.list.iter().filter_map(info).collect()
    }

    /// The roots that relay for this node, for the data path. A driver keeps this and takes relayed frames
    /// apart with a [`RelayReader`](crate::RelayReader).
    pub fn relays(&self) -> &Arc<Relays> {
        &self.roots.relays
    }

    /// Where the roots at which this node is registered see it.
    pub(super) fn seen_by_roots(&self, now: Instant) -> Vec<Seen> {
        let seen = |(_, root): &(PeerKey, Root)| {
            let (answer, relay) = (root.registering.standing(now)?, root.relay?);
            let is_guest = root.guest.is_some();
            Some(Seen { root: root.identity, at: relay.root, voucher: answer.voucher, is_guest })
        };
        self.roots.list.iter().filter_map(seen).collect()
    }

    /// The root that listens at an address and relays for this node.
    pub(super) fn root_at(&self, address: SocketAddr) -> Option<NodeId> {
        self.roots.at(address).map(|root| root.identity.node_id())
    }

    fn add_root_peer(&mut self, now: Instant, identity: &PublicIdentity) -> PeerKey {
        let watched = self.core.watched.clone();
        let handle = Peer::new(*identity, NetworkIndex::ROOTS, NetworkId::ROOTS, &[], watched, now);
        let (id, node) = (*handle.id(), self.nodes.find_or_add(&identity.node_id()));
        handle.set_path(self.nodes[node].reach.path());
        let link = Link::new(Arc::new(handle), node, now);
        let key = self.peers.insert(PeerState::new(link, true, Origin::default()));
        self.nodes[node].peers.push(key);
        if let Some(network) = self.networks.get_mut(&NetworkIndex::ROOTS) {
            network.by_node.insert(id, key);
        }
        key
    }

    /// Begins with a root that is not known yet.
    pub(super) fn add_root(&mut self, now: Instant, identity: PublicIdentity) -> PeerKey {
        let key = self.add_root_peer(now, &identity);
        let mut stream = SocketIndex::stream(self.roots.next_stream);
        // Numbers come again after many roots.
        while self.roots.list.iter().any(|(_, root)| root.stream.socket == stream) {
            self.roots.next_stream = self.roots.next_stream.wrapping_add(1);
            stream = SocketIndex::stream(self.roots.next_stream);
        }
        self.roots.next_stream = self.roots.next_stream.wrapping_add(1);
        self.roots.list.push((key, Root::new(identity, stream, now)));
        key
    }

    /// Something has changed about the link to a root.
    pub(super) fn on_root_event(&mut self, now: Instant, event: &Event) {
        let Some(key) = self.key_of(event.peer()) else { return };
        let Some(root) = self.roots.get_mut(key) else { return };
        match event {
            Event::PeerUnreachable(_) => {
                root.is_unreachable = true;
                root.registering.interrupted();
            }
            Event::SessionReady(_) | Event::PathConfirmed(_) => {
                // It may have forgotten this node meanwhile.
                if std::mem::take(&mut root.is_unreachable) {
                    root.registering.renew_soon(now);
                }
            }
            Event::SessionLost(_) => root.registering.interrupted(),
            Event::PathChanged(_) => {}
            _ => return,
        }
        // The root follows to where something else than a probe comes from.
        if matches!(event, Event::PathChanged(_)) && root.stream.is_open {
            root.registering.renew_soon(now);
        }
        self.update_relay(now, key);
        // Not from here: this may be in the middle of a step of that link.
        self.core.timers.set(Timer::Root(key), now);
    }

    /// Sees to it that there is a session with a root, that this node is registered, and that the root is
    /// heard from now and then.
    pub(super) fn step_root(&mut self, now: Instant, key: PeerKey) {
        if self.leave_idle_guest(now, key) {
            return;
        }
        if self.roots.get(key).is_some_and(|root| root.move_at.is_some_and(|at| now >= at)) {
            self.update_relay(now, key);
        }
        let Some(session) = self.step_root_session(now, key) else { return };
        let stream = self.step_stream(now, key);
        let moves = self.roots.get(key).and_then(|root| root.move_at);
        let due = [stream, moves].into_iter().flatten().fold(session, Instant::min);
        self.core.timers.set(Timer::Root(key), due.max(now + SHORTEST));
    }

    /// Returns when to look again.
    fn step_root_session(&mut self, now: Instant, key: PeerKey) -> Option<Instant> {
        let peer = self.peers.get(key)?;
        let handle = Arc::clone(&peer.link.handle);
        let Some(session) = handle.sender().map(|sender| sender.session) else {
            if !peer.link.is_connecting() {
                let tried = self.roots.get(key).is_some_and(|root| root.is_unreachable);
                let reason = if tried { Reason::Hint } else { Reason::Traffic };
                self.link(now, key, |link, cx| link.attempt(cx, reason));
            }
            return Some(now + RETRY_INTERVAL);
        };
        self.register_if_due(now, key, &session);
        let activity = handle.activity();
        let (sent, heard) = (activity.last_sent(), activity.last_received());
        let root = self.roots.get_mut(key)?;
        root.asked.take_if(|(since, _)| heard.is_some_and(|heard| heard >= *since));
        let due = match root.asked {
            Some((since, times)) => since + ANSWER_TIMEOUT * times,
            None => sent.map_or(now, |sent| sent + KEEP_INTERVAL),
        };
        let due = if now < due {
            due
        } else {
            let (since, times) = root.asked.unwrap_or((now, 0));
            root.asked = Some((since, times + 1));
            if times >= MAX_UNANSWERED {
                root.asked = None;
                root.registering.interrupted();
                self.link(now, key, |link, cx| link.attempt(cx, Reason::Traffic));
                now + RETRY_INTERVAL
            } else {
                // A NAT box may show this node elsewhere than before: then the root is to follow.
                self.link(now, key, |link, cx| link.ask_path(cx, Why::Announce));
                now + ANSWER_TIMEOUT
            }
        };
        let register = self.roots.get(key).and_then(|root| root.registering.next());
        Some(register.map_or(due, |at| due.min(at)))
    }

    fn register_if_due(&mut self, now: Instant, key: PeerKey, session: &Session) {
        let unix_time = self.core.clock.unix_time(now);
        let identity = Arc::clone(&self.core.identity);
        let Some(root) = self.roots.get_mut(key) else { return };
        if !root.registering.is_due(session.index(), now) {
            return;
        }
        let (id, access) = (root.identity.node_id(), root.access.clone());
        let message = root.registering.ask(&identity, &id, &access, session.index(), unix_time, now);
        // It has an answer. Repeated without one it must not look as if all was well.
        root.asked.get_or_insert((now, 1));
        self.core.counters.root_registrations_sent.increment();
        self.tell_root(now, key, &message);
    }

    fn tell_root(&mut self, now: Instant, key: PeerKey, message: &RootMessage) {
        let mut plaintext = Vec::new();
        message.emit(&mut plaintext);
        self.link(now, key, |link, cx| link.send_message(cx, &plaintext));
    }

    /// This node's own addresses have changed, and with them what the roots see.
    pub(super) fn renew_registrations(&mut self, now: Instant) {
        for (key, root) in &mut self.roots.list {
            root.registering.renew_soon(now + ADDRESS_SETTLES);
            self.core.timers.set_earlier(Timer::Root(*key), now + ADDRESS_SETTLES);
        }
    }

    /// A root says something in its session.
    pub(super) fn on_root_message(&mut self, now: Instant, key: PeerKey, plaintext: &[u8]) {
        let Ok(message) = RootMessage::parse(plaintext) else {
            return self.core.counters.control_unknown.increment();
        };
        match message {
            RootMessage::Registered(answer) => self.on_registered(now, key, answer),
            RootMessage::Found { id, result } => match self.roots.look_ups.take_open(key, id) {
                Some(wanted) => result.into_iter().for_each(|entry| self.on_found(now, key, &wanted, &entry)),
                None => self.core.counters.root_answers_refused.increment(),
            },
            RootMessage::Referred { id, pass, referral } => match self.roots.look_ups.take_open(key, id) {
                Some(wanted) => self.on_referred(now, key, &wanted, &pass, &referral),
                None => self.core.counters.root_answers_refused.increment(),
            },
            RootMessage::Notice { code, channel } => self.on_notice(now, key, code, channel),
            // Only roots get these.
            _ => self.core.counters.control_unknown.increment(),
        }
    }

    fn on_registered(&mut self, now: Instant, key: PeerKey, answer: Registered) {
        let own = self.own_id;
        let Some(root) = self.roots.get_mut(key) else { return };
        let identity = root.identity;
        let was_registered = root.registering.standing(now).is_some();
        let time = answer.voucher.time;
        if !root.registering.answered(answer, &identity, &own, now) {
            return self.core.counters.root_answers_refused.increment();
        }
        if !was_registered {
            tracing::info!(root = %identity.node_id(), "registered at a root");
        }
        root.clock = Some((time, now));
        if let Some(guest) = &mut root.guest {
            guest.refused = 0;
        }
        self.publish_clocks();
        self.update_relay(now, key);
        self.renew_contact(now);
        self.core.timers.set(Timer::Root(key), now);
        if !was_registered {
            self.ask_root(now, key);
        }
    }

    /// Asks a root for all that is looked for.
    pub(super) fn ask_root(&mut self, now: Instant, key: PeerKey) {
        let Roots { list, look_ups, .. } = &mut self.roots;
        let questions = look_ups.ask_at(key, now, |wanted| may_ask(list, key, wanted));
        self.ask_roots(now, questions);
    }

    fn on_notice(&mut self, now: Instant, key: PeerKey, code: NoticeCode, channel: Channel) {
        let Some(root) = self.roots.get_mut(key) else { return };
        tracing::debug!(root = %root.identity.node_id(), code = code as u8, %channel, "a root says");
        match code {
            NoticeCode::NotRegistered => root.registering.lost(now),
            NoticeCode::Refused if root.show_next_pass(now) => {}
            NoticeCode::Refused => root.registering.refused(now),
            NoticeCode::Drains => root.registering.drains(),
            NoticeCode::OverRate => self.core.counters.root_over_rate.increment(),
            NoticeCode::NoChannel => {
                // Each looks at all nodes. One that is dropped comes again with the next frame.
                if !root.notices.take_of(Rate::per_second(NOTICES, NOTICES_BURST), now) {
                    return self.core.counters.root_notices_limited.increment();
                }
                if let Some(relay) = root.relay {
                    self.forget_relayed(now, relay.root, Some(channel));
                }
            }
        }
        self.core.timers.set(Timer::Root(key), now);
    }

    /// Looks for a node at the roots: the one that an address follows from.
    pub(super) fn look_up_address(&mut self, now: Instant, network: NetworkIndex, address: IpAddr) {
        let IpAddr::V6(certified) = address else { return };
        let Some(prefix) = certified.octets().last_chunk().copied() else { return };
        self.look_up(now, LookUpKey::Prefix(prefix), Some((network, address)));
    }

    /// Looks for a way to a peer at the roots, unless it is a root itself: those are where they are
    /// configured to be.
    pub(super) fn look_up_peer(&mut self, now: Instant, key: PeerKey) {
        if let Some(peer) = self.peers.get(key).filter(|peer| !peer.link.handle.is_root()) {
            let node = *peer.link.handle.id();
            self.doubt_root_of(now, key);
            self.look_up(now, LookUpKey::Id(node), None);
        }
    }

    /// The path of a node leads through a root: finds others, in case that this one ends.
    pub(super) fn look_up_more(&mut self, now: Instant, key: PeerKey, node: NodeKey) {
        let reach = &self.nodes[node].reach;
        let own = self.roots.list.iter().filter(|(_, root)| root.guest.is_none());
        let relays = own.filter_map(|(_, root)| root.relay);
        if relays.into_iter().any(|relay| !reach.is_behind(&relay.root)) {
            self.look_up_peer(now, key);
        }
    }

    fn look_up(&mut self, now: Instant, key: LookUpKey, waiting: Option<(NetworkIndex, IpAddr)>) {
        if self.roots.list.is_empty() {
            return;
        }
        let id = u32::from_be_bytes(self.core.random());
        self.roots.look_ups.want(key, waiting, id, now);
        self.on_look_up_timer(now);
    }

    pub(super) fn on_look_up_timer(&mut self, now: Instant) {
        let usable = |(key, root): &(PeerKey, Root)| root.relay.map(|_| *key);
        let roots: Vec<_> = self.roots.list.iter().filter_map(usable).collect();
        let Roots { list, look_ups, .. } = &mut self.roots;
        let questions = look_ups.due(&roots, now, |root, wanted| may_ask(list, root, wanted));
        match self.roots.look_ups.next() {
            Some(at) => self.core.timers.set(Timer::LookUp, at.max(now + SHORTEST)),
            None => self.core.timers.clear(Timer::LookUp),
        }
        self.ask_roots(now, questions);
    }

    fn ask_roots(&mut self, now: Instant, questions: Vec<(PeerKey, u32, LookUpKey)>) {
        for (root, id, key) in questions {
            self.core.counters.root_look_ups_sent.increment();
            self.tell_root(now, root, &RootMessage::LookUp { id, key });
            // Each has an answer. Without it perhaps nothing passes to the root any more.
            if let Some(known) = self.roots.get_mut(root) {
                known.asked.get_or_insert((now, 1));
                self.core.timers.set_earlier(Timer::Root(root), now + ANSWER_TIMEOUT);
            }
        }
    }

    /// A root says where the node is that somebody waits for. That is believed if the key is the right one
    /// and the node has signed that it is to be found at this root; whether it is, a handshake shows.
    fn on_found(&mut self, now: Instant, key: PeerKey, wanted: &LookUpKey, entry: &Entry) {
        let Some(root) = self.roots.get(key) else { return };
        let (identity, node) = (entry.identity, entry.identity.node_id());
        let is_signed = || entry.registration.verify(&identity, &root.identity.node_id());
        if !wanted.matches(&node) || node == self.own_id || !is_signed() {
            tracing::debug!(root = %root.identity.node_id(), "a root's answer is not the node's own word");
            return self.core.counters.root_answers_refused.increment();
        }
        let Some(relay) = root.relay else { return };
        let place = relay.place(entry.channel);
        for (network, address) in self.roots.look_ups.found(key, wanted, now) {
            let Some(joined) = self.networks.get(&network) else { continue };
            let is_there = joined.id.address_of(&node) == address;
            if is_there && let Some(peer) = self.find_or_add(now, network, &identity, relay.root.ip()) {
                self.add_relayed(now, peer, &place);
                self.link(now, peer, Link::announce);
                let waits =
                    |joined: &mut super::networks::JoinedNetwork| joined.take_wanted(&[address.into()], now);
                let is_idle = self.peers.get(peer).is_some_and(|peer| !peer.link.has_confirmed_session());
                if is_idle && self.networks.get_mut(&network).is_some_and(waits) {
                    self.link(now, peer, |link, cx| link.attempt(cx, Reason::Traffic));
                }
            }
        }
        for peer in self.nodes.peers_of(&node) {
            self.add_relayed(now, peer, &place);
            self.link(now, peer, |link, cx| link.try_at(cx, &place));
        }
    }

    fn add_relayed(&mut self, now: Instant, peer: PeerKey, place: &Place) {
        let Some(state) = self.peers.get(peer) else { return };
        let (node, handle) = (state.link.node, &state.link.handle);
        // A root is reached directly: its frames would be in frames.
        if self.networks.is_root(handle.id()) {
            return;
        }
        if self.nodes[node].reach.add_relayed(place) {
            tracing::debug!(peer = %handle.id(), at = %place, "a root knows the peer");
            self.core.counters.root_places_found.increment();
        }
        self.link(now, peer, Link::announce);
    }

    /// Makes known how a root is reached as a relay, if that has changed.
    pub(super) fn update_relay(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let place = peer.link.handle.path().map(|path| path.place);
        let Some(root) = self.roots.get_mut(key) else { return };
        let Some(token) = root.registering.standing(now).map(|answer| answer.token) else { return };
        let Some(Place::Direct { socket, remote }) = place else { return };
        let relay = Relay { socket, root: remote, token };
        // What comes by UDP is relayed as soon as the root knows that this node is there, and not before.
        let is_known = |root: &Root| {
            root.registering.standing(now).is_some_and(|answer| answer.voucher.address.port() != 0)
        };
        let is_stream = |relay: &Relay| relay.socket == root.stream.socket && root.stream.is_open;
        if !socket.is_stream() && !is_known(root) && root.relay.as_ref().is_some_and(is_stream) {
            return;
        }
        root.move_at = None;
        if root.relay.is_some_and(|before| before != relay) && !root.moves.take(now) {
            let later = now + Unasked::INTERVAL;
            root.move_at = Some(later);
            return self.core.timers.set_earlier(Timer::Root(key), later);
        }
        let Some(before) = root.relay.replace(relay) else { return self.publish_relays() };
        if before == relay {
            return;
        }
        self.publish_relays();
        for node in self.nodes.keys() {
            let path = self.nodes[node].reach.place();
            if self.nodes[node].reach.move_relay(before.root, &relay) {
                self.nodes.note_path(node, path);
                for peer in self.nodes[node].peers.clone() {
                    self.link(now, peer, Link::path_moved);
                }
            }
        }
    }

    fn publish_relays(&mut self) {
        let relays = self.roots.list.iter().filter_map(|(_, root)| root.relay);
        self.roots.relays.publish(relays.map(|relay| (relay.root, relay.token)).collect());
    }

    /// A root does not know a node by that channel, or relays no more: nodes that are reached there are
    /// looked for elsewhere.
    pub(super) fn forget_relayed(&mut self, now: Instant, root: SocketAddr, channel: Option<Channel>) {
        for node in self.nodes.keys() {
            if !self.nodes[node].reach.is_behind(&root) {
                continue;
            }
            let of_path = |place: Place| place.relay().filter(|_| place.remote() == root);
            let used = self.nodes[node].reach.place().and_then(of_path);
            let is_path = used.is_some_and(|used| channel.is_none_or(|channel| channel == used.channel));
            self.nodes[node].reach.forget_relayed(&root, channel);
            let peers = self.nodes[node].peers.clone();
            // The peers of a node have the same ID.
            if let Some(peer) = peers.first().and_then(|peer| self.peers.get(*peer)) {
                let id = LookUpKey::Id(*peer.link.handle.id());
                for (key, _) in &self.roots.list {
                    self.roots.look_ups.forget_found(*key, &id, now);
                }
            }
            for peer in peers {
                if is_path && self.peers.get(peer).is_some_and(|peer| peer.link.current().is_some()) {
                    self.link(now, peer, Link::heed_hint);
                }
            }
        }
    }
}

/// A guest is asked only for those whom another root has said to be there.
fn may_ask(roots: &[(PeerKey, Root)], key: PeerKey, wanted: &LookUpKey) -> bool {
    let root = roots.iter().find(|(known, _)| *known == key).map(|(_, root)| root);
    root.is_some_and(|root| {
        root.guest.as_ref().is_none_or(|guest| guest.nodes.iter().any(|node| wanted.matches(node)))
    })
}

/// Notices that a root does not know a channel, of which so many in a second are heeded, and so many at once:
/// each peer behind a root that was restarted may cause one.
const NOTICES: u32 = 50;
const NOTICES_BURST: u32 = 500;

/// A timer that is due again is set at least so far ahead, so that nothing can run without end.
const SHORTEST: Duration = Duration::from_millis(1);

/// After a change of address it takes a moment until the root has seen this node there.
const ADDRESS_SETTLES: Duration = Duration::from_millis(500);
