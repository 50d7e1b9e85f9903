//! Tests of a peer that falls silent without an error.

use std::time::{Duration, Instant};

use peersock_stack::{Delivery, Error, Flow, KeepAlive, Ready, State, TcpOptions};

use crate::pair::{A, B, Pair};

const SECOND: Duration = Duration::from_secs(1);

/// With the defaults of `peersock dial` and `listen`, a silent peer is given up within 30 s, whatever the
/// connection is doing.
#[test]
fn a_peer_in_a_black_hole_is_noticed_within_thirty_seconds_where_somebody_waits() {
    const TIMEOUT: Duration = Duration::from_secs(25);
    enum Doing {
        Nothing,
        Sending,
        /// More data to send than the peer takes.
        Waiting,
    }
    for (which, doing) in [Doing::Nothing, Doing::Sending, Doing::Waiting].into_iter().enumerate() {
        for idle in [0, 1, 60] {
            let mut pair = Pair::new(9);
            let (a, b) = pair.connected();
            for flow in [&a, &b] {
                flow.set_keepalive(Some(TIMEOUT / 9));
                flow.set_user_timeout(Some(TIMEOUT));
            }
            pair.kick(A, &a);
            pair.kick(B, &b);
            if matches!(doing, Doing::Waiting) {
                while a.write(pair.now, &[7; 65_536]).is_ok() {
                    pair.kick(A, &a);
                    pair.run_for(SECOND / 10);
                }
            }
            pair.run_for(idle * SECOND);
            let errors = [&a, &b].map(|flow| flow.take_error());
            assert_eq!(errors, [None, None], "{which}, idle for {idle} s");
            let began = pair.now;
            pair.link.loss = 1000;
            if matches!(doing, Doing::Sending) {
                a.write(pair.now, b"lost").expect("room");
                pair.kick(A, &a);
            }
            for flow in [&a, &b] {
                pair.run(60 * SECOND, |_| flow.readiness().contains(Ready::ERROR));
                let took = pair.now - began;
                assert!(took <= 30 * SECOND, "{which}, idle for {idle} s: {took:?}");
                assert_eq!(flow.take_error(), Some(Error::TimedOut));
            }
        }
    }
}

/// A program may set other options of a socket meanwhile, with which its server sets these again.
#[test]
fn keepalive_options_that_are_set_again_do_not_delay_the_end_of_a_silent_peer() {
    const TIMEOUT: Duration = Duration::from_secs(25);
    let mut pair = Pair::new(9);
    let (a, _b) = pair.connected();
    a.set_keepalive(Some(TIMEOUT / 9));
    pair.kick(A, &a);
    pair.run_for(10 * SECOND);
    pair.link.loss = 1000;
    let began = pair.now;
    pair.run_for(20 * SECOND);
    a.set_keepalive(Some(TIMEOUT / 9));
    a.set_user_timeout(Some(TIMEOUT));
    pair.kick(A, &a);
    pair.run(60 * SECOND, |_| a.readiness().contains(Ready::ERROR));
    assert!(pair.now - began <= 30 * SECOND, "{:?}", pair.now - began);
    assert_eq!(a.take_error(), Some(Error::TimedOut));
}

/// SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT: an idle connection is given up exactly at
/// their time, on the side that has them, and never without.
#[test]
fn who_only_waits_gives_up_when_its_keepalive_options_say() {
    for (idle, interval, probes) in [(1, 1, 1), (2, 1, 3), (10, 5, 2), (60, 75, 9), (7200, 75, 9)] {
        let keepalive = KeepAlive { on: true, idle: idle * SECOND, interval: interval * SECOND, probes };
        let mut pair = Pair::new(9);
        let (a, b) = pair.connected_with(true, TcpOptions { keepalive, ..TcpOptions::default() });
        b.set_keepalive(None);
        pair.kick(B, &b);
        pair.transfer(A, &a, &b, 1000);
        pair.transfer(B, &b, &a, 1000);
        // Answered probes keep the connection.
        pair.run_for(3 * (idle + interval) * SECOND);
        a.write(pair.now, b"x").expect("room");
        pair.kick(A, &a);
        pair.run(SECOND, |pair| a.unacked() == 0 && b.read(pair.now, &mut [0; 2]) == Ok(1));
        let began = pair.now;
        pair.link.loss = 1000;
        let end = idle * SECOND + interval * probes * SECOND;
        pair.run(2 * end + SECOND, |_| a.readiness().contains(Ready::ERROR));
        let took = pair.now - began;
        assert!(took + SECOND / 10 >= end && took <= end + SECOND / 10, "{keepalive:?}: {took:?}");
        assert_eq!(a.take_error(), Some(Error::TimedOut));
        pair.run_for(100_000 * SECOND);
        assert_eq!((b.take_error(), b.readiness().contains(Ready::ERROR)), (None, false));
    }
}

