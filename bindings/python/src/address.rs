//! Addresses as Python writes them: tuples of a host and a port, for IPv6 also of a flow label and a scope.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use peersock_bsd::Errno;
use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

/// Parses an address whose host is a number in the socket's family. Returns `None` for all else, because
/// names must be resolved before, and CPython's own socket has the best errors.
pub(crate) fn numeric(address: &Bound<'_, PyAny>, is_v6: bool) -> Option<SocketAddr> {
    let tuple = address.cast::<PyTuple>().ok()?;
    if !(2..=4).contains(&tuple.len()) || (!is_v6 && tuple.len() != 2) {
        return None;
    }
    let host = tuple.get_item(0).ok()?;
    let host = host.cast::<PyString>().ok()?.to_cow().ok()?;
    let port: u16 = tuple.get_item(1).ok()?.extract().ok()?;
    if !is_v6 {
        return Some((host.parse::<Ipv4Addr>().ok()?, port).into());
    }
    let number = |at: usize| -> Option<u32> {
        if tuple.len() > at { tuple.get_item(at).ok()?.extract().ok() } else { Some(0) }
    };
    let (flow, scope) = (number(2)?, number(3)?);
    if flow > 0xf_ffff {
        return None;
    }
    let ip = host.parse::<Ipv6Addr>().ok()?;
    // C keeps the flow label in network byte order.
    Some(SocketAddrV6::new(ip, port, flow.to_be(), scope).into())
}

/// Parses an address that a call requires.
pub(crate) fn needed(address: &Bound<'_, PyAny>, is_v6: bool) -> PyResult<SocketAddr> {
    numeric(address, is_v6).ok_or_else(|| crate::errors::errno(address.py(), Errno::INVAL))
}

/// Returns the tuple of an address.
pub(crate) fn tuple(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyAny>> {
    match address {
        SocketAddr::V4(v4) => (v4.ip().to_string(), v4.port()).into_bound_py_any(py),
        SocketAddr::V6(v6) => {
            let flow = u32::from_be(v6.flowinfo());
            (v6.ip().to_string(), v6.port(), flow, v6.scope_id()).into_bound_py_any(py)
        }
    }
}

/// Returns the tuple of an address, or Python's `None`.
pub(crate) fn optional(py: Python<'_>, address: Option<SocketAddr>) -> PyResult<Bound<'_, PyAny>> {
    address.map_or_else(|| Ok(py.None().into_bound(py)), |address| tuple(py, address))
}

/// Parses an address without a port.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
