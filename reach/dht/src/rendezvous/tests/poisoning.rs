//! Attacks by members and strangers, and their limits.

use super::*;

fn lie(world: &mut World, item: Item) {
    world.lies.entry(item.key).or_default().push(item);
}

/// Makes a world in which `a` can look for `b`; both have published.
fn pair() -> (World, usize, usize) {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    world.publish(a, "198.51.100.7:4000");
    world.publish(b, "203.0.113.9:5000");
    world.run(2 * SECOND);
    (world, a, b)
}

fn record_of(world: &World, node: usize, sequence: u64, address: &str) -> Record {
    let contact = contact(&[address]);
    Record { identity: world.identity(node), sequence, lifetime: 5400, slots: 2, poll: 15, contact }
}

fn now_ms(world: &World) -> u64 {
    (CLOCK + world.elapsed).as_millis() as u64
}

#[test]
fn strangers_can_neither_write_nor_make_anybody_believe() {
    let (mut world, a, b) = pair();
    let epoch = world.epoch(b);
    let open = Location::Open(world.tail(b));
    let there = world.items[&keys().public(&open, epoch)].clone();
    // Answers that nodes of the DHT can send without the network's key: noise, changed items, other items.
    let stranger = MeetingKeys::new(&DiscoveryKey::new(NetworkId::ad_hoc(80..=80).unwrap(), None, None));
    let signer = stranger.signer(&open, epoch, &world.nodes[a].identity).unwrap();
    let other = Item::new(&signer, 7, vec![1; 640]);
    for lies in [
        Item { value: vec![7; 640], ..there.clone() },
        Item { sequence: i64::MAX, ..there.clone() },
        Item { value: Vec::new(), signature: [0; 64], ..there.clone() },
        Item { key: there.key, ..other.clone() },
    ] {
        lie(&mut world, lies);
    }
    world.lies.entry(there.key).or_default().push(other);
    // More such items than members may store there.
    for i in 0..100 {
        lie(&mut world, Item { sequence: i, ..there.clone() });
    }
    world.find(a, Target::Address(open.owner()));
    world.run(3 * SECOND);
    assert_eq!(world.found(a).len(), 1);
    assert_eq!(world.found(a)[0].contact, contact(&["203.0.113.9:5000"]));
    assert!(world.counters(a).bad_signature >= 104, "{:?}", world.counters(a));
}

#[test]
fn a_member_forges_no_record_of_another_node() {
    let (mut world, a, b) = pair();
    let mallory = Identity::from_seed(&[66; 32]);
    let (epoch, open) = (world.epoch(b), Location::Open(world.tail(b)));
    let now = now_ms(&world);
    // Signed by the wrong key; a true record of the wrong node; nonsense. All have the highest sequence.
    let forged = record_of(&world, b, now + 1000, "192.0.2.66:6").sign(&keys(), &mallory);
    let mut of_mallory = record_of(&world, b, now + 1000, "192.0.2.66:6");
    of_mallory.identity = *mallory.public();
    let of_mallory = of_mallory.sign(&keys(), &mallory);
    for plain in [forged, of_mallory, [0xff; 600]] {
        let item = world.forge(&open, epoch, &mallory, &plain, i64::MAX);
        lie(&mut world, item);
    }
    world.find(a, Target::Address(open.owner()));
    world.run(3 * SECOND);
    assert_eq!(world.found(a).len(), 1);
    assert_eq!(world.found(a)[0].contact, contact(&["203.0.113.9:5000"]));
    let counters = world.counters(a);
    assert_eq!((counters.bad_signature, counters.other_node, counters.malformed), (1, 1, 1));
}

#[test]
fn a_member_that_takes_the_open_place_hides_a_node_from_those_only_who_do_not_know_its_identity() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    let mallory = Identity::from_seed(&[66; 32]);
    let open = Location::Open(world.tail(b));
    for epoch in keys().epochs(&world.tail(b), CLOCK) {
        let item = world.forge(&open, epoch, &mallory, &[1; 600], i64::MAX);
        assert_eq!(world.put(item), Outcome::Done);
    }
    world.publish(b, "203.0.113.9:5000");
    world.run(2 * SECOND);
    world.find(a, Target::Address(open.owner()));
    world.run(4 * SECOND);
    assert!(world.found(a).is_empty());
    let target = Target::Node(world.identity(b));
    world.find(a, target);
    world.run(12 * SECOND);
    assert_eq!(world.found(a)[0].contact, contact(&["203.0.113.9:5000"]));
}

