//! Tests with arbitrary and damaged packets.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::pair::*;
use peersock_stack::*;

/// A packet, after the side that sent it.
type Sent = (usize, Vec<u8>);

/// A way to damage a packet.
#[derive(Debug, Clone)]
enum Damage {
    Flip {
        at: usize,
        bits: u8,
    },
    Truncate {
        to: usize,
    },
    Extend {
        by: usize,
    },
    /// Overwrites a 16-bit header field.
    Field {
        at: usize,
        value: u16,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0usize..2000, 1u8..).prop_map(|(at, bits)| Damage::Flip { at, bits }),
        (0usize..100).prop_map(|to| Damage::Truncate { to }),
        (1usize..100).prop_map(|by| Damage::Extend { by }),
        (0usize..100, any::<u16>()).prop_map(|(at, value)| Damage::Field { at, value }),
    ]
}

fn apply(packet: &mut Vec<u8>, damage: &Damage) {
    match *damage {
        Damage::Flip { at, bits } => {
            let at = at % packet.len().max(1);
            if let Some(byte) = packet.get_mut(at) {
                *byte ^= bits;
            }
        }
        Damage::Truncate { to } => packet.truncate(to),
        Damage::Extend { by } => packet.resize(packet.len() + by, 0xa5),
        Damage::Field { at, value } => {
            if let Some(field) = packet.get_mut(at..at + 2) {
                field.copy_from_slice(&value.to_be_bytes());
            }
        }
    }
}

/// Returns a pair with sockets of every kind, and packets that they exchange.
fn busy_pair() -> (Pair, Vec<Sent>, Vec<Arc<Flow>>) {
    let mut pair = Pair::with(7, small_buffers(), false);
    pair.capture = Some(Vec::new());
    let (a, b) = pair.connected();
    pair.transfer(A, &a, &b, 10_000);
    pair.listen(B, 80);
    pair.listen(A, 81);
    let closing = pair.connect(A, 80);
    pair.run(Duration::from_secs(1), |_| closing.state() == State::Established);
    closing.shutdown_write(pair.now).unwrap();
    pair.kick(A, &closing);
    let Host { stack, net, .. } = &pair.hosts[A];
    let udp = stack.udp_bind(Some(*net), address(A, true, 53), UdpOptions::default()).unwrap();
    let ping = stack.icmp_open(*net, true).unwrap();
    let mut buf = [0; 200];
    let route = udp.route(Some(address(B, true, 53))).unwrap();
    let len = udp.send(pair.now, &route, &[1; 50], 1280, &mut buf).unwrap();
    let datagram = buf[..len].to_vec();
    let destination = address(B, true, 0).ip();
    let request = EchoRequest { destination, sequence: 1, payload: &[2; 50], hop_limit: 64 };
    let len = ping.send(&request, 1280, &mut buf).unwrap();
    let echo = buf[..len].to_vec();
    pair.transmit(A, datagram);
    pair.transmit(A, echo);
    pair.run_for(Duration::from_millis(20));
    a.write(pair.now, &[3; 100]).unwrap();
    let packets = pair.capture.take().unwrap();
    (pair, packets, vec![a, b, closing])
}

