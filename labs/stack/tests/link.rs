//! Tests of the laboratory: its effect on a connection matches its settings.

use peersock_stack::CongestionControl;
use peersock_stack_lab::link::Loss;
use peersock_stack_lab::measure::{Quantity, Settings, catalogue, matches, run};
use peersock_stack_lab::{Batching, Pause, Plan, Scenario, ms, us};

/// Returns a path of 100 Mbit/s and 40 ms, which holds 500,000 bytes.
fn usual() -> Scenario {
    Scenario::new(100e6, ms(40)).with(Plan::endless()).lasting(ms(5_000))
}

fn share(scenario: &Scenario) -> f64 {
    Quantity::Share.of(scenario, &scenario.run(1))
}

#[test]
fn a_seed_gives_the_same_outcome_every_time() {
    let mut scenario = usual();
    scenario.forward.loss = Loss::Random(0.01);
    assert_eq!(scenario.run(9), scenario.run(9));
    assert_ne!(scenario.run(9), scenario.run(10));
}

/// Congestion control plays no part here, because the receive window is the limit.
#[test]
fn a_window_per_round_trip_is_what_a_long_path_carries() {
    for (window, expected) in [(125_000, 0.25), (250_000, 0.5)] {
        let mut scenario = usual().buffer(4.0);
        scenario.config.receive_buffer = window;
        let share = share(&scenario);
        // The window counts payload, but packets are 8 % longer; start-up costs a few round trips.
        assert!((share / expected - 1.0).abs() < 0.15, "{window}: {share}");
    }
}

#[test]
fn a_window_that_fits_into_the_queue_fills_the_link_and_no_more() {
    let mut scenario = usual().buffer(4.0);
    scenario.config.receive_buffer = 1_000_000;
    let outcome = scenario.run(1);
    let share = Quantity::Share.of(&scenario, &outcome);
    assert!((0.9..1.0).contains(&share), "{share}");
    assert_eq!(outcome.queue.dropped, 0);
}

#[test]
fn aggregation_delays_what_arrives_and_loses_nothing() {
    let completion = |batching| {
        let mut scenario = Scenario::new(100e6, ms(40)).with(Plan::upload(10_000));
        scenario.batching = batching;
        Quantity::Completion.of(&scenario, &scenario.run(1))
    };
    let (prompt, late) = (completion(Batching::After(us(50))), completion(Batching::Every(ms(25))));
    assert!(prompt > 60.0 && late > prompt + 5.0 && late < 250.0, "{prompt} {late}");
}

#[test]
fn a_wrong_byte_that_is_believed_is_found() {
    let mut scenario = Scenario::new(100e6, ms(40)).with(Plan::upload(1_000_000));
    scenario.forward.corrupt = 0.01;
    let failure = |scenario: &Scenario| scenario.run(1).connections[0].failure.clone();
    assert!(failure(&scenario).is_some_and(|text| text.contains("wrong bytes")));
    scenario.checksums = true;
    assert_eq!(failure(&scenario), None);
}

#[test]
fn connections_are_gone_after_a_while() {
    let mut scenario = Scenario::new(100e6, ms(40)).with(Plan::upload(10_000));
    assert_eq!(scenario.run(1).left_behind, 2, "neither end has heard of the other's end");
    scenario.draining = ms(600_000);
    assert_eq!(scenario.run(1).left_behind, 0);
}

#[test]
fn a_reader_that_pauses_is_waited_for() {
    let pause = Pause { every: 20_000, lasting: ms(1_000) };
    let mut scenario =
        Scenario::new(100e6, ms(40)).with(Plan { pause: Some(pause), ..Plan::upload(100_000) });
    scenario.config.receive_buffer = 16 << 10;
    let outcome = scenario.run(1);
    assert_eq!(outcome.connections[0].up.bytes, 100_000);
    assert!((ms(4_000)..ms(7_000)).contains(&outcome.ended), "{}", outcome.ended);
}

#[test]
fn figures_come_in_the_order_of_the_cases() {
    let mut cases = catalogue(CongestionControl::Cubic);
    cases.retain(|case| matches("*mb_40ms_loss0", &case.name) || matches("10kb*loss0", &case.name));
    let names: Vec<String> = cases.iter().map(|case| case.measures[0].name.clone()).collect();
    let figures = run(cases, Settings { seeds: 2, secs: None }, |_, _| ()).expect("nothing fails");
    assert_eq!(figures.iter().map(|figure| figure.name.clone()).collect::<Vec<_>>(), names);
    assert!(figures.iter().all(|figure| figure.min() >= 60.0), "a handshake and one way: {figures:?}");
}
