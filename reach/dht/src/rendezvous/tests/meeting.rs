//! Meetings without any disturbance.

use proptest::prelude::*;

use super::*;

#[test]
fn two_nodes_meet_by_an_address_alone() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(a, "198.51.100.7:4000");
    world.publish(b, "203.0.113.9:5000");
    world.run(SECOND);
    let tail = world.tail(b);
    world.find(a, Target::Address(tail));
    world.run(2 * SECOND);
    let found = world.found(a)[0].clone();
    assert_eq!(found.identity, world.identity(b));
    assert_eq!(found.contact, contact(&["203.0.113.9:5000"]));
    world.knock(a, b);
    world.run(4 * SECOND);
    let knocks = world.knocks(b);
    assert_eq!(knocks.len(), 1);
    assert_eq!(knocks[0].1.identity, world.identity(a));
    assert_eq!(knocks[0].1.contact, contact(&["198.51.100.7:4000"]));
    let sent = world.nodes[a].events.iter().any(|(_, event)| matches!(event, Event::KnockSent { .. }));
    assert!(sent);
    assert_eq!(world.counters(a), Counters::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn clocks_that_differ_by_less_than_the_skew_do_not_matter(
        off_a in -150_i64..=150, off_b in -150_i64..=150, into_epoch in 0..3600_u64,
    ) {
        let mut world = World::new();
        world.elapsed = Duration::from_secs(into_epoch);
        let (a, b) = (world.add(off_a), world.add(off_b));
        world.publish(a, "198.51.100.7:4000");
        world.publish(b, "203.0.113.9:5000");
        world.run(2 * SECOND);
        let tail = world.tail(b);
        world.find(a, Target::Address(tail));
        world.knock(a, b);
        world.run(6 * SECOND);
        prop_assert!(!world.found(a).is_empty());
        prop_assert!(!world.knocks(b).is_empty());
    }
}

#[test]
fn a_record_stays_findable_over_a_day() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(b, "203.0.113.9:5000");
    for hour in 1..=24 {
        world.run(Duration::from_secs(3600));
        let before = world.found(a).len();
        let target = world.tail(b);
        world.find(a, Target::Address(target));
        world.run(4 * SECOND);
        assert!(world.found(a).len() > before, "hour {hour}");
    }
    let mut keys: Vec<_> = world.items.keys().collect();
    keys.dedup();
    assert!(keys.len() >= 2 * 24, "each hour has keys of its own");
    assert!(world.found(a).is_sorted_by_key(|record| record.sequence));
}

#[test]
fn a_changed_contact_is_published_at_once_but_not_in_every_second() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(b, "203.0.113.9:5000");
    world.run(10 * SECOND);
    let writes = world.count;
    for port in 5001..=5020 {
        world.publish(b, &format!("203.0.113.9:{port}"));
        world.run(Duration::from_millis(100));
    }
    world.run(3 * SECOND);
    let target = Target::Node(world.identity(b));
    world.find(a, target);
    world.run(2 * SECOND);
    assert_eq!(world.found(a)[0].contact, contact(&["203.0.113.9:5020"]));
    assert!(world.count - writes < 40, "{} operations", world.count - writes);
}

#[test]
fn an_idle_mailbox_is_read_seldom_and_a_knock_still_arrives() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(a, "198.51.100.7:4000");
    world.publish(b, "203.0.113.9:5000");
    world.run(Duration::from_secs(1000));
    let reads = world.reads;
    world.run(Duration::from_secs(600));
    let per_node_and_minute = (world.reads - reads) / 20;
    // Two slots every 11 to 15 s, in one epoch, or in two epochs near the hour.
    assert!((8..=24).contains(&per_node_and_minute), "{per_node_and_minute}");
    let knocked_at = world.elapsed;
    world.knock(a, b);
    world.run(Duration::from_secs(20));
    let took = world.knocks(b)[0].0 - knocked_at;
    assert!(took < Duration::from_secs(17), "{took:?}");
}

#[test]
fn a_search_for_nobody_ends() {
    let mut world = World::new();
    let a = world.add(0);
    let absent = NodeTail::of(&Identity::from_seed(&[99; 32]).node_id());
    world.find(a, Target::Address(absent));
    world.run(Duration::from_secs(90));
    assert!(matches!(world.nodes[a].events[..], [(_, Event::NotFound { node, .. })] if node == absent));
}

#[test]
fn knocking_ends_when_nobody_comes_and_when_they_have_met() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(a, "198.51.100.7:4000");
    world.knock(a, b);
    world.run(Duration::from_secs(120));
    let count = |world: &World| {
        let sent = world.nodes[a].events.iter();
        sent.filter(|(_, event)| matches!(event, Event::KnockSent { .. })).count()
    };
    assert_eq!(count(&world), 5);
    assert!(matches!(world.nodes[a].events.last(), Some((_, Event::KnockFailed { .. }))));

    world.knock(a, b);
    world.run(2 * SECOND);
    let (network, peer) = (world.nodes[a].network, world.tail(b));
    world.nodes[a].rendezvous.met(network, &peer);
    world.run(Duration::from_secs(120));
    assert_eq!(count(&world), 6);
    assert_eq!(
        world.nodes[a].events.iter().filter(|(_, e)| matches!(e, Event::KnockFailed { .. })).count(),
        1
    );
}

#[test]
fn a_node_without_contact_reads_no_mailbox_and_writes_nothing() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.knock(a, b);
    world.run(Duration::from_secs(60));
    assert_eq!((world.reads, world.items.len()), (0, 0));
    world.publish(a, "198.51.100.7:4000");
    world.run(2 * SECOND);
    assert!(world.items.len() >= 4, "its record twice, and its knock twice");
    world.nodes[a].rendezvous.withdraw();
    world.run(SECOND);
    let reads = world.reads;
    world.run(Duration::from_secs(600));
    assert_eq!(world.reads, reads);
}

#[test]
fn what_is_left_behind_answers_nothing() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(b, "203.0.113.9:5000");
    world.run(SECOND);
    let tail = world.tail(b);
    world.find(a, Target::Address(tail));
    world.collect();
    let network = world.nodes[a].network;
    world.nodes[a].rendezvous.leave(network);
    world.run(Duration::from_secs(100));
    assert!(world.nodes[a].events.is_empty());
}

#[test]
fn a_knock_is_told_once_whoever_repeats_it() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(a, "198.51.100.7:4000");
    world.publish(b, "203.0.113.9:5000");
    let (network, peer) = (world.nodes[b].network, world.identity(a));
    world.nodes[b].rendezvous.watch(network, peer);
    world.knock(a, b);
    world.run(3 * SECOND);
    let (network, node) = (world.nodes[a].network, world.tail(b));
    world.nodes[a].rendezvous.met(network, &node);
    world.run(Duration::from_secs(60));
    assert_eq!(world.knocks(b).len(), 1, "in its slot and at its own place, read again and again");
    assert!(world.counters(b).replayed > 0);
}
