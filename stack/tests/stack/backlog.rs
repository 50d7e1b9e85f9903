//! Tests of backlogs: places, waiting handshakes, and cookies.

use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_backlog_full_of_connections_drops_syns_which_come_again() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 2, TcpOptions::default());
    let mut flows: Vec<_> = (0..2).map(|_| pair.connect(A, 80)).collect();
    pair.run_for(SECOND / 2);
    flows.extend((0..2).map(|_| pair.connect(A, 80)));
    pair.run_for(SECOND / 2);
    let established = |_: &mut Pair| flows.iter().filter(|one| one.state() == State::Established).count();
    assert_eq!(established(&mut pair), 2);
    assert_eq!(pair.counter(B, "tcp_backlog_overflows"), 2);
    listener.accept(pair.now).unwrap();
    listener.accept(pair.now).unwrap();
    pair.run(10 * SECOND, |pair| established(pair) == 4);
    assert_eq!(pair.counter(B, "tcp_cookies_sent"), 0);
}

#[test]
fn who_counts_exactly_has_no_more_connected_than_there_are_places() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
    listener.listen_exactly(2);
    let flows: Vec<_> = (0..6).map(|_| pair.connect(A, 80)).collect();
    let established = || flows.iter().filter(|one| one.state() == State::Established).count();
    pair.run_for(SECOND / 2);
    assert_eq!(established(), 2);
    // Accepted connections keep their places.
    let taken = [(); 2].map(|()| listener.accept_in_place(pair.now).unwrap());
    pair.run_for(10 * SECOND);
    assert_eq!((established(), listener.accept(pair.now).unwrap_err()), (2, Error::WouldBlock));
    listener.free_place(pair.now);
    pair.run(60 * SECOND, |_| established() == 3);
    listener.listen_exactly(4);
    pair.run(60 * SECOND, |_| established() == 5);
    pair.run_for(60 * SECOND);
    assert_eq!((established(), pair.counter(B, "tcp_cookies_sent")), (5, 0));
    drop(taken);
}

/// A server with a small backlog accepts at once. Linux answers handshakes without a place with cookies.
#[test]
fn all_who_connect_at_once_to_a_small_backlog_are_connected_before_a_syn_comes_again() {
    for backlog in 1..=8 {
        let mut pair = Pair::new(1);
        pair.link.latency = SECOND / 40;
        let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
        listener.listen_exactly(backlog + 1);
        let flows: Vec<_> = (0..12).map(|_| pair.connect(A, 80)).collect();
        let mut accepted = Vec::new();
        pair.run(SECOND, |pair| {
            accepted.extend(std::iter::from_fn(|| listener.accept(pair.now).ok()));
            accepted.len() == flows.len()
        });
        assert!(flows.iter().all(|flow| flow.state() == State::Established));
        assert_eq!(flows.iter().map(|flow| flow.info().unwrap().retransmits).sum::<u64>(), 0);
        assert_eq!((pair.counter(B, "tcp_cookies_sent"), pair.counter(B, "tcp_backlog_overflows")), (0, 0));
        let flow = accepted.pop().unwrap();
        let other = flows.iter().find(|other| other.local() == flow.remote()).unwrap();
        pair.transfer(B, &flow, other, 100_000);
    }
}

#[test]
fn those_who_wait_for_a_place_are_few_and_go_when_they_are_not_heard_of_again() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
    listener.listen_exactly(2);
    let flows: Vec<_> = (0..100).map(|_| pair.connect(A, 80)).collect();
    pair.run_for(SECOND / 10);
    // One peer may have half of all waiting handshakes.
    assert_eq!(pair.hosts[B].stack.flows(), 2 + 16);
    assert_eq!(pair.counter(B, "tcp_backlog_overflows"), 82);
    flows.iter().for_each(|flow| flow.fail(pair.now, Error::NetworkDown));
    pair.run_for(3 * SECOND);
    // The connected flows wait to be accepted.
    assert_eq!(pair.hosts[B].stack.flows(), 2);
    drop(listener);
}

