//! The stack: interfaces, sockets, timers. `receive.rs` has the lookup of sockets for packets.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::group::membership::Memberships;
use crate::host::batch::Rounds;
use crate::host::clock::{Clock, Time, earlier};
use crate::host::interface::{Interface, Interfaces};
use crate::host::timers::Timers;
use crate::icmp::Rates;
use crate::ip::fragments::Identifications;
use crate::ip::pmtu::PathMtus;
use crate::ip::reassembly::Reassembly;
use crate::ip::{canonical, is_unicast};
use crate::socket::demux::{Binds, ConnectedUdp};
use crate::socket::flow_list::FlowList;
use crate::socket::flow_table::{FlowKey, FlowTable};
use crate::socket::ports::Ephemeral;
use crate::tcp::{Connection, Cookies, Memory, initial_sequence};
use crate::{
    Batch, Cidr, Config, Counters, Departure, Error, Flow, IcmpSocket, InterfaceConfig, InterfaceId,
    Listener, Owners, RawSocket, Scope, State, TcpOptions, UdpOptions, UdpSocket,
};
use peersock_primitives::Key;

/// The TCP/IP stack of one node. See the [crate's documentation](crate) for how to drive it.
///
/// Any thread may call it. Its locks are short, and no lock is common to all packets: the demultiplexer is
/// sharded, each flow has its lock, and timers are touched only when a flow gets an earlier deadline.
/// Dropping the stack ends its sockets silently.
pub struct Stack {
    pub(crate) shared: Arc<Shared>,
}

/// State shared by the stack and its sockets.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
    pub(crate) rounds: Rounds,
    pub(crate) timers: Timers<std::sync::Weak<Flow>>,
    pub(crate) interfaces: Interfaces,
    pub(crate) flows: FlowTable,
    /// Assignment of addresses to peers.
    pub(crate) owners: OnceLock<Arc<dyn Owners>>,
    pub(crate) listeners: Binds<Listener>,
    /// Key that distributes connections over listeners on one port.
    pub(crate) listener_key: Key,
    pub(crate) udp_connected: ConnectedUdp,
    pub(crate) udp_binds: Binds<UdpSocket>,
    /// ICMP sockets, bound to their identifier.
    pub(crate) icmp: Binds<IcmpSocket>,
    /// Raw sockets, bound to their protocol.
    pub(crate) raw: Binds<RawSocket>,
    pub(crate) icmp_rates: Rates,
    pub(crate) reassembly: Reassembly,
    pub(crate) path_mtus: PathMtus,
    pub(crate) memberships: Memberships,
    pub(crate) idents: Identifications,
    /// Memory account for the buffers of all connections.
    pub(crate) memory: Arc<Memory>,
    /// Part of the flows to examine next while memory is short.
    pub(crate) relieved: AtomicUsize,
    /// Ended connections with unread data, the oldest first.
    pub(crate) ended: FlowList,
    /// Connections that their applications closed with much undelivered data, the oldest first.
    pub(crate) orphans: FlowList,
    pub(crate) sequence_key: Key,
    pub(crate) cookies: Cookies,
    pub(crate) ephemeral: Ephemeral,
}

