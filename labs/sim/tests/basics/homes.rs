//! Two nodes at home behind NAT boxes, which have nothing in common but their roots.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{Contact, Identity, Place, RootConfig};
use peersock_sim::net::{
    Behaviour, Gateway, HostId, LanId, Nat, NatConfig, Pipe, PortDelta, Prefixes, Stage,
};
use peersock_sim::{Limits, MachineConfig, Plan, Random, Reader, Script, Step, Trace, World};
use peersock_testnet::{FakeRoot, RealRoot, TestRoot};

use crate::SECOND;
use crate::lab::{PORT, node_config, open_network, wire};

const CLOCK: Duration = Duration::from_secs(1_800_000_000);
pub(crate) const ROOT_PORT: u16 = 7420;

/// Nodes 0 and 1, each at home behind a NAT box, and roots elsewhere.
pub(crate) struct Homes {
    pub(crate) world: World,
    pub(crate) roots: Vec<HostId>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// The LANs of the two nodes, and the LANs of the roots.
    pub(crate) lans: [Vec<LanId>; 2],
    /// The nodes' hosts.
    pub(crate) hosts: Vec<HostId>,
}

impl Homes {
    /// Makes homes and roots that are each `far` from the core.
    pub(crate) fn new(roots: u8, far: Duration) -> Self {
        Self::with_roots(1, roots, &|number| dependent(number), far_pipe(far), real)
    }

    /// Makes homes with one root and boxes with this mapping timeout without an outbound packet.
    pub(crate) fn forgetful(timeout: Duration) -> Self {
        let nat = |number| NatConfig { timeout, ..dependent(number) };
        Self::with_roots(1, 1, &nat, far_pipe(Duration::from_millis(5)), real)
    }

    /// Makes homes with two roots, punchable boxes, and lines with this rate in bytes per second.
    pub(crate) fn punchable(seed: u64, bytes_per_second: u64) -> Self {
        let delay = Duration::from_millis(10);
        let stages = [
            Stage::Mtu(1500),
            Stage::Rate { bytes_per_second, queue: bytes_per_second / 10 },
            Stage::Delay { base: delay, jitter: delay / 10 },
        ];
        let home = |number| NatConfig::new([203, 0, 113, number].into());
        Self::with_roots(seed, 2, &home, Pipe::new(stages), real)
    }

    /// Makes homes with two roots that take streams, and boxes that can be punched through or not.
    pub(crate) fn with_streams(seed: u64, can_be_punched: bool) -> Self {
        let home = |number| NatConfig::new([203, 0, 113, number].into());
        let nat = |number| if can_be_punched { home(number) } else { dependent(number) };
        Self::build(seed, 2, &nat, far_pipe(Duration::from_millis(10)), real, Some(SECOND))
    }

    /// Makes homes with roots that can lie, and do not yet, and boxes that cannot be punched through.
    pub(crate) fn with_liars(roots: u8, far: Duration) -> Self {
        let fake = |identity, _, random| FakeRoot::new(identity, CLOCK, random).into();
        Self::with_roots(1, roots, &|number| dependent(number), far_pipe(far), fake)
    }

    fn with_roots(
        seed: u64,
        roots: u8,
        nat: &dyn Fn(u8) -> NatConfig,
        pipe: Pipe,
        make: fn(Identity, Instant, Random) -> TestRoot,
    ) -> Self {
        Self::build(seed, roots, nat, pipe, make, None)
    }

