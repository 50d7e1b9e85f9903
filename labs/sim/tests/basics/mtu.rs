//! Paths that carry less than they seem to and do not report it.

use std::sync::Arc;
use std::time::Duration;

use peersock_sim::net::{FaultId, LinkId, Stage};
use peersock_sim::{Plan, Reader, Script, Side, Step};

use crate::lab::{Lab, PORT, open_network};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn paths_of_any_size_carry_streams_and_datagrams() {
    // The smallest size carries a handshake, and beacons have to pass as well.
    for mtu in [1279, 1228, 1200, 1000, 576, 303] {
        let mut lab = Lab::new(2, &[open_network()]);
        narrow(&mut lab, &[0, 1], mtu);
        let network = lab.networks[0].id();
        lab.world.converse(Arc::new(bulk(&lab, 500_000, 500_000))).expect("a connection");
        let exchange =
            lab.world.exchange(network, (0, 1), PORT, 20, Duration::from_millis(50)).expect("an exchange");
        lab.run(15 * SECOND);
        assert_eq!(lab.world.ledger.completed(), (1, 1), "{mtu}");
        assert!(lab.world.ledger.datagrams(exchange, Side::Client) >= 15, "{mtu}");
    }
}

#[test]
fn a_path_that_shrinks_stalls_a_transfer_for_less_than_a_second() {
    for mtu in [1400, 1280, 1200, 700] {
        for hosts in [&[0, 1][..], &[0]] {
            for delay in [0, 20] {
                let mut lab = Lab::new(2, &[open_network()]);
                for host in lab.hosts.clone() {
                    let link = lab.world.net.link_mut(LinkId::Up(host, lab.lan)).expect("a link");
                    let base = Duration::from_millis(delay);
                    link.break_with(FaultId(1), Stage::Delay { base, jitter: Duration::ZERO });
                }
                lab.world.converse(Arc::new(bulk(&lab, 30_000_000, 0))).expect("a connection");
                lab.run(SECOND * 3 / 2);
                narrow(&mut lab, hosts, mtu);
                let stall = longest_stall(&mut lab);
                assert!(stall < SECOND, "{mtu} {hosts:?} {delay}: {stall:?}");
            }
        }
    }
}

/// Plans the bytes from the first node to the second, and those that come back.
fn bulk(lab: &Lab, forth: u64, back: u64) -> Plan {
    let scripts = [forth, back].map(|bytes| Script(vec![Step::Write(bytes)]));
    Plan { scripts, readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) }
}

/// Drops larger packets from these hosts silently.
fn narrow(lab: &mut Lab, hosts: &[usize], mtu: usize) {
    for host in hosts {
        let link = LinkId::Up(lab.hosts[*host], lab.lan);
        lab.world.net.link_mut(link).expect("a link").break_with(FaultId(0), Stage::Mtu(mtu));
    }
}

/// Returns the longest time within the next three seconds in which the second node read nothing.
fn longest_stall(lab: &mut Lab) -> Duration {
    let mut longest = Duration::ZERO;
    let mut since = Duration::ZERO;
    let step = Duration::from_millis(20);
    for _ in 0..150 {
        let before = lab.world.ledger.bytes_checked;
        lab.run(step);
        since = if lab.world.ledger.bytes_checked > before { Duration::ZERO } else { since + step };
        longest = longest.max(since);
        if lab.world.ledger.completed().0 == 1 {
            break;
        }
    }
    longest
}