impl Stack {
    /// Creates a stack without interfaces. All unpredictable values (initial sequence numbers, ports, the
    /// order in hash tables) come from `seed`, which must be secret and different for each stack.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let clock = Clock::new(now);
        let shared = Shared {
            counters: Arc::default(),
            rounds: Rounds::default(),
            timers: Timers::new(|flow| flow.strong_count() > 0),
            interfaces: Interfaces::default(),
            flows: FlowTable::new(&seed),
            owners: OnceLock::new(),
            listeners: Binds::default(),
            listener_key: Key::new(&seed, "listener"),
            udp_connected: ConnectedUdp::new(&seed),
            udp_binds: Binds::default(),
            icmp: Binds::default(),
            raw: Binds::default(),
            icmp_rates: Rates::new(&config, &seed, clock.time(now)),
            reassembly: Reassembly::new(&config),
            path_mtus: PathMtus::default(),
            memberships: Memberships::default(),
            idents: Identifications::new(&seed),
            memory: Arc::new(Memory::new(config.tcp_memory, config.tcp_memory_per_peer)),
            relieved: AtomicUsize::new(0),
            ended: FlowList::new(),
            orphans: FlowList::new(),
            sequence_key: Key::new(&seed, "initial sequence number"),
            cookies: Cookies::new(&seed),
            ephemeral: Ephemeral::new(&seed, &config.ephemeral_ports),
            clock,
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds an interface: a joined network.
    pub fn add_interface(&self, config: InterfaceConfig) -> InterfaceId {
        self.shared.interfaces.add(config)
    }

    /// Resets every connection of an interface, as the end of a program does, before the interface is
    /// removed. The resets are the output of the flows in `batch`, and the local application gets
    /// [`Error::NetworkDown`].
    ///
    /// A connection in TIME-WAIT acknowledges the peer's FIN once more. If the first acknowledgement was
    /// lost, a retransmitted FIN would get no answer later. A closed connection in FIN-WAIT-2 sends nothing:
    /// the peer has everything, and a reset would mean unread data.
    pub fn reset_flows(&self, now: Instant, interface: InterfaceId, batch: &mut Batch) {
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface)) {
            // If the first acknowledgement was lost, a repeated FIN would find no connection any more.
            flow.repeat_last_ack(now, batch);
            flow.abandon(now);
            batch.touch_flow(&self.shared.rounds, flow);
        }
    }

    /// Ends the connections of an interface for which `is_refused` is true, with a reset to the peer. The
    /// local application gets [`Error::ConnectionReset`], and they are listed in `batch`. Connections in
    /// TIME-WAIT have ended already. Visits every flow. `is_refused` gets the flow, and true if the peer has
    /// opened it.
    pub fn refuse_flows(
        &self,
        now: Instant,
        interface: InterfaceId,
        is_refused: impl Fn(&Flow, bool) -> bool,
        batch: &mut Batch,
    ) {
        // A cookie holds a connection attempt that was allowed before.
        self.shared.cookies.make_void();
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface)) {
            if flow.state() != State::TimeWait && is_refused(&flow, flow.is_accepted()) {
                flow.abort_because(now, Error::ConnectionReset);
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
    }

    /// Calls `see` with each open connection of an interface, and with true if the peer has opened it.
    pub fn see_flows(&self, interface: InterfaceId, mut see: impl FnMut(&Flow, bool)) {
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface)) {
            if !matches!(flow.state(), State::TimeWait | State::Closed) {
                see(&flow, flow.is_accepted());
            }
        }
    }

    /// Removes an interface. Its sockets fail with [`Error::NetworkDown`] and are listed in `batch`. Nothing
    /// is sent to peers, see [`Stack::reset_flows`].
    pub fn remove_interface(&self, now: Instant, interface: InterfaceId, batch: &mut Batch) {
        if self.shared.interfaces.remove(interface).is_none() {
            return;
        }
        self.shared.memberships.remove_interface(interface);
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface)) {
            flow.fail(now, Error::NetworkDown);
            batch.touch_flow(&self.shared.rounds, flow);
        }
        // Sockets without an interface go on with the others.
        for socket in self.shared.udp_binds.filter(|socket| socket.interface() == Some(interface)) {
            socket.fail(Error::NetworkDown);
            batch.touch_udp(&self.shared.rounds, socket);
        }
        for socket in self.shared.raw.filter(|socket| socket.interface() == Some(interface)) {
            socket.fail(Error::NetworkDown);
            batch.touch_raw(&self.shared.rounds, socket);
        }
        for listener in self.shared.listeners.filter(|one| one.interface() == Some(interface)) {
            listener.fail(now, Error::NetworkDown);
            batch.touch_listener(&self.shared.rounds, listener);
        }
    }

    /// Replaces an interface's addresses. Flows of a removed address fail with [`Error::AddrNotAvailable`]
    /// and are listed in `batch`.
    pub fn set_addresses(&self, now: Instant, interface: InterfaceId, addresses: &[Cidr], batch: &mut Batch) {
        if !self.shared.interfaces.set_addresses(interface, addresses) {
            return;
        }
        let kept = |address| addresses.iter().any(|own| own.address() == address);
        // At once, because packets from a foreign address would be dropped and the flow would end only by a
        // timeout.
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface) && !kept(flow.local().ip())) {
            flow.fail(now, Error::AddrNotAvailable);
            batch.touch_flow(&self.shared.rounds, flow);
        }
    }

    /// Returns true if `address` is a local address of that interface.
    pub fn is_local(&self, interface: InterfaceId, address: IpAddr) -> bool {
        self.shared.interfaces.find(interface).is_some_and(|interface| interface.is_local(address))
    }

    /// Returns true if packets to `group` on that interface are for the node: a socket has joined it, or it
    /// is the group of all nodes.
    pub fn is_member(&self, interface: InterfaceId, group: IpAddr) -> bool {
        self.shared.memberships.contains(interface, group)
    }

    /// Returns the interface whose network contains `remote`.
    pub fn route(&self, remote: IpAddr) -> Option<InterfaceId> {
        self.shared.interfaces.route(&Scope::default(), remote).map(|interface| interface.id)
    }

    /// Returns the local address from which to reach `remote` (RFC 6724).
    pub fn source_address(&self, interface: InterfaceId, remote: IpAddr) -> Option<IpAddr> {
        self.shared.interfaces.find(interface)?.source_for(remote)
    }

    /// Opens a connection to `remote`. The SYN is the flow's first [`egress`](Flow::egress).
    ///
    /// Without `local`, or with an unspecified address or port 0 in it, the stack chooses address and port.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] if the network does not allow the remote port, [`Error::AddrInUse`] if the
    /// connection exists or a listener has the local port, [`Error::AddrNotAvailable`] if the local address
    /// is foreign or no port is free, [`Error::AddressFamily`], [`Error::NetworkUnreachable`] for a bad
    /// `remote` or interface, [`Error::OutOfMemory`] beyond [`Config::max_flows`].
    pub fn tcp_connect(
        &self,
        now: Instant,
        interface: InterfaceId,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Arc<Flow>, Error> {
        let shared = &self.shared;
        let interface = shared.interfaces.find(interface).ok_or(Error::NetworkUnreachable)?;
        let remote = canonical(remote);
        // A TCP connection has one node at each end.
        if !is_unicast(remote.ip()) {
            return Err(Error::NetworkUnreachable);
        }
        if remote.port() == 0 {
            return Err(Error::InvalidInput);
        }
        if !interface.allows(remote.port()) {
            return Err(Error::PermissionDenied);
        }
        // Before a port is looked for, because the search takes long while most ports are in use.
        if shared.flows.len() >= shared.config.max_flows {
            return Err(Error::OutOfMemory);
        }
        let address = local_address(&interface, local, remote.ip())?;
        let scope = Scope::from(Some(interface.id));
        let listening = |port| shared.listeners.occupied(port, &scope, address);
        let open = |port| self.open((now, &interface), (SocketAddr::new(address, port), remote), &options);
        match local.map_or(0, |local| local.port()) {
            0 => {
                let mut candidates = shared.ephemeral.candidates(address, Some(remote));
                let found = candidates.find_map(|port| if listening(port) { None } else { open(port) });
                found.ok_or(Error::AddrNotAvailable)
            }
            port if listening(port) && !options.reuse_address => Err(Error::AddrInUse),
            port => open(port).ok_or(Error::AddrInUse),
        }
    }

    /// Creates a flow for these addresses, unless there is one that does not make room.
    fn open(
        &self,
        (now, interface): (Instant, &Arc<Interface>),
        addresses: (SocketAddr, SocketAddr),
        options: &TcpOptions,
    ) -> Option<Arc<Flow>> {
        let shared = &self.shared;
        let time = shared.clock.time(now);
        let key = FlowKey::new(interface.id, addresses.0, addresses.1);
        let isn = initial_sequence(&shared.sequence_key, time, addresses.0, addresses.1);
        // A connection in TIME-WAIT gives way if the peer can tell the sequence numbers apart (RFC 6191).
        if shared.flows.find(&key).is_some_and(|old| !old.make_room(time, isn)) {
            return None;
        }
        let share = shared.share(interface.id, addresses.1.ip());
        let settings = Flow::settings(shared, interface, options, &share);
        let connection = Connection::connect(settings, time, addresses, isn);
        let flow = Flow::new(shared, interface.clone(), addresses, connection, options, time, None);
        // Another thread may have opened the same connection meanwhile.
        if !shared.flows.insert(&flow, &share) {
            return None;
        }
        flow.begin(time);
        shared.counters.tcp_connects.increment();
        Some(flow)
    }

    /// Binds a UDP socket to `local`: its address may be unspecified, port 0 means any free one. It receives
    /// on all interfaces of the scope that have the address.
    ///
    /// Port 0 gives a port that the network allows, so that peers can reach it. For a wildcard address, it is
    /// a port that any network allows. If none is free, or [`UdpOptions::any_port`] is on, it is an ephemeral
    /// port that gets answers only.
    ///
    /// # Errors
    /// [`Error::AddrInUse`] if a socket overlaps and not both have
    /// [`reuse_address`](UdpOptions::reuse_address); [`Error::AddrNotAvailable`],
    /// [`Error::NetworkUnreachable`] for a foreign address or unknown interface. The network's port rules
    /// apply per datagram, because answers come to any port, see the [crate's documentation](crate).
    pub fn udp_bind(
        &self,
        scope: impl Into<Scope>,
        local: SocketAddr,
        options: UdpOptions,
    ) -> Result<Arc<UdpSocket>, Error> {
        let shared = &self.shared;
        let (scope, local) = (scope.into(), canonical(local));
        let network = self.bind_network(&scope, local.ip())?;
        let bind = |port: u16| {
            let free = |bound: &[Arc<UdpSocket>]| {
                use crate::socket::demux::Bound;
                let stands_in_the_way = |other: &Arc<UdpSocket>| {
                    other.overlaps(&scope, local.ip()) && !other.shares_with(&options)
                };
                if bound.iter().any(stands_in_the_way) { Err(Error::AddrInUse) } else { Ok(()) }
            };
            let local = SocketAddr::new(local.ip(), port);
            shared.udp_binds.insert(port, free, || UdpSocket::new(shared, scope.clone(), local, &options))
        };
        if local.port() != 0 {
            return bind(local.port());
        }
        let allowed = |port: &u16| match &network {
            Some(network) => network.allows(*port),
            None => self.allows_port(&scope, *port),
        };
        let ephemeral = || shared.ephemeral.candidates(local.ip(), None);
        // The look comes first, because binding takes the table's lock exclusively.
        let free =
            |port: u16| (!shared.udp_binds.occupied(port, &scope, local.ip())).then(|| bind(port).ok())?;
        let mut found = ephemeral().filter(allowed).find_map(free);
        // Clients must not use up the few ports that a network leaves for services.
        if !options.any_port {
            // Services mostly use the first ports of a range, so those stay free for longest.
            found = found.or_else(|| (1..=u16::MAX).rev().filter(allowed).find_map(free));
        }
        let found = found.or_else(|| ephemeral().find_map(free));
        found.ok_or(Error::AddrInUse)
    }

    /// Returns the interface of a bind, `None` for a wildcard over all.
    pub(crate) fn bind_network(
        &self,
        scope: &Scope,
        address: IpAddr,
    ) -> Result<Option<Arc<Interface>>, Error> {
        let interfaces = &self.shared.interfaces;
        // A group is not an address of any node; a socket bound to a group receives nothing else.
        let is_any = |address: IpAddr| address.is_unspecified() || address.is_multicast();
        match scope.device() {
            Some(id) => {
                let network = interfaces.find(id).filter(|_| scope.admits(id));
                let network = network.ok_or(Error::NetworkUnreachable)?;
                let suits = is_any(address) || network.is_local(address);
                if suits { Ok(Some(network)) } else { Err(Error::AddrNotAvailable) }
            }
            None if is_any(address) => Ok(None),
            None => interfaces.owner(scope, address).map(Some).ok_or(Error::AddrNotAvailable),
        }
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) has something to do. Takes no lock.
    /// Ask again after any other call, because a flow may have got an earlier deadline.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Shared { timers, reassembly, path_mtus, memberships, memory, .. } = &*self.shared;
        let next = earlier(timers.next(), earlier(memory.next_relief(), memory.chunks().next_trim()));
        let next = earlier(next, earlier(reassembly.next(), path_mtus.next()));
        let next = if memberships.changed() { Some(Time::ZERO) } else { next };
        next.map(|time| self.shared.clock.instant(time))
    }

    /// Handles the timers that are due at `now`.
    pub fn handle_timeout(&self, now: Instant, batch: &mut Batch) {
        let time: Time = self.shared.clock.time(now);
        // `on_timer` needs the batch itself, so the list is taken out of it.
        let mut due = std::mem::take(&mut batch.due);
        self.shared.timers.fire(time, Batch::FLOWS_PER_TIMEOUT, &mut due);
        for (tick, flow) in due.drain(..) {
            if let Some(flow) = flow.upgrade()
                && flow.on_timer(tick, time, batch)
            {
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
        batch.due = due;
        self.relieve_memory(now, time, batch);
        self.shared.memory.chunks().trim(time);
        self.expire_fragments(time, batch);
        self.shared.path_mtus.expire(time);
        self.shared.memberships.take_changes(&mut batch.memberships);
    }

    /// Makes the flows to some addresses retransmit outstanding data at once, without waiting for their
    /// timers. Everything sent before counts as lost. The flows are listed in `batch`.
    ///
    /// Visits only the flows to these addresses.
    pub fn expedite_flows(&self, interface: InterfaceId, remotes: &[Cidr], batch: &mut Batch) {
        self.expedite(interface, remotes, false, batch);
    }

    /// Does the same as [`expedite_flows`](Self::expedite_flows), but only for flows whose retransmission
    /// timer has fired. Packets pass again after a possible outage, and those timers may have grown to a
    /// minute. Flows without loss continue undisturbed.
    ///
    /// Call it only after certain evidence, such as an authentic packet of the peer. An ICMP message or
    /// another forgeable event must not make flows send (RFC 5927).
    pub fn revive_flows(&self, interface: InterfaceId, remotes: &[Cidr], batch: &mut Batch) {
        self.expedite(interface, remotes, true, batch);
    }

    /// Returns true if a connection to any of these addresses waits for an acknowledgement.
    pub fn has_waiting_flows(&self, interface: InterfaceId, remotes: &[Cidr]) -> bool {
        self.flows_to(interface, remotes).any(|flow| flow.is_waiting())
    }

    fn expedite(&self, interface: InterfaceId, remotes: &[Cidr], stalled: bool, batch: &mut Batch) {
        for flow in self.flows_to(interface, remotes) {
            if flow.expedite(stalled) {
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
    }

    fn flows_to(&self, interface: InterfaceId, remotes: &[Cidr]) -> impl Iterator<Item = Arc<Flow>> {
        remotes.iter().flat_map(move |remote| self.shared.flows.of_peer(interface, *remote))
    }

    /// Ends the connections to some addresses as a reset from there would, because the peer's program is
    /// gone. They fail with [`Error::ConnectionReset`] and are listed in `batch`. Connections in TIME-WAIT
    /// are removed; connection attempts and all other sockets continue.
    ///
    /// In blocks of addresses among `remotes`, addresses for which `is_theirs` is false belong to other
    /// peers.
    ///
    /// Visits only the flows to these addresses.
    pub fn lose_peer(
        &self,
        now: Instant,
        interface: InterfaceId,
        remotes: &[Cidr],
        departure: Departure,
        is_theirs: impl Fn(IpAddr) -> bool,
        batch: &mut Batch,
    ) {
        for flow in self.flows_to(interface, remotes) {
            let is_open = departure == Departure::Barred && flow.state() != State::TimeWait;
            if is_theirs(flow.remote().ip()) && flow.lose_peer(now, departure) {
                if is_open {
                    self.shared.counters.tcp_barred.increment();
                }
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
    }

    /// Ends the connections to some addresses that wait for an acknowledgement, because it cannot come. They
    /// fail with `error`, the peer gets a reset, and they are listed in `batch`.
    pub fn fail_waiting(
        &self,
        now: Instant,
        interface: InterfaceId,
        remotes: &[Cidr],
        error: Error,
        batch: &mut Batch,
    ) {
        for flow in self.flows_to(interface, remotes) {
            if flow.fail_waiting(now, error) {
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
    }

    /// Returns the counters. The call updates `tcp_bytes_reordered`, which connections count together.
    pub fn counters(&self) -> &Arc<Counters> {
        self.shared.counters.tcp_bytes_reordered.add(self.shared.memory.take_reordered());
        &self.shared.counters
    }

    /// Returns the number of TCP flows in any state, TIME-WAIT included.
    pub fn flows(&self) -> usize {
        self.shared.flows.len()
    }

    /// Returns the bytes of the queues of all TCP flows, as charged to the limits
    /// [`Config::tcp_memory`](crate::Config::tcp_memory) and
    /// [`Config::tcp_memory_per_peer`](crate::Config::tcp_memory_per_peer). For each flow, less than 4 KiB or
    /// an eighth may be missing.
    pub fn tcp_memory(&self) -> usize {
        self.shared.memory.used()
    }

    /// Returns the number of TCP flows in TIME-WAIT, which are ended and kept for late segments only. Visits
    /// every flow.
    pub fn time_waits(&self) -> usize {
        // Counted outside the table's locks, because no flow may be locked under them.
        let flows = self.shared.flows.filter(|_| true);
        flows.iter().filter(|flow| flow.state() == State::TimeWait).count()
    }
}

impl Drop for Stack {
    /// Clears the tables, because tables and sockets refer to each other and would never be freed.
    fn drop(&mut self) {
        self.shared.flows.clear();
        self.shared.ended.clear();
        self.shared.orphans.clear();
        self.shared.listeners.clear();
        self.shared.udp_binds.clear();
        self.shared.udp_connected.clear();
        self.shared.icmp.clear();
        self.shared.raw.clear();
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("flows", &self.flows()).finish_non_exhaustive()
    }
}

/// Returns the local address of a new connection.
fn local_address(network: &Interface, local: Option<SocketAddr>, remote: IpAddr) -> Result<IpAddr, Error> {
    match local.map(|local| local.ip()) {
        Some(ip) if ip.is_ipv4() != remote.is_ipv4() => Err(Error::AddressFamily),
        Some(ip) if !ip.is_unspecified() => {
            if network.is_local(ip) {
                Ok(ip)
            } else {
                Err(Error::AddrNotAvailable)
            }
        }
        _ => network.source_for(remote).ok_or(Error::AddressFamily),
    }
}
