//! Measurements of rates, processor time and memory.

use std::time::Instant;

use super::*;
use crate::Asked;

fn asked(node: u32, token: Option<&Token>) -> Asked {
    Asked {
        peer: *identity(node).public(),
        source: source_of(node).parse().expect("an address"),
        question: certify(node, token),
    }
}

/// Returns the resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Returns the processor time of this thread so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0))
}

/// Number of parts in a second, and the processor time of each.
struct Rate {
    a_second: f64,
    cost: Duration,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} a second, {:?} of processor time each", self.a_second, self.cost)
    }
}

/// Runs something that has `count` parts.
fn rate(count: u32, mut run: impl FnMut()) -> Rate {
    let (start, before) = (Instant::now(), processor_time());
    run();
    let (wall, cost) = (start.elapsed(), processor_time().saturating_sub(before));
    Rate { a_second: f64::from(count) / wall.as_secs_f64(), cost: cost / count }
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn measures() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let settings = Settings { ipv4: pool("10.0.0.0", 8), ..Settings::default() };
    lab.controller.set_settings(lab.now, "alice", &settings).expect("valid");
    let token = lab.open_invite();
    let mut node = 0;
    let mut join = |lab: &mut Lab, count: u32, size: u32| {
        for _ in 0..count / size {
            let batch: Vec<_> = (0..size).map(|n| asked(node + n, Some(&token))).collect();
            node += size;
            let answers = lab.controller.answer_all(lab.now, &mut lab.rng, &batch);
            assert!(answers.iter().all(|answer| denial(answer).is_none()));
        }
        node
    };
    join(&mut lab, 10, 1);
    let mut cost_of_few = None;
    for (count, size) in [(40, 1), (50, 10), (900, 50), (9_000, 500), (90_000, 500)] {
        let before = resident();
        let joined = rate(count, || assert!(join(&mut lab, count, size) > 0));
        let members = join(&mut lab, 0, 1);
        let grown = resident().saturating_sub(before);
        eprintln!("joins to {members} members, {size} in a transaction: {joined}; {grown} KiB more");
        assert!(joined.a_second >= 200.0, "joins, also one by one");
        if ![100, 10_000, 100_000].contains(&members) {
            continue;
        }
        let questions: Vec<_> = (0..100).map(|n| asked(n * (members / 100), None)).collect();
        let renewed = rate(5_000, || {
            for at in 0..5_000_usize {
                let Asked { peer, source, question } = &questions[at % 100];
                let answer = lab.controller.answer(lab.now, &mut lab.rng, peer, *source, question.clone());
                assert_eq!(denial(&answer), None);
            }
        });
        eprintln!("renewals with {members} members: {renewed}");
        assert!(renewed.a_second >= 2_000.0);
        // Other programs do not count: the cost is that of the thread. Larger tables miss caches more often.
        let few = *cost_of_few.get_or_insert(renewed.cost);
        assert!(renewed.cost < few.mul_f64(1.5), "{:?}, with 100 members {few:?}", renewed.cost);
        eprintln!("flush: {}", rate(1, || lab.controller.flush(lab.now).expect("room")));
        eprintln!("removal: {}", rate(1, || lab.revoke(7)));
        let key = id(7).to_string();
        lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Default::default()).expect("known");
        let before = resident();
        let mut again = None;
        eprintln!("opening: {}", rate(1, || again = Some(Lab::open(&path, 9))));
        let grown = resident().saturating_sub(before);
        eprintln!("memory of it: {grown} KiB");
        assert!(grown < 1_024 + 2 * u64::from(members), "2 KiB for a member");
        eprintln!("check: {}", rate(1, || lab.controller.store.check().expect("a good file")));
        eprintln!("file: {} KiB", std::fs::metadata(&path).expect("a file").len() >> 10);
    }
}
