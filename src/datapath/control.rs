//! The control state machine's side of the data path: networks, what it sends, and what it reports.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock_overlay::{
    AddressError, Elsewhere, Endpoint, Event, Gone, JoinError, Lookup, NetworkConfig, NetworkId,
    NetworkIndex, NetworkInfo, NetworkSummary, NodeId, Peer, PeerInfo, Prefix, Route, SessionTable,
    SocketInfo,
};
use peersock_stack::{Batch, Cidr, Delivery, Departure, Error, Flow, InterfaceConfig, InterfaceId};

use super::route::Entry;
use super::socket::PeerLink;
use super::{Datapath, JoinedNetwork, Transmit};
use crate::sync;

impl Datapath {
    /// Joins a network in both cores.
    ///
    /// # Errors
    /// What the overlay says: already joined, too many networks, a kind that is not supported.
    pub fn join(
        &self,
        now: Instant,
        config: NetworkConfig,
        batch: &mut Batch,
    ) -> Result<JoinedNetwork, JoinError> {
        let id = config.id();
        let NetworkSummary { ports, prefixes, .. } = config.policy().summary();
        let network = {
            let mut endpoint = self.control();
            let index = endpoint.join(self.clock.overlay(now), config)?;
            let addresses = endpoint.addresses(index);
            let routes = routes(&prefixes, &addresses);
            let prefixes: Vec<Cidr> = addresses.iter().map(|address| within(*address, &prefixes)).collect();
            let interface = self.stack.add_interface(InterfaceConfig {
                name: id.to_string(),
                addresses: prefixes.clone(),
                routes: routes.clone(),
                ports: ports.clone(),
                checksums: false,
            });
            let network = JoinedNetwork { id, index, interface, addresses, prefixes, routes, ports };
            self.networks.add(network.clone());
            network
        };
        self.with_control(now, batch, |_, _| ());
        self.settle(now, batch);
        Ok(network)
    }

    /// Leaves a network: its peers are told and its sockets fail. False if it was not joined.
    pub fn leave(&self, now: Instant, id: NetworkId, batch: &mut Batch) -> bool {
        let Some(network) = self.network(id) else { return false };
        // First the connections, so that their resets still find the sessions.
        self.stack.reset_flows(now, network.interface, batch);
        self.settle(now, batch);
        self.stack.remove_interface(now, network.interface, batch);
        self.settle(now, batch);
        self.lock_waiting().take(network.interface, |_| true);
        self.networks.remove(id);
        self.with_control(now, batch, |endpoint, now| endpoint.leave(now, network.index));
        self.settle(now, batch);
        true
    }

