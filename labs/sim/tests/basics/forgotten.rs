//! Connections to a peer that was away so long that the node has forgotten it.

use std::sync::Arc;

use peersock_sim::{Plan, Reader, Script, Step};

use crate::SECOND;
use crate::lab::{Lab, open_network};

/// Connects two nodes that write, cuts the cable for twenty minutes, and has `writer` write in the minute
/// `at`. Returns after the cut, when the nodes have forgotten each other.
fn after_a_cut(writer: usize, at: u32) -> Lab {
    let mut lab = Lab::new(2, &[open_network()]);
    let mut scripts = [vec![Step::Write(100), Step::Await(100)], vec![Step::Write(100), Step::Await(100)]];
    scripts[writer].extend([Step::Pause(at * MINUTE), Step::Write(100)]);
    scripts[1 - writer].push(Step::Await(200));
    let plan = Plan { scripts: scripts.map(Script), readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
    lab.world.converse(Arc::new(plan)).expect("a connection");
    lab.run(10 * SECOND);
    lab.set_cut(true);
    lab.run(20 * MINUTE);
    for machine in lab.world.machines() {
        assert!(machine.node().expect("it runs").datapath().peers().is_empty(), "forgotten");
    }
    lab.set_cut(false);
    lab
}

#[test]
fn an_idle_connection_goes_on_with_a_peer_that_was_forgotten_and_found_again() {
    for writer in [0, 1] {
        let mut lab = after_a_cut(writer, 25);
        lab.run(5 * MINUTE - 10 * SECOND);
        // A handshake and a round trip, and no repetition.
        lab.run(SECOND / 2);
        assert_eq!(lab.world.ledger.bytes_checked, 300, "node {writer} writes");
    }
}

#[test]
fn what_is_written_while_the_peer_is_forgotten_arrives_soon_after_its_first_beacon() {
    for writer in [0, 1] {
        let mut lab = after_a_cut(writer, 16);
        // Two nodes, so the first beacon comes within the shorter of two intervals of 20 to 30 s.
        lab.run(32 * SECOND);
        assert_eq!(lab.world.ledger.bytes_checked, 300, "node {writer} writes");
    }
}

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
