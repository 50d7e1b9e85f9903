//! A machine that was suspended: its sessions have aged, its connections have not.

use std::sync::Arc;

use peersock_overlay::SessionIndex;
use peersock_sim::{Plan, Reader, Script, Step};

use crate::SECOND;
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
    // A new one may be under way already.
    assert!(!has(&lab, index), "its keys are gone");
    // The connection goes on with a new session.
    lab.run(40 * SECOND);
    assert_eq!(lab.world.ledger.bytes_checked, 300);
}

/// Whether node 0 has a session of this index.
fn has(lab: &Lab, index: SessionIndex) -> bool {
    let node = lab.world.machines()[0].node().expect("it runs");
    node.datapath().sessions().get(index).is_some()
}
