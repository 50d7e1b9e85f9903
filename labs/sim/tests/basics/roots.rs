//! Two nodes behind NAT boxes that cannot be punched, because each destination gets another port and no other
//! host may answer. The nodes have nothing in common but their roots.

use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::RootState;
use peersock_sim::World;
use peersock_sim::net::{Gateway, Pipe, Stage};

use crate::SECOND;
use crate::homes::{Homes, ROOT_PORT};

#[test]
fn the_first_byte_comes_within_three_round_trips_to_the_root_and_200_ms() {
    for millis in [1, 5, 10, 14] {
        let mut homes = Homes::new(1, Duration::from_millis(millis));
        homes.run(5 * SECOND);
        let to_root = homes.info(0, 0).rtt.expect("it is registered");
        let begin = homes.world.now();
        homes.world.converse(Arc::new(homes.greeting())).expect("a connection");
        let end = begin + 10 * SECOND;
        let going = |world: &mut World| world.ledger.bytes_checked == 0;
        assert!(!homes.world.run_while(end, going).expect("no violation"), "nothing came");
        let took = homes.world.now() - begin;
        assert!(took <= 3 * to_root + Duration::from_millis(200), "{millis}: {took:?}, {to_root:?}");
        homes.run(2 * SECOND);
        assert_eq!(homes.world.ledger.completed(), (1, 1));
        assert!(homes.root_of_path(0).is_some() && homes.root_of_path(1).is_some());
    }
}

/// Fault of one of two roots while a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// The root was killed a moment ago, and no node knows yet.
    Dead(usize),
    /// The root tells where the peer is, and drops all frames.
    Drops(usize),
}

#[test]
fn a_root_that_drops_all_frames_delays_the_first_byte_by_two_round_trips_and_a_little() {
    for millis in [1, 5, 10, 14] {
        let (usual, to_root) = first_byte(millis, None);
        let bound = 3 * to_root + Duration::from_millis(200);
        let mut dropped = Vec::new();
        for root in [0, 1] {
            let (took, _) = first_byte(millis, Some(Wrong::Dead(root)));
            assert!(took <= bound, "{millis}: {took:?} with root {root} dead, {to_root:?}");
            let (took, _) = first_byte(millis, Some(Wrong::Drops(root)));
            dropped.push(took.saturating_sub(usual));
        }
        eprintln!("round trip {to_root:?}, first byte {usual:?}; more if a root drops frames: {dropped:?}");
        // Delays differ slightly from packet to packet.
        let price = to_root * 21 / 10 + Duration::from_millis(20);
        assert!(dropped.iter().all(|more| *more <= price), "{millis}: {dropped:?}, {to_root:?}");
        assert!(dropped.iter().any(|more| *more >= to_root), "{millis}: one of them was asked first");
    }
}

/// Returns the time from the call to connect to the first byte, and the round trip to the first root. The
/// homes are as far from the core as the two roots.
fn first_byte(millis: u64, wrong: Option<Wrong>) -> (Duration, Duration) {
    let mut homes = Homes::with_liars(2, Duration::from_millis(millis));
    homes.run(5 * SECOND);
    let to_root = homes.info(0, 0).rtt.expect("it is registered");
    match wrong {
        Some(Wrong::Dead(root)) => homes.world.kill_root((homes.roots[root], ROOT_PORT)),
        Some(Wrong::Drops(root)) => {
            let place = (homes.roots[root], ROOT_PORT);
            homes.world.root_mut(place).expect("a root").lies().swallows = true;
        }
        None => {}
    }
    let begin = homes.world.now();
    homes.world.converse(Arc::new(homes.greeting())).expect("a connection");
    let going = |world: &mut World| world.ledger.bytes_checked == 0;
    assert!(!homes.world.run_while(begin + 10 * SECOND, going).expect("no violation"), "nothing came");
    (homes.world.now() - begin, to_root)
}

