//! Names of members: what this node knows of them, and questions to the controllers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::slice;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peersock_datapath::JoinedNetwork;
use peersock_overlay::NetworkId;
use peersock_overlay::membership::MemberName;
use peersock_stack::Batch;

use super::super::Inner;
use super::Shared;
use crate::sync;

/// Longest wait for a controller's answer about a name. Programs wait for names.
const NAME_WAIT: Duration = Duration::from_millis(800);

/// Interval of the checks for that answer.
const NAME_POLL: Duration = Duration::from_millis(5);

/// Networks by the names that this machine, or one of its programs, gives them.
pub(crate) type LocalNames = BTreeMap<MemberName, NetworkId>;

/// Networks in which a name is looked up, and local names beside those of managed networks.
pub(crate) type Among<'a> = (&'a [JoinedNetwork], &'a LocalNames);

/// Returns a name without the dot at its end, which stands for the root of the DNS.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns the network that a name ends with, by its local name or ID, and the name before it: `alpha.team`
/// is the member `alpha` of `team`, whichever other member has a program with the label `alpha`.
pub(crate) fn of_network<'a, 'b>(
    node: &Inner,
    name: &'a str,
    (networks, names): Among<'b>,
) -> Option<(&'a str, &'b JoinedNetwork)> {
    let (member, end) = without_root(name).rsplit_once('.')?;
    let id = end.parse().ok();
    let managed = sync::lock(&node.managed);
    let named = end.to_ascii_lowercase().parse::<MemberName>().ok().and_then(|end| names.get(&end).copied());
    let is_called = |network: &&JoinedNetwork| {
        let has_name = |shared: &Arc<Shared>| {
            let local = sync::lock(&shared.local_name);
            local.as_deref().is_some_and(|local| local.eq_ignore_ascii_case(end))
        };
        [id, named].contains(&Some(network.id)) || managed.get(&network.id).is_some_and(has_name)
    };
    networks.iter().find(is_called).map(|network| (member, network))
}

/// Returns the addresses of the members with a name in these networks, as far as this node knows them.
pub(crate) fn known_addresses(node: &Inner, name: &str, among: Among<'_>) -> Vec<IpAddr> {
    let found = |name, networks: &[JoinedNetwork]| {
        let is_meant = |id| networks.iter().any(|network| network.id == id);
        node.driver.datapath.addresses_named(Instant::now(), name, is_meant)
    };
    match of_network(node, name, among) {
        Some((member, network)) => found(member, slice::from_ref(network)),
        None => found(without_root(name), among.0),
    }
}

/// Does the same. Of a managed network, asks the controller for a member that this node has not met, and
/// waits for its answer.
pub(crate) fn addresses_named(node: &Inner, name: &str, among: Among<'_>) -> Vec<IpAddr> {
    let begun = Instant::now();
    loop {
        let found = known_addresses(node, name, among);
        if !found.is_empty() || begun.elapsed() >= NAME_WAIT || !search_name(node, name, among) {
            return found;
        }
        thread::sleep(NAME_POLL);
    }
}

/// Asks the controllers of managed networks for the member or program with a name, if one may have it.
/// Returns false once they have said that none has it.
pub(crate) fn search_name(node: &Inner, name: &str, among: Among<'_>) -> bool {
    // This name is every machine's.
    if without_root(name).eq_ignore_ascii_case("localhost") {
        return false;
    }
    let (now, mut batch) = (Instant::now(), Batch::default());
    let mut ask =
        |name, network: &JoinedNetwork| node.driver.datapath.find_name(now, network.index, name, &mut batch);
    match of_network(node, name, among) {
        Some((member, network)) => ask(member, network),
        // All are asked.
        None => among.0.iter().filter(|network| ask(without_root(name), network)).count() > 0,
    }
}

/// Returns true if a controller has just said that no member has this name in the network with which it ends.
pub(crate) fn is_name_absent(node: &Inner, name: &str, among: Among<'_>) -> bool {
    of_network(node, name, among).is_some_and(|(member, network)| {
        node.driver.datapath.is_name_absent(Instant::now(), network.index, member)
    })
}
