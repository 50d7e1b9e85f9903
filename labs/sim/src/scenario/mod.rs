//! Scenarios, in which everything from hosts to faults follows from the seed.
//!
//! A scenario begins with a **fault phase**. In it links break, nodes crash, move, leave and come back while
//! their programs talk, and an adversary may be a member of their network. Then comes a **calm phase**
//! without any faults. Within [`Limits::recovery`] of its start every pair of nodes that can reach one
//! another must have a new connection. Within [`COMPLETION`] every conversation must have ended.

mod faults;
mod roots;
mod topology;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::trace::Trace;
use crate::world::{Limits, World};
use crate::{Plan, Random, Time, Violation};

use faults::Fault;
use topology::Topology;
use workload::Talk;

/// Time after the last fault within which all earlier conversations must end. It is long because a TCP that
/// still loses packets may have backed off to a retransmission timeout of a minute.
pub const COMPLETION: Duration = Duration::from_secs(600);

/// Share of the scenarios that have an adversary. It stays active until honest nodes have found each other
/// again.
const ADVERSARIES: f64 = 0.4;

/// One seed's story.
#[derive(Debug)]
pub struct Scenario {
    /// Seed of the whole scenario.
    pub seed: u64,
    /// True to write every event to standard error.
    pub trace: bool,
}

/// Result of a scenario.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Event that must never happen, if one occurred.
    pub violation: Option<Violation>,
    /// Hash of all events.
    pub hash: u64,
    /// Number of events noted.
    pub events: u64,
    /// Virtual time.
    pub virtual_time: Time,
    /// Time after the last fault until the slowest pair had a new connection.
    pub recovery: Duration,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of roots.
    pub roots: usize,
    /// Number of faults.
    pub faults: usize,
    /// Conversations completed, and conversations begun.
    pub conversations: (usize, usize),
    /// Bytes of TCP streams that were checked.
    pub bytes: u64,
    /// UDP datagrams that were checked.
    pub datagrams: u64,
    /// Datagrams that nodes sent.
    pub sent: u64,
    /// Session directions seen on the wire.
    pub sessions: usize,
    /// Messages sent by an adversary.
    pub intrusions: u64,
    /// Nodes that must be left without any connection at the end, and nodes that run then.
    pub idle: (usize, usize),
}

impl Scenario {
    /// Makes the scenario of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, trace: false }
    }

    /// Runs the scenario. A panic in a node is a violation like any other.
    pub fn run(&self) -> Report {
        let mut report = Report {
            seed: self.seed,
            violation: None,
            hash: 0,
            events: 0,
            virtual_time: Time::ZERO,
            recovery: Duration::ZERO,
            nodes: 0,
            roots: 0,
            faults: 0,
            conversations: (0, 0),
            bytes: 0,
            datagrams: 0,
            sent: 0,
            sessions: 0,
            intrusions: 0,
            idle: (0, 0),
        };
        let mut random = Random::from_seed(self.seed);
        let trace = Trace::new(self.trace);
        let mut world = World::new(random.fork(), trace, Limits::default());
        let told = catch_unwind(AssertUnwindSafe(|| play(&mut world, &mut random, &mut report)));
        report.violation = match told {
            Ok(Ok(())) => None,
            Ok(Err(violation)) => Some(violation),
            Err(panic) => Some(Violation(format!("panic: {}", panic_text(&*panic)))),
        };
        report.hash = world.trace().hash();
        report.events = world.trace().len();
        report.virtual_time = world.now();
        report.nodes = world.machines().len();
        report.conversations = world.ledger.completed();
        report.bytes = world.ledger.bytes_checked;
        report.datagrams = world.ledger.datagrams_checked;
        report.sent = world.net.stats().sent;
        report.sessions = world.wire().sessions();
        report.intrusions = world.intrusions();
        report
    }
}