    /// Tells the overlay which sockets the driver has, and where their beacons go.
    pub fn set_sockets(&self, now: Instant, sockets: Vec<SocketInfo>, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_sockets(now, sockets));
        self.settle(now, batch);
    }

    /// Starts to look for `address` and to make a session with its owner. The outcome is an event.
    pub fn want_peer(&self, now: Instant, network: &JoinedNetwork, address: IpAddr, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| {
            if let Lookup::Peer(peer) = endpoint.lookup(now, network.index, address)
                && peer.sender().is_none()
            {
                endpoint.want_session(now, &peer);
            }
        });
        self.settle(now, batch);
    }

    /// Says where a member of a static network may be found, in the place of what was said before.
    pub fn set_endpoints(
        &self,
        now: Instant,
        network: &JoinedNetwork,
        node: &NodeId,
        endpoints: &[SocketAddr],
        batch: &mut Batch,
    ) {
        self.with_control(now, batch, |endpoint, now| {
            endpoint.set_endpoints(now, network.index, node, endpoints)
        });
        self.settle(now, batch);
    }

    /// Gives a member other addresses besides its self-certifying one. Connections to those that it loses
    /// end.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn set_addresses(
        &self,
        now: Instant,
        network: &JoinedNetwork,
        node: &NodeId,
        prefixes: &[Prefix],
        batch: &mut Batch,
    ) -> Result<(), AddressError> {
        let set = self
            .with_control(now, batch, |endpoint, _| endpoint.set_addresses(network.index, node, prefixes));
        self.settle(now, batch);
        set
    }

    /// Who has `address`; a peer that is not known yet is looked for.
    pub fn find(&self, now: Instant, network: &JoinedNetwork, address: IpAddr) -> Lookup {
        match self.routes.get(network.index, address) {
            Some(Route::Local) => Lookup::Local,
            Some(Route::Peer(peer)) => Lookup::Peer(peer),
            None => self.look_up(now, network.index, address),
        }
    }

    /// Asks control who has an address that the table of routes does not know.
    pub(super) fn look_up(&self, now: Instant, network: NetworkIndex, address: IpAddr) -> Lookup {
        let mut batch = Batch::default();
        let found =
            self.with_control(now, &mut batch, |endpoint, now| endpoint.lookup(now, network, address));
        self.settle(now, &mut batch);
        found
    }

    /// The system says that nobody listens at `remote`, to which a datagram was sent that begins with
    /// `quoted` ([`Endpoint::handle_refusal`]).
    pub fn handle_refusal(&self, now: Instant, remote: SocketAddr, quoted: &[u8], batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.handle_refusal(now, remote, quoted));
        self.settle(now, batch);
    }

    /// What is known of every peer.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.control().peers()
    }

    /// Where another node with this node's identity was seen, if one was.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        self.control().elsewhere()
    }

    /// What is known of every network.
    pub fn network_infos(&self) -> Vec<NetworkInfo> {
        self.control().networks()
    }

    /// The addresses of the members that have this name, in any of the joined networks.
    pub fn addresses_named(&self, name: &str) -> Vec<IpAddr> {
        self.control().addresses_named(name)
    }

    /// The name of the member that has an address.
    pub fn name_at(&self, address: IpAddr) -> Option<String> {
        self.control().name_at(address)
    }

    /// The sessions, by index.
    pub fn sessions(&self) -> &Arc<SessionTable> {
        &self.sessions
    }

    /// The overlay's counters, in a fixed order.
    pub fn overlay_counters(&self) -> Vec<(&'static str, u64)> {
        self.control().counters().snapshot()
    }

    /// A queue of the events from now on.
    pub fn subscribe(&self) -> Arc<Subscription> {
        self.subscribers.add()
    }

    /// Ends the subscriptions, also those that are still to come: nothing happens any more.
    pub fn end_subscriptions(&self) {
        self.subscribers.end();
    }

    /// Calls the control state machine, with its own time, then sends what it has to send and acts on what it
    /// reports.
    ///
    /// What that wakes lands in `batch`; the caller settles it.
    pub(super) fn with_control<T>(
        &self,
        now: Instant,
        batch: &mut Batch,
        call: impl FnOnce(&mut Endpoint, Instant) -> T,
    ) -> T {
        let mut events = Vec::new();
        let result = {
            let mut endpoint = self.control();
            let overlay_time = self.clock.overlay(now);
            let result = call(&mut endpoint, overlay_time);
            let mut datagram = Vec::new();
            loop {
                while let Some(event) = endpoint.poll_event() {
                    match &event {
                        Event::PeerAdded(peer) => self.want_if_waited_for(overlay_time, &mut endpoint, peer),
                        // Before the lock is released, and before anything is sent: what the peer's successor
                        // does then must not meet, nor be taken for, what its predecessor has left.
                        Event::PeerGone(peer, gone) => self.end_flows(now, peer, *gone, batch),
                        Event::AddressesChanged(peer, lost) => {
                            self.end_flows_to(now, peer, lost, batch);
                            self.want_if_waited_for(overlay_time, &mut endpoint, peer);
                        }
                        _ => {}
                    }
                    events.push(event);
                }
                let Some(transmit) = endpoint.poll_transmit(overlay_time, &mut datagram) else { break };
                self.sink.send_at_once(&Transmit {
                    socket: transmit.place.socket(),
                    remote: transmit.place.remote(),
                    contents: &datagram,
                    segment_size: None,
                    ecn: 0,
                });
            }
            let due = endpoint.poll_timeout();
            // Under the control lock, so that the last one to have it leaves what is true.
            *sync::lock(&self.control_due) = due;
            if let Some(at) = due {
                self.sink.wake_at(self.clock.stack(at));
            }
            result
        };
        for event in events {
            self.members.note(&event);
            self.act_on(now, &event, batch);
            self.subscribers.publish(&event);
        }
        result
    }

    /// A peer was found that something waits for: ask for a session at once.
    fn want_if_waited_for(&self, now: Instant, endpoint: &mut Endpoint, peer: &Arc<Peer>) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        if self.lock_waiting().found(interface, |address| self.is_of(peer, address)) {
            endpoint.want_session(now, peer);
        }
    }

    /// The program that some flows were made with is gone: they end as its resets would end them.
    fn end_flows(&self, now: Instant, peer: &Peer, gone: Gone, batch: &mut Batch) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        let departure = match gone {
            Gone::Left => Departure::Orderly,
            // It may be there after all; then its ends of the flows are to end too.
            Gone::Refused => Departure::Presumed,
            _ => Departure::Sudden,
        };
        let is_theirs = |address| self.is_of(peer, address);
        self.stack.lose_peer(now, interface, &owned(peer), departure, is_theirs, batch);
    }

    /// Some addresses are not a peer's any more: whoever has them now knows nothing of the flows that were
    /// made with it.
    fn end_flows_to(&self, now: Instant, peer: &Peer, lost: &[Prefix], batch: &mut Batch) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        let length_in = |prefixes: &[Prefix], address| {
            prefixes.iter().filter(|prefix| prefix.contains(address)).map(Prefix::length).max()
        };
        // What lies in a block that is lost may have been another member's before.
        let is_lost = |address| {
            let others = match self.routes.get(peer.network(), address) {
                Some(Route::Local) => return false,
                Some(Route::Peer(owner)) => length_in(&owner.prefixes(), address),
                None => None,
            };
            !peer.owns(address) && length_in(lost, address) > others
        };
        self.stack.lose_peer(now, interface, &cidrs(lost), Departure::Sudden, is_lost, batch);
    }

    /// Whether an address is a peer's: its own, or in a block behind it, and nobody else has a longer prefix
    /// there.
    pub(super) fn is_of(&self, peer: &Peer, address: IpAddr) -> bool {
        peer.has_address(address)
            || peer.owns(address)
                && !(address.is_multicast() || address.is_loopback() || address.is_unspecified())
                && match self.routes.get(peer.network(), address) {
                    Some(Route::Local) => false,
                    Some(Route::Peer(owner)) => std::ptr::eq(&*owner, peer),
                    None => true,
                }
    }

    /// What waits for addresses that are not a peer's any more waits for nobody.
    fn fail_waiting_for(&self, now: Instant, peer: &Peer, lost: &[Prefix]) {
        let Some(interface) = self.interface_by_network(peer.network()) else { return };
        let in_lost = |address| lost.iter().any(|prefix| prefix.contains(address));
        let is_lost = |address| in_lost(address) && self.routes.get(peer.network(), address).is_none();
        let taken = self.lock_waiting().take(interface, is_lost);
        for (_, entry) in taken {
            self.fail_waiting(now, entry);
        }
    }

    fn act_on(&self, now: Instant, event: &Event, batch: &mut Batch) {
        match event {
            Event::PathChanged(peer) => self.log_path(peer),
            Event::SessionReady(peer) => {
                PeerLink::of(peer).reported.forget();
                // What went to a peer that was away, or to its dead predecessor, is lost: do not wait to send
                // it again.
                self.expedite_flows(peer, batch);
                for (interface, destination, entry) in self.take_waiting(peer) {
                    let Entry { flows, packets, .. } = entry;
                    batch.flows.extend(flows);
                    for mut packet in packets {
                        self.send_packet(now, interface, None, destination, &mut packet, batch);
                    }
                }
            }
            Event::PathConfirmed(peer) => {
                if let Some(interface) = self.interface_by_network(peer.network()) {
                    self.stack.revive_flows(interface, &owned(peer), batch);
                }
            }
            // What was sent in the size that no longer passes is lost: it leaves again in the new one.
            Event::PathShrunk(peer) => self.expedite_flows(peer, batch),
            // Nobody can tell when it will carry more, and those who wait for it would wait without a reason.
            Event::PathTooSmall(peer) => {
                if let Some(interface) = self.interface_by_network(peer.network()) {
                    self.stack.fail_waiting(now, interface, &owned(peer), Error::MessageSize, batch);
                }
            }
            Event::AddressesChanged(peer, lost) => self.fail_waiting_for(now, peer, lost),
            // Nobody tries to reach a peer that was forgotten, so nothing would come of what waits for it.
            Event::PeerUnreachable(peer) | Event::PeerRemoved(peer) => {
                for (_, _, entry) in self.take_waiting(peer) {
                    self.fail_waiting(now, entry);
                }
            }
            _ => {}
        }
    }

    /// Has a peer's flows send again at once what it has not acknowledged.
    fn expedite_flows(&self, peer: &Peer, batch: &mut Batch) {
        if let Some(interface) = self.interface_by_network(peer.network()) {
            self.stack.expedite_flows(interface, &owned(peer), batch);
        }
    }

    fn log_path(&self, peer: &Peer) {
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Some(path) = peer.path()
        {
            let interface = self.sink.interface_of(path.socket(), path.remote());
            let size = path.datagram_size;
            tracing::debug!(peer = %peer.id(), path = %format_args!("{} via {interface}", path.place), size, "path");
        }
    }

    fn take_waiting(&self, peer: &Peer) -> Vec<(InterfaceId, IpAddr, Entry)> {
        let Some(interface) = self.interface_by_network(peer.network()) else { return Vec::new() };
        let taken = self.lock_waiting().take(interface, |address| self.is_of(peer, address));
        taken.into_iter().map(|((interface, address), entry)| (interface, address, entry)).collect()
    }
}

