//! Tests that cutting super-segments and joining segments are inverse.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::craft;
use crate::pair::*;
use peersock_stack::*;

/// Returns the super-segments in which a flow sends `data`, each to be cut at `segment`.
fn wire_packets(ipv6: bool, segment: usize, data: &[u8]) -> Vec<Vec<u8>> {
    let mut pair = Pair::new(1);
    pair.link.mtu = segment + if ipv6 { 60 } else { 40 };
    pair.link.latency = Duration::from_micros(10);
    let (a, b) = pair.connected_with(ipv6, TcpOptions { nodelay: true, ..TcpOptions::default() });
    pair.capture = Some(Vec::new());
    let mut written = 0;
    let mut buf = vec![0; data.len()];
    let mut read = 0;
    pair.run(Duration::from_secs(60), |pair| {
        written += a.write(pair.now, &data[written..]).unwrap_or(0);
        pair.kick(A, &a);
        while let Ok(len @ 1..) = b.read(pair.now, &mut buf[read..]) {
            read += len;
            pair.kick(B, &b);
        }
        read == data.len()
    });
    assert_eq!(buf, data);
    let capture = pair.capture.take().unwrap();
    capture.into_iter().filter(|(side, _)| *side == A).map(|(_, packet)| packet).collect()
}

fn header_len(packet: &[u8]) -> usize {
    let ip = if packet[0] >> 4 == 4 { 20 } else { 40 };
    ip + usize::from(packet[ip + 12] >> 4) * 4
}

fn seq(packet: &[u8]) -> u32 {
    let ip = if packet[0] >> 4 == 4 { 20 } else { 40 };
    u32::from_be_bytes([packet[ip + 4], packet[ip + 5], packet[ip + 6], packet[ip + 7]])
}

/// Returns a segment of data to B, in either family, with `words` words of TCP options.
fn segment(ipv6: bool, words: u8, seq: u32, data: &[u8]) -> Vec<u8> {
    const TCP: u8 = 6;
    let offset = (5 + words) << 4;
    let seq = seq.to_be_bytes();
    let header = [&[0, 80, 0, 90], &seq[..], &[0, 0, 0, 9, offset, 0x10, 1, 0, 0, 0, 0, 0]].concat();
    let tcp = [&header, &vec![1; 4 * usize::from(words)][..], data].concat();
    if ipv6 { craft::v6(B, TCP, &tcp) } else { craft::v4(B, &[], 0, 0, TCP, &tcp) }
}

/// Feeds packets through a coalescer, and flushes it after the packets marked in `flush`.
fn coalesce(packets: &[(u64, Vec<u8>)], flush: &[bool]) -> Vec<(u64, Vec<u8>)> {
    let mut coalescer = Coalescer::new();
    let mut out = Vec::new();
    for (at, (key, packet)) in packets.iter().enumerate() {
        coalescer.slot(packet.len()).copy_from_slice(packet);
        if let Some(flushed) = coalescer.commit(*key, packet.len()) {
            out.push((flushed.key, flushed.packet.to_vec()));
        }
        // A slot that is given up, as after a packet that does not decrypt.
        coalescer.slot(at % 100 + 1).fill(0xee);
        if flush.get(at) == Some(&true)
            && let Some(flushed) = coalescer.flush()
        {
            out.push((flushed.key, flushed.packet.to_vec()));
        }
    }
    out.extend(coalescer.flush().map(|flushed| (flushed.key, flushed.packet.to_vec())));
    out
}

