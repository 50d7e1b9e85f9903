//! The decision about a NAT: a pure function of the observations.

use super::{Filtering, Mapping, Nat, Observations, Sample, is_shared, port_delta};

pub(super) fn decide(seen: &Observations) -> Nat {
    let first = seen.main.first();
    let flows = || seen.main.iter().chain(&seen.fresh);
    let translated = first.map(|_| seen.main.iter().any(|sample| sample.mapped != sample.local));
    // Consider all flows, because one port that is taken, or equal by chance, says nothing about the rest.
    let preserved =
        || flows().filter(|flow| flow.mapped.port() == flow.local.port()).count() * 2 > flows().count();
    let mapped_ip = first.map(|sample| sample.mapped.ip());
    Nat {
        udp: (seen.asked > 0).then_some(flows().next().is_some()),
        mapped: first.map(|sample| sample.mapped),
        translated,
        mapping: if translated == Some(false) {
            Some(Mapping::EndpointIndependent)
        } else {
            mapping(&seen.main)
        },
        filtering: filtering(seen),
        hairpin: seen.hairpin.filter(|_| translated == Some(true)),
        port_preserved: first.map(|_| preserved()),
        delta: port_delta::find(&seen.fresh),
        cgn: is_shared(seen.local) || mapped_ip.is_some_and(is_shared),
        rtt: flows().map(|sample| sample.rtt).min(),
    }
}

/// Compares the mapped endpoints that each pair of servers saw of one socket.
fn mapping(samples: &[Sample]) -> Option<Mapping> {
    let pairs = || {
        let from = |index| samples.iter().skip(index + 1).map(move |other| (&samples[index], other));
        (0..samples.len()).flat_map(from).filter(|(a, b)| a.server != b.server)
    };
    let differs = |(a, b): (&Sample, &Sample)| a.mapped != b.mapped;
    let one_address = |(a, b): &(&Sample, &Sample)| a.server.ip() == b.server.ip();

    let mut ports = pairs().filter(one_address).peekable();
    let mut addresses = pairs().filter(|pair| !one_address(pair)).peekable();
    let knows_ports = ports.peek().is_some();
    if ports.any(differs) {
        return Some(Mapping::AddressAndPortDependent);
    }
    // Without two ports of one server a dependence on the port is possible, so assume the worst.
    let dependent = if knows_ports { Mapping::AddressDependent } else { Mapping::AddressAndPortDependent };
    // Two ports of one server cannot exclude a dependence on the address alone. Few NATs have it, and a wrong
    // guess costs packets, not a path.
    if !knows_ports {
        addresses.peek()?;
    }
    Some(if addresses.any(differs) { dependent } else { Mapping::EndpointIndependent })
}

