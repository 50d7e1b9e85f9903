use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::{Contact, Identity, NetworkConfig, NetworkId, RootConfig, RootState};

use crate::net::HostId;
use crate::trace::Trace;
use crate::world::{Limits, MachineConfig, RootPlace, World};
use crate::{NodeConfig, Plan, Random, Reader, Script, Step, Time, Violation};

use super::{Expected, Kind, Shared, home};

/// Two kinds of connection, and a seed for all other parameters.
///
/// ```
/// use peersock_sim::cells::{Cell, Kind, PathKind};
///
/// let outcome = Cell { kinds: [Kind::Ipv6, Kind::Cgn], seed: 1 }.run(false).unwrap();
/// assert!(outcome.is_complete);
/// assert_eq!(outcome.path, PathKind::Relayed);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The ways the two nodes are connected. With an even seed the first node connects to the second, with an
    /// odd seed the second to the first.
    pub kinds: [Kind; 2],
    /// Seed of the lines' delays and rates, the boxes' ports, and the nodes' random numbers.
    pub seed: u64,
}

/// Two nodes behind one box, and a seed for all other parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// The box or network that the two nodes share.
    pub shared: Shared,
    /// The seed, as in a [`Cell`].
    pub seed: u64,
}

/// Result of a cell with one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// True if everything that the two programs wrote has arrived.
    pub is_complete: bool,
    /// Time from the call to connect to the first byte that a program has read.
    pub first_byte: Option<Duration>,
    /// Path at the end.
    pub path: PathKind,
    /// Time from the call to connect until the paths of both nodes were direct.
    pub direct_after: Option<Duration>,
    /// Bytes in sealed datagrams that roots have relayed for both nodes, including those under way when the
    /// path became direct.
    pub relayed_bytes: u64,
}

/// Kind of path between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// At least one node has no path.
    Nothing,
    /// At least one node sends through a root.
    Relayed,
    /// Both nodes send to each other.
    Direct,
}

impl Outcome {
    /// Returns true if the result satisfies the expectation.
    pub fn fits(&self, expected: Expected) -> bool {
        match expected {
            Expected::Relay => self.is_complete && self.path == PathKind::Relayed,
            Expected::Either | Expected::Likely => self.is_complete && self.path >= PathKind::Relayed,
            Expected::Direct => self.is_complete && self.path == PathKind::Direct,
        }
    }
}

const PORT: u16 = 2000;
const ROOT_PORT: u16 = 7420;
const ROOTS: u8 = 2;
const CLOCK: Duration = Duration::from_secs(1_800_000_000);

/// Bytes each side writes at first, and bytes of each later message.
const FIRST_BYTES: u64 = 2000;
const MESSAGE_BYTES: u64 = 200;
/// Number of the later messages, and the interval between them.
const MESSAGES: u64 = 60;
const MESSAGE_INTERVAL: Duration = Duration::from_millis(200);

impl Cell {
    /// Runs the cell. `trace` writes every event to standard error.
    /// Fails if an event occurred that must never happen.
    pub fn run(&self, trace: bool) -> Result<Outcome, Violation> {
        let mut meeting = Meeting::new(self.seed, trace)?;
        for (number, kind) in (1..).zip(self.kinds) {
            let port = meeting.port();
            let Meeting { world, random, .. } = &mut meeting;
            let (host, contact) = home::connect(world, random, kind, (number, port))?;
            meeting.start(host, port, contact)?;
        }
        meeting.hold(self.seed)
    }
}

impl Together {
    /// Runs the cell, as [`Cell::run`] does.
    /// Fails if an event occurred that must never happen.
    pub fn run(&self, trace: bool) -> Result<Outcome, Violation> {
        let mut meeting = Meeting::new(self.seed, trace)?;
        let Meeting { world, random, .. } = &mut meeting;
        for (host, contact) in self.shared.connect(world, random)? {
            let port = meeting.port();
            meeting.start(host, port, contact)?;
        }
        meeting.hold(self.seed)
    }
}

/// Two nodes and their roots.
struct Meeting {
    world: World,
    random: Random,
    places: Vec<RootPlace>,
    roots: Vec<RootConfig>,
    network: NetworkConfig,
}

