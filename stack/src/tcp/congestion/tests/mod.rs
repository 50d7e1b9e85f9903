//! Tests of the algorithms on modelled paths, in virtual time.

mod calls;
mod network;
mod sender;

use super::CongestionControl::{self, Bbr, Bbr3, Cubic, Reno};
use network::{Flow, Link, Report, run};

/// Time in nanoseconds, because a packet takes few of them on a fast link.
type Nanos = u64;

const SECOND: Nanos = 1_000_000_000;
const MS: Nanos = SECOND / 1000;

/// Payload of a segment, and its size on the link.
const MSS: u64 = 1388;
const WIRE: u64 = 1500;

const ALL: [CongestionControl; 4] = CongestionControl::ALL;

/// Returns a link of `rate` Mbit/s with a buffer of `buffer` percent of the product with `rtt`.
fn link(rate: u64, rtt: Nanos, buffer: u64) -> Link {
    let rate = rate * 1_000_000;
    let product = rate as u128 * rtt as u128 / 8 / SECOND as u128;
    Link {
        rate,
        buffer: (product as u64 * buffer / 100).max(3 * WIRE),
        loss: 0.0,
        run: 1.0,
        jitter: 0,
        release: 0,
        mark: None,
        outage: (0, 0),
        stall: (0, 0),
    }
}

fn alone(control: CongestionControl, link: Link, rtt: Nanos, duration: Nanos, seed: u64) -> Report {
    run(link, &[Flow { control, rtt, start: 0, gives: None }], duration, seed)
}

/// Runs flows with equal round-trip times that start one after the other.
fn several(controls: &[CongestionControl], link: Link, rtt: Nanos, seed: u64) -> Report {
    let flows: Vec<Flow> = controls
        .iter()
        .enumerate()
        .map(|(i, &control)| Flow {
            control,
            rtt,
            start: i as Nanos * (137 + 7 * (seed - 1)) * MS,
            gives: None,
        })
        .collect();
    run(link, &flows, 60 * SECOND, seed)
}

