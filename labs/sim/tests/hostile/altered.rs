//! Altered data packets.

use peersock_overlay::wire::{Data, MessageType};
use peersock_overlay::{DATA_HEADER, DATA_OVERHEAD, SessionIndex};

use crate::SCALE;
use crate::siege::Siege;

type Blows = Vec<(Vec<u8>, &'static str)>;

/// The node under attack.
const TARGET: usize = 1;

#[test]
fn every_flipped_bit_is_noticed() {
    let mut siege = Siege::of_acquainted(2);
    for packet in samples(&mut siege, 4 * SCALE) {
        let blows: Blows = (0..packet.len() * 8)
            .map(|bit| {
                let mut altered = packet.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                judged(&siege, altered)
            })
            .collect();
        siege.strike_all(TARGET, &blows);
    }
    siege.conclude("flipped bits");
}

#[test]
fn cut_and_lengthened_packets_are_noticed() {
    let mut siege = Siege::of_acquainted(2);
    for packet in samples(&mut siege, 3 * SCALE) {
        let mut blows: Blows = (1..packet.len()).map(|len| judged(&siege, packet[..len].to_vec())).collect();
        for extra in 1..200 {
            let mut longer = packet.clone();
            longer.resize(packet.len() + extra, siege.random.number() as u8);
            blows.push(judged(&siege, longer));
        }
        siege.strike_all(TARGET, &blows);
    }
    siege.conclude("truncated and extended");
}

#[test]
fn packets_of_other_sessions_and_networks_are_noticed() {
    let mut siege = Siege::of_acquainted(3);
    let packets: Vec<Vec<u8>> =
        (0..3).flat_map(|to| siege.live_data(to)).map(|recorded| recorded.payload).collect();
    let indices: Vec<SessionIndex> = siege.live_data(TARGET).iter().map(|r| index_of(&r.payload)).collect();
    for _ in 0..20 * SCALE {
        let mut blows = Blows::new();
        for _ in 0..500 {
            // A packet of any session of any node, under the index of any session of the target.
            let mut packet = siege.random.pick(&packets).clone();
            let index = *siege.random.pick(&indices);
            if index_of(&packet) != index {
                packet[1..4].copy_from_slice(&index.to_be_bytes());
                blows.push(judged(&siege, packet));
            }
        }
        siege.strike_all(TARGET, &blows);
    }
    siege.conclude("cross-injected");
}

#[test]
fn packets_given_back_to_their_sender_are_noticed() {
    let mut siege = Siege::of_acquainted(2);
    let packets = siege.live_data(0);
    for _ in 0..10 * SCALE {
        let blows: Blows = packets.iter().take(500).map(|r| judged(&siege, r.payload.clone())).collect();
        assert!(blows.len() > 20);
        siege.strike_all(TARGET, &blows);
    }
    siege.conclude("reflected");
}

#[test]
fn spliced_and_overwritten_packets_are_noticed() {
    let mut siege = Siege::of_acquainted(2);
    let packets = samples(&mut siege, 200);
    for _ in 0..60 * SCALE {
        let mut blows = Blows::new();
        while blows.len() < 500 {
            let mut packet = siege.random.pick(&packets).clone();
            let other = siege.random.pick(&packets).clone();
            match siege.random.below(4) {
                // Use the counter of another packet, or a random one.
                0 => packet[4..12].copy_from_slice(&other[4..12]),
                1 => packet[6..12].copy_from_slice(&siege.random.bytes::<6>()),
                // Use the end of another packet.
                2 => {
                    let at = siege.random.below(packet.len().min(other.len()) - DATA_HEADER) + DATA_HEADER;
                    packet.truncate(at);
                    packet.extend_from_slice(&other[at..]);
                }
                _ => {
                    let at = siege.random.below(packet.len() - DATA_HEADER) + DATA_HEADER;
                    let end = packet.len().min(at + 1 + siege.random.below(64));
                    siege.random.fill(&mut packet[at..end]);
                }
            }
            if !packets.contains(&packet) {
                blows.push(judged(&siege, packet));
            }
        }
        siege.strike_all(TARGET, &blows);
    }
    siege.conclude("spliced");
}

/// Returns some data packets for the target, of all sizes and sessions.
fn samples(siege: &mut Siege, count: usize) -> Vec<Vec<u8>> {
    let all = siege.live_data(TARGET);
    assert!(all.len() > 50, "there was traffic");
    (0..count).map(|_| siege.random.pick(&all).payload.clone()).collect()
}

/// Pairs a datagram that no node has sent with the verdict expected of the target.
fn judged(siege: &Siege, datagram: Vec<u8>) -> (Vec<u8>, &'static str) {
    let verdict = match MessageType::of(&datagram) {
        Some(MessageType::Data) if datagram.len() < DATA_OVERHEAD => "data_unknown_session",
        Some(MessageType::Data) => match Data::parse(&datagram) {
            Ok(data) if !siege.knows(TARGET, data.receiver) => "data_unknown_session",
            Ok(data) if data.counter >= 1 << 60 => "data_expired",
            _ => "data_unauthentic",
        },
        // This type is one bit away from that of a data packet.
        Some(MessageType::Beacon) if datagram.len() != 274 => "discovery_malformed",
        Some(MessageType::Hello) if datagram.len() != 198 => "discovery_malformed",
        Some(MessageType::Hello) => "hellos_unknown",
        None => "unknown_message",
        Some(kind) => unreachable!("no data packet turns into {kind:?}"),
    };
    (datagram, verdict)
}

fn index_of(packet: &[u8]) -> SessionIndex {
    Data::parse(packet).expect("a data packet").receiver
}
