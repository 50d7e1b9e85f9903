//! Long and rough paths: a stream of 1 Gbit/s over 100 ms, radio links, and flows of all lengths.

use peersock_stack::CongestionControl;

use super::catalogue::{each_its_pair, past_start_up};
use super::{Case, Quantity, Target};
use crate::link::{Queue, Rough};
use crate::{Plan, Scenario, ms, secs};

/// Long enough for start-up, which takes a second, to be little.
const LASTING: f64 = 30.0;
const LASTING_SLOW: f64 = 60.0;
/// These take seconds each, and differ little from seed to seed.
const MOST_SEEDS: u64 = 5;
/// Of what the link carries.
const SHARE: f64 = 0.9;
/// How long the flow's own queue may be half of the time, milliseconds.
const WAIT: f64 = 25.0;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Rough::ALL.map(alone).to_vec();
    cases.extend([CongestionControl::Cubic, CongestionControl::Bbr3].map(beside));
    cases.push(ten_flows());
    for case in &mut cases {
        case.most_seeds = MOST_SEEDS;
    }
    cases
}

/// One flow, and the path's fault.
fn alone(rough: Rough) -> Case {
    let (path, mut scenario) = match rough {
        Rough::Lte => ("100mbit_60ms", Scenario::new(100e6, ms(60)).lasting(secs(LASTING_SLOW))),
        _ => ("1gbit_100ms", Scenario::new(1e9, ms(100)).lasting(secs(LASTING))),
    };
    scenario = scenario.with(Plan::endless());
    let bdp = scenario.bdp() as u64;
    rough.lay_on(&mut scenario.forward, &mut scenario.backward, bdp);
    let share = match is_short_of_buffer(rough) || is_swift(rough) {
        true => Target::AimMedian(SHARE),
        false => Target::Median(SHARE),
    };
    let wait = match is_swift(rough) {
        true => Target::AimMedianUnder(WAIT),
        false => Target::MedianUnder(WAIT),
    };
    let share = [share, Target::WorstOverHalfMedian];
    Case::new(format!("{path}_{}", rough.name()), scenario)
        .measure("goodput_share", Quantity::Share, &share)
        .measure("queue_ms", Quantity::Wait, &[wait])
}

/// Whether the buffers are too small for what is missing at the same time. By default they hold 16 MiB, 1.3
/// times what is in flight here, and a receiver that waits for something that was lost keeps a round trip's
/// worth more. With 64 MiB (`tcp_buffers`) it is 0.90 and 0.94 of the link.
fn is_short_of_buffer(rough: Rough) -> bool {
    matches!(rough, Rough::Bursts | Rough::Policed)
}

/// Whether the rate changes faster than BBR looks for more. It probes every two to three seconds, so that
/// flows of Reno and CUBIC beside it get their part, and a probe raises the rate by a quarter per round trip:
/// after a second at a quarter of the rate it takes 0.6 s of the next second to be back at it, if there is a
/// probe at all. What was in flight when the rate falls stands in the queue for as long as the slow second
/// lasts. With probes as soon as such a queue is gone it was 2 % more and the queue longer.
fn is_swift(rough: Rough) -> bool {
    matches!(rough, Rough::Swings | Rough::Wifi | Rough::Lte)
}

/// One flow of ours, and one of another algorithm.
fn beside(theirs: CongestionControl) -> Case {
    let scenario = past_start_up(Scenario::new(100e6, ms(100)).lasting(secs(LASTING_SLOW)))
        .with(Plan::endless())
        .with(Plan { congestion: theirs, ..Plan::endless() });
    let fair = [Target::Median(0.5), Target::MedianUnder(1.5)];
    Case::new("100mbit_100ms_buffer1", each_its_pair(scenario))
        .measure(&format!("share_of_{theirs}"), Quantity::FairShare(1), &fair)
        .measure(&format!("share_beside_{theirs}"), Quantity::FairShare(0), &fair)
}

/// Round trips of 10 to 200 ms in one queue.
///
/// The shares are aims. What BBR has in flight grows with the round trip, and flows divide a bottleneck as
/// they divide its queue: those with long round trips have most of it. The windows' room for a queue, which
/// is bounded by half of the round trip, helps short ones at 20 beside 80 ms and too little at 10 beside 200
/// ms; with more of it many short flows overflow a small buffer.
fn ten_flows() -> Case {
    let mut scenario = past_start_up(Scenario::new(100e6, ms(105)).lasting(secs(LASTING_SLOW)));
    // One BDP of the mean round trip.
    scenario.forward.queue = Queue::DropTail(scenario.bdp() as u64);
    for flow in 0..10 {
        scenario = scenario.with(Plan { pair: flow, start: ms(137) * flow as u64, ..Plan::endless() });
    }
    // 10, 31, 52, … 200 ms.
    scenario.rtts = (0..10).map(|flow| ms(10) + ms(190) * flow / 9).collect();
    Case::new("10_flows_10ms_to_200ms", scenario)
        .measure("smallest_share", Quantity::SmallestShare, &[Target::AimMedian(0.4)])
        .measure("largest_share", Quantity::LargestShare, &[Target::AimMedianUnder(1.6)])
}
