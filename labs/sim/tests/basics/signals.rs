//! Connections over outages, address changes, and the ends of their peers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use peersock_sim::{Plan, Reader, Script, Step};

use crate::SECOND;
use crate::lab::{self, Lab, open_network};

const STEP: Duration = Duration::from_millis(10);

#[test]
fn after_an_outage_bytes_flow_within_a_second() {
    // Some outages outlast a session.
    for seconds in [3, 10, 30, 120, 250] {
        for sender in [0, 1] {
            let mut lab = Lab::new(2, &[open_network()]);
            begin_transfer(&mut lab, sender);
            lab.run(SECOND);
            lab.set_cut(true);
            lab.run(seconds * SECOND);
            lab.set_cut(false);
            let took = until_bytes(&mut lab, 100 * SECOND);
            // An attempt to reach the peer each second, and a few round trips.
            assert!(took <= SECOND * 11 / 10, "{seconds} s, node {sender} sends: {took:?}");
            let gap = longest_gap(&mut lab, 2 * SECOND);
            assert!(gap <= SECOND / 2, "{seconds} s, node {sender} sends: a gap of {gap:?} afterwards");
        }
    }
}

#[test]
fn after_an_outage_of_many_minutes_bytes_flow_soon_after_the_first_beacon() {
    // No handshake is tried any more: the session has ended, and the last packet that wanted one is old.
    for minutes in [6, 9] {
        for sender in [0, 1] {
            let mut lab = Lab::new(2, &[open_network()]);
            begin_transfer(&mut lab, sender);
            lab.run(SECOND);
            lab.set_cut(true);
            lab.run(minutes * 60 * SECOND);
            lab.set_cut(false);
            let took = until_bytes(&mut lab, 700 * SECOND);
            // Two nodes, so the first beacon comes within the shorter of two intervals of 20 to 30 s.
            assert!(took <= 32 * SECOND, "{minutes} min, node {sender} sends: {took:?}");
            let gap = longest_gap(&mut lab, 2 * SECOND);
            assert!(gap <= SECOND / 2, "{minutes} min, node {sender} sends: a gap of {gap:?} afterwards");
        }
    }
}

#[test]
fn whoever_moves_bytes_stall_for_less_than_a_second() {
    for mover in [0, 1] {
        for seed in 0..5 {
            let mut lab = Lab::new(2, &[open_network()]);
            begin_transfer(&mut lab, 0);
            lab.run(SECOND + 74 * seed * STEP);
            let (host, lan) = (lab.hosts[mover], lab.lan);
            let address = Ipv4Addr::new(192, 0, 2, 100 + seed as u8);
            lab.world
                .attach(host, lan, (Some(address), None), (lab::wire(), lab::wire()))
                .expect("no violation");
            let gap = longest_gap(&mut lab, 4 * SECOND);
            assert!(gap <= SECOND / 2, "node {mover} moves: {gap:?}");
        }
    }
}

#[test]
fn a_connection_ends_when_its_peer_has_restarted() {
    for restarted in [0, 1] {
        let mut lab = Lab::new(2, &[open_network()]);
        // Both sides wait for the other for ever.
        let scripts = [vec![Step::Write(100), Step::Await(1000)], vec![Step::Write(100), Step::Await(1000)]];
        let plan = Plan { scripts: scripts.map(Script), readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
        lab.world.converse(Arc::new(plan)).expect("a connection");
        lab.run(SECOND);
        lab.world.crash(restarted);
        lab.run(SECOND);
        lab.world.start(restarted).expect("a start");
        lab.run(SECOND);
        let node = lab.world.machines()[1 - restarted].node().expect("it runs");
        assert_eq!((node.conversations(), node.datapath().stack().flows()), (0, 0));
    }
}

#[test]
fn a_connection_that_is_being_made_goes_on_with_the_successor() {
    let mut lab = Lab::new(2, &[open_network()]);
    lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("a connection");
    lab.run(SECOND);
    lab.world.crash(1);
    lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("an attempt");
    lab.run(SECOND / 2);
    lab.world.start(1).expect("a start");
    lab.run(SECOND / 2);
    assert_eq!(lab.world.ledger.completed().0, 2);
}

/// Lets node `sender` send for ten seconds.
fn begin_transfer(lab: &mut Lab, sender: usize) {
    let mut scripts = [Script::default(), Script::default()];
    scripts[sender] = Script(vec![Step::Write(100_000_000)]);
    let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
    lab.world.converse(Arc::new(plan)).expect("a connection");
}

fn until_bytes(lab: &mut Lab, limit: Duration) -> Duration {
    let (began, before) = (lab.world.now(), lab.world.ledger.bytes_checked);
    while lab.world.ledger.bytes_checked == before {
        assert!(lab.world.now() - began < limit, "nothing within {limit:?}");
        lab.run(STEP);
    }
    lab.world.now() - began
}

fn longest_gap(lab: &mut Lab, time: Duration) -> Duration {
    let end = lab.world.now() + time;
    let mut longest = Duration::ZERO;
    while lab.world.now() < end {
        longest = longest.max(until_bytes(lab, 100 * SECOND));
    }
    longest
}
