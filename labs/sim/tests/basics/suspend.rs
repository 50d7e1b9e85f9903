//! A machine that was suspended. Its sessions have aged, its connections have not.

use std::sync::Arc;

use peersock_overlay::SessionIndex;
use peersock_sim::{Plan, Reader, Script, Step};

use crate::SECOND;
use crate::homes::Homes;
use crate::lab::{Lab, open_network};

#[test]
fn sessions_age_while_a_machine_is_suspended_and_connections_do_not() {
    let mut lab = Lab::new(2, &[open_network()]);
    let scripts = [
        vec![Step::Write(100), Step::Await(100), Step::Pause(30 * SECOND), Step::Write(100)],
        vec![Step::Write(100), Step::Await(200)],
    ];
    let plan = Plan { scripts: scripts.map(Script), readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
    lab.world.converse(Arc::new(plan)).expect("a connection");
    lab.run(10 * SECOND);
    let session = lab.world.machines()[0].node().expect("it runs").datapath().peers()[0].peer.session();
    let index = session.expect("a session").index();
    assert!(has(&lab, index));
    lab.world.wake_up(0, 8 * 3600 * SECOND).expect("nothing is seen of it");
    // A new session may be under way already.
    assert!(!has(&lab, index), "its keys are gone");
    // The connection goes on with a new session.
    lab.run(40 * SECOND);
    assert_eq!(lab.world.ledger.bytes_checked, 300);
}

#[test]
fn a_connection_goes_on_soon_after_a_night_in_which_both_boxes_have_forgotten_it() {
    for sender in [0, 1] {
        let mut homes = Homes::punchable(1, 1_000_000);
        homes.run(5 * SECOND);
        homes.transfer(sender);
        homes.run(5 * SECOND);
        assert_eq!(homes.root_of_path(0), None, "the path is direct");
        for lan in homes.lans[0].clone() {
            homes.world.net.nat_mut(lan).expect("a box").reboot();
        }
        homes.world.wake_up(0, 8 * 3600 * SECOND).expect("no violation");
        // Data under way still arrives.
        homes.run(SECOND / 10);
        let stall = homes.stall(10 * SECOND);
        assert!(stall <= 2 * SECOND, "node {sender} sends: {stall:?}");
        homes.run(60 * SECOND);
        assert_eq!(homes.root_of_path(0), None, "it is direct again");
    }
}

/// Returns true if node 0 has a session of this index.
fn has(lab: &Lab, index: SessionIndex) -> bool {
    let node = lab.world.machines()[0].node().expect("it runs");
    node.datapath().sessions().get(index).is_some()
}
