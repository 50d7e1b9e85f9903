//! All nodes and the network between them, in one virtual time.
//!
//! The world moves from event to event: a datagram arrives, a node reads its sockets, a deadline passes.
//! After each event it runs the programs of the node concerned, puts the node's datagrams onto the wire, and
//! sets the node's alarm. It checks all datagrams and all bytes that programs read. The first violation ends
//! the run as a [`Violation`].

mod checks;
mod intruder;
mod machine;
mod processor;
mod roots;
mod siege;
mod streams;
mod talk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::wire::Relayed;
use peersock_overlay::{RecvMeta, SocketIndex};
use peersock_testnet::Queue;

use crate::apps::{Ledger, Plan, Violation};
use crate::net::{Delivery, HostId, LanId, Net};
use crate::wire::{Sender, WireObserver};
use crate::{Node, Random, Time};

pub use checks::Limits;
pub use intruder::IntruderConfig;
pub use machine::{DISCOVERY_PORT, Machine, MachineConfig};
pub use processor::{Processor, Share};
pub use roots::RootPlace;

use crate::trace::Trace;

/// Nodes, hosts, LANs, and the truth about them.
pub struct World {
    base: Instant,
    now: Time,
    /// Network between the hosts.
    pub net: Net,
    queue: Queue<Time, Event>,
    machines: Vec<Machine>,
    sockets: BTreeMap<(HostId, u16), usize>,
    /// Roots by the socket that they listen on.
    roots: BTreeMap<RootPlace, roots::RootMachine>,
    /// Streams to roots, by their numbers.
    streams: BTreeMap<u64, streams::Stream>,
    next_stream: u64,
    /// Every endpoint that a node has or had. No two nodes share one. Roots are numbered from the greatest
    /// number down.
    owners: BTreeMap<SocketAddr, usize>,
    /// Record of what the programs say to each other.
    pub ledger: Ledger,
    wire: WireObserver,
    trace: Trace,
    random: Random,
    limits: Limits,
    /// Start of the current period without faults. A failure long after it is a violation.
    calm_since: Option<Time>,
    tap: Option<Tap>,
    intruder: Option<intruder::Intruder>,
    pace: checks::Pace,
    next_check: Time,
}

/// Callback for every datagram that a node sends.
pub type Tap = Box<dyn FnMut(&Tapped<'_>)>;

/// A datagram that leaves a node.
#[derive(Debug)]
pub struct Tapped<'a> {
    /// Time at which it leaves.
    pub now: Time,
    /// The node that sent it.
    pub node: usize,
    /// The source address that a receiver on the same LAN sees.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// The UDP payload.
    pub payload: &'a [u8],
}

#[derive(Debug)]
enum Event {
    /// A node's thread reads the node's sockets.
    Receive(Sender),
    /// A node's alarm fires.
    Alarm(Sender),
    /// A root's alarm fires.
    RootAlarm(RootPlace),
    /// A client retries a conversation.
    Converse(Arc<Plan>),
    /// A stream event.
    Stream(streams::StreamEvent),
    /// The adversary sends a message.
    Intrude,
}

impl World {
    /// Makes a world without nodes.
    pub fn new(mut random: Random, trace: Trace, limits: Limits) -> Self {
        Self {
            base: Instant::now(),
            now: Time::ZERO,
            net: Net::new(random.fork()),
            queue: Queue::default(),
            machines: Vec::new(),
            sockets: BTreeMap::new(),
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            owners: BTreeMap::new(),
            ledger: Ledger::default(),
            wire: WireObserver::default(),
            trace,
            random,
            limits,
            calm_since: None,
            tap: None,
            intruder: None,
            pace: checks::Pace::default(),
            next_check: Time::ZERO,
        }
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns the virtual time as the cores see it.
    pub fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Returns the nodes, running or not.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Returns the observer of the wire.
    pub fn wire(&self) -> &WireObserver {
        &self.wire
    }

    /// Returns the trace of events.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Passes every datagram that a node sends to `tap`.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// Returns the promises of the nodes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Changes the time in which pairs must make a new connection.
    pub fn set_recovery(&mut self, recovery: Duration) {
        self.limits.recovery = recovery;
    }

    /// Begins a period with faults (`false`) or without them (`true`).
    pub fn set_calm(&mut self, calm: bool) {
        self.calm_since = calm.then_some(self.now);
    }

    /// Writes a line into the trace.
    pub fn remark(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, what, &[]);
    }

