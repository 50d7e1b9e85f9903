//! Faults of links and nodes. Every fault ends.

use std::time::Duration;

use peersock_overlay::NetworkConfig;

use super::topology::Topology;
use super::workload::PORTS;
use crate::net::{FaultId, HostId, LinkId, Stage};
use crate::world::{RootPlace, World};
use crate::{Random, Time, Violation};

/// One fault, from its start to its end.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) from: Time,
    pub(super) until: Time,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Links get an additional stage for a while.
    Links(Vec<LinkId>, Stage),
    /// A node is killed and restarted.
    Crash { node: usize, identity: Option<[u8; 32]>, port: Option<u16>, clock: Option<Duration> },
    /// A root is killed and restarted.
    RootCrash(RootPlace),
    /// A node leaves a network and rejoins it.
    Leave { node: usize, network: NetworkConfig },
    /// A host gets another address.
    Readdress(HostId),
    /// A node switches to another port.
    Rebind { node: usize, port: u16 },
}

impl Fault {
    /// Draws random faults that all end by `end`.
    pub(super) fn schedule(random: &mut Random, topology: &Topology, world: &World, end: Time) -> Vec<Self> {
        let count = random.below(10);
        (0..count as u16)
            .map(|number| {
                let from = random.duration(Time::ZERO..=end);
                let until = random.duration(from..=end);
                Self { from, until, kind: Kind::random(random, topology, world, number) }
            })
            .collect()
    }

    /// Starts the fault.
    pub(super) fn begin(
        &self,
        world: &mut World,
        topology: &mut Topology,
        id: FaultId,
    ) -> Result<(), Violation> {
        match &self.kind {
            Kind::Links(links, stage) => {
                world.remark(format_args!("{stage:?} on {links:?}"));
                for &link in links {
                    if let Some(pipe) = world.net.link_mut(link) {
                        pipe.break_with(id, stage.clone());
                    }
                }
                Ok(())
            }
            Kind::Crash { node, .. } => {
                world.crash(*node);
                Ok(())
            }
            Kind::RootCrash(place) => {
                world.kill_root(*place);
                Ok(())
            }
            Kind::Leave { node, network } => world.leave(*node, network.id()),
            Kind::Readdress(host) => topology.readdress(world, *host),
            Kind::Rebind { node, port } => world.change_port(*node, *port),
        }
    }

    /// Ends the fault.
    pub(super) fn end(
        &self,
        world: &mut World,
        topology: &mut Topology,
        id: FaultId,
    ) -> Result<(), Violation> {
        match &self.kind {
            Kind::Links(links, stage) => {
                world.remark(format_args!("{stage:?} ends"));
                for &link in links {
                    if let Some(pipe) = world.net.link_mut(link) {
                        pipe.repair(id);
                    }
                }
                Ok(())
            }
            Kind::Crash { node, identity, port, clock } => {
                if world.machines()[*node].node().is_some() {
                    // The node crashed twice and is running again already.
                    return Ok(());
                }
                if let Some(port) = port {
                    world.change_port(*node, *port)?;
                }
                world.reconfigure(*node, |config| {
                    config.node.identity = identity.unwrap_or(config.node.identity);
                    config.clock = clock.unwrap_or(config.clock);
                });
                world.start(*node)
            }
            Kind::RootCrash(place) => {
                world.restart_root(*place);
                Ok(())
            }
            Kind::Leave { node, network } => {
                let joined =
                    world.machines()[*node].config().networks.iter().any(|(n, _)| n.id() == network.id());
                if joined { Ok(()) } else { world.join(*node, network.clone(), PORTS.to_vec()) }
            }
            Kind::Readdress(_) | Kind::Rebind { .. } => {
                let _ = topology;
                Ok(())
            }
        }
    }
}

