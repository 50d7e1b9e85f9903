//! Tests of connections while TCP's memory is short.

use std::sync::Arc;
use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

/// Returns a pair where B has `tcp_memory` bytes for TCP, and A has the default.
fn pair(tcp_memory: usize) -> Pair {
    let mut pair = Pair::new(1);
    pair.configure(B, Config { tcp_memory, tcp_memory_per_peer: tcp_memory, ..Config::default() });
    pair
}

/// Returns options for a port that already has connections.
fn again() -> TcpOptions {
    TcpOptions { reuse_address: true, ..TcpOptions::default() }
}

/// Returns the memory that B's queues occupy.
fn used(pair: &Pair) -> usize {
    pair.hosts[B].stack.tcp_memory()
}

/// Has A write `bytes` bytes to a connection on which B reads nothing.
fn fill(pair: &mut Pair, bytes: usize) -> (Arc<Flow>, Arc<Flow>) {
    let (a, b) = pair.connected_with(true, again());
    write(pair, A, &a, bytes);
    pair.run_for(SECOND);
    (a, b)
}

fn write(pair: &mut Pair, side: usize, flow: &Flow, bytes: usize) {
    let data: Vec<u8> = (0..bytes).map(pattern).collect();
    assert_eq!(flow.write(pair.now, &data), Ok(bytes));
    pair.kick(side, flow);
}

/// An application that begins to read gets the rest at the rate its 4 KiB and the path allow, even after
/// minutes of vain retransmissions.
#[test]
fn what_was_refused_in_order_comes_as_soon_as_the_application_reads() {
    const TOTAL: usize = 64 << 10;
    let mut pair = pair(64 << 10);
    let hog = fill(&mut pair, 128 << 10);
    assert!(used(&pair) >= 64 << 10, "{} bytes", used(&pair));
    let (a, b) = fill(&mut pair, TOTAL);
    assert!((4096..TOTAL).contains(&b.readable()), "{} bytes", b.readable());
    assert!(pair.counter(B, "tcp_memory_refused") > 0);
    pair.run_for(330 * SECOND);
    let mut read = 0;
    let mut buf = vec![0; TOTAL];
    pair.run(2 * SECOND, |pair| {
        while let Ok(length) = b.read(pair.now, &mut buf) {
            assert!(buf[..length].iter().enumerate().all(|(at, &byte)| byte == pattern(read + at)));
            read += length;
            pair.kick(B, &b);
        }
        read == TOTAL
    });
    assert!(used(&pair) >= 64 << 10, "memory has been short all the time");
    assert_eq!((a.state(), hog.0.state()), (State::Established, State::Established));
    // The window grows again once memory is free.
    while hog.1.read(pair.now, &mut buf).is_ok() {
        pair.kick(B, &hog.1);
        pair.run_for(SECOND / 10);
    }
    let took = pair.transfer(A, &a, &b, 4 * MIB);
    assert!(took < 10 * SECOND, "{took:?}");
}

/// Waiting in-order data does not keep out-of-order data away for ever.
#[test]
fn what_has_come_out_of_order_outlasts_a_window_that_closes() {
    for seed in 1..20 {
        let mut pair = Pair::new(seed);
        let config = Config { tcp_memory: 96 << 10, tcp_memory_per_peer: 96 << 10, ..Config::default() };
        pair.configure(B, config);
        pair.link.loss = 100;
        let flows: Vec<_> = (0..6).map(|_| fill(&mut pair, 64 << 10)).collect();
        pair.run_for(60 * SECOND);
        let mut read = vec![0; flows.len()];
        let mut buf = vec![0; 1 << 20];
        pair.run(120 * SECOND, |pair| {
            for ((_, b), read) in flows.iter().zip(&mut read) {
                while let Ok(length) = b.read(pair.now, &mut buf) {
                    assert!(buf[..length].iter().enumerate().all(|(at, &byte)| byte == pattern(*read + at)));
                    *read += length;
                    pair.kick(B, b);
                }
            }
            read.iter().all(|&read| read == 64 << 10)
        });
    }
}