    /// Advances time to `end`.
    /// Fails if an event occurred that must never happen.
    pub fn run_until(&mut self, end: Time) -> Result<(), Violation> {
        self.run_while(end, |_| true).map(|_| ())
    }

    /// Advances time to `end`, or until `going` is false if that is earlier. Returns true if it reached
    /// `end`.
    /// Fails if an event occurred that must never happen.
    pub fn run_while(
        &mut self,
        end: Time,
        mut going: impl FnMut(&mut World) -> bool,
    ) -> Result<bool, Violation> {
        loop {
            let next = self.net.next_arrival().into_iter().chain(self.queue.next_at()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = self.now.max(end);
                return Ok(true);
            };
            self.now = self.now.max(next);
            self.check_pace()?;
            if self.now >= self.next_check {
                self.next_check = self.now + Duration::from_secs(1);
                self.check_memory()?;
                self.check_work()?;
                self.check_paths()?;
            }
            if self.net.next_arrival().is_some_and(|at| at <= self.now) {
                for delivery in self.net.poll(self.now) {
                    self.deliver(delivery);
                }
            }
            if let Some((_, event)) = self.queue.pop_due(self.now) {
                self.handle(event)?;
            }
            if !going(self) {
                return Ok(false);
            }
        }
    }

    /// Injects a datagram with any source into a LAN, as an attacker there can.
    pub fn inject(&mut self, lan: LanId, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        self.net.inject(self.now, lan, from, to, payload);
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        let at = self.instant();
        match event {
            Event::Receive(sender) => {
                if self.defer(sender, Event::Receive) {
                    return Ok(());
                }
                let Some(node) = self.running(sender) else { return Ok(()) };
                node.receive(at);
                let more = node.has_received();
                self.machines[sender.node].receives = more;
                self.settle(sender.node)?;
                if more {
                    self.queue.push(self.now, Event::Receive(sender));
                }
                Ok(())
            }
            Event::Alarm(sender) => {
                let now = self.now;
                let machine = &mut self.machines[sender.node];
                if machine.sender() != sender || machine.alarm.is_none_or(|alarm| alarm > now) {
                    return Ok(());
                }
                if self.defer(sender, Event::Alarm) {
                    return Ok(());
                }
                let machine = &mut self.machines[sender.node];
                machine.alarm = None;
                if let Some(node) = &mut machine.node
                    && node.next_timeout().is_some_and(|timeout| timeout <= at)
                {
                    node.handle_timeout(at);
                }
                self.settle(sender.node)
            }
            Event::RootAlarm(place) => {
                self.root_alarm(place);
                Ok(())
            }
            Event::Converse(plan) => self.converse(plan),
            Event::Stream(event) => self.on_stream(event),
            Event::Intrude => {
                self.intrude();
                Ok(())
            }
        }
    }

