//! Tests of TCP between two stacks over a good link.

use std::io::IoSlice;
use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn bulk_arrives_exactly_in_both_families_and_uses_large_segments() {
    for ipv6 in [false, true] {
        let mut pair = Pair::new(1);
        let (a, b) = pair.connected_with(ipv6, TcpOptions::default());
        let (sent_before, received_before) = (pair.sent[A], pair.counter(B, "ip_received"));
        let total = 20 << 20;
        let took = pair.transfer(A, &a, &b, total);
        assert!(took < 2 * SECOND, "{took:?}");
        let packets = pair.sent[A] - sent_before;
        let least = total / (pair.link.mtu - if ipv6 { 60 } else { 40 });
        assert!(packets < least * 21 / 20, "{packets} packets, {least} would do");
        let received = pair.counter(B, "ip_received") - received_before;
        assert!(received < packets as u64 / 15, "{received} super-segments of {packets}");
        assert_eq!(pair.counter(A, "tcp_retransmits"), 0);
    }
}

#[test]
fn checksummed_transfer_is_accepted_by_a_verifying_stack() {
    for ipv6 in [false, true] {
        let mut pair = Pair::with(1, Config::default(), true);
        let (a, b) = pair.connected_with(ipv6, TcpOptions::default());
        pair.transfer(A, &a, &b, 1 << 20);
        assert_eq!(pair.counter(A, "ip_checksum_errors") + pair.counter(B, "ip_checksum_errors"), 0);
    }
}

#[test]
fn syn_announces_what_a_node_takes_in_whatever_the_path_carries() {
    let mut pair = Pair::new(1);
    pair.capture = Some(Vec::new());
    pair.connected();
    let capture = pair.capture.take().unwrap();
    let mss: Vec<u16> = capture
        .iter()
        .filter(|(_, packet)| packet[40 + 13] & 2 != 0)
        .map(|(_, packet)| {
            assert_eq!(packet[60..62], [2, 4]);
            u16::from_be_bytes([packet[62], packet[63]])
        })
        .collect();
    assert_eq!(mss, [65475, 65475], "SYN and SYN-ACK");
}

#[test]
fn a_path_that_grows_after_the_handshake_is_used() {
    let mut pair = Pair::new(1);
    pair.link.mtu = 1172;
    let (a, b) = pair.connected();
    pair.link.mtu = 1428;
    let before = pair.sent[A];
    let total = 4 << 20;
    pair.transfer(A, &a, &b, total);
    let packets = pair.sent[A] - before;
    assert!(packets < total / 1368 * 21 / 20, "{packets} packets of the old size");
}

#[test]
fn tiny_writes_arrive_and_nagle_joins_them_unless_told_not_to() {
    let packets = |nodelay| {
        let mut pair = Pair::new(2);
        let (a, b) = pair.connected_with(true, TcpOptions { nodelay, ..TcpOptions::default() });
        let before = pair.sent[A];
        for at in 0..200 {
            assert_eq!(a.write(pair.now, &[pattern(at)]), Ok(1));
            pair.kick(A, &a);
        }
        let mut read = Vec::new();
        pair.run(SECOND, |pair| {
            let mut buf = [0; 300];
            if let Ok(len) = b.read(pair.now, &mut buf) {
                read.extend_from_slice(&buf[..len]);
            }
            read.len() == 200
        });
        assert_eq!(read, (0..200).map(pattern).collect::<Vec<_>>());
        pair.sent[A] - before
    };
    assert_eq!(packets(false), 2, "one byte, then the rest");
    assert_eq!(packets(true), 200);
}

#[test]
fn buffers_that_are_written_together_leave_in_one_packet_and_no_more_is_taken_than_fits() {
    let mut pair = Pair::new(2);
    let (a, b) = pair.connected();
    let before = pair.sent[A];
    let pieces = [&b"head"[..], b"", b" and body"].map(IoSlice::new);
    assert_eq!(a.write_vectored(pair.now, &pieces), Ok(13));
    assert_eq!(a.write_vectored(pair.now, &[IoSlice::new(b""); 2]), Ok(0));
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.readable() == 13);
    assert_eq!(pair.sent[A] - before, 1);
    let mut buf = [0; 100];
    assert_eq!(b.read(pair.now, &mut buf), Ok(13));
    assert_eq!(&buf[..13], b"head and body");
    // The write stops at the first piece that does not fit; no later piece takes its place.
    let (large, small) = (vec![1; 1 << 20], [2; 1]);
    let pieces: Vec<_> = (0..64).flat_map(|_| [IoSlice::new(&large), IoSlice::new(&small)]).collect();
    let fits = a.write_vectored(pair.now, &pieces).unwrap();
    assert!(fits < 64 << 20, "{fits}");
    assert_eq!(a.write_vectored(pair.now, &pieces), Err(Error::WouldBlock));
    a.shutdown_write(pair.now).unwrap();
    assert_eq!(a.write_vectored(pair.now, &pieces), Err(Error::BrokenPipe));
}

