//! One gateway or both stop passing UDP while data flows. The flow goes on by a stream to a root.

use std::time::Duration;

use peersock_sim::net::Passes;

use crate::SECOND;
use crate::homes::Homes;

/// Round trip of two nodes and their roots, each 10 ms from the core.
const ROUND_TRIP: Duration = Duration::from_millis(40);

#[test]
fn a_flow_whose_udp_is_dropped_goes_on_by_a_stream_within_a_second() {
    drop_udp(&[&[0], &[1]]);
}

#[test]
fn a_flow_whose_udp_is_dropped_at_both_sides_goes_on_by_streams_within_a_second() {
    drop_udp(&[&[0, 1]]);
}

/// Runs the scene for each of some sets of nodes whose gateways stop passing UDP.
fn drop_udp(sets: &[&[usize]]) {
    let mut late = Vec::new();
    for can_be_punched in [true, false] {
        for (sender, behind) in
            [0, 1].into_iter().flat_map(|sender| sets.iter().map(move |set| (sender, *set)))
        {
            for phase in 0..5 {
                let mut homes = Homes::with_streams(phase, can_be_punched);
                homes.run(5 * SECOND);
                homes.transfer(sender);
                homes.run(5 * SECOND + phase as u32 * SECOND / 7);
                assert_eq!(homes.root_of_path(0).is_none(), can_be_punched);
                for node in behind {
                    let lan = homes.lans[0][*node];
                    homes.world.net.set_passes(lan, Passes::Tcp);
                }
                let stall = homes.longest_stall(5 * SECOND);
                let what = format!(
                    "punched {can_be_punched}, {sender} sends, {} without UDP, phase {phase}: {stall:?}",
                    behind.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(" and ")
                );
                eprintln!("{what}");
                late.extend((stall > SECOND + 2 * ROUND_TRIP).then_some(what));
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}
