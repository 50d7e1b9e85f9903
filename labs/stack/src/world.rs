//! All hosts of a scenario in one virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{Batch, Egress, Listener, MAX_PACKET};
use peersock_testnet::Queue;

use crate::connection::{Connection, Content, Role};
use crate::host::{ENDLESS, Host, PORT, address, tcp_options};
use crate::link::Carrier;
use crate::packets::{PacketId, Packets};
use crate::scenario::{Batching, ConnectionOutcome, Outcome, Scenario};
use crate::{HEADERS, OVERHEAD, Random, SEGMENT, Time};

/// A host: its pair, and true for the pair's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct HostId {
    pair: u32,
    server: bool,
}

/// An event at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connect(u32),
    /// A packet arrives at a host's network card.
    Arrive(HostId, PacketId),
    /// The host processes its arrivals.
    Receive(HostId),
    Timer(HostId),
    /// The program at the host's end of a connection wakes by itself.
    Wake(HostId, u32),
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    now: Time,
    /// Clock of the stacks at time zero.
    origin: Instant,
    events: Queue<Time, Event>,
    packets: Packets,
    /// Carriers from clients to servers, and back.
    carriers: [Carrier; 2],
    pairs: Vec<Pair>,
    connections: Vec<Connection>,
    unfinished: usize,
    content: Content,
    limits: Egress,
    buf: Vec<u8>,
    random: Random,
}

/// Bytes by which an IPv6 header is longer than an IPv4 header.
const IPV6_EXCESS: usize = 20;

