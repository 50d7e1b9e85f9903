//! The stack: interfaces, sockets, timers. How packets find their socket is in `receive.rs`.

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
    Listener, Owners, RawSocket, State, TcpOptions, UdpOptions, UdpSocket,
};
use peersock_primitives::Key;

/// The TCP/IP stack of one node. See the [crate's documentation](crate) for how to drive it.
///
/// Any thread may call it. Its locks are short and there is none that all packets take: the
/// demultiplexer is sharded, each flow has its own, and timers are touched only when a flow gets an
/// earlier deadline. Dropping the stack ends its sockets without a word to anybody.
pub struct Stack {
    pub(crate) shared: Arc<Shared>,
}

/// What the stack and its sockets share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
    pub(crate) rounds: Rounds,
    pub(crate) timers: Timers<std::sync::Weak<Flow>>,
    pub(crate) interfaces: Interfaces,
    pub(crate) flows: FlowTable,
    /// Which addresses belong to one peer.
    pub(crate) owners: OnceLock<Arc<dyn Owners>>,
    pub(crate) listeners: Binds<Listener>,
    /// Which of several listeners on a port gets a connection.
    pub(crate) listener_key: Key,
    pub(crate) udp_connected: ConnectedUdp,
    pub(crate) udp_binds: Binds<UdpSocket>,
    /// Bound to their identifier.
    pub(crate) icmp: Binds<IcmpSocket>,
    /// Bound to their protocol.
    pub(crate) raw: Binds<RawSocket>,
    pub(crate) icmp_rates: Rates,
    pub(crate) reassembly: Reassembly,
    pub(crate) path_mtus: PathMtus,
    pub(crate) memberships: Memberships,
    pub(crate) idents: Identifications,
    /// What the buffers of all connections occupy.
    pub(crate) memory: Arc<Memory>,
    /// Which part of the flows is looked through next while memory is short.
    pub(crate) relieved: AtomicUsize,
    /// Connections that have ended and that the application can still read, the oldest first.
    pub(crate) ended: FlowList,
    /// Connections that their application has closed, with much to deliver then, the oldest first.
    pub(crate) orphans: FlowList,
    pub(crate) sequence_key: Key,
    pub(crate) cookies: Cookies,
    pub(crate) ephemeral: Ephemeral,
}

