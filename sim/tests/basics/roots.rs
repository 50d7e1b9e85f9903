//! Two nodes behind NAT boxes that cannot be punched: each destination gets a port of its own, and nobody
//! else may answer. They have nothing in common but their roots.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{Identity, Place, RootConfig, RootState};
use peersock_sim::net::{Behaviour, Gateway, HostId, Nat, NatConfig, Pipe, PortDelta, Prefixes, Stage};
use peersock_sim::{Limits, MachineConfig, Plan, Random, Reader, Script, Step, Trace, World};
use peersock_testnet::{FakeRoot, RealRoot, TestRoot};

use crate::SECOND;
use crate::lab::{PORT, node_config, open_network, wire};

const CLOCK: Duration = Duration::from_secs(1_800_000_000);
const ROOT_PORT: u16 = 7420;

#[test]
fn the_first_byte_comes_within_three_round_trips_to_the_root_and_200_ms() {
    for millis in [1, 5, 10, 14] {
        let mut homes = Homes::new(1, Duration::from_millis(millis));
        homes.run(5 * SECOND);
        let to_root = homes.info(0, 0).rtt.expect("it is registered");
        let begin = homes.world.now();
        homes.world.converse(Arc::new(homes.greeting())).expect("a connection");
        let end = begin + 10 * SECOND;
        let going = |world: &mut World| world.ledger.bytes_checked == 0;
        assert!(!homes.world.run_while(end, going).expect("no violation"), "nothing came");
        let took = homes.world.now() - begin;
        assert!(took <= 3 * to_root + Duration::from_millis(200), "{millis}: {took:?}, {to_root:?}");
        homes.run(2 * SECOND);
        assert_eq!(homes.world.ledger.completed(), (1, 1));
        assert!(homes.root_of_path(0).is_some() && homes.root_of_path(1).is_some());
    }
}

#[test]
fn a_connection_outlives_the_death_of_the_root_that_carries_it() {
    for sender in [0, 1] {
        for phase in 0..3 {
            let mut homes = Homes::new(2, Duration::from_millis(5));
            homes.run(5 * SECOND);
            homes.transfer(sender);
            homes.run(3 * SECOND + phase * SECOND / 7);
            let used = homes.root_of_path(sender).expect("it is relayed");
            homes.world.kill_root((homes.roots[used], ROOT_PORT));
            // What is under way arrives still.
            homes.run(SECOND / 20);
            let stall = homes.stall(10 * SECOND);
            assert!(stall <= 2 * SECOND, "node {sender} sends, phase {phase}: {stall:?}");
            homes.run(10 * SECOND);
            assert_eq!(homes.root_of_path(0), Some(1 - used));
        }
    }
}

#[test]
fn a_root_that_swallows_frames_from_one_moment_on_is_left() {
    let mut homes = Homes::with_liars(2, Duration::from_millis(5));
    homes.run(5 * SECOND);
    homes.transfer(0);
    homes.run(3 * SECOND);
    let used = homes.root_of_path(0).expect("it is relayed");
    let place = (homes.roots[used], ROOT_PORT);
    homes.world.root_mut(place).expect("a root").lies().swallows = true;
    homes.run(SECOND / 20);
    let stall = homes.stall(10 * SECOND);
    assert!(stall <= 2 * SECOND, "{stall:?}");
}

#[test]
fn an_idle_node_can_be_reached_though_mappings_live_for_half_a_minute() {
    let mut homes = Homes::new(1, Duration::from_millis(5));
    homes.run(3600 * SECOND);
    homes.world.converse(Arc::new(homes.greeting())).expect("a connection");
    homes.run(2 * SECOND);
    assert_eq!(homes.world.ledger.completed(), (1, 1));
}

#[test]
fn roots_that_are_killed_and_started_in_turns_reset_no_connection() {
    let mut homes = Homes::new(2, Duration::from_millis(5));
    homes.run(5 * SECOND);
    homes.transfer(0);
    homes.run(3 * SECOND);
    for turn in 0..6 {
        let place = (homes.roots[turn % 2], ROOT_PORT);
        homes.world.kill_root(place);
        let stall = homes.stall(10 * SECOND);
        assert!(stall <= 2 * SECOND, "turn {turn}: {stall:?}");
        homes.run(5 * SECOND);
        // It comes back with no memory, and is found again.
        homes.world.restart_root(place);
        homes.run(60 * SECOND);
        assert_eq!(homes.info(0, turn % 2).state, RootState::Registered, "turn {turn}");
    }
    assert!(homes.world.ledger.bytes_checked > 10_000_000);
}

