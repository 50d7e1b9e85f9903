//! Two paths between two nodes, and the longest round trips.

use std::sync::Arc;
use std::time::Duration;

use peersock_sim::net::{FaultId, LanId, LinkId, Pipe, Prefixes, Stage};
use peersock_sim::{Plan, Reader, Script, Side, Step};

use crate::SECOND;
use crate::lab::{Lab, PORT, open_network};

#[test]
fn of_two_ways_the_quicker_one_is_used_and_kept() {
    // Both nodes leave the slow path at about the same time, with packets under way there.
    for phase in 0..20 {
        // The first path is slow, the second quick, with some jitter.
        let mut lab = with_second_way(way(20), way(2));
        lab.run(phase * SECOND / 19);
        let took = wait_for_second_lan(&mut lab);
        assert!(took <= 60 * SECOND, "{phase}: {took:?}");
        expect_to_stay(&mut lab);
    }
}

#[test]
fn of_two_ways_the_one_that_loses_nothing_is_used_and_kept() {
    for loss in [0.05, 0.1, 0.2] {
        let mut lab = with_second_way(lossy(5, loss), way(5));
        let took = wait_for_second_lan(&mut lab);
        assert!(took <= 300 * SECOND, "{loss}: {took:?}");
        expect_to_stay(&mut lab);
    }
}

#[test]
fn who_was_heard_of_is_reached_over_round_trips_of_up_to_ten_seconds() {
    for seconds in [1, 3, 6, 10] {
        let mut lab = Lab::new(2, &[open_network()]);
        for host in lab.hosts.clone() {
            let address = lab.world.net.attachments(host)[0].ipv4;
            // Up and down, there and back. Jitter adds something.
            let pipe = || way(245 * seconds);
            lab.world.attach(host, lab.lan, (address, None), (pipe(), pipe())).expect("no violation");
        }
        let network = lab.networks[0].id();
        lab.run(30 * SECOND);
        let exchange = lab.world.exchange(network, (0, 1), PORT, 30, SECOND).expect("an exchange");
        lab.run(100 * SECOND);
        let answers = lab.world.ledger.datagrams(exchange, Side::Client);
        assert!(answers > 0, "round trip of {seconds} s");
    }
}

#[test]
fn when_the_way_in_use_dies_in_silence_the_other_one_is_taken_within_a_second_and_a_half() {
    for sender in [0, 1] {
        for phase in 0..5 {
            let mut lab = with_second_way(way(20), way(2));
            wait_for_second_lan(&mut lab);
            let mut scripts = [Script::default(), Script::default()];
            scripts[sender] = Script(vec![Step::Write(100_000_000)]);
            let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
            lab.world.converse(Arc::new(plan)).expect("a connection");
            lab.run(SECOND + phase * SECOND / 7);
            for host in lab.hosts.clone() {
                lab.world
                    .net
                    .link_mut(LinkId::Up(host, LanId(1)))
                    .expect("a link")
                    .break_with(FaultId(0), Stage::Cut);
            }
            // Data under way still arrives.
            lab.run(SECOND / 20);
            let (cut, before) = (lab.world.now(), lab.world.ledger.bytes_checked);
            while lab.world.ledger.bytes_checked == before {
                lab.run(SECOND / 100);
                assert!(lab.world.now() - cut < 30 * SECOND, "the other way is not found");
            }
            let stall = lab.world.now() - cut;
            assert!(stall <= SECOND * 3 / 2, "node {sender} sends, phase {phase}: {stall:?}");
        }
    }
}

/// Connects nodes 0 and 1 by the LANs 192.0.2.0 and 198.51.100.0. They found each other on the first before
/// the second existed.
fn with_second_way(first: Pipe, second: Pipe) -> Lab {
    let mut lab = Lab::new(2, &[open_network()]);
    let other = lab.world.net.add_lan(Prefixes { ipv4: Some([198, 51, 100, 0].into()), ipv6: None });
    for host in lab.hosts.clone() {
        let address = lab.world.net.attachments(host)[0].ipv4;
        lab.world
            .attach(host, lab.lan, (address, None), (first.clone(), first.clone()))
            .expect("no violation");
    }
    let network = lab.networks[0].id();
    lab.world.exchange(network, (0, 1), PORT, 50, SECOND / 10).expect("an exchange");
    lab.run(10 * SECOND);
    while lan_of_path(&lab) != Some(0) {
        lab.run(SECOND);
        assert!(lab.world.now() < 100 * SECOND, "the first way is not found");
    }
    for (number, host) in lab.hosts.clone().into_iter().enumerate() {
        let address = [198, 51, 100, number as u8 + 1].into();
        lab.world
            .attach(host, other, (Some(address), None), (second.clone(), second.clone()))
            .expect("no violation");
    }
    lab
}

/// Makes a link with this one-way delay in milliseconds, with jitter.
fn way(millis: u64) -> Pipe {
    let base = Duration::from_millis(millis);
    Pipe::new([Stage::Mtu(1500), Stage::Delay { base, jitter: base / 50 }])
}

/// Makes the same link with random loss.
fn lossy(millis: u64, loss: f64) -> Pipe {
    let base = Duration::from_millis(millis);
    Pipe::new([Stage::Mtu(1500), Stage::Loss(loss), Stage::Delay { base, jitter: base / 50 }])
}

/// Lets node 0 send to node 1 until the path is on the second LAN. Returns the time it took.
fn wait_for_second_lan(lab: &mut Lab) -> Duration {
    let begun = lab.world.now();
    let network = lab.networks[0].id();
    lab.world.exchange(network, (0, 1), PORT, 10_000, SECOND / 10).expect("an exchange");
    while lan_of_path(lab) != Some(1) {
        lab.run(SECOND);
        assert!(lab.world.now() - begun < 600 * SECOND, "the better way is not found");
    }
    lab.world.now() - begun
}

/// Checks that the path does not move in ten more minutes of the same traffic.
fn expect_to_stay(lab: &mut Lab) {
    let moved = |lab: &Lab| lab.world.counters(0)["paths_moved"];
    let before = moved(lab);
    lab.run(600 * SECOND);
    assert_eq!(lan_of_path(lab), Some(1));
    let moves = moved(lab) - before;
    assert!(moves <= 1, "the path flaps: {moves} moves in ten minutes");
}

/// Returns the LAN on which node 0 reaches node 1.
fn lan_of_path(lab: &Lab) -> Option<usize> {
    let node = lab.world.machines()[0].node()?;
    let path = node.datapath().peers().into_iter().find_map(|info| info.path)?;
    Some(usize::from(path.remote().ip().to_string().starts_with("198.51.100.")))
}
