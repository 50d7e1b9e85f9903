//! Every existing kind of datagram, and inside a session every first byte of a plaintext, from unproven
//! addresses. The parsers provide the list of kinds, so that none can be forgotten.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Announcement, Candidates, Control, MessageType, UnknownSession};
use peersock_overlay::{Contact, Identity};

use crate::attack::{Attack, KEEPALIVE, home};

const SECOND: Duration = Duration::from_secs(1);

/// Returns one of many addresses whose owners never receive anything.
fn victim(number: usize) -> SocketAddr {
    let [.., a, b] = (number as u32).to_be_bytes();
    SocketAddr::from(([203, 0, a, b], 9))
}

/// Returns all kinds that a node processes: it drops datagrams without a type.
fn kinds() -> Vec<MessageType> {
    (0..=255).filter_map(|first: u8| MessageType::of(&[first])).collect()
}

/// Returns datagrams of a kind, as authentic as a member of the network can make them, and many that are not.
fn datagrams(attack: &mut Attack, kind: MessageType) -> Vec<Vec<u8>> {
    let now = attack.net.now;
    let sealed = attack.adversary.seal(&KEEPALIVE).expect("a session");
    let mut all = Vec::new();
    // A new kind needs an arm here with a member's way to make it.
    match kind {
        MessageType::Initiation => {
            all.push(attack.adversary.initiate(now));
            all.push(attack.adversary.initiate_stale(now));
        }
        MessageType::Response => {
            // The target has begun handshakes with the adversary, to which it may answer.
            all.extend(attack.adversary.forge_response(now));
            all.extend(attack.adversary.respond(now));
        }
        MessageType::Data => {
            all.push(sealed.clone());
            let mut unknown = sealed.clone();
            unknown[1] ^= 0x80;
            all.push(unknown);
        }
        MessageType::Beacon => all.push(attack.adversary.beacon()),
        MessageType::Hello => {
            let identity = *attack.adversary.identity();
            all.extend([true, false].map(|wanted| attack.adversary.hello(wanted)));
            all.extend([true, false].map(|wanted| attack.adversary.hello_of(identity, wanted)));
        }
        MessageType::UnknownSession => {
            let mut datagram = Vec::new();
            assert!(UnknownSession::answer(&sealed, &mut datagram));
            all.push(datagram);
        }
        MessageType::Announcement => {
            let mut datagram = Vec::new();
            Announcement { identity: *Identity::from_seed(&[9; 32]).public() }.emit(&mut datagram);
            all.push(datagram);
        }
        // Only nodes that have read the question, or roots, can make these, so here they only have the right
        // length.
        MessageType::CookieReply | MessageType::StaleReply | MessageType::Relayed => {}
    }
    for len in 1..=260 {
        let mut datagram = vec![kind as u8];
        // The target has this session.
        datagram.extend_from_slice(&sealed[1..4]);
        datagram.extend((4..len).map(|at| (at as u8).wrapping_mul(151) ^ len as u8));
        datagram.truncate(len);
        all.push(datagram);
    }
    all
}

/// Returns plaintexts that begin with that byte: of all lengths of messages, and some that parse as one.
fn plaintexts(first: u8) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for len in (1..80).chain([200, 600, 1200]) {
        for filler in [0, 1, 2, 3, 4, 0xff] {
            let mut plaintext = vec![filler; len];
            plaintext[0] = first;
            all.push(plaintext);
        }
    }
    for is_question in [true, false] {
        for of_tcp in [true, false] {
            let contact = Contact::default();
            let message =
                Candidates { of_tcp, is_question, id: 1, round_trip: 5, contact, vouchers: Vec::new() };
            let mut plaintext = Vec::new();
            message.emit(&mut plaintext);
            all.extend((plaintext[0] == first).then_some(plaintext));
        }
    }
    all
}

#[test]
fn no_kind_of_datagram_is_worth_more_than_it_costs_from_an_unproven_address() {
    let mut answered = BTreeSet::new();
    let mut number = 0;
    for kind in kinds() {
        let mut attack = Attack::with_session();
        // Makes the target begin handshakes with the adversary.
        let hello = attack.adversary.hello(false);
        attack.send(home(), &hello);
        attack.run(SECOND);
        for datagram in datagrams(&mut attack, kind) {
            let before = attack.answers();
            // An answer that exceeds the datagram panics.
            attack.send(victim(number), &datagram);
            attack.run(SECOND / 50);
            number += 1;
            if attack.answers() > before {
                answered.insert(kind.to_string());
            }
        }
        attack.run(30 * SECOND);
    }
    let expected = ["data", "hello", "initiation"].map(str::to_owned);
    assert_eq!(answered, BTreeSet::from(expected), "the kinds that are answered");
}

#[test]
fn no_message_inside_a_session_is_worth_more_than_it_costs_from_an_unproven_address() {
    let mut answered = BTreeSet::new();
    let (mut read, mut number) = (BTreeSet::new(), 0);
    for first in 0..=255 {
        let mut attack = Attack::with_session();
        for plaintext in plaintexts(first) {
            if Control::parse(&plaintext).is_ok() || Candidates::parse(&plaintext).is_ok() {
                read.insert(first);
            }
            let before = attack.answers();
            attack.send_sealed(victim(number), &plaintext);
            attack.run(SECOND / 50);
            number += 1;
            if attack.answers() > before {
                answered.insert(first);
            }
            if attack.adversary.sessions() == 0 || attack.path().is_none() {
                // The session was closed, so make another.
                attack = Attack::with_session();
            }
        }
    }
    // 8 is the first byte of messages between nodes and roots.
    let messages: BTreeSet<u8> = (1..=7).chain(9..=11).collect();
    assert_eq!(read, messages, "each message that there is was sent");
    assert!(answered.is_superset(&BTreeSet::from([1, 6])), "those that ask are answered: {answered:?}");
}
