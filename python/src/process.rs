//! What a launcher of programs needs of the system.

use peersock_bsd::filter;
use pyo3::prelude::*;
use rustix::process::{Resource, Rlimit};

use crate::errors::{described, errno};

/// Has the kernel refuse sockets of the Internet to the calling thread, and to all that it starts from now
/// on: what cannot be put on the overlay reaches nothing.
#[pyfunction]
pub(crate) fn keep_to_overlay(py: Python<'_>) -> PyResult<()> {
    filter::apply(true).map_err(|error| described(py, libc::ENOSYS, error))
}

/// Makes this process the parent of what its descendants leave behind.
#[pyfunction]
pub(crate) fn adopt_orphans(py: Python<'_>) -> PyResult<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|error| errno(py, error))
}

/// Has this process leave no dump of its memory when a signal ends it.
#[pyfunction]
pub(crate) fn forbid_dumps(py: Python<'_>) -> PyResult<()> {
    let maximum = rustix::process::getrlimit(Resource::Core).maximum;
    let none = Rlimit { current: Some(0), maximum };
    rustix::process::setrlimit(Resource::Core, none).map_err(|error| errno(py, error))
}