proptest! {
    #[test]
    fn wire_packets_carry_the_stream_whatever_the_segment_size(
        ipv6: bool,
        segment in 20usize..2000,
        len in 1usize..6000,
    ) {
        let data: Vec<u8> = (0..len).map(pattern).collect();
        let packets = wire_packets(ipv6, segment, &data);
        let mut stream = Vec::new();
        let mut next = None;
        for packet in packets.iter().filter(|packet| packet.len() > header_len(packet)) {
            prop_assert!(packet.len() - header_len(packet) <= segment);
            prop_assert_eq!(seq(packet), next.unwrap_or(seq(packet)));
            stream.extend_from_slice(&packet[header_len(packet)..]);
            next = Some(seq(packet).wrapping_add((packet.len() - header_len(packet)) as u32));
        }
        prop_assert_eq!(stream, data);
    }

    /// One peer may send both families and options of any length, with consecutive sequence numbers.
    #[test]
    fn segments_of_two_families_or_header_lengths_do_not_join(
        parts in prop::collection::vec((any::<bool>(), prop_oneof![Just(0u8), 0u8..=10], 1usize..60), 1..40),
    ) {
        let (mut seq, mut packets) = (u32::MAX - 500, Vec::new());
        for (ipv6, words, len) in parts {
            let data: Vec<u8> = (0..len).map(|at| pattern(at + seq as usize)).collect();
            packets.push((1, segment(ipv6, words, seq, &data)));
            seq = seq.wrapping_add(len as u32);
        }
        let joined = coalesce(&packets, &[]);
        let kind = |packet: &[u8]| (packet[0] >> 4, header_len(packet));
        let runs = packets.chunk_by(|(_, one), (_, other)| kind(one) == kind(other));
        let expected: Vec<_> = runs
            .map(|run| run.iter().flat_map(|(_, one)| one[header_len(one)..].to_vec()).collect::<Vec<u8>>())
            .collect();
        let payloads: Vec<_> = joined.iter().map(|(_, one)| one[header_len(one)..].to_vec()).collect();
        prop_assert_eq!(payloads, expected);
    }

    /// Joining changes neither the bytes of a stream nor the other packets mixed in.
    #[test]
    fn coalescing_keeps_every_stream(
        ipv6: bool,
        segment in 20usize..1500,
        len in 1usize..20_000,
        keys in prop::collection::vec(0u64..2, 100),
        flush in prop::collection::vec(prop::bool::weighted(0.1), 200),
        junk in prop::collection::vec((0usize..200, prop::collection::vec(any::<u8>(), 0..80)), 0..10),
    ) {
        let data: Vec<u8> = (0..len).map(pattern).collect();
        let mut packets: Vec<(u64, Vec<u8>)> = wire_packets(ipv6, segment, &data)
            .into_iter()
            .zip(keys.iter().cycle())
            .map(|(packet, key)| (*key, packet))
            .collect();
        for (at, bytes) in junk {
            packets.insert(at.min(packets.len()), (9, bytes));
        }
        let joined = coalesce(&packets, &flush);
        prop_assert!(joined.iter().all(|(_, packet)| packet.len() <= MAX_PACKET));
        let payload = |key: u64, packets: &[(u64, Vec<u8>)]| -> Vec<Vec<u8>> {
            let mut streams = vec![Vec::new()];
            for (_, packet) in packets.iter().filter(|(of, _)| *of == key) {
                if key == 9 {
                    streams.push(packet.clone());
                } else {
                    streams[0].extend_from_slice(&packet[header_len(packet)..]);
                }
            }
            streams
        };
        for key in [0, 1, 9] {
            prop_assert_eq!(payload(key, &joined), payload(key, &packets));
        }
    }
}

#[test]
fn a_cut_super_segment_joins_to_the_same_packet() {
    let data: Vec<u8> = (0..50_000).map(pattern).collect();
    for ipv6 in [false, true] {
        let packets: Vec<_> = wire_packets(ipv6, 1388, &data).into_iter().map(|one| (1, one)).collect();
        let joined = coalesce(&packets, &[]);
        assert!(joined.len() * 4 < packets.len(), "{} of {}", joined.len(), packets.len());
        for (_, packet) in &joined {
            let ip_len = if ipv6 { 40 } else { 20 };
            let length = if ipv6 {
                40 + u16::from_be_bytes([packet[4], packet[5]]) as usize
            } else {
                u16::from_be_bytes([packet[2], packet[3]]) as usize
            };
            assert_eq!(length, packet.len());
            assert_eq!(packet[ip_len + 13] & 0x07, 0, "no SYN, FIN or RST");
        }
    }
}

