//! Altered handshake messages that arrive before the genuine ones.

use peersock_overlay::noise::{CookieJar, MacWriter};
use peersock_overlay::wire::{CookieReply, Initiation, MessageType, Response, StaleReply};
use peersock_sim::net::{FaultId, LinkId, Stage};

use crate::SCALE;
use crate::lab::{Lab, open_network};
use crate::siege::{Recorded, SECOND, Siege, endpoint, secret_network};

/// Bytes of MAC1 and MAC2.
const MACS: usize = 32;

#[test]
fn altered_initiations_are_noticed_and_the_genuine_one_still_works() {
    let mut siege = strangers_about_to_meet(1);
    let initiation = held_back(&siege, MessageType::Initiation, 1);
    let blows: Vec<_> = alterations(&initiation)
        .into_iter()
        .map(|altered| {
            let verdict = judge(&siege, 1, &altered);
            (altered, verdict)
        })
        .collect();
    assert!(blows.len() > 1500);
    siege.strike_all(1, &blows);
    let_through(&mut siege, 1);
    siege.conclude("altered initiations");
}

#[test]
fn altered_responses_are_noticed_and_the_genuine_one_still_works() {
    let mut siege = strangers_about_to_meet(0);
    let response = held_back(&siege, MessageType::Response, 0);
    let mut altered = alterations(&response);
    // Leave these out. Only an observer of the initiation knows its index, and a forged response costs an
    // operation, so a node tries few.
    altered.retain(|altered| judge(&siege, 0, altered) != "handshake_unauthentic");
    let blows: Vec<_> =
        altered.into_iter().map(|altered| (altered.clone(), judge(&siege, 0, &altered))).collect();
    assert!(blows.len() > 500);
    siege.strike_all(0, &blows);
    let_through(&mut siege, 0);
    siege.conclude("altered responses");
}

#[test]
fn whoever_knows_a_node_s_id_gets_no_further_than_one_key_agreement() {
    let mut siege = strangers_about_to_meet(1);
    let initiation = held_back(&siege, MessageType::Initiation, 1);
    let mut writer = MacWriter::new(&siege.lab.world.machines()[1].node_id());
    for _ in 0..30 * SCALE {
        let mut blows = Vec::new();
        for _ in 0..40 {
            let mut forged = initiation[..initiation.len() - MACS].to_vec();
            // The ephemeral key and the sealed part follow type, version and index.
            let bit = 5 * 8 + siege.random.below((forged.len() - 5) * 8);
            forged[bit / 8] ^= 1 << (bit % 8);
            writer.append(siege.lab.world.instant(), &mut forged);
            blows.push((forged, "handshake_unauthentic"));
        }
        let from = siege.stranger();
        siege.strike(1, from, &blows);
        siege.lab.run(SECOND / 4);
    }
    let_through(&mut siege, 1);
    siege.conclude("forged initiations with a valid MAC1");
}

#[test]
fn initiations_for_others_and_of_other_networks_are_noticed() {
    let mut siege = Siege::of_acquainted(3);
    let recording = siege.recording();
    let initiations: Vec<&Recorded> =
        recording.iter().filter(|r| r.kind() == Some(MessageType::Initiation)).collect();
    for node in 0..3 {
        let foreign = initiations.iter().filter(|recorded| recorded.to != endpoint(node));
        let blows: Vec<_> = foreign.map(|recorded| (recorded.payload.clone(), "mac1_invalid")).collect();
        assert!(!blows.is_empty());
        siege.strike_all(node, &blows);
    }
    siege.conclude("misdirected initiations");
}

/// Makes two nodes that have found each other, with their first handshake under way while nothing reaches
/// `deaf`.
fn strangers_about_to_meet(deaf: usize) -> Siege {
    let mut siege = Siege::new(Lab::new(2, &[open_network(), secret_network()]));
    siege.lab.run(5 * SECOND);
    let link = LinkId::Down(siege.lab.hosts[deaf], siege.lab.lan);
    siege.lab.world.net.link_mut(link).expect("a link").break_with(FaultId(0), Stage::Cut);
    let plan = siege.lab.greeting(0, 1);
    siege.lab.world.converse(plan.into()).expect("a conversation");
    siege.lab.run(SECOND / 10);
    siege
}

/// Returns the message that was sent to the deaf node and has not reached it.
fn held_back(siege: &Siege, kind: MessageType, to: usize) -> Vec<u8> {
    let recording = siege.recording();
    let message = recording.iter().rfind(|r| r.kind() == Some(kind) && r.to == endpoint(to));
    message.expect("it was sent").payload.clone()
}

/// Restores the link, so that the next repetition of the message succeeds.
fn let_through(siege: &mut Siege, deaf: usize) {
    let link = LinkId::Down(siege.lab.hosts[deaf], siege.lab.lan);
    siege.lab.world.net.link_mut(link).expect("a link").repair(FaultId(0));
    let before = siege.lab.world.counters(0)["handshakes_initiated"];
    siege.lab.run(8 * SECOND);
    assert!(siege.lab.world.counters(0)["handshakes_initiated"] > before, "the handshake is done");
}

/// Returns copies with each bit up to MAC2 flipped, cut everywhere, and longer by up to 100 bytes. MAC2 is
/// left out because a node checks it only under load.
fn alterations(message: &[u8]) -> Vec<Vec<u8>> {
    let flips = (0..(message.len() - MACS / 2) * 8).map(|bit| {
        let mut altered = message.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        altered
    });
    let cuts = (1..message.len()).map(|len| message[..len].to_vec());
    let longer = (1..100).map(|extra| [message, &vec![0; extra]].concat());
    flips.chain(cuts).chain(longer).collect()
}

/// Returns the verdict expected of a node on an altered handshake message.
fn judge(siege: &Siege, node: usize, message: &[u8]) -> &'static str {
    let id = siege.lab.world.machines()[node].node_id();
    let jar = CookieJar::new(&id, [0; 32], siege.lab.world.instant());
    let well_formed = match MessageType::of(message) {
        Some(MessageType::Initiation) => Initiation::parse(message).is_ok(),
        Some(MessageType::Response) => match Response::parse(message) {
            Ok(response) if !siege.waits_for(node, response.receiver) => return "responses_unexpected",
            other => other.is_ok(),
        },
        Some(MessageType::CookieReply) if CookieReply::parse(message).is_ok() => {
            return "responses_unexpected";
        }
        Some(MessageType::StaleReply) if StaleReply::parse(message).is_ok() => return "responses_unexpected",
        Some(MessageType::CookieReply | MessageType::StaleReply) => false,
        Some(MessageType::Beacon | MessageType::Hello) => return "discovery_malformed",
        Some(MessageType::Data) => return "data_unknown_session",
        Some(MessageType::Relayed) => return "relayed_unknown",
        Some(MessageType::UnknownSession | MessageType::Announcement) | None => return "unknown_message",
    };
    match (well_formed, jar.check_mac1(message)) {
        (false, _) => "handshake_malformed",
        (true, false) => "mac1_invalid",
        (true, true) => "handshake_unauthentic",
    }
}
