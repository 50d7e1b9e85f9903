//! Look-up of the peer that owns an inner address, and a queue of packets for peers unknown or without a
//! session.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{Lookup, NetworkIndex, Peer, Route};
use peersock_stack::{Batch, Error, Flow, InterfaceId, Scope, State};

use crate::Datapath;
use crate::socket::{Kept, SocketState};

/// Time that a packet may wait for its destination to be found; then the socket gets EHOSTUNREACH, as from a
/// kernel's neighbour discovery (three solicitations, one second apart; RFC 4861 section 10). A peer that
/// takes longer seems absent until then. The overlay continues the search, so a later attempt finds a
/// session.
const FIND_PEER: Duration = Duration::from_secs(3);

/// Interval of the sweep for ended connections among those that wait for a silent peer. It is longer than the
/// longest time between two SYNs, because each SYN has the overlay report anew.
const LONGEST_SILENCE: Duration = Duration::from_secs(150);

/// Silence after which the overlay tests whether a path still carries its datagram size: the least time after
/// which the stack sends again.
const PATH_DOUBT_SILENCE: Duration = Duration::from_millis(200);
/// Silence after which the overlay doubts the session too: the minimum retransmission timeout of RFC 6298
/// section 2.4.
const SESSION_DOUBT_SILENCE: Duration = Duration::from_secs(1);

/// Limit of queued packets without a flow (UDP, ICMP) per destination; the oldest is dropped first.
const MAX_WAITING_PACKETS: usize = 32;
/// Limit of queued bytes for all destinations together; further packets are dropped.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Limit of destinations with queued packets; packets to further ones are dropped.
const MAX_WAITING_DESTINATIONS: usize = 4096;

/// Result of a look-up.
#[derive(Debug)]
pub enum Resolved {
    /// Route that packets take.
    Route(Route),
    /// Unknown destination; the overlay is searching for it.
    Unknown,
    /// Address that no member of the network can have.
    NoRoute,
}

/// Result of a look-up in the table of routes.
enum Known {
    Route(Route),
    /// Network in which the address has no known owner.
    Nobody(NetworkIndex),
    /// Interface without a network.
    NoNetwork,
}

impl Datapath {
    /// Returns the interface of the scope whose network contains `address`, as a member's address or this
    /// node's own.
    pub fn interface_to(&self, now: Instant, scope: &Scope, address: IpAddr) -> Option<InterfaceId> {
        let networks = self.networks();
        // An exit, to which all other addresses lead, is for the packets of a device alone.
        let mut in_stack = networks.iter().filter(|network| {
            let is_near = || network.routes.iter().any(|route| route.contains(address));
            scope.admits(network.interface) && (network.device.is_none() || is_near())
        });
        let found = in_stack.find(|network| !matches!(self.find(now, network, address), Lookup::NoRoute))?;
        Some(found.interface)
    }

    /// Returns the route of packets to an address. Asks control only about an address that the table does not
    /// know.
    pub fn resolve(
        &self,
        now: Instant,
        interface: InterfaceId,
        socket: Option<&SocketState>,
        destination: IpAddr,
    ) -> Resolved {
        let network = match self.known(interface, socket, destination) {
            Known::Route(route) => return Resolved::Route(route),
            Known::Nobody(network) => network,
            Known::NoNetwork => return Resolved::NoRoute,
        };
        match self.look_up(now, network, destination) {
            Lookup::Local => Resolved::Route(Route::Local),
            Lookup::Peer(peer) => Resolved::Route(Route::Peer(peer)),
            Lookup::Unknown => Resolved::Unknown,
            // `Lookup` may get further variants; today none of them leads anywhere.
            _ => Resolved::NoRoute,
        }
    }

    /// Looks an address up in the table of routes.
    fn known(&self, interface: InterfaceId, socket: Option<&SocketState>, destination: IpAddr) -> Known {
        // Read before the table: an entry found there is valid until this number changes.
        let generation = self.routes.generation();
        let network = match socket.and_then(|socket| socket.kept(generation, interface)) {
            Some(kept) if kept.destination == destination => return Known::Route(kept.route),
            Some(kept) => Some(kept.network),
            None => self.network_by_interface(interface),
        };
        let Some(network) = network else { return Known::NoNetwork };
        let Some(route) = self.routes.get(network, destination) else { return Known::Nobody(network) };
        if let Some(socket) = socket {
            socket.keep(Kept { generation, interface, network, destination, route: route.clone() });
        }
        Known::Route(route)
    }

