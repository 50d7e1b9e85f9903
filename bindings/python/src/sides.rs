//! Choice between kernel and overlay sockets, and the conversion to overlay sockets.

use std::os::fd::RawFd;
use std::sync::{Arc, RwLock};

use peersock_bsd::kernel::borrow;
use peersock_bsd::{Chosen, Client, Errno, Rules, Side, Sides, Socket, alongside, counterpart};
use pyo3::prelude::*;

use crate::address::numeric;
use crate::epoll;
use crate::errors::{errno, invalid};
use crate::wait::at_once;

/// The rules of this process. Only a thread with the interpreter's lock takes this lock, so it is free during
/// a fork.
static RULES: RwLock<Option<Arc<Rules>>> = RwLock::new(None);

/// Returns the rules; `None` while there is no node.
pub(crate) fn rules() -> Option<Arc<Rules>> {
    RULES.read().ok()?.clone()
}

/// Makes sockets use the node in `environment` (the value of `PEERSOCK_NODE`), by the rules in `words`.
#[pyfunction]
pub(crate) fn set_rules(environment: &str, words: &str) -> PyResult<()> {
    let client = Client::of_variable(environment);
    let rules = Rules::new(client.ok_or_else(|| invalid("PEERSOCK_NODE does not name a node"))?, words);
    *RULES.write().map_err(invalid)? = Some(Arc::new(rules));
    Ok(())
}

/// Makes new sockets kernel sockets.
#[pyfunction]
pub(crate) fn clear_rules() -> PyResult<()> {
    *RULES.write().map_err(invalid)? = None;
    Ok(())
}

/// Returns true if there is a node to use.
#[pyfunction]
pub(crate) fn has_rules() -> bool {
    rules().is_some()
}

/// Results of a choice: a kernel socket, an overlay socket whose call is still to come, or an overlay socket
/// whose call is done.
const KERNEL: i32 = 0;
const OVERLAY: i32 = 1;
const DONE: i32 = 2;

/// Returns true if the socket remains a kernel socket for a connection to `address`, whose host must be a
/// number. False is no decision: [`choose_by_remote`] makes it.
#[pyfunction]
pub(crate) fn stays_kernels(py: Python<'_>, fd: RawFd, address: &Bound<'_, PyAny>, is_v6: bool) -> bool {
    let (Some(remote), Some(rules)) = (numeric(address, is_v6), rules()) else { return false };
    borrow(fd).is_some_and(|fd| Socket::of(fd).is_none())
        && py.detach(|| rules.of_remote(remote)) == Side::Kernel
}

/// Returns true if the socket is an overlay socket for a connection to `address`. It becomes one if the
/// address belongs to the overlay.
#[pyfunction]
pub(crate) fn choose_by_remote(
    py: Python<'_>,
    fd: RawFd,
    address: &Bound<'_, PyAny>,
    is_v6: bool,
) -> PyResult<bool> {
    let remote = numeric(address, is_v6);
    let towards = |sides: &Sides<'_>| {
        sides.towards(fd, remote).map(|socket| socket.map_or(Chosen::Kernels, Chosen::Overlays))
    };
    choose(py, fd, towards).map(|chosen| chosen != KERNEL)
}

/// Returns the socket's side for a bind to `address`. If a UDP socket is on both sides, this call binds it.
#[pyfunction]
pub(crate) fn choose_by_local(
    py: Python<'_>,
    fd: RawFd,
    address: &Bound<'_, PyAny>,
    is_v6: bool,
) -> PyResult<i32> {
    let local = numeric(address, is_v6);
    choose(py, fd, |sides| sides.by_local(fd, local))
}

/// Returns the socket's side for a listen on its bound address, if the side was open so far. If a stream is
/// on both sides, this call makes it listen with this backlog.
#[pyfunction]
pub(crate) fn choose_by_listen(py: Python<'_>, fd: RawFd, backlog: i32) -> PyResult<i32> {
    choose(py, fd, |sides| sides.by_listen(fd, backlog))
}

/// Makes a UDP socket at any port reachable from the overlay, too. It stays a kernel socket if the overlay
/// has no room for it.
#[pyfunction]
pub(crate) fn share(py: Python<'_>, fd: RawFd) {
    if let Some(rules) = rules() {
        let _ = py.detach(|| sides(&rules).share(fd));
    }
}

/// Makes the node forget closed sockets that are bound to a port. Returns false if there is no node.
#[pyfunction]
pub(crate) fn vacate(py: Python<'_>, port: u16) -> bool {
    rules().is_some_and(|rules| py.detach(|| alongside::vacate(&rules.client, port)).is_ok())
}

fn sides(rules: &Rules) -> Sides<'_> {
    Sides { rules, counterpart, sets: epoll::find, wakes: true }
}

fn choose(
    py: Python<'_>,
    fd: RawFd,
    decide: impl Fn(&Sides<'_>) -> Result<Chosen<'static>, Errno> + Send + Sync,
) -> PyResult<i32> {
    let Some(borrowed) = borrow(fd) else { return Err(errno(py, Errno::BADF)) };
    let Some(rules) = rules() else {
        return Ok(if Socket::of(borrowed).is_some() { OVERLAY } else { KERNEL });
    };
    at_once(py, || {
        decide(&sides(&rules)).map(|chosen| match chosen {
            Chosen::Kernels => KERNEL,
            Chosen::Overlays(_) => OVERLAY,
            Chosen::Done => DONE,
        })
    })
}
