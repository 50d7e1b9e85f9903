//! Conclusions from the report, in plain words. A pure function of the report.

use serde::Serialize;

use super::{InterfaceReport, NatReport, Report, ServerReport, TcpCheck, is_public};
use crate::behavior::{Mapping, NatKind};

/// A finding, with advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// The finding.
    pub finding: String,
    /// The advice; `None` if there is nothing to do.
    pub what_to_do: Option<String>,
}

impl Advice {
    /// Makes a finding, with optional advice.
    pub fn new(finding: impl Into<String>, what_to_do: Option<&str>) -> Self {
        Self { finding: finding.into(), what_to_do: what_to_do.map(str::to_owned) }
    }
}

pub(super) fn advise(report: &Report) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut say = |finding: String, what_to_do: Option<&str>| {
        advice.push(Advice::new(finding, what_to_do));
    };
    let is_online = report.interfaces.iter().any(|interface| !interface.host.routers.is_empty());
    if !is_online {
        say(
            "no interface has a default route: this machine is not on the Internet".into(),
            Some("connect it to a network; peers on the same machine or LAN are reached without"),
        );
    }
    if let Some(prefix) = report.nat64 {
        say(
            format!(
                "this machine has no IPv4: what has IPv4 only is reached by the network's NAT64, {prefix}"
            ),
            Some("use a root: nodes of the DHT have IPv4 addresses only, and are not reached (--dht)"),
        );
    }
    names(report, &mut say);
    udp(report, &mut say);
    tcp(report, &mut say);
    for interface in &report.interfaces {
        nat(interface, &mut say);
    }
    proxies(report, &mut say);
    advice
}

fn names(report: &Report, say: &mut impl FnMut(String, Option<&str>)) {
    let is_silent = |server: &super::Nameserver| server.rtt_ms.is_none();
    if !report.nameservers.is_empty() && report.nameservers.iter().all(is_silent) {
        say(
            "no nameserver answers: DNS is blocked or down".into(),
            Some("name servers and roots by their IP addresses"),
        );
    }
    for server in &report.servers {
        if let Some(error) = &server.error {
            say(
                format!("the name of {} is not resolved: {error}", server.target),
                Some("give its IP address"),
            );
        }
    }
}

fn udp(report: &Report, say: &mut impl FnMut(String, Option<&str>)) {
    let gets_through = report.tcp.iter().any(|check| check.connect_ms.is_some());
    match report.udp {
        None if !report.servers.is_empty() => say(
            "no server could be asked, so it is not known whether UDP gets out, nor what NAT there is".into(),
            Some("give a STUN server that is reached from here with --stun HOST:PORT"),
        ),
        None if named_for_tcp(report).next().is_some() => say(
            "the servers that were given are for TCP only, so it is not known whether UDP gets out, nor what \
             NAT there is"
                .into(),
            Some("give a STUN server with --stun HOST:PORT, or a root with an endpoint for UDP"),
        ),
        None => say(
            "no server was given, so it is not known whether UDP gets out, nor what NAT there is".into(),
            Some("give a STUN server with --stun HOST:PORT, or a root in PEERSOCK_ROOTS"),
        ),
        Some(true) => {
            for server in report.servers.iter().filter(|server| server.is_asked() && !server.answers()) {
                say(
                    format!("{} does not answer over UDP, but others do", server.target),
                    Some("it may be down, or no STUN server: ask who runs it"),
                );
            }
        }
        Some(false) if gets_through => say(
            "UDP is blocked: no server answers over UDP, while TCP connections open".into(),
            Some("let UDP out in the firewall; until then a root with a tcp:, tls: or wss: endpoint relays"),
        ),
        Some(false) if report.tcp.iter().any(|check| check.refused) => say(
            "no server answers over UDP, and TCP connections are refused: no server runs there, or a \
             firewall refuses them"
                .into(),
            Some("look whether the servers run, and at these ports; else try another one"),
        ),
        Some(false) => say(
            "no server answers over UDP, nor by TCP: the network blocks both, or they are down".into(),
            Some("try another server, and ask who runs the network whether a proxy is needed"),
        ),
    }
}

