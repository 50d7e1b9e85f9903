//! Tests of closing, TIME-WAIT, resets, departed peers, and the loss reports that follow.

use std::sync::Arc;
use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_program_that_ends_in_time_wait_acknowledges_the_last_fin_again() {
    let mut pair = Pair::new(41);
    let (a, b) = pair.connected();
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.state() == State::CloseWait);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.link.loss = 1000;
    pair.run(SECOND, |_| a.state() == State::TimeWait);
    pair.link.loss = 0;
    pair.reset_flows(A);
    assert_eq!(b.state(), State::LastAck, "the first acknowledgement was lost");
    pair.run(SECOND, |_| b.state() == State::Closed);
    assert_eq!(pair.counter(A, "tcp_resets_sent"), 0);
}

#[test]
fn a_reset_after_the_fin_breaks_writing_but_not_reading() {
    let mut pair = Pair::new(43);
    let (a, b) = pair.connected();
    a.write(pair.now, b"last word").unwrap();
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| a.state() == State::FinWait2);
    pair.reset_flows(A);
    pair.run_for(SECOND);
    let mut buf = [0; 100];
    assert_eq!(b.read(pair.now, &mut buf), Ok(9));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    assert_eq!(pair.counter(B, "tcp_resets_received"), 1);
    assert_eq!(b.write(pair.now, b"too late"), Err(Error::BrokenPipe));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
}

/// Returns a connection after both sides have written, `a` has closed and `b` has received all data.
fn delivered(seed: u64) -> (Pair, [Arc<Flow>; 2]) {
    let mut pair = Pair::new(seed);
    let (a, b) = pair.connected();
    let mut buf = [0; 100];
    b.write(pair.now, b"answer").unwrap();
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.readable() > 0);
    assert_eq!(a.read(pair.now, &mut buf), Ok(6));
    a.write(pair.now, b"last word").unwrap();
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run(SECOND, |_| a.state() == State::FinWait2);
    (pair, [a, b])
}

fn loss(flow: &Flow) -> Option<(Error, u64)> {
    match flow.delivery() {
        Delivery::Lost(loss) => Some((loss.error, loss.unacked)),
        _ => None,
    }
}

/// Sends ten bytes to `b`, runs `meanwhile`, has `b` reset the connection, and returns the loss that `a`
/// reports.
fn lost_by_reset(seed: u64, meanwhile: impl FnOnce(&mut Pair, &Flow, &Flow)) -> Option<(Error, u64)> {
    let mut pair = Pair::new(seed);
    let (a, b) = pair.connected();
    a.write(pair.now, b"ten bytes.").unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.readable() == 10);
    meanwhile(&mut pair, &a, &b);
    b.set_reset_on_close(true);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::Closed);
    assert_eq!(a.take_error(), Some(Error::ConnectionReset));
    loss(&a)
}

#[test]
fn a_reset_says_that_everything_was_read() {
    let read = |pair: &Pair, b: &Flow, length: usize| {
        assert_eq!(b.read(pair.now, &mut vec![0; length]), Ok(length));
        b.set_all_read();
    };
    assert_eq!(lost_by_reset(60, |pair, _, b| read(pair, b, 10)), None);
    let reset = Some((Error::ConnectionReset, 0));
    assert_eq!(lost_by_reset(61, |pair, _, b| read(pair, b, 9)), reset);
    let discards = |pair: &mut Pair, _: &Flow, b: &Flow| {
        b.shutdown_read(pair.now).unwrap();
        b.set_all_read();
    };
    assert_eq!(lost_by_reset(62, discards), reset);
    let says_nothing = |pair: &mut Pair, _: &Flow, b: &Flow| {
        assert_eq!(b.read(pair.now, &mut [0; 10]), Ok(10));
    };
    assert_eq!(lost_by_reset(63, says_nothing), reset);
    // Data in flight is not acknowledged by the reset.
    let more = |pair: &mut Pair, a: &Flow, b: &Flow| {
        read(pair, b, 10);
        assert_eq!(a.write(pair.now, b"more"), Ok(4));
    };
    assert_eq!(lost_by_reset(64, more), Some((Error::ConnectionReset, 4)));
}

#[test]
fn a_reset_with_its_text_counts_though_the_window_is_closed() {
    let mut pair = Pair::new(65);
    let (a, b) = pair.connected();
    while b.write(pair.now, &[7; 65_536]).is_ok() {
        pair.kick(B, &b);
        pair.run_for(SECOND / 10);
    }
    pair.run_for(SECOND);
    b.abort(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::Closed);
    assert_eq!(pair.counter(A, "tcp_resets_received"), 1);
}