fn filtering(seen: &Observations) -> Option<Filtering> {
    match (seen.from_other_address, seen.from_other_port) {
        (Some(true), _) => Some(Filtering::EndpointIndependent),
        (Some(false), Some(true)) => Some(Filtering::AddressDependent),
        // A filter that rejects another port of the same address also rejects other addresses.
        (_, Some(false)) => Some(Filtering::AddressAndPortDependent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::behavior::NatKind;

    const LOCAL: &str = "192.168.1.2:4000";

    fn sample(server: &str, mapped: &str) -> Sample {
        let at = |text: &str| text.parse().expect("an endpoint");
        Sample { local: at(LOCAL), server: at(server), mapped: at(mapped), rtt: Duration::from_millis(9) }
    }

    fn seen(main: Vec<Sample>) -> Observations {
        let local: SocketAddr = LOCAL.parse().expect("an endpoint");
        Observations { asked: 3, main, ..Observations::none(local.ip()) }
    }

    #[test]
    fn without_servers_nothing_is_claimed() {
        let nat = Observations::none("10.0.0.1".parse().expect("an address")).decide();
        assert_eq!((nat.udp, nat.translated, nat.mapping, nat.kind()), (None, None, None, None));
    }

    #[test]
    fn silence_of_all_servers_is_blocked_udp() {
        let nat = seen(Vec::new()).decide();
        assert_eq!((nat.udp, nat.kind()), (Some(false), Some(NatKind::Filtered)));
    }

    #[test]
    fn one_server_cannot_tell_how_flows_are_mapped() {
        let nat = seen(vec![sample("192.0.2.1:1", "203.0.113.1:4000")]).decide();
        assert_eq!((nat.mapping, nat.filtering, nat.kind()), (None, None, None));
        assert_eq!((nat.translated, nat.port_preserved), (Some(true), Some(true)));
    }

    #[test]
    fn two_ports_of_one_server_tell_the_mapping() {
        let (same, other) = ("203.0.113.1:4000", "203.0.113.1:4001");
        let nat = seen(vec![sample("192.0.2.1:1", same), sample("192.0.2.1:2", same)]).decide();
        assert_eq!(nat.mapping, Some(Mapping::EndpointIndependent));
        let nat = seen(vec![sample("192.0.2.1:1", same), sample("192.0.2.1:2", other)]).decide();
        assert_eq!(
            (nat.mapping, nat.kind()),
            (Some(Mapping::AddressAndPortDependent), Some(NatKind::Symmetric))
        );
    }

    #[test]
    fn mappings_are_told_apart() {
        let (a, b, c) = ("203.0.113.1:1", "203.0.113.1:2", "203.0.113.1:3");
        let cases: &[(&[(&str, &str)], Mapping)] = &[
            (&[("192.0.2.1:1", a), ("192.0.2.2:1", a), ("192.0.2.2:2", a)], Mapping::EndpointIndependent),
            (&[("192.0.2.1:1", a), ("192.0.2.2:1", b), ("192.0.2.2:2", b)], Mapping::AddressDependent),
            (&[("192.0.2.1:1", a), ("192.0.2.2:1", b), ("192.0.2.2:2", c)], Mapping::AddressAndPortDependent),
            (&[("192.0.2.1:1", a), ("192.0.2.1:2", b)], Mapping::AddressAndPortDependent),
            (&[("192.0.2.1:1", a), ("192.0.2.2:1", a)], Mapping::EndpointIndependent),
            // No server was asked at two ports: the worst is assumed.
            (&[("192.0.2.1:1", a), ("192.0.2.2:1", b)], Mapping::AddressAndPortDependent),
        ];
        for (answers, mapping) in cases {
            let main = answers.iter().map(|(server, mapped)| sample(server, mapped)).collect();
            assert_eq!(seen(main).decide().mapping, Some(*mapping), "{answers:?}");
        }
    }

    #[test]
    fn filters_are_told_apart() {
        use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let cases = [
            (Some(true), Some(true), Some(EndpointIndependent)),
            (Some(true), None, Some(EndpointIndependent)),
            (Some(false), Some(true), Some(AddressDependent)),
            (Some(false), Some(false), Some(AddressAndPortDependent)),
            (None, Some(false), Some(AddressAndPortDependent)),
            (None, Some(true), None),
            (Some(false), None, None),
            (None, None, None),
        ];
        for (from_other_address, from_other_port, filtering) in cases {
            let seen = Observations { from_other_address, from_other_port, ..seen(Vec::new()) };
            assert_eq!(seen.decide().filtering, filtering);
        }
    }

    #[test]
    fn addresses_of_providers_nats_are_recognised() {
        for (ip, shared) in [
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("100.63.255.255", false),
        ] {
            assert_eq!(Observations::none(ip.parse().expect("an address")).decide().cgn, shared, "{ip}");
        }
    }

    #[test]
    fn hairpin_says_nothing_without_a_nat() {
        let with = |mapped| Observations { hairpin: Some(true), ..seen(vec![sample("192.0.2.1:1", mapped)]) };
        assert_eq!(with(LOCAL).decide().hairpin, None);
        assert_eq!(with("203.0.113.1:1").decide().hairpin, Some(true));
    }

    fn endpoint() -> impl Strategy<Value = SocketAddr> {
        (0..4u8, 0..3u16).prop_map(|(ip, port)| SocketAddr::from(([192, 0, 2, ip], 1000 + port)))
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let sample = (endpoint(), endpoint()).prop_map(|(server, mapped)| Sample {
            local: LOCAL.parse().expect("an endpoint"),
            server,
            mapped,
            rtt: Duration::from_millis(1),
        });
        proptest::collection::vec(sample, 0..8)
    }

    proptest! {
        #[test]
        fn any_observations_give_a_consistent_answer(
            main in samples(),
            fresh in samples(),
            from_other_port: Option<bool>,
            from_other_address: Option<bool>,
        ) {
            let seen = Observations { fresh, from_other_port, from_other_address, ..seen(main) };
            let nat = seen.decide();
            prop_assert_eq!(nat.translated.is_some(), !seen.main.is_empty());
            if let Some(kind) = nat.kind() {
                let eim = nat.mapping == Some(Mapping::EndpointIndependent);
                prop_assert_eq!(kind == NatKind::Symmetric, nat.translated == Some(true) && !eim);
            }
            // Repeated answers of the same servers change nothing if they agree.
            let main = [seen.main.clone(), seen.main.clone()].concat();
            let twice = Observations { main, ..seen.clone() };
            prop_assert_eq!(twice.decide().mapping, nat.mapping);
        }

        #[test]
        fn the_order_of_the_answers_does_not_change_the_mapping(main in samples()) {
            let reversed = main.iter().rev().copied().collect();
            prop_assert_eq!(seen(main).decide().mapping, seen(reversed).decide().mapping);
        }
    }
}