/// All that belongs to a peer now.
fn owned(peer: &Peer) -> Vec<Cidr> {
    cidrs(&peer.prefixes())
}

fn cidrs(prefixes: &[Prefix]) -> Vec<Cidr> {
    prefixes.iter().filter_map(|prefix| Cidr::new(prefix.address(), prefix.length())).collect()
}

/// An own address with the length of the network's prefix in which it lies.
fn within(address: IpAddr, prefixes: &[Prefix]) -> Cidr {
    let length = prefixes.iter().find(|prefix| prefix.contains(address)).map(Prefix::length);
    length.and_then(|length| Cidr::new(address, length)).unwrap_or(address.into())
}

/// The prefixes that can be reached with these addresses as sources.
fn routes(prefixes: &[Prefix], own: &[IpAddr]) -> Vec<Cidr> {
    let has_source = |prefix: &&Prefix| own.iter().any(|own| own.is_ipv4() == prefix.address().is_ipv4());
    let routes = prefixes.iter().filter(has_source);
    routes.filter_map(|prefix| Cidr::new(prefix.address(), prefix.length())).collect()
}

/// Events kept for a subscriber that does not read; the oldest go first.
const MAX_QUEUED_EVENTS: usize = 1024;

/// Those who listen to events.
#[derive(Default)]
pub(super) struct Subscribers {
    list: Mutex<Vec<Weak<Subscription>>>,
    ended: AtomicBool,
}