    /// Gives a datagram to the node, or with multicast to all nodes, that have a socket for it.
    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { host, datagram, multicast } = delivery;
        if let Some(intruder) = self.intruder.as_mut().filter(|intruder| intruder.is_at(host)) {
            return intruder.hear(self.owners.get(&datagram.from).copied(), &datagram.payload);
        }
        let port = datagram.to.port();
        if !multicast && self.root_receives((host, port), datagram.from, &datagram.payload) {
            return;
        }
        let receivers: Vec<usize> = match multicast {
            true if port == DISCOVERY_PORT => {
                let range = (host, 0)..=(host, u16::MAX);
                self.sockets.range(range).map(|(_, &node)| node).collect()
            }
            true => Vec::new(),
            false => self.sockets.get(&(host, port)).copied().into_iter().collect(),
        };
        let extra = if multicast { None } else { self.with_extra_socket(host, port) };
        let receivers = extra.map_or(receivers, |(number, _)| vec![number]);
        // A node's driver does the same.
        let remote = self.net.nat64(host).map_or(datagram.from, |prefix| prefix.restore(datagram.from));
        let usual = SocketIndex(u16::from(!remote.is_ipv4()));
        let socket = extra.map_or(usual, |(_, socket)| socket);
        let meta = RecvMeta { remote, socket, multicast, relay: None };
        for number in receivers {
            let machine = &mut self.machines[number];
            let sender = machine.sender();
            let Some(node) = &mut machine.node else { continue };
            let from = datagram.from;
            if let Some(intruder) = &mut self.intruder {
                intruder.note_received(number, from, datagram.payload.len());
            }
            let kept = node.enqueue(meta, datagram.payload.clone());
            let verb = if kept { "receives" } else { "has no room for" };
            self.trace.note(
                self.now,
                format_args!("{number} {verb} {} from {from}", describe(&datagram.payload)),
                &datagram.payload,
            );
            if kept && !machine.receives {
                machine.receives = true;
                let soon = wakeup_latency(&mut self.random);
                self.queue.push(self.now + soon, Event::Receive(sender));
            }
        }
    }

    /// Runs the programs of a node, sends its datagrams, and sets its alarm.
    fn settle(&mut self, number: usize) -> Result<(), Violation> {
        let (now, at) = (self.now, self.base + self.now);
        let machine = &mut self.machines[number];
        let sender = machine.sender();
        let (host, port) = (machine.config.host, machine.config.port);
        let Some(node) = &mut machine.node else { return Ok(()) };
        let unconnected = node.run_programs(now, at, &mut self.ledger)?;
        node.serve_extra_sockets(at);
        let streams = node.take_wanted_streams();
        let mut by_stream = Vec::new();
        while let Some(event) = node.next_event() {
            let (kind, peer) = (event_name(&event), event.peer().id());
            self.trace.note(now, format_args!("{number} reports {kind} {peer:?}"), &[]);
        }
        let sent = node.take_sent();
        let moved = sent.len() + node.take_moved();
        for sent in sent {
            let port = if sent.socket.is_extra() { extra_port(number, sent.socket) } else { port };
            let what = describe(&sent.payload);
            self.trace.note(now, format_args!("{number} sends {what} to {}", sent.to), &sent.payload);
            if sent.socket.is_stream() {
                by_stream.push(sent);
                continue;
            }
            if let Some(intruder) = &mut self.intruder {
                intruder.note_sent(number, sent.to, sent.payload.len())?;
            }
            // A datagram for a root to relay contains one sealed for the node behind the root.
            let inside = Relayed::parse(&sent.payload).map_or(&sent.payload[..], |(_, inside)| inside);
            self.wire.see(sender, (sent.to, self.owners.get(&sent.to).copied()), inside)?;
            if let Some(tap) = &mut self.tap {
                let card = self.net.attachments(host).first().copied();
                let address = card.and_then(|card| card.address_for(&sent.to)).unwrap_or(sent.to.ip());
                let from = SocketAddr::new(address, port);
                tap(&Tapped { now, node: number, from, to: sent.to, payload: &sent.payload });
            }
            let to = self.net.nat64(host).map_or(sent.to, |prefix| prefix.synthesize(sent.to));
            self.net.send(now, host, port, to, sent.payload);
        }
        self.charge(number, moved);
        let machine = &mut self.machines[number];
        let Some(node) = &machine.node else { return Ok(()) };
        let timeout = node.next_timeout().map(|at| at.saturating_duration_since(self.base));
        let wake = timeout.into_iter().chain(node.next_wake()).min().map(|wake| wake.max(now));
        if let Some(wake) = wake
            && machine.alarm.is_none_or(|alarm| wake < alarm)
        {
            machine.alarm = Some(wake);
            self.queue.push(wake, Event::Alarm(sender));
        }
        for sent in by_stream {
            let inside = Relayed::parse(&sent.payload).map_or(&sent.payload[..], |(_, inside)| inside);
            let root = self.root_behind(sender, sent.socket);
            self.wire.see(sender, (sent.to, root), inside)?;
            self.send_by_stream(sender, sent.socket, sent.payload);
        }
        if let Some(wanted) = streams {
            self.want_streams(number, &wanted)?;
        }
        unconnected.into_iter().try_for_each(|(id, error)| self.retry(id, error))
    }

    /// Returns the node on that host that has an extra socket with this port.
    fn with_extra_socket(&self, host: HostId, port: u16) -> Option<(usize, SocketIndex)> {
        if port < EXTRA_PORTS {
            return None;
        }
        let on_host = self.machines.iter().enumerate().filter(|(_, machine)| machine.config.host == host);
        let mut open = on_host.flat_map(|(number, machine)| {
            let extra = machine.node.as_ref().map_or(&[][..], Node::extra_sockets);
            extra.iter().map(move |socket| (number, *socket))
        });
        open.find(|(number, socket)| extra_port(*number, *socket) == port)
    }

    fn running(&mut self, sender: Sender) -> Option<&mut Node> {
        let machine = &mut self.machines[sender.node];
        if machine.sender() == sender { machine.node.as_mut() } else { None }
    }
}