/// Writes until nothing more fits, and returns the number of bytes.
fn fill(pair: &mut Pair, host: usize, flow: &Flow) -> usize {
    let mut queued = 0;
    while let Ok(len) = flow.write(pair.now, &[7; 65_536]) {
        queued += len;
        pair.kick(host, flow);
        pair.run_for(SECOND / 10);
    }
    queued
}

/// As in Linux, where the queue that nothing reads keeps the window closed.
#[test]
fn the_end_of_two_full_directions_delivers_what_was_written_and_refuses_what_comes_then() {
    let mut pair = Pair::new(66);
    let (a, b) = pair.connected();
    let [written, _] = [(A, &a), (B, &b)].map(|(host, flow)| fill(&mut pair, host, flow));
    pair.run_for(SECOND);
    a.shutdown_write(pair.now).unwrap();
    a.shutdown_read(pair.now).unwrap();
    pair.kick(A, &a);
    let (mut read, mut buf) = (0, vec![0; 65_536]);
    for _ in 0..200 {
        read += b.read(pair.now, &mut buf).unwrap_or(0);
        pair.kick(B, &b);
        pair.run_for(SECOND / 10);
    }
    assert_eq!((read, b.read(pair.now, &mut buf)), (written, Ok(0)));
    assert_eq!((a.state(), b.take_error()), (State::FinWait2, None));
    assert_eq!(a.read(pair.now, &mut buf), Ok(0), "its reads have ended");
    // Unread data makes the close a reset.
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.state() == State::Closed);
    assert_eq!(b.take_error(), Some(Error::BrokenPipe));
}

#[test]
fn a_program_that_ends_after_it_has_closed_resets_nothing() {
    let (mut pair, [_, b]) = delivered(47);
    pair.reset_flows(A);
    pair.lose_peer(B, Departure::Orderly);
    pair.run_for(SECOND);
    let mut buf = [0; 100];
    assert_eq!(b.delivery(), Delivery::Done, "the peer has read what was written");
    assert_eq!(b.read(pair.now, &mut buf), Ok(9));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    assert_eq!(pair.counter(B, "tcp_resets_received"), 0);
    assert_eq!(b.write(pair.now, b"too late"), Err(Error::BrokenPipe));
    assert_eq!(pair.hosts[B].stack.flows(), 0);
}

#[test]
fn an_end_that_nobody_is_left_to_acknowledge_is_no_loss() {
    let (mut pair, [_, b]) = delivered(48);
    b.shutdown_write(pair.now).unwrap();
    assert_eq!(b.state(), State::LastAck);
    pair.lose_peer(B, Departure::Orderly);
    let mut buf = [0; 100];
    assert_eq!((b.state(), b.delivery(), b.take_error()), (State::Closed, Delivery::Done, None));
    assert_eq!(b.read(pair.now, &mut buf), Ok(9));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
}

#[test]
fn a_peer_that_goes_without_a_word_may_have_read_nothing() {
    let (mut pair, [_, b]) = delivered(49);
    pair.lose_peer(B, Departure::Sudden);
    assert_eq!(loss(&b), Some((Error::BrokenPipe, 0)));
    let (mut pair, [_, b]) = delivered(50);
    b.write(pair.now, b"not acknowledged").unwrap();
    pair.lose_peer(B, Departure::Orderly);
    assert_eq!(loss(&b), Some((Error::BrokenPipe, 16)));
}

#[test]
fn a_peer_that_is_gone_ends_its_connections_as_a_reset_would() {
    let mut pair = Pair::new(44);
    let (a, b) = pair.connected();
    a.write(pair.now, b"last words").unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.readable() > 0);
    let attempt = pair.connect(B, 81);
    let sent = pair.sent;
    pair.lose_peer(B, Departure::Sudden);
    assert_eq!(pair.sent, sent, "the peer is told nothing");
    let mut buf = [0; 100];
    assert!(b.readiness().contains(Ready::ERROR));
    assert_eq!(b.read(pair.now, &mut buf), Ok(10));
    assert_eq!(b.read(pair.now, &mut buf), Err(Error::ConnectionReset));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    assert_eq!((attempt.state(), attempt.take_error()), (State::SynSent, None));
}

#[test]
fn a_peer_that_takes_no_packets_any_more_ends_attempts_too() {
    let mut pair = Pair::new(51);
    let (a, _) = pair.connected();
    let attempt = pair.connect(A, 81);
    pair.lose_peer(A, Departure::Barred);
    assert_eq!(a.take_error(), Some(Error::ConnectionReset));
    assert_eq!((attempt.state(), attempt.take_error()), (State::Closed, Some(Error::HostUnreachable)));
}

