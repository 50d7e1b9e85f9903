//! Sequences of operations on two stacks, over a network that an adversary owns.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_stack::{Listener, TcpOptions};
use peersock_testnet::StackHost;

use super::host::{A, B, Travel, address, listen};
use super::model::Connection;
use super::pair::Pair;
use crate::input::sequence;

/// Maximum numbers of operations and connections in one input.
const MAX_OPERATIONS: usize = 300;
const MAX_CONNECTIONS: usize = 8;

/// Time after the adversary has left within which everything has arrived, whatever the timers' backoff.
const RECOVERY: Duration = Duration::from_secs(120);

/// An operation. Numbers of connections, sides and packets count modulo their totals.
#[derive(Debug, Arbitrary)]
enum Operation {
    Connect {
        side: u8,
        nodelay: bool,
    },
    Accept {
        side: u8,
    },
    /// Stops listening, or listens again.
    Listen {
        side: u8,
        on: bool,
        backlog: u8,
    },
    Write {
        which: u8,
        side: u8,
        len: u16,
    },
    Read {
        which: u8,
        side: u8,
        len: u16,
        peek: bool,
    },
    ShutdownWrite {
        which: u8,
        side: u8,
    },
    ShutdownRead {
        which: u8,
        side: u8,
    },
    Close {
        which: u8,
        side: u8,
    },
    Abort {
        which: u8,
        side: u8,
    },
    NoDelay {
        which: u8,
        side: u8,
        on: bool,
    },
    /// Changes the path's segment size and limits.
    Path {
        segment: u16,
        max_segments: u8,
        cap: u32,
    },
    Deliver {
        count: u8,
    },
    Drop {
        which: u8,
        count: u8,
    },
    Duplicate {
        which: u8,
    },
    Swap {
        one: u8,
        other: u8,
    },
    Wait {
        millis: u16,
    },
    WaitLong {
        seconds: u8,
    },
    WriteUrgent {
        which: u8,
        side: u8,
        len: u16,
    },
}

/// Checks connections between two hosts while packets are lost, doubled and reordered. Each byte is read once
/// and in order. The end of a stream comes only after all its bytes, and no connection fails without a
/// reason. After the adversary has left, everything arrives, and nothing remains after the close.
pub fn stack_ops(data: &[u8]) {
    let kind = data.first().copied().unwrap_or_default();
    let travels = [Travel::Plain, Travel::Coalesced, Travel::Checked];
    let mut world = World::new(travels[usize::from(kind >> 1) % travels.len()], kind & 1 == 1);
    for operation in sequence::<Operation>(data.get(1..).unwrap_or_default(), MAX_OPERATIONS) {
        world.run(operation);
        world.kick();
        if world.gave_cookies() {
            world.connections.iter_mut().for_each(|one| one.excused = true);
        }
    }
    world.recover();
    world.end();
}

struct World {
    ipv6: bool,
    pair: Pair,
    listeners: [Option<Arc<Listener>>; 2],
    connections: Vec<Connection>,
}

impl World {
    fn new(travel: Travel, ipv6: bool) -> Self {
        let pair = Pair::new(travel);
        let listeners = [A, B].map(|side| Some(listen(&pair.hosts[side], pair.now, ipv6, 4)));
        Self { ipv6, pair, listeners, connections: Vec::new() }
    }

    fn run(&mut self, operation: Operation) {
        let now = self.pair.now;
        match operation {
            Operation::Connect { side, nodelay } => self.connect(usize::from(side % 2), nodelay),
            Operation::Accept { side } => self.accept(usize::from(side % 2)),
            Operation::Listen { side, on, backlog } => self.listen(usize::from(side % 2), on, backlog),
            Operation::Write { which, side, len } => {
                self.at(which, side, |one, side| one.write(side, now, len.into(), false));
            }
            Operation::WriteUrgent { which, side, len } => {
                self.at(which, side, |one, side| one.write(side, now, len.into(), true));
            }
            Operation::Read { which, side, len, peek } => {
                self.at(which, side, |one, side| one.read(side, now, len.into(), peek));
            }
            Operation::ShutdownWrite { which, side } => {
                self.at(which, side, |one, side| one.shutdown_write(side, now));
            }
            Operation::ShutdownRead { which, side } => {
                self.at(which, side, |one, side| one.shutdown_read(side, now));
            }
            Operation::Close { which, side } => self.at(which, side, |one, side| one.close(side, now)),
            Operation::Abort { which, side } => self.at(which, side, |one, side| one.abort(side, now)),
            Operation::NoDelay { which, side, on } => self.at(which, side, |one, side| {
                one.flow(side).inspect(|flow| flow.set_nodelay(on));
            }),
            Operation::Path { segment, max_segments, cap } => {
                let limits = &mut self.pair.limits;
                limits.segment = usize::from(segment).clamp(100, 16_000);
                limits.max_segments = usize::from(max_segments).max(1);
                limits.in_flight_cap = (cap as usize).max(1);
            }
            Operation::Deliver { count } => self.pair.deliver(count.into()),
            Operation::Drop { which, count } => {
                for _ in 0..=count % 16 {
                    self.packet(which).and_then(|at| self.pair.wire.remove(at));
                }
            }
            Operation::Duplicate { which } => {
                let copy = self.packet(which).map(|at| self.pair.wire[at].clone());
                self.pair.wire.extend(copy);
            }
            Operation::Swap { one, other } => {
                if let (Some(one), Some(other)) = (self.packet(one), self.packet(other)) {
                    self.pair.wire.swap(one, other);
                }
            }
            Operation::Wait { millis } => self.wait(Duration::from_millis(millis.into())),
            Operation::WaitLong { seconds } => self.wait(Duration::from_secs(seconds.into())),
        }
    }

