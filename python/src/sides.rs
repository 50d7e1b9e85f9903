//! Which sockets are the overlay's, and their becoming so.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, RwLock};

use peersock_bsd::kernel::{borrow, int_option};
use peersock_bsd::{Client, Errno, Rules, Side, Socket, alongside, convert, counterpart, is_any};
use peersock_fd::{NodeTag, Token};
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
    let parsed = environment.split_once(':').and_then(|(tag, token)| {
        let tag = NodeTag(u32::from_str_radix(tag, 16).ok()?);
        Some((tag, Token(u128::from_str_radix(token, 16).ok()?)))
    });
    let (tag, token) = parsed.ok_or_else(|| invalid("PEERSOCK_NODE does not name a node"))?;
    let rules = Rules::new(Client::new(tag, token), words);
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

/// Whether the socket is the overlay's, now that it wants to reach `address`. It becomes so if the address
/// is.
#[pyfunction]
pub(crate) fn choose_by_remote(
    py: Python<'_>,
    fd: RawFd,
    address: &Bound<'_, PyAny>,
    is_v6: bool,
) -> PyResult<bool> {
    let chosen = choose_side(py, fd, |rules| match numeric(address, is_v6) {
        Some(remote) if remote.ip().is_unspecified() => Side::Kernel,
        Some(remote) => rules.of_remote(remote),
        // Of what is wrong the kernel's socket shall complain.
        None => Side::Kernel,
    });
    chosen.map(|chosen| chosen != KERNEL)
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
    if let Some(local) = local
        && int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Some(libc::IPPROTO_UDP)
        && bound(fd).is_some_and(|bound| bound.port() == 0)
        && let Some(rules) = kernels_for(fd, local, Side::Both)
    {
        at_once(py, || alongside::bind_datagrams(&rules, fd, local, counterpart, epoll::find))?;
        return Ok(DONE);
    }
    if let Some(local) = local
        && is_any(local)
        && int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
        && bound(fd).is_some_and(|bound| bound.port() == 0)
        && let Some(rules) = kernels_for(fd, local, Side::Overlay)
        // Where that fails the kernel's own call tells the reason.
        && at_once(py, || alongside::bind_to_any(&rules.client, fd, local)).is_ok()
    {
        return Ok(DONE);
    }
    choose_side(py, fd, |rules| match local {
        // A client that binds to nothing in particular: connecting, sending or listening will tell.
        Some(local) if is_any(local) => Side::Kernel,
        Some(local) => match rules.of_local(local) {
            // Whether a stream listens is not known yet; of what is bound already the kernel shall complain
            // itself.
            Side::Both => Side::Kernel,
            side => side,
        },
        None => Side::Kernel,
    })
}

/// Which side the socket is on, now that it is to be reached where it is bound, which was left open so far. A
/// stream of both listens, with this backlog.
#[pyfunction]
pub(crate) fn choose_by_listen(py: Python<'_>, fd: RawFd, backlog: i32) -> PyResult<i32> {
    let local = bound(fd).unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
    if int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
        && let Some(rules) = kernels_for(fd, local, Side::Both)
    {
        at_once(py, || alongside::listen(&rules, fd, local, backlog, counterpart, epoll::find))?;
        return Ok(DONE);
    }
    let was_overlays = borrow(fd).and_then(Socket::of).is_some();
    let chosen = choose_side(py, fd, |rules| rules.of_local(local))?;
    if chosen == OVERLAY && !was_overlays && local.port() != 0 {
        // The program may have been told the port already.
        at_once(py, || borrow(fd).and_then(Socket::of).ok_or(Errno::BADF)?.bind(local))?;
    }
    Ok(chosen)
}

/// The rules, if a socket of the kernel's that is to be reached at `local` belongs on that side.
fn kernels_for(fd: RawFd, local: SocketAddr, side: Side) -> Option<Arc<Rules>> {
    let is_kernels = borrow(fd).is_some_and(|fd| Socket::of(fd).is_none());
    rules().filter(|rules| is_kernels && is_candidate(fd) && rules.of_local(local) == side)
}

/// Has the node forget closed sockets that are bound to a port. False if there is no node.
#[pyfunction]
pub(crate) fn vacate(py: Python<'_>, port: u16) -> bool {
    rules().is_some_and(|rules| py.detach(|| alongside::vacate(&rules.client, port)).is_ok())
}

fn choose_side(py: Python<'_>, fd: RawFd, side: impl FnOnce(&Rules) -> Side) -> PyResult<i32> {
    let Some(borrowed) = borrow(fd) else { return Err(errno(py, Errno::BADF)) };
    if Socket::of(borrowed).is_some() {
        return Ok(OVERLAY);
    }
    let Some(rules) = rules().filter(|_| is_candidate(fd)) else { return Ok(KERNEL) };
    match side(&rules) {
        Side::Kernel => Ok(KERNEL),
        Side::Nowhere(error) => Err(errno(py, error)),
        Side::Overlay | Side::Both => {
            at_once(py, || convert(&rules.client, fd, epoll::find)).map(|()| OVERLAY)
        }
    }
}

/// Whether it is an IPv4 or IPv6 socket of the kernel's that the overlay could have.
fn is_candidate(fd: RawFd) -> bool {
    let option = |name| int_option(fd, libc::SOL_SOCKET, name);
    let has_family = matches!(option(libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6));
    let kinds = [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
    let is_raw = option(libc::SO_TYPE) == Some(libc::SOCK_RAW);
    has_family && (is_raw || option(libc::SO_PROTOCOL).is_some_and(|protocol| kinds.contains(&protocol)))
}

/// The address that a socket of the kernel's is bound to.
fn bound(fd: RawFd) -> Option<SocketAddr> {
    let address = rustix::net::getsockname(borrow(fd)?).ok()?;
    SocketAddr::try_from(address).ok()
}
