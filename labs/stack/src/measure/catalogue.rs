//! Catalogue of all scenarios, with their targets.

use peersock_stack::CongestionControl;

use super::{Case, Quantity, Target, rough};
use crate::link::{Jitter, Link, Loss, Queue};
use crate::{Batching, Plan, Scenario, Time, ms, secs, us};

/// Default duration of a scenario, seconds.
const DEFAULT_SECONDS: f64 = 60.0;
/// Durations for links that carry a packet in 12 µs or less, which cost more computing time.
const LASTING_1G: f64 = 10.0;
const LASTING_10G: f64 = 1.0;
/// Part of a run that figures of fairness omit, because flows need time to find their shares.
const START_UP: f64 = 1.0 / 6.0;
/// Maximum stall of a reader, seconds.
const MAX_STALL: Target = Target::AllAtMost(2.0);

/// Returns every case, with `congestion` as the default congestion control.
pub fn catalogue(congestion: CongestionControl) -> Vec<Case> {
    let mut cases = goodput();
    cases.extend(impaired());
    cases.extend(fairness());
    cases.extend(queues());
    cases.extend(completion());
    cases.extend(rough::cases());
    for case in &mut cases {
        for plan in &mut case.scenario.plans {
            // A plan with another algorithm is a rival and keeps it.
            if plan.congestion == CongestionControl::default() {
                plan.congestion = congestion;
            }
        }
    }
    cases
}

/// Returns the link of most scenarios.
fn usual() -> Scenario {
    Scenario::new(100e6, ms(40)).lasting(secs(DEFAULT_SECONDS))
}

/// A link with a single flow, and the shares that it must carry at random losses.
struct Lone {
    name: &'static str,
    /// Bandwidth, bit/s.
    rate: f64,
    rtt: Time,
    lasting: f64,
    /// Time in which arriving packets are received together. On the fastest link it must be short compared
    /// with the round trip.
    batch: Time,
    /// Loss in percent, and the share that the median must reach.
    losses: &'static [(f64, f64)],
}

const LONE: [Lone; 4] = [
    Lone {
        name: "100mbit_40ms",
        rate: 100e6,
        rtt: ms(40),
        lasting: DEFAULT_SECONDS,
        batch: us(50),
        losses: &[(0.0, 0.95), (0.1, 0.95), (1.0, 0.94), (3.0, 0.91), (5.0, 0.88)],
    },
    Lone {
        name: "1gbit_10ms",
        rate: 1e9,
        rtt: ms(10),
        lasting: LASTING_1G,
        batch: us(50),
        losses: &[(0.0, 0.95), (0.1, 0.95), (1.0, 0.94), (3.0, 0.91), (5.0, 0.88)],
    },
    Lone {
        name: "20mbit_200ms",
        rate: 20e6,
        rtt: ms(200),
        lasting: DEFAULT_SECONDS,
        batch: us(50),
        losses: &[(0.0, 0.94), (0.1, 0.93), (1.0, 0.92), (3.0, 0.90), (5.0, 0.86)],
    },
    Lone {
        name: "10gbit_0.2ms",
        rate: 10e9,
        rtt: us(200),
        lasting: LASTING_10G,
        batch: us(10),
        losses: &[(0.0, 0.95)],
    },
];

/// Returns the cases of one flow with random loss.
fn goodput() -> Vec<Case> {
    let mut cases = Vec::new();
    for Lone { name, rate, rtt, lasting, batch, losses } in LONE {
        for &(percent, least) in losses {
            let mut scenario = Scenario::new(rate, rtt).lasting(secs(lasting)).with(Plan::endless());
            scenario.batching = Batching::After(batch);
            scenario.forward.loss = percent_of_packets(percent);
            let case = Case::new(format!("{name}_loss{percent}"), scenario);
            cases.push(case.measure("goodput_share", Quantity::Share, &[Target::Median(least)]).measure(
                "longest_stall_s",
                Quantity::LongestStall,
                &[],
            ));
        }
    }
    cases
}

fn percent_of_packets(percent: f64) -> Loss {
    if percent == 0.0 { Loss::None } else { Loss::Random(percent / 100.0) }
}