impl Subscribers {
    fn add(&self) -> Arc<Subscription> {
        let subscription = Arc::new(Subscription::default());
        let mut list = sync::lock(&self.list);
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(&subscription));
        // Under the lock: either it is in the list that is ended, or it sees that here.
        if self.ended.load(Ordering::SeqCst) {
            subscription.end();
        }
        subscription
    }

    fn end(&self) {
        let list = {
            let list = sync::lock(&self.list);
            self.ended.store(true, Ordering::SeqCst);
            list.clone()
        };
        for subscription in list.iter().filter_map(Weak::upgrade) {
            subscription.end();
        }
    }

    fn publish(&self, event: &Event) {
        let list = sync::lock(&self.list).clone();
        for subscription in list.iter().filter_map(Weak::upgrade) {
            subscription.push(event.clone());
        }
    }
}

/// One listener's queue of events.
#[derive(Default)]
pub struct Subscription {
    state: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    closed: bool,
}

impl Subscription {
    /// The next event, if there is one.
    pub fn try_next(&self) -> Option<Event> {
        self.lock().events.pop_front()
    }

    /// Whether no event is left and none will come.
    pub fn is_over(&self) -> bool {
        let queue = self.lock();
        queue.closed && queue.events.is_empty()
    }

    /// Waits up to `timeout` for an event; not at all once the node is shut down.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let waits = |queue: &mut Queue| queue.events.is_empty() && !queue.closed;
        let (mut queue, _) =
            self.filled.wait_timeout_while(self.lock(), timeout, waits).expect("no panic under this lock");
        queue.events.pop_front()
    }

    /// Like [`Subscription::try_next`]; if there is none, `waker` is woken by the next.
    pub fn poll_next(&self, waker: &Waker) -> Option<Event> {
        let mut queue = self.lock();
        let event = queue.events.pop_front();
        if event.is_none() {
            queue.waker = Some(waker.clone());
        }
        event
    }

    /// Lets no more events come.
    pub fn end(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let waker = queue.waker.take();
        drop(queue);
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn push(&self, event: Event) {
        let mut queue = self.lock();
        if queue.events.len() == MAX_QUEUED_EVENTS {
            queue.events.pop_front();
        }
        queue.events.push_back(event);
        let waker = queue.waker.take();
        drop(queue);
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        sync::lock(&self.state)
    }
}