fn play(world: &mut World, random: &mut Random, report: &mut Report) -> Result<(), Violation> {
    let mut topology = Topology::make(world, &mut random.fork())?;
    if !topology.roots.is_empty() {
        world.set_recovery(roots::RECOVERY);
    }
    report.roots = topology.roots.len();
    if random.chance(ADVERSARIES) {
        topology.admit_intruder(world, &mut random.fork())?;
    }
    let faults_until = Duration::from_secs(random.within(3..=20));
    let faults = Fault::schedule(&mut random.fork(), &topology, world, faults_until);
    report.faults = faults.len();
    let talks = Talk::schedule(&mut random.fork(), &topology, world, faults_until);

    let mut timeline: Vec<(Time, Act)> = Vec::new();
    for (number, fault) in faults.into_iter().enumerate() {
        let id = crate::net::FaultId(number as u32);
        timeline.push((fault.from, Act::Break(id, fault.clone())));
        timeline.push((fault.until, Act::Repair(id, fault)));
    }
    timeline.extend(talks.into_iter().map(|talk| (talk.at, Act::Talk(talk))));
    timeline.sort_by_key(|(at, _)| *at);
    for (at, act) in timeline {
        world.run_until(at)?;
        match act {
            Act::Break(id, fault) => fault.begin(world, &mut topology, id)?,
            Act::Repair(id, fault) => fault.end(world, &mut topology, id)?,
            Act::Talk(talk) => talk.begin(world)?,
        }
    }
    world.run_until(faults_until)?;
    world.set_calm(true);
    world.remark(format_args!("calm"));
    recover(world, random, &topology, report)?;
    world.calm_intruder();
    report.idle = complete(world)?;
    if random.chance(0.15) {
        // Idle until sessions need a rekey or are forgotten, then every node talks again.
        let idle = Duration::from_secs(random.within(100..=700));
        let end = world.now() + idle;
        world.run_until(end)?;
        world.set_calm(true);
        recover(world, random, &topology, report)?;
        report.idle = complete(world)?;
    }
    Ok(())
}

enum Act {
    Break(crate::net::FaultId, Fault),
    Repair(crate::net::FaultId, Fault),
    Talk(Talk),
}

/// Checks that every pair that can reach one another makes a new connection.
fn recover(
    world: &mut World,
    random: &mut Random,
    topology: &Topology,
    report: &mut Report,
) -> Result<(), Violation> {
    let calm = world.now();
    let mut greetings: Vec<Arc<Plan>> = Vec::new();
    for (network, client, server) in topology.reachable_pairs(world) {
        let plan = Arc::new(Plan::greeting(network, (client, server), *random.pick(&workload::PORTS)));
        greetings.push(plan.clone());
        world.converse(plan)?;
    }
    let mut ends = 0;
    let limit = calm + world.limits().recovery;
    if !greetings.is_empty() {
        world.run_while(limit, |world| {
            if ends != world.ledger.ends {
                ends = world.ledger.ends;
                greetings.retain(|plan| !world.ledger.is_fulfilled(plan));
            }
            !greetings.is_empty()
        })?;
    }
    report.recovery = report.recovery.max(world.now() - calm);
    match greetings.first() {
        None => Ok(()),
        Some(plan) => Err(Violation(format!(
            "{} pairs have no new connection {:?} after the last fault, among them nodes {} and {} in {}",
            greetings.len(),
            report.recovery,
            plan.client,
            plan.server,
            plan.network
        ))),
    }
}

/// Waits until all conversations have ended, and checks that no state is left behind. Returns the result of
/// [`World::check_nothing_left`].
fn complete(world: &mut World) -> Result<(usize, usize), Violation> {
    let limit = world.now() + COMPLETION;
    let mut ends = None;
    world.run_while(limit, |world| {
        let news = ends != Some(world.ledger.ends);
        ends = Some(world.ledger.ends);
        !news || world.ledger.pending().next().is_some()
    })?;
    world.check_complete()?;
    loop {
        // A connection may outlive its programs by TIME-WAIT at most.
        let end = world.now() + Duration::from_secs(70);
        world.run_until(end)?;
        let left = world.check_nothing_left();
        // Conversations that a fault disturbed but did not cut off go on, because their programs may pause
        // for long.
        if left.is_ok() || world.now() >= limit {
            return left;
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
