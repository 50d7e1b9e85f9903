//! What a member can do to others by messages that are authentic, from addresses that are not its own.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::wire::{Control, ProbeSize};

use crate::attack::{Attack, KEEPALIVE, home, victim};

#[test]
fn authentic_messages_from_forged_addresses_move_nothing_and_flood_nobody() {
    let mut attack = Attack::with_session();
    let before = attack.standing();
    let friend = attack.net.nodes[1].socket;
    for round in 0..2000 {
        let from = match attack.adversary.random().below(4) {
            0 => home(),
            1 => friend,
            _ => SocketAddr::from(([203, 0, 113, attack.adversary.random().below(4) as u8], 9)),
        };
        let message = random_message(&mut attack);
        attack.send(from, &message);
        if round % 10 == 0 {
            attack.run(Duration::from_millis(100));
            assert_eq!(attack.standing(), before, "after {round} messages");
        }
    }
    assert!(attack.answers() > 100, "{} answers went to victims", attack.answers());
    attack.expect_unharmed(before);
}

#[test]
fn instances_that_take_turns_cost_others_nothing() {
    let mut attack = Attack::new();
    let before = attack.standing();
    for round in 0..200 {
        attack.adversary.set_instance(round % 2);
        let now = attack.net.now;
        let initiation = attack.adversary.initiate(now);
        attack.send(home(), &initiation);
        if attack.adversary.sessions() > 0 {
            attack.send_sealed(home(), &KEEPALIVE);
            attack.send_sealed(victim(), &KEEPALIVE);
        }
        attack.run(Duration::from_millis(100));
        let sessions = attack.net.nodes[0].endpoint.sessions().len();
        assert!(sessions <= 2 * 12, "{sessions} sessions with two peers");
    }
    assert_eq!(attack.path(), Some(home()));
    attack.expect_unharmed(before);
}

#[test]
fn a_session_with_a_member_says_nothing_about_others() {
    let mut attack = Attack::with_session();
    let before = attack.standing();
    let mut message = Vec::new();
    Control::Params { receive_buffer: 1, instance: 7 }.emit(&mut message);
    Control::Close { reason: 0 }.emit(&mut message);
    let friend = attack.net.nodes[1].socket;
    attack.send_sealed(friend, &message);
    let mut close = Vec::new();
    Control::Close { reason: 0 }.emit(&mut close);
    attack.send_sealed(friend, &close);
    attack.run(Duration::from_secs(20));
    attack.expect_unharmed(before);
}

/// Any message that the adversary can make; but no answer to a path probe that it guesses, and no response.
fn random_message(attack: &mut Attack) -> Vec<u8> {
    let now = attack.net.now;
    let adversary = &mut attack.adversary;
    let sealed = |control: Control| {
        let mut message = Vec::new();
        control.emit(&mut message);
        message
    };
    let plaintext = match adversary.random().below(12) {
        0 => return adversary.hello(true),
        1 => return adversary.hello(false),
        2 => return adversary.beacon(),
        3 => return adversary.initiate(now),
        4 => return adversary.initiate_stale(now),
        5 => KEEPALIVE.to_vec(),
        6 => {
            let len = ProbeSize::new(7 + adversary.random().below(1400)).expect("a size");
            sealed(Control::Probe { id: adversary.random().number() as u32, len })
        }
        7 => sealed(Control::Params { receive_buffer: 1, instance: 1 }),
        8 => sealed(Control::Elsewhere { instance: adversary.random().number(), remote: victim() }),
        9 => vec![0x60; 40],
        10 => {
            let mut unknown = vec![0; 7 + adversary.random().below(60)];
            adversary.random().fill(&mut unknown);
            unknown[0] = 6 + unknown[0] % 10;
            unknown
        }
        _ => {
            // A session that the target does not know.
            let mut data = adversary.seal(&[0; 7]).expect("a session");
            data[1] ^= 0x80;
            return data;
        }
    };
    adversary.seal(&plaintext).expect("a session")
}
