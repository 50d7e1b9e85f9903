//! Damage that a member can do with authentic messages from forged addresses.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_overlay::Identity;
use peersock_overlay::wire::Control;

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
        let (now, friend_keys) = (attack.net.now, *Identity::from_seed(&[2; 32]).public());
        let message = attack.adversary.improvise(now, &[friend_keys], victim());
        if let Some(message) = message {
            attack.send(from, &message);
        }
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
fn a_stale_initiation_provokes_one_initiation_of_our_own_per_five_seconds() {
    let mut attack = Attack::new();
    let before = attack.standing();
    let now = attack.net.now;
    let first = attack.adversary.initiate(now);
    attack.send(victim(), &first);
    let count = |attack: &Attack, name| attack.net.counter(0, name);
    let counters = ["initiations_stale", "handshakes_answered", "attempts_started"];
    let at_first = counters.map(|name| count(&attack, name));
    for _ in 0..300 {
        let now = attack.net.now;
        // Each is different, because copies would be dropped unread.
        let stale = attack.adversary.initiate_stale(now);
        attack.send(victim(), &stale);
        attack.run(Duration::from_millis(100));
    }
    let [stale, answered, attempts] = [0, 1, 2].map(|at| count(&attack, counters[at]) - at_first[at]);
    assert_eq!((stale, answered), (300, 0));
    // Each attempt lasts 5 s, because no answer comes. Three may begin at once, and then one in 5 s.
    assert!((2..=7).contains(&attempts), "{attempts} attempts in 30 s");
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
