//! Tests that roots and nodes that are gone leave nothing in Redis.

use std::time::Duration;

use peersock_overlay::wire::Control;

use crate::setup::{Client, Proxy, Redis, Serving, config_at, config_of, is_partial, wait_until};

#[test]
fn a_root_that_ends_takes_its_nodes_out() {
    let Some(redis) = Redis::start(None) else { return };
    let [mut a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let leaving: Vec<_> = (1..=20).map(|seed| Client::register(seed, &a, b"")).collect();
    let staying = Client::register(30, &b, b"");
    wait_until("all are in Redis", || leaving.iter().chain([&staying]).all(|node| claims(&redis, node) == 1));
    a.end();
    let left: Vec<_> = leaving.iter().map(|node| claims(&redis, node)).collect();
    assert_eq!(left, [0; 20]);
    assert_eq!(claims(&redis, &staying), 1);
}

#[test]
fn what_a_node_asks_for_does_not_make_redis_keep_it_for_longer_than_the_root_does() {
    let Some(redis) = Redis::start(None) else { return };
    let a = Serving::start(config_of(201), redis.config());
    let node = Client::register_for(1, &a, b"", u32::MAX);
    wait_until("it is in Redis", || claims(&redis, &node) == 1);
    let seconds = number(&redis.say(&format!("TTL {}", node.redis_key())));
    assert!((1..=3600).contains(&seconds), "{seconds}");
}

#[test]
fn claims_of_roots_that_were_killed_end_with_their_lifetime_though_the_node_goes_on_elsewhere() {
    let Some(redis) = Redis::start(None) else { return };
    let stays = Serving::start(config_of(201), redis.config());
    let mut node = Client::register(1, &stays, b"");
    for seed in 202..206 {
        // For Redis a root that is cut off looks like a killed one.
        let proxy = Proxy::to(redis.port);
        let root = Serving::start(config_of(seed), config_at(proxy.port, None));
        let before = claims(&redis, &node);
        Client::register_for(1, &root, b"", 10);
        wait_until("it is in Redis", || claims(&redis, &node) == before + 1);
        proxy.cut();
    }
    wait_until("one claim is left", || {
        node.register_again();
        std::thread::sleep(Duration::from_secs(1));
        claims(&redis, &node) == 1
    });
    assert!(number(&redis.say(&format!("TTL {}", node.redis_key()))) > 10);
}

#[test]
fn a_node_that_leaves_while_redis_is_away_is_taken_out_when_it_is_back() {
    let Some(redis) = Redis::start(None) else { return };
    let proxy = Proxy::to(redis.port);
    let a = Serving::start(config_of(201), config_at(proxy.port, None));
    let (mut leaves, stays) = (Client::register(1, &a, b""), Client::register(2, &a, b""));
    let mut seeker = Client::register(3, &a, b"");
    wait_until("both are in Redis", || [&leaves, &stays].map(|node| claims(&redis, node)) == [1, 1]);
    proxy.cut();
    wait_until("the root has noticed", || a.traffic.directory_failures.get() > 0);
    leaves.say(Control::Close { reason: 0 });
    seeker.wait_for(&leaves, is_partial);
    assert_eq!(claims(&redis, &leaves), 1);
    proxy.mend();
    wait_until("it is taken out", || claims(&redis, &leaves) == 0);
    assert_eq!(claims(&redis, &stays), 1);
}

/// Returns the number of roots that claim the node.
fn claims(redis: &Redis, node: &Client) -> u64 {
    number(&redis.say(&format!("HLEN {}", node.redis_key())))
}

fn number(answer: &str) -> u64 {
    let digits = answer.strip_prefix(':').and_then(|rest| rest.strip_suffix("\r\n"));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("a number, not {answer}"))
}
