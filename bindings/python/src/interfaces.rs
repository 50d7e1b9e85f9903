//! The machine's own interfaces. `peersock/interfaces` makes Python objects of them.

use std::time::Duration;

use peersock::interfaces::{
    Interface, Target, Transport, addresses_of, list_interfaces, servers_of_environment,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::io_error;

/// Returns the names of the interfaces that are up, the default one first.
#[pyfunction]
pub(crate) fn interface_names(py: Python<'_>) -> PyResult<Vec<String>> {
    py.detach(list_interfaces).map_err(|error| io_error(py, error))
}

/// Returns an interface with its routes, as JSON. Without a name it is the default one.
#[pyfunction]
pub(crate) fn load_interface(
    py: Python<'_>,
    name: Option<&str>,
    stun: Option<Vec<String>>,
    timeout: f64,
) -> PyResult<String> {
    let (targets, timeout) = (targets(stun)?, duration(timeout)?);
    let load = || Interface::load(name, &addresses_of(&targets)?, timeout);
    py.detach(load).map(|nic| nic.to_json()).map_err(|error| io_error(py, error))
}

/// Returns an interface with the NAT in front of it and without external addresses, as JSON.
#[pyfunction]
pub(crate) fn load_nat(
    py: Python<'_>,
    name: &str,
    stun: Option<Vec<String>>,
    timeout: f64,
) -> PyResult<String> {
    let (targets, timeout) = (targets(stun)?, duration(timeout)?);
    let load = || {
        let mut nic = Interface::load(Some(name), &[], timeout)?;
        nic.load_nat(&addresses_of(&targets)?, timeout)?;
        Ok(nic)
    };
    py.detach(load).map(|nic| nic.to_json()).map_err(|error| io_error(py, error))
}

/// Returns the caller's servers, else those from the environment.
fn targets(stun: Option<Vec<String>>) -> PyResult<Vec<Target>> {
    let target = |text: &String| {
        let wrong = || PyValueError::new_err(format!("'{text}' is not HOST:PORT"));
        Target::parse(text, Transport::Udp).ok_or_else(wrong)
    };
    match stun {
        Some(stun) => stun.iter().map(target).collect(),
        None => servers_of_environment(&[]).map_err(|error| PyValueError::new_err(error.to_string())),
    }
}

fn duration(seconds: f64) -> PyResult<Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| PyValueError::new_err("the timeout must be a positive number of seconds"))
}