/// Returns the cases of one flow over links with other faults, or other buffers.
fn impaired() -> Vec<Case> {
    let with = |change: &dyn Fn(&mut Link)| {
        let mut scenario = usual().with(Plan::endless());
        change(&mut scenario.forward);
        scenario
    };
    let reorder = |share: f64| move |link: &mut Link| (link.reorder, link.reorder_by) = (share, ms(10));
    let bursts = |share: f64, packets: Time| {
        // A packet takes 120 µs.
        move |link: &mut Link| link.loss = Loss::Bursts { share, mean: us(120) * packets }
    };
    let jitter = |most: Time| move |link: &mut Link| link.jitter = Some(Jitter { most, step: ms(10) });
    let mut ack_loss = usual().with(Plan::endless());
    ack_loss.backward.loss = Loss::Random(0.05);
    let mut aggregated = with(&|link| link.loss = Loss::Random(0.03));
    aggregated.batching = Batching::Every(ms(10));
    let mut big_batches = Scenario::new(1e9, ms(10)).lasting(secs(LASTING_1G)).with(Plan::endless());
    big_batches.batching = Batching::Every(ms(1));
    big_batches.forward.loss = Loss::Random(0.03);
    let mut capped = with(&|link| link.loss = Loss::Random(0.03));
    capped.in_flight_cap = capped.bdp() as usize;
    let slower = with(&|link| link.rate_steps = vec![(secs(10.0), 10e6)]);
    let mut faster = Scenario::new(10e6, ms(40)).lasting(secs(DEFAULT_SECONDS)).with(Plan::endless());
    faster.forward.rate_steps = vec![(secs(10.0), 100e6)];
    // One BDP of the higher rate in both cases.
    faster.forward.queue = slower.forward.queue;
    let mut marked = with(&|_| ());
    marked.forward.mark_over = Some((marked.bdp() / 4.0) as u64);
    marked.plans[0].ecn = true;
    let mut late = with(&|link| link.loss = Loss::Random(0.01));
    late.timers_late = ms(4);
    let mut policed = with(&|_| ());
    policed.forward.queue = Queue::Policer((policed.bdp() / 4.0) as u64);

    // Late packets take several round trips, so a reordering window of one round trip mistakes them for lost.
    let very_late = |rate: f64, congestion: CongestionControl| {
        let mut scenario = Scenario::new(rate, ms(2)).lasting(secs(LASTING_1G));
        scenario = scenario.with(Plan { congestion, ..Plan::endless() });
        for link in [&mut scenario.forward, &mut scenario.backward] {
            reorder(0.25)(link);
        }
        scenario
    };

    // The minimum round trip is close to zero, so most packets count as late.
    let overtaking = |share: f64| {
        let mut scenario = Scenario::new(100e6, ms(20)).lasting(secs(DEFAULT_SECONDS)).with(Plan::endless());
        for link in [&mut scenario.forward, &mut scenario.backward] {
            link.overtakes = share;
        }
        scenario
    };

    let judged: Vec<(&str, Scenario, f64)> = vec![
        ("100mbit_40ms_reorder1", with(&reorder(0.01)), 0.95),
        ("100mbit_40ms_reorder10", with(&reorder(0.10)), 0.95),
        ("500mbit_2ms_reorder25", very_late(500e6, CongestionControl::default()), 0.40),
        ("100mbit_2ms_reorder25_cubic", very_late(100e6, CongestionControl::Cubic), 0.80),
    ];
    let reported = vec![
        ("100mbit_40ms_bursts1_5", with(&bursts(0.01, 5))),
        ("100mbit_40ms_bursts3_10", with(&bursts(0.03, 10))),
        ("100mbit_40ms_ackloss5", ack_loss),
        ("100mbit_40ms_buffer0.1", with(&|_| ()).buffer(0.1)),
        ("100mbit_40ms_buffer4", with(&|_| ()).buffer(4.0)),
        ("100mbit_40ms_jitter40ms", with(&jitter(ms(40)))),
        ("100mbit_40ms_duplicate1", with(&|link| link.duplicate = 0.01)),
        ("100mbit_40ms_loss3_aggregated10ms", aggregated),
        ("1gbit_10ms_loss3_aggregated1ms", big_batches),
        ("100mbit_40ms_loss3_cap1bdp", capped),
        ("100mbit_40ms_loss1_timers4ms_late", late),
        ("100mbit_40ms_marks", marked),
        ("100mbit_40ms_policed", policed),
        ("100mbit_to_10mbit_40ms", slower),
        ("10mbit_to_100mbit_40ms", faster),
    ];
    let aimed = [1, 10].map(|percent| {
        let scenario = overtaking(f64::from(percent) / 100.0);
        Case::new(format!("100mbit_20ms_overtaking{percent}"), scenario).measure(
            "goodput_share",
            Quantity::Share,
            &[Target::AimMedian(0.9), Target::WorstOverHalfMedian],
        )
    });
    let judged = judged.into_iter().map(|(name, scenario, least)| {
        Case::new(name, scenario).measure("goodput_share", Quantity::Share, &[Target::Median(least)])
    });
    let reported = reported.into_iter().map(|(name, scenario)| {
        Case::new(name, scenario)
            .measure("goodput_share", Quantity::Share, &[Target::WorstOverHalfMedian])
            .measure("longest_stall_s", Quantity::LongestStall, &[MAX_STALL])
    });
    judged.chain(aimed).chain(reported).collect()
}