impl Kind {
    fn random(random: &mut Random, topology: &Topology, world: &World, number: u16) -> Self {
        let nodes = world.machines().len();
        let node = random.below(nodes);
        let &(host, _) = random.pick(&topology.hosts);
        if !topology.roots.is_empty() && random.chance(0.25) {
            let root = random.pick(&topology.roots);
            return match random.below(3) {
                0 => Self::Links(vec![LinkId::Out(root.lan)], Stage::Cut),
                1 => Self::Links(vec![LinkId::Out(root.lan), LinkId::In(root.lan)], Stage::Cut),
                _ => Self::RootCrash(root.place),
            };
        }
        match random.below(16) {
            0..=2 => Self::Links(some_links(random, topology), Stage::Cut),
            3 | 4 => {
                let loss = random.within(2..=60) as f64 / 100.0;
                Self::Links(some_links(random, topology), Stage::Loss(loss))
            }
            5 => {
                let share = random.within(1..=50) as f64 / 100.0;
                Self::Links(some_links(random, topology), Stage::Duplicate(share))
            }
            6 => {
                let share = random.within(1..=20) as f64 / 100.0;
                Self::Links(some_links(random, topology), Stage::Corrupt(share))
            }
            7 => {
                let probability = random.within(1..=50) as f64 / 100.0;
                let delay = random.duration(Duration::from_millis(1)..=Duration::from_millis(200));
                Self::Links(some_links(random, topology), Stage::Reorder { probability, delay })
            }
            // The base datagram of 1200 bytes must still fit.
            8 => Self::Links(some_links(random, topology), Stage::Mtu(random.within(1248..=1480) as usize)),
            9 => {
                let bytes_per_second = random.size(20_000..=500_000);
                Self::Links(some_links(random, topology), Stage::Rate { bytes_per_second, queue: 32_000 })
            }
            10 => {
                let base = random.duration(Duration::from_millis(10)..=Duration::from_millis(800));
                Self::Links(some_links(random, topology), Stage::Delay { base, jitter: base / 4 })
            }
            11 | 12 => Self::random_crash(random, topology, node, number),
            13 => {
                let networks: Vec<_> =
                    topology.networks.iter().filter(|n| n.members.contains(&node)).collect();
                match networks.is_empty() {
                    true => Self::random_crash(random, topology, node, number),
                    false => Self::Leave { node, network: random.pick(&networks).config.clone() },
                }
            }
            14 if is_movable(topology) => Self::Readdress(host),
            15 if is_movable(topology) => Self::Rebind { node, port: 5000 + number },
            _ => Self::random_crash(random, topology, node, number),
        }
    }

    fn random_crash(random: &mut Random, topology: &Topology, node: usize, number: u16) -> Self {
        let listed =
            topology.networks.iter().any(|network| network.is_listed() && network.members.contains(&node));
        let moves = random.chance(0.3) && is_movable(topology);
        Self::Crash {
            node,
            identity: (!listed && random.chance(0.2)).then(|| random.bytes()),
            port: moves.then_some(6000 + number),
            clock: random.chance(0.3).then(|| Duration::from_secs(random.within(0..=4_000_000_000))),
        }
    }
}

/// Returns true if a node may move. Others must then find it by themselves, which requires a single LAN.
fn is_movable(topology: &Topology) -> bool {
    topology.lans.len() == 1
}

/// Draws one direction of one link, both directions of one, or links of several hosts.
fn some_links(random: &mut Random, topology: &Topology) -> Vec<LinkId> {
    let count = if random.chance(0.6) { 1 } else { random.within(1..=topology.hosts.len() as u64) };
    let directions = random.below(4);
    let mut links = Vec::new();
    for _ in 0..count {
        let &(host, lan) = random.pick(&topology.hosts);
        let (up, down) = match topology.lans.len() > 1 && random.chance(0.3) {
            true => (LinkId::Out(lan), LinkId::In(lan)),
            false => (LinkId::Up(host, lan), LinkId::Down(host, lan)),
        };
        match directions {
            0 => links.push(up),
            1 => links.push(down),
            _ => links.extend([up, down]),
        }
    }
    links
}