/// A peer without room is probed at growing intervals. If it answers each probe, it is not silent in the
/// pauses; otherwise it is silent from the first unanswered probe on.
#[test]
fn a_peer_that_has_no_room_and_says_so_is_not_silent() {
    let keepalive = KeepAlive { on: true, idle: 3 * SECOND, interval: 2 * SECOND, probes: 100 };
    for keepalive in [KeepAlive::default(), keepalive] {
        let mut pair = Pair::new(9);
        let (a, _b) = pair.connected_with(true, TcpOptions { keepalive, ..TcpOptions::default() });
        fill(&mut pair, &a);
        let mut longest = Duration::ZERO;
        for _ in 0..3000 {
            pair.run_for(SECOND / 10);
            longest = longest.max(a.silence(pair.now).expect("something waits"));
        }
        // Silence lasts as long as an answer takes.
        assert!(longest < SECOND, "{longest:?}");
        let began = pair.now;
        pair.link.loss = 1000;
        pair.run(300 * SECOND, |pair| a.silence(pair.now).is_some_and(|silence| silence > 10 * SECOND));
        // Two minutes are the longest pause.
        let most = if keepalive.on { 14 } else { 131 };
        assert!((10..=most).contains(&(pair.now - began).as_secs()), "{:?}", pair.now - began);
    }
}

/// The timeout is as in Linux, and not twice as late because of the long probe intervals.
#[test]
fn a_user_timeout_ends_a_connection_to_a_peer_that_has_no_room_for_so_long() {
    for seconds in [2, 4, 10, 100] {
        let mut pair = Pair::new(9);
        let options = TcpOptions { user_timeout: Some(seconds * SECOND), ..TcpOptions::default() };
        let (a, _b) = pair.connected_with(true, options.clone());
        let began = fill(&mut pair, &a);
        pair.run(1000 * SECOND, |_| a.readiness().contains(Ready::ERROR));
        let took = pair.now - began;
        assert!(took + SECOND >= seconds * SECOND && took <= (seconds + 1) * SECOND, "{seconds}: {took:?}");
        assert_eq!(a.take_error(), Some(Error::TimedOut));
        // A peer that takes something now and then keeps the connection.
        let mut pair = Pair::new(10);
        let (a, b) = pair.connected_with(true, options);
        fill(&mut pair, &a);
        for _ in 0..20 {
            pair.run_for(seconds * SECOND * 3 / 4);
            let mut room = vec![0; 8 << 20];
            while b.read(pair.now, &mut room).is_ok_and(|len| len > 0) {}
            pair.kick(B, &b);
            pair.run_for(SECOND / 10);
            fill(&mut pair, &a);
        }
        assert_eq!(a.take_error(), None, "{seconds}");
    }
}

/// A side with keep-alives waits for a living peer. If their interval exceeds the user timeout, only window
/// probes ask the peer, at growing intervals.
#[test]
fn with_keep_alives_a_peer_that_has_no_room_is_waited_for_as_long_as_it_answers() {
    let keepalive = KeepAlive { on: true, idle: 7200 * SECOND, interval: 75 * SECOND, probes: 9 };
    let user_timeout = Some(10 * SECOND);
    let mut pair = Pair::new(9);
    let options = TcpOptions { keepalive, user_timeout, ..TcpOptions::default() };
    let (a, _b) = pair.connected_with(true, options);
    fill(&mut pair, &a);
    pair.run_for(600 * SECOND);
    assert_eq!(a.take_error(), None);
    let began = pair.now;
    pair.link.loss = 1000;
    pair.run(300 * SECOND, |_| a.readiness().contains(Ready::ERROR));
    // Two minutes are the longest pause.
    assert!((10..=131).contains(&(pair.now - began).as_secs()), "{:?}", pair.now - began);
    assert_eq!(a.take_error(), Some(Error::TimedOut));
}

/// A second probe follows within a third of the user timeout, though the pauses have grown.
#[test]
fn a_window_probe_that_is_lost_ends_no_connection_to_a_peer_that_is_there() {
    for timeout in [3, 10, 40] {
        let keepalive = KeepAlive { on: true, idle: 7200 * SECOND, interval: 75 * SECOND, probes: 9 };
        let user_timeout = Some(timeout * SECOND);
        let mut pair = Pair::new(9);
        let options = TcpOptions { keepalive, user_timeout, ..TcpOptions::default() };
        let (a, _b) = pair.connected_with(true, options);
        fill(&mut pair, &a);
        pair.run_for(600 * SECOND);
        for _ in 0..5 {
            let sent = pair.sent[A];
            pair.link.loss = 1000;
            pair.run(300 * SECOND, |pair| pair.sent[A] > sent);
            pair.link.loss = 0;
            pair.run_for(100 * SECOND);
            assert_eq!(a.take_error(), None, "{timeout}");
        }
    }
}

