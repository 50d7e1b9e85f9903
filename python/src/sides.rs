//! Which sockets are the overlay's, and their becoming so.

use std::os::fd::RawFd;
use std::sync::{Arc, RwLock};

use peersock_bsd::kernel::borrow;
use peersock_bsd::{Chosen, Client, Errno, Rules, Side, Sides, Socket, alongside, counterpart};
use pyo3::prelude::*;

use crate::address::numeric;
use crate::epoll;
use crate::errors::{errno, invalid};
use crate::wait::at_once;

/// The rules of this process. The lock is only taken by who has the interpreter's, and so not held when it
/// forks.
static RULES: RwLock<Option<Arc<Rules>>> = RwLock::new(None);

/// The rules; `None` while there is no node.
pub(crate) fn rules() -> Option<Arc<Rules>> {
    RULES.read().ok()?.clone()
}

/// Has sockets use the node that `environment` names (the value of `PEERSOCK_NODE`), by the rules of `words`.
#[pyfunction]
pub(crate) fn set_rules(environment: &str, words: &str) -> PyResult<()> {
    let client = Client::of_variable(environment);
    let rules = Rules::new(client.ok_or_else(|| invalid("PEERSOCK_NODE does not name a node"))?, words);
    *RULES.write().map_err(invalid)? = Some(Arc::new(rules));
    Ok(())
}

/// Has new sockets be the kernel's.
#[pyfunction]
pub(crate) fn clear_rules() -> PyResult<()> {
    *RULES.write().map_err(invalid)? = None;
    Ok(())
}

/// Whether there is a node to use.
#[pyfunction]
pub(crate) fn has_rules() -> bool {
    rules().is_some()
}

/// It is the kernel's, or it is the overlay's and the call is still to be made, or it is made: what choosing
/// a side gives.
const KERNEL: i32 = 0;
const OVERLAY: i32 = 1;
const DONE: i32 = 2;

/// Whether the socket is the kernel's and stays so, now that it wants to reach `address`, whose host has to be a
/// number. False is no answer: [`choose_by_remote`] has one.
#[pyfunction]
pub(crate) fn stays_kernels(py: Python<'_>, fd: RawFd, address: &Bound<'_, PyAny>, is_v6: bool) -> bool {
    let (Some(remote), Some(rules)) = (numeric(address, is_v6), rules()) else { return false };
    borrow(fd).is_some_and(|fd| Socket::of(fd).is_none())
        && py.detach(|| rules.of_remote(remote)) == Side::Kernel
}

/// Whether the socket is the overlay's, now that it wants to reach `address`. It becomes so if the address
/// is.
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

/// Which side the socket is on, now that it is to be bound to `address`. A UDP socket of both is bound.
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

/// Which side the socket is on, now that it is to be reached where it is bound, which was left open so far. A
/// stream of both listens, with this backlog.
#[pyfunction]
pub(crate) fn choose_by_listen(py: Python<'_>, fd: RawFd, backlog: i32) -> PyResult<i32> {
    choose(py, fd, |sides| sides.by_listen(fd, backlog))
}

/// Has a UDP socket at any port be reached from the overlay, too. Where that has no room for it, it stays the
/// kernel's.
#[pyfunction]
pub(crate) fn share(py: Python<'_>, fd: RawFd) {
    if let Some(rules) = rules() {
        let _ = py.detach(|| sides(&rules).share(fd));
    }
}

/// Has the node forget closed sockets that are bound to a port. False if there is no node.
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
