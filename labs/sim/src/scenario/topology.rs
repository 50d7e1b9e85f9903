//! Hosts, LANs, nodes and their networks.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use peersock_overlay::NetworkId;
use peersock_overlay::{Contact, Identity, Limits, NetworkConfig, Psk, StaticMember, StaticNetwork};

use super::roots::RootPlan;
use super::workload::PORTS;
use crate::net::{Behaviour, Gateway, HostId, LanId, Nat, NatConfig, Pipe, Prefixes, Stage};
use crate::world::{IntruderConfig, MachineConfig, World};
use crate::{NodeConfig, Random, Violation};

/// Share of the scenarios that have roots.
const ROOTS: f64 = 0.3;

/// Components of a scenario.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) lans: Vec<LanId>,
    /// LANs behind a NAT box.
    hidden: BTreeSet<LanId>,
    /// Each host with its LAN.
    pub(super) hosts: Vec<(HostId, LanId)>,
    /// Every network with its members, that is, the nodes that join it while they run. Two networks may have
    /// the same ID but different keys.
    pub(super) networks: Vec<NetworkPlan>,
    /// Roots. Every node uses all of them.
    pub(super) roots: Vec<RootPlan>,
    families: Families,
    wires: Vec<Wire>,
    addresses_used: u8,
}

/// A network and its members.
#[derive(Debug, Clone)]
pub(super) struct NetworkPlan {
    pub(super) config: NetworkConfig,
    pub(super) members: Vec<usize>,
}

impl NetworkPlan {
    pub(super) fn id(&self) -> NetworkId {
        self.config.id()
    }

    /// Returns true if the network lists its members, perhaps with endpoints.
    pub(super) fn is_listed(&self) -> bool {
        !self.config.members().is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    Ipv4,
    Ipv6,
    Both,
}

/// Properties shared by all links of one LAN.
#[derive(Debug, Clone)]
struct Wire {
    mtu: usize,
    bytes_per_second: u64,
    delay: Duration,
    jitter: Duration,
    loss: f64,
}

impl Wire {
    fn random(random: &mut Random) -> Self {
        let delay = Duration::from_micros(random.size(50..=20_000));
        Self {
            mtu: *random.pick(&[1280, 1400, 1500, 1500, 1500, 9000]),
            bytes_per_second: random.size(1_000_000..=125_000_000),
            delay,
            jitter: random.duration(Duration::ZERO..=delay / 2),
            loss: if random.chance(0.2) { 0.001 * random.within(1..=10) as f64 } else { 0.0 },
        }
    }

    fn pipe(&self) -> Pipe {
        let queue = (self.bytes_per_second / 20).max(64_000);
        Pipe::new([
            Stage::Mtu(self.mtu),
            Stage::Rate { bytes_per_second: self.bytes_per_second, queue },
            Stage::Delay { base: self.delay, jitter: self.jitter },
            Stage::Loss(self.loss),
        ])
    }
}

impl Topology {
    /// Builds hosts, LANs and networks in the world, and starts the nodes.
    pub(super) fn make(world: &mut World, random: &mut Random) -> Result<Self, Violation> {
        let families =
            *random.pick(&[Families::Ipv4, Families::Ipv4, Families::Ipv6, Families::Both, Families::Both]);
        let mut topology = Self {
            lans: Vec::new(),
            hidden: BTreeSet::new(),
            hosts: Vec::new(),
            networks: Vec::new(),
            roots: Vec::new(),
            families,
            wires: Vec::new(),
            addresses_used: 0,
        };
        let lans = *random.pick(&[1, 1, 1, 2, 3]);
        for number in 0..lans {
            topology.add_lan(world, random, number);
        }
        if random.chance(ROOTS) {
            for number in 0..random.within(1..=3) as u8 {
                let has = [families != Families::Ipv6, families != Families::Ipv4];
                topology.roots.push(RootPlan::start(world, random, number, has)?);
            }
        }
        let nodes = match random.below(10) {
            0..=5 => random.within(2..=4),
            6..=8 => random.within(5..=8),
            _ => random.within(9..=12),
        };
        for number in 0..nodes as usize {
            topology.add_node(world, random, number)?;
        }
        topology.add_networks(world, random, nodes as usize);
        for number in 0..nodes as usize {
            let networks = topology.networks.iter().filter(|network| network.members.contains(&number));
            let networks = networks.map(|network| (network.config.clone(), PORTS.to_vec())).collect();
            let roots = topology.roots.iter().map(|root| root.config.clone()).collect();
            world.reconfigure(number, |config| (config.networks, config.roots) = (networks, roots));
            world.start(number)?;
        }
        Ok(topology)
    }

