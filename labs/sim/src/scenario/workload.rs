//! Workload of the programs.

use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::NetworkId;

use super::topology::Topology;
use crate::world::World;
use crate::{Plan, Random, Time, Violation};

/// Ports that programs listen on, in every network.
pub(super) const PORTS: [u16; 3] = [2000, 2001, 2002];

/// A conversation or exchange with its start time.
#[derive(Debug, Clone)]
pub(super) struct Talk {
    pub(super) at: Time,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Conversation(Arc<Plan>),
    Exchange { network: NetworkId, pair: (usize, usize), port: u16, count: u32, interval: Duration },
}

impl Talk {
    /// Draws conversations and exchanges of pairs that can reach each other at the start, begun by `end`.
    pub(super) fn schedule(random: &mut Random, topology: &Topology, world: &World, end: Time) -> Vec<Self> {
        let mut pairs = topology.reachable_pairs(world);
        if pairs.is_empty() {
            return Vec::new();
        }
        // Programs also talk to programs on the same node.
        let (network, node, _) = *random.pick(&pairs);
        pairs.push((network, node, node));
        let count = random.within(2..=8);
        let most = *random.pick(&[50_000, 500_000, 2_000_000, 4_000_000]) / count;
        // Sometimes a conversation outlives a session and its successor.
        let pause = Duration::from_secs(if random.chance(0.1) { 60 } else { 3 });
        let mut talks: Vec<Self> =
            (0..count).map(|_| Self::random(random, &pairs, most, pause, end)).collect();
        if random.chance(0.3) {
            talks.extend(churn(random, &pairs, end));
        }
        talks
    }

    /// Starts the programs.
    pub(super) fn begin(&self, world: &mut World) -> Result<(), Violation> {
        match &self.kind {
            Kind::Conversation(plan) => world.converse(Arc::clone(plan)),
            Kind::Exchange { network, pair, port, count, interval } => {
                world.exchange(*network, *pair, *port, *count, *interval).map(|_| ())
            }
        }
    }

    fn random(
        random: &mut Random,
        pairs: &[(NetworkId, usize, usize)],
        most: u64,
        pause: Duration,
        end: Time,
    ) -> Self {
        let (network, client, server) = *random.pick(pairs);
        let at = random.duration(Time::ZERO..=end);
        let port = *random.pick(&PORTS);
        let kind = if random.chance(0.2) {
            let interval = random.duration(Duration::from_millis(1)..=Duration::from_millis(500));
            Kind::Exchange {
                network,
                pair: (client, server),
                port,
                count: random.within(1..=30) as u32,
                interval,
            }
        } else {
            Kind::Conversation(Arc::new(Plan::random(random, network, (client, server), port, most, pause)))
        };
        Self { at, kind }
    }
}

/// Makes many short connections, close together.
fn churn(random: &mut Random, pairs: &[(NetworkId, usize, usize)], end: Time) -> Vec<Talk> {
    let (network, client, server) = *random.pick(pairs);
    let at = random.duration(Time::ZERO..=end);
    (0..random.within(5..=30))
        .map(|number| {
            let plan = Plan::greeting(network, (client, server), PORTS[number as usize % PORTS.len()]);
            Talk { at: at + Duration::from_millis(3 * number), kind: Kind::Conversation(Arc::new(plan)) }
        })
        .collect()
}
