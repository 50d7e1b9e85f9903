//! The whole network check, from inside several networks.

use std::time::Duration;

use peersock_nat::netcheck::{self, Report, Target, Transport};
use peersock_nat::portmap::Protocol;
use peersock_testnet::Lab;

const TOPOLOGY: &str = "stun=stun home=port-restricted:upnp:v6=firewall block=udp-blocked plain=symmetric";

fn look(lab: &Lab, node: &str, servers: &[&str]) -> Report {
    let target = |server: &&str| Target::parse(server, Transport::Udp).expect("HOST:PORT");
    let servers: Vec<Target> = servers.iter().map(target).collect();
    lab.within(node, || netcheck::run(&servers, &[])).expect("the system tells its interfaces")
}

fn findings(report: &Report) -> String {
    report.advice.iter().map(|advice| advice.finding.clone() + "\n").collect()
}

#[test]
fn every_network_gets_its_report_in_time() {
    let Some(lab) = Lab::build("look", TOPOLOGY) else { return };
    let (v4, v6) = ("203.0.113.10:3478", "[2001:db8::a]:3478");

    let home = look(&lab, "home1", &[v4, v6]);
    let eth0 = home.interfaces.iter().find(|interface| interface.host.name == "eth0").expect("it is up");
    let protocols: Vec<_> = eth0.port_mapping.iter().map(|found| found.protocol).collect();
    assert_eq!(protocols, [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp]);
    let kinds = [&eth0.ipv4, &eth0.ipv6]
        .map(|nat| nat.as_ref().and_then(|nat| nat.kind).map(|kind| kind.to_string()));
    assert_eq!(kinds, [Some("restrict port".into()), Some("firewall".into())]);
    assert!(home.servers.iter().all(|server| server.answers()), "{home:?}");
    assert_eq!(eth0.host.routers, [lab.router("home1", "ip4"), lab.router("home1", "ip6")]);

    let block = look(&lab, "block1", &[v4]);
    assert_eq!(block.udp, Some(false));
    assert!(findings(&block).contains("UDP is blocked"), "{block:?}");
    assert!(block.took < Duration::from_secs(60));

    let plain = look(&lab, "plain1", &[v4, v6]);
    assert!(findings(&plain).contains("symmetric"), "{plain:?}");
    assert!(plain.servers[0].answers() && !plain.servers[1].is_asked(), "there is no IPv6");

    let nobody = look(&lab, "plain1", &[]);
    assert_eq!(nobody.udp, None);
    assert!(findings(&nobody).contains("no server was given"), "{nobody:?}");
}
