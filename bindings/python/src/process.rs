//! System calls that a launcher of programs needs.

use std::ffi::OsStr;

use peersock_bsd::{Client, Rules, filter};
use peersock_run_library::Library;
use peersock_seccomp::Supervisor;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustix::process::{Resource, Rlimit};

use crate::errors::{described, errno, invalid, io_error};

/// The provided library. Other processes do not remove its file while this process runs.
static LIBRARY: PyOnceLock<Library> = PyOnceLock::new();

/// Supervisor that answers calls while this process runs.
static SUPERVISOR: PyOnceLock<Supervisor> = PyOnceLock::new();

/// Provides the library that reaches programs in other languages as a loadable file, and returns its path.
#[pyfunction]
pub(crate) fn provide_library(py: Python<'_>) -> PyResult<&'static OsStr> {
    Ok(library(py)?.path().as_os_str())
}

fn library(py: Python<'_>) -> PyResult<&'static Library> {
    LIBRARY.get_or_try_init(py, || Library::provide().map_err(|error| described(py, libc::EIO, error)))
}

/// Handles the socket calls of programs that make them directly, such as static programs and Go programs.
/// They must be started by a program with the preloaded library and the word `admits` in its rules.
///
/// # Errors
/// The errors of [`Supervisor::new`] and [`Supervisor::admit`].
pub(crate) fn admit(py: Python<'_>, environment: &str, words: &str) -> PyResult<()> {
    let supervise = || {
        let client = Client::of_variable(environment).ok_or_else(|| invalid("it names no node"))?;
        let library = library(py)?.name().to_owned();
        let started = Supervisor::new(Rules::new(client, words), Some(library))
            .and_then(|supervisor| supervisor.admit().map(|()| supervisor));
        started.map_err(|error| io_error(py, error))
    };
    SUPERVISOR.get_or_try_init(py, supervise).map(drop)
}

/// Makes the kernel filter the system calls of the calling thread and of its future children. They gain no
/// privileges, because the system does not preload the library into privileged programs. They have no
/// io_uring, because it bypasses the library. With `only` they get no Internet sockets, so sockets outside
/// the overlay reach nothing.
#[pyfunction]
pub(crate) fn filter_calls(py: Python<'_>, only: bool) -> PyResult<()> {
    filter::apply(only).map_err(|error| described(py, libc::ENOSYS, error))
}

/// Makes this process the parent of its orphaned descendants.
#[pyfunction]
pub(crate) fn adopt_orphans(py: Python<'_>) -> PyResult<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|error| errno(py, error))
}

/// Makes this process leave no core dump when a signal ends it.
#[pyfunction]
pub(crate) fn forbid_dumps(py: Python<'_>) -> PyResult<()> {
    let maximum = rustix::process::getrlimit(Resource::Core).maximum;
    let none = Rlimit { current: Some(0), maximum };
    rustix::process::setrlimit(Resource::Core, none).map_err(|error| errno(py, error))
}