#[test]
fn half_close_lets_the_other_direction_go_on() {
    let mut pair = Pair::new(3);
    let (a, b) = pair.connected();
    a.write(pair.now, b"request").unwrap();
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    assert_eq!(a.write(pair.now, b"more"), Err(Error::BrokenPipe));
    pair.run(SECOND, |_| b.readiness().contains(Ready::READ_CLOSED));
    let mut buf = [0; 100];
    assert_eq!(b.read(pair.now, &mut buf), Ok(7));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    pair.run(SECOND, |_| a.state() == State::FinWait2);
    assert_eq!(b.state(), State::CloseWait);
    pair.transfer(B, &b, &a, 300_000);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::TimeWait && b.state() == State::Closed);
    assert_eq!(a.read(pair.now, &mut buf), Ok(0));
    assert_eq!(a.take_error(), None);
    a.close(pair.now);
    pair.run_for(11 * SECOND);
    assert_eq!((pair.hosts[A].stack.flows(), pair.hosts[B].stack.flows()), (0, 0));
}

#[test]
fn nobody_listening_refuses_and_silence_times_out() {
    let mut pair = Pair::new(8);
    let flow = pair.connect(A, 80);
    let mut buf = [0; 10];
    assert_eq!(flow.read(pair.now, &mut buf), Err(Error::WouldBlock));
    assert_eq!(flow.write(pair.now, b"x"), Err(Error::WouldBlock));
    pair.run(SECOND, |_| flow.readiness().contains(Ready::ERROR));
    assert_eq!(flow.take_error(), Some(Error::ConnectionRefused));
    assert_eq!(flow.take_error(), None);

    pair.link.loss = 1000;
    let flow = pair.connect(A, 80);
    let began = pair.now;
    pair.run(200 * SECOND, |_| flow.readiness().contains(Ready::ERROR));
    assert_eq!(flow.take_error(), Some(Error::TimedOut));
    assert_eq!((pair.now - began).as_secs(), 127);
    assert_eq!((pair.counter(A, "tcp_refused"), pair.counter(A, "tcp_timeouts")), (1, 1));
    assert_eq!(pair.hosts[A].stack.flows(), 0);
}

#[test]
fn a_peer_that_vanishes_is_given_up_after_the_user_timeout() {
    let mut pair = Pair::new(9);
    let options = TcpOptions { user_timeout: Some(30 * SECOND), ..TcpOptions::default() };
    let (a, _b) = pair.connected_with(true, options);
    pair.run_for(3600 * SECOND);
    assert_eq!(a.state(), State::Established, "idle connections live on");
    pair.link.loss = 1000;
    a.write(pair.now, b"hello?").unwrap();
    pair.kick(A, &a);
    let began = pair.now;
    pair.run(200 * SECOND, |_| a.readiness().contains(Ready::ERROR));
    assert_eq!((pair.now - began).as_secs(), 30);
    assert_eq!(a.take_error(), Some(Error::TimedOut));
}

#[test]
fn a_user_timeout_ends_a_connection_attempt() {
    // As in Linux, the first SYN has its second in any case.
    for (user_timeout, seconds) in [(SECOND * 3 / 10, 1), (5 * SECOND, 5), (300 * SECOND, 127)] {
        let mut pair = Pair::new(9);
        pair.link.loss = 1000;
        let flow = pair.connect(A, 80);
        flow.set_user_timeout(Some(user_timeout));
        pair.kick(A, &flow);
        let began = pair.now;
        pair.run(200 * SECOND, |_| flow.readiness().contains(Ready::ERROR));
        assert_eq!((pair.now - began).as_secs(), seconds);
        assert_eq!(flow.take_error(), Some(Error::TimedOut));
    }
}

