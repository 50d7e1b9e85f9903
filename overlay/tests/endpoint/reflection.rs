//! A third party whose address a member forges gets no more than the member pays for.

use std::time::Duration;

use peersock_overlay::wire::Control;

use crate::attack::{Attack, KEEPALIVE, home, victim};

/// Finding 1: who has not received the probe cannot answer it.
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
            peersock_testnet::Heard::Plaintext(plaintext) => match Control::parse(&plaintext) {
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

/// Finding 2: one initiation goes to all candidates, so its answer shows that one of them got it, and not
/// which.
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
    assert!(attack.heard.contains(&peersock_testnet::Heard::Initiation), "{:?}", attack.heard);
    let response = attack.adversary.respond(now).expect("an answer");
    attack.send(victim(), &response);
    attack.run(Duration::from_secs(20));
    assert_ne!(attack.path(), Some(victim()));
}

/// A packet may be shorter than the probe that would answer it.
#[test]
fn the_shortest_packet_from_elsewhere_buys_no_longer_answer() {
    let mut attack = Attack::with_session();
    for _ in 0..10 {
        attack.send_sealed(victim(), &[]);
        attack.run(Duration::from_secs(1));
    }
    assert_eq!(attack.path(), Some(home()));
}