/// Returns the median over seeds.
fn median(seeds: u64, measure: impl Fn(u64) -> f64) -> f64 {
    let mut values: Vec<f64> = (1..=seeds).map(measure).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns a link of 100 Mbit/s with 40 ms and a buffer of `buffer` percent of the product.
fn usual(buffer: u64) -> Link {
    link(100, RTT, buffer)
}

const RTT: Nanos = 40 * MS;
const PRODUCT: f64 = 500_000.0;

fn check(what: &str, measured: f64, floor: f64) {
    assert!(measured >= floor, "{what}: {measured:.3} is under {floor}");
}

#[test]
fn bbr_uses_a_link_that_loses_packets() {
    for (loss, floor) in [(0.0, 0.95), (1.0, 0.95), (10.0, 0.94), (30.0, 0.92), (50.0, 0.89), (100.0, 0.82)] {
        let share = median(3, |seed| alone(Bbr, Link { loss, ..usual(100) }, RTT, 20 * SECOND, seed).share);
        check(&format!("{loss} per thousand"), share, floor);
    }
}

#[test]
fn bbr_uses_links_of_all_kinds_that_lose_packets() {
    for (rate, rtt, duration, floor) in [
        (1000, 10 * MS, 3 * SECOND, 0.92),
        (20, 200 * MS, 20 * SECOND, 0.86),
        (10_000, MS / 5, SECOND / 2, 0.93),
        (1, 100 * MS, 20 * SECOND, 0.90),
        (100, 2 * MS, 5 * SECOND, 0.94),
    ] {
        let lossy = Link { loss: 30.0, ..link(rate, rtt, 100) };
        let share = median(3, |seed| alone(Bbr, lossy, rtt, duration, seed).share);
        check(&format!("{rate} Mbit/s, {rtt} ns"), share, floor);
    }
}

#[test]
fn bbr_is_not_misled_by_jitter_bursts_of_loss_and_aggregation() {
    let lossy = Link { loss: 30.0, ..usual(100) };
    for (what, link, floor) in [
        ("runs of 10", Link { run: 10.0, ..lossy }, 0.90),
        ("10 ms of jitter", Link { jitter: 10 * MS, ..lossy }, 0.92),
        ("20 ms of jitter", Link { jitter: 20 * MS, ..lossy }, 0.85),
        ("released every 10 ms", Link { release: 10 * MS, ..lossy }, 0.92),
    ] {
        for seed in 1..=5 {
            check(&format!("{what}, seed {seed}"), alone(Bbr, link, RTT, 20 * SECOND, seed).share, floor);
        }
    }
}

#[test]
fn published_bbr_takes_every_loss_for_congestion() {
    let share =
        |loss| median(3, |seed| alone(Bbr3, Link { loss, ..usual(100) }, RTT, 20 * SECOND, seed).share);
    check("without loss", share(0.0), 0.94);
    check("1 per thousand", share(1.0), 0.86);
    assert!(share(30.0) < 0.5, "{}", share(30.0));
}

#[test]
fn cubic_and_reno_fill_a_link_without_loss() {
    for control in [Cubic, Reno] {
        check(control.name(), alone(control, usual(100), RTT, 20 * SECOND, 1).share, 0.97);
        let lossy = alone(control, Link { loss: 10.0, ..usual(100) }, RTT, 20 * SECOND, 1).share;
        assert!((0.02..0.1).contains(&lossy), "{control}: {lossy:.3}");
    }
}

#[test]
fn bbr_keeps_queues_short_and_copes_with_small_buffers() {
    for (buffer, floor) in [(10, 0.93), (25, 0.95), (100, 0.95), (400, 0.95)] {
        let report = alone(Bbr, usual(buffer), RTT, 20 * SECOND, 1);
        check(&format!("buffer of {buffer} percent"), report.share, floor);
        assert!(report.queue < 0.1 * PRODUCT, "buffer of {buffer} percent: {:.0}", report.queue);
    }
    let cubic = alone(Cubic, usual(400), RTT, 20 * SECOND, 1);
    assert!(cubic.queue > PRODUCT, "the queue is measured");
}

/// Hasty start-up overflows the queue at half of the rate, and start-up must continue.
#[test]
fn bbr_finds_the_rate_behind_a_small_buffer_at_once() {
    for buffer in [10, 25, 50] {
        let share = median(3, |seed| alone(Bbr, usual(buffer), RTT, 4 * SECOND, seed).share);
        check(&format!("buffer of {buffer} percent"), share, 0.91);
    }
}

#[test]
fn hystart_overflows_a_deep_queue_less() {
    let early = alone(Cubic, usual(400), RTT, 2 * SECOND, 1).flows[0].dropped;
    let late = alone(Reno, usual(400), RTT, 2 * SECOND, 1).flows[0].dropped;
    assert!(early * 2 < late, "{early} and {late}");
}

fn check_fairness(control: CongestionControl, buffer: u64, floor: f64) {
    for count in [2, 4, 10] {
        let fairness = median(3, |seed| several(&vec![control; count], usual(buffer), RTT, seed).fairness());
        check(&format!("{count} flows of {control}"), fairness, floor);
    }
}

#[test]
fn bbr_flows_share_a_small_buffer() {
    check_fairness(Bbr, 10, 0.85);
}

#[test]
fn bbr_flows_share_a_buffer() {
    check_fairness(Bbr, 100, 0.90);
}

#[test]
fn bbr_flows_share_a_deep_buffer() {
    check_fairness(Bbr, 400, 0.80);
}

#[test]
fn bbr_flows_with_short_and_long_round_trips_share() {
    for buffer in [100, 400] {
        let part = median(3, |seed| {
            let flow = |rtt, start| Flow { control: Bbr, rtt, start, gives: None };
            let flows = [flow(20 * MS, 0), flow(80 * MS, 7 * seed * MS)];
            run(usual(buffer), &flows, 60 * SECOND, seed).part(0)
        });
        assert!((0.18..0.75).contains(&part), "buffer of {buffer} percent: {part:.2}");
    }
}

#[test]
fn bbr_flows_lose_little_of_what_they_send() {
    for (buffer, limit) in [(10, 0.05), (100, 0.02), (400, 0.02)] {
        let dropped = several(&[Bbr; 10], usual(buffer), RTT, 1).dropped();
        assert!(dropped < limit, "buffer of {buffer} percent: {dropped:.3}");
    }
}

#[test]
fn bbr_and_cubic_leave_each_other_room() {
    for (buffer, most) in [(50, 0.88), (100, 0.75), (400, 0.65)] {
        let part = median(3, |seed| several(&[Bbr, Cubic], usual(buffer), RTT, seed).part(0));
        assert!((0.3..most).contains(&part), "buffer of {buffer} percent: {part:.2}");
    }
}

#[test]
fn marks_keep_the_queue_short_without_drops() {
    for (control, floor) in [(Bbr, 0.94), (Bbr3, 0.92), (Cubic, 0.80), (Reno, 0.70)] {
        let marking = Link { mark: Some(PRODUCT as u64 / 4), ..usual(200) };
        let report = alone(control, marking, RTT, 20 * SECOND, 1);
        check(control.name(), report.share, floor);
        assert!(report.queue < 0.1 * PRODUCT && report.flows[0].dropped == 0, "{control}: {report:?}");
        let fairness = several(&[control; 2], marking, RTT, 1).fairness();
        check(control.name(), fairness, 0.85);
    }
}

#[test]
fn an_outage_costs_little_more_than_its_time() {
    for control in ALL {
        for (outage, floor) in [(100, 0.88), (1000, 0.80), (3000, 0.65)] {
            let link = Link { outage: (5 * SECOND, 5 * SECOND + outage * MS), ..usual(100) };
            check(control.name(), alone(control, link, RTT, 20 * SECOND, 1).share, floor);
        }
    }
}

#[test]
fn a_stall_without_loss_is_no_congestion() {
    for control in ALL {
        let rtt = 100 * MS;
        let link = Link { stall: (8 * SECOND, 8 * SECOND + 600 * MS), ..link(100, rtt, 100) };
        let report = alone(control, link, rtt, 18 * SECOND, 1);
        assert!(report.flows[0].undone > 0, "{control}");
        check(control.name(), report.share, 0.85);
    }
}

#[test]
fn an_application_with_little_to_send_is_not_held_up() {
    for (segments, period) in [(1, MS), (100, 100 * MS), (1000, 2 * SECOND)] {
        for control in ALL {
            let flow = Flow { control, rtt: RTT, start: 0, gives: Some((segments, period)) };
            let loss = if matches!(control, Bbr | Bbr3) { 10.0 } else { 0.0 };
            let report = run(Link { loss, ..usual(100) }, &[flow], 20 * SECOND, 1);
            let given = segments * (20 * SECOND / period) * MSS;
            check(control.name(), report.flows[0].acknowledged as f64 / given as f64, 0.98);
        }
    }
}
