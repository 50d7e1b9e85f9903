//! Replays of whole recorded sessions.

use std::collections::BTreeSet;

use peersock_overlay::wire::{Data, MessageType};

use crate::SCALE;
use crate::siege::{Recorded, SECOND, Siege, endpoint};

#[test]
fn a_recorded_session_brings_nothing_while_it_stands() {
    let mut siege = Siege::of_acquainted(3);
    let tape = tape(&siege);
    let paths = paths(&siege);
    for _ in 0..4 * SCALE {
        play(&mut siege, &tape);
    }
    // An old packet from another address moves no path.
    assert_eq!(paths, self::paths(&siege));
    siege.conclude("replayed at once");
}

#[test]
fn a_recorded_session_brings_nothing_after_a_restart_of_either_side() {
    for restarted in [0, 1] {
        let mut siege = Siege::of_acquainted(2);
        let tape = tape(&siege);
        siege.lab.world.crash(restarted);
        play_with_a_break(&mut siege, &tape, restarted);
        siege.lab.world.start(restarted).expect("a start");
        play_with_a_break(&mut siege, &tape, usize::MAX);
        siege.lab.run(SECOND);
        for _ in 0..SCALE {
            play_with_a_break(&mut siege, &tape, usize::MAX);
        }
        siege.conclude("replayed after a restart");
    }
}

#[test]
fn a_recorded_session_brings_nothing_after_its_end() {
    let mut siege = Siege::of_acquainted(2);
    let tape = tape(&siege);
    // The session is rekeyed by then, and forgotten in the end.
    for idle in [130, 100, 600] {
        siege.converse(0, (0, 1), 1000);
        siege.lab.run(idle * SECOND);
        for _ in 0..SCALE {
            play(&mut siege, &tape);
        }
    }
    siege.conclude("replayed after the session");
}

/// Returns the recording of all arrived messages that must not count twice. Discovery is left out because it
/// proves nothing, and so are probes too large for the link.
fn tape(siege: &Siege) -> Vec<Recorded> {
    let counts =
        |kind| matches!(kind, Some(MessageType::Data | MessageType::Initiation | MessageType::Response));
    let all = siege.recording().into_iter();
    let tape: Vec<Recorded> = all
        .filter(|recorded| counts(recorded.kind()) && recorded.payload.len() <= MAX_DATAGRAM_BYTES)
        .collect();
    assert!(tape.len() > 100, "there was traffic");
    tape
}

/// Largest datagram that fits into the link's 1500 bytes.
const MAX_DATAGRAM_BYTES: usize = 1472;

/// Gives every datagram once more to its receiver, from its source and from elsewhere.
fn play(siege: &mut Siege, tape: &[Recorded]) {
    for node in 0..siege.lab.world.machines().len() {
        let blows: Vec<_> = tape
            .iter()
            .filter(|recorded| recorded.to == endpoint(node))
            .map(|recorded| (recorded.payload.clone(), verdict(siege, node, recorded)))
            .collect();
        for portion in blows.chunks(500) {
            let from = if siege.random.chance(0.5) { siege.stranger() } else { endpoint((node + 1) % 2) };
            siege.strike(node, from, portion);
        }
    }
}

/// Does the same with time between portions, because rates are limited and a node may answer a message that
/// seems new.
fn play_with_a_break(siege: &mut Siege, tape: &[Recorded], absent: usize) {
    for node in (0..2).filter(|node| *node != absent) {
        for portion in tape.chunks(100) {
            for recorded in portion.iter().filter(|recorded| recorded.to == endpoint(node)) {
                siege.strike_unjudged(node, recorded.from, &recorded.payload);
            }
            siege.lab.run(SECOND / 10);
        }
    }
}

/// Returns the verdict expected of a node on a packet it has seen before, or for a session that no longer
/// exists.
fn verdict(siege: &Siege, node: usize, recorded: &Recorded) -> &'static str {
    match recorded.kind() {
        Some(MessageType::Data) => match Data::parse(&recorded.payload) {
            Ok(data) if !siege.knows(node, data.receiver) => "data_unknown_session",
            _ => "data_replayed",
        },
        Some(MessageType::Initiation) => "initiations_replayed",
        _ => "responses_unexpected",
    }
}

/// Returns each node's paths.
fn paths(siege: &Siege) -> BTreeSet<(usize, String)> {
    let machines = siege.lab.world.machines().iter().enumerate();
    machines
        .flat_map(|(number, machine)| {
            let peers = machine.node().expect("it runs").datapath().peers();
            peers.into_iter().map(move |info| (number, format!("{:?}", info.path)))
        })
        .collect()
}
