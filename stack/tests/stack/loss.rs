//! Tests of TCP over links that lose, duplicate, reorder and congest.

use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

#[test]
fn every_byte_arrives_over_bad_links() {
    let links = [
        Link { loss: 10, ..Link::default() },
        Link { loss: 100, ..Link::default() },
        Link { reorder: 100, ..Link::default() },
        Link { duplicate: 100, ..Link::default() },
        Link { loss: 30, reorder: 100, duplicate: 30, ..Link::default() },
        Link { buffer: 100_000, latency: Duration::from_millis(20), ..Link::default() },
        Link { loss: 20, mtu: 65_000, ..Link::default() },
    ];
    for (seed, link) in links.into_iter().enumerate() {
        let mut pair = Pair::new(seed as u64);
        pair.link = link;
        let (a, b) = pair.connected();
        let took = pair.transfer(A, &a, &b, 1 << 20);
        pair.transfer(B, &b, &a, 200_000);
        assert!(took < Duration::from_secs(300), "{link:?}: {took:?}");
        a.close(pair.now);
        pair.kick(A, &a);
        b.close(pair.now);
        pair.kick(B, &b);
        pair.run(Duration::from_secs(300), |pair| {
            pair.hosts[A].stack.flows() + pair.hosts[B].stack.flows() == 0
        });
    }
}

#[test]
fn one_lost_segment_costs_no_retransmission_timeout() {
    let mut pair = Pair::new(1);
    pair.link.latency = Duration::from_millis(20);
    let (a, b) = pair.connected();
    pair.transfer(A, &a, &b, 1 << 20);
    let clean = pair.transfer(A, &a, &b, 4 << 20);
    // The first packet of the next flight is lost.
    pair.link.loss = 1000;
    a.write(pair.now, &[pattern(0)]).unwrap();
    pair.kick(A, &a);
    pair.link.loss = 0;
    let mut rest: Vec<u8> = (1..4 << 20).map(pattern).collect();
    let began = pair.now;
    let mut read = 0;
    let mut buf = vec![0; 1 << 20];
    pair.run(Duration::from_secs(10), |pair| {
        if let Ok(len) = a.write(pair.now, &rest) {
            rest.drain(..len);
            pair.kick(A, &a);
        }
        while let Ok(len @ 1..) = b.read(pair.now, &mut buf) {
            read += len;
            pair.kick(B, &b);
        }
        read == 4 << 20
    });
    let lossy = pair.now - began;
    assert!(lossy < clean + Duration::from_millis(500), "{lossy:?}, without loss {clean:?}");
}

#[test]
fn the_in_flight_cap_is_kept() {
    let mut pair = Pair::new(2);
    pair.in_flight_cap = 100_000;
    pair.link.latency = Duration::from_millis(20);
    // The link drops bytes beyond the cap, headers included.
    pair.link.buffer = 110_000;
    let (a, b) = pair.connected();
    let took = pair.transfer(A, &a, &b, 5 << 20);
    assert_eq!(pair.counter(A, "tcp_retransmits"), 0);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_thousand_flows_at_once() {
    let mut pair = Pair::with(3, small_buffers(), false);
    pair.link = Link { loss: 10, reorder: 20, ..Link::default() };
    let listener = pair.listen_with(B, 80, 1000, TcpOptions::default());
    let clients: Vec<_> = (0..1000).map(|_| pair.connect(A, 80)).collect();
    let mut servers = Vec::new();
    for (id, flow) in clients.iter().enumerate() {
        pair.run(Duration::from_secs(60), |_| flow.readiness().contains(Ready::CONNECTED));
        flow.write(pair.now, &(id as u64).to_be_bytes()).unwrap();
        flow.shutdown_write(pair.now).unwrap();
        pair.kick(A, flow);
    }
    let mut sum = 0;
    pair.run(Duration::from_secs(60), |pair| {
        while let Ok(flow) = listener.accept(pair.now) {
            servers.push(flow);
        }
        let mut done = Vec::new();
        servers.retain(|flow| {
            let complete = flow.readable() == 8 && flow.readiness().contains(Ready::READ_CLOSED);
            if complete {
                done.push(flow.clone());
            }
            !complete
        });
        for flow in done {
            let mut id = [0; 8];
            assert_eq!(flow.read(pair.now, &mut id), Ok(8));
            sum += u64::from_be_bytes(id) + 1;
            flow.close(pair.now);
            pair.kick(B, &flow);
        }
        sum == 1000 * 1001 / 2
    });
    for flow in &clients {
        flow.close(pair.now);
        pair.kick(A, flow);
    }
    pair.run(Duration::from_secs(300), |pair| pair.hosts[A].stack.flows() + pair.hosts[B].stack.flows() == 0);
}

#[test]
fn an_expedited_flow_sends_again_what_was_lost_without_its_timer() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    pair.link.loss = 1000;
    assert_eq!(a.write(pair.now, b"lost"), Ok(4));
    pair.kick(A, &a);
    pair.link.loss = 0;
    expedite(&mut pair);
    let mut buf = [0; 8];
    let took = elapsed(&mut pair, |pair| b.read(pair.now, &mut buf) == Ok(4));
    assert!(took < 2 * pair.link.latency, "{took:?}");
    assert_eq!(pair.counter(A, "tcp_retransmits"), 1);
}

