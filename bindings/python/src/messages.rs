//! Messages: multiple buffers, and ancillary data.

use std::io::IoSlice;
use std::mem::zeroed;
use std::os::fd::RawFd;
use std::ptr;

use libc::{iovec, msghdr, sockaddr_storage, socklen_t};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::PollFlags;

use crate::address::{needed, optional};
use crate::calls::overlay;
use crate::errors::{errno, os_error};
use crate::wait::{self, Patience};

/// Result of `recvmsg`: the call's length, data, ancillary data, flags, and an address.
type Message<'py> =
    (usize, Bound<'py, PyBytes>, Vec<(i32, i32, Bound<'py, PyBytes>)>, i32, Bound<'py, PyAny>);

/// sendmsg(2). The pieces are bytes already, and the ancillary data consists of triples (level, type, bytes).
#[pyfunction]
pub(crate) fn sendmsg(
    py: Python<'_>,
    fd: RawFd,
    pieces: Vec<Bound<'_, PyBytes>>,
    ancillary: Vec<(i32, i32, Bound<'_, PyBytes>)>,
    flags: i32,
    address: Option<&Bound<'_, PyAny>>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    let is_v6 = overlay(fd).map_err(|error| errno(py, error))?.family() == peersock_fd::Family::V6;
    let remote = address.map(|address| needed(address, is_v6)).transpose()?;
    let control = encode(&ancillary);
    let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece.as_bytes())).collect();
    let send = || {
        // SAFETY: zeros are valid for all of them.
        let (mut message, mut name): (msghdr, sockaddr_storage) = unsafe { (zeroed(), zeroed()) };
        if let Some(remote) = remote {
            let mut length = size_of::<sockaddr_storage>() as socklen_t;
            // SAFETY: the storage has the given length.
            unsafe { peersock_bsd::write_address(remote, (&raw mut name).cast(), &raw mut length) }?;
            (message.msg_name, message.msg_namelen) = ((&raw mut name).cast(), length);
        }
        // `IoSlice` is guaranteed to be an `iovec`, and the call does not write to its data.
        message.msg_iov = pieces.as_ptr().cast_mut().cast::<iovec>();
        message.msg_iovlen = pieces.len() as _;
        if !control.is_empty() {
            message.msg_control = control.as_ptr().cast_mut().cast();
            message.msg_controllen = (control.len() * size_of::<u64>()) as _;
        }
        // SAFETY: everything that the message points to lives until the call returns.
        unsafe { peersock_bsd::sendmsg(&overlay(fd)?, &raw const message, flags | libc::MSG_NOSIGNAL) }
    };
    wait::call(py, fd, PollFlags::OUT, Patience::new(timeout), send).map(|sent| sent as usize)
}

/// recvmsg(2): up to `size` bytes, with room for `ancillary` bytes of ancillary data.
#[pyfunction]
pub(crate) fn recvmsg(
    py: Python<'_>,
    fd: RawFd,
    size: usize,
    ancillary: usize,
    flags: i32,
    timeout: Option<f64>,
) -> PyResult<Message<'_>> {
    let mut buf: Vec<u8> = Vec::new();
    let mut control: Vec<u64> = Vec::new();
    if buf.try_reserve_exact(size).is_err() || control.try_reserve_exact(ancillary.div_ceil(8)).is_err() {
        return Err(os_error(py, libc::ENOMEM));
    }
    buf.resize(size, 0);
    control.resize(ancillary.div_ceil(8), 0);
    let receive = || {
        // SAFETY: zeros are valid for all of them.
        let (mut message, mut name): (msghdr, sockaddr_storage) = unsafe { (zeroed(), zeroed()) };
        let mut piece = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: size };
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
        (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
        if ancillary > 0 {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = ancillary as _;
        }
        // SAFETY: everything that the message points to lives until the call returns, and has the given
        // length.
        let received = unsafe { peersock_bsd::recvmsg(&overlay(fd)?, &raw mut message, flags) }?;
        let remote = match message.msg_namelen {
            0 => None,
            // SAFETY: this many bytes of the storage were written.
            length => unsafe { peersock_bsd::read_address((&raw const name).cast(), length) }.ok().flatten(),
        };
        // The field's type differs between C libraries.
        #[allow(clippy::unnecessary_cast)]
        let used = message.msg_controllen as usize;
        Ok((received as usize, message.msg_flags, used, remote))
    };
    let (received, flags, used, remote) = wait::call(py, fd, PollFlags::IN, Patience::new(timeout), receive)?;
    let told = decode(py, &control, used.min(ancillary));
    let data = PyBytes::new(py, &buf[..received.min(size)]);
    Ok((received, data, told, flags, optional(py, remote)?))
}

/// Encodes control messages one after the other, aligned as the kernel requires.
fn encode(ancillary: &[(i32, i32, Bound<'_, PyBytes>)]) -> Vec<u64> {
    // SAFETY: it only computes.
    let space = |length: usize| unsafe { libc::CMSG_SPACE(length as u32) } as usize;
    let whole: usize = ancillary.iter().map(|(_, _, data)| space(data.as_bytes().len())).sum();
    let mut control = vec![0u64; whole.div_ceil(size_of::<u64>())];
    let mut at = 0;
    for (level, kind, data) in ancillary {
        let data = data.as_bytes();
        // SAFETY: zeros are a header.
        let mut header: libc::cmsghdr = unsafe { zeroed() };
        // SAFETY: it only computes.
        header.cmsg_len = unsafe { libc::CMSG_LEN(data.len() as u32) } as _;
        (header.cmsg_level, header.cmsg_type) = (*level, *kind);
        // SAFETY: the buffer has room for all headers and values, each at its place.
        unsafe {
            let place = control.as_mut_ptr().cast::<u8>().add(at);
            ptr::write_unaligned(place.cast(), header);
            ptr::copy_nonoverlapping(data.as_ptr(), place.add(libc::CMSG_LEN(0) as usize), data.len());
        }
        at += space(data.len());
    }
    control
}

/// Returns the control messages in the first `used` bytes.
fn decode<'py>(py: Python<'py>, control: &[u64], used: usize) -> Vec<(i32, i32, Bound<'py, PyBytes>)> {
    let mut found = Vec::new();
    // SAFETY: zeros are valid.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_control = control.as_ptr().cast_mut().cast();
    message.msg_controllen = used as _;
    // SAFETY: the control buffer has this many bytes.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: these functions return headers within the control buffer, which is aligned for them.
        let (header, data) = unsafe { (*next, libc::CMSG_DATA(next)) };
        let end = control.as_ptr() as usize + used;
        #[allow(clippy::unnecessary_cast)]
        // SAFETY: it only computes.
        let length = (header.cmsg_len as usize).saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        let length = length.min(end.saturating_sub(data as usize));
        // SAFETY: this many bytes are left in the buffer.
        let data = unsafe { std::slice::from_raw_parts(data, length) };
        found.push((header.cmsg_level, header.cmsg_type, PyBytes::new(py, data)));
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    found
}