    fn connect(&mut self, side: usize, nodelay: bool) {
        if self.connections.len() == MAX_CONNECTIONS {
            return;
        }
        let StackHost { stack, net, .. } = &self.pair.hosts[side];
        let options = TcpOptions { nodelay, ..TcpOptions::default() };
        let flow = stack.tcp_connect(self.pair.now, *net, None, address(1 - side, self.ipv6), options);
        let mut connection = Connection::new(side, flow.expect("ports are free"), self.pair.now);
        // The connection may be refused.
        connection.excused = self.listeners[1 - side].is_none();
        self.connections.push(connection);
    }

    fn accept(&mut self, side: usize) {
        let Some(Ok(flow)) = self.listeners[side].as_ref().map(|listener| listener.accept(self.pair.now))
        else {
            return;
        };
        let known = self.connections.iter_mut().any(|one| one.accept(side, &flow));
        assert!(known || self.gave_cookies(), "{flow:?} was never opened");
        if !known {
            flow.abort(self.pair.now);
            self.pair.kick(side, &flow);
        }
    }

    /// Returns true if a host has sent SYN cookies. Such a listener keeps no handshakes, so it takes a
    /// duplicate ACK for a new connection. It also resets segments that follow an ACK for which it had no
    /// place.
    fn gave_cookies(&self) -> bool {
        let gave = |host: &StackHost| {
            let counts = host.stack.counters().snapshot();
            counts.iter().any(|&(name, count)| name == "tcp_cookies_sent" && count > 0)
        };
        self.pair.hosts.iter().any(gave)
    }

    fn listen(&mut self, side: usize, on: bool, backlog: u8) {
        let now = self.pair.now;
        match (&self.listeners[side], on) {
            (None, true) => {
                self.listeners[side] = Some(listen(&self.pair.hosts[side], now, self.ipv6, backlog.into()))
            }
            (Some(listener), true) => listener.listen(backlog.into()),
            (Some(listener), false) => {
                listener.close(now);
                self.listeners[side] = None;
                // Connections that were not accepted are reset.
                let waiting = self.connections.iter_mut().filter(|one| one.flow(side).is_none());
                waiting.for_each(|one| one.excused = true);
            }
            (None, false) => {}
        }
    }

    fn at(&mut self, which: u8, side: u8, act: impl FnOnce(&mut Connection, usize)) {
        if let Some(at) = usize::from(which).checked_rem(self.connections.len()) {
            act(&mut self.connections[at], usize::from(side % 2));
        }
    }

    fn packet(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.pair.wire.len())
    }

    fn wait(&mut self, time: Duration) {
        self.pair.wait(time, false);
        self.connections.iter_mut().for_each(|one| one.grow_old(self.pair.now));
    }

    /// Lets all flows send, as a driver does after each application call.
    fn kick(&mut self) {
        for connection in &self.connections {
            for side in [A, B] {
                if let Some(flow) = connection.flow(side) {
                    self.pair.kick(side, flow);
                }
            }
        }
        self.pair.finish();
    }

    /// Repairs the network and checks that all outstanding data arrives.
    fn recover(&mut self) {
        let end = self.pair.now + RECOVERY;
        self.pair.limits.in_flight_cap = usize::MAX;
        loop {
            [A, B].into_iter().for_each(|side| self.accept_all(side));
            self.connections.iter_mut().for_each(|one| one.read_all(self.pair.now));
            self.kick();
            if self.connections.iter().all(Connection::is_complete) {
                return;
            }
            assert!(self.pair.now < end, "bytes are missing");
            self.pair.wait(Duration::from_millis(500), true);
        }
    }

    fn accept_all(&mut self, side: usize) {
        (0..MAX_CONNECTIONS).for_each(|_| self.accept(side));
    }

    /// Closes both ends of all connections and checks that no state remains.
    fn end(&mut self) {
        for side in [A, B] {
            self.listen(side, false, 0);
            self.connections.iter_mut().for_each(|one| one.close(side, self.pair.now));
        }
        self.kick();
        self.pair.wait(Duration::from_secs(400), true);
        let left = self.pair.hosts.each_ref().map(|host| host.stack.flows());
        assert_eq!(left, [0, 0], "flows are left");
    }
}