/// Returns the checks of TCP servers that the caller named. Port 443 of UDP servers is tried in addition and
/// need not be open; proxies have separate advice.
fn named_for_tcp(report: &Report) -> impl Iterator<Item = &TcpCheck> {
    let is_besides = |check: &TcpCheck| {
        let host = &check.target.host;
        check.target.port == 443 && report.servers.iter().any(|server| server.target.host == *host)
    };
    let is_proxy =
        |check: &TcpCheck| report.proxies.iter().any(|proxy| proxy.target.as_ref() == Some(&check.target));
    report.tcp.iter().filter(move |check| !is_besides(check) && !is_proxy(check))
}

fn tcp(report: &Report, say: &mut impl FnMut(String, Option<&str>)) {
    for check in named_for_tcp(report) {
        match (check.connect_ms, check.refused) {
            (Some(_), _) => {}
            (None, true) => say(
                format!(
                    "the TCP connection to {} is refused: nothing listens there, or a firewall refuses it",
                    check.target
                ),
                Some("look whether the server runs, and whether the port is the right one"),
            ),
            (None, false) => say(
                format!("the TCP connection to {} does not open: there is no answer", check.target),
                Some("look whether the server runs, and whether a firewall drops what goes there"),
            ),
        }
    }
}

fn nat(interface: &InterfaceReport, say: &mut impl FnMut(String, Option<&str>)) {
    let name = &interface.host.name;
    let outer = interface.port_mapping.iter().find_map(|found| found.external);
    if let Some(outer) = outer.filter(|outer| !is_public(*outer)) {
        say(
            format!("{name}: the router's own address {outer} is not public: there is another NAT behind it"),
            Some("opening a port in the router is not enough: use IPv6, or ask for a public address"),
        );
    }
    // Without the feature no router was asked, so the advice says nothing about it.
    let opens_ports = !interface.port_mapping.is_empty() || cfg!(not(feature = "portmap"));
    for (family, report) in [("IPv4", &interface.ipv4), ("IPv6", &interface.ipv6)] {
        if let Some(report) = report {
            family_nat(&format!("{name}, {family}"), report, opens_ports, say);
        }
    }
}

fn family_nat(
    place: &str,
    report: &NatReport,
    opens_ports: bool,
    say: &mut impl FnMut(String, Option<&str>),
) {
    let NatReport { kind, nat } = report;
    if nat.cgn {
        say(
            format!("{place}: the provider has a NAT, too (addresses 100.64.0.0/10)"),
            Some("use IPv6, or ask the provider for a public IPv4 address, where direct paths fail"),
        );
    }
    let open_a_port =
        (!opens_ports).then_some("switch on UPnP, NAT-PMP or PCP in the router to be reached by everybody");
    match kind {
        Some(NatKind::Open) => {
            say(format!("{place}: open to the Internet, every peer can reach this machine"), None)
        }
        Some(NatKind::Firewall) => say(
            format!("{place}: no NAT, but a firewall: peers are reached directly if both sides send"),
            Some("let UDP in if peers behind symmetric NATs must reach this machine directly"),
        ),
        Some(NatKind::FullCone) => say(format!("{place}: an easy NAT (full cone), direct paths work"), None),
        Some(NatKind::Restrict) => {
            say(format!("{place}: an easy NAT (restrict), direct paths work by hole punching"), open_a_port)
        }
        Some(NatKind::RestrictPort) => say(
            format!(
                "{place}: a usual NAT (restrict port), direct paths by hole punching, not to symmetric NATs"
            ),
            open_a_port,
        ),
        Some(NatKind::Symmetric) => say(
            format!(
                "{place}: a symmetric NAT: direct paths only to peers that are open, and by guessing ports"
            ),
            Some(if opens_ports {
                "the router opens ports on request, which makes direct paths work"
            } else {
                "switch on UPnP, NAT-PMP or PCP in the router, or use IPv6; without, a root relays"
            }),
        ),
        Some(NatKind::Filtered) => {}
        None if nat.translated == Some(false) => say(
            format!("{place}: no NAT; whether a firewall lets in only answers is not known"),
            Some("give a STUN server that knows RFC 5780 (coturn does) to find that out"),
        ),
        None if nat.mapping == Some(Mapping::EndpointIndependent) => say(
            format!("{place}: direct paths work by hole punching; how the NAT filters is not known"),
            Some("give a STUN server that knows RFC 5780 (coturn does) to find that out"),
        ),
        None => say(
            format!("{place}: there is a NAT, but one server's answers do not tell of which kind"),
            Some(
                "give a second STUN server, for example stun.cloudflare.com:3478, which then sees this \
                 machine's address; a root alone tells it if its second UDP port is open, too (7421 unless \
                 --port or --second-port is given there)",
            ),
        ),
    }
    if nat.hairpin == Some(false) {
        say(
            format!(
                "{place}: the NAT does not lead back inside (no hairpin), peers behind it meet on the LAN"
            ),
            None,
        );
    }
}