#[test]
fn a_connection_outlives_the_death_of_the_root_that_carries_it() {
    for sender in [0, 1] {
        for phase in 0..3 {
            let mut homes = Homes::new(2, Duration::from_millis(5));
            homes.run(5 * SECOND);
            homes.transfer(sender);
            homes.run(3 * SECOND + phase * SECOND / 7);
            let used = homes.root_of_path(sender).expect("it is relayed");
            homes.world.kill_root((homes.roots[used], ROOT_PORT));
            // Data under way still arrives.
            homes.run(SECOND / 20);
            let stall = homes.stall(10 * SECOND);
            assert!(stall <= 2 * SECOND, "node {sender} sends, phase {phase}: {stall:?}");
            homes.run(10 * SECOND);
            assert_eq!(homes.root_of_path(0), Some(1 - used));
        }
    }
}

#[test]
fn a_root_that_swallows_frames_from_one_moment_on_is_left() {
    let mut homes = Homes::with_liars(2, Duration::from_millis(5));
    homes.run(5 * SECOND);
    homes.transfer(0);
    homes.run(3 * SECOND);
    let used = homes.root_of_path(0).expect("it is relayed");
    let place = (homes.roots[used], ROOT_PORT);
    homes.world.root_mut(place).expect("a root").lies().swallows = true;
    homes.run(SECOND / 20);
    let stall = homes.stall(10 * SECOND);
    assert!(stall <= 2 * SECOND, "{stall:?}");
}

/// A new address behind the same box: the relay carries the traffic at once. If the boxes can be punched, the
/// direct path comes back.
#[test]
fn whoever_gets_a_new_address_behind_a_box_stalls_for_less_than_a_second() {
    for punchable in [false, true] {
        for mover in [0, 1] {
            for sender in [0, 1] {
                for phase in 0..3 {
                    let mut homes = match punchable {
                        true => Homes::punchable(phase, 10_000_000),
                        false => Homes::new(2, Duration::from_millis(5)),
                    };
                    homes.run(5 * SECOND);
                    homes.transfer(sender);
                    homes.run(5 * SECOND + phase as u32 * SECOND / 7);
                    assert_eq!(homes.root_of_path(0).is_none(), punchable);
                    homes.readdress(mover, 77);
                    // Data under way still arrives.
                    homes.run(SECOND / 20);
                    let stall = homes.stall(10 * SECOND);
                    let what = format!("punchable: {punchable}, node {mover} moves, node {sender} sends");
                    eprintln!("{what}: {stall:?}");
                    assert!(stall <= SECOND, "{what}: {stall:?}");
                    homes.run(30 * SECOND);
                    assert_eq!(homes.root_of_path(0).is_none(), punchable, "{what}");
                }
            }
        }
    }
}

#[test]
fn an_idle_node_can_be_reached_though_mappings_live_for_half_a_minute() {
    let mut homes = Homes::new(1, Duration::from_millis(5));
    homes.run(3600 * SECOND);
    homes.world.converse(Arc::new(homes.greeting())).expect("a connection");
    homes.run(2 * SECOND);
    assert_eq!(homes.world.ledger.completed(), (1, 1));
}

#[test]
fn an_idle_node_can_be_reached_at_any_time_though_mappings_live_for_twenty_seconds() {
    // Seconds until the first adjustment of the keepalive pauses, which are too long at the beginning.
    let settles = 120;
    for after in (0..30).step_by(3) {
        let mut homes = Homes::forgetful(20 * SECOND);
        homes.run((settles + 3600 + after) * SECOND);
        let begin = homes.world.now();
        homes.world.converse(Arc::new(homes.greeting())).expect("a connection");
        while homes.world.ledger.completed() != (1, 1) {
            homes.run(SECOND / 100);
            let took = homes.world.now() - begin;
            assert!(took < SECOND, "nothing came {after} s after the hour");
        }
    }
}