    fn build(
        seed: u64,
        roots: u8,
        nat: &dyn Fn(u8) -> NatConfig,
        pipe: Pipe,
        make: fn(Identity, Instant, Random) -> TestRoot,
        stream_after: Option<Duration>,
    ) -> Self {
        let mut random = Random::from_seed(seed);
        let trace = Trace::new(std::env::var_os("PEERSOCK_SIM_TRACE").is_some());
        let mut world = World::new(random.fork(), trace, Limits::default());
        let add_host = |world: &mut World, net: [u8; 3], nat: Option<Nat>| {
            let [a, b, c] = net;
            let lan = world.net.add_lan(Prefixes { ipv4: Some([a, b, c, 0].into()), ipv6: None });
            world.net.set_gateway(
                lan,
                Some(Gateway { nat, out: pipe.clone(), into: pipe.clone(), ..Gateway::default() }),
            );
            let (host, address) = (world.net.add_host(), Ipv4Addr::new(a, b, c, 1));
            world.net.attach(host, lan, Some(address), None, wire(), wire());
            (host, address, lan)
        };
        let (mut lans, mut nodes) = ([Vec::new(), Vec::new()], Vec::new());
        let (mut hosts, mut addresses, mut configs) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=roots {
            let (host, address, lan) = add_host(&mut world, [198, 51, number], None);
            let identity = Identity::from_seed(&[0xa0 + number; 32]);
            let socket = SocketAddr::from((address, ROOT_PORT));
            let mut config = RootConfig::new(*identity.public(), vec![socket]);
            config.stream_after = stream_after;
            configs.push(config);
            let root = make(identity, world.instant(), random.fork());
            world.add_any_root((host, ROOT_PORT), root);
            hosts.push(host);
            lans[1].push(lan);
            addresses.push(socket);
        }
        for number in 1..=2 {
            let nat = Nat::new(nat(number), random.fork());
            let (host, _, lan) = add_host(&mut world, [192, 168, number], Some(nat));
            let machine = world.add_machine(MachineConfig {
                host,
                port: 4000,
                node: node_config(number),
                clock: CLOCK,
                networks: vec![(open_network(), vec![PORT])],
                roots: configs.clone(),
                contact: Contact::default(),
            });
            world.start(machine).expect("a start");
            lans[0].push(lan);
            nodes.push(host);
        }
        Self { world, roots: hosts, addresses, lans, hosts: nodes }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        self.world.run_until(end).expect("no violation");
    }

    pub(crate) fn greeting(&self) -> Plan {
        Plan::greeting(open_network().id(), (0, 1), PORT)
    }

    /// Begins a connection in which one node sends without end.
    pub(crate) fn transfer(&mut self, sender: usize) {
        let mut scripts = [Script::default(), Script::default()];
        scripts[sender] = Script(vec![Step::Write(1_000_000_000)]);
        let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..self.greeting() };
        self.world.converse(Arc::new(plan)).expect("a connection");
    }

    /// Gives a node another address on its LAN.
    pub(crate) fn readdress(&mut self, node: usize, last: u8) {
        let address = Ipv4Addr::new(192, 168, node as u8 + 1, last);
        let (host, lan) = (self.hosts[node], self.lans[0][node]);
        self.world.attach(host, lan, (Some(address), None), (wire(), wire())).expect("no violation");
    }

    /// Runs until another byte arrives, and returns the time it took.
    pub(crate) fn stall(&mut self, limit: Duration) -> Duration {
        let (begin, before) = (self.world.now(), self.world.ledger.bytes_checked);
        while self.world.ledger.bytes_checked == before {
            self.run(SECOND / 100);
            assert!(self.world.now() - begin < limit, "nothing arrives any more");
        }
        self.world.now() - begin
    }

    /// Returns the longest time without a byte among the stalls that begin within `time`.
    pub(crate) fn longest_stall(&mut self, time: Duration) -> Duration {
        let end = self.world.now() + time;
        let mut longest = Duration::ZERO;
        while self.world.now() < end {
            longest = longest.max(self.stall(60 * SECOND));
        }
        longest
    }

    pub(crate) fn info(&self, node: usize, root: usize) -> peersock_overlay::RootInfo {
        let datapath = self.world.machines()[node].node().expect("it runs").datapath();
        datapath.roots(self.world.instant()).swap_remove(root)
    }

    /// Returns the root through which a node's path leads.
    pub(crate) fn root_of_path(&self, node: usize) -> Option<usize> {
        let peers = self.world.machines()[node].node().expect("it runs").datapath().peers();
        match peers.first()?.path?.place {
            Place::Relayed { root, .. } => self.addresses.iter().position(|address| *address == root),
            _ => None,
        }
    }
}

fn real(identity: Identity, at: Instant, random: Random) -> TestRoot {
    RealRoot::new(identity, at, CLOCK, random).into()
}

/// Makes a line to the core with this delay.
fn far_pipe(far: Duration) -> Pipe {
    Pipe::new([Stage::Mtu(1500), Stage::Delay { base: far, jitter: far / 50 }])
}

/// Makes a box that cannot be punched through: each destination gets a random port, and no other host may
/// answer.
fn dependent(number: u8) -> NatConfig {
    NatConfig {
        mapping: Behaviour::AddressAndPortDependent,
        filtering: Behaviour::AddressAndPortDependent,
        timeout: 30 * SECOND,
        ports: PortDelta::Random,
        ..NatConfig::new([203, 0, 113, number].into())
    }
}