struct Pair {
    /// Client and server.
    hosts: [Host; 2],
    listeners: Vec<Arc<Listener>>,
    /// Delay of one direction.
    delay: Time,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Any instant will do, because only differences matter.
        let origin = Instant::now();
        let pair = |rtt: &Time| {
            let mut host = |server| Host::new(scenario, server, random.number(), origin);
            Pair { hosts: [host(false), host(true)], listeners: Vec::new(), delay: rtt / 2 }
        };
        let pairs: Vec<Pair> = scenario.rtts.iter().map(pair).collect();
        let carriers =
            [&scenario.forward, &scenario.backward].map(|link| Carrier::new(link, pairs.len(), &mut random));
        let plans = &scenario.plans;
        let mut world = Self {
            scenario,
            now: 0,
            origin,
            events: Queue::default(),
            packets: Packets::default(),
            carriers,
            pairs,
            connections: Vec::with_capacity(plans.len()),
            unfinished: plans.len(),
            content: Content::new(),
            limits: Egress {
                segment: if scenario.ipv6 { SEGMENT - IPV6_EXCESS } else { SEGMENT },
                max_segments: 44,
                in_flight_cap: scenario.in_flight_cap,
                checksums: scenario.checksums,
            },
            buf: vec![0; MAX_PACKET],
            random,
        };
        for (index, plan) in plans.iter().enumerate() {
            let pair = &mut world.pairs[plan.pair];
            let server = &pair.hosts[1];
            let mut local = address(true, scenario.ipv6);
            // Every connection has its own listener, so that an accepted flow can be told by its port.
            local.set_port(PORT + index as u16);
            let options = tcp_options(plan.congestion, plan.ecn);
            let listener = server.stack.tcp_listen(origin, Some(server.net), local, 1, options);
            pair.listeners.push(listener.expect("every connection has its own port"));
            let start = plan.start + world.random.below(scenario.start_spread);
            world.connections.push(Connection::new(plan, start));
            world.schedule(start, Event::Connect(index as u32));
        }
        world
    }

    /// Runs until the duration is over or everything has arrived.
    pub(crate) fn run(mut self) -> Outcome {
        let end = self.scenario.lasting;
        while self.unfinished > 0 && self.step(end) {}
        if self.unfinished > 0 {
            self.now = end;
        }
        let mut outcome = self.outcome();
        let drained = self.now.saturating_add(self.scenario.draining);
        while self.scenario.draining > 0 && self.flows() > 0 && self.step(drained) {}
        outcome.left_behind = self.flows();
        outcome
    }

    /// Processes the next event; returns false if there is none until `end`.
    fn step(&mut self, end: Time) -> bool {
        let Some((at, event)) = self.events.pop_due(end) else { return false };
        self.now = at;
        match event {
            Event::Connect(connection) => self.connect(connection as usize),
            Event::Arrive(host, packet) => self.arrive(host, packet),
            Event::Receive(host) => self.receive(host),
            Event::Timer(host) => {
                // An earlier timer may have replaced this one.
                if self.host(host).timer <= at {
                    self.host(host).timer = Time::MAX;
                    self.receive(host);
                }
            }
            Event::Wake(host, connection) => self.wake(host, connection as usize),
        }
        true
    }

    fn flows(&self) -> usize {
        self.pairs.iter().flat_map(|pair| &pair.hosts).map(|host| host.stack.flows()).sum()
    }

    fn outcome(&mut self) -> Outcome {
        let now = self.now;
        let connection = |connection: &mut Connection| {
            let [up, down] = connection.outcome(now);
            ConnectionOutcome { started: connection.started, up, down, failure: connection.failure.clone() }
        };
        Outcome {
            connections: self.connections.iter_mut().map(connection).collect(),
            queue: self.carriers[0].queue(),
            lost: self.carriers.each_ref().map(Carrier::lost),
            ended: now,
            left_behind: 0,
        }
    }

    fn connect(&mut self, index: usize) {
        let plan = &self.scenario.plans[index];
        let client = HostId { pair: plan.pair as u32, server: false };
        let now = self.now;
        let mut remote = address(true, self.scenario.ipv6);
        let host = self.host(client);
        remote.set_port(PORT + index as u16);
        let options = tcp_options(plan.congestion, plan.ecn);
        let flow = host.stack.tcp_connect(host.instant(now), host.net, None, remote, options);
        let flow = flow.expect("there are ports and room");
        let _ = flow.context().set(Arc::new(Role { connection: index, server: false }));
        self.connections[index].client = Some(flow.clone());
        let mut batch = std::mem::take(&mut self.host(client).batch);
        batch.flows.push(flow);
        self.settle(client, batch);
    }

    fn arrive(&mut self, id: HostId, packet: PacketId) {
        let now = self.now;
        let host = self.host(id);
        host.inbox.push(packet);
        // The first packet of a round has scheduled the reception already.
        if host.inbox.len() > 1 {
            return;
        }
        match self.scenario.batching {
            Batching::After(0) => self.receive(id),
            Batching::After(time) => {
                let time = time / 2 + self.random.below(time);
                self.schedule(now + time, Event::Receive(id));
            }
            Batching::Every(period) => self.schedule(now - now % period + period, Event::Receive(id)),
        }
    }

    fn wake(&mut self, id: HostId, connection: usize) {
        let connection = &self.connections[connection];
        let flow = if id.server { &connection.server } else { &connection.client };
        if let Some(flow) = flow.clone() {
            let mut batch = std::mem::take(&mut self.host(id).batch);
            batch.flows.push(flow);
            self.settle(id, batch);
        }
    }

    /// Runs one round of a host's driver.
    fn receive(&mut self, id: HostId) {
        let Self { pairs, packets, now, .. } = self;
        let host = &mut pairs[id.pair as usize].hosts[usize::from(id.server)];
        host.receive(*now, packets);
        let batch = std::mem::take(&mut host.batch);
        self.settle(id, batch);
    }

    /// Sends the output of the batch's flows and its replies, and runs the programs.
    fn settle(&mut self, id: HostId, mut batch: Batch) {
        for reply in batch.replies() {
            self.transmit(id, reply.packet);
        }
        if !batch.listeners.is_empty() {
            self.accept(&mut batch);
        }
        for flow in &batch.flows {
            self.pump(id, flow);
            let Some(&Role { connection: index, server }) = Role::of(flow) else { continue };
            let at = self.instant();
            let connection = &mut self.connections[index];
            let before = connection.is_over();
            let active = connection.run(server, at, self.now, self.scenario.mark, &mut self.content);
            self.unfinished -= usize::from(connection.is_over() && !before);
            if let Some(time) = connection.wake(server, self.now) {
                self.schedule(time, Event::Wake(id, index as u32));
            }
            if active {
                self.pump(id, flow);
            }
        }
        batch.clear();
        let now = self.now;
        let host = self.host(id);
        host.batch = batch;
        if let Some(due) = host.next_timeout(now)
            && due < host.timer
        {
            host.timer = due;
            let late = self.random.below(self.scenario.timers_late);
            self.schedule(due + late, Event::Timer(id));
        }
    }

    fn accept(&mut self, batch: &mut Batch) {
        let at = self.instant();
        for listener in &batch.listeners {
            while let Ok(flow) = listener.accept(at) {
                let connection = usize::from(listener.local().port() - PORT);
                let _ = flow.context().set(Arc::new(Role { connection, server: true }));
                self.connections[connection].server = Some(flow.clone());
                // A flow may be listed already, if its first segment has touched it.
                if !batch.flows.iter().any(|known| Arc::ptr_eq(known, &flow)) {
                    batch.flows.push(flow);
                }
            }
        }
    }

    fn pump(&mut self, id: HostId, flow: &peersock_stack::Flow) {
        let mut buf = std::mem::take(&mut self.buf);
        let (at, limits) = (self.instant(), self.limits);
        let mut count = 0;
        while let Some(mut packets) = flow.egress(at, &limits, &mut buf) {
            count += packets.packets();
            // A livelock of the stack would otherwise hang the run.
            assert!(count < ENDLESS, "{flow:?} sends without end: {count} packets at once");
            while let Some(packet) = packets.next(&mut buf) {
                assert!(packet.len() <= SEGMENT + HEADERS, "a packet of {} bytes", packet.len());
                self.transmit(id, packet);
            }
        }
        self.buf = buf;
    }

    fn transmit(&mut self, from: HostId, packet: &[u8]) {
        let pair = from.pair as usize;
        let carrier = &mut self.carriers[usize::from(from.server)];
        let fate = carrier.carry(self.now, pair, self.pairs[pair].delay, packet.len() + OVERHEAD);
        let to = HostId { server: !from.server, ..from };
        for (arrival, id) in self.packets.carry(packet, fate, &mut self.random) {
            self.schedule(arrival, Event::Arrive(to, id));
        }
    }

    /// Returns the stacks' clock.
    fn instant(&self) -> Instant {
        self.origin + Duration::from_nanos(self.now)
    }

    fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.pairs[id.pair as usize].hosts[usize::from(id.server)]
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.events.push(at, event);
    }
}