#[test]
fn an_older_record_does_not_replace_a_newer_one() {
    let (mut world, a, b) = pair();
    let (epoch, open) = (world.epoch(b), Location::Open(world.tail(b)));
    let old = record_of(&world, b, now_ms(&world) - 60_000, "192.0.2.1:1");
    let own = world.nodes[b].identity.clone();
    // A member has kept the old record, and stores it where every member can write, with the highest
    // sequence.
    let plain = old.sign(&keys(), &own);
    let item = world.forge(&open, epoch, &Identity::from_seed(&[66; 32]), &plain, i64::MAX);
    world.items.insert(item.key, item);
    world.find(a, Target::Address(open.owner()));
    world.run(4 * SECOND);
    let last = world.found(a).last().copied().cloned().expect("found");
    assert_eq!(last.contact, contact(&["203.0.113.9:5000"]), "what only the node can write was read too");

    // The newest record also wins where nodes of the DHT answer with the older one first, and last.
    world.find(a, Target::Node(own.public().to_owned()));
    world.run(4 * SECOND);
    assert_eq!(world.found(a).last().unwrap().contact, contact(&["203.0.113.9:5000"]));
    assert!(world.counters(a).replayed > 0);
}

#[test]
fn records_that_are_too_old_or_of_the_future_are_not_believed() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    let own = world.nodes[b].identity.clone();
    let open = Location::Open(world.tail(b));
    let now = now_ms(&world);
    for (i, sequence) in [now - (5400 + 301) * 1000, now + 301_000, u64::MAX].into_iter().enumerate() {
        let plain = record_of(&world, b, sequence, "192.0.2.1:1").sign(&keys(), &own);
        let item = world.forge(&open, world.epoch(b), &own, &plain, i as i64);
        lie(&mut world, item);
    }
    world.find(a, Target::Address(open.owner()));
    world.run(SECOND);
    assert!(world.found(a).is_empty());
    assert_eq!((world.counters(a).expired, world.counters(a).from_future), (1, 2));
}

#[test]
fn a_found_record_is_forgotten_when_it_expires() {
    let (mut world, a, b) = pair();
    let tail = world.tail(b);
    world.find(a, Target::Address(tail));
    world.run(4 * SECOND);
    world.nodes[b].rendezvous.withdraw();
    let network = world.nodes[a].network;
    assert!(world.nodes[a].rendezvous.record(world.now(a), network, &tail).is_some());
    world.run(Duration::from_secs(5400 + 301));
    assert!(world.nodes[a].rendezvous.record(world.now(a), network, &tail).is_none());
}

#[test]
fn a_member_knocks_in_nobody_elses_name_and_passes_on_no_knock() {
    let (mut world, a, b) = pair();
    let c = world.add(0);
    world.publish(c, "192.0.2.3:3");
    let mallory = Identity::from_seed(&[66; 32]);
    let sequence = now_ms(&world);
    let knock = |identity, sequence| Knock {
        identity,
        sequence,
        start: sequence,
        contact: contact(&["192.0.2.66:6"]),
    };
    let (node_a, id_b) = (world.nodes[a].identity.clone(), world.tail(b));
    let in_the_name_of_a = knock(world.identity(a), sequence).sign(&keys(), &mallory, &id_b);
    let for_b = knock(world.identity(a), sequence).sign(&keys(), &node_a, &id_b);
    let own = world.nodes[c].identity.clone();
    let id_c = world.tail(c);
    let of_itself = knock(world.identity(c), sequence).sign(&keys(), &own, &id_c);
    for plain in [in_the_name_of_a, for_b, of_itself] {
        let slot = Location::Slot { owner: id_c, index: 0 };
        let item = world.forge(&slot, world.epoch(c), &mallory, &plain, 1);
        lie(&mut world, item);
    }
    world.run(4 * SECOND);
    assert!(world.knocks(c).is_empty());
    let counters = world.counters(c);
    assert!(counters.bad_signature >= 2 && counters.other_node >= 1, "{counters:?}");
}

