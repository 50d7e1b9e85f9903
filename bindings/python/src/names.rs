//! Names of members, and networks as interfaces.

use peersock_fd::{Reply, Request};
use pyo3::prelude::*;

use crate::address::ip;
use crate::sides::rules;

/// Returns the addresses of the member with this name, as texts.
#[pyfunction]
pub(crate) fn resolve(py: Python<'_>, name: &str) -> Vec<String> {
    let Some(rules) = rules().filter(|_| !name.is_empty() && ip(name).is_none()) else { return Vec::new() };
    match py.detach(|| rules.client.ask(Request::Resolve(name.to_owned()))) {
        Ok(Reply::Resolved(ips)) => ips.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

/// Returns the name of the member with this address.
#[pyfunction]
pub(crate) fn name_of(py: Python<'_>, address: &str) -> Option<String> {
    let (rules, ip) = (rules()?, ip(address)?.to_canonical());
    match py.detach(|| rules.client.ask(Request::NameOf(ip))) {
        Ok(Reply::Name(name)) => name,
        _ => None,
    }
}

/// Returns true if an address belongs to the overlay.
#[pyfunction]
pub(crate) fn is_overlays(py: Python<'_>, address: &str) -> bool {
    let Some((rules, ip)) = rules().zip(ip(address)) else { return false };
    !ip.to_canonical().is_loopback() && py.detach(|| rules.is_overlays(ip)) == Some(true)
}

/// Returns the node's own addresses in its networks, as texts.
#[pyfunction]
pub(crate) fn own_addresses(py: Python<'_>) -> Vec<String> {
    let Some(rules) = rules() else { return Vec::new() };
    let found = py.detach(|| rules.client.interfaces());
    found.into_iter().flat_map(|found| found.addresses).map(|own| own.address.to_string()).collect()
}

/// Returns the networks as interfaces: index and name.
#[pyfunction]
pub(crate) fn interfaces(py: Python<'_>) -> Vec<(u32, String)> {
    let Some(rules) = rules() else { return Vec::new() };
    let found = py.detach(|| rules.client.interfaces());
    found.into_iter().map(|found| (found.index, found.name)).collect()
}
