//! Sending and receiving beyond read(2) and write(2).

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::{ptr, slice};

use libc::{c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use peersock_fd::{Details, Errno, Family, Kind, RecvFlags, SendFlags, Socket};

use crate::Result;
use crate::ancillary::ControlBuffer;
use crate::kernel;
use crate::many_messages::{keep_for_next_call, may_receive_more};
use crate::message_pieces::{MAX_BYTES, many, pieces_mut, scatter, skip, vectors};
use crate::peek::await_bytes;
use crate::sent_ancillary::{self, SentAncillary};
use crate::sockaddr::{read, write, write_to};
use crate::time_limit::TimeLimit;
use crate::wait_all::{await_readable, receive_all, takes_all};

/// Maximum number of bytes of a stream that one call with MSG_TRUNC discards.
const MAX_DISCARDED_BYTES: usize = 256 << 10;

/// Linux: the caller's control messages are those of a 32-bit program.
const MSG_CMSG_COMPAT: u32 = 1 << 31;

/// Maximum number of datagrams of one call with UDP_SEGMENT, as in Linux (UDP_MAX_SEGMENTS).
const MAX_SEGMENTS: usize = 128;

/// Sends data, as sendto(2) does.
/// Fails with the errors of [`Socket::send_to`] and sendto(2), EOPNOTSUPP (urgent data).
///
/// # Safety
/// See the crate.
pub unsafe fn sendto(
    socket: &Socket<'_>,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<ssize_t> {
    check_send(socket, flags)?;
    if socket.kind() == Kind::Stream {
        // As TCP, which ignores the address.
        let none = ptr::null::<sockaddr>();
        // SAFETY: the caller's pointer goes to the kernel as it is.
        let sent = unsafe { kernel::sendto(raw(socket), data, size, flags, none, 0) };
        return sent.map_err(|error| socket.stream_error(error));
    }
    if data.is_null() && size > 0 {
        return Err(Errno::FAULT);
    }
    if size > MAX_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let data = match size {
        0 => &[][..],
        // SAFETY: the caller says that this many bytes are there.
        _ => unsafe { slice::from_raw_parts(data.cast::<u8>(), size) },
    };
    // Linux refuses this flag to sendmsg(2) only, by which the datagram is sent.
    let flags = SendFlags::from_bits_retain(flags as u32 & !MSG_CMSG_COMPAT);
    let data = [IoSlice::new(data)];
    // SAFETY: the caller's.
    let sent = match unsafe { remote(socket, address, length) }? {
        None => socket.send(&data, flags, None),
        Some(remote) => socket.send_to(&data, flags, remote, None),
    };
    Ok(sent? as ssize_t)
}

/// Receives data, as recvfrom(2) does.
/// Fails with the errors of recvfrom(2).
///
/// # Safety
/// See the crate.
pub unsafe fn recvfrom(
    socket: &Socket<'_>,
    buf: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> Result<ssize_t> {
    if socket.kind() == Kind::Stream && flags & libc::MSG_ERRQUEUE == 0 {
        let (none, no_length) = (ptr::null_mut(), ptr::null_mut());
        // With MSG_TRUNC TCP copies nothing, and needs no room.
        let mut discarded = match flags & libc::MSG_TRUNC {
            0 => Vec::new(),
            _ => vec![0u8; size.min(MAX_DISCARDED_BYTES)],
        };
        let (buf, size) = match flags & libc::MSG_TRUNC {
            0 => (buf, size),
            _ => (discarded.as_mut_ptr().cast(), discarded.len()),
        };
        await_bytes(socket, flags, size)?;
        let received = receive_all(socket, flags, size, await_readable, |received, flags| {
            let (rest, room) = (buf.wrapping_byte_add(received), size - received);
            // SAFETY: the caller's pointer goes to the kernel as it is, or that of the room above with its
            // size, less what has come already.
            unsafe { kernel::recvfrom(raw(socket), rest, room, flags, none, no_length) }
        });
        let received = received.map_err(|error| socket.stream_error(error))?;
        if !address.is_null() && !length.is_null() {
            // SAFETY: the caller's. TCP returns no address here.
            unsafe { ptr::write_unaligned(length, 0) };
        }
        return Ok(received);
    }
    if buf.is_null() && size > 0 {
        return Err(Errno::FAULT);
    }
    let buf = match size.min(MAX_BYTES) {
        0 => &mut [][..],
        // SAFETY: the caller says that this many bytes are there.
        size => unsafe { slice::from_raw_parts_mut(buf.cast::<u8>(), size) },
    };
    if flags & libc::MSG_ERRQUEUE != 0 {
        let report = socket.recv_error()?;
        // SAFETY: the caller's.
        unsafe { write(report.destination, address, length) }?;
        return Ok(scatter(&report.quoted, &mut [IoSliceMut::new(buf)]) as ssize_t);
    }
    let received = socket.recv_from(&mut [IoSliceMut::new(buf)], datagram_flags(flags))?;
    if let Some(remote) = received.remote {
        // SAFETY: the caller's.
        unsafe { write(remote, address, length) }?;
    }
    Ok(received.length as ssize_t)
}

/// Sends a message, as sendmsg(2) does.
/// Fails with the errors of [`sendto`], EMSGSIZE for too many pieces.
///
/// # Safety
/// See the crate.
pub unsafe fn sendmsg(socket: &Socket<'_>, message: *const msghdr, flags: c_int) -> Result<ssize_t> {
    if message.is_null() {
        return Err(Errno::FAULT);
    }
    check_send(socket, flags)?;
    // SAFETY: the caller guarantees a message.
    let message = unsafe { &*message };
    if socket.kind() == Kind::Stream {
        // SAFETY: the caller's.
        unsafe { sent_ancillary::check_of_stream(message) }?;
        let mut plain = *message;
        (plain.msg_name, plain.msg_namelen) = (ptr::null_mut(), 0);
        // Descriptors must not be passed to the node.
        (plain.msg_control, plain.msg_controllen) = (ptr::null_mut(), 0);
        // SAFETY: the caller's pointers go to the kernel as they are.
        let sent = unsafe { kernel::sendmsg(raw(socket), &raw const plain, flags) };
        return sent.map_err(|error| socket.stream_error(error));
    }
    // SAFETY: the caller's.
    let pieces = unsafe { vectors(message) }?;
    // SAFETY: `IoSlice` is guaranteed to be an `iovec`, and these were checked.
    let pieces = unsafe { slice::from_raw_parts(pieces.as_ptr().cast::<IoSlice<'_>>(), pieces.len()) };
    // SAFETY: the caller's.
    let remote = unsafe { remote(socket, message.msg_name.cast(), message.msg_namelen) }?;
    // SAFETY: the caller's.
    let mut asked = unsafe { sent_ancillary::read(message, socket.family(), remote) }?;
    check_segment(socket, pieces.iter().map(|piece| piece.len()).sum(), &mut asked.details)?;
    let flags = SendFlags::from_bits_retain(flags as u32);
    let sent = match (remote, asked) {
        (None, SentAncillary { details, headers }) if headers.is_empty() => {
            socket.send(pieces, flags, details)
        }
        (Some(remote), SentAncillary { details, headers }) if headers.is_empty() => {
            socket.send_to(pieces, flags, remote, details)
        }
        (remote, SentAncillary { details, headers }) => {
            socket.send_with_headers(pieces, flags, remote, details, headers)
        }
    };
    Ok(sent? as ssize_t)
}

/// Receives a message, as recvmsg(2) does.
/// Fails with the errors of recvmsg(2).
///
/// # Safety
/// See the crate.
pub unsafe fn recvmsg(socket: &Socket<'_>, message: *mut msghdr, flags: c_int) -> Result<ssize_t> {
    if message.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller guarantees a message.
    let message = unsafe { &mut *message };
    if flags & libc::MSG_ERRQUEUE != 0 {
        // SAFETY: the caller's.
        return unsafe { recv_error(socket, message) };
    }
    if socket.kind() == Kind::Stream && flags & libc::MSG_TRUNC != 0 {
        // SAFETY: the caller's.
        let size = unsafe { vectors(message) }?.iter().map(|piece| piece.iov_len).sum();
        // SAFETY: what is discarded needs no room.
        let received =
            unsafe { recvfrom(socket, ptr::null_mut(), size, flags, ptr::null_mut(), ptr::null_mut()) }?;
        (message.msg_flags, message.msg_controllen, message.msg_namelen) = (0, 0, 0);
        return Ok(received);
    }
    if socket.kind() == Kind::Stream {
        let mut plain = *message;
        (plain.msg_name, plain.msg_namelen) = (ptr::null_mut(), 0);
        (plain.msg_control, plain.msg_controllen) = (ptr::null_mut(), 0);
        let mut rest = Vec::new();
        if flags & libc::MSG_WAITALL != 0 {
            // SAFETY: the caller's.
            rest = unsafe { vectors(message) }?.into_owned();
        }
        let size = rest.iter().map(|piece| piece.iov_len).sum();
        await_bytes(socket, flags, size)?;
        let mut seen = 0;
        let received = receive_all(socket, flags, size, await_readable, |received, flags| {
            if received > 0 {
                skip(&mut rest, received - seen);
                (plain.msg_iov, plain.msg_iovlen) = (rest.as_mut_ptr(), rest.len() as _);
            }
            seen = received;
            // SAFETY: the caller's pointers go to the kernel as they are, less what has come already.
            unsafe { kernel::recvmsg(raw(socket), &raw mut plain, flags) }
        });
        let received = received.map_err(|error| socket.stream_error(error))?;
        (message.msg_flags, message.msg_controllen, message.msg_namelen) = (plain.msg_flags, 0, 0);
        return Ok(received);
    }
    let mut own = Vec::new();
    // SAFETY: the caller's.
    let pieces = unsafe { pieces_mut(message, &mut own) }?;
    let received = socket.recv_from(pieces, datagram_flags(flags))?;
    message.msg_flags = if received.truncated { libc::MSG_TRUNC } else { 0 };
    // SAFETY: the caller's.
    let mut control = unsafe { ControlBuffer::new(message) };
    if let Some(timestamp) = received.timestamp {
        control.put_timestamp(timestamp);
    }
    if let Some(details) = &received.details {
        control.put_details(socket.family(), received.remote, details);
    }
    control.put_headers(&received.headers);
    message.msg_namelen = match received.remote {
        // SAFETY: the caller guarantees that much room for a name.
        Some(remote) if !message.msg_name.is_null() => unsafe {
            write_to(remote, message.msg_name.cast(), message.msg_namelen)
        },
        _ => 0,
    };
    Ok(received.length as ssize_t)
}

/// Receives an error report, as recvmsg(2) with MSG_ERRQUEUE.
///
/// # Safety
/// See the crate.
unsafe fn recv_error(socket: &Socket<'_>, message: &mut msghdr) -> Result<ssize_t> {
    let mut own = Vec::new();
    // SAFETY: the caller's.
    let pieces = unsafe { pieces_mut(message, &mut own) }?;
    let report = socket.recv_error()?;
    let copied = scatter(&report.quoted, pieces);
    message.msg_flags = libc::MSG_ERRQUEUE;
    if copied < report.quoted.len() {
        message.msg_flags |= libc::MSG_TRUNC;
    }
    // SAFETY: the caller's.
    unsafe { ControlBuffer::new(message) }.put_report(socket.family(), &report);
    message.msg_namelen = match message.msg_name.is_null() {
        true => 0,
        // SAFETY: the caller guarantees that much room for a name.
        false => unsafe { write_to(report.destination, message.msg_name.cast(), message.msg_namelen) },
    };
    Ok(copied as ssize_t)
}

/// Sends several messages, as sendmmsg(2) does.
/// Fails with the error of the first message, if it fails.
///
/// # Safety
/// See the crate.
pub unsafe fn sendmmsg(
    socket: &Socket<'_>,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> Result<c_int> {
    // SAFETY: the caller guarantees `count` messages.
    let messages = unsafe { many(messages, count) }?;
    for (at, message) in messages.iter_mut().enumerate() {
        // SAFETY: the caller's.
        match unsafe { sendmsg(socket, &raw const message.msg_hdr, flags) } {
            Ok(sent) => message.msg_len = sent as c_uint,
            Err(error) if at == 0 => return Err(error),
            Err(_) => return Ok(at as c_int),
        }
    }
    Ok(messages.len() as c_int)
}

/// Receives several messages, as recvmmsg(2) does.
/// Fails with the error of the first message, if it fails. The next call returns any other, as in Linux.
///
/// # Safety
/// See the crate.
pub unsafe fn recvmmsg(
    socket: &Socket<'_>,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> Result<c_int> {
    // SAFETY: the caller says that it is null or a time.
    let timeout = unsafe { timeout.as_mut() };
    let mut limit = timeout.as_ref().map(|time| TimeLimit::of(time)).transpose()?;
    // SAFETY: the caller's.
    let received = unsafe { receive_many(socket, messages, count, flags, limit.as_mut()) }?;
    if received > 0
        && let (Some(timeout), Some(limit)) = (timeout, limit)
    {
        *timeout = limit.left();
    }
    Ok(received)
}

/// # Safety
/// See the crate.
unsafe fn receive_many(
    socket: &Socket<'_>,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    mut limit: Option<&mut TimeLimit>,
) -> Result<c_int> {
    // SAFETY: the caller guarantees `count` messages.
    let messages = unsafe { many(messages, count) }?;
    let mut flags = flags;
    for (at, message) in messages.iter_mut().enumerate() {
        if at > 0 && !may_receive_more(socket, flags).unwrap_or(false) {
            return Ok(at as c_int);
        }
        // SAFETY: the caller's.
        match unsafe { recvmsg(socket, &raw mut message.msg_hdr, flags & !libc::MSG_WAITFORONE) } {
            Ok(received) => {
                message.msg_len = received as c_uint;
                if let Some(limit) = &mut limit {
                    limit.note_message();
                }
                // The message had room for more, and a signal, the end or its timeout has ended the wait.
                if socket.kind() == Kind::Stream && takes_all(flags) {
                    // SAFETY: the caller's.
                    let wanted: usize =
                        unsafe { vectors(&message.msg_hdr) }?.iter().map(|one| one.iov_len).sum();
                    if (received as usize) < wanted {
                        return Ok(at as c_int + 1);
                    }
                }
            }
            Err(error) if at == 0 => return Err(error),
            Err(error) => {
                keep_for_next_call(socket, error);
                return Ok(at as c_int);
            }
        }
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        // As Linux: the time is checked only after each datagram.
        if limit.as_ref().is_some_and(|limit| limit.is_over()) {
            return Ok(at as c_int + 1);
        }
    }
    Ok(messages.len() as c_int)
}

/// Returns the destination of a datagram. As in Linux, an IPv4 socket takes an address without a family for
/// IPv4. An IPv6 socket takes it for no address, and rejects one of an unknown family.
///
/// # Safety
/// `address` is null or points to `length` bytes.
unsafe fn remote(
    socket: &Socket<'_>,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<Option<SocketAddr>> {
    if address.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's.
    match (unsafe { read(address, length) }, socket.family()) {
        (Ok(None), Family::V4) if length as usize >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: that many bytes are there, which need not be aligned.
            let mut meant = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            meant.sin_family = libc::AF_INET as _;
            // SAFETY: it is a live variable of that size.
            unsafe { read((&raw const meant).cast(), size_of::<libc::sockaddr_in>() as socklen_t) }
        }
        (Ok(None), Family::V4) => Err(Errno::INVAL),
        (Err(Errno::AFNOSUPPORT), Family::V6) => Err(Errno::INVAL),
        (address, _) => address,
    }
}

/// Checks UDP_SEGMENT of a message, and removes it if there is nothing to split.
fn check_segment(socket: &Socket<'_>, length: usize, asked: &mut Option<Details>) -> Result<()> {
    let Some(details) = asked else { return Ok(()) };
    let Some(segment) = details.segment.map(|segment| usize::from(segment.get())) else { return Ok(()) };
    if length > segment.saturating_mul(MAX_SEGMENTS) {
        return Err(Errno::INVAL);
    }
    if length <= segment || socket.kind() != Kind::Datagram {
        details.segment = None;
        *asked = Some(*details).filter(|details| !details.is_empty());
    }
    Ok(())
}

/// Rejects flags that no overlay socket supports.
fn check_send(socket: &Socket<'_>, flags: c_int) -> Result<()> {
    match socket.kind() {
        // AF_UNIX sockets would treat the byte as out-of-band data.
        Kind::Stream if flags & (libc::MSG_OOB | libc::MSG_FASTOPEN) != 0 => Err(Errno::OPNOTSUPP),
        // Each call sends a datagram.
        Kind::Datagram | Kind::Echo | Kind::Raw(_) if flags & (libc::MSG_OOB | libc::MSG_MORE) != 0 => {
            Err(Errno::OPNOTSUPP)
        }
        _ => Ok(()),
    }
}

/// Removes MSG_OOB, because UDP ignores it and AF_UNIX refuses it.
fn datagram_flags(flags: c_int) -> RecvFlags {
    RecvFlags::from_bits_retain((flags & !libc::MSG_OOB) as u32)
}

fn raw(socket: &Socket<'_>) -> c_int {
    socket.fd().as_raw_fd()
}
