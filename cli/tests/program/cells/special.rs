//! Cells of two nodes behind a common box, and one that takes longer than the others.

use std::thread;
use std::time::Duration;

use peersock_sim::cells::Expected;
use peersock_testnet::Lab as Nats;

use super::cell::Meeting;
use super::kind::{Access, SITES};

/// Two customers of a carrier whose box hairpins: packets from one reach the outer address of the other.
#[test]
#[ignore = "cargo xtask cells: one of its cells"]
fn behind_one_carrier_that_hairpins() {
    behind_one_carrier("full-cone:0:hairpin", "one carrier, hairpin", Expected::Direct);
}

/// Two customers of a carrier whose box does not hairpin.
#[test]
#[ignore = "cargo xtask cells: one of its cells"]
fn behind_one_carrier_that_does_not_hairpin() {
    behind_one_carrier("full-cone:0", "one carrier, no hairpin", Expected::Relay);
}

fn behind_one_carrier(carrier: &str, kind: &str, expected: Expected) {
    let topology = format!(
        "up={carrier}:lan=100.64.0.0/24:link.delay=10 one=port-restricted:via=up other=port-restricted:via=up"
    );
    let name = format!("cell-{}", kind.replace([',', ' '], ""));
    let Some(meeting) = Meeting::arrange(&name, &topology, |_| ()) else { return };
    meeting.hold([kind; 2], ["one1".into(), "other1".into()], expected);
}

/// Two hosts in one home, found by beacons.
#[test]
#[ignore = "cargo xtask cells: one of its cells"]
fn in_one_home() {
    let Some(meeting) = Meeting::arrange("cell-one-home", "one=symmetric:2:link.delay=10", |_| ()) else {
        return;
    };
    meeting.hold(["one home"; 2], ["one1".into(), "one2".into()], Expected::Direct);
}

/// NAT mappings of 20 s on both sides; the nodes keep them alive while no data flows for longer than that.
#[test]
#[ignore = "cargo xtask cells: one of its cells"]
fn a_path_outlives_its_mappings() {
    let topology = "one=port-restricted:udp_timeout=20:link.delay=10 other=port-restricted:udp_timeout=20";
    let Some(meeting) = Meeting::arrange("cell-silence", topology, |_| ()) else { return };
    let mut talk = meeting.begin(["one1", "other1"]);
    talk.until_direct();
    thread::sleep(Duration::from_secs(50));
    talk.write_for(5);
    let seen = meeting.end(talk);
    seen.report(["20s, silence"; 2], Expected::Direct);
    seen.assert_fits(Expected::Direct);
}

/// Both networks block outgoing UDP, and the roots are reached by TCP only. Both boxes masquerade, and admit
/// only addresses that their node has contacted.
#[test]
fn two_home_routers_that_let_no_udp_pass_are_punched_by_tcp_and_the_path_outlives_the_roots() {
    let topology = "one=port-restricted:link.delay=10 other=port-restricted:link.delay=10";
    let no_udp = |nats: &Nats| SITES.iter().for_each(|site| Access::NoUdp.finish(nats, site));
    let Some(mut meeting) = Meeting::arrange("tcp-punch", topology, no_udp) else { return };
    let mut talk = meeting.begin(["one1", "other1"]);
    talk.until_direct();
    talk.write_for(5);
    meeting.kill_roots();
    talk.write_for(50);
    let seen = meeting.end(talk);
    seen.report(["no-udp, roots killed"; 2], Expected::Direct);
    seen.assert_fits(Expected::Direct);
    assert!(seen.is_by_tcp(), "no UDP passes");
}

/// One node is behind a box that admits no connections, and the other accepts them.
#[test]
fn a_node_that_can_be_connected_to_is_reached_by_tcp() {
    let topology = "one=symmetric:link.delay=10 other=routed:link.delay=10";
    let no_udp = |nats: &Nats| Access::NoUdp.finish(nats, SITES[0]);
    let Some(meeting) = Meeting::arrange("tcp-open", topology, no_udp) else { return };
    let mut talk = meeting.begin(["one1", "other1"]);
    talk.until_direct();
    talk.write_for(5);
    let seen = meeting.end(talk);
    seen.report(["no-udp, open"; 2], Expected::Direct);
    assert!(seen.is_by_tcp(), "no UDP passes");
}