/// Returns the cases of several flows in one queue.
fn fairness() -> Vec<Case> {
    let mut cases = Vec::new();
    for (buffer, least) in [(0.1, 0.9), (1.0, 0.9), (4.0, 0.8)] {
        // One BDP and four have targets; smaller buffers are only reported.
        let target: &[Target] = if buffer < 1.0 { &[] } else { &[Target::Median(least)] };
        for flows in [2, 4, 10] {
            let mut scenario = past_start_up(usual().buffer(buffer));
            for flow in 0..flows {
                scenario = scenario.with(Plan { start: ms(137) * flow, ..Plan::endless() });
            }
            let scenario = each_its_pair(scenario);
            let case = Case::new(format!("{flows}_flows_buffer{buffer}"), scenario);
            cases.push(case.measure("jain", Quantity::Jain, target).measure(
                "self_made_loss",
                Quantity::SelfMadeLoss,
                &[],
            ));
        }
    }
    // Flows of one node share one stack, and their packets arrive mixed.
    let mut one_node = past_start_up(usual());
    for flow in 0..4 {
        one_node = one_node.with(Plan { start: ms(137) * flow, ..Plan::endless() });
    }
    cases.push(Case::new("4_flows_of_one_node_buffer1", one_node).measure("jain", Quantity::Jain, &[]));
    let quarter: &[Target] = &[Target::Median(0.25)];
    let cubic = CongestionControl::Cubic;
    for (buffer, together) in [(0.5, true), (1.0, true), (1.0, false), (4.0, true)] {
        let (ours, theirs) = (if together { 0 } else { secs(5.0) }, 0);
        let scenario = past_start_up(usual().buffer(buffer))
            .with(Plan { start: ours, ..Plan::endless() })
            .with(Plan { start: theirs, congestion: cubic, ..Plan::endless() });
        let when = if together { "" } else { "_cubic_first" };
        // The requirement holds for one BDP.
        let target = if buffer == 1.0 { quarter } else { &[] };
        let case = Case::new(format!("100mbit_40ms_buffer{buffer}{when}"), each_its_pair(scenario));
        cases.push(case.measure("share_of_cubic", Quantity::FairShare(1), target).measure(
            "share_beside_cubic",
            Quantity::FairShare(0),
            target,
        ));
    }
    let mut rtts = past_start_up(usual()).with(Plan::endless()).with(Plan { pair: 1, ..Plan::endless() });
    rtts.rtts = vec![ms(20), ms(80)];
    // One BDP of the mean round trip.
    rtts.forward.queue = Queue::DropTail((usual().bdp()) as u64);
    cases.push(
        Case::new("20ms_and_80ms", rtts).measure("share_of_20ms", Quantity::FairShare(0), quarter).measure(
            "share_of_80ms",
            Quantity::FairShare(1),
            quarter,
        ),
    );
    cases
}

/// Omits the first sixth from figures of fairness.
pub(super) fn past_start_up(mut scenario: Scenario) -> Scenario {
    scenario.mark = (scenario.lasting as f64 * START_UP) as Time;
    // A different phase between the flows with each seed.
    scenario.start_spread = ms(100);
    scenario
}

/// Gives each connection its own pair of hosts.
pub(super) fn each_its_pair(mut scenario: Scenario) -> Scenario {
    let rtt = scenario.rtts[0];
    scenario.rtts = vec![rtt; scenario.plans.len()];
    for (pair, plan) in scenario.plans.iter_mut().enumerate() {
        plan.pair = pair;
    }
    scenario
}

/// Returns the cases of the queueing delay that a single flow causes.
fn queues() -> Vec<Case> {
    let of = |buffer: f64, targets: &[Target]| {
        let case =
            Case::new(format!("100mbit_40ms_buffer{buffer}"), usual().buffer(buffer).with(Plan::endless()));
        case.measure("queue_delay_bdp", Quantity::QueueDelay, targets)
    };
    vec![of(1.0, &[]), of(4.0, &[Target::MedianUnder(0.15)])]
}

/// Returns the cases of short transfers.
fn completion() -> Vec<Case> {
    let mut cases = Vec::new();
    for (size, bytes) in [("10kb", 10_000), ("100kb", 100_000), ("1mb", 1_000_000)] {
        for percent in [0.0, 1.0] {
            let mut scenario = usual().with(Plan::upload(bytes));
            scenario.forward.loss = percent_of_packets(percent);
            scenario.backward.loss = percent_of_packets(percent);
            let mut case = Case::new(format!("{size}_40ms_loss{percent}"), scenario);
            // Random loss makes single runs differ more.
            case.runs_per_seed = if percent == 0.0 { 1 } else { 10 };
            cases.push(case.measure("completion_ms", Quantity::Completion, &[]));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_figure_has_its_own_name() {
        let cases = catalogue(CongestionControl::default());
        let names: Vec<&str> =
            cases.iter().flat_map(|case| &case.measures).map(|measure| measure.name.as_str()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.contains(&"goodput_share/100mbit_40ms_loss0.1"));
        assert!(names.contains(&"goodput_share/10gbit_0.2ms_loss0"));
    }

    #[test]
    fn the_rival_stays_cubic() {
        let cases = catalogue(CongestionControl::Reno);
        let case =
            cases.iter().find(|case| case.name == "100mbit_40ms_buffer1_cubic_first").expect("it is there");
        let all: Vec<_> = case.scenario.plans.iter().map(|plan| plan.congestion).collect();
        assert_eq!(all, [CongestionControl::Reno, CongestionControl::Cubic]);
    }
}