impl Meeting {
    fn new(seed: u64, trace: bool) -> Result<Self, Violation> {
        let mut random = Random::from_seed(seed);
        let mut world = World::new(random.fork(), Trace::new(trace), Limits::default());
        let (places, roots) = add_roots(&mut world, &mut random)?;
        let network =
            NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1000..=3000).expect("a range"), psk: None };
        Ok(Self { world, random, places, roots, network })
    }

    /// Draws a node's UDP port.
    fn port(&mut self) -> u16 {
        self.random.within(1024..=60_000) as u16
    }

    fn start(&mut self, host: HostId, port: u16, contact: Contact) -> Result<(), Violation> {
        let machine = self.world.add_machine(MachineConfig {
            host,
            port,
            node: NodeConfig::usual(self.random.bytes()),
            clock: CLOCK,
            networks: vec![(self.network.clone(), vec![PORT])],
            roots: self.roots.clone(),
            contact,
        });
        self.world.start(machine)
    }

    fn hold(self, seed: u64) -> Result<Outcome, Violation> {
        let Self { mut world, places, network, .. } = self;
        let all_registered = |world: &World| (0..2).all(|node| is_registered(world, node));
        world.run_while(REGISTERED_BY, |world| !all_registered(world))?;
        // Wait until look-ups and similar work are over.
        let settled = world.now() + Duration::from_secs(1);
        world.run_until(settled)?;

        let (begun, relayed_before) = (world.now(), relayed(&world, &places));
        let ends = if seed.is_multiple_of(2) { (0, 1) } else { (1, 0) };
        world.converse(Arc::new(plan(network.id(), ends)))?;
        let mut outcome = Outcome {
            is_complete: false,
            first_byte: None,
            path: PathKind::Nothing,
            direct_after: None,
            relayed_bytes: 0,
        };
        world.run_while(begun + CELL_TIMEOUT, |world| {
            let took = world.now() - begun;
            if outcome.first_byte.is_none() && world.ledger.bytes_checked > 0 {
                outcome.first_byte = Some(took);
            }
            if outcome.direct_after.is_none() && path(world) == PathKind::Direct {
                outcome.direct_after = Some(took);
            }
            world.ledger.ends < 2
        })?;
        outcome.is_complete = world.ledger.completed().0 == 1;
        outcome.path = path(&world);
        outcome.relayed_bytes = relayed(&world, &places) - relayed_before;
        Ok(outcome)
    }
}

/// Deadline for registration. It takes a handshake and a round trip, or, where UDP is blocked, a stream after
/// 1 s.
const REGISTERED_BY: Time = Duration::from_secs(5);
/// Time that nodes wait for an answer by UDP before they open a stream.
const STREAM_AFTER: Duration = Duration::from_secs(1);
/// Time limit of the whole cell.
const CELL_TIMEOUT: Duration = Duration::from_secs(30);

fn add_roots(world: &mut World, random: &mut Random) -> Result<(Vec<RootPlace>, Vec<RootConfig>), Violation> {
    let (mut places, mut configs) = (Vec::new(), Vec::new());
    for number in 1..=ROOTS {
        let identity = Identity::from_seed(&random.bytes());
        let (host, v4, v6) = home::connect_root(world, random, number)?;
        let sockets = vec![SocketAddr::from((v4, ROOT_PORT)), SocketAddr::from((v6, ROOT_PORT))];
        let mut config = RootConfig::new(*identity.public(), sockets);
        config.stream_after = Some(STREAM_AFTER);
        configs.push(config);
        world.add_root((host, ROOT_PORT), identity, CLOCK);
        places.push((host, ROOT_PORT));
    }
    Ok((places, configs))
}

/// Plans a few kilobytes both ways, then a small message now and then for twelve seconds. No step waits for
/// those messages, so long round trips do not prolong the plan.
fn plan(network: NetworkId, (client, server): (usize, usize)) -> Plan {
    let (mut asks, mut answers) = (
        vec![Step::Write(FIRST_BYTES), Step::Await(FIRST_BYTES)],
        vec![Step::Await(FIRST_BYTES), Step::Write(FIRST_BYTES)],
    );
    for time in 1..=MESSAGES {
        let total = FIRST_BYTES + time * MESSAGE_BYTES;
        asks.extend([Step::Pause(MESSAGE_INTERVAL), Step::Write(MESSAGE_BYTES)]);
        answers.extend([Step::Await(total), Step::Write(MESSAGE_BYTES)]);
    }
    asks.push(Step::Await(FIRST_BYTES + MESSAGES * MESSAGE_BYTES));
    let scripts = [Script(asks), Script(answers)];
    Plan { scripts, readers: [Reader::EAGER; 2], ..Plan::greeting(network, (client, server), PORT) }
}

fn is_registered(world: &World, node: usize) -> bool {
    let at = world.instant();
    let roots = world.machines()[node].node().map(|node| node.datapath().roots(at));
    roots.is_some_and(|roots| roots.iter().all(|root| root.state == RootState::Registered))
}

/// Returns the number of bytes that the roots have relayed.
fn relayed(world: &World, places: &[RootPlace]) -> u64 {
    places.iter().filter_map(|&place| world.root(place)).map(|root| root.relayed().1).sum()
}

fn path(world: &World) -> PathKind {
    let of_node = |node: usize| {
        let peers = world.machines()[node].node()?.datapath().peers();
        Some(match peers.first()?.path?.place.relay() {
            Some(_) => PathKind::Relayed,
            None => PathKind::Direct,
        })
    };
    (0..2).map(|node| of_node(node).unwrap_or(PathKind::Nothing)).min().unwrap_or(PathKind::Nothing)
}
