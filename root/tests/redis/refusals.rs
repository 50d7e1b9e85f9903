//! A Redis that is there and refuses some of what it is told.

use std::time::{Duration, Instant};

use peersock_overlay::wire::RootMessage;

use crate::setup::{Client, PATIENCE, Proxy, Redis, Serving, config_at, config_of, is_partial};

#[test]
fn a_redis_without_memory_is_read_and_is_told_all_as_soon_as_it_has_some() {
    let Some(redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    redis.say("CONFIG SET maxmemory 1");
    // This root cannot even say where it is.
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
    // More is said than may be under way at once, so that writes and questions leave in one go.
    proxy.delay(Duration::from_millis(100));
    redis.say("CONFIG SET maxmemory 1");
    let end = Instant::now() + PATIENCE;
    loop {
        let before = a.traffic.directory_failures.get();
        let answers = ask_and_register(&mut seeker, &sought);
        let refused = a.traffic.directory_failures.get() - before;
        // A slow machine lets questions run out; there is always a round without that.
        if refused > 0 && !answers.iter().any(is_partial) {
            assert!(answers.iter().all(|answer| matches!(answer, RootMessage::Referred { .. })));
            break;
        }
        assert!(Instant::now() < end, "{refused} refused, {answers:?}");
        // As many questions again.
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// Asks forty times, and registers anew in between.
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