/// Node 0 and node 1, each at home behind a NAT box, and roots elsewhere.
struct Homes {
    world: World,
    roots: Vec<HostId>,
    addresses: Vec<SocketAddr>,
}

impl Homes {
    /// From each place to the core it takes `far`.
    fn new(roots: u8, far: Duration) -> Self {
        let real = |identity, at, random| RealRoot::new(identity, at, CLOCK, random).into();
        Self::with_roots(roots, far, real)
    }

    /// The same with roots that can lie, and do not yet.
    fn with_liars(roots: u8, far: Duration) -> Self {
        let fake = |identity, _, random| FakeRoot::new(identity, CLOCK, random).into();
        Self::with_roots(roots, far, fake)
    }

    fn with_roots(roots: u8, far: Duration, make: fn(Identity, Instant, Random) -> TestRoot) -> Self {
        let mut random = Random::from_seed(1);
        let trace = Trace::new(std::env::var_os("PEERSOCK_SIM_TRACE").is_some());
        let mut world = World::new(random.fork(), trace, Limits::default());
        let pipe = || Pipe::new([Stage::Mtu(1500), Stage::Delay { base: far, jitter: far / 50 }]);
        let add_host = |world: &mut World, net: [u8; 3], nat: Option<Nat>| {
            let [a, b, c] = net;
            let lan = world.net.add_lan(Prefixes { ipv4: Some([a, b, c, 0].into()), ipv6: None });
            world
                .net
                .set_gateway(lan, Some(Gateway { nat, out: pipe(), into: pipe(), ..Gateway::default() }));
            let (host, address) = (world.net.add_host(), Ipv4Addr::new(a, b, c, 1));
            world.net.attach(host, lan, Some(address), None, wire(), wire());
            (host, address)
        };
        let (mut hosts, mut addresses, mut configs) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=roots {
            let (host, address) = add_host(&mut world, [198, 51, number], None);
            let identity = Identity::from_seed(&[0xa0 + number; 32]);
            let socket = SocketAddr::from((address, ROOT_PORT));
            configs.push(RootConfig::new(*identity.public(), vec![socket]));
            let root = make(identity, world.instant(), random.fork());
            world.add_any_root((host, ROOT_PORT), root);
            hosts.push(host);
            addresses.push(socket);
        }
        for number in 1..=2 {
            let nat = NatConfig {
                mapping: Behaviour::AddressAndPortDependent,
                filtering: Behaviour::AddressAndPortDependent,
                timeout: 30 * SECOND,
                ports: PortDelta::Random,
                ..NatConfig::new([203, 0, 113, number].into())
            };
            let nat = Nat::new(nat, random.fork());
            let (host, _) = add_host(&mut world, [192, 168, number], Some(nat));
            let machine = world.add_machine(MachineConfig {
                host,
                port: 4000,
                node: node_config(number),
                clock: CLOCK,
                networks: vec![(open_network(), vec![PORT])],
                roots: configs.clone(),
                nat: peersock_overlay::Nat::default(),
            });
            world.start(machine).expect("a start");
        }
        Self { world, roots: hosts, addresses }
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        self.world.run_until(end).expect("no violation");
    }

    fn greeting(&self) -> Plan {
        Plan::greeting(open_network().id(), (0, 1), PORT)
    }

    /// Begins a connection in which one node sends without end.
    fn transfer(&mut self, sender: usize) {
        let mut scripts = [Script::default(), Script::default()];
        scripts[sender] = Script(vec![Step::Write(1_000_000_000)]);
        let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..self.greeting() };
        self.world.converse(Arc::new(plan)).expect("a connection");
    }

    /// How long it takes until another byte arrives.
    fn stall(&mut self, limit: Duration) -> Duration {
        let (begin, before) = (self.world.now(), self.world.ledger.bytes_checked);
        while self.world.ledger.bytes_checked == before {
            self.run(SECOND / 100);
            assert!(self.world.now() - begin < limit, "nothing arrives any more");
        }
        self.world.now() - begin
    }

    fn info(&self, node: usize, root: usize) -> peersock_overlay::RootInfo {
        let datapath = self.world.machines()[node].node().expect("it runs").datapath();
        datapath.roots(self.world.instant()).swap_remove(root)
    }

    /// The root through which a node's path leads.
    fn root_of_path(&self, node: usize) -> Option<usize> {
        let peers = self.world.machines()[node].node().expect("it runs").datapath().peers();
        match peers.first()?.path?.place {
            Place::Relayed { root, .. } => self.addresses.iter().position(|address| *address == root),
            _ => None,
        }
    }
}
