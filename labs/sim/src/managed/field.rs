//! Machines with real endpoints in one virtual time, and the paths between them.
//!
//! Sites are local networks, on which beacons are heard. All other paths are between two addresses: with
//! latency, loss, copies and another order. They can be cut between groups, and flap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::membership::{Answer, Denial};
use peersock_overlay::wire::MessageType;
use peersock_overlay::{
    Attention, Candidate, CandidateKind, Contact, DATA_OVERHEAD, Endpoint, EndpointConfig, Event, Identity,
    ManagedNetwork, Nat, NetworkConfig, NetworkIndex, NodeId, Peer, Place, RecvMeta, SocketIndex, SocketInfo,
};
use peersock_testnet::{Queue, Random};

use crate::Time;
use crate::trace::Trace;

/// True time at which each story begins.
pub(super) const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);

/// Multicast group of the beacons.
const GROUP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(239, 255, 112, 115)), 7777);

/// Number of machines on one local network.
const PER_SITE: usize = 10;

/// First byte of the packets of programs.
const PACKET: u8 = 0x60;

/// Second byte of a packet that is answered, and of the answer. The time of sending follows in both.
const PING: u8 = 8;
const PONG: u8 = 9;

/// One machine, with what survives a restart of its node.
pub(super) struct Machine {
    pub(super) identity: Arc<Identity>,
    pub(super) address: SocketAddr,
    pub(super) site: usize,
    /// Contents of the state directory.
    pub(super) disk: ManagedNetwork,
    /// Milliseconds by which the clock is ahead of the true time at the next start.
    pub(super) clock: i64,
    pub(super) endpoint: Option<Endpoint>,
    /// Number of starts, and the time of the last one.
    pub(super) starts: u64,
    pub(super) started: Time,
    /// Time of the last answer of a controller in this run that was no denial.
    pub(super) answered: Option<Time>,
    /// True if the owner is hostile: what it hears of removals it does not obey, and does not keep.
    pub(super) is_hostile: bool,
    /// True if the node has learned revocations that its controller has not looked at.
    pub(super) has_news: bool,
    index: NetworkIndex,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    wake: Option<Time>,
}

impl Machine {
    pub(super) fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    pub(super) fn is_up(&self) -> bool {
        self.endpoint.is_some()
    }

    pub(super) fn index(&self) -> NetworkIndex {
        self.index
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (&NodeId, &Arc<Peer>)> {
        self.peers.iter()
    }

    /// Returns true if the machine has admitted the node and has a session with it.
    pub(super) fn is_connected(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.is_admitted() && peer.session().is_some())
    }

    /// Writes what the node has learned into the state directory.
    fn keep(&mut self) {
        let Some(known) = self.endpoint.as_ref().and_then(|endpoint| endpoint.membership(self.index)) else {
            return;
        };
        self.disk.key = known.key().copied();
        if let Some(credentials) = known.credentials() {
            self.disk.credentials = Some(credentials.clone());
            self.disk.request.token = None;
        }
        self.disk.controllers = known.controllers().to_vec();
        self.disk.signed_time = known.signed_time();
        if !self.is_hostile {
            self.disk.revocations = known.heads().cloned().collect();
            self.disk.others = known.other_revocations();
        }
    }
}

/// Packet of a program that a machine has accepted.
pub(super) struct Arrival {
    pub(super) at: usize,
    pub(super) from: NodeId,
}

/// Question to a controller that a machine has received.
pub(super) struct Asked {
    pub(super) at: usize,
    pub(super) peer: Arc<Peer>,
    pub(super) number: u32,
    pub(super) question: peersock_overlay::membership::Question,
}

/// Faults of the paths.
#[derive(Default)]
pub(super) struct Faults {
    /// Group of each machine; nothing passes between two groups.
    pub(super) groups: BTreeMap<usize, u8>,
    /// Machines that are cut off from all others, for long.
    pub(super) island: BTreeSet<usize>,
    /// Length of the intervals for which a path is up or down, while all paths flap.
    pub(super) flaps: Option<Duration>,
    /// Probability with which a datagram is lost.
    pub(super) loss: f64,
}

enum Item {
    Datagram { from: SocketAddr, to: usize, is_multicast: bool, bytes: Vec<u8> },
    Wake { machine: usize, start: u64 },
}

