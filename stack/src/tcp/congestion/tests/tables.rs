//! Measured figures of all algorithms, to look at: `cargo test -p peersock-stack tables -- --ignored --nocapture`.

use super::*;

#[test]
#[ignore = "prints a table"]
fn table_of_shares() {
    for (name, rate, rtt, duration) in [
        ("100/40", 100, 40 * MS, 20 * SECOND),
        ("1000/10", 1000, 10 * MS, 10 * SECOND),
        ("20/200", 20, 200 * MS, 20 * SECOND),
        ("10000/.2", 10000, MS / 5, SECOND),
    ] {
        for control in ALL {
            let shares: Vec<String> = [0.0, 1.0, 10.0, 30.0, 50.0, 100.0]
                .into_iter()
                .map(|loss| {
                    let link = Link { loss, ..link(rate, rtt, 100) };
                    format!("{:.3}", median(3, |seed| alone(control, link, rtt, duration, seed).share))
                })
                .collect();
            let bdp = rate as f64 * 1e6 / 8.0 * rtt as f64 / 1e9;
            let lone = alone(control, link(rate, rtt, 100), rtt, duration, 1);
            let deep = alone(control, link(rate, rtt, 400), rtt, duration, 1);
            eprintln!(
                "{name:9} {control:6} {shares:?} queue {:.2} {:.2}",
                lone.queue / bdp,
                deep.queue / bdp
            );
        }
    }
}

#[test]
#[ignore = "prints a table"]
fn table_of_fairness() {
    let rtt = 40 * MS;
    let bdp = 500_000.0;
    for control in ALL {
        for buffer in [10, 25, 50, 100, 400] {
            let link = link(100, rtt, buffer);
            let lone = alone(control, link, rtt, 20 * SECOND, 1);
            let flows: Vec<String> = [2, 4, 10]
                .into_iter()
                .map(|count| {
                    let report = several(&vec![control; count], link, rtt, 1);
                    let fair = median(5, |seed| several(&vec![control; count], link, rtt, seed).fairness());
                    let dropped = 100.0 * report.dropped();
                    format!("{fair:.2}/{:.3}/{:.2}/{dropped:.1}%", report.share, report.queue / bdp)
                })
                .collect();
            let against = median(5, |seed| several(&[control, Cubic], link, rtt, seed).part(0));
            let short = median(5, |seed| {
                let start = seed * 37 * MS;
                let flows = [
                    Flow { control, rtt: 20 * MS, start: 0, gives: None },
                    Flow { control, rtt: 80 * MS, start, gives: None },
                ];
                run(link, &flows, 60 * SECOND, seed).part(0)
            });
            eprintln!(
                "buffer {buffer:3} {control:6} lone {:.3} several {flows:?} against cubic {against:.2}, rtt 20 against 80 {short:.2}",
                lone.share,
            );
        }
    }
}

#[test]
#[ignore = "prints a table"]
fn table_of_bad_links() {
    let rtt = 40 * MS;
    for control in ALL {
        let shares: Vec<String> = [
            ("run 10, 3 %", Link { loss: 30.0, run: 10.0, ..link(100, rtt, 100) }),
            ("jitter 10 ms, 3 %", Link { loss: 30.0, jitter: 10 * MS, ..link(100, rtt, 100) }),
            ("jitter 20 ms, 3 %", Link { loss: 30.0, jitter: 20 * MS, ..link(100, rtt, 100) }),
            ("jitter 40 ms, 3 %", Link { loss: 30.0, jitter: 40 * MS, ..link(100, rtt, 100) }),
            ("jitter 40 ms, 0 %", Link { loss: 0.0, jitter: 40 * MS, ..link(100, rtt, 100) }),
            ("release 10 ms, 3 %", Link { loss: 30.0, release: 10 * MS, ..link(100, rtt, 100) }),
        ]
        .into_iter()
        .map(|(name, link)| {
            let share = |seed| alone(control, link, rtt, 20 * SECOND, seed).share;
            let worst = (1..=20).map(share).fold(1.0, f64::min);
            format!("{name}: {:.3} ({worst:.3})", median(20, share))
        })
        .collect();
        eprintln!("{control:6} {shares:?}");
    }
}