#[test]
fn a_peer_that_may_be_there_after_all_is_sent_resets() {
    let mut pair = Pair::new(45);
    let (a, b) = pair.connected();
    pair.lose_peer(A, Departure::Presumed);
    assert_eq!(a.take_error(), Some(Error::ConnectionReset));
    pair.run(SECOND, |_| b.readiness().contains(Ready::ERROR));
    assert_eq!(b.take_error(), Some(Error::ConnectionReset));
}

#[test]
fn a_peer_that_is_gone_leaves_no_time_wait() {
    let mut pair = Pair::new(46);
    let (a, b) = pair.connected();
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.state() == State::CloseWait);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::TimeWait);
    pair.lose_peer(A, Departure::Sudden);
    assert_eq!((a.state(), pair.hosts[A].stack.flows()), (State::Closed, 0));
}

/// Each process picks new initial sequence numbers, so half of the SYNs lie behind the numbers of the
/// previous process.
#[test]
fn a_restarted_client_meets_its_old_ports_and_connects_within_a_second() {
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        let listener = pair.listen(B, 80);
        let mut took = Duration::ZERO;
        for restart in 0..4 {
            pair.restart(A, seed * 100 + restart);
            let local = address(A, true, 4000);
            let options = TcpOptions { reuse_address: true, ..TcpOptions::default() };
            let began = pair.now;
            let a = pair.connect_from(A, local, address(B, true, 80), options).unwrap();
            pair.run(20 * SECOND, |_| a.readiness().contains(Ready::CONNECTED));
            took = took.max(pair.now - began);
            let mut accepted = None;
            pair.run(SECOND, |pair| {
                accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
                accepted.is_some()
            });
            let b = accepted.unwrap();
            // Half of the clients end in order, after the server, which then enters TIME-WAIT. The other half
            // vanish.
            if restart % 2 == 0 {
                b.close(pair.now);
                pair.kick(B, &b);
                pair.run(SECOND, |_| a.state() == State::CloseWait);
                a.close(pair.now);
                pair.kick(A, &a);
                pair.run(SECOND, |_| b.state() == State::TimeWait);
            }
        }
        assert!(took <= SECOND, "{took:?}");
    }
}

#[test]
fn a_fin_is_acknowledged_even_if_time_wait_begins_in_the_same_batch() {
    let mut pair = Pair::new(42);
    let (a, b) = pair.connected();
    pair.link.latency = Duration::from_millis(5);
    b.shutdown_write(pair.now).unwrap();
    pair.kick(B, &b);
    pair.run_for(Duration::from_millis(4));
    // A's data now arrives together with its acknowledgement of B's FIN.
    pair.link.latency = Duration::from_millis(6);
    a.write(pair.now, b"last word").unwrap();
    pair.kick(A, &a);
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    pair.link.latency = Duration::from_millis(5);
    pair.skew = Duration::from_micros(10);
    pair.run_for(Duration::from_millis(6));
    assert_eq!((a.state(), b.state()), (State::Closing, State::TimeWait));
    let mut buf = [0; 100];
    assert_eq!(b.read(pair.now, &mut buf), Ok(9));
    b.close(pair.now);
    pair.reset_flows(B);
    pair.run_for(Duration::from_millis(5));
    assert_eq!(a.state(), State::TimeWait);
}

#[test]
fn both_sides_may_close_at_once() {
    let mut pair = Pair::new(4);
    let (a, b) = pair.connected();
    for (side, flow) in [(A, &a), (B, &b)] {
        flow.close(pair.now);
        pair.kick(side, flow);
    }
    pair.run(SECOND, |_| a.state() == State::TimeWait && b.state() == State::TimeWait);
    pair.run_for(11 * SECOND);
    assert_eq!((pair.hosts[A].stack.flows(), pair.hosts[B].stack.flows()), (0, 0));
    assert_eq!(pair.counter(A, "tcp_resets_sent") + pair.counter(B, "tcp_resets_sent"), 0);
}

#[test]
fn close_delivers_what_is_queued() {
    let mut pair = Pair::new(5);
    let large = TcpOptions { send_buffer: Some(4 << 20), ..TcpOptions::default() };
    let (a, b) = pair.connected_with(true, large);
    let data: Vec<u8> = (0..3_000_000).map(pattern).collect();
    assert_eq!(a.write(pair.now, &data), Ok(data.len()));
    a.close(pair.now);
    pair.kick(A, &a);
    let mut read = 0;
    let mut buf = vec![0; 1 << 20];
    pair.run(10 * SECOND, |pair| {
        while let Ok(len) = b.read(pair.now, &mut buf) {
            assert_eq!(buf[..len], data[read..read + len]);
            read += len;
            if len == 0 {
                break;
            }
            pair.kick(B, &b);
        }
        b.readiness().contains(Ready::READ_CLOSED) && read == data.len()
    });
    drop(a);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run_for(11 * SECOND);
    assert_eq!((pair.hosts[A].stack.flows(), pair.hosts[B].stack.flows()), (0, 0));
}

