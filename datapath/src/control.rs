//! Data path calls into the control state machine, and the datagrams it sends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::membership::{Answer, Denial, Refusal};
use peersock_overlay::{
    AddressError, Contact, Elsewhere, Endpoint, Event, Gone, JoinError, Lookup, NetworkConfig, NetworkId,
    NetworkIndex, NetworkInfo, NetworkSummary, NodeId, PeerInfo, Prefix, PublicIdentity, RootConfig,
    RootInfo, Route, SessionTable, SocketIndex, SocketInfo,
};
use peersock_stack::{Batch, Cidr, InterfaceConfig};

use crate::networks::{routes, within};
use crate::rules::Guard;
use crate::{Datapath, Device, JoinedNetwork, Transmit};
use peersock_primitives::sync;

/// Returns true for a controller's word that this node is no member any more.
fn is_removal(answer: &Answer) -> bool {
    matches!(answer, Answer::Denied { reason: Denial::Removed, .. })
}

impl Datapath {
    /// Joins a network in both cores.
    /// Fails with the overlay's errors: already joined, too many networks, an unsupported kind.
    pub fn join(
        &self,
        now: Instant,
        config: NetworkConfig,
        batch: &mut Batch,
    ) -> Result<JoinedNetwork, JoinError> {
        self.join_for(now, config, None, batch)
    }

    /// Joins a network for a device beside the stack's sockets: it takes the packets that no socket takes,
    /// and [`Datapath::send_from_device`] sends packets that come from the device. Errors: as
    /// [`Datapath::join`].
    pub fn join_device(
        &self,
        now: Instant,
        config: NetworkConfig,
        device: Arc<dyn Device>,
        batch: &mut Batch,
    ) -> Result<JoinedNetwork, JoinError> {
        self.join_for(now, config, Some(device), batch)
    }

    fn join_for(
        &self,
        now: Instant,
        config: NetworkConfig,
        device: Option<Arc<dyn Device>>,
        batch: &mut Batch,
    ) -> Result<JoinedNetwork, JoinError> {
        let id = config.id();
        // Without a device, an exit route would make the stack claim every Internet address for the overlay.
        let config = if device.is_none() { config.without_exit() } else { config };
        let NetworkSummary { ports, .. } = config.policy().summary();
        let network = {
            // Locked until the network is in the list, so that no other thread handles an event of it before.
            let mut endpoint = self.control();
            let index = endpoint.join(self.clock.overlay(now), config)?;
            // Of the joined network, because credentials may have given it more.
            let (addresses, prefixes) = (endpoint.addresses(index), endpoint.prefixes(index));
            // A default route leads to an exit, for the packets of a device alone.
            let mut routes = routes(&prefixes, &addresses);
            routes.retain(|route| route.prefix() > 0);
            let of_network: Vec<_> = prefixes.into_iter().filter(|prefix| prefix.length() > 0).collect();
            let prefixes: Vec<Cidr> = addresses.iter().map(|address| within(*address, &of_network)).collect();
            let interface = self.stack.add_interface(InterfaceConfig {
                name: id.to_string(),
                addresses: prefixes.clone(),
                routes: routes.clone(),
                ports: ports.clone(),
                // The session authenticates every byte, so inner checksums are redundant.
                checksums: false,
            });
            let guard = Arc::<Guard>::default();
            if let Some(own) = endpoint.own_description(index) {
                guard.set_own(own, addresses.clone());
            }
            let network =
                JoinedNetwork { id, index, interface, addresses, prefixes, routes, ports, device, guard };
            self.networks.add(network.clone());
            network
        };
        self.with_control(now, batch, |_, _| ());
        self.settle(now, batch);
        Ok(network)
    }

    /// Leaves a network: notifies its peers and fails its sockets. Returns false if it was not joined.
    pub fn leave(&self, now: Instant, id: NetworkId, batch: &mut Batch) -> bool {
        let Some(network) = self.network(id) else { return false };
        // Connections end first because their resets need the sessions.
        self.stack.reset_flows(now, network.interface, batch);
        self.settle(now, batch);
        self.stack.remove_interface(now, network.interface, batch);
        self.settle(now, batch);
        // Dropped without an error, because the sockets have already failed.
        self.lock_waiting().take(network.interface, |_| true);
        self.networks.remove(id);
        self.with_control(now, batch, |endpoint, now| endpoint.leave(now, network.index));
        self.settle(now, batch);
        true
    }