#[test]
fn nothing_is_left_of_who_waits_for_a_place_when_its_peer_or_its_listener_goes() {
    for goes in ["the path", "the peer", "the listener"] {
        let mut pair = Pair::new(1);
        let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
        listener.listen_exactly(1);
        let flows = [(); 5].map(|()| pair.connect(A, 80));
        pair.run_for(SECOND / 10);
        assert_eq!(pair.hosts[B].stack.flows(), 5);
        flows.iter().for_each(|flow| flow.fail(pair.now, Error::NetworkDown));
        let Host { stack, net, .. } = &pair.hosts[B];
        let (peer, mut batch) = ([Cidr::from(flows[0].local().ip())], Batch::new());
        match goes {
            "the path" => stack.fail_waiting(pair.now, *net, &peer, Error::NetworkUnreachable, &mut batch),
            "the peer" => stack.lose_peer(pair.now, *net, &peer, Departure::Presumed, |_| true, &mut batch),
            _ => listener.close(pair.now),
        }
        assert!(stack.flows() <= 1, "{goes}: {}", stack.flows());
    }
}

#[test]
fn a_syn_that_is_doubled_waits_once_and_keeps_its_turn() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
    listener.listen_exactly(1);
    pair.capture = Some(Vec::new());
    let [first, second, third] = [(); 3].map(|()| pair.connect(A, 80));
    let syns = pair.capture.take().unwrap();
    [0, 1, 2, 1].into_iter().for_each(|at| pair.inject(B, &syns[at].1));
    for connected in [&first, &second, &third] {
        pair.run(SECOND / 2, |_| listener.readiness() == Ready::READABLE);
        let accepted = listener.accept(pair.now).unwrap();
        assert_eq!(accepted.remote(), connected.local());
    }
}

#[test]
fn who_waits_for_a_place_of_a_listener_that_is_closed_is_refused() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
    listener.listen_exactly(1);
    let flows = [(); 2].map(|()| pair.connect(A, 80));
    pair.run_for(SECOND / 10);
    listener.close(pair.now);
    drop(listener);
    pair.run(5 * SECOND, |_| flows.iter().all(|flow| flow.state() == State::Closed));
    assert_eq!(flows[1].take_error(), Some(Error::ConnectionRefused));
}

#[test]
fn who_counts_exactly_gives_cookies_once_handshakes_have_held_the_places_for_a_second() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
    listener.listen_exactly(2);
    for syn in absent_syns(&mut pair, 2) {
        pair.inject(B, &syn);
    }
    assert_eq!(pair.hosts[B].stack.flows(), 2);
    let flow = pair.connect(A, 80);
    pair.run_for(SECOND / 2);
    assert_eq!((flow.state(), pair.counter(B, "tcp_cookies_sent")), (State::SynSent, 0));
    // The SYN is retransmitted.
    pair.run(5 * SECOND, |_| flow.state() == State::Established);
    assert_eq!(pair.counter(B, "tcp_cookies_sent"), 1);
}

/// Returns SYNs from an unused address: its words are swapped, so the checksum stays right.
fn absent_syns(pair: &mut Pair, count: usize) -> Vec<Vec<u8>> {
    pair.capture = Some(Vec::new());
    let absent: Vec<_> = (0..count).map(|_| pair.connect(A, 80)).collect();
    let mut syns: Vec<_> = pair.capture.take().unwrap().into_iter().map(|(_, syn)| syn).collect();
    absent.iter().for_each(|flow| flow.fail(pair.now, Error::NetworkDown));
    for syn in &mut syns {
        syn.swap(10, 22);
        syn.swap(11, 23);
    }
    syns
}

/// Tests that an attacker who completes one handshake among many does not keep the others' cookies away.
#[test]
fn a_completed_handshake_does_not_make_those_young_that_hold_the_places() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 1, TcpOptions::default());
    listener.listen_exactly(3);
    let syns = absent_syns(&mut pair, 7);
    syns[..2].iter().for_each(|syn| pair.inject(B, syn));
    pair.run_for(SECOND / 2);
    pair.link.latency = SECOND / 40;
    let completed = pair.connect(A, 80);
    pair.run_for(SECOND / 30);
    syns[2..].iter().for_each(|syn| pair.inject(B, syn));
    pair.run(SECOND / 4, |_| completed.state() == State::Established);
    pair.run(SECOND / 4, |pair| listener.accept(pair.now).is_ok());
    // One of the waiting SYNs has its place now.
    pair.run_for(7 * SECOND / 10);
    let other = pair.connect(A, 80);
    pair.run(SECOND / 4, |_| other.state() == State::Established);
    assert_eq!(pair.counter(B, "tcp_cookies_sent"), 1);
}