#[test]
fn roots_that_are_killed_and_started_in_turns_reset_no_connection() {
    let mut homes = Homes::new(2, Duration::from_millis(5));
    homes.run(5 * SECOND);
    homes.transfer(0);
    homes.run(3 * SECOND);
    for turn in 0..6 {
        let place = (homes.roots[turn % 2], ROOT_PORT);
        homes.world.kill_root(place);
        let stall = homes.stall(10 * SECOND);
        assert!(stall <= 2 * SECOND, "turn {turn}: {stall:?}");
        homes.run(5 * SECOND);
        // The root comes back without memory, and the nodes find it again.
        homes.world.restart_root(place);
        homes.run(60 * SECOND);
        assert_eq!(homes.info(0, turn % 2).state, RootState::Registered, "turn {turn}");
    }
    assert!(homes.world.ledger.bytes_checked > 10_000_000);
}

/// Distance of nodes and roots from the core. The round trip between two of them is four times that.
const FAR: Duration = Duration::from_millis(5);

/// Time within which lost data is back: a second, two round trips by a root, and a few wake-ups of threads.
const BACK: Duration = Duration::from_millis(1000 + 2 * 40 + 20);

#[test]
fn a_flow_goes_on_within_a_second_after_all_its_roots_have_come_back() {
    let mut late = Vec::new();
    for roots in [1, 2] {
        for (number, away) in [0, 1, 3, 6, 10, 15, 22, 30, 60, 80, 150, 300, 1200].into_iter().enumerate() {
            for sender in [0, 1] {
                let mut homes = Homes::new(roots, FAR);
                homes.run(5 * SECOND);
                homes.transfer(sender);
                homes.run(3 * SECOND + number as u32 * SECOND / 7);
                let places: Vec<_> = homes.roots.iter().map(|host| (*host, ROOT_PORT)).collect();
                places.iter().for_each(|place| homes.world.kill_root(*place));
                homes.run(away * SECOND / 10);
                places.iter().for_each(|place| homes.world.restart_root(*place));
                let stall = homes.stall(60 * SECOND);
                let what = format!("{roots} away for {} ms, {sender} sends: {stall:?}", away * 100);
                eprintln!("{what}");
                // The second counts from the root's return, or from the detection of the loss if that comes
                // later.
                let bound = BACK + if away < 10 { SECOND / 2 } else { Duration::ZERO };
                late.extend((stall > bound).then_some(what));
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

/// Cuts the direct path, so that a root far away has to carry everything.
#[test]
fn a_flow_whose_direct_path_is_cut_goes_on_by_a_far_root_within_a_second() {
    let mut late = Vec::new();
    for far in [0, 30, 100] {
        for sender in [0, 1] {
            for phase in 0..3 {
                let mut homes = Homes::punchable(phase, 10_000_000);
                for lan in homes.lans[1].clone() {
                    let way = || {
                        Pipe::new([
                            Stage::Mtu(1500),
                            Stage::Delay { base: Duration::from_millis(far / 2), jitter: Duration::ZERO },
                        ])
                    };
                    homes
                        .world
                        .net
                        .set_gateway(lan, Some(Gateway { out: way(), into: way(), ..Gateway::default() }));
                }
                homes.run(5 * SECOND);
                homes.transfer(sender);
                homes.run(10 * SECOND + phase as u32 * SECOND / 7);
                assert_eq!(homes.root_of_path(0), None, "the path is direct");
                let nodes = homes.lans[0].clone();
                homes.world.net.block(nodes[0], nodes[1], true);
                homes.world.net.block(nodes[1], nodes[0], true);
                // Data under way still arrives.
                homes.run(SECOND / 20);
                let stall = homes.stall(60 * SECOND);
                let before = homes.world.ledger.bytes_checked;
                homes.run(3 * SECOND);
                let rate = (homes.world.ledger.bytes_checked - before) / 3;
                let what =
                    format!("root {far} ms away, phase {phase}, {sender} sends: {stall:?}, then {rate} B/s");
                eprintln!("{what}");
                // Two nodes, 10 ms each from the core, and the root.
                let round_trip = Duration::from_millis(40 + 2 * far);
                late.extend((stall > SECOND + 2 * round_trip).then_some(what));
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}
