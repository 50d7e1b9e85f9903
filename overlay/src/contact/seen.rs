//! What several roots have seen of this node: what of it is believed, and what it says of the NAT box.
//!
//! One host has one voice, however many roots it runs: so nobody outvotes others alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Mapping, Seen};

/// What is believed of it: a root that another one has named cannot put this node behind an address where no
/// root of its own has seen it, and so among the neighbours of others there. If those have seen nothing, it
/// is better than nothing: a node without any public address takes everybody for a neighbour. Nor can one
/// host alone, where several others agree about another address.
pub(super) fn believed(seen: &[Seen]) -> Vec<&Seen> {
    let own: Vec<&Seen> = seen.iter().filter(|one| !one.is_guest).collect();
    if own.is_empty() {
        return seen.iter().collect();
    }
    let mut hosts: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for one in own {
        hosts.entry(one.voucher.address.ip()).or_default().insert(one.at.ip());
    }
    let is_believed = |one: &&Seen| {
        let here = one.voucher.address.ip();
        let Some(by) = hosts.get(&here) else { return false };
        let mut others = hosts.iter().filter(|(there, _)| there.is_ipv4() == here.is_ipv4());
        by.len() > 1 || !others.any(|(_, by)| by.len() > 1)
    };
    seen.iter().filter(is_believed).collect()
}

/// How the NAT box maps IPv4, or IPv6, as far as that follows; `is_own` says which addresses this node itself
/// has.
pub(super) fn mapping(seen: &[&Seen], is_ipv4: bool, is_own: impl Fn(&SocketAddr) -> bool) -> Mapping {
    let mut voices: BTreeMap<IpAddr, BTreeSet<View>> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.voucher.address.is_ipv4() == is_ipv4) {
        let address = one.voucher.address;
        let view = if is_own(&address) { View::Own } else { View::Mapped(address) };
        voices.entry(one.at.ip()).or_default().insert(view);
    }
    decide(&voices.into_values().collect::<Vec<_>>())
}

/// Where a root sees this node: on an interface of its own, or where somebody maps it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    Own,
    Mapped(SocketAddr),
}

/// Decides by what each host says. More than half of them must agree, unless no two do.
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
        // Nobody maps what others see at the node's own address: somebody lies, or there are several ways.
        _ if said.contains(&View::Own) => Mapping::Unknown,
        // Another port of one host: nothing is known of other hosts if it is the same.
        1 if said.len() == 1 => Mapping::Unknown,
        1 => Mapping::AddressAndPortDependent,
        // One of the two may lie about the address, which is the same behind most boxes. About the port he
        // may lie, too, which makes peers try more and nothing less.
        2 if ips.len() > 1 => Mapping::Unknown,
        _ if voices.iter().any(|voice| voice.len() > 1) => Mapping::AddressAndPortDependent,
        // It may depend on the port, too; that is not seen from here.
        _ => Mapping::AddressDependent,
    }
}