/// All machines and all datagrams under way.
pub(super) struct Field {
    base: Instant,
    pub(super) now: Time,
    pub(super) machines: Vec<Machine>,
    pub(super) faults: Faults,
    pub(super) arrived: Vec<Arrival>,
    /// Round trip times of the pings that were answered.
    pub(super) pings: Vec<Duration>,
    pub(super) asked: Vec<Asked>,
    /// Machines to which a controller has answered that they are no members any more.
    pub(super) removed: Vec<usize>,
    pub(super) sent: u64,
    /// Number of initiations among them, each of which costs its sender three X25519 operations.
    pub(super) begun: u64,
    pub(super) trace: Trace,
    places: BTreeMap<SocketAddr, usize>,
    queue: Queue<Time, Item>,
    random: Random,
    /// Varies latencies and flaps from seed to seed.
    salt: u64,
}

impl Field {
    pub(super) fn new(mut random: Random, trace: Trace) -> Self {
        Self {
            base: Instant::now(),
            now: Time::ZERO,
            machines: Vec::new(),
            faults: Faults { loss: 0.002, ..Faults::default() },
            arrived: Vec::new(),
            pings: Vec::new(),
            asked: Vec::new(),
            removed: Vec::new(),
            sent: 0,
            begun: 0,
            trace,
            places: BTreeMap::new(),
            queue: Queue::default(),
            salt: random.number(),
            random,
        }
    }

    /// Returns the virtual time as the cores see it.
    pub(super) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Returns the time by a clock that is ahead of the true one by some milliseconds.
    pub(super) fn unix_time(&self, ahead: i64) -> Duration {
        let millis = u64::try_from((UNIX_TIME + self.now).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(millis.saturating_add_signed(ahead))
    }

    /// Adds a machine that does not run yet.
    pub(super) fn add(&mut self, seed: [u8; 32], disk: ManagedNetwork) -> usize {
        let number = self.machines.len();
        let (site, host) = (number / PER_SITE, number % PER_SITE);
        let address = SocketAddr::from(([45, 1, site as u8, host as u8 + 1], 4000));
        self.places.insert(address, number);
        self.machines.push(Machine {
            identity: Arc::new(Identity::from_seed(&seed)),
            address,
            site,
            disk,
            clock: 0,
            endpoint: None,
            starts: 0,
            started: Time::ZERO,
            answered: None,
            is_hostile: false,
            has_news: false,
            index: NetworkIndex(0),
            peers: BTreeMap::new(),
            wake: None,
        });
        number
    }

    /// Starts the node of a machine, which joins the network by what its state directory holds.
    pub(super) fn start(&mut self, number: usize) {
        let (now, seed, run) = (self.instant(), self.random.bytes(), self.random.number());
        let unix_time = self.unix_time(self.machines[number].clock);
        let machine = &mut self.machines[number];
        machine.starts += 1;
        (machine.started, machine.answered, machine.wake) = (self.now, None, None);
        machine.peers.clear();
        let mut config = EndpointConfig::new(Arc::clone(&machine.identity));
        config.birthday = false;
        let mut endpoint = Endpoint::new(config, seed, now, unix_time);
        let socket = SocketInfo {
            index: SocketIndex(0),
            ipv4: true,
            loopback: false,
            max_datagram: 65_507,
            beacon_targets: vec![GROUP],
        };
        endpoint.set_sockets(now, vec![socket]);
        endpoint.set_contact(now, contact(machine.address));
        (machine.disk.request.run, machine.disk.request.starts) = (run, machine.starts);
        let network = NetworkConfig::Managed(Box::new(machine.disk.clone()));
        machine.index = endpoint.join(now, network).expect("stories have sound networks");
        machine.endpoint = Some(endpoint);
        self.trace.note(self.now, format_args!("{number} starts"), &[]);
        self.drain(number);
    }

    /// Ends the node of a machine without a word.
    pub(super) fn crash(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.endpoint = None;
        machine.peers.clear();
        self.trace.note(self.now, format_args!("{number} crashes"), &[]);
    }

    /// Tells a machine where another one is, as a root or the DHT does.
    pub(super) fn introduce(&mut self, number: usize, other: usize) {
        let (now, id) = (self.instant(), self.machines[number].disk.id);
        let (identity, address) = (*self.machines[other].identity.public(), self.machines[other].address);
        if let Some(endpoint) = &mut self.machines[number].endpoint {
            endpoint.meet(now, &id, &identity, &contact(address), now);
            self.drain(number);
        }
    }

    /// Sends a packet of a program. Without a session it is lost, and one begins.
    pub(super) fn send(&mut self, from: usize, to: usize) {
        let (now, node) = (self.instant(), self.machines[to].id());
        let machine = &mut self.machines[from];
        let Some(endpoint) = &mut machine.endpoint else { return };
        let Some(peer) = machine.peers.get(&node).cloned() else { return self.introduce(from, to) };
        let datagram = peersock_testnet::send(endpoint, now, &peer, &[PACKET, 1, 2, 3]);
        if let Some((place, datagram)) = datagram {
            self.transmit(from, place.remote(), datagram);
        }
        self.drain(from);
    }

    /// Sends a message in the session with a peer, past all rules of the sender's own endpoint.
    pub(super) fn say(&mut self, from: usize, node: &NodeId, plaintext: &[u8]) {
        let (now, machine) = (self.instant(), &mut self.machines[from]);
        let Some(peer) = machine.peers.get(node) else { return };
        let (Some(session), Some(path)) = (peer.session(), peer.path()) else { return };
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        if session.seal(plaintext, &mut datagram).is_err() {
            return;
        }
        if session.note_sent(now)
            && let Some(endpoint) = &mut machine.endpoint
        {
            endpoint.session_attention(now, &session, Attention::Sent);
        }
        self.transmit(from, path.place.remote(), datagram);
        self.drain(from);
    }

    /// Sends a packet of a program that the other machine answers. Without a session it is lost.
    pub(super) fn ping(&mut self, from: usize, to: usize) {
        let (node, micros) = (self.machines[to].id(), self.now.as_micros() as u64);
        self.say(from, &node, &[&[PACKET, PING][..], &micros.to_be_bytes()].concat());
    }

    /// Answers a ping, or notes the answer.
    fn on_ping(&mut self, at: usize, from: &NodeId, packet: &[u8]) {
        let Ok([_, kind, sent @ ..]) = <[u8; 10]>::try_from(packet) else { return };
        match kind {
            PING => self.say(at, from, &[&[PACKET, PONG][..], &sent].concat()),
            PONG => self.pings.push(self.now.saturating_sub(Duration::from_micros(u64::from_be_bytes(sent)))),
            _ => {}
        }
    }

    /// Sends packets of a program to some peers with a session, also to peers that refuse them.
    pub(super) fn intrude(&mut self, from: usize) {
        for node in self.some_peers(from) {
            self.say(from, &node, &[PACKET, 6, 6, 6]);
        }
    }

    /// Returns three peers of a machine, or all.
    pub(super) fn some_peers(&mut self, number: usize) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.machines[number].peers.keys().copied().collect();
        while nodes.len() > 3 {
            nodes.swap_remove(self.random.below(nodes.len()));
        }
        nodes
    }