    /// Tells the overlay which sockets the driver has, and the beacon targets of each.
    pub fn set_sockets(&self, now: Instant, sockets: Vec<SocketInfo>, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_sockets(now, sockets));
        self.settle(now, batch);
    }

    /// Starts a search for `address` and a session with its owner. An event reports the outcome.
    pub fn want_peer(&self, now: Instant, network: &JoinedNetwork, address: IpAddr, batch: &mut Batch) {
        let wanted = self.with_control(now, batch, |endpoint, now| {
            let Lookup::Peer(peer) = endpoint.lookup(now, network.index, address) else { return None };
            peer.sender().is_none().then(|| {
                endpoint.want_session(now, &peer);
                peer
            })
        });
        self.settle(now, batch);
        // Without the control lock, because the callback is not the data path's code.
        if let Some(peer) = wanted {
            self.tell_wanted(&peer);
        }
    }

    /// Sets the endpoints of a member of a static network, replacing earlier ones.
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

    /// Sets the roots that the node uses, replacing earlier ones ([`Endpoint::set_roots`]).
    pub fn set_roots(&self, now: Instant, roots: Vec<RootConfig>, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_roots(now, roots));
        self.settle(now, batch);
    }

    /// Sets where this node can be reached, as far as its driver knows ([`Endpoint::set_contact`]).
    pub fn set_contact(&self, now: Instant, contact: Contact, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_contact(now, contact));
        self.settle(now, batch);
    }

    /// Returns where this node can be reached, as its peers are told ([`Endpoint::contact`]).
    pub fn contact(&self) -> Contact {
        self.control().contact().clone()
    }

    /// Reports where a node can be reached, and that both sides begin at `start` ([`Endpoint::meet`]).
    pub fn meet(
        &self,
        now: Instant,
        network: &NetworkId,
        identity: &PublicIdentity,
        contact: &Contact,
        start: Instant,
        batch: &mut Batch,
    ) {
        // As a duration, because control's clock differs from the caller's.
        let start_in = start.saturating_duration_since(now);
        self.with_control(now, batch, |endpoint, now| {
            endpoint.meet(now, network, identity, contact, now + start_in);
        });
        self.settle(now, batch);
    }

    /// Reports that a stream to a root with this local port is open, or is closed ([`Endpoint::set_stream`]).
    pub fn set_stream(
        &self,
        now: Instant,
        root: &NodeId,
        is_open: bool,
        port: Option<u16>,
        batch: &mut Batch,
    ) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_stream(now, root, is_open, port));
        self.settle(now, batch);
    }

    /// Sets the list of open extra sockets, replacing the earlier one.
    pub fn set_extra_sockets(&self, now: Instant, open: Vec<SocketInfo>, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.set_extra_sockets(now, open));
        self.settle(now, batch);
    }

    /// Reports a TCP connection to another node ([`Endpoint::tcp_opened`]). Returns false if the driver
    /// should close it.
    pub fn tcp_opened(
        &self,
        now: Instant,
        id: Option<u32>,
        socket: SocketIndex,
        remote: SocketAddr,
        batch: &mut Batch,
    ) -> bool {
        let is_taken =
            self.with_control(now, batch, |endpoint, now| endpoint.tcp_opened(now, id, socket, remote));
        self.settle(now, batch);
        is_taken
    }

    /// Reports that a TCP connection to another node has ended ([`Endpoint::tcp_closed`]).
    pub fn tcp_closed(&self, now: Instant, socket: SocketIndex, batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.tcp_closed(now, socket));
        self.settle(now, batch);
    }

    /// Returns the state of every root.
    pub fn roots(&self, now: Instant) -> Vec<RootInfo> {
        let now = self.clock.overlay(now);
        self.control().roots(now)
    }

    /// Gives a member other addresses besides its self-certifying one. Connections to addresses that the
    /// member loses end.
    /// Errors: see [`AddressError`].
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

    /// Finds the owner of `address`; starts a search if no known peer has it.
    pub fn find(&self, now: Instant, network: &JoinedNetwork, address: IpAddr) -> Lookup {
        match self.routes.get(network.index, address) {
            Some(Route::Local) => Lookup::Local,
            Some(Route::Peer(peer)) => Lookup::Peer(peer),
            None => self.look_up(now, network.index, address),
        }
    }

    /// Asks control for the owner of an address that the table of routes does not know.
    pub(super) fn look_up(&self, now: Instant, network: NetworkIndex, address: IpAddr) -> Lookup {
        let mut batch = Batch::default();
        let found =
            self.with_control(now, &mut batch, |endpoint, now| endpoint.lookup(now, network, address));
        self.settle(now, &mut batch);
        // Neither local discovery nor the roots know it yet, but another search may.
        if matches!(found, Lookup::Unknown) {
            self.tell_wanted_address(network, address);
        }
        found
    }

    /// Reports a port unreachable error from the system for `remote`, about a datagram that begins with
    /// `quoted` ([`Endpoint::handle_refusal`]).
    pub fn handle_refusal(&self, now: Instant, remote: SocketAddr, quoted: &[u8], batch: &mut Batch) {
        self.with_control(now, batch, |endpoint, now| endpoint.handle_refusal(now, remote, quoted));
        self.settle(now, batch);
    }

    /// Returns the state of every peer.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.control().peers()
    }

    /// Returns where another node with this node's identity was seen, if one was.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        self.control().elsewhere()
    }

    /// Returns the state of every network.
    pub fn network_infos(&self) -> Vec<NetworkInfo> {
        self.control().networks()
    }

    /// Returns the addresses of the members with this name, in the joined networks that are meant. Asks again
    /// for the programs with a label if those that are known may have ended.
    pub fn addresses_named(
        &self,
        now: Instant,
        name: &str,
        is_meant: impl Fn(NetworkId) -> bool,
    ) -> Vec<IpAddr> {
        let (found, in_doubt) = {
            let control = self.control();
            (control.addresses_named(name, &is_meant), control.label_in_doubt(name, is_meant))
        };
        if let Some(network) = in_doubt {
            self.find_name(now, network, name, &mut Batch::default());
        }
        found
    }

    /// Returns the name of the member that has an address in one of the networks that are meant.
    pub fn name_at(&self, address: IpAddr, is_meant: impl Fn(NetworkId) -> bool) -> Option<String> {
        self.control().name_at(address, is_meant)
    }

    /// Returns the sessions, by index.
    pub fn sessions(&self) -> &Arc<SessionTable> {
        &self.sessions
    }

    /// Returns the overlay's counters, in a fixed order.
    pub fn overlay_counters(&self) -> Vec<(&'static str, u64)> {
        self.control().counters().snapshot()
    }

    /// Calls the control state machine with its own time, then sends its datagrams and acts on its events.
    ///
    /// Woken flows and sockets land in `batch`; the caller settles it.
    pub(super) fn with_control<T>(
        &self,
        now: Instant,
        batch: &mut Batch,
        call: impl FnOnce(&mut Endpoint, Instant) -> T,
    ) -> T {
        let mut events = Vec::new();
        let (result, is_root_changed) = {
            let mut endpoint = self.control();
            let overlay_time = self.clock.overlay(now);
            let result = call(&mut endpoint, overlay_time);
            let mut datagram = Vec::new();
            loop {
                // Handling an event may queue datagrams, and sending may raise events, so both queues are
                // drained in turn.
                while let Some(event) = endpoint.poll_event() {
                    match &event {
                        Event::PeerAdded(peer) => self.want_if_waited_for(overlay_time, &mut endpoint, peer),
                        // Flows end before the lock is released and before anything is sent. Otherwise
                        // packets of the peer's successor could meet flows of its predecessor.
                        Event::PeerGone(peer, gone) => self.end_flows(now, peer, *gone, batch),
                        // It has ended them at its side, and takes no packet that could end them here.
                        Event::RefusedBy(peer, Refusal::Revoked) => {
                            self.end_flows(now, peer, Gone::Expelled, batch);
                        }
                        Event::Answered(controller, answer) if is_removal(answer) => {
                            for peer in self.members.of(controller.network()).iter() {
                                self.end_flows(now, peer, Gone::Expelled, batch);
                            }
                        }
                        Event::AddressesChanged(peer, lost) => {
                            self.end_flows_to(now, peer, lost, batch);
                            self.want_if_waited_for(overlay_time, &mut endpoint, peer);
                        }
                        _ => {}
                    }
                    events.push(event);
                }
                let Some(transmit) = endpoint.poll_transmit(overlay_time, &mut datagram) else { break };
                // The sink must not block here because the control lock is held.
                self.sink.send_at_once(&Transmit {
                    socket: transmit.place.socket(),
                    remote: transmit.place.remote(),
                    contents: &datagram,
                    segment_size: None,
                    ecn: 0,
                });
            }
            // Under the lock, so that no other thread puts earlier rules in the place of later ones.
            for (network, rules) in endpoint.take_rules_changes() {
                self.follow_rules(now, network, rules.as_ref(), batch);
            }
            if let Some(wanted) = endpoint.poll_streams() {
                self.sink.want_streams(wanted);
            }
            if let Some(wanted) = endpoint.poll_extra_sockets() {
                self.sink.want_extra_sockets(wanted);
            }
            while let Some(action) = endpoint.poll_tcp() {
                self.sink.act_on_tcp(action);
            }
            let due = endpoint.poll_timeout();
            // Written under the control lock, so that the value of the last holder remains.
            *sync::lock(&self.control_due) = due;
            if let Some(at) = due {
                self.sink.wake_at(self.clock.stack(at));
            }
            (result, endpoint.poll_root_change(overlay_time))
        };
        // Events are handled after the lock is released because handlers call control again.
        for event in events {
            self.members.note(&event);
            self.act_on(now, &event, batch);
            self.subscribers.publish(&event);
        }
        if is_root_changed {
            self.subscribers.note_root_change();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use peersock_overlay::wire::Hello;
    use peersock_overlay::{
        Candidate, CandidateKind, EndpointConfig, Identity, Limits, Nat, RecvMeta, SuiteSet,
    };
    use peersock_stack::{Config, Stack};

    use super::*;
    use crate::Unanswered;
    use crate::testing::instant;
    use crate::{Ingress, Sink};

    /// Counts the calls that may wait for buffer space and those that may not.
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
        let now = instant();
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
        let now = instant();
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
            let meta = RecvMeta { remote, socket: SocketIndex(0), multicast: false, relay: None };
            datapath.receive(now, &mut ingress, meta, &bytes, bytes.len(), false);
            datapath.finish_receive(now, &mut ingress);
            assert!(matches!(datapath.find(now, &network, address), Lookup::Peer(_)), "it was waited for");
            datapath.lock_waiting().add_packet(now, true, network.interface, address, &[0x60; 40]);
            addresses.push(address);
        }
        // The peer table has room for one peer only.
        let left = datapath.lock_waiting().take(network.interface, |_| true);
        let left: Vec<IpAddr> = left.into_iter().map(|((_, address), _)| address).collect();
        assert_eq!(left, addresses[1..]);
    }

    #[test]
    fn who_looks_elsewhere_is_told_what_is_wanted_and_has_time_to_find_it() {
        let now = instant();
        let (datapath, _) = datapath(now, Limits::default());
        let (told, wants) = std::sync::mpsc::channel();
        let patience = Duration::from_secs(60);
        let unanswered = datapath.unanswered();
        datapath.seek_elsewhere(patience, Box::new(move |want| told.send(want).unwrap()));
        let mut batch = Batch::default();
        let beacon_targets = Vec::new();
        let socket = SocketInfo {
            index: SocketIndex(0),
            ipv4: true,
            loopback: false,
            max_datagram: 1472,
            beacon_targets,
        };
        datapath.set_sockets(now, vec![socket], &mut batch);
        let config = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1..=9).unwrap(), psk: None };
        let network = datapath.join(now, config, &mut batch).unwrap();
        let identity = *Identity::from_seed(&[2; 32]).public();
        let address = network.id.address_of(&identity.node_id());
        assert!(matches!(datapath.find(now, &network, address.into()), Lookup::Unknown));
        let want = wants.try_recv().unwrap();
        assert_eq!((want.network, want.address, want.identity), (network.index, address, None));
        datapath.lock_waiting().add_packet(now, false, network.interface, address.into(), &[0x60; 40]);
        assert_eq!(datapath.lock_waiting().next_deadline(), Some(now + patience));

        // The peer was found, but does not answer at that address.
        let contact = |text: &str| {
            let candidate = Candidate { kind: CandidateKind::Mapped, address: text.parse().unwrap() };
            Contact::new(Nat::default(), [candidate])
        };
        datapath.set_contact(now, contact("198.51.100.1:4000"), &mut batch);
        let there = contact("192.0.2.2:4000");
        datapath.meet(now, &network.id, &identity, &there, now, &mut batch);
        assert_eq!(datapath.lock_waiting().next_deadline(), None, "the overlay tries");
        let mut later = now;
        let unreachable = loop {
            later += Duration::from_millis(100);
            assert!(later < now + patience, "it is never unreachable");
            datapath.handle_timeout(later, &mut batch);
            match wants.try_recv() {
                Ok(want) => break want,
                Err(_) => assert!(!datapath.has_session(network.index, address.into())),
            }
        };
        assert_eq!(unreachable.identity, Some(identity));
        assert_eq!(datapath.lock_waiting().next_deadline(), Some(now + patience));
        assert_eq!(unanswered.try_iter().count(), 0, "there is hope");
        datapath.handle_timeout(now + patience, &mut batch);
        assert!(datapath.lock_waiting().take(network.interface, |_| true).is_empty());
        let told: Vec<_> = unanswered.try_iter().collect();
        assert_eq!(told, [Unanswered { network: network.id, address: address.into() }]);

        // The queue holds no other node's packets, and nothing is kept for a receiver that does not read.
        let other = datapath.unanswered();
        assert!(unanswered.recv().is_err(), "another takes its place");
        for _ in 0..100 {
            datapath.tell_unanswered(network.interface, address.into());
        }
        assert_eq!(other.try_iter().count(), 64);
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
