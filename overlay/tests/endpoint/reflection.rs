//! A third party whose address a member forges gets no more than the member pays for.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::Control;
use peersock_testnet::Heard;

use crate::attack::{Attack, KEEPALIVE, home, victim};

// Finding 1: a node that has not received the probe cannot answer it.
#[test]
fn a_path_probe_that_was_not_received_cannot_be_answered() {
    let mut attack = Attack::with_session();
    let seen: Vec<u32> = attack
        .net
        .sent
        .iter()
        .filter(|sent| sent.to == home())
        .map(|sent| sent.bytes.clone())
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|bytes| match attack.adversary.hear(&bytes) {
            Heard::Plaintext(plaintext) => match Control::parse(&plaintext) {
                Ok(Control::Probe { id, .. }) => Some(id),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert!(!seen.is_empty(), "the target has probed the path to the adversary");
    for _ in 0..20 {
        attack.send_sealed(victim(), &KEEPALIVE);
        // The next ids after the last that came home, and small ones.
        for guess in (0..64).chain(seen.iter().map(|id| id.wrapping_add(1))) {
            let mut ack = Vec::new();
            Control::ProbeAck { id: guess, size: 35 }.emit(&mut ack);
            attack.send_sealed(victim(), &ack);
        }
        attack.run(Duration::from_secs(1));
        assert_eq!(attack.path(), Some(home()));
    }
}

// Finding 2: one initiation goes to all candidates, so its answer shows that one of them got it, but not
// which.
#[test]
fn a_response_proves_no_address_that_the_initiation_did_not_reach() {
    let mut attack = Attack::new();
    let now = attack.net.now;
    let first = attack.adversary.initiate(now);
    attack.send(home(), &first);
    // A hello pays for a copy of the initiation to the victim; the stale one provokes it.
    let hello = attack.adversary.hello(false);
    attack.send(victim(), &hello);
    let stale = attack.adversary.initiate_stale(now);
    attack.send(home(), &stale);
    let hello = attack.adversary.hello(false);
    attack.send(home(), &hello);
    assert!(attack.heard.contains(&Heard::Initiation), "{:?}", attack.heard);
    let response = attack.adversary.respond(now).expect("an answer");
    attack.send(victim(), &response);
    attack.run(Duration::from_secs(20));
    assert_ne!(attack.path(), Some(victim()));
}

// A packet may be shorter than the probe that would answer it.
#[test]
fn the_shortest_packet_from_elsewhere_buys_no_longer_answer() {
    let mut attack = Attack::with_session();
    for _ in 0..10 {
        attack.send_sealed(victim(), &[]);
        attack.run(Duration::from_secs(1));
    }
    assert_eq!(attack.path(), Some(home()));
}

// A member that has left a proven place cannot direct a stream there by packets from elsewhere.
#[test]
fn a_path_that_is_left_and_answers_nothing_gets_no_stream() {
    let mut attack = Attack::with_session();
    let sent = stream_to(&mut attack, Duration::from_secs(30), false);
    // One second of patience, and twelve in which the path may answer.
    assert!(sent[..5].iter().all(|bytes| *bytes > 50_000), "{sent:?}");
    assert!(sent[14..].iter().all(|bytes| *bytes < 5_000), "{sent:?}");
    assert_eq!(attack.net.counter(0, "paths_unproven"), 1);
}

// A member that is reached at one place and sends from another, where it receives nothing, keeps its
// session.
#[test]
fn a_path_that_answers_is_used_wherever_the_answers_come_from() {
    let mut attack = Attack::with_session();
    let sent = stream_to(&mut attack, Duration::from_secs(30), true);
    assert!(sent.iter().all(|bytes| *bytes > 50_000), "{sent:?}");
    assert_eq!((attack.path(), attack.net.counter(0, "paths_unproven")), (Some(home()), 0));
}

/// Sends a stream from the target to the adversary, whose packets come from elsewhere. Returns the bytes that
/// went home in each second. With `answers` the adversary receives at home, and answers the target's
/// challenges to that place.
fn stream_to(attack: &mut Attack, time: Duration, answers: bool) -> Vec<usize> {
    let elsewhere = SocketAddr::from(([192, 0, 2, 77], 7777));
    let network = attack.net.nodes[0].endpoint.networks()[0].index;
    let to = attack.net.nodes[0].endpoint.networks()[0].id.address_of(attack.adversary.id()).into();
    (0..time.as_secs())
        .map(|_| {
            let before = attack.net.sent.len();
            for _ in 0..100 {
                attack.net.send_to(0, network, to, &[7; 1000]);
                let heard = attack.heard.len();
                attack.run(Duration::from_millis(10));
                // An acknowledgement, for example.
                attack.send_sealed(elsewhere, &[0x60; 40]);
                let challenges: Vec<_> = attack.heard[heard..].iter().filter_map(challenge).collect();
                for data in challenges.into_iter().filter(|_| answers) {
                    let mut answer = Vec::new();
                    Control::Answer { data }.emit(&mut answer);
                    attack.send_sealed(elsewhere, &answer);
                }
            }
            let went = attack.net.sent[before..].iter().filter(|sent| sent.to == home());
            went.map(|sent| sent.bytes.len()).sum()
        })
        .collect()
}

fn challenge(heard: &Heard) -> Option<[u8; 8]> {
    match heard {
        Heard::Plaintext(plaintext) => match Control::parse(plaintext) {
            Ok(Control::Challenge { data, .. }) => Some(data),
            _ => None,
        },
        _ => None,
    }
}