    /// Answers a question as the controller on that machine.
    pub(super) fn answer(&mut self, asked: &Asked, answer: &Answer) {
        let now = self.instant();
        if let Some(endpoint) = &mut self.machines[asked.at].endpoint {
            endpoint.answer(now, &asked.peer, asked.number, answer);
            self.drain(asked.at);
        }
    }

    /// Calls a machine's endpoint, and passes on what follows.
    pub(super) fn with<T>(
        &mut self,
        number: usize,
        call: impl FnOnce(&mut Endpoint, Instant) -> T,
    ) -> Option<T> {
        let now = self.instant();
        let done = self.machines[number].endpoint.as_mut().map(|endpoint| call(endpoint, now));
        self.drain(number);
        done
    }

    /// Returns true if datagrams pass from one machine to another now.
    pub(super) fn passes(&self, from: usize, to: usize) -> bool {
        let group = |machine| self.faults.groups.get(&machine).copied().unwrap_or(0);
        let is_away = |machine| self.faults.island.contains(&machine);
        if group(from) != group(to) || is_away(from) != is_away(to) {
            return false;
        }
        let Some(interval) = self.faults.flaps else { return true };
        let turn = self.now.as_millis() / interval.as_millis().max(1);
        mix(&[self.salt, from.min(to) as u64, from.max(to) as u64, turn as u64]) % 10 < 7
    }

