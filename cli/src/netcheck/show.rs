//! The report for people.

use std::fmt::Write as _;

use peersock::interfaces::RootList;
use peersock::netcheck::{InterfaceReport, NatReport, Report, Target};
use peersock_nat::{DeltaKind, Nat};

use crate::style::{BOLD, HINT, paint};

/// Column of the values.
const WIDTH: usize = 13;

/// Returns the whole report, as lines without the final line feed.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let network = &report.network;
    let origin = |target: &Target| match report.origins.get(target) {
        None => String::new(),
        Some(origin) => format!("  (listed by {origin})"),
    };
    for interface in &network.interfaces {
        interface_lines(&mut text, interface);
    }
    if let Some(prefix) = network.nat64 {
        line(&mut text, "NAT64", prefix);
    }
    for RootList { source, roots, error, .. } in &report.lists {
        let said =
            error.clone().unwrap_or_else(|| format!("{roots} root{}", if *roots == 1 { "" } else { "s" }));
        line(&mut text, "list", format_args!("{source}  {said}"));
    }
    for server in &network.servers {
        let origin = origin(&server.target);
        if let Some(error) = &server.error {
            line(&mut text, "server", format_args!("{}  {error}{origin}", server.target));
        }
        for at in &server.addresses {
            let is_named_so = server.target.to_string() == at.address.to_string();
            let name = if is_named_so { String::new() } else { format!("  {}", server.target) };
            let outcome = if at.reachable { answer(at.rtt_ms) } else { "no interface leads there".into() };
            line(&mut text, "server", format_args!("{}{name}  UDP {outcome}{origin}", at.address));
        }
    }
    for root in &report.roots {
        line(&mut text, "root", format_args!("{}  {}", root.place(), root.state));
    }
    for nameserver in &network.nameservers {
        line(&mut text, "nameserver", format_args!("{}  {}", nameserver.address, answer(nameserver.rtt_ms)));
    }
    for check in &network.tcp {
        let outcome = match check.connect_ms {
            Some(time) => format!("opens in {time:.1} ms"),
            None if check.refused => "refused".into(),
            None => "no answer".into(),
        };
        line(&mut text, "TCP", format_args!("{}  {outcome}{}", check.target, origin(&check.target)));
    }
    for check in &report.turn {
        let by = check.proxy.as_ref().map(|proxy| format!("  by way of {proxy}")).unwrap_or_default();
        let outcome = match (check.relayed, check.reached) {
            (Some(relayed), _) => format!("relays at {relayed}, {}", answer(check.rtt_ms)),
            (None, true) => format!("gives no address, {}", answer(check.rtt_ms)),
            (None, false) => "not reached".into(),
        };
        line(&mut text, "TURN", format_args!("{}  {outcome}{by}", check.server));
    }
    for proxy in &network.proxies {
        let place = proxy.target.as_ref().map_or_else(|| "not readable".into(), ToString::to_string);
        line(&mut text, "proxy", format_args!("{place}  {} of {}", proxy.scheme, proxy.variable));
    }
    let _ = write!(text, "\n{}", paint(BOLD, "What this means"));
    for advice in &network.advice {
        let _ = write!(text, "\n* {}", advice.finding);
        if let Some(what_to_do) = &advice.what_to_do {
            let _ = write!(text, "\n  {} {what_to_do}", paint(HINT, "to do:"));
        }
    }
    text
}

fn interface_lines(text: &mut String, interface: &InterfaceReport) {
    let host = &interface.host;
    let _ = writeln!(text, "{}", paint(BOLD, &host.name));
    for address in &host.addresses {
        line(text, "  address", format_args!("{}/{}", address.ip, address.prefix));
    }
    for router in &host.routers {
        line(text, "  router", router);
    }
    for (family, report) in [("  IPv4", &interface.ipv4), ("  IPv6", &interface.ipv6)] {
        if let Some(report) = report {
            line(text, family, nat(report));
        }
    }
    let ports: Vec<String> = interface
        .port_mapping
        .iter()
        .map(|found| {
            let outside = found.external.map(|external| format!(" (outside {external})"));
            format!("{}{}", found.protocol, outside.unwrap_or_default())
        })
        .collect();
    if !host.routers.is_empty() {
        let ports =
            if ports.is_empty() { "the router opens none on request".into() } else { ports.join(", ") };
        line(text, "  ports", ports);
    }
}

fn nat(report: &NatReport) -> String {
    let NatReport { kind, nat, .. } = report;
    let Nat { mapping, filtering, .. } = nat;
    if nat.udp != Some(true) {
        return "no answer over UDP".into();
    }
    let mut parts = Vec::new();
    parts.push(match (kind, nat.translated) {
        (Some(kind), _) => kind.to_string(),
        (None, Some(false)) => "no NAT".into(),
        (None, _) => "NAT of unknown kind".into(),
    });
    parts.extend(nat.mapped.map(|mapped| format!("seen as {mapped}")));
    if nat.translated == Some(true) {
        parts.extend(mapping.map(|mapping| format!("mapping {mapping}")));
    }
    parts.extend(filtering.map(|filtering| format!("filtering {filtering}")));
    if nat.translated == Some(true) {
        parts.extend(nat.delta.map(|delta| match delta.kind {
            DeltaKind::Equal | DeltaKind::Random => format!("ports {}", delta.kind),
            kind => format!("ports {kind} {:+}", delta.value),
        }));
        parts.extend(nat.hairpin.map(|hairpin| if hairpin { "hairpin".into() } else { "no hairpin".into() }));
    }
    parts.join(", ")
}

fn answer(rtt: Option<f64>) -> String {
    rtt.map_or_else(|| "no answer".into(), |rtt| format!("{rtt:.1} ms"))
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name:WIDTH$}{value}");
}