#[test]
fn an_expedited_syn_is_sent_again_at_once() {
    let mut pair = Pair::new(1);
    let _listener = pair.listen(B, 80);
    pair.link.loss = 1000;
    let a = pair.connect(A, 80);
    pair.link.loss = 0;
    expedite(&mut pair);
    let took = elapsed(&mut pair, |_| a.readiness().contains(Ready::CONNECTED));
    assert!(took < 3 * pair.link.latency, "{took:?}");
}

#[test]
fn flows_are_revived_only_after_their_timers_have_fired_in_vain() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    pair.link.loss = 1000;
    assert_eq!(a.write(pair.now, b"lost"), Ok(4));
    pair.kick(A, &a);
    assert!(!revive(&mut pair), "its timer has not fired");
    // Thirty seconds cover seven timeouts; the eighth would follow half a minute later.
    pair.run_for(Duration::from_secs(30));
    pair.link.loss = 0;
    assert!(revive(&mut pair));
    let mut buf = [0; 8];
    let took = elapsed(&mut pair, |pair| b.read(pair.now, &mut buf) == Ok(4));
    assert!(took < 2 * pair.link.latency, "{took:?}");
    // The flow then continues as if no outage had happened.
    elapsed(&mut pair, |_| a.unacked() == 0);
    assert!(!revive(&mut pair));
}

/// An outage begins while data and acknowledgements are in flight. Data the peer got before is no sign that
/// the rest is under way or that the timer was too fast (RFC 5682 would conclude that).
#[test]
fn what_the_peer_got_before_an_outage_does_not_delay_the_rest_of_a_revived_flow() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    let data = vec![7; 6000];
    assert_eq!(a.write(pair.now, &data), Ok(6000));
    pair.kick(A, &a);
    pair.link.loss = 1000;
    pair.run_for(2 * pair.link.latency);
    assert_eq!(b.readable(), 6000, "it has arrived, and nobody knows");
    assert_eq!(a.write(pair.now, &data), Ok(6000));
    pair.kick(A, &a);
    // Wait for the first timeout.
    for _ in 0..1000 {
        pair.run_for(Duration::from_millis(5));
        pair.link.loss = 0;
        if revive(&mut pair) {
            break;
        }
        pair.link.loss = 1000;
    }
    assert_eq!(pair.link.loss, 0, "it has timed out");
    let took = elapsed(&mut pair, |_| b.readable() == 12_000);
    assert!(took < 8 * pair.link.latency, "{took:?}");
}