    /// Returns the time of the next event.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.queue.next_at()
    }

    /// Handles the next event.
    pub(super) fn step(&mut self) {
        let Some(at) = self.queue.next_at() else { return };
        self.now = self.now.max(at);
        let now = self.instant();
        match self.queue.pop_due(self.now) {
            Some((_, Item::Datagram { from, to, is_multicast, bytes })) => {
                self.receive(to, from, is_multicast, &bytes);
            }
            Some((_, Item::Wake { machine: number, start })) => {
                let machine = &mut self.machines[number];
                if machine.starts != start || machine.wake != Some(at) {
                    return;
                }
                machine.wake = None;
                if let Some(endpoint) = &mut machine.endpoint {
                    endpoint.handle_timeout(now);
                    self.drain(number);
                }
            }
            None => {}
        }
    }

    fn receive(&mut self, to: usize, from: SocketAddr, is_multicast: bool, bytes: &[u8]) {
        let now = self.instant();
        let Some(endpoint) = &mut self.machines[to].endpoint else { return };
        let meta = RecvMeta { remote: from, socket: SocketIndex(0), multicast: is_multicast, relay: None };
        if let Some((session, packet)) = peersock_testnet::receive(endpoint, now, meta, bytes)
            && packet.first() == Some(&PACKET)
        {
            let from = *session.peer().id();
            self.arrived.push(Arrival { at: to, from });
            self.on_ping(to, &from, &packet);
        }
        self.drain(to);
    }

    /// Takes a machine's events and datagrams, and sets its alarm.
    fn drain(&mut self, number: usize) {
        let mut buffer = Vec::new();
        let now = self.instant();
        let machine = &mut self.machines[number];
        let Some(endpoint) = &mut machine.endpoint else { return };
        let (mut has_learned, mut out) = (false, Vec::new());
        while let Some(event) = endpoint.poll_event() {
            match event {
                Event::PeerAdded(peer) => _ = machine.peers.insert(*peer.id(), peer),
                Event::PeerRemoved(peer) => _ = machine.peers.remove(peer.id()),
                Event::RevocationsChanged(_) => (has_learned, machine.has_news) = (true, true),
                Event::Answered(_, answer) => match *answer {
                    Answer::Certified { .. } => {
                        (machine.answered, has_learned) = (Some(self.now), true);
                    }
                    Answer::Denied { reason: Denial::Removed, .. } => self.removed.push(number),
                    _ => {}
                },
                Event::Asked(peer, id, question) => {
                    self.asked.push(Asked { at: number, peer, number: id, question: *question });
                }
                _ => {}
            }
        }
        while let Some(transmit) = endpoint.poll_transmit(now, &mut buffer) {
            if let Place::Direct { remote, .. } = transmit.place {
                out.push((remote, buffer.clone()));
            }
        }
        let wake = endpoint.poll_timeout().map(|at| at.saturating_duration_since(self.base).max(self.now));
        if wake != machine.wake {
            machine.wake = wake;
            if let Some(at) = wake {
                self.queue.push(at, Item::Wake { machine: number, start: machine.starts });
            }
        }
        if has_learned {
            machine.keep();
        }
        for (to, bytes) in out {
            self.transmit(number, to, bytes);
        }
    }

    fn transmit(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.sent += 1;
        self.begun += u64::from(bytes.first() == Some(&(MessageType::Initiation as u8)));
        self.trace.note(self.now, format_args!("{from} sends {} bytes to {to}", bytes.len()), &bytes);
        if to == GROUP {
            let site = self.machines[from].site;
            let hears = |one: &usize| *one != from && self.machines[*one].site == site;
            let receivers: Vec<usize> = (0..self.machines.len()).filter(hears).collect();
            for receiver in receivers {
                self.carry(from, receiver, true, bytes.clone());
            }
        } else if let Some(&receiver) = self.places.get(&to) {
            self.carry(from, receiver, false, bytes);
        }
    }

    fn carry(&mut self, from: usize, to: usize, is_multicast: bool, bytes: Vec<u8>) {
        let loss = self.faults.loss;
        if !self.passes(from, to) || self.machines[to].endpoint.is_none() || self.random.chance(loss) {
            return;
        }
        let is_near = self.machines[from].site == self.machines[to].site;
        let micros = match is_near {
            true => 300,
            false => 3_000 + mix(&[self.salt, from.min(to) as u64, from.max(to) as u64]) % 60_000,
        };
        let copies = 1 + usize::from(self.random.chance(loss));
        for _ in 0..copies {
            // A tenth of the latency reorders what is sent in one burst.
            let delay = micros + self.random.within(0..=micros / 10);
            let datagram =
                Item::Datagram { from: self.machines[from].address, to, is_multicast, bytes: bytes.clone() };
            self.queue.push(self.now + Duration::from_micros(delay), datagram);
        }
    }
}

fn contact(address: SocketAddr) -> Contact {
    Contact::new(Nat::default(), [Candidate { kind: CandidateKind::Interface, address }])
}

/// Returns a number that looks random and follows from these.
fn mix(words: &[u64]) -> u64 {
    let step = |hash: u64, word: &u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    };
    words.iter().fold(0x517c_c1b7_2722_0a95, step)
}