    /// Adds an adversary to one of the networks, if one of them admits strangers.
    pub(super) fn admit_intruder(&mut self, world: &mut World, random: &mut Random) -> Result<(), Violation> {
        let open: Vec<_> = self.networks.iter().filter(|network| !network.is_listed()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let network = random.pick(&open).config.clone();
        let (host, lan) = (world.net.add_host(), *random.pick(&self.lans));
        self.attach(world, host, lan)?;
        let interval = Duration::from_millis(random.size(10..=200));
        world.admit(IntruderConfig { host, lan, network, interval });
        Ok(())
    }

    /// Returns every ordered pair (network, client, server) of nodes that can reach one another now.
    ///
    /// Nodes on one LAN find each other, and so do members of a network without a list if there is a root.
    /// Otherwise the network must be static and list the server's endpoint, and the server must not be behind
    /// a NAT box.
    pub(super) fn reachable_pairs(&self, world: &World) -> Vec<(NetworkId, usize, usize)> {
        let mut pairs = Vec::new();
        for network in &self.networks {
            for &client in &network.members {
                for &server in network.members.iter().filter(|server| **server != client) {
                    let both =
                        [client, server].iter().all(|&node| world.machines()[node].is_in(network.id()));
                    if both && self.can_reach(world, network, client, server) {
                        pairs.push((network.id(), client, server));
                    }
                }
            }
        }
        pairs
    }

    fn can_reach(&self, world: &World, network: &NetworkPlan, client: usize, server: usize) -> bool {
        let lan =
            |node: usize| world.net.attachments(world.machines()[node].config().host).first().map(|c| c.lan);
        if lan(client) == lan(server) || !self.roots.is_empty() && !network.is_listed() {
            return true;
        }
        if lan(server).is_none_or(|lan| self.hidden.contains(&lan)) {
            return false;
        }
        let id = world.machines()[server].node_id();
        let listed = network.config.members().iter().find(|member| member.identity.node_id() == id);
        let endpoints = world.endpoints(server);
        listed.is_some_and(|member| member.endpoints.iter().any(|endpoint| endpoints.contains(endpoint)))
    }

    /// Gives a host another address on its LAN.
    pub(super) fn readdress(&mut self, world: &mut World, host: HostId) -> Result<(), Violation> {
        let Some(&(_, lan)) = self.hosts.iter().find(|(known, _)| *known == host) else { return Ok(()) };
        self.attach(world, host, lan)
    }

    fn add_lan(&mut self, world: &mut World, random: &mut Random, number: u8) {
        let ipv4 = (self.families != Families::Ipv6).then(|| Ipv4Addr::new(198, 51, number, 0));
        let ipv6 = (self.families != Families::Ipv4)
            .then(|| Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, 0));
        let lan = world.net.add_lan(Prefixes { ipv4, ipv6 });
        let far = Wire::random(random);
        let nat = (number > 0 && self.families != Families::Ipv6 && random.chance(0.3)).then(|| {
            self.hidden.insert(lan);
            let config = NatConfig {
                mapping: *random.pick(&Behaviour::ALL),
                filtering: *random.pick(&Behaviour::ALL),
                // Long, because no keepalive refreshes a mapping yet while no program talks.
                timeout: Duration::from_secs(3600),
                ..NatConfig::new([203, 0, 113, number].into())
            };
            Nat::new(config, random.fork())
        });
        world
            .net
            .set_gateway(lan, Some(Gateway { nat, out: far.pipe(), into: far.pipe(), ..Gateway::default() }));
        self.lans.push(lan);
        self.wires.push(Wire::random(random));
    }

