//! Real kernel NATs, in network namespaces. The tests need root and the program `natlab`; without them every
//! test prints so and does nothing.

mod interfaces;
mod look;
mod ports;

use std::thread;

use peersock_nat::probe::{self, Settings};
use peersock_nat::{DeltaKind, Nat, NatKind};
use peersock_testnet::Lab;
use serde_json::Value;

const KINDS: &str = "stun=stun full=full-cone rand=full-cone:random_ports arestr=address-restricted \
    prestr=port-restricted hair=port-restricted:hairpin symm=symmetric delta=symmetric-delta:delta=7 \
    block=udp-blocked routed=routed wall=firewall cgn=port-restricted:lan=100.64.0.0/24 \
    six=v6only open6=v6only:v6=open";

fn classify(lab: &Lab, node: &str, is_v6: bool) -> Nat {
    let ip = if is_v6 { lab.ip6(node) } else { lab.ip4(node) };
    let server = if is_v6 { lab.ip6("stun") } else { lab.ip4("stun") };
    let settings = Settings::new(vec![(server, 3478).into()]);
    lab.within(node, || probe::run(ip, Some("eth0"), &settings)).expect("the node has sockets").decide()
}

#[test]
fn every_kind_of_nat_is_seen_as_natprobe_sees_it() {
    use DeltaKind::{Equal, Independent, Random};
    let Some(lab) = Lab::build("kinds", KINDS) else { return };
    let cases = [
        ("full1", NatKind::FullCone, Some((Equal, 0))),
        ("rand1", NatKind::FullCone, Some((Random, 0))),
        ("arestr1", NatKind::Restrict, Some((Equal, 0))),
        ("prestr1", NatKind::RestrictPort, Some((Equal, 0))),
        ("hair1", NatKind::RestrictPort, Some((Equal, 0))),
        ("symm1", NatKind::Symmetric, Some((Random, 0))),
        ("delta1", NatKind::Symmetric, Some((Independent, 7))),
        ("block1", NatKind::Filtered, None),
        ("routed1", NatKind::Open, Some((Equal, 0))),
        ("wall1", NatKind::Firewall, Some((Equal, 0))),
        ("cgn1", NatKind::RestrictPort, Some((Equal, 0))),
    ];
    thread::scope(|scope| {
        for (node, kind, delta) in cases {
            let lab = &lab;
            scope.spawn(move || {
                let nat = classify(lab, node, false);
                assert_eq!(nat.kind(), Some(kind), "{node}: {nat:?}");
                assert_eq!(nat.delta.map(|delta| (delta.kind, delta.value)), delta, "{node}");
                assert_eq!(nat.cgn, node == "cgn1");
                compare(node, &nat, &lab.natprobe(node, lab.ip4("stun")));
            });
        }
        for (node, kind) in [("six1", NatKind::Firewall), ("open61", NatKind::Open)] {
            let lab = &lab;
            scope.spawn(move || {
                let nat = classify(lab, node, true);
                assert_eq!(nat.kind(), Some(kind), "{node}: {nat:?}");
                compare(node, &nat, &lab.natprobe(node, lab.ip6("stun")));
            });
        }
    });
}

fn compare(node: &str, nat: &Nat, natprobe: &Value) {
    let ours = serde_json::to_value(nat).expect("it can be written");
    assert_eq!(ours["udp"], natprobe["udp"], "{node}");
    if nat.udp != Some(true) {
        return;
    }
    assert_eq!(ours["translated"], natprobe["nat"], "{node}");
    for field in ["mapping", "filtering", "port_preserved"] {
        assert_eq!(ours[field], natprobe[field], "{node}: {field}");
    }
    if nat.translated == Some(true) {
        // Without a NAT natprobe measures that the machine reaches itself.
        assert_eq!(ours["hairpin"], natprobe["hairpin"], "{node}");
    }
}

#[test]
fn loss_does_not_make_a_nat_look_like_another() {
    let topology =
        "stun=stun full=full-cone:link.loss=10:link.delay=10 symm=symmetric:link.loss=10:link.delay=10";
    let Some(lab) = Lab::build("loss", topology) else { return };
    thread::scope(|scope| {
        for (node, mapping) in [("full1", "endpoint-independent"), ("symm1", "address-and-port-dependent")] {
            let lab = &lab;
            scope.spawn(move || {
                let nat = classify(lab, node, false);
                assert_eq!(
                    nat.mapping.map(|mapping| mapping.to_string()).as_deref(),
                    Some(mapping),
                    "{nat:?}"
                );
            });
        }
    });
}
