//! Tests with much and little data, over clean and bad links.

use std::thread;

use peersock_stack_lab::kernel::Options;
use peersock_stack_lab::link::{Link, Loss};
use peersock_stack_lab::{Random, ms};

use crate::ends::{End, content, receive_all, send_all};
use crate::lab::{Lab, Opener, Pair};

/// Kernel counters that grow through effects of the link. A duplicate or late handshake segment is an error
/// and answered with a challenge. A segment overtaken by its retransmission has an old timestamp. Duplicate
/// reports (RFC 2883) about copies made by the link are discarded and count as `TCPSACKDiscard`.
const FROM_THE_LINK: &[&str] = &["InErrs", "PAWSEstab", "TCPChallengeACK", "TCPSYNChallenge"];

/// Has both ends send `len` bytes at the same time, end, and read all.
fn exchange(pair: &Pair, len: usize, pieces: impl Fn(u64) -> usize + Sync) {
    let (to_us, to_kernel) = (content(1, len), content(2, len));
    let (kernel, ours): (&dyn End, &dyn End) = (&pair.kernel, &pair.ours);
    let send = |end: &dyn End, data: &[u8], seed| {
        let mut random = Random::new(seed);
        send_all(end, data, || pieces(random.number()));
        end.shut().expect("the connection stands");
    };
    thread::scope(|scope| {
        scope.spawn(|| send(kernel, &to_us, 3));
        scope.spawn(|| send(ours, &to_kernel, 4));
        scope.spawn(|| receive_all(kernel, &to_kernel));
        receive_all(ours, &to_us);
    });
}

#[test]
fn megabytes_cross_both_ways_at_once() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    lab.each(|pair| {
        say(&pair);
        exchange(&pair, 4 << 20, |_| 100_000);
    });
    lab.assert_no_complaints(&[]);
}

#[test]
fn tiny_writes_arrive_with_and_without_nagle() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    for nodelay in [false, true] {
        lab.each(|pair| {
            say(&pair);
            if nodelay {
                End::set_nodelay(&pair.kernel);
                pair.ours.set_nodelay();
            }
            exchange(&pair, 10_000, |number| 1 + (number % 7) as usize);
        });
    }
    lab.assert_no_complaints(&[]);
}

#[test]
fn requests_are_answered_one_after_another() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    lab.each(|pair| {
        say(&pair);
        let (kernel, ours): (&dyn End, &dyn End) = (&pair.kernel, &pair.ours);
        for round in 0..200 {
            let request = content(round, 1 + round as usize * 10);
            for (from, to) in [(kernel, ours), (ours, kernel)] {
                send_all(from, &request, || usize::MAX);
                let mut answer = vec![0; request.len()];
                let mut at = 0;
                while at < answer.len() {
                    let len = to.receive(&mut answer[at..]).expect("the connection stands");
                    assert!(len > 0, "the end came early");
                    at += len;
                }
                assert!(answer == request);
            }
        }
    });
    lab.assert_no_complaints(&[]);
}

#[test]
fn everything_arrives_over_links_that_lose_reorder_and_double() {
    let bad = Link {
        loss: Loss::Random(0.02),
        reorder: 0.05,
        reorder_by: ms(4),
        duplicate: 0.02,
        ..Link::new(1e9)
    };
    for seed in 1..=3 {
        let options =
            Options { inward: bad.clone(), outward: bad.clone(), delay: ms(2), seed, ..Options::default() };
        let Some(lab) = Lab::new(&options) else { return };
        lab.each(|pair| {
            say(&pair);
            exchange(&pair, 300_000, |number| 1 + (number % 20_000) as usize);
        });
        lab.assert_no_complaints(&[FROM_THE_LINK, &["TCPSACKDiscard"]].concat());
    }
}

/// Exchanges data with a kernel that lacks one extension, because a peer may lack any of them.
fn exchange_with_a_kernel_of(setting: &str, value: &str) {
    let bad = Link {
        mark_over: Some(5_000),
        loss: Loss::Random(0.005),
        reorder: 0.01,
        reorder_by: ms(2),
        ..Link::new(1e9)
    };
    let ecn = setting == "tcp_ecn";
    let options = Options { inward: bad.clone(), outward: bad, delay: ms(1), ecn, ..Options::default() };
    let Some(lab) = Lab::new(&options) else { return };
    lab.namespace.set(&format!("ipv4/{setting}"), value).expect("a setting of Linux");
    lab.each(|pair| {
        say(&pair);
        exchange(&pair, 300_000, |_| 50_000);
    });
    lab.assert_no_complaints(FROM_THE_LINK);
}

#[test]
fn a_kernel_without_selective_acknowledgements() {
    exchange_with_a_kernel_of("tcp_sack", "0");
}

#[test]
fn a_kernel_that_reports_no_duplicates() {
    exchange_with_a_kernel_of("tcp_dsack", "0");
}

#[test]
fn a_kernel_without_timestamps() {
    exchange_with_a_kernel_of("tcp_timestamps", "0");
}

#[test]
fn a_kernel_without_window_scaling() {
    exchange_with_a_kernel_of("tcp_window_scaling", "0");
}

#[test]
fn a_kernel_that_wants_explicit_congestion_notification() {
    exchange_with_a_kernel_of("tcp_ecn", "1");
}

#[test]
fn a_kernel_with_another_congestion_control() {
    exchange_with_a_kernel_of("tcp_congestion_control", "reno");
}

#[test]
fn segments_are_no_larger_than_the_kernel_allows() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    // IPv4 only, because over IPv6 the kernel announces at least the room of the smallest MTU.
    let route = "route change 10.77.0.0/24 dev tun0 proto kernel scope link src 10.77.0.1 advmss 500";
    lab.namespace.ip(route).expect("the route is there");
    for opener in [Opener::Kernel, Opener::Stack] {
        exchange(&lab.pair(false, opener), 300_000, |_| 50_000);
    }
    let largest = lab.node.largest_packet();
    assert!((400..=40 + 500).contains(&largest), "{largest}");
    lab.assert_no_complaints(&[]);
}

#[test]
fn wrong_bytes_are_noticed_and_sent_again() {
    let bad = Link { corrupt: 0.02, ..Link::new(1e9) };
    let options = Options { inward: bad.clone(), outward: bad, delay: ms(1), ..Options::default() };
    let Some(lab) = Lab::new(&options) else { return };
    lab.each(|pair| {
        say(&pair);
        exchange(&pair, 300_000, |_| 10_000);
    });
    assert!(lab.namespace.counter("Tcp", "InCsumErrors").expect("a counter of Linux") > 0);
    assert!(lab.node.counter("ip_checksum_errors") > 0);
}

/// Prints the connection, for the output of a failing test.
fn say(pair: &Pair) {
    eprintln!("{}", pair.what);
}