    /// Reports peers to the overlay whose flows had a timer fire without an answer. Their path or session may
    /// be dead, or lose large packets.
    pub(super) fn report_silence(&self, now: Instant, batch: &mut Batch) {
        let mut silent: Vec<(Arc<Peer>, Duration)> = Vec::new();
        for flow in &batch.flows {
            let Some(silence) = flow.silence(now).filter(|silence| *silence >= PATH_DOUBT_SILENCE) else {
                continue;
            };
            let socket = SocketState::of(flow.context());
            let known = self.known(flow.interface(), Some(socket), flow.remote().ip());
            let Known::Route(Route::Peer(peer)) = known else { continue };
            // One report per peer, because each takes the control lock.
            match silent.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &peer)) {
                Some((_, longest)) => *longest = silence.max(*longest),
                None => silent.push((peer, silence)),
            }
        }
        for (peer, silence) in silent {
            self.with_control(now, batch, |endpoint, now| match silence >= SESSION_DOUBT_SILENCE {
                true => endpoint.peer_unresponsive(now, &peer),
                false => endpoint.path_suspected(now, &peer),
            });
        }
    }

    /// Fails packets and flows that have waited too long for their destination to be found.
    pub(super) fn expire_waiting(&self, now: Instant) {
        let expired = self.lock_waiting().take_expired(now);
        for ((interface, address), entry) in expired {
            self.fail_waiting(now, interface, entry);
            self.tell_unanswered(interface, address);
        }
    }

    pub(super) fn fail_waiting(&self, now: Instant, interface: InterfaceId, entry: Entry) {
        self.counters.out_unreachable.add(entry.packets.len() as u64);
        for packet in &entry.packets {
            self.answer_waiting(now, interface, packet);
        }
        for flow in entry.flows {
            // An established connection outlives its peer's absence, as over any network; only a new one
            // fails.
            if flow.state().is_connecting() {
                flow.fail(now, Error::HostUnreachable);
                self.notify_flow(&flow);
            }
        }
    }
}

/// Packets and flows that wait for a destination to be found or to have a session.
#[derive(Default)]
pub(super) struct Waiting {
    entries: BTreeMap<(InterfaceId, IpAddr), Entry>,
    /// Search time per destination, if not [`FIND_PEER`].
    pub(super) patience: Option<Duration>,
    /// Total size of the packets of all entries.
    bytes: usize,
}

pub(super) struct Entry {
    pub(super) flows: Vec<Arc<Flow>>,
    pub(super) packets: VecDeque<Vec<u8>>,
    since: Instant,
    /// Time to give up; `None` while the overlay itself tries, because it reports the outcome.
    deadline: Option<Instant>,
    /// The destination has an address and does not answer: connections wait for as long as they ask
    /// themselves.
    is_silent: bool,
}

impl Waiting {
    pub(super) fn add_flow(&mut self, now: Instant, found: bool, flow: &Arc<Flow>) {
        if let Some(entry) = self.entry(now, found, flow.interface(), flow.remote().ip())
            && !entry.flows.iter().any(|known| Arc::ptr_eq(known, flow))
        {
            // Those that were closed meanwhile wait for nothing. Only a full list is looked through, because
            // each look locks a flow.
            if entry.flows.len() == entry.flows.capacity() {
                entry.flows.retain(|known| known.state() != State::Closed);
                entry.flows.reserve(entry.flows.len() + 1);
            }
            entry.flows.push(Arc::clone(flow));
        }
    }

