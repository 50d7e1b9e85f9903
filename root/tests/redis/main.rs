//! Tests of roots that share a directory, with a real redis-server: away, killed, restarted, slow, full, and
//! with foreign writes.
#![cfg(feature = "server")]
#![expect(clippy::disallowed_methods, reason = "the driver has clocks and threads, and so have its tests")]

mod claims;
mod refusals;
mod setup;
mod tls;

use std::time::{Duration, Instant};

use peersock_overlay::wire::{Relayed, RootMessage};
use peersock_root::Source;
use zeroize::Zeroizing;

use setup::{
    Client, LAYOUT, Proxy, Redis, Serving, config_at, config_of, hex, is_nobody, is_partial, restart,
};

#[test]
fn nodes_of_two_roots_find_each_other_and_talk_through_one_of_them() {
    let Some(redis) = Redis::start(Some("hush")) else { return };
    let guarded = |seed| {
        let mut config = config_of(seed);
        config.access = Some(Zeroizing::new(b"open sesame".to_vec()));
        config
    };
    let [mut a, mut b] = [201, 202].map(|seed| Serving::start(guarded(seed), redis.config()));
    let mut sought = Client::register(2, &b, b"open sesame");
    let mut seeker = Client::register(1, &a, b"open sesame");
    let (referral, pass) = seeker.wait_for_referral(&sought);
    assert!(referral.verify());
    assert_eq!(referral.root.identity, *b.config.identity.public());
    assert_eq!(referral.root.addresses(), [b.address]);

    // The node connects as a guest, with the pass alone, and reaches the other node through that root.
    let mut guest = Client::register(1, &b, &pass);
    let RootMessage::Found { result: Ok(entry), .. } = guest.look_up(&sought) else { panic!("it is there") };
    let frame = guest.node.frame(entry.channel, b"a datagram between nodes");
    guest.world.socket.send_to(&frame, b.address).expect("sent");
    let (_, frame) = sought.world.receive();
    let (header, inner) = Relayed::parse(&frame).expect("a frame");
    assert_eq!((header.token, inner), (sought.node.token, &b"a datagram between nodes"[..]));
    let answer = sought.node.frame(header.channel, b"and back");
    sought.world.socket.send_to(&answer, b.address).expect("sent");
    assert!(guest.world.receive().1.ends_with(b"and back"));

    // A root that has ended is no longer named.
    b.end();
    seeker.wait_for(&sought, is_nobody);
    a.end();
    assert_eq!(redis.say(&format!("KEYS {LAYOUT}:root:*")), "*0\r\n", "both have taken themselves out");
}

#[test]
fn a_redis_that_is_killed_costs_nothing_but_the_other_roots_nodes_and_is_told_all_when_it_is_back() {
    let Some(mut redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    let neighbour = Client::register(3, &a, b"");
    seeker.wait_for_referral(&sought);
    redis.child.kill().expect("killed");
    redis.child.wait().expect("gone");
    seeker.wait_for(&sought, is_partial);
    // The root knows its own nodes, and no look-up waits.
    assert!(matches!(seeker.look_up(&neighbour), RootMessage::Found { result: Ok(_), .. }));
    let begin = Instant::now();
    assert!((0..10).all(|_| is_partial(&seeker.look_up(&sought))));
    assert!(begin.elapsed() < Duration::from_secs(15), "each question would wait for two seconds");
    assert!(a.traffic.directory_failures.get() > 0);
    // Redis comes back empty.
    let port = redis.port;
    let _redis = restart(port, None);
    seeker.wait_for_referral(&sought);
}

#[test]
fn a_redis_that_is_not_there_yet_or_refuses_is_used_as_soon_as_it_serves() {
    let Some(redis) = Redis::start(None) else { return };
    let port = redis.port;
    drop(redis);
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), config_at(port, None)));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    assert!(is_partial(&seeker.look_up(&sought)));
    let redis = restart(port, None);
    seeker.wait_for_referral(&sought);
    // A different Redis takes its place, with a password that the roots do not know.
    drop(redis);
    let redis = restart(port, Some("hush"));
    seeker.wait_for(&sought, is_partial);
    redis.say("CONFIG SET requirepass \"\"");
    seeker.wait_for_referral(&sought);
}

#[test]
fn what_others_have_written_leads_nowhere_and_is_counted() {
    let Some(redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    let root = b.config.identity.node_id();
    // The other root's record is overwritten with garbage.
    redis.say(&format!("SET {LAYOUT}:root:{} {}", hex(root.as_bytes()), "x".repeat(300)));
    seeker.wait_for(&sought, is_nobody);
    assert!(a.traffic.directory_forged.get() > 0);
    // The key of the node is not even a hash.
    let key = sought.redis_key();
    redis.say(&format!("SET {key} nonsense"));
    seeker.wait_for(&sought, is_partial);
    redis.say(&format!("DEL {key}"));
    seeker.wait_for(&sought, is_nobody);
}

#[test]
fn a_redis_that_is_slow_is_waited_for_and_one_that_is_too_slow_is_done_without() {
    let Some(redis) = Redis::start(None) else { return };
    let proxy = Proxy::to(redis.port);
    let through = config_at(proxy.port, None);
    let (a, b) = (Serving::start(config_of(201), through), Serving::start(config_of(202), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    proxy.delay(Duration::from_millis(150));
    seeker.wait_for_referral(&sought);
    proxy.delay(Duration::from_millis(20_000));
    seeker.wait_for(&sought, is_partial);
    let neighbour = Client::register(3, &a, b"");
    assert!(matches!(seeker.look_up(&neighbour), RootMessage::Found { result: Ok(_), .. }));
    proxy.delay(Duration::from_millis(0));
    seeker.wait_for_referral(&sought);
}
