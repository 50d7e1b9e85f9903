//! Datagrams of random bytes.

use peersock_overlay::wire::{
    Beacon, CookieReply, Data, Hello, Initiation, MessageType, Response, StaleReply, UnknownSession,
};

use crate::SCALE;
use crate::siege::Siege;

#[test]
fn noise_is_counted_by_what_it_looks_like() {
    let mut siege = Siege::of_acquainted(2);
    let lengths = [1, 2, 27, 28, 29, 59, 60, 61, 100, 198, 274, 275, 1200, 65_000];
    for _ in 0..40 * SCALE {
        let mut blows = Vec::new();
        for _ in 0..500 {
            let len = match siege.random.below(4) {
                0 => *siege.random.pick(&lengths[..12]),
                1 if siege.random.chance(0.01) => *siege.random.pick(&lengths),
                _ => 1 + siege.random.below(300),
            };
            let mut noise = vec![0; len];
            siege.random.fill(&mut noise);
            if siege.random.chance(0.8) {
                noise[0] = 0xD1 + siege.random.below(7) as u8;
            }
            if len > 1 && siege.random.chance(0.8) {
                noise[1] = 1;
            }
            let verdict = judge(&siege, &noise);
            blows.push((noise, verdict));
        }
        siege.strike_all(1, &blows);
    }
    siege.conclude("noise");
}

/// Returns the verdict expected of node 1 on noise.
fn judge(siege: &Siege, noise: &[u8]) -> &'static str {
    match MessageType::of(noise) {
        None | Some(MessageType::Announcement) => "unknown_message",
        Some(MessageType::Relayed) => "relayed_unknown",
        Some(MessageType::Initiation) if Initiation::parse(noise).is_err() => "handshake_malformed",
        Some(MessageType::Initiation) => "mac1_invalid",
        Some(MessageType::Response) if Response::parse(noise).is_err() => "handshake_malformed",
        Some(MessageType::CookieReply) if CookieReply::parse(noise).is_err() => "handshake_malformed",
        Some(MessageType::StaleReply) if StaleReply::parse(noise).is_err() => "handshake_malformed",
        Some(MessageType::Response | MessageType::CookieReply | MessageType::StaleReply) => {
            "responses_unexpected"
        }
        Some(MessageType::Data) => match Data::parse(noise) {
            Ok(data) if siege.knows(1, data.receiver) => "data_unauthentic",
            _ => "data_unknown_session",
        },
        Some(MessageType::Beacon) if Beacon::parse(noise).is_err() => "discovery_malformed",
        Some(MessageType::Beacon) => "beacons_received",
        Some(MessageType::Hello) if noise.len() != Hello::LEN => "discovery_malformed",
        Some(MessageType::Hello) => "hellos_unknown",
        Some(MessageType::UnknownSession) if noise.len() != UnknownSession::LEN => "unknown_message",
        Some(MessageType::UnknownSession) => "unknown_session_received",
    }
}