/// Whether a closed flow waits for no acknowledgement any more; see [`Flow::delivery`] for whether there was
/// a loss.
pub fn is_drained(flow: &Flow) -> bool {
    flow.delivery() != Delivery::Pending
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use peersock_overlay::wire::Hello;
    use peersock_overlay::{EndpointConfig, Identity, Limits, RecvMeta, SocketIndex, SuiteSet};
    use peersock_stack::{Config, Stack};

    use super::super::{Ingress, Sink};
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a prefix");
        Prefix::new(address.parse().expect("an address"), length.parse().expect("a length"))
            .expect("no longer")
    }

    #[test]
    fn own_addresses_lie_in_prefixes_and_routes_are_of_own_families() {
        let prefixes = ["fd12:3456:789a::/48", "10.7.0.0/30", "192.0.2.1/32"].map(prefix);
        let own: Vec<IpAddr> =
            ["fd12:3456:789a::1", "10.7.0.1"].iter().map(|ip| ip.parse().expect("an address")).collect();
        let shown = |cidrs: Vec<Cidr>| cidrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let within = own.iter().map(|own| within(*own, &prefixes)).collect();
        assert_eq!(shown(within), ["fd12:3456:789a::1/48", "10.7.0.1/30"]);
        let all = ["fd12:3456:789a::/48", "10.7.0.0/30", "192.0.2.1/32"];
        assert_eq!(shown(routes(&prefixes, &own)), all);
        // Without an IPv4 address nobody there could be answered.
        assert_eq!(shown(routes(&prefixes, &own[..1])), all[..1]);
    }

    /// Counts what may wait for room and what may not.
    #[derive(Default)]
    struct Counting {
        waiting: AtomicUsize,
        at_once: AtomicUsize,
    }

    impl Sink for Counting {
        fn send(&self, _: &Transmit<'_>) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }

        fn send_at_once(&self, _: &Transmit<'_>) {
            self.at_once.fetch_add(1, Ordering::SeqCst);
        }

        fn max_segments(&self, _: SocketIndex) -> usize {
            1
        }
    }

    #[test]
    fn control_never_waits_for_room_while_it_holds_its_lock() {
        let now = Instant::now();
        let (datapath, sink) = datapath(now, Limits::default());
        let socket = SocketInfo {
            index: SocketIndex(0),
            ipv4: true,
            loopback: false,
            max_datagram: 1472,
            beacon_targets: vec!["239.255.112.115:7473".parse().unwrap()],
        };
        let mut batch = Batch::default();
        datapath.set_sockets(now, vec![socket], &mut batch);
        let network = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1..=9).unwrap(), psk: None };
        datapath.join(now, network, &mut batch).unwrap();
        datapath.handle_timeout(now + Duration::from_secs(4), &mut batch);
        assert!(sink.at_once.load(Ordering::SeqCst) >= 2, "beacons");
        assert_eq!(sink.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn what_waits_for_a_peer_goes_when_the_peer_is_forgotten() {
        let now = Instant::now();
        let (datapath, _) = datapath(now, Limits { peers_per_network: 1, ..Limits::default() });
        let mut batch = Batch::default();
        let config = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1..=9).unwrap(), psk: None };
        let key = config.discovery_key();
        let network = datapath.join(now, config, &mut batch).unwrap();
        let (mut ingress, mut addresses) = (Ingress::default(), Vec::new());
        for n in [2, 3] {
            let identity = Identity::from_seed(&[n; 32]);
            let address = IpAddr::V6(network.id.address_of(&identity.node_id()));
            datapath.want_peer(now, &network, address, &mut batch);
            let (identity, suites) = (*identity.public(), SuiteSet::CHACHA20_POLY1305);
            let hello = Hello { identity, instance: 1, reply_wanted: false, suites, echo: [0; 24] };
            let mut bytes = Vec::new();
            hello.seal(&key, [n; 24], &mut bytes);
            let remote = SocketAddr::from(([192, 0, 2, n], 4000));
            let meta = RecvMeta { remote, socket: SocketIndex(0), multicast: false };
            datapath.receive(now, &mut ingress, meta, &bytes, bytes.len(), false);
            datapath.finish_receive(now, &mut ingress);
            assert!(matches!(datapath.find(now, &network, address), Lookup::Peer(_)), "it was waited for");
            datapath.lock_waiting().add_packet(now, true, network.interface, address, &[0x60; 40]);
            addresses.push(address);
        }
        // There is room for one peer only.
        let left = datapath.lock_waiting().take(network.interface, |_| true);
        let left: Vec<IpAddr> = left.into_iter().map(|((_, address), _)| address).collect();
        assert_eq!(left, addresses[1..]);
    }

    fn datapath(now: Instant, limits: Limits) -> (Datapath, Arc<Counting>) {
        let sink = Arc::new(Counting::default());
        let mut config = EndpointConfig::new(Arc::new(Identity::from_seed(&[1; 32])));
        config.limits = limits;
        let endpoint = Endpoint::new(config, [1; 32], now, Duration::from_secs(1_800_000_000));
        let stack = Stack::new(Config::default(), [2; 32], now);
        (Datapath::new(endpoint, stack, sink.clone()), sink)
    }
}