impl Stack {
    /// A stack without interfaces. Everything that must not be guessed (initial sequence numbers, ports,
    /// the order in hash tables) comes from `seed`, which must be secret and different for each stack.
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
    /// removed: the resets are the output of the flows in `batch`, and this end is told
    /// [`Error::NetworkDown`].
    ///
    /// What is in TIME-WAIT acknowledges the peer's FIN once more: if the first time was in vain, nobody will
    /// answer when the peer sends it again. What is closed in FIN-WAIT-2 sends nothing: the peer has
    /// everything, and a reset would tell it that something was not read.
    pub fn reset_flows(&self, now: Instant, interface: InterfaceId, batch: &mut Batch) {
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface)) {
            flow.repeat_last_ack(now, batch);
            flow.abandon(now);
            batch.touch_flow(&self.shared.rounds, flow);
        }
    }

    /// Removes an interface. Its sockets fail with [`Error::NetworkDown`] and are listed in `batch`; peers
    /// are told nothing, see [`Stack::reset_flows`].
    pub fn remove_interface(&self, now: Instant, interface: InterfaceId, batch: &mut Batch) {
        if self.shared.interfaces.remove(interface).is_none() {
            return;
        }
        self.shared.memberships.remove_interface(interface);
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface)) {
            flow.fail(now, Error::NetworkDown);
            batch.touch_flow(&self.shared.rounds, flow);
        }
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

    /// Replaces an interface's addresses. Flows of an address that is gone fail with
    /// [`Error::AddrNotAvailable`] and are listed in `batch`.
    pub fn set_addresses(&self, now: Instant, interface: InterfaceId, addresses: &[Cidr], batch: &mut Batch) {
        if !self.shared.interfaces.set_addresses(interface, addresses) {
            return;
        }
        let kept = |address| addresses.iter().any(|own| own.address() == address);
        for flow in self.shared.flows.filter(|flow| flow.is_on(interface) && !kept(flow.local().ip())) {
            flow.fail(now, Error::AddrNotAvailable);
            batch.touch_flow(&self.shared.rounds, flow);
        }
    }

    /// Whether `address` is one of the node's own on that interface.
    pub fn is_local(&self, interface: InterfaceId, address: IpAddr) -> bool {
        self.shared.interfaces.find(interface).is_some_and(|interface| interface.is_local(address))
    }

    /// Whether packets to `group` that come in on that interface are for the node: a socket has joined it, or
    /// it is the group of all nodes.
    pub fn is_member(&self, interface: InterfaceId, group: IpAddr) -> bool {
        self.shared.memberships.contains(interface, group)
    }

    /// The interface whose network holds `remote`.
    pub fn route(&self, remote: IpAddr) -> Option<InterfaceId> {
        self.shared.interfaces.route(remote).map(|interface| interface.id)
    }

    /// The own address to reach `remote` from (RFC 6724).
    pub fn source_address(&self, interface: InterfaceId, remote: IpAddr) -> Option<IpAddr> {
        self.shared.interfaces.find(interface)?.source_for(remote)
    }

    /// Opens a connection to `remote`. The SYN is the flow's first [`egress`](Flow::egress).
    ///
    /// Without `local`, or with an unspecified address or port 0 in it, address and port are chosen.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] if the network does not allow the remote port,
    /// [`Error::AddrInUse`] if the connection exists or a listener has the local port,
    /// [`Error::AddrNotAvailable`] if the local address is not the node's or no port is free,
    /// [`Error::AddressFamily`], [`Error::NetworkUnreachable`] for a bad `remote` or interface,
    /// [`Error::OutOfMemory`] beyond [`Config::max_flows`].
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
        if !is_unicast(remote.ip()) {
            return Err(Error::NetworkUnreachable);
        }
        if remote.port() == 0 {
            return Err(Error::InvalidInput);
        }
        if !interface.allows(remote.port()) {
            return Err(Error::PermissionDenied);
        }
        if shared.flows.len() >= shared.config.max_flows {
            return Err(Error::OutOfMemory);
        }
        let address = local_address(&interface, local, remote.ip())?;
        let listening = |port| shared.listeners.occupied(port, Some(interface.id), address);
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

    /// Makes a flow for these addresses, unless there is one that does not give way.
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
        if shared.flows.find(&key).is_some_and(|old| !old.make_room(time, isn)) {
            return None;
        }
        let share = shared.share(interface.id, addresses.1.ip());
        let settings = Flow::settings(shared, interface, options, &share);
        let connection = Connection::connect(settings, time, addresses, isn);
        let flow = Flow::new(shared, interface.clone(), addresses, connection, options, time, None);
        if !shared.flows.insert(&flow, &share) {
            return None;
        }
        flow.begin(time);
        shared.counters.tcp_connects.increment();
        Some(flow)
    }

    /// Binds a UDP socket to `local`: its address may be unspecified, port 0 means any free one. Without
    /// an interface it receives on all that have the address.
    ///
    /// Port 0 gives one that the network allows, so that peers can reach it; of a wildcard address one that
    /// any network does. Where none of these is free, or [`UdpOptions::any_port`] is on, it is an ephemeral
    /// one to which answers come.
    ///
    /// # Errors
    /// [`Error::AddrInUse`] if a socket overlaps and not both have
    /// [`reuse_address`](UdpOptions::reuse_address); [`Error::AddrNotAvailable`],
    /// [`Error::NetworkUnreachable`] for a foreign address or unknown interface. Whether the network allows
    /// a port is decided per datagram: answers come to any, see the [crate's documentation](crate).
    pub fn udp_bind(
        &self,
        interface: Option<InterfaceId>,
        local: SocketAddr,
        options: UdpOptions,
    ) -> Result<Arc<UdpSocket>, Error> {
        let shared = &self.shared;
        let local = canonical(local);
        let network = self.bind_network(interface, local.ip())?;
        let bind = |port: u16| {
            let free = |bound: &[Arc<UdpSocket>]| {
                use crate::socket::demux::Bound;
                let stands_in_the_way = |other: &Arc<UdpSocket>| {
                    other.overlaps(interface, local.ip()) && !other.shares_with(&options)
                };
                if bound.iter().any(stands_in_the_way) { Err(Error::AddrInUse) } else { Ok(()) }
            };
            let local = SocketAddr::new(local.ip(), port);
            shared.udp_binds.insert(port, free, || UdpSocket::new(shared, interface, local, &options))
        };
        if local.port() != 0 {
            return bind(local.port());
        }
        let allowed = |port: &u16| match &network {
            Some(network) => network.allows(*port),
            None => self.allows_port(*port),
        };
        let ephemeral = || shared.ephemeral.candidates(local.ip(), None);
        let free =
            |port: u16| (!shared.udp_binds.occupied(port, interface, local.ip())).then(|| bind(port).ok())?;
        let mut found = ephemeral().filter(allowed).find_map(free);
        if !options.any_port {
            // Services are mostly at the first ports of a range: those are left free for longest.
            found = found.or_else(|| (1..=u16::MAX).rev().filter(allowed).find_map(free));
        }
        let found = found.or_else(|| ephemeral().find_map(free));
        found.ok_or(Error::AddrInUse)
    }

    /// The interface that a bind is meant for, `None` for a wildcard over all.
    pub(crate) fn bind_network(
        &self,
        interface: Option<InterfaceId>,
        address: IpAddr,
    ) -> Result<Option<Arc<Interface>>, Error> {
        let interfaces = &self.shared.interfaces;
        // A group is nobody's address; to be bound to one means to receive nothing else.
        let is_any = |address: IpAddr| address.is_unspecified() || address.is_multicast();
        match interface {
            Some(id) => {
                let network = interfaces.find(id).ok_or(Error::NetworkUnreachable)?;
                let suits = is_any(address) || network.is_local(address);
                if suits { Ok(Some(network)) } else { Err(Error::AddrNotAvailable) }
            }
            None if is_any(address) => Ok(None),
            None => interfaces.owner(address).map(Some).ok_or(Error::AddrNotAvailable),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do. Takes no lock. Ask again after
    /// any other call: a flow may have got an earlier deadline.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Shared { timers, reassembly, path_mtus, memberships, memory, .. } = &*self.shared;
        let next = earlier(timers.next(), earlier(memory.next_relief(), memory.chunks().next_trim()));
        let next = earlier(next, earlier(reassembly.next(), path_mtus.next()));
        let next = if memberships.changed() { Some(Time::ZERO) } else { next };
        next.map(|time| self.shared.clock.instant(time))
    }

    /// Lets the timers fire that are due at `now`.
    pub fn handle_timeout(&self, now: Instant, batch: &mut Batch) {
        let time: Time = self.shared.clock.time(now);
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

    /// Has the flows to some addresses send again at once what waits for an acknowledgement, without waiting
    /// for their retransmission timers: all that was sent before is lost. They are listed in `batch`.
    ///
    /// Looks at the flows to these addresses only.
    pub fn expedite_flows(&self, interface: InterfaceId, remotes: &[Cidr], batch: &mut Batch) {
        self.expedite(interface, remotes, false, batch);
    }

    /// As [`expedite_flows`](Self::expedite_flows), but only those flows whose retransmission timer has fired
    /// in vain: packets pass again after a while in which they perhaps did not, and those timers may have
    /// grown to a minute. Flows that lost nothing go on undisturbed.
    ///
    /// Call it for what is known for certain, such as an authentic packet of the peer: an ICMP message or
    /// anything else that strangers can forge must not make flows send (RFC 5927).
    pub fn revive_flows(&self, interface: InterfaceId, remotes: &[Cidr], batch: &mut Batch) {
        self.expedite(interface, remotes, true, batch);
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

    /// Ends the connections to some addresses as a reset from there would: the program that they were made
    /// with is gone. They fail with [`Error::ConnectionReset`] and are listed in `batch`. What is in
    /// TIME-WAIT gives way; a connection attempt goes on, and so do all other sockets.
    ///
    /// Of blocks of addresses among `remotes`, those for which `is_theirs` is false belong to somebody else.
    ///
    /// Looks at the flows to these addresses only.
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
            if is_theirs(flow.remote().ip()) && flow.lose_peer(now, departure) {
                batch.touch_flow(&self.shared.rounds, flow);
            }
        }
    }

    /// Ends the connections to some addresses of which something waits for an acknowledgement, which cannot
    /// come: they fail with `error`, and the peer gets a reset. They are listed in `batch`.
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

    /// Counts of what happened. What connections count together, `tcp_bytes_reordered`, is up to date when
    /// this is called.
    pub fn counters(&self) -> &Arc<Counters> {
        self.shared.counters.tcp_bytes_reordered.add(self.shared.memory.take_reordered());
        &self.shared.counters
    }

    /// How many TCP flows there are, in any state, TIME-WAIT included.
    pub fn flows(&self) -> usize {
        self.shared.flows.len()
    }

    /// Bytes that the queues of all TCP flows occupy, as far as the limits
    /// [`Config::tcp_memory`](crate::Config::tcp_memory) and
    /// [`Config::tcp_memory_per_peer`](crate::Config::tcp_memory_per_peer) know: of each flow less than 4
    /// KiB, or an eighth, may be missing.
    pub fn tcp_memory(&self) -> usize {
        self.shared.memory.used()
    }

    /// How many of the TCP flows are in TIME-WAIT: ended, and kept for late segments only. Looks at every
    /// flow.
    pub fn time_waits(&self) -> usize {
        // Outside of the table's locks, under which no flow may be locked.
        let flows = self.shared.flows.filter(|_| true);
        flows.iter().filter(|flow| flow.state() == State::TimeWait).count()
    }
}

impl Drop for Stack {
    /// The tables hold the sockets and the sockets hold what is shared, so somebody has to let go.
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

/// The own address of a new connection.
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