#[test]
fn keepalive_finds_a_dead_peer_and_leaves_a_live_one() {
    let mut pair = Pair::new(9);
    let options = TcpOptions { keepalive: Some(10 * SECOND).into(), ..TcpOptions::default() };
    let (a, b) = pair.connected_with(true, options);
    pair.run_for(600 * SECOND);
    assert_eq!((a.state(), b.state()), (State::Established, State::Established));
    assert!(b.readable() == 0);
    pair.link.loss = 1000;
    let began = pair.now;
    pair.run(200 * SECOND, |_| a.readiness().contains(Ready::ERROR));
    assert!((80..=95).contains(&(pair.now - began).as_secs()));
    assert_eq!(a.take_error(), Some(Error::TimedOut));
}

#[test]
fn a_keepalive_interval_of_nothing_lets_time_pass() {
    let mut pair = Pair::new(9);
    let (a, _b) = pair.connected();
    for interval in [Duration::ZERO, Duration::from_nanos(1)] {
        a.set_keepalive(Some(interval));
        pair.kick(A, &a);
        pair.kick(A, &a);
        assert!(!a.has_output(pair.now));
    }
}

#[test]
fn the_user_timeout_can_be_set_and_reset() {
    for (timeout, seconds) in [(Some(30 * SECOND), 29..=31), (None, 900..=930)] {
        let mut pair = Pair::new(9);
        let (a, _b) = pair.connected();
        a.set_user_timeout(Some(10 * SECOND));
        a.set_user_timeout(timeout);
        pair.link.loss = 1000;
        a.write(pair.now, b"lost").expect("connected");
        pair.kick(A, &a);
        let began = pair.now;
        pair.run(1000 * SECOND, |_| a.readiness().contains(Ready::ERROR));
        assert!(seconds.contains(&(pair.now - began).as_secs()), "{:?}", pair.now - began);
        assert_eq!(a.take_error(), Some(Error::TimedOut));
    }
}

#[test]
fn a_closed_window_stops_the_sender_and_reading_starts_it_again() {
    let mut pair = Pair::with(10, small_buffers(), false);
    let (a, b) = pair.connected();
    let data: Vec<u8> = (0..500_000).map(pattern).collect();
    let mut written = 0;
    let mut offer = |pair: &mut Pair| {
        while let Ok(len) = a.write(pair.now, &data[written..]) {
            written += len;
            pair.kick(A, &a);
            if len == 0 {
                break;
            }
        }
    };
    let stop = pair.now + 100 * SECOND;
    pair.run(200 * SECOND, |pair| {
        offer(pair);
        pair.now >= stop
    });
    assert_eq!(b.readable(), 64 << 10, "the receive buffer is full");
    assert!(!a.readiness().contains(Ready::WRITABLE));
    assert_eq!(a.state(), State::Established, "a zero window is no reason to give up");
    let mut read = 0;
    let mut buf = [0; 1000];
    pair.run(60 * SECOND, |pair| {
        offer(pair);
        while let Ok(len @ 1..) = b.read(pair.now, &mut buf) {
            assert_eq!(buf[..len], data[read..read + len]);
            read += len;
            pair.kick(B, &b);
        }
        read == data.len()
    });
}

#[test]
fn writable_comes_back_when_a_quarter_is_free() {
    let mut pair = Pair::with(11, small_buffers(), false);
    let (a, b) = pair.connected();
    while a.write(pair.now, &[0; 10_000]).is_ok() {}
    pair.kick(A, &a);
    assert!(!a.readiness().contains(Ready::WRITABLE));
    let mut buf = [0; 2000];
    pair.run(60 * SECOND, |pair| {
        if b.read(pair.now, &mut buf).is_ok() {
            pair.kick(B, &b);
        }
        let free = (64 << 10) - a.unacked();
        assert_eq!(a.readiness().contains(Ready::WRITABLE), free >= 16 << 10, "{free} free");
        a.unacked() == 0
    });
}

#[test]
fn the_path_mtu_may_change_during_a_connection() {
    let mut pair = Pair::new(12);
    let (a, b) = pair.connected();
    for mtu in [1428, 1180, 8000, 1428, 65_000, 1180] {
        pair.link.mtu = mtu;
        pair.transfer(A, &a, &b, 1 << 20);
    }
}

#[test]
fn peek_leaves_the_data_and_shutdown_read_ends_it() {
    let mut pair = Pair::new(13);
    let (a, b) = pair.connected();
    a.write(pair.now, b"hello").unwrap();
    pair.kick(A, &a);
    let mut buf = [0; 10];
    assert_eq!(b.peek(pair.now, &mut buf), Err(Error::WouldBlock));
    pair.run(SECOND, |_| b.readable() == 5);
    assert_eq!(b.peek(pair.now, &mut buf[..2]), Ok(2));
    assert_eq!(b.peek(pair.now, &mut buf), Ok(5));
    b.shutdown_read(pair.now).unwrap();
    pair.kick(B, &b);
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    // A closed reading side does not stop the sender.
    let mut written = 0;
    pair.run(60 * SECOND, |pair| {
        if let Ok(len) = a.write(pair.now, &[0; 100_000]) {
            written += len;
            pair.kick(A, &a);
        }
        written > 20 << 20
    });
    assert_eq!(b.readable(), 0);
}