#[test]
#[ignore = "prints a table"]
fn table_of_events() {
    let rtt = 40 * MS;
    let bdp = 500_000;
    for control in ALL {
        let marking = Link { mark: Some(bdp / 4), ..link(100, rtt, 200) };
        let lone = alone(control, marking, rtt, 20 * SECOND, 1);
        let two = several(&[control; 2], marking, rtt, 1);
        let cubic = several(&[control, Cubic], marking, rtt, 1);
        eprintln!(
            "{control:6} marks: lone {:.3} queue {:.3}, two {:.3} {:.2} queue {:.3}, against cubic {:.2}",
            lone.share,
            lone.queue / bdp as f64,
            two.share,
            two.fairness(),
            two.queue / bdp as f64,
            cubic.part(0)
        );
        for outage in [100, 300, 1000, 3000] {
            let link = Link { outage: (5 * SECOND, 5 * SECOND + outage * MS), ..link(100, rtt, 100) };
            let report = alone(control, link, rtt, 20 * SECOND, 1);
            eprintln!("{control:6} outage of {outage} ms: {:.3}", report.share);
        }
        for (segments, period) in
            [(1, MS), (10, 10 * MS), (100, 100 * MS), (100, 200 * MS), (1000, 2 * SECOND)]
        {
            let flow = Flow { control, rtt, start: 0, gives: Some((segments, period)) };
            for loss in [0.0, 10.0] {
                let link = Link { loss, ..link(100, rtt, 100) };
                let report = run(link, &[flow], 20 * SECOND, 1);
                let given = segments * (20 * SECOND / period) * MSS;
                eprintln!(
                    "{control:6} {segments} segments each {} ms with {loss} loss: {:.3} of {:.1} Mbit/s, queue {:.3}",
                    period / MS,
                    report.flows[0].acknowledged as f64 / given as f64,
                    given as f64 * 8.0 / 20e6,
                    report.queue / bdp as f64
                );
            }
        }
        for (rate, rtt) in [
            (1, 100 * MS),
            (1, 10 * MS),
            (10, MS),
            (1000, MS / 10),
            (1000, MS),
            (1000, 100 * MS),
            (100, 2 * MS),
        ] {
            let share = |loss| alone(control, Link { loss, ..link(rate, rtt, 100) }, rtt, 10 * SECOND, 1);
            let deep = alone(control, Link { buffer: 1 << 20, ..link(rate, rtt, 100) }, rtt, 10 * SECOND, 1);
            eprintln!(
                "{control:6} {rate} Mbit/s {} us: {:.3} {:.3} {:.3}, with 1 MiB {:.3} queue {} us",
                rtt / 1000,
                share(0.0).share,
                share(10.0).share,
                share(30.0).share,
                deep.share,
                deep.queue as u64 * 8 / rate,
            );
        }
    }
}

/// Milliseconds from connecting until all is acknowledged.
fn completion(control: CongestionControl, link: Link, segments: u64, seed: u64) -> u64 {
    let flow = Flow { control, rtt: RTT, start: 0, gives: Some((segments, 1 << 50)) };
    (1..).find(|ms| run(link, &[flow], ms * MS, seed).flows[0].acknowledged >= segments * MSS).unwrap_or(0)
}

#[test]
#[ignore = "prints a table"]
fn table_of_short_flows() {
    for control in ALL {
        for segments in [8, 73, 720] {
            for loss in [0.0, 10.0] {
                let link = Link { loss, ..usual(100) };
                let mut times: Vec<u64> =
                    (1..=40).map(|seed| completion(control, link, segments, seed)).collect();
                times.sort_unstable();
                eprintln!("{control:6} {segments} segments, {loss}: {} ms, at most {}", times[20], times[39]);
            }
        }
        let drops: Vec<String> = [10, 50, 100, 400]
            .map(|buffer| alone(control, usual(buffer), RTT, 2 * SECOND, 1).flows[0].dropped.to_string())
            .to_vec();
        eprintln!("{control:6} dropped in the first two seconds: {drops:?}");
    }
}