proptest! {
    #[test]
    fn random_bytes_are_dropped_and_counted(packets in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..200), 1..200,
    )) {
        let (mut pair, ..) = busy_pair();
        let before = pair.counter(A, "ip_received");
        for mut packet in packets.clone() {
            pair.inject(A, &packet);
            // The same bytes as a plausible packet for this node.
            if packet.len() > 40 {
                packet[0] = 0x60;
                let len = packet.len() as u16 - 40;
                packet[4..6].copy_from_slice(&len.to_be_bytes());
                packet[6] = [6, 17, 58][usize::from(packet[6]) % 3];
                packet[8] = 0xfd;
                packet[24..40].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a]);
            }
            pair.inject(A, &packet);
        }
        prop_assert_eq!(pair.counter(A, "ip_received") - before, 2 * packets.len() as u64);
        pair.run_for(Duration::from_secs(100));
    }

    /// Damaged copies of real packets do no harm, in any order, to either side.
    #[test]
    fn mutated_packets_do_no_harm(mutations in prop::collection::vec(
        (any::<prop::sample::Index>(), prop::bool::ANY, prop::collection::vec(damage(), 0..4), 0u64..2000),
        1..300,
    )) {
        let (mut pair, packets, flows) = busy_pair();
        for (which, turn, damages, millis) in mutations {
            let (sender, mut packet) = which.get(&packets).clone();
            for damage in &damages {
                apply(&mut packet, damage);
            }
            let to = if turn { sender } else { 1 - sender };
            pair.inject(to, &packet);
            pair.run_for(Duration::from_millis(millis));
            for (side, flow) in [(A, &flows[0]), (B, &flows[1]), (A, &flows[2])] {
                let mut buf = [0; 50];
                let _ = flow.read(pair.now, &mut buf);
                let _ = flow.write(pair.now, &buf);
                pair.kick(side, flow);
            }
        }
    }

    /// Segments with random numbers and flags do no harm to a live connection.
    #[test]
    fn random_segments_for_a_live_connection_do_no_harm(segments in prop::collection::vec(
        (any::<bool>(), -100_000i32..100_000, -100_000i32..100_000, any::<u8>(), any::<u16>(), 0usize..3000),
        1..200,
    )) {
        let (mut pair, packets, flows) = busy_pair();
        let sample: Vec<_> = [A, B]
            .map(|side| packets.iter().rfind(|(from, one)| *from == side && one[6] == 6).unwrap().1.clone())
            .into();
        for (to_a, seq, ack, flags, window, payload) in segments {
            let mut packet = sample[usize::from(to_a)][..60].to_vec();
            for (at, by) in [(44, seq), (48, ack)] {
                let field: [u8; 4] = packet[at..at + 4].try_into().unwrap();
                packet[at..at + 4].copy_from_slice(&(i32::from_be_bytes(field).wrapping_add(by)).to_be_bytes());
            }
            packet[52] = 0x50;
            packet[53] = flags & 0x3f;
            packet[54..56].copy_from_slice(&window.to_be_bytes());
            packet.resize(60 + payload, 7);
            packet[4..6].copy_from_slice(&(20 + payload as u16).to_be_bytes());
            pair.inject(if to_a { A } else { B }, &packet);
            for (side, flow) in [(A, &flows[0]), (B, &flows[1])] {
                let mut buf = [0; 1000];
                let _ = flow.read(pair.now, &mut buf);
                let _ = flow.write(pair.now, &buf);
                pair.kick(side, flow);
            }
        }
        pair.run_for(Duration::from_secs(2000));
    }
}

#[test]
fn what_is_not_for_this_node_is_counted_by_reason() {
    let (mut pair, packets, _) = busy_pair();
    let good = packets.iter().find(|(from, _)| *from == B).unwrap().1.clone();
    let mut check = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        let before = pair.counter(A, name);
        pair.inject(A, &packet);
        assert_eq!(pair.counter(A, name) - before, 1, "{name}");
    };
    check("ip_malformed", &|packet| packet.truncate(30));
    check("ip_malformed", &|packet| packet[0] = 0x10);
    check("ip_malformed", &Vec::clear);
    check("ip_not_local", &|packet| packet[39] ^= 1);
    check("ip_bad_source", &|packet| packet[8] = 0xff);
    check("ip_bad_source", &|packet| packet[8..24].fill(0));
    check("ip_fragments", &|packet| packet[6] = 44);
    check("ip_extension_headers", &|packet| packet[6] = 0);
    check("ip_unknown_protocol", &|packet| packet[6] = 132);
    check("tcp_malformed", &|packet| packet[52] = 0);
    check("tcp_malformed", &|packet| packet[40..42].fill(0));
    check("udp_malformed", &|packet| {
        packet[6] = 17;
        packet[44..46].fill(0xff);
    });
    check("icmp_ignored", &|packet| {
        packet[6] = 58;
        packet[40] = 200;
    });
}

#[test]
fn a_stray_segment_is_answered_with_a_reset_and_a_reset_with_nothing() {
    let mut pair = Pair::new(1);
    let flow = pair.connect(A, 80);
    let mut replies = Vec::new();
    pair.capture = Some(Vec::new());
    pair.run(Duration::from_secs(1), |_| flow.state() == State::Closed);
    replies.extend(pair.capture.take().unwrap());
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].1[53], 0x14, "RST and ACK");
    pair.capture = Some(Vec::new());
    pair.inject(A, &replies[0].1);
    assert_eq!(pair.capture.take().unwrap(), []);
}