#[test]
fn an_attempt_whose_syn_cannot_leave_times_out_too() {
    let pair = Pair::new(20);
    let Host { stack, net, .. } = &pair.hosts[A];
    let flow = stack.tcp_connect(pair.now, *net, None, address(B, true, 80), TcpOptions::default()).unwrap();
    let mut batch = Batch::new();
    let mut calls = 0;
    while let Some(at) = stack.poll_timeout() {
        // The driver has no path to the peer, so it calls no egress.
        stack.handle_timeout(at.max(pair.now), &mut batch);
        batch.clear();
        calls += 1;
        assert!(calls < 1000 && at < pair.now + 130 * SECOND);
    }
    assert_eq!(flow.take_error(), Some(Error::TimedOut));
    assert_eq!(stack.flows(), 0);
}

#[test]
fn a_slow_reader_gets_everything_from_a_peer_that_closed_last() {
    for seed in 0..100 {
        let mut pair = Pair::with(seed, Config { receive_buffer: 64 << 10, ..Config::default() }, false);
        let (a, b) = pair.connected();
        a.shutdown_write(pair.now).unwrap();
        pair.kick(A, &a);
        pair.run(SECOND, |_| b.state() == State::CloseWait);
        pair.link.loss = 80;
        let data: Vec<u8> = (0..150_000).map(pattern).collect();
        assert_eq!(b.write(pair.now, &data), Ok(data.len()));
        b.close(pair.now);
        pair.kick(B, &b);
        let mut read = 0;
        let mut buf = [0; 10_000];
        while read < data.len() {
            pair.run_for(Duration::from_millis(50));
            if let Ok(len) = a.read(pair.now, &mut buf) {
                assert_eq!(buf[..len], data[read..read + len]);
                read += len;
                pair.kick(A, &a);
            }
            assert!(pair.elapsed() < 60 * SECOND, "seed {seed}: {read} bytes, {a:?}, {b:?}");
        }
    }
}

#[test]
fn an_acknowledgement_of_little_data_waits_for_an_answer_to_ride_on() {
    let mut pair = Pair::new(15);
    let (a, b) = pair.connected();
    let mut before = pair.sent;
    let mut buf = [0; 100];
    for round in 0..52 {
        if round == 2 {
            // The first segments are acknowledged at once, because it is unknown whether an answer follows.
            pair.run_for(SECOND);
            before = pair.sent;
        }
        a.write(pair.now, b"ping").unwrap();
        pair.kick(A, &a);
        pair.run(SECOND, |_| b.readable() > 0);
        b.read(pair.now, &mut buf).unwrap();
        b.write(pair.now, b"pong").unwrap();
        pair.kick(B, &b);
        pair.run(SECOND, |_| a.readable() > 0);
        a.read(pair.now, &mut buf).unwrap();
    }
    assert_eq!([pair.sent[A] - before[A], pair.sent[B] - before[B]], [50, 50], "no pure ACK");
    pair.run_for(Duration::from_millis(45));
    assert_eq!(pair.sent[A] - before[A], 51, "the last one is acknowledged in time");
}

#[test]
fn data_where_it_lies_ends_at_the_mark() {
    let mut pair = Pair::new(11);
    let (a, b) = pair.connected();
    for (data, urgent) in [(&b"abc"[..], false), (b"de", true), (b"f", false)] {
        let written = if urgent { a.write_urgent(pair.now, data) } else { a.write(pair.now, data) };
        assert_eq!(written, Ok(data.len()));
        pair.kick(A, &a);
    }
    pair.run(SECOND, |_| b.readable() == 6);
    let mut taken = Vec::new();
    for (length, urgent) in [(4, true), (2, false)] {
        let take = |pieces: &[&[u8]]| {
            taken.extend_from_slice(&pieces.concat());
            pieces.concat().len()
        };
        assert_eq!(b.read_with(pair.now, take), Ok(length));
        assert_eq!((b.is_at_mark(), b.readiness().contains(Ready::URGENT)), (urgent, urgent));
    }
    assert_eq!(taken, b"abcdef");
}