    /// Queues a packet; returns false if it or an older one was dropped.
    pub(super) fn add_packet(
        &mut self,
        now: Instant,
        found: bool,
        interface: InterfaceId,
        destination: IpAddr,
        packet: &[u8],
    ) -> bool {
        if self.bytes + packet.len() > MAX_WAITING_BYTES {
            return false;
        }
        let Some(entry) = self.entry(now, found, interface, destination) else { return false };
        if entry.is_silent && entry.packets.is_empty() {
            entry.since = now;
        }
        // RFC 1122 2.3.2.2 asks to keep the latest packet for a neighbour that is not resolved yet.
        let full = entry.packets.len() == MAX_WAITING_PACKETS;
        let oldest = if full { entry.packets.pop_front() } else { None };
        entry.packets.push_back(packet.to_vec());
        self.bytes += packet.len();
        self.bytes -= oldest.map_or(0, |packet| packet.len());
        !full
    }

    fn remove(&mut self, key: &(InterfaceId, IpAddr)) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.packets.iter().map(Vec::len).sum::<usize>();
        Some(entry)
    }

    fn entry(&mut self, now: Instant, found: bool, interface: InterfaceId, to: IpAddr) -> Option<&mut Entry> {
        let known = self.entries.contains_key(&(interface, to));
        let patience = self.patience.unwrap_or(FIND_PEER);
        // A scan of a network must not use unbounded memory.
        if !known && self.entries.len() == MAX_WAITING_DESTINATIONS {
            return None;
        }
        let entry = self.entries.entry((interface, to)).or_insert_with(|| Entry {
            flows: Vec::new(),
            packets: VecDeque::new(),
            since: now,
            deadline: Some(now + patience),
            is_silent: false,
        });
        if found {
            entry.deadline = None;
        }
        Some(entry)
    }

    /// Takes the entries of one interface whose addresses match `wanted`.
    pub(super) fn take(
        &mut self,
        interface: InterfaceId,
        wanted: impl Fn(IpAddr) -> bool,
    ) -> Vec<((InterfaceId, IpAddr), Entry)> {
        let keys: Vec<_> =
            self.entries.keys().filter(|(i, address)| *i == interface && wanted(*address)).copied().collect();
        keys.into_iter().filter_map(|key| Some((key, self.remove(&key)?))).collect()
    }

    /// Notes that the peer with these addresses was found, so that only the overlay gives up the wait.
    /// Returns true if any entry matches.
    pub(super) fn found(&mut self, interface: InterfaceId, wanted: impl Fn(IpAddr) -> bool) -> bool {
        let mut any = false;
        for ((_, address), entry) in self.entries.iter_mut().filter(|((i, _), _)| *i == interface) {
            if wanted(*address) {
                entry.deadline = None;
                any = true;
            }
        }
        any
    }

    /// Limits how long what waits for these addresses has waited in all; not for connections, if the
    /// addresses are silent.
    pub(super) fn limit(
        &mut self,
        interface: InterfaceId,
        wanted: impl Fn(IpAddr) -> bool,
        patience: Duration,
        is_silent: bool,
    ) {
        for ((_, _), entry) in
            self.entries.iter_mut().filter(|((i, address), _)| *i == interface && wanted(*address))
        {
            entry.deadline = Some(entry.since + patience);
            entry.is_silent = is_silent;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.deadline).min()
    }

    fn take_expired(&mut self, now: Instant) -> Vec<((InterfaceId, IpAddr), Entry)> {
        let due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.deadline.is_some_and(|deadline| deadline <= now))
            .map(|(key, _)| *key)
            .collect();
        due.into_iter().filter_map(|key| Some((key, self.take_late(now, key)?))).collect()
    }

    /// Takes what has waited too long. Connections to a silent peer stay as long as they repeat their SYN.
    fn take_late(&mut self, now: Instant, key: (InterfaceId, IpAddr)) -> Option<Entry> {
        let mut entry = self.remove(&key)?;
        if entry.is_silent {
            entry.flows.retain(|flow| flow.state() != State::Closed);
            if entry.flows.is_empty() && entry.packets.is_empty() {
                return None;
            }
            let (connecting, others) = entry.flows.into_iter().partition(|flow| flow.state().is_connecting());
            entry.flows = others;
            if !connecting.is_empty() {
                let deadline = Some(now + LONGEST_SILENCE);
                let left = Entry {
                    flows: connecting,
                    packets: VecDeque::new(),
                    since: now,
                    deadline,
                    is_silent: true,
                };
                self.entries.insert(key, left);
            }
        }
        Some(entry)
    }
}