fn proxies(report: &Report, say: &mut impl FnMut(String, Option<&str>)) {
    let mut any_opens = false;
    for proxy in &report.proxies {
        let Some(target) = &proxy.target else {
            say(
                format!("{} names no proxy that can be read", proxy.variable),
                Some("write http://HOST:PORT"),
            );
            continue;
        };
        let opens = report.tcp.iter().any(|check| check.target == *target && check.connect_ms.is_some());
        any_opens |= opens;
        if !opens {
            say(
                format!("the proxy {target} of {} cannot be reached", proxy.variable),
                Some("correct or unset the variable"),
            );
        }
    }
    let is_blocked = report.udp == Some(false) && !report.servers.iter().any(ServerReport::answers);
    if is_blocked && any_opens {
        say("a proxy is set: roots with wss: endpoints are reached through it".into(), None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Nameserver, ServerAddress, Target, Transport};
    use super::*;
    use crate::behavior::{Filtering, Observations, Sample};
    use crate::host::HostInterface;
    use crate::portmap::{Found, Protocol};

    fn report() -> Report {
        let host = HostInterface {
            name: "eth0".into(),
            index: 2,
            loopback: false,
            addresses: Vec::new(),
            routers: vec![[192, 168, 1, 1].into()],
        };
        Report {
            interfaces: vec![InterfaceReport { host, ipv4: None, ipv6: None, port_mapping: Vec::new() }],
            servers: Vec::new(),
            nameservers: Vec::new(),
            tcp: Vec::new(),
            proxies: Vec::new(),
            nat64: None,
            udp: None,
            advice: Vec::new(),
            took: Duration::ZERO,
        }
    }

    fn server(rtt: Option<f64>) -> ServerReport {
        let target = Target::parse("192.0.2.1:3478", Transport::Udp).expect("a target");
        let address = "192.0.2.1:3478".parse().expect("an endpoint");
        let address = ServerAddress { address, reachable: true, rtt_ms: rtt };
        ServerReport { target, addresses: vec![address], error: None }
    }

    fn tcp(opens: bool) -> TcpCheck {
        let target = Target::parse("192.0.2.1:443", Transport::Tcp).expect("a target");
        let address = "192.0.2.1:443".parse().expect("an endpoint");
        TcpCheck { target, address, connect_ms: opens.then_some(3.0), refused: false }
    }

    fn findings(report: &Report) -> String {
        let lines = advise(report).into_iter().map(|advice| advice.finding + "\n");
        lines.collect()
    }

    #[test]
    fn a_machine_without_a_network_is_told_so_first() {
        let mut report = report();
        report.interfaces[0].host.routers.clear();
        let first = &advise(&report)[0];
        assert!(first.finding.starts_with("no interface has a default route"), "{first:?}");
        assert!(first.what_to_do.as_ref().is_some_and(|text| text.starts_with("connect it to a network")));
        report.interfaces.clear();
        assert_eq!(advise(&report)[0].finding, first.finding);
    }

    #[test]
    fn without_a_server_it_says_what_cannot_be_known() {
        let said = findings(&report());
        assert_eq!(
            said,
            "no server was given, so it is not known whether UDP gets out, nor what NAT there is\n"
        );
    }

    #[test]
    fn blocked_udp_is_told_from_servers_that_are_down() {
        let silent = |opens| Report {
            udp: Some(false),
            servers: vec![server(None)],
            tcp: vec![tcp(opens)],
            ..report()
        };
        assert!(findings(&silent(true)).starts_with("UDP is blocked"));
        assert!(findings(&silent(false)).contains("or they are down"));
    }

    #[test]
    fn a_silent_nameserver_and_a_missing_route_are_named() {
        let address = [192, 0, 2, 53].into();
        let mut report = Report { nameservers: vec![Nameserver { address, rtt_ms: None }], ..report() };
        assert!(findings(&report).contains("DNS is blocked or down"));
        report.nameservers[0].rtt_ms = Some(1.0);
        assert!(!findings(&report).contains("DNS"));
        report.interfaces[0].host.routers.clear();
        assert!(findings(&report).contains("not on the Internet"));
    }

    #[test]
    fn every_kind_of_nat_has_its_words() {
        let local = "192.168.1.2:4000".parse().expect("an endpoint");
        let kinds = [
            ("192.168.1.2:4000", [true, true], "open to the Internet"),
            ("192.168.1.2:4000", [false, false], "a firewall"),
            ("203.0.113.1:1", [true, true], "full cone"),
            ("203.0.113.1:1", [false, true], "(restrict)"),
            ("203.0.113.1:1", [false, false], "restrict port"),
        ];
        for (mapped, [other, port], words) in kinds {
            let sample = |server: &str| Sample {
                local,
                server: server.parse().expect("an endpoint"),
                mapped: mapped.parse().expect("an endpoint"),
                rtt: Duration::ZERO,
            };
            let mut seen = Observations::none(local.ip());
            seen.asked = 1;
            seen.main = vec![sample("192.0.2.1:1"), sample("192.0.2.2:1")];
            (seen.from_other_address, seen.from_other_port) = (Some(other), Some(port));
            let mut report = Report { udp: Some(true), servers: vec![server(Some(1.0))], ..report() };
            let nat = seen.decide();
            report.interfaces[0].ipv4 = Some(NatReport { kind: nat.kind(), nat: nat.clone() });
            let said = findings(&report);
            assert!(said.contains("eth0, IPv4") && said.contains(words), "{said}");

            // Without RFC 5780 the kind is unknown if the filter decides it.
            let unknown = crate::behavior::Nat { filtering: None::<Filtering>, ..nat };
            report.interfaces[0].ipv4 = Some(NatReport { kind: unknown.kind(), nat: unknown });
            assert!(findings(&report).contains("not known"));
        }
    }

    #[test]
    fn without_a_nat_nothing_is_said_of_one() {
        let local: std::net::SocketAddr = "192.0.2.9:4000".parse().expect("an endpoint");
        let mut seen = Observations::none(local.ip());
        seen.asked = 1;
        let server_address = "192.0.2.1:1".parse().expect("an endpoint");
        seen.main = vec![Sample { local, server: server_address, mapped: local, rtt: Duration::ZERO }];
        let nat = seen.decide();
        assert_eq!((nat.translated, nat.kind()), (Some(false), None));
        let mut report = Report { udp: Some(true), servers: vec![server(Some(1.0))], ..report() };
        report.interfaces[0].ipv4 = Some(NatReport { kind: nat.kind(), nat });
        let said = findings(&report);
        assert!(said.contains("eth0, IPv4: no NAT") && said.contains("firewall"), "{said}");
        assert!(!said.contains("hole punching") && !said.contains("the NAT"), "{said}");
    }

    #[test]
    fn a_tcp_connection_that_is_refused_is_named_and_counts_as_none() {
        let target = Target::parse("root.example.org:7420", Transport::Tcp).expect("a target");
        let address = "192.0.2.1:7420".parse().expect("an endpoint");
        let refused = TcpCheck { target, address, connect_ms: None, refused: true };
        let silent = TcpCheck { refused: false, ..refused.clone() };
        let said = findings(&Report { tcp: vec![refused.clone()], ..report() });
        assert!(said.contains("the TCP connection to root.example.org:7420 is refused"), "{said}");
        // A server was given, although none for UDP.
        assert!(!said.contains("no server was given"), "{said}");
        let said = findings(&Report { tcp: vec![silent], ..report() });
        assert!(said.contains("the TCP connection to root.example.org:7420 does not open"), "{said}");
        let blocked =
            Report { udp: Some(false), servers: vec![server(None)], tcp: vec![refused], ..report() };
        let said = findings(&blocked);
        assert!(!said.contains("UDP is blocked") && !said.contains("nor by TCP"), "{said}");
        assert!(said.contains("no server answers over UDP, and TCP connections are refused"), "{said}");
    }

    #[test]
    fn a_second_nat_behind_the_router_is_seen() {
        let mut report = report();
        let found = |ip: [u8; 4]| Found { protocol: Protocol::NatPmp, external: Some(ip.into()) };
        report.interfaces[0].port_mapping = vec![found([100, 64, 0, 9])];
        assert!(findings(&report).contains("another NAT behind it"));
        report.interfaces[0].port_mapping = vec![found([203, 0, 113, 9])];
        assert!(!findings(&report).contains("another NAT"));
    }
}