#[test]
fn pure_acknowledgements_other_keys_and_gaps_do_not_join() {
    let data: Vec<u8> = (0..10_000).map(pattern).collect();
    let all = wire_packets(true, 1000, &data);
    let packets: Vec<_> = all.into_iter().filter(|one| one.len() == 1060).collect();
    let joined = |packets: &[(u64, Vec<u8>)]| coalesce(packets, &[]).len();
    assert_eq!(joined(&[(1, packets[0].clone()), (1, packets[1].clone())]), 1);
    assert_eq!(joined(&[(1, packets[0].clone()), (2, packets[1].clone())]), 2);
    assert_eq!(joined(&[(1, packets[0].clone()), (1, packets[2].clone())]), 2);
    assert_eq!(joined(&[(1, packets[1].clone()), (1, packets[0].clone())]), 2);
    let mut ack = packets[0][..60].to_vec();
    ack[4..6].copy_from_slice(&20u16.to_be_bytes());
    assert_eq!(joined(&[(1, ack.clone()), (1, ack.clone()), (1, ack)]), 3);
    let mut fin = packets[1].clone();
    fin[53] |= 1;
    assert_eq!(joined(&[(1, packets[0].clone()), (1, fin)]), 2);
    let mut marked = packets[1].clone();
    marked[1] |= 0x30;
    assert_eq!(joined(&[(1, packets[0].clone()), (1, marked)]), 2, "ECN differs");
}

#[test]
fn a_segment_of_the_other_family_with_the_next_number_does_not_join() {
    let long = segment(true, 0, 100, &[7; 20]);
    let short = segment(false, 0, 120, &[7]);
    assert_eq!(short.len(), 41);
    assert_eq!(coalesce(&[(1, long), (1, short)], &[]).len(), 2);
    let long = segment(false, 10, 100, &[7; 20]);
    let short = segment(true, 0, 120, &[7]);
    assert_eq!(coalesce(&[(1, long), (1, short)], &[]).len(), 2);
}

#[test]
fn the_newest_acknowledgement_window_and_push_win() {
    let data: Vec<u8> = (0..10_000).map(pattern).collect();
    let all = wire_packets(true, 1000, &data);
    let mut packets: Vec<_> = all.into_iter().filter(|one| one.len() == 1060).skip(2).take(3).collect();
    for (at, packet) in packets.iter_mut().enumerate() {
        packet[48..52].copy_from_slice(&(at as u32 + 5).to_be_bytes());
        packet[54..56].copy_from_slice(&(at as u16 + 8).to_be_bytes());
        packet[53] = if at == 1 { 0x18 } else { 0x10 };
    }
    let packets: Vec<_> = packets.into_iter().map(|packet| (1, packet)).collect();
    let joined = coalesce(&packets, &[]);
    assert_eq!(joined.len(), 1);
    let packet = &joined[0].1;
    assert_eq!((&packet[48..52], &packet[54..56]), (&7u32.to_be_bytes()[..], &10u16.to_be_bytes()[..]));
    assert_eq!(packet[53], 0x18);
}

#[test]
fn a_fin_is_on_the_last_piece_only() {
    let mut pair = Pair::new(1);
    let (a, _b) = pair.connected();
    a.write(pair.now, &[1; 2000]).unwrap();
    a.close(pair.now);
    pair.capture = Some(Vec::new());
    pair.kick(A, &a);
    let packets = pair.capture.take().unwrap();
    let flags: Vec<u8> = packets.iter().map(|(_, packet)| packet[53]).collect();
    assert_eq!(flags, [0x10, 0x11]);
}

#[test]
fn a_flow_with_nothing_to_send_leaves_the_buffer_alone() {
    let pair = Pair::new(1);
    let host = &pair.hosts[A];
    let remote = address(B, true, 80);
    let flow = host.stack.tcp_connect(pair.now, host.net, None, remote, TcpOptions::default()).unwrap();
    let limits = Egress { segment: 1000, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };
    let mut short = [0; 1000];
    assert!(flow.egress(pair.now, &limits, &mut short).is_none(), "the buffer is too short");
    let mut buf = vec![0; MAX_PACKET];
    let later: Instant = pair.now + Duration::from_millis(1);
    assert_eq!(flow.egress(later, &limits, &mut buf).map(|packets| packets.packets()), Some(1));
    assert!(flow.egress(later, &limits, &mut buf).is_none());
}