#[test]
fn a_backlog_full_of_handshakes_answers_with_cookies() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 2, TcpOptions { reuse_address: true, ..TcpOptions::default() });
    // Two handshakes whose SYN-ACKs are lost.
    pair.capture = Some(Vec::new());
    let absent: Vec<_> = (0..2).map(|_| pair.connect(A, 80)).collect();
    let syns = pair.capture.take().unwrap();
    for flow in absent {
        flow.fail(pair.now, Error::NetworkDown);
    }
    pair.link.loss = 1000;
    for (_, syn) in syns {
        pair.inject(B, &syn);
    }
    pair.link.loss = 0;
    let flows: Vec<_> = (0..3).map(|_| pair.connect(A, 80)).collect();
    pair.run(SECOND, |_| flows.iter().all(|flow| flow.state() == State::Established));
    assert_eq!(pair.counter(B, "tcp_cookies_sent"), 3);
    // Two connections fit, the third waits for room.
    let mut accepted = Vec::new();
    for flow in &flows {
        flow.write(pair.now, b"hello").unwrap();
        pair.kick(A, flow);
    }
    pair.run(60 * SECOND, |pair| {
        accepted.extend(listener.accept(pair.now));
        accepted.len() == 3 && accepted.iter().all(|flow| flow.readable() == 5)
    });
    assert_eq!(pair.counter(B, "tcp_cookies_accepted"), 3);
    let sizes: Vec<_> = accepted.iter().map(|flow| flow.info().unwrap().mss).collect();
    assert_eq!(sizes, [1368; 3], "the path's");
    let (a, b) =
        (flows[0].clone(), accepted.iter().find(|b| b.remote() == flows[0].local()).unwrap().clone());
    let mut buf = [0; 10];
    b.read(pair.now, &mut buf).unwrap();
    pair.transfer(B, &b, &a, 1_000_000);
    pair.transfer(A, &a, &b, 1_000_000);
}

#[test]
fn guessed_cookies_make_no_connections() {
    let mut pair = Pair::new(1);
    let _listener = pair.listen(B, 80);
    let mut packet = vec![0; 60];
    packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 6, 64]);
    packet[8..24].copy_from_slice(&"fd00::a".parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet[24..40].copy_from_slice(&"fd00::b".parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet[40..44].copy_from_slice(&[0x80, 0, 0, 80]);
    packet[52..54].copy_from_slice(&[0x50, 0x10]);
    for guess in 0..10_000u32 {
        packet[48..52].copy_from_slice(&guess.wrapping_mul(2_654_435_761).to_be_bytes());
        pair.inject(B, &packet);
    }
    assert_eq!((pair.hosts[B].stack.flows(), pair.counter(B, "tcp_cookies_accepted")), (0, 0));
}

#[test]
fn half_open_handshakes_take_places_until_they_end() {
    let mut pair = Pair::new(1);
    let listener = pair.listen_with(B, 80, 2, TcpOptions::default());
    // SYNs whose senders are gone, so the SYN-ACKs are not acknowledged.
    for _ in 0..2 {
        let flow = pair.connect(A, 80);
        flow.fail(pair.now, Error::NetworkDown);
    }
    pair.link.latency = Duration::from_millis(1);
    pair.run(SECOND, |pair| pair.hosts[B].stack.flows() == 2);
    // A's stack answers the SYN-ACKs with resets, which frees the places.
    pair.run(SECOND, |pair| pair.hosts[B].stack.flows() == 0);
    let flow = pair.connect(A, 80);
    pair.run(SECOND, |_| flow.state() == State::Established);
    drop(listener);
}

#[test]
fn closing_a_listener_resets_what_nobody_accepted() {
    let mut pair = Pair::new(1);
    let listener = pair.listen(B, 80);
    let flow = pair.connect(A, 80);
    pair.run(SECOND, |_| listener.readiness().contains(Ready::READABLE));
    let half_open = pair.connect(A, 80);
    pair.run(SECOND, |pair| pair.hosts[B].stack.flows() == 2);
    listener.close(pair.now);
    pair.run(SECOND, |_| flow.readiness().contains(Ready::ERROR));
    assert_eq!(flow.take_error(), Some(Error::ConnectionReset));
    pair.run(SECOND, |_| half_open.readiness().contains(Ready::ERROR));
    assert_eq!(listener.accept(pair.now).unwrap_err(), Error::Closed);
    assert_eq!(pair.hosts[B].stack.flows(), 0);
    pair.listen(B, 80);
}