/// Ends a connection with TIME-WAIT at B, where 1,000 bytes stay unread.
fn close_unread(pair: &mut Pair, a: &Flow, b: &Flow) {
    b.shutdown_write(pair.now).unwrap();
    pair.kick(B, b);
    pair.run_for(SECOND);
    write(pair, A, a, 1000);
    a.close(pair.now);
    pair.kick(A, a);
}

/// As in Linux, TIME-WAIT occupies the addresses and ports; the data remains with the application while it
/// keeps the socket.
#[test]
fn time_wait_ends_though_data_is_left_to_be_read() {
    let mut pair = Pair::new(2);
    let (a, b) = pair.connected();
    b.set_keepalive(KeepAlive::every(SECOND));
    close_unread(&mut pair, &a, &b);
    pair.run(SECOND, |_| b.state() == State::TimeWait);
    assert_eq!((pair.hosts[B].stack.time_waits(), b.readable()), (1, 1000));
    assert_eq!(b.read(pair.now, &mut [0; 400]), Ok(400));
    assert_eq!(b.state(), State::TimeWait);
    pair.run_for(9 * SECOND);
    assert_eq!(b.state(), State::TimeWait);
    pair.run_for(2 * SECOND);
    assert_eq!((b.state(), pair.hosts[B].stack.flows()), (State::Closed, 0));
    assert!(b.readiness().contains(Ready::READABLE | Ready::READ_CLOSED));
    pair.run_for(5000 * SECOND);
    let mut buf = [0; 1000];
    assert_eq!(b.read(pair.now, &mut buf), Ok(600));
    assert!(buf[..600].iter().enumerate().all(|(at, &byte)| byte == pattern(400 + at)));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    assert_eq!(b.take_error(), None);
}

/// Unread data does not keep out a peer that connects anew from the same port.
#[test]
fn a_time_wait_with_data_unread_makes_room_for_a_new_connection() {
    let mut pair = Pair::new(3);
    let listener = pair.listen(B, 80);
    let from = address(A, true, 5000);
    let connect = |pair: &mut Pair| {
        let a = pair.connect_from(A, from, address(B, true, 80), again()).unwrap();
        let mut accepted = None;
        pair.run(5 * SECOND, |pair| {
            accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
            accepted.is_some()
        });
        (a, accepted.unwrap())
    };
    let (a, b) = connect(&mut pair);
    close_unread(&mut pair, &a, &b);
    pair.run_for(SECOND);
    assert_eq!((a.state(), b.state()), (State::Closed, State::TimeWait));
    let (a, new) = connect(&mut pair);
    assert_eq!((b.state(), b.readable()), (State::Closed, 1000));
    pair.transfer(A, &a, &new, 10_000);
    assert_eq!(b.read(pair.now, &mut [0; 2000]), Ok(1000));
    assert_eq!(b.read(pair.now, &mut [0; 2000]), Ok(0));
}

/// Closing a socket in TIME-WAIT with unread data does not end TIME-WAIT. It sends no reset either, which
/// could hit a new connection of the peer.
#[test]
fn closing_with_data_unread_leaves_time_wait_alone() {
    let mut pair = Pair::new(4);
    let (a, b) = pair.connected();
    close_unread(&mut pair, &a, &b);
    pair.run_for(SECOND);
    let sent = pair.sent[B];
    b.close(pair.now);
    pair.kick(B, &b);
    assert_eq!((b.state(), used(&pair), pair.sent[B]), (State::TimeWait, 0, sent));
    pair.run_for(11 * SECOND);
    assert_eq!((b.state(), pair.counter(B, "tcp_resets_sent")), (State::Closed, 0));
}

/// The way a connection of B ends while its data stays unread.
#[derive(Debug, Clone, Copy)]
enum End {
    Reset,
    InOrder,
    TimeWait,
}