/// Lowest port of extra sockets.
const EXTRA_PORTS: u16 = 61_000;

/// Returns the port of a node's extra socket. Nodes on one host have different ones, unless there are many.
fn extra_port(node: usize, socket: SocketIndex) -> u16 {
    EXTRA_PORTS + (node as u16).wrapping_mul(0x100).wrapping_add(socket.0) % 0x1000
}

/// Draws the time from a datagram's arrival until a thread of the node runs. It is mostly short, so that
/// batches stay small.
fn wakeup_latency(random: &mut Random) -> Duration {
    let micros = match random.below(10) {
        0..=6 => random.within(0..=50),
        7..=8 => random.within(0..=1000),
        _ => random.within(0..=5000),
    };
    Duration::from_micros(micros)
}

fn event_name(event: &peersock_overlay::Event) -> &'static str {
    use peersock_overlay::Event;
    match event {
        Event::PeerAdded(_) => "peer added",
        Event::PeerRemoved(_) => "peer removed",
        Event::SessionReady(_) => "session ready",
        Event::SessionLost(_) => "session lost",
        Event::PathChanged(_) => "path changed",
        Event::PathShrunk(_) => "path shrunk",
        Event::PathTooSmall(_) => "path too small",
        Event::PeerSilent(_) => "peer silent",
        Event::PeerUnreachable(_) => "peer unreachable",
        Event::PeerGone(..) => "peer gone",
        Event::PathConfirmed(_) => "path confirmed",
        Event::AddressesChanged(..) => "addresses changed",
        _ => "something new",
    }
}

/// Describes a datagram in a few words.
fn describe(payload: &[u8]) -> String {
    use peersock_overlay::wire::{Data, MessageType};
    match (MessageType::of(payload), Data::parse(payload)) {
        (Some(MessageType::Data), Ok(data)) => {
            format!("data {:?} #{} ({} bytes)", data.receiver, data.counter, payload.len())
        }
        (Some(kind), _) => format!("{kind:?} ({} bytes)", payload.len()),
        (None, _) => format!("noise ({} bytes)", payload.len()),
    }
}
