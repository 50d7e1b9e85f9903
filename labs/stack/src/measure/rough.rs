//! Long and rough paths: a stream of 1 Gbit/s over 100 ms, radio links, and flows with different round trips.

use peersock_stack::CongestionControl;

use super::catalogue::{each_its_pair, past_start_up};
use super::{Case, Quantity, Target};
use crate::link::{Queue, Rough};
use crate::{Plan, Scenario, ms, secs};

/// Duration in which the start-up of a second hardly matters.
const DEFAULT_SECONDS: f64 = 30.0;
const LASTING_SLOW: f64 = 60.0;
/// Maximum number of seeds, because runs take seconds each and differ little between seeds.
const MAX_SEEDS: u64 = 5;
/// Required share of the link's capacity.
const MIN_CAPACITY_SHARE: f64 = 0.9;
/// Maximum median length of the flow's own queue, milliseconds.
const MAX_QUEUE_MS: f64 = 25.0;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Rough::ALL.map(alone).to_vec();
    cases.extend([CongestionControl::Cubic, CongestionControl::Bbr3].map(beside));
    cases.push(ten_flows());
    for case in &mut cases {
        case.most_seeds = MAX_SEEDS;
    }
    cases
}

/// Returns the case of one flow on a path with a fault.
fn alone(rough: Rough) -> Case {
    let (path, mut scenario) = match rough {
        Rough::Lte => ("100mbit_60ms", Scenario::new(100e6, ms(60)).lasting(secs(LASTING_SLOW))),
        _ => ("1gbit_100ms", Scenario::new(1e9, ms(100)).lasting(secs(DEFAULT_SECONDS))),
    };
    scenario = scenario.with(Plan::endless());
    let bdp = scenario.bdp() as u64;
    rough.lay_on(&mut scenario.forward, &mut scenario.backward, bdp);
    let share = match is_short_of_buffer(rough) || is_swift(rough) {
        true => Target::AimMedian(MIN_CAPACITY_SHARE),
        false => Target::Median(MIN_CAPACITY_SHARE),
    };
    let wait = match is_swift(rough) {
        true => Target::AimMedianUnder(MAX_QUEUE_MS),
        false => Target::MedianUnder(MAX_QUEUE_MS),
    };
    let share = [share, Target::WorstOverHalfMedian];
    Case::new(format!("{path}_{}", rough.name()), scenario)
        .measure("goodput_share", Quantity::Share, &share)
        .measure("queue_ms", Quantity::Wait, &[wait])
}

/// Returns true if the buffers are too small for all data missing at the same time. By default they hold 16
/// MiB, 1.3 times the bytes in flight here. A receiver that waits for a lost segment keeps a round trip's
/// data in addition. With 64 MiB (`tcp_buffers`) the shares are 0.90 and 0.94.
fn is_short_of_buffer(rough: Rough) -> bool {
    matches!(rough, Rough::Bursts | Rough::Policed)
}

/// Returns true if the rate changes faster than BBR probes for more. BBR probes every two to three seconds,
/// so that flows of Reno and CUBIC beside it get their share. A probe raises the rate by a quarter per round
/// trip. After a second at a quarter of the rate, it takes 0.6 s of the next second to return, if there is a
/// probe at all. When the rate falls, the bytes in flight stay in the queue for the whole slow second. Probes
/// right after the end of such a queue gave 2 % more, and a longer queue.
fn is_swift(rough: Rough) -> bool {
    matches!(rough, Rough::Swings | Rough::Wifi | Rough::Lte)
}

/// Returns the case of one peersock flow beside one of another algorithm.
fn beside(theirs: CongestionControl) -> Case {
    let scenario = past_start_up(Scenario::new(100e6, ms(100)).lasting(secs(LASTING_SLOW)))
        .with(Plan::endless())
        .with(Plan { congestion: theirs, ..Plan::endless() });
    let fair = [Target::Median(0.5), Target::MedianUnder(1.5)];
    Case::new("100mbit_100ms_buffer1", each_its_pair(scenario))
        .measure(&format!("share_of_{theirs}"), Quantity::FairShare(1), &fair)
        .measure(&format!("share_beside_{theirs}"), Quantity::FairShare(0), &fair)
}

/// Returns the case of round trips of 10 to 200 ms in one queue.
///
/// The shares are aims. BBR's bytes in flight grow with the round trip, and flows share a bottleneck in
/// proportion to their shares of its queue. So flows with long round trips get most of it. The windows' room
/// for a queue is bounded by half of the round trip. It suffices for 20 ms beside 80 ms, but not for 10 ms
/// beside 200 ms. With more room, many short flows overflow a small buffer.
fn ten_flows() -> Case {
    let mut scenario = past_start_up(Scenario::new(100e6, ms(105)).lasting(secs(LASTING_SLOW)));
    // One BDP of the mean round trip.
    scenario.forward.queue = Queue::DropTail(scenario.bdp() as u64);
    for flow in 0..10 {
        scenario = scenario.with(Plan { pair: flow, start: ms(137) * flow as u64, ..Plan::endless() });
    }
    // Round trips of 10, 31, 52, … 200 ms.
    scenario.rtts = (0..10).map(|flow| ms(10) + ms(190) * flow / 9).collect();
    Case::new("10_flows_10ms_to_200ms", scenario)
        .measure("smallest_share", Quantity::SmallestShare, &[Target::AimMedian(0.4)])
        .measure("largest_share", Quantity::LargestShare, &[Target::AimMedianUnder(1.6)])
}