    fn add_node(&mut self, world: &mut World, random: &mut Random, number: usize) -> Result<(), Violation> {
        // Several nodes on one machine are allowed.
        let host = match self.hosts.is_empty() || random.chance(0.8) {
            true => {
                let host = world.net.add_host();
                let lan = *random.pick(&self.lans);
                self.hosts.push((host, lan));
                self.attach(world, host, lan)?;
                host
            }
            false => random.pick(&self.hosts).0,
        };
        world.add_machine(MachineConfig {
            host,
            port: 4000 + number as u16,
            node: NodeConfig {
                identity: random.bytes(),
                seed: [0; 32],
                unix_time: Duration::ZERO,
                receive_buffer: *random.pick(&[212_992, 1 << 20, 4 << 20]),
                portable: random.chance(0.2),
                max_segments: *random.pick(&[1, 10, 64, 64]),
                limits: Limits::default(),
                backlog: 32,
            },
            // Wall clocks may disagree, even by decades.
            clock: Duration::from_secs(random.within(0..=4_000_000_000)),
            networks: Vec::new(),
            roots: Vec::new(),
            contact: Contact::default(),
        });
        Ok(())
    }

    fn attach(&mut self, world: &mut World, host: HostId, lan: LanId) -> Result<(), Violation> {
        // No address is used twice, so an old one leads nowhere.
        self.addresses_used += 1;
        let last = self.addresses_used;
        let LanId(number) = lan;
        let ipv4 = Ipv4Addr::new(198, 51, number as u8, last);
        let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, number as u16, 0, 0, 0, last.into());
        let wire = self.wires[number as usize].clone();
        let addresses = (
            (self.families != Families::Ipv6).then_some(ipv4),
            (self.families != Families::Ipv4).then_some(ipv6),
        );
        world.attach(host, lan, addresses, (wire.pipe(), wire.pipe()))
    }

    fn add_networks(&mut self, world: &World, random: &mut Random, nodes: usize) {
        let count = *random.pick(&[1, 1, 2, 3]);
        for number in 0..count {
            let members: Vec<usize> = (0..nodes).filter(|_| count == 1 || random.chance(0.7)).collect();
            if members.len() < 2 {
                continue;
            }
            let id = NetworkId::ad_hoc(PORTS[0]..=PORTS[PORTS.len() - 1] + number).expect("a range");
            // Only a static network reaches beyond a LAN.
            let kind = if self.lans.len() > 1 && random.chance(0.5) { 4 } else { random.below(5) };
            match kind {
                0 | 1 => self
                    .networks
                    .push(NetworkPlan { config: NetworkConfig::AdHoc { id, psk: None }, members }),
                2 => {
                    let psk = Some(Psk::new(random.bytes()));
                    self.networks.push(NetworkPlan { config: NetworkConfig::AdHoc { id, psk }, members });
                }
                // One ID, two keys: two networks that must never meet.
                3 => {
                    let (some, others) = members.into_iter().partition(|member| member % 2 == 0);
                    for members in [some, others] {
                        let psk = Some(Psk::new(random.bytes()));
                        self.networks.push(NetworkPlan { config: NetworkConfig::AdHoc { id, psk }, members });
                    }
                }
                _ => {
                    let config = static_network(world, random, u64::from(number), &members);
                    self.networks.push(NetworkPlan { config: NetworkConfig::Static(config), members });
                }
            }
        }
        if self.networks.is_empty()
            || self.lans.len() > 1 && !self.networks.iter().any(NetworkPlan::is_listed)
        {
            let members: Vec<usize> = (0..nodes).collect();
            let config = static_network(world, random, u64::from(count), &members);
            self.networks.push(NetworkPlan { config: NetworkConfig::Static(config), members });
        }
    }
}

fn static_network(world: &World, random: &mut Random, number: u64, members: &[usize]) -> StaticNetwork {
    let member = |&node: &usize| StaticMember {
        identity: *Identity::from_seed(&world.machines()[node].config().node.identity).public(),
        name: None,
        addresses: vec![Ipv4Addr::new(10, 9, number as u8, node as u8 + 1).into()],
        endpoints: if random.chance(0.9) { world.endpoints(node) } else { Vec::new() },
        routes: Vec::new(),
        exit: peersock_overlay::Exit::default(),
    };
    StaticNetwork {
        id: NetworkId::new(0xfe << 56 | (number + 1)).expect("an ID"),
        psk: None,
        members: members.iter().map(member).collect(),
        exit: None,
        program: None,
    }
}