/// tcp_retries2 and TCP_USER_TIMEOUT of Linux measure unacknowledged data, whatever else arrives.
#[test]
fn a_peer_that_sends_and_acknowledges_nothing_is_given_up_after_the_user_timeout() {
    for timeout in [10, 100] {
        let mut pair = Pair::new(9);
        let options = TcpOptions { user_timeout: Some(timeout * SECOND), ..TcpOptions::default() };
        let (a, b) = pair.connected_with(true, options);
        pair.transfer(A, &a, &b, 1000);
        // Progress restarts the time.
        for _ in 0..5 {
            pair.run_for(timeout * SECOND / 2);
            pair.transfer(A, &a, &b, 1000);
        }
        pair.capture = Some(Vec::new());
        pair.transfer(A, &a, &b, 1000);
        let sent = pair.capture.take().expect("a capture");
        let (_, known) = sent.into_iter().rfind(|(side, _)| *side == B).expect("an acknowledgement");
        pair.link.loss = 1000;
        let began = pair.now;
        a.write(pair.now, b"lost").expect("room");
        pair.kick(A, &a);
        while pair.now - began < 2 * timeout * SECOND && !a.readiness().contains(Ready::ERROR) {
            pair.run_for(SECOND / 2);
            pair.inject(A, &known);
            pair.kick(A, &a);
        }
        let took = pair.now - began;
        assert!(took + SECOND >= timeout * SECOND && took <= (timeout + 1) * SECOND, "{timeout}: {took:?}");
        assert_eq!(a.take_error(), Some(Error::TimedOut));
    }
}

/// No application waits for a closed connection. A peer that takes something now and then still gets
/// everything.
#[test]
fn a_closed_connection_to_a_peer_that_has_no_room_ends_though_the_peer_answers() {
    for reads in [false, true] {
        let mut pair = Pair::new(9);
        let (a, b) = pair.connected();
        fill(&mut pair, &a);
        pair.run_for(1000 * SECOND);
        assert_eq!(a.take_error(), None);
        a.close(pair.now);
        pair.kick(A, &a);
        let began = pair.now;
        let mut room = vec![0; 2 << 20];
        while pair.now - began < 10_000 * SECOND && a.state() != State::Closed {
            pair.run_for(100 * SECOND);
            if reads {
                while b.read(pair.now, &mut room).is_ok_and(|len| len > 0) {}
                pair.kick(B, &b);
                pair.run_for(SECOND);
                if b.read(pair.now, &mut room) == Ok(0) {
                    b.close(pair.now);
                    pair.kick(B, &b);
                }
            }
        }
        assert_eq!(a.state(), State::Closed);
        if reads {
            assert_eq!(a.delivery(), Delivery::Done);
        } else {
            assert_eq!((pair.now - began).as_secs(), 200, "three times the orphan timeout, and a step");
            assert!(matches!(a.delivery(), Delivery::Lost(_)));
            assert_eq!(pair.hosts[A].stack.tcp_memory(), 0);
        }
    }
}

/// The same rule as tcp_fin_timeout of Linux.
#[test]
fn the_time_of_a_closed_connection_in_fin_wait_2_is_not_prolonged_by_the_peer() {
    let mut pair = Pair::new(9);
    let (a, b) = pair.connected();
    pair.run_for(1000 * SECOND);
    pair.capture = Some(Vec::new());
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run_for(SECOND);
    let sent = pair.capture.take().expect("a capture");
    let (_, known) = sent.into_iter().rfind(|(side, _)| *side == B).expect("an acknowledgement");
    assert_eq!((a.state(), b.state()), (State::FinWait2, State::CloseWait));
    for second in 1..=60 {
        assert_eq!(a.state(), State::FinWait2, "{second}");
        pair.inject(A, &known);
        pair.run_for(SECOND);
    }
    assert_eq!(a.state(), State::Closed);
}

/// Writes until the peer has no more room, and returns the time of the last successful write.
fn fill(pair: &mut Pair, flow: &Flow) -> Instant {
    let mut full = pair.now;
    for _ in 0..50 {
        while flow.write(pair.now, &[7; 65_536]).is_ok() {
            pair.kick(A, flow);
            full = pair.now;
        }
        pair.run_for(SECOND / 50);
    }
    full
}
