//! What a launcher of programs needs of the system.

use std::ffi::OsStr;

use peersock_bsd::filter;
use peersock_run_library::Library;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustix::process::{Resource, Rlimit};

use crate::errors::{described, errno};

/// Others do not remove its file for as long as this process runs.
static LIBRARY: PyOnceLock<Library> = PyOnceLock::new();

/// Puts the library that reaches programs in other languages where they can load it, and gives its path.
#[pyfunction]
pub(crate) fn provide_library(py: Python<'_>) -> PyResult<&'static OsStr> {
    let provide = || Library::provide().map_err(|error| described(py, libc::EIO, error));
    Ok(LIBRARY.get_or_try_init(py, provide)?.path().as_os_str())
}

/// Has the kernel refuse sockets of the Internet to the calling thread, and to all that it starts from now
/// on: what cannot be put on the overlay reaches nothing.
#[pyfunction]
pub(crate) fn keep_to_overlay(py: Python<'_>) -> PyResult<()> {
    filter::apply(true, filter::NodeAt::Here).map_err(|error| described(py, libc::ENOSYS, error))
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
