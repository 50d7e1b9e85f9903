//! Opening, addresses and connections.

use std::os::fd::{IntoRawFd as _, RawFd};

use peersock_bsd::kernel::borrow;
use peersock_bsd::{Errno, Socket, connect_to, make_private};
use peersock_fd::{Family, Kind, Request, SocketFlags, Which};
use pyo3::prelude::*;
use rustix::event::PollFlags;
use rustix::net::sockopt;

use crate::address::{needed, tuple};
use crate::epoll;
use crate::errors::errno;
use crate::sides::rules;
use crate::wait::{self, Patience, at_once};

/// Returns the overlay socket behind a descriptor. The caller knows that it is one.
pub(crate) fn overlay<'fd>(fd: RawFd) -> Result<Socket<'fd>, Errno> {
    borrow(fd).and_then(Socket::of).ok_or(Errno::BADF)
}

/// Returns the overlay socket behind a descriptor, and whether it is an IPv6 socket.
fn with_family<'fd>(py: Python<'_>, fd: RawFd) -> PyResult<(Socket<'fd>, bool)> {
    let socket = overlay(fd).map_err(|error| errno(py, error))?;
    let is_v6 = socket.family() == Family::V6;
    Ok((socket, is_v6))
}

/// Returns true if a descriptor is an overlay socket.
#[pyfunction]
pub(crate) fn is_overlay(fd: RawFd) -> bool {
    borrow(fd).and_then(Socket::of).is_some()
}

/// Returns the meaning of the kernel error ECONNRESET or EPIPE on a descriptor. For an overlay stream, the
/// node knows it.
#[pyfunction]
pub(crate) fn stream_error(py: Python<'_>, fd: RawFd, number: i32) -> i32 {
    let error = Errno::from_raw_os_error(number);
    let meaning = || borrow(fd).and_then(Socket::of).map_or(error, |socket| socket.stream_error(error));
    py.detach(meaning).raw_os_error()
}

/// Returns family, type and protocol of an overlay socket; `None` for every other descriptor.
#[pyfunction]
pub(crate) fn socket_of(fd: RawFd) -> Option<(i32, i32, i32)> {
    let socket = Socket::of(borrow(fd)?)?;
    let (family, icmp) = match socket.family() {
        Family::V4 => (libc::AF_INET, libc::IPPROTO_ICMP),
        Family::V6 => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    let (kind, protocol) = match socket.kind() {
        Kind::Stream => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Kind::Datagram => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Kind::Echo => (libc::SOCK_DGRAM, icmp),
        Kind::Raw(protocol) => (libc::SOCK_RAW, protocol.into()),
    };
    Some((family, kind, protocol))
}

/// Opens an overlay socket. Returns its descriptor.
#[pyfunction]
pub(crate) fn open_socket(py: Python<'_>, family: i32, kind: i32, protocol: i32) -> PyResult<RawFd> {
    let rules = rules().ok_or_else(|| errno(py, Errno::NETDOWN))?;
    at_once(py, || peersock_bsd::socket(&rules.client, family, kind | libc::SOCK_CLOEXEC, protocol))
}

/// bind(2).
#[pyfunction]
pub(crate) fn bind(py: Python<'_>, fd: RawFd, address: &Bound<'_, PyAny>) -> PyResult<()> {
    let (socket, is_v6) = with_family(py, fd)?;
    let local = needed(address, is_v6)?;
    at_once(py, || {
        socket.bind(local)?;
        make_private(&socket, epoll::find)
    })
}

/// listen(2).
#[pyfunction]
pub(crate) fn listen(py: Python<'_>, fd: RawFd, backlog: i32) -> PyResult<()> {
    at_once(py, || {
        let socket = overlay(fd)?;
        make_private(&socket, epoll::find)?;
        socket.listen(backlog)
    })
}

/// accept(2). Returns the descriptor, which is not inheritable, and the peer's address.
#[pyfunction]
pub(crate) fn accept(py: Python<'_>, fd: RawFd, timeout: Option<f64>) -> PyResult<(RawFd, Bound<'_, PyAny>)> {
    let accept = || overlay(fd)?.accept(SocketFlags::CLOEXEC);
    let (accepted, peer) = wait::call(py, fd, PollFlags::IN, Patience::new(timeout), accept)?;
    Ok((accepted.into_raw_fd(), tuple(py, peer)?))
}

/// connect(2), with the result of `connect_ex`: 0 or an `errno`, EWOULDBLOCK after the timeout.
#[pyfunction]
pub(crate) fn connect(
    py: Python<'_>,
    fd: RawFd,
    address: &Bound<'_, PyAny>,
    timeout: Option<f64>,
) -> PyResult<i32> {
    let (_, is_v6) = with_family(py, fd)?;
    let remote = needed(address, is_v6)?;
    let patience = Patience::new(timeout);
    let has_timeout = timeout.is_some_and(|seconds| seconds > 0.0);
    match py.detach(|| connect_to(&overlay(fd)?, remote, epoll::find)) {
        Ok(()) => return Ok(0),
        // The attempt goes on.
        Err(Errno::INTR) => {
            py.check_signals()?;
            if timeout == Some(0.0) {
                return Ok(libc::EINTR);
            }
        }
        Err(Errno::INPROGRESS) if has_timeout => {}
        Err(error) => return Ok(error.raw_os_error()),
    }
    if !wait::ready(py, fd, PollFlags::OUT, patience)? {
        return Ok(libc::EWOULDBLOCK);
    }
    let error = at_once(py, || overlay(fd)?.take_error())?;
    Ok(error.map_or(0, Errno::raw_os_error))
}

/// close(2), with SO_LINGER. It notifies the node, so that connections to a closed listener are refused from
/// then on.
#[pyfunction]
pub(crate) fn close(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let borrowed = borrow(fd).ok_or_else(|| errno(py, Errno::BADF))?;
    // The node notices closed connections by itself.
    let listens = sockopt::socket_acceptconn(borrowed).unwrap_or(false);
    let told = Socket::of(borrowed).filter(|_| listens).map(|socket| (socket.client(), socket.which()));
    let closed = py.detach(|| {
        let closed = peersock_bsd::close(fd);
        if let Some((client, Which::Opened(opened))) = told {
            // Without a node there is no one to notify.
            let _ = client.ask(Request::Closed(opened));
        }
        closed
    });
    // The close fails because of the peer only with SO_LINGER. CPython ignores ECONNRESET, which Linux never
    // returns here.
    match closed {
        Ok(_) => Ok(()),
        Err(error) => {
            if error == Errno::INTR {
                // An exception of the handler comes first.
                py.check_signals()?;
            }
            Err(errno(py, error))
        }
    }
}

/// getsockname(2).
#[pyfunction]
pub(crate) fn getsockname(py: Python<'_>, fd: RawFd) -> PyResult<Bound<'_, PyAny>> {
    tuple(py, at_once(py, || overlay(fd)?.local_addr())?)
}

/// getpeername(2).
#[pyfunction]
pub(crate) fn getpeername(py: Python<'_>, fd: RawFd) -> PyResult<Bound<'_, PyAny>> {
    tuple(py, at_once(py, || overlay(fd)?.peer_addr())?)
}

/// shutdown(2).
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>, fd: RawFd, how: i32) -> PyResult<()> {
    at_once(py, || peersock_bsd::shutdown_with(&overlay(fd)?, how, epoll::find)).map(drop)
}
