//! Names of members, and networks as interfaces.

use peersock_bsd::member_names;
use pyo3::prelude::*;

use crate::address::ip;
use crate::errors::errno;
use crate::sides::rules;

/// Returns the addresses of the member with this name, as texts; none if the name is no member's. Fails with
/// ENOENT if it ends with the name of a network in which no member has it, and with other errors if the node
/// has not answered. Then no other resolver must be asked.
#[pyfunction]
pub(crate) fn resolve(py: Python<'_>, name: &str) -> PyResult<Vec<String>> {
    let Some(rules) = rules().filter(|_| ip(name).is_none()) else { return Ok(Vec::new()) };
    let found = py.detach(|| member_names::addresses_of(&rules.client, name));
    found.map(|ips| ips.iter().map(ToString::to_string).collect()).map_err(|error| errno(py, error))
}

/// Returns the name of the member with this address. Fails if the node has not answered about an address that
/// may be a member's.
#[pyfunction]
pub(crate) fn name_of(py: Python<'_>, address: &str) -> PyResult<Option<String>> {
    let Some((rules, ip)) = rules().zip(ip(address)) else { return Ok(None) };
    let ip = ip.to_canonical();
    py.detach(|| match member_names::name_of(&rules.client, ip) {
        Err(_) if ip.is_loopback() || rules.is_overlays(ip) == Some(false) => Ok(None),
        name => name,
    })
    .map_err(|error| errno(py, error))
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
