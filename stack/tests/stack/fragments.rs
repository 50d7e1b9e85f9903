//! Tests of reassembly: fragments give the whole datagram, or nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::craft::*;
use crate::pair::*;
use peersock_stack::*;

fn bind(pair: &Pair, ipv6: bool) -> Arc<UdpSocket> {
    let host = &pair.hosts[B];
    host.stack.udp_bind(Some(host.net), address(B, ipv6, 53), UdpOptions::default()).unwrap()
}

/// Returns the fragments of a datagram to port 53 of B.
fn fragments(ipv6: bool, ident: u16, data: &[u8], size: usize) -> Vec<Vec<u8>> {
    let datagram = udp(9, 53, data);
    let parts = datagram.chunks(size).enumerate();
    parts
        .map(|(index, part)| {
            let (offset, more) = (index * size, (index + 1) * size < datagram.len());
            if ipv6 {
                v6(B, FRAGMENT, &[fragment_header(UDP, ident.into(), offset, more), part.to_vec()].concat())
            } else {
                v4(B, &[], ident, (offset / 8) as u16 | u16::from(more) << 13, UDP, part)
            }
        })
        .collect()
}

#[test]
fn the_largest_datagrams_arrive_in_both_families() {
    for (ipv6, len) in [(false, 65_507), (true, 65_527), (true, 65_507)] {
        let mut pair = Pair::new(1);
        let socket = bind(&pair, ipv6);
        let data: Vec<u8> = (0..len).map(pattern).collect();
        let mut fragments = fragments(ipv6, 1, &data, 1200);
        fragments.reverse();
        for fragment in &fragments {
            pair.inject(B, fragment);
        }
        let mut buf = vec![0; 70_000];
        let received = socket.recv_from(&mut buf).unwrap();
        assert_eq!((received.len, received.source.port()), (len, 9));
        assert_eq!(buf[..len], data);
        assert_eq!(pair.counter(B, "ip_reassembled"), 1);
    }
}

#[test]
fn overlapping_fragments_are_given_up_together() {
    for ipv6 in [false, true] {
        let mut pair = Pair::new(1);
        let socket = bind(&pair, ipv6);
        let data = [7; 3000];
        let cut = fragments(ipv6, 1, &data, 800);
        let other = fragments(ipv6, 1, &[8; 3000], 400);
        for fragment in [&cut[0], &cut[1], &other[1], &cut[2], &cut[3]] {
            pair.inject(B, fragment);
        }
        assert_eq!(socket.recv_from(&mut [0; 10]), Err(Error::WouldBlock));
        assert_eq!(pair.counter(B, "ip_fragments_refused"), 3);
        for fragment in fragments(ipv6, 2, &data, 800) {
            pair.inject(B, &fragment);
        }
        assert_eq!(socket.recv_from(&mut [0; 4000]).unwrap().len, 3000);
    }
}

#[test]
fn a_timeout_is_reported_if_the_first_fragment_came() {
    for (ipv6, seconds, expected) in [(false, 30, [11, 1]), (true, 60, [3, 1])] {
        let mut pair = Pair::new(1);
        let cut = fragments(ipv6, 1, &[7; 3000], 800);
        pair.inject(B, &cut[0]);
        pair.inject(B, &fragments(ipv6, 2, &[7; 3000], 800)[1]);
        pair.capture = Some(Vec::new());
        pair.run_for(Duration::from_secs(seconds - 1));
        assert_eq!(pair.counter(B, "ip_reassembly_timeouts"), 0);
        pair.run_for(Duration::from_secs(2));
        assert_eq!(pair.counter(B, "ip_reassembly_timeouts"), 2);
        let sent = pair.capture.take().unwrap();
        assert_eq!(sent.len(), 1);
        let message = &sent[0].1[if ipv6 { 40 } else { 20 }..];
        assert_eq!(message[..2], expected);
        assert_eq!(message[8..508], cut[0][..500]);
    }
}

#[test]
fn fragments_of_fragments_and_bad_ones_are_refused() {
    let mut pair = Pair::new(1);
    let inner = [fragment_header(UDP, 2, 0, true), udp(9, 53, &[0; 8])].concat();
    pair.inject(B, &v6(B, FRAGMENT, &[fragment_header(FRAGMENT, 1, 0, true), inner.clone()].concat()));
    pair.inject(
        B,
        &v6(B, FRAGMENT, &[fragment_header(FRAGMENT, 1, inner.len(), false), vec![0; 8]].concat()),
    );
    assert_eq!(pair.counter(B, "ip_fragments_refused"), 1);
    pair.inject(B, &v4(B, &[], 1, 0x2000, UDP, &[0; 9]));
    assert_eq!(pair.counter(B, "ip_fragments_refused"), 2);
    // IPv6 reports two faults: a length not a multiple of eight, and an end beyond the largest packet.
    for (offset, more, len, pointer) in [(0, true, 9, 4), (65_528, false, 8, 42)] {
        pair.capture = Some(Vec::new());
        let payload = [fragment_header(UDP, 3, offset, more), vec![0; len]].concat();
        pair.inject(B, &v6(B, FRAGMENT, &payload));
        let sent = pair.capture.take().unwrap();
        assert_eq!(sent[0].1[40..48], [4, 0, 0, 0, 0, 0, 0, pointer]);
    }
}
