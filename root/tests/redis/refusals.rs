//! Tests with a Redis that answers and refuses some commands.

use std::time::{Duration, Instant};

use peersock_overlay::wire::RootMessage;

use crate::setup::{
    Client, LAYOUT, Proxy, Redis, Serving, TEST_TIMEOUT, config_at, config_of, hex, is_nobody, is_partial,
    wait_until,
};

#[test]
fn a_redis_without_memory_is_read_and_is_told_all_as_soon_as_it_has_some() {
    let Some(redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    redis.say("CONFIG SET maxmemory 1");
    // Redis refuses even this root's own record.
    let late = Serving::start(config_of(203), redis.config());
    let mut newcomer = Client::register(3, &late, b"");
    newcomer.wait_for_referral(&sought);
    assert!(late.traffic.directory_failures.get() > 0);
    redis.say("CONFIG SET maxmemory 0");
    seeker.wait_for_referral(&newcomer);
}

#[test]
fn a_write_that_is_refused_costs_no_question_its_answer() {
    let Some(redis) = Redis::start(None) else { return };
    let proxy = Proxy::to(redis.port);
    let a = Serving::start(config_of(201), config_at(proxy.port, None));
    let b = Serving::start(config_of(202), redis.config());
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    // More commands come than may be in flight, so writes and questions leave in one pipeline.
    proxy.delay(Duration::from_millis(100));
    redis.say("CONFIG SET maxmemory 1");
    let end = Instant::now() + TEST_TIMEOUT;
    loop {
        let before = a.traffic.directory_failures.get();
        let answers = ask_and_register(&mut seeker, &sought);
        let refused = a.traffic.directory_failures.get() - before;
        // On a slow machine questions time out; some round has no timeouts.
        if refused > 0 && !answers.iter().any(is_partial) {
            assert!(answers.iter().all(|answer| matches!(answer, RootMessage::Referred { .. })));
            break;
        }
        assert!(Instant::now() < end, "{refused} refused, {answers:?}");
        // The budget of questions recovers.
        std::thread::sleep(Duration::from_secs(3));
    }
}

#[test]
fn what_others_write_to_redis_is_never_read_in_full_and_keeps_nobody_from_being_found() {
    const LONG_VALUE_BYTES: usize = 8 << 20;
    let Some(redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    let claims = sought.redis_key();
    wait_until("it is in Redis", || redis.say(&format!("HLEN {claims}")) == ":1\r\n");
    // Tries a long field, a long value of a field as roots write them, and a long record of the root itself.
    for (field, value) in
        [("string.rep('f', ARGV[1])", "'v'"), ("string.rep('f', 64)", "string.rep('v', ARGV[1])")]
    {
        let write = format!("redis.call('HSET', KEYS[1], {field}, {value})");
        redis.say(&format!("EVAL \"{write}\" 1 {claims} {LONG_VALUE_BYTES}"));
    }
    let record = format!("{LAYOUT}:root:{}", hex(b.config.identity.node_id().as_bytes()));
    redis.say(&format!("RENAME {record} kept"));
    redis.say(&format!(
        "EVAL \"redis.call('SET', KEYS[1], string.rep('r', ARGV[1]))\" 1 {record} {LONG_VALUE_BYTES}"
    ));
    assert_eq!(redis.say(&format!("HLEN {claims}")), ":3\r\n");

    let before = bytes_sent(&redis);
    seeker.wait_for(&sought, is_nobody);
    let read = bytes_sent(&redis) - before;
    assert!(read < 64 << 10, "{read} bytes were read");
    assert!(a.traffic.directory_forged.get() > 0, "what is no record is counted");

    redis.say(&format!("RENAME kept {record}"));
    seeker.wait_for_referral(&sought);
    let read = bytes_sent(&redis) - before;
    assert!(read < 1 << 20, "{read} bytes were read");
}

/// Returns the number of bytes that Redis has sent to all of its clients.
fn bytes_sent(redis: &Redis) -> usize {
    let answer = redis.say("INFO stats");
    let number = answer.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    number.and_then(|number| number.trim().parse().ok()).expect("a number of bytes")
}

/// Asks forty times, and registers again in between.
fn ask_and_register(seeker: &mut Client, sought: &Client) -> Vec<RootMessage> {
    for number in 0..40 {
        seeker.ask_for(sought);
        if number % 10 == 9 {
            seeker.send_registration();
        }
    }
    let mut answers = Vec::new();
    while answers.len() < 40 {
        let answer = seeker.hear();
        if !matches!(answer, RootMessage::Registered(_)) {
            answers.push(answer);
        }
    }
    answers
}