#[test]
fn a_flood_of_knocks_is_told_at_a_bounded_rate() {
    let (mut world, _, b) = pair();
    let own = world.tail(b);
    for seed in 0..200_u8 {
        let knocker = Identity::from_seed(&[seed; 32]);
        if NodeTail::of(&knocker.node_id()) == own {
            continue;
        }
        let sequence = now_ms(&world);
        let knock = Knock {
            identity: *knocker.public(),
            sequence,
            start: sequence,
            contact: contact(&["192.0.2.66:6"]),
        };
        let plain = knock.sign(&keys(), &knocker, &own);
        let slot = Location::Slot { owner: own, index: seed % 2 };
        let item = world.forge(&slot, world.epoch(b), &knocker, &plain, i64::from(seed));
        lie(&mut world, item);
    }
    world.run(20 * SECOND);
    let told = world.knocks(b).len();
    assert!((8..=8 + 11).contains(&told), "{told}");
    assert!(world.counters(b).over_rate > 100);
}

#[test]
fn one_member_is_told_at_most_every_three_seconds() {
    let (mut world, a, b) = pair();
    let (node, own) = (world.nodes[a].identity.clone(), world.tail(b));
    for i in 0..60 {
        let sequence = now_ms(&world);
        let knock =
            Knock { identity: *node.public(), sequence, start: sequence, contact: contact(&["192.0.2.6:6"]) };
        let plain = knock.sign(&keys(), &node, &own);
        let slot = Location::Slot { owner: own, index: 0 };
        let item = world.forge(&slot, world.epoch(b), &node, &plain, i);
        world.items.insert(item.key, item);
        world.run(SECOND / 2);
    }
    assert!((5..=11).contains(&world.knocks(b).len()), "{}", world.knocks(b).len());
}

#[test]
fn a_member_that_takes_all_slots_keeps_no_watched_node_away() {
    let mut world = World::new();
    let (a, b) = (world.add(0), world.add(0));
    let mallory = Identity::from_seed(&[66; 32]);
    let owner = world.tail(b);
    for epoch in keys().epochs(&world.tail(b), CLOCK) {
        for index in 0..Record::MAX_SLOTS {
            let item = world.forge(&Location::Slot { owner, index }, epoch, &mallory, &[1; 600], i64::MAX);
            world.put(item);
        }
    }
    world.publish(a, "198.51.100.7:4000");
    world.publish(b, "203.0.113.9:5000");
    world.knock(a, b);
    world.run(Duration::from_secs(30));
    assert!(world.knocks(b).is_empty());
    let (network, peer) = (world.nodes[b].network, world.identity(a));
    world.nodes[b].rendezvous.watch(network, peer);
    world.knock(a, b);
    world.run(Duration::from_secs(30));
    assert_eq!(world.knocks(b)[0].1.identity, world.identity(a));
}

#[test]
fn one_answer_with_endless_values_is_cut_off() {
    let (mut world, a, b) = pair();
    let (epoch, open) = (world.epoch(b), Location::Open(world.tail(b)));
    let mallory = Identity::from_seed(&[66; 32]);
    for i in 0..1000_u32 {
        let mut plain = [0; 600];
        plain[..4].copy_from_slice(&i.to_be_bytes());
        let item = world.forge(&open, epoch, &mallory, &plain, 1);
        lie(&mut world, item);
    }
    world.find(a, Target::Address(open.owner()));
    world.run(SECOND);
    assert_eq!(world.counters(a).malformed, 24);
    assert!(world.counters(a).over_rate >= 976);
}

#[test]
fn a_flood_in_the_slots_delays_no_knock_of_a_watched_node() {
    let (mut world, a, b) = pair();
    let owner = world.tail(b);
    let (network, peer) = (world.nodes[b].network, world.identity(a));
    world.nodes[b].rendezvous.watch(network, peer);
    for round in 0..20_u8 {
        // Each second a dozen new members knock in either slot.
        for seed in 0..24_u8 {
            let knocker = Identity::from_seed(&[round ^ 0x80, seed].repeat(16).try_into().expect("32 bytes"));
            let sequence = now_ms(&world);
            let contact = contact(&["192.0.2.66:6"]);
            let knock = Knock { identity: *knocker.public(), sequence, start: sequence, contact };
            let slot = Location::Slot { owner, index: seed % 2 };
            let plain = knock.sign(&keys(), &knocker, &owner);
            let item = world.forge(&slot, world.epoch(b), &knocker, &plain, i64::from(seed));
            lie(&mut world, item);
        }
        if round == 10 {
            world.knock(a, b);
        }
        world.run(SECOND);
        world.lies.clear();
    }
    let from_a = world.knocks(b).into_iter().find(|(_, knock)| knock.identity == world.identity(a));
    let (at, _) = from_a.expect("a's knock is told");
    assert!(at < Duration::from_secs(2 + 10 + 4), "{at:?}");
}
