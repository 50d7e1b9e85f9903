//! Datagrams: sending and receiving without ancillary data.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::RawFd;

use peersock_bsd::{Errno, Socket};
use peersock_fd::{Kind, Name, Received, RecvFlags, SendFlags};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::PollFlags;

use crate::address::optional;
use crate::calls::overlay;
use crate::errors::errno;
use crate::wait::{self, Patience};

/// Maximum size of one datagram with its header, in bytes.
pub(crate) const LONGEST: usize = 1 << 16;

/// send(2) of a connected datagram socket.
#[pyfunction]
pub(crate) fn send(
    py: Python<'_>,
    fd: RawFd,
    data: &[u8],
    flags: i32,
    timeout: Option<f64>,
) -> PyResult<usize> {
    let send = || overlay_datagram(fd, flags)?.send(&[IoSlice::new(data)], sending(flags), None);
    wait::call(py, fd, PollFlags::OUT, Patience::new(timeout), send)
}

/// sendto(2) of a datagram socket.
#[pyfunction]
pub(crate) fn sendto(
    py: Python<'_>,
    fd: RawFd,
    data: &[u8],
    flags: i32,
    address: &Bound<'_, PyAny>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    let is_v6 = overlay(fd).map_err(|error| errno(py, error))?.family() == peersock_fd::Family::V6;
    let remote = crate::address::needed(address, is_v6)?;
    let send = || overlay_datagram(fd, flags)?.send_to(&[IoSlice::new(data)], sending(flags), remote, None);
    wait::call(py, fd, PollFlags::OUT, Patience::new(timeout), send)
}

/// recv(2) of a datagram socket.
#[pyfunction]
pub(crate) fn recv(
    py: Python<'_>,
    fd: RawFd,
    size: usize,
    flags: i32,
    timeout: Option<f64>,
) -> PyResult<Bound<'_, PyBytes>> {
    receive(py, fd, size, flags, timeout).map(|(data, _)| data)
}

/// recvfrom(2) of a datagram socket. Returns the call's length (with MSG_TRUNC that of the whole datagram),
/// the data, and an address.
#[pyfunction]
pub(crate) fn recvfrom(
    py: Python<'_>,
    fd: RawFd,
    size: usize,
    flags: i32,
    timeout: Option<f64>,
) -> PyResult<(usize, Bound<'_, PyBytes>, Bound<'_, PyAny>)> {
    let (data, received) = receive(py, fd, size, flags, timeout)?;
    Ok((received.length, data, optional(py, received.remote)?))
}

/// Returns the sender of a datagram that came from the node's end with this kernel name. Returns `None` if no
/// such end has the name, or if the node only reported an error.
#[pyfunction]
pub(crate) fn sender_of<'py>(py: Python<'py>, fd: RawFd, name: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let sender = || {
        let (socket, name) = (overlay(fd).ok()?, name.strip_prefix(&[0])?);
        match Name::parse(name).filter(|_| socket.is_end(name) && !socket.is_notice(name))? {
            Name::Remote(_, remote) => Some(remote.address),
            _ => None,
        }
    };
    let sender = py.detach(sender);
    optional(py, sender)
}

fn receive(
    py: Python<'_>,
    fd: RawFd,
    size: usize,
    flags: i32,
    timeout: Option<f64>,
) -> PyResult<(Bound<'_, PyBytes>, Received)> {
    let size = size.min(LONGEST);
    let mut buf = vec![0; size];
    let receive = || overlay(fd)?.recv_from(&mut [IoSliceMut::new(&mut buf)], receiving(flags));
    let received = wait::call(py, fd, PollFlags::IN, Patience::new(timeout), receive)?;
    Ok((PyBytes::new(py, &buf[..received.length.min(size)]), received))
}

fn overlay_datagram<'fd>(fd: RawFd, flags: i32) -> Result<Socket<'fd>, Errno> {
    let socket = overlay(fd)?;
    match socket.kind() {
        Kind::Stream => Err(Errno::OPNOTSUPP),
        _ if flags & libc::MSG_OOB != 0 => Err(Errno::OPNOTSUPP),
        _ => Ok(socket),
    }
}

/// Adds MSG_NOSIGNAL, because a broken pipe must be an exception, not a signal.
fn sending(flags: i32) -> SendFlags {
    SendFlags::from_bits_retain(flags as u32) | SendFlags::NOSIGNAL
}

fn receiving(flags: i32) -> RecvFlags {
    RecvFlags::from_bits_retain(flags as u32)
}
