//! Small worlds made by hand.

mod chaos;
mod crowd;
mod cut;
mod far;
mod forgotten;
mod goodput;
mod groups;
mod homes;
#[path = "../lab/mod.rs"]
mod lab;
mod mtu;
mod no_udp;
mod roots;
mod signals;
mod suspend;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use lab::{Lab, PORT, open_network};
use peersock_sim::net::{FaultId, LinkId, Stage};
use peersock_sim::{Plan, Random, Reader, Script, Step};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_nodes_find_each_other_and_talk() {
    let mut lab = Lab::new(2, &[open_network()]);
    lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("a connection");
    lab.run(SECOND);
    assert_eq!(lab.world.ledger.completed(), (1, 1));
}

#[test]
fn bulk_goes_both_ways_over_a_bad_line() {
    let mut lab = Lab::new(2, &[open_network()]);
    for host in lab.hosts.clone() {
        let link = lab.world.net.link_mut(LinkId::Up(host, lab.lan)).expect("a link");
        link.break_with(FaultId(0), Stage::Loss(0.01));
        link.break_with(FaultId(0), Stage::Duplicate(0.02));
        link.break_with(FaultId(0), Stage::Corrupt(0.01));
        link.break_with(FaultId(0), Stage::Reorder { probability: 0.05, delay: Duration::from_millis(5) });
    }
    let scripts = [Script(vec![Step::Write(2_000_000)]), Script(vec![Step::Write(1_000_000)])];
    let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
    lab.world.converse(Arc::new(plan)).expect("a connection");
    lab.run(100 * SECOND);
    assert_eq!(lab.world.ledger.completed(), (1, 1));
    assert_eq!(lab.world.ledger.bytes_checked, 3_000_000);
}

#[test]
fn a_restarted_peer_is_back_within_one_syn_repetition() {
    let mut lab = Lab::new(2, &[open_network()]);
    lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("a connection");
    lab.run(SECOND);
    for _ in 0..3 {
        lab.world.crash(1);
        lab.run(Duration::from_millis(100));
        lab.world.start(1).expect("a start");
        lab.world.converse(Arc::new(lab.greeting(0, 1))).expect("a connection");
        let before = lab.world.ledger.completed().0;
        // The SYN sent on the lost session is retransmitted after a second (RFC 6298 (2.1)).
        lab.run(SECOND * 11 / 10);
        assert_eq!(lab.world.ledger.completed().0, before + 1);
    }
}

#[test]
fn udp_reaches_the_echo_server_and_comes_back() {
    let mut lab = Lab::new(2, &[open_network()]);
    let network = lab.networks[0].id();
    let exchange =
        lab.world.exchange(network, (0, 1), PORT, 20, Duration::from_millis(50)).expect("an exchange");
    lab.run(3 * SECOND);
    assert_eq!(lab.world.ledger.datagrams(exchange, peersock_sim::Side::Client), 20);
}

#[test]
fn plans_of_every_kind_complete() {
    let mut lab = Lab::new(3, &[open_network()]);
    let mut random = Random::from_seed(5);
    for _ in 0..40 {
        let pair = [(0, 1), (1, 2), (2, 0), (0, 0), (1, 0)][random.below(5)];
        let network = lab.networks[0].id();
        let plan = Plan::random(&mut random, network, pair, PORT, 300_000, SECOND);
        lab.world.converse(Arc::new(plan)).expect("a connection");
    }
    lab.run(60 * SECOND);
    assert_eq!(lab.world.ledger.completed(), (40, 40));
}