/// Ended connections are no way around the limits: their data is given up, too, if memory is short and stays
/// unread for long.
#[test]
fn ended_connections_that_nobody_reads_give_up_their_data_while_memory_is_short() {
    for end in [End::Reset, End::InOrder, End::TimeWait] {
        let mut pair = pair(MIB);
        let mut flows = Vec::new();
        while used(&pair) < MIB / 4 * 3 {
            let (a, b) = pair.connected_with(true, again());
            if matches!(end, End::TimeWait) {
                b.shutdown_write(pair.now).unwrap();
                pair.kick(B, &b);
                pair.run_for(SECOND / 10);
            }
            write(&mut pair, A, &a, 60_000);
            pair.run_for(SECOND / 10);
            a.set_reset_on_close(matches!(end, End::Reset));
            a.close(pair.now);
            pair.kick(A, &a);
            pair.run_for(SECOND / 10);
            if matches!(end, End::InOrder) {
                b.shutdown_write(pair.now).unwrap();
                pair.kick(B, &b);
            }
            flows.push(b);
        }
        pair.run_for(15 * SECOND);
        assert_eq!(pair.hosts[B].stack.flows(), 0, "{end:?}");
        let before = used(&pair);
        pair.run_for(880 * SECOND);
        assert_eq!((used(&pair), pair.counter(B, "tcp_memory_resets")), (before, 0), "{end:?}: not yet");
        pair.run_for(200 * SECOND);
        assert!(used(&pair) < MIB / 4 * 3, "{end:?}: {} bytes", used(&pair));
        let lost = flows.iter().filter(|flow| flow.read(pair.now, &mut [0; 10]) == Err(Error::OutOfMemory));
        let lost = lost.count() as u64;
        assert_eq!(lost, pair.counter(B, "tcp_memory_resets"), "{end:?}");
        assert!((1..4).contains(&lost), "{end:?}: not more than is needed, {lost}");
        let after = used(&pair);
        pair.run_for(2000 * SECOND);
        assert_eq!(used(&pair), after, "{end:?}: memory is not short any more");
    }
}

/// Closed connections whose peer takes nothing hold their queues for minutes, but not while all memory is
/// used up.
#[test]
fn the_oldest_orphans_give_way_when_memory_is_used_up() {
    const EACH: usize = 128 << 10;
    let mut pair = pair(2 * MIB);
    let options = TcpOptions { send_buffer: Some(EACH), ..again() };
    let connect = |pair: &mut Pair| {
        let listener = pair.listen_with(B, 80, 8, options.clone());
        let a = pair.connect(A, 80);
        pair.run(SECOND, |_| listener.readiness().contains(Ready::READABLE));
        let b = listener.accept(pair.now).unwrap();
        listener.close(pair.now);
        (a, b)
    };
    let flows: Vec<_> = (0..16).map(|_| connect(&mut pair).1).collect();
    pair.link.loss = 1000;
    // Below the limit, nothing happens to them.
    for flow in &flows[..12] {
        write(&mut pair, B, flow, EACH);
        flow.close(pair.now);
        pair.kick(B, flow);
        pair.run_for(SECOND);
    }
    pair.run_for(20 * SECOND);
    let states = |range: std::ops::Range<usize>| flows[range].iter().map(|flow| flow.state());
    assert!(states(0..12).all(|state| state == State::FinWait1));
    assert_eq!(pair.counter(B, "tcp_memory_orphans"), 0);
    // Connections that the application has not closed are left alone.
    for flow in &flows[12..] {
        write(&mut pair, B, flow, EACH);
    }
    assert!(used(&pair) >= 2 * MIB, "{} bytes", used(&pair));
    pair.capture = Some(Vec::new());
    pair.run_for(9 * SECOND);
    let gone = states(0..12).take_while(|&state| state == State::Closed).count();
    assert_eq!(gone as u64, pair.counter(B, "tcp_memory_orphans"));
    assert!((1..4).contains(&gone), "no more than is needed: {gone}");
    assert!(states(gone..12).all(|state| state == State::FinWait1), "the youngest stay");
    assert!(states(12..16).all(|state| state == State::Established));
    assert!(used(&pair) < 2 * MIB / 8 * 7 + 4096, "{} bytes", used(&pair));
    let sent = pair.capture.take().unwrap();
    let resets = sent.iter().filter(|(side, packet)| *side == B && packet[53] & 4 != 0);
    assert_eq!(resets.count(), gone, "their peers are told");
    let Delivery::Lost(loss) = flows[0].delivery() else { panic!("nothing is lost") };
    assert_eq!((loss.error, loss.unacked), (Error::OutOfMemory, EACH as u64));
}