#[test]
fn a_closed_window_is_asked_about_at_once_when_a_flow_is_revived() {
    let mut pair = Pair::with(5, small_buffers(), false);
    let (a, b) = pair.connected();
    let data = vec![7; 1 << 20];
    let mut written = 0;
    pair.run(Duration::from_secs(20), |pair| {
        written += a.write(pair.now, &data).unwrap_or(0);
        pair.kick(A, &a);
        pair.elapsed() > Duration::from_secs(10)
    });
    pair.link.loss = 1000;
    // The window opens, but the update is lost.
    let mut buf = vec![0; 1 << 20];
    let mut read = b.read(pair.now, &mut buf).unwrap();
    pair.kick(B, &b);
    pair.run_for(Duration::from_secs(30));
    pair.link.loss = 0;
    assert!(revive(&mut pair));
    let took = elapsed(&mut pair, |pair| {
        read += b.read(pair.now, &mut buf).unwrap_or(0);
        pair.kick(B, &b);
        read == written
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_syn_is_repeated_at_once_when_its_flow_is_revived() {
    let mut pair = Pair::new(1);
    let _listener = pair.listen(B, 80);
    pair.link.loss = 1000;
    let a = pair.connect(A, 80);
    assert!(!revive(&mut pair));
    pair.run_for(Duration::from_secs(8));
    pair.link.loss = 0;
    assert!(revive(&mut pair));
    let took = elapsed(&mut pair, |_| a.readiness().contains(Ready::CONNECTED));
    assert!(took < 3 * pair.link.latency, "{took:?}");
}

#[test]
fn silence_is_how_long_something_has_waited_in_vain() {
    let mut pair = Pair::new(1);
    let (a, b) = pair.connected();
    pair.transfer(A, &a, &b, 1000);
    elapsed(&mut pair, |pair| a.silence(pair.now).is_none());
    assert_eq!(a.silence(pair.now), None);
    pair.link.loss = 1000;
    a.write(pair.now, b"lost").unwrap();
    pair.kick(A, &a);
    assert_eq!(a.silence(pair.now), Some(Duration::ZERO));
    assert_eq!(a.silence(pair.now + Duration::from_secs(3)), Some(Duration::from_secs(3)));
}

/// When the path returns, the first packet answered by the peer triggers `revive`. Every flow with
/// outstanding data continues within a second, however long the outage was. Its window restarts and at most
/// doubles in each round trip, so the lost data does not flood the path.
#[test]
fn after_an_outage_flows_go_on_within_a_second_and_in_bounded_bursts() {
    const FLOWS: usize = 5;
    let segment = Link::default().mtu;
    for outage in [30, 120].map(Duration::from_secs) {
        for congestion in [CongestionControl::Bbr, CongestionControl::Cubic, CongestionControl::Reno] {
            let what = format!("{congestion:?}, {outage:?}");
            let mut pair = Pair::new(7);
            pair.link.latency = Duration::from_millis(20);
            let round_trip = 2 * pair.link.latency;
            let options = TcpOptions { congestion, ..TcpOptions::default() };
            let listener = pair.listen(B, 80);
            let mut flows = Vec::new();
            for _ in 0..FLOWS {
                let a = pair.connect_with(A, address(B, true, 80), options.clone()).expect("a free port");
                let mut accepted = None;
                pair.run(Duration::from_secs(1), |pair| {
                    accepted = accepted.take().or_else(|| listener.accept(pair.now).ok());
                    accepted.is_some() && a.readiness().contains(Ready::CONNECTED)
                });
                flows.push((a, accepted.expect("it waits for that")));
            }
            // The windows are wide open, and everything sent within them is lost.
            for (a, b) in &flows {
                pair.transfer(A, a, b, 4 << 20);
            }
            pair.link.loss = 1000;
            for (a, _) in &flows {
                let _ = a.write(pair.now, &[7; 1 << 20]);
                pair.kick(A, a);
            }
            let outstanding = flows.iter().map(|(a, _)| a.unacked()).min().expect("there are flows");
            assert!(outstanding > 30 * segment, "{what}: {outstanding} bytes are nothing to speak of");
            pair.run_for(outage);
            pair.link.loss = 0;

            pair.capture = Some(Vec::new());
            let back = pair.now;
            assert!(revive(&mut pair), "{what}: no flow waits");
            let mut first = vec![None; FLOWS];
            let mut before = FIRST_WINDOW;
            let mut buf = vec![0; 1 << 20];
            for round in 0..25 {
                // Segments released by this round's answers count for the next round.
                let end = back + (round + 1) * round_trip - Duration::from_millis(1);
                while pair.now < end && pair.step(end) {
                    for ((_, b), first) in flows.iter().zip(&mut first) {
                        if matches!(b.read(pair.now, &mut buf), Ok(1..)) {
                            first.get_or_insert(pair.now - back);
                            pair.kick(B, b);
                        }
                    }
                }
                pair.now = end;
                let sent = pair.capture.replace(Vec::new()).expect("it was asked for");
                let most = (0..FLOWS).map(|at| segments_of(&sent, flows[at].0.local().port(), segment)).max();
                let most = most.expect("there are flows");
                assert!(most <= 2 * before + 4, "{what}: {most} segments in round {round}, {before} before");
                before = most.max(before);
            }
            for first in first {
                let first = first.unwrap_or_else(|| panic!("{what}: a flow hangs"));
                assert!(first < Duration::from_secs(1), "{what}: {first:?}");
            }
        }
    }
}

/// RFC 6928: the largest initial window in segments, also after a restart (RFC 5681 4.1).
const FIRST_WINDOW: usize = 10;

/// Returns the payload that side A has sent from a port, in segments.
fn segments_of(sent: &[(usize, Vec<u8>)], port: u16, segment: usize) -> usize {
    let of_flow = |(side, packet): &&(usize, Vec<u8>)| *side == A && packet[40..42] == port.to_be_bytes();
    sent.iter().filter(of_flow).map(|(_, packet)| packet.len().saturating_sub(60).div_ceil(segment)).sum()
}

/// Has side A's flows whose timers have fired in vain retransmit; returns false if there are none.
fn revive(pair: &mut Pair) -> bool {
    let mut batch = Batch::new();
    let host = &pair.hosts[A];
    host.stack.revive_flows(host.net, &[address(B, true, 0).ip().into()], &mut batch);
    let any = !batch.flows.is_empty();
    for flow in batch.flows.drain(..) {
        pair.kick(A, &flow);
    }
    any
}

/// Has side A's flows retransmit, and sends their packets.
fn expedite(pair: &mut Pair) {
    let mut batch = Batch::new();
    let host = &pair.hosts[A];
    host.stack.expedite_flows(host.net, &[address(B, true, 0).ip().into()], &mut batch);
    assert_eq!(batch.flows.len(), 1);
    for flow in batch.flows.drain(..) {
        pair.kick(A, &flow);
    }
}

fn elapsed(pair: &mut Pair, until: impl FnMut(&mut Pair) -> bool) -> Duration {
    let began = pair.now;
    pair.run(Duration::from_secs(10), until);
    pair.now - began
}

#[test]
fn a_lost_fin_is_sent_again_whatever_duplicates_come() {
    let mut pair = Pair::new(2);
    let (a, b) = pair.connected();
    pair.capture = Some(Vec::new());
    a.write(pair.now, b"all but the FIN").unwrap();
    pair.kick(A, &a);
    pair.run(Duration::from_secs(1), |_| a.unacked() == 0);
    let capture = pair.capture.take().expect("it was asked for");
    let (_, acknowledgement) = capture.iter().rfind(|(side, _)| *side == B).expect("the acknowledgement");
    pair.link.loss = 1000;
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    pair.link.loss = 0;
    for _ in 0..5 {
        pair.inject(A, acknowledgement);
    }
    pair.run(Duration::from_secs(3), |_| b.readiness().contains(Ready::READ_CLOSED));
}

#[test]
fn a_fin_behind_data_that_is_known_already_counts() {
    let mut pair = Pair::new(3);
    let (a, b) = pair.connected();
    pair.link.loss = 1000;
    pair.capture = Some(Vec::new());
    a.write(pair.now, &[7; 2000]).unwrap();
    a.shutdown_write(pair.now).unwrap();
    pair.kick(A, &a);
    let capture = pair.capture.take().expect("it was asked for");
    let [(_, first), (_, last)] = &capture[..] else { panic!("two segments, not {}", capture.len()) };
    // The FIN arrives first, then the data missing before it, then the FIN's segment again.
    for packet in [last, first, last] {
        pair.inject(B, packet);
    }
    assert_eq!(b.read(pair.now, &mut [0; 3000]), Ok(2000));
    assert_eq!(b.read(pair.now, &mut [0; 3000]), Ok(0));
}

#[test]
fn a_fin_behind_data_that_is_not_acknowledged_yet_counts() {
    let mut pair = Pair::new(3);
    let (a, b) = pair.connected();
    pair.link.loss = 1000;
    pair.capture = Some(Vec::new());
    a.write(pair.now, &[7; 100]).unwrap();
    pair.kick(A, &a);
    a.shutdown_write(pair.now).unwrap();
    pair.run_for(Duration::from_secs(2));
    let capture = pair.capture.take().expect("it was asked for");
    // The data, and its retransmission together with the FIN.
    let (Some((_, first)), Some((_, last))) = (capture.first(), capture.last()) else { panic!("no packets") };
    pair.inject(B, first);
    pair.inject(B, last);
    assert_eq!(b.read(pair.now, &mut [0; 300]), Ok(100));
    assert_eq!(b.read(pair.now, &mut [0; 300]), Ok(0));
}

#[test]
fn data_lost_before_the_window_closed_and_opened_is_sent_again() {
    let mut pair = Pair::new(4);
    let (a, b) = pair.connected();
    pair.link.loss = 1000;
    pair.capture = Some(Vec::new());
    assert_eq!(a.write(pair.now, &[7; 3000]), Ok(3000));
    pair.kick(A, &a);
    let first = pair.capture.take().expect("it was asked for").remove(0).1;
    pair.capture = Some(Vec::new());
    pair.inject(B, &first);
    pair.run_for(Duration::from_millis(20));
    let open = pair.capture.take().expect("it was asked for").pop().expect("an acknowledgement").1;
    let mut closed = open.clone();
    closed[54..56].fill(0);
    pair.inject(A, &closed);
    pair.inject(A, &open);
    assert_eq!(a.unacked(), 3060 - first.len());
    pair.link.loss = 0;
    pair.run(Duration::from_secs(5), |_| b.readable() == 3000);
}

#[test]
fn closed_connections_outlast_the_longest_retransmission_interval() {
    let mut pair = Pair::new(4);
    let (a, b) = pair.connected();
    pair.link.loss = 1000;
    a.write(pair.now, b"not lost").unwrap();
    a.close(pair.now);
    pair.kick(A, &a);
    // After 63 s of silence the next retransmission is a minute away.
    pair.run_for(Duration::from_secs(70));
    pair.link.loss = 0;
    pair.run(Duration::from_secs(60), |_| b.readiness().contains(Ready::READ_CLOSED));
}

#[test]
fn both_directions_recover_from_an_outage_at_once() {
    for seed in 0..60 {
        let mut pair = Pair::with(seed, small_buffers(), false);
        let (a, b) = pair.connected();
        let data: Vec<u8> = (0..80_000).map(pattern).collect();
        let (mut written, mut read) = ([0; 2], [0; 2]);
        let mut buf = vec![0; 100_000];
        let outage = pair.now + Duration::from_millis(20)..pair.now + Duration::from_secs(2);
        pair.run(Duration::from_secs(400), |pair| {
            pair.link.loss = if outage.contains(&pair.now) { 400 } else { 0 };
            for (side, flow) in [(A, &a), (B, &b)] {
                if let Ok(len) = flow.write(pair.now, &data[written[side]..]) {
                    written[side] += len;
                }
                while let Ok(len @ 1..) = flow.read(pair.now, &mut buf) {
                    assert_eq!(buf[..len], data[read[side]..read[side] + len]);
                    read[side] += len;
                }
                pair.kick(side, flow);
            }
            read == [data.len(); 2]
        });
    }
}
