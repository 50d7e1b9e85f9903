//! Evaluation of several roots' sightings of this node: which to believe, and how the NAT box maps.
//!
//! All roots on one host count as one voice, so that no host alone can outvote others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Mapping, Seen};

/// Returns the credible sightings.
pub(super) fn believed(seen: &[Seen]) -> Vec<&Seen> {
    let own: Vec<&Seen> = seen.iter().filter(|one| !one.is_guest).collect();
    // Guests' views are better than nothing, because a node without any public address takes all nodes for
    // neighbours.
    if own.is_empty() {
        return seen.iter().collect();
    }
    let mut hosts: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for one in own {
        hosts.entry(one.voucher.address.ip()).or_default().insert(one.at.ip());
    }
    // A guest cannot put this node behind an address, and so among its neighbours, where no given root has
    // seen it. Nor can one host, if several others agree on another address.
    let is_believed = |one: &&Seen| {
        let here = one.voucher.address.ip();
        let Some(by) = hosts.get(&here) else { return false };
        let mut others = hosts.iter().filter(|(there, _)| there.is_ipv4() == here.is_ipv4());
        by.len() > 1 || !others.any(|(_, by)| by.len() > 1)
    };
    seen.iter().filter(is_believed).collect()
}

/// Returns how the NAT box maps IPv4 or IPv6, as far as it can be inferred; `is_own` returns true for this
/// node's own addresses.
pub(super) fn mapping(seen: &[&Seen], is_ipv4: bool, is_own: impl Fn(&SocketAddr) -> bool) -> Mapping {
    let mut voices: BTreeMap<IpAddr, BTreeSet<View>> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.voucher.address.is_ipv4() == is_ipv4) {
        let address = one.voucher.address;
        let view = if is_own(&address) { View::Own } else { View::Mapped(address) };
        voices.entry(one.at.ip()).or_default().insert(view);
    }
    decide(&voices.into_values().collect::<Vec<_>>())
}

/// A root's view of this node: on an own interface, or at a mapped address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    Own,
    Mapped(SocketAddr),
}

/// Decides by the views of each host. More than half of the hosts must agree, unless no two do.
fn decide(voices: &[BTreeSet<View>]) -> Mapping {
    let said: BTreeSet<View> = voices.iter().flatten().copied().collect();
    let hosts = |view: &View| voices.iter().filter(|voice| voice.contains(view)).count();
    let Some(most) = said.iter().copied().max_by_key(|view| hosts(view)) else { return Mapping::Unknown };
    if said.len() == 1 && most == View::Own {
        return Mapping::NoNat;
    }
    if hosts(&most) > 1 {
        return match (2 * hosts(&most) > voices.len(), most) {
            (false, _) => Mapping::Unknown,
            (true, View::Own) => Mapping::NoNat,
            (true, View::Mapped(_)) => Mapping::EndpointIndependent,
        };
    }
    let ips: BTreeSet<IpAddr> = said
        .iter()
        .filter_map(|view| match view {
            View::Own => None,
            View::Mapped(address) => Some(address.ip()),
        })
        .collect();
    match voices.len() {
        // If one root sees the node's own address and another a mapped one, a root lies or there are several
        // ways.
        _ if said.contains(&View::Own) => Mapping::Unknown,
        // With one host and one view, other hosts may see another address.
        1 if said.len() == 1 => Mapping::Unknown,
        1 => Mapping::AddressAndPortDependent,
        // One of two may lie about the IP address, which most boxes keep. A lie about the port makes peers
        // try more, never less.
        2 if ips.len() > 1 => Mapping::Unknown,
        _ if voices.iter().any(|voice| voice.len() > 1) => Mapping::AddressAndPortDependent,
        // The port may depend on the destination port too, which these views cannot show.
        _ => Mapping::AddressDependent,
    }
}
