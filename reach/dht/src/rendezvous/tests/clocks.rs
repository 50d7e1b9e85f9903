//! Wall clocks that jump while a node runs.

use super::*;

/// Time to settle: the epochs are checked every half minute, and reading and writing take a few seconds.
const SETTLE_TIME: Duration = Duration::from_secs(45);
const HOUR: i64 = 3600;

/// Asserts that both nodes find each other, and that knocks arrive, in either direction.
fn assert_they_meet(world: &mut World, when: &str) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (found, knocks) = (world.found(from).len(), world.knocks(to).len());
        let tail = world.tail(to);
        world.find(from, Target::Address(tail));
        world.run(4 * SECOND);
        let record = world.found(from).get(found..).and_then(<[_]>::last).copied().cloned();
        let record = record.unwrap_or_else(|| panic!("{when}: node {from} does not find node {to}"));
        let made = Duration::from_millis(record.sequence);
        let now = world.now(to).unix;
        assert!(
            made <= now + SKEW && now <= made + 5700 * SECOND,
            "{when}: it is from {made:?}, now is {now:?}"
        );
        world.knock(from, to);
        world.run(30 * SECOND);
        assert!(world.knocks(to).len() > knocks, "{when}: node {to} does not hear node {from}");
    }
}

fn pair(off: [i64; 2]) -> World {
    let mut world = World::new();
    for (off, address) in off.into_iter().zip(["198.51.100.7:4000", "203.0.113.9:5000"]) {
        let node = world.add(off);
        world.publish(node, address);
    }
    world.run(SETTLE_TIME);
    world
}

#[test]
fn a_clock_that_jumps_by_hours_and_back_leaves_nothing_behind() {
    for hours in [1, 5, 30, -1, -5, -30] {
        for minutes in [1, 10, 90] {
            let mut world = pair([0, 0]);
            let when = format!("{hours} h for {minutes} min");
            assert_they_meet(&mut world, &when);
            world.jump(1, hours * HOUR);
            world.run(minutes * 60 * SECOND);
            world.jump(1, -hours * HOUR);
            world.run(SETTLE_TIME);
            assert_they_meet(&mut world, &when);
        }
    }
}

#[test]
fn clocks_that_are_set_right_one_after_the_other_meet_when_both_are() {
    for hours in [2, -2, 50] {
        let mut world = pair([hours * HOUR; 2]);
        let when = format!("{hours} h");
        assert_they_meet(&mut world, &when);
        world.jump(0, -hours * HOUR);
        world.run(60 * SECOND);
        world.jump(1, -hours * HOUR);
        world.run(SETTLE_TIME);
        assert_they_meet(&mut world, &when);
    }
}