#[test]
fn unread_data_at_close_resets_the_peer() {
    let mut pair = Pair::new(6);
    let (a, b) = pair.connected();
    a.write(pair.now, b"nobody reads this").unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.readable() > 0);
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.readiness().contains(Ready::ERROR));
    assert_eq!(a.write(pair.now, b"x"), Err(Error::ConnectionReset));
    assert_eq!(a.write(pair.now, b"x"), Err(Error::BrokenPipe));
    assert_eq!((pair.hosts[A].stack.flows(), pair.hosts[B].stack.flows()), (0, 0));
}

#[test]
fn data_before_a_reset_can_be_read_then_comes_the_error_then_the_end() {
    let mut pair = Pair::new(7);
    let (a, b) = pair.connected();
    a.write(pair.now, b"last words").unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.readable() > 0);
    a.abort(pair.now);
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.readiness().contains(Ready::ERROR));
    let mut buf = [0; 100];
    assert_eq!(b.read(pair.now, &mut buf), Ok(10));
    assert_eq!(b.read(pair.now, &mut buf), Err(Error::ConnectionReset));
    assert_eq!(b.read(pair.now, &mut buf), Ok(0));
    assert_eq!(a.read(pair.now, &mut buf), Err(Error::ConnectionAborted));
}

#[test]
fn unread_data_survives_time_wait() {
    let mut pair = Pair::new(14);
    let (a, b) = pair.connected();
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    b.write(pair.now, b"read me later").unwrap();
    b.close(pair.now);
    pair.kick(B, &b);
    pair.run_for(60 * SECOND);
    let mut buf = [0; 100];
    assert_eq!(a.read(pair.now, &mut buf), Ok(13));
    assert_eq!(a.read(pair.now, &mut buf), Ok(0));
    a.close(pair.now);
    pair.kick(A, &a);
    pair.run_for(11 * SECOND);
    assert_eq!((pair.hosts[A].stack.flows(), pair.hosts[B].stack.flows()), (0, 0));
}

#[test]
fn time_wait_begins_and_ends_however_late_the_last_data_is_read() {
    for seconds in [0, 2, 8, 30] {
        let mut pair = Pair::new(17);
        let (a, b) = pair.connected();
        a.shutdown_write(pair.now).unwrap();
        pair.kick(A, &a);
        // Long enough for all timers from the connection's beginning to end.
        pair.run_for(30 * SECOND);
        b.write(pair.now, b"read me later").unwrap();
        b.close(pair.now);
        pair.kick(B, &b);
        pair.run(SECOND / 10, |_| b.state() == State::Closed);
        pair.run_for(seconds * SECOND);
        let mut buf = [0; 5];
        for len in [5, 5, 3, 0] {
            assert_eq!(a.read(pair.now, &mut buf), Ok(len), "after {seconds} s");
        }
        a.close(pair.now);
        pair.kick(A, &a);
        pair.run_for(11 * SECOND);
        assert_eq!(pair.hosts[A].stack.flows(), 0, "after {seconds} s");
    }
}

#[test]
fn a_reset_in_time_wait_takes_nothing_from_the_reader() {
    let mut pair = Pair::new(19);
    let (a, b) = pair.connected();
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    pair.run(SECOND, |_| b.state() == State::CloseWait);
    b.write(pair.now, b"the end").unwrap();
    b.close(pair.now);
    pair.capture = Some(Vec::new());
    pair.kick(B, &b);
    pair.run(SECOND, |_| a.state() == State::TimeWait && b.state() == State::Closed);
    // A late acknowledgement makes the other stack reset the connection, because it has forgotten it.
    let capture = pair.capture.take().expect("it was asked for");
    let (_, late) = capture.iter().rfind(|(side, _)| *side == A).expect("an acknowledgement");
    pair.inject(B, late);
    pair.run_for(SECOND);
    assert_eq!(pair.counter(B, "tcp_no_socket"), 1);
    assert_eq!(a.read(pair.now, &mut [0; 10]), Ok(7));
    assert_eq!(a.read(pair.now, &mut [0; 10]), Ok(0));
}

#[test]
fn fail_ends_a_flow_without_a_word() {
    let mut pair = Pair::new(16);
    let flow = pair.connect(A, 80);
    let sent = pair.sent[A];
    flow.fail(pair.now, Error::HostUnreachable);
    pair.kick(A, &flow);
    assert_eq!(pair.sent[A], sent);
    assert_eq!(flow.write(pair.now, b"x"), Err(Error::HostUnreachable));
    assert_eq!(flow.state(), State::Closed);
    assert_eq!(pair.hosts[A].stack.flows(), 0);
}
