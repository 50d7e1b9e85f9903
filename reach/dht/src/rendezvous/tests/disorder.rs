//! Calls in any order, a DHT that loses and garbles, and jumping clocks, after which the nodes still meet.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Call {
    Publish(u8),
    Withdraw,
    Find(bool),
    Knock,
    Met,
    Watch,
    Rejoin,
    /// Runs for this number of milliseconds.
    Run(u16),
    /// Sets the wall clock forward or back, in seconds.
    Clock(i16),
    /// Makes the DHT lose every n-th operation from now on; 0 loses none.
    Loss(u8),
    /// Flips a bit of every stored item, which nodes of the DHT then send in addition to the correct one.
    Garble(u16),
}

fn any_call() -> impl Strategy<Value = (bool, Call)> {
    let call = prop_oneof![
        any::<u8>().prop_map(Call::Publish),
        Just(Call::Withdraw),
        any::<bool>().prop_map(Call::Find),
        Just(Call::Knock),
        Just(Call::Met),
        Just(Call::Watch),
        Just(Call::Rejoin),
        any::<u16>().prop_map(Call::Run),
        any::<u16>().prop_map(Call::Run),
        any::<i16>().prop_map(Call::Clock),
        (0..4_u8).prop_map(Call::Loss),
        any::<u16>().prop_map(Call::Garble),
    ];
    (any::<bool>(), call)
}

fn perform(world: &mut World, node: usize, call: Call) {
    let (now, peer) = (world.now(node), 1 - node);
    let (identity, tail) = (world.identity(peer), world.tail(peer));
    let Node { rendezvous, network, clock, .. } = &mut world.nodes[node];
    match call {
        Call::Publish(port) => {
            rendezvous.publish(now, contact(&[&format!("203.0.113.9:{}", 5000 + u16::from(port))]))
        }
        Call::Withdraw => rendezvous.withdraw(),
        Call::Find(by_address) => {
            let target = if by_address { Target::Address(tail) } else { Target::Node(identity) };
            rendezvous.find(now, *network, target);
        }
        Call::Knock => rendezvous.knock(now, *network, tail),
        Call::Met => rendezvous.met(*network, &tail),
        Call::Watch => rendezvous.watch(*network, identity),
        Call::Rejoin => {
            rendezvous.leave(*network);
            *network = rendezvous.join(now, &discovery_key());
        }
        Call::Run(ms) => world.run(Duration::from_millis(ms.into())),
        Call::Clock(seconds) => {
            *clock = Duration::from_secs(clock.as_secs().saturating_add_signed(seconds.into()));
        }
        Call::Loss(every) => world.loss = every.into(),
        Call::Garble(bit) => {
            for mut item in world.items.values().cloned().collect::<Vec<_>>() {
                let at = usize::from(bit / 8) % item.value.len();
                item.value[at] ^= 1 << (bit % 8);
                world.lies.entry(item.key).or_default().push(item);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn after_any_disorder_two_nodes_meet(calls in prop::collection::vec(any_call(), 0..40)) {
        let mut world = World::new();
        world.add(0);
        world.add(0);
        for (second, call) in calls {
            perform(&mut world, usize::from(second), call);
        }
        // The clocks are correct again, the DHT works, and items written by wrong clocks have expired.
        world.loss = 0;
        for node in 0..2 {
            world.nodes[node].clock = CLOCK + Duration::from_secs(50 * 3600);
            perform(&mut world, node, Call::Met);
            perform(&mut world, node, Call::Publish(node as u8));
        }
        world.run(Duration::from_secs(60));
        for node in 0..2 {
            world.nodes[node].events.clear();
            perform(&mut world, node, Call::Find(true));
            perform(&mut world, node, Call::Knock);
        }
        world.run(Duration::from_secs(60));
        for node in 0..2 {
            let last = world.found(node).last().map(|record| record.contact.clone());
            prop_assert_eq!(last, Some(contact(&[&format!("203.0.113.9:{}", 5000 + (1 - node))])));
            prop_assert!(!world.knocks(node).is_empty());
        }
    }
}
