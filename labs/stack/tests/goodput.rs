//! Lower bounds of TCP's goodput over bad links. The scenarios are from `cargo xtask bench tcp`, but shorter
//! and with three seeds, so a change that slows TCP fails at once.
//!
//! A run depends on its seed alone, so these tests fail on every machine or on none. Each floor leaves a
//! margin under the measured figure; the targets are in the catalogue and need longer runs.

use peersock_stack::CongestionControl;
use peersock_stack_lab::measure::{Figure, Settings, catalogue, matches, run};

/// Number of seeds whose median is compared.
const SEEDS: u64 = 3;

#[test]
fn a_clean_link_is_full() {
    at_least("goodput_share/100mbit_40ms_loss0", 20.0, 0.94);
}

#[test]
fn rare_loss_costs_next_to_nothing() {
    at_least("goodput_share/100mbit_40ms_loss0.1", 20.0, 0.93);
}

#[test]
fn one_percent_of_loss_leaves_92_percent() {
    at_least("goodput_share/100mbit_40ms_loss1", 20.0, 0.92);
}

#[test]
fn three_percent_of_loss_leave_90_percent() {
    at_least("goodput_share/100mbit_40ms_loss3", 20.0, 0.90);
}

#[test]
fn five_percent_of_loss_leave_85_percent() {
    at_least("goodput_share/100mbit_40ms_loss5", 20.0, 0.85);
}

#[test]
fn loss_costs_little_on_a_fast_link() {
    at_least("goodput_share/1gbit_10ms_loss3", 3.0, 0.90);
}

/// Start-up overflows with full segments in any order, all of which the receiver must keep.
#[test]
fn jitter_that_reorders_leaves_most_of_a_long_fast_link() {
    for figure in measure("goodput_share/1gbit_100ms_jitter5ms_reorders", 12.0) {
        assert!(figure.min() >= 0.75, "{}: {:.3}", figure.name, figure.min());
    }
}

/// A few packets arrive as soon as they leave, so the shortest round trip is near zero.
#[test]
fn packets_that_overtake_all_others_leave_a_part() {
    at_least("goodput_share/100mbit_20ms_overtaking1", 20.0, 0.25);
    at_least("goodput_share/100mbit_20ms_overtaking10", 20.0, 0.09);
}

#[test]
fn reordering_is_not_taken_for_loss() {
    at_least("goodput_share/100mbit_40ms_reorder10", 20.0, 0.94);
}

#[test]
fn packets_that_are_late_by_several_round_trips_are_not_taken_for_lost() {
    at_least("goodput_share/500mbit_2ms_reorder25", 3.0, 0.40);
    at_least("goodput_share/100mbit_2ms_reorder25_cubic", 5.0, 0.80);
}

#[test]
fn two_flows_share_a_queue_of_one_bdp() {
    at_least("jain/2_flows_buffer1", 30.0, 0.88);
}

#[test]
fn four_flows_share_a_queue_of_one_bdp() {
    at_least("jain/4_flows_buffer1", 30.0, 0.88);
}

#[test]
fn a_short_round_trip_and_a_long_one_have_both_a_part() {
    at_least("share_of_*/20ms_and_80ms", 30.0, 0.35);
}

#[test]
fn neither_a_flow_nor_cubic_beside_it_starves() {
    at_least("share_*_cubic/100mbit_40ms_buffer1", 30.0, 0.5);
}

#[test]
fn a_lone_flow_leaves_a_deep_queue_nearly_empty() {
    at_most("queue_delay_bdp/100mbit_40ms_buffer4", 20.0, 0.15);
}

/// The handshake, one way, and the round trips in which the window of ten segments grows to the size sent. No
/// longer than with slow start, which doubles the window as soon as acknowledgements arrive.
#[test]
fn short_transfers_take_few_round_trips() {
    for (size, most) in [("10kb", 62.0), ("100kb", 183.0), ("1mb", 318.0)] {
        at_most(&format!("completion_ms/{size}_40ms_loss0"), 60.0, most);
    }
}

fn at_least(glob: &str, secs: f64, floor: f64) {
    for figure in measure(glob, secs) {
        assert!(figure.median() >= floor, "{}: {:.3}, expected {floor}", figure.name, figure.median());
    }
}

fn at_most(glob: &str, secs: f64, most: f64) {
    for figure in measure(glob, secs) {
        assert!(figure.max() <= most, "{}: {:.3}, expected {most}", figure.name, figure.max());
    }
}

fn measure(glob: &str, secs: f64) -> Vec<Figure> {
    let mut cases = catalogue(CongestionControl::default());
    for case in &mut cases {
        case.measures.retain(|measure| matches(glob, &measure.name));
    }
    cases.retain(|case| !case.measures.is_empty());
    assert!(!cases.is_empty(), "the catalogue has no {glob}");
    run(cases, Settings { seeds: SEEDS, secs: Some(secs) }, |_, _| ()).expect("nothing goes wrong")
}
