//! Replacements of the C library's functions that send and receive beyond read(2) and write(2).

use std::os::fd::RawFd;

use libc::{c_int, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use peersock_bsd as bsd;
use peersock_bsd::Errno;
use peersock_bsd::replaced;
use peersock_fd::Kind;

use crate::empty_receive::{Nothing, Sender, is_by_stranger, is_datagram, is_replaced, meaning_of_nothing};
use crate::hooks::{choose_by_remote, overlay};
use crate::kernel::{errno, hooked, quietly, set_errno};
use crate::netlink;
use crate::waits::{
    NO_ADDRESS, by_side, missing, next_recvfrom, next_recvmmsg, next_recvmsg, next_send, next_sendmmsg,
    next_sendmsg, next_sendto, receive, receive_all, test_cancel,
};

/// Replaces send(2). The C library handles all calls that need no overlay code, because a check of each
/// descriptor would cost every program.
///
/// # Safety
/// As send(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn send(
    fd: RawFd,
    data: *const c_void,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    let none = std::ptr::null::<sockaddr>();
    // AF_UNIX sockets would treat urgent data as out-of-band data, and do not know a packet's length, a
    // path's MTU, or datagrams of several calls. A stream's call may block, and stays with the C library.
    let joins = || flags & libc::MSG_MORE != 0 && quietly(|_| true, || is_datagram(fd));
    if flags & libc::MSG_OOB != 0 || is_long_datagram(fd, size) || joins() {
        // SAFETY: the program's pointers, as it must pass them to send(2).
        return unsafe { sendto(fd, data, size, flags, none, 0) };
    }
    let Some(next) = next_send() else { return missing() };
    // SAFETY: as above.
    unsafe { netlink::note_sent(fd, data, size) };
    // SAFETY: as above.
    told(fd, unsafe { next(fd, data, size, flags) })
}

/// Returns true if the data is for a datagram socket and may be too long.
pub(crate) fn is_long_datagram(fd: RawFd, size: size_t) -> bool {
    bsd::may_be_too_long(size) && quietly(|_| true, || is_datagram(fd))
}

/// Returns a call's result, and converts the error in `errno`.
fn told(fd: RawFd, returned: ssize_t) -> ssize_t {
    if returned == -1 {
        let error = Errno::from_raw_os_error(errno());
        set_errno(meaning(fd, error).raw_os_error());
    }
    returned
}

/// Replaces recv(2), in the same way.
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn recv(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    if netlink::is_one(fd) {
        // SAFETY: the program's pointers, as it must pass them to recv(2).
        return unsafe { netlink::receive(fd, buf, size, flags) };
    }
    let (none, length) = (std::ptr::null_mut::<sockaddr>(), std::ptr::null_mut::<socklen_t>());
    // AF_UNIX sockets interpret these flags differently from TCP and UDP.
    if flags & (libc::MSG_TRUNC | libc::MSG_ERRQUEUE | libc::MSG_WAITALL | libc::MSG_OOB) != 0 {
        // SAFETY: the program's pointers, as it must pass them to recv(2).
        return unsafe { recvfrom(fd, buf, size, flags, none, length) };
    }
    let Some(next) = next_recvfrom() else { return missing() };
    loop {
        let before = replaced::count();
        let mut sender = Sender::new();
        let (name, length) = sender.room();
        // SAFETY: as above, and there is room for the sender's name.
        let received = unsafe { next(fd, buf, size, flags, name, length) };
        if received > 0 && is_by_stranger(fd, &sender) {
            // A peek has removed nothing. The overlay's own call does.
            if flags & libc::MSG_PEEK != 0 {
                // SAFETY: as above.
                return unsafe { recvfrom(fd, buf, size, flags, NO_ADDRESS.0, NO_ADDRESS.1) };
            }
            continue;
        }
        if received != 0 {
            return told(fd, received);
        }
        if is_replaced(fd, before) {
            continue;
        }
        match quietly(|_| true, || meaning_of_nothing(fd, &sender, flags)) {
            // A peek has removed nothing. The overlay's own call knows what to drop.
            // SAFETY: as above.
            Nothing::Notice if flags & libc::MSG_PEEK != 0 => unsafe {
                return recvfrom(fd, buf, size, flags, NO_ADDRESS.0, NO_ADDRESS.1);
            },
            Nothing::Notice => {}
            Nothing::Datagram => return 0,
            Nothing::Error(error) => return hooked(|| Err(error)),
        }
    }
}

/// Replaces recv(2) for programs compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn __recv_chk(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if size > room {
        // The C library ends such a program.
        std::process::abort();
    }
    // SAFETY: the caller's.
    unsafe { recv(fd, buf, size, flags) }
}

/// Converts a kernel error on an overlay socket: the node has an error to report, or has ended.
pub(crate) fn meaning(fd: RawFd, error: Errno) -> Errno {
    if !matches!(error, Errno::CONNRESET | Errno::PIPE | Errno::INVAL | Errno::NOTCONN) {
        return error;
    }
    match overlay(fd) {
        Some(socket) if socket.kind() == Kind::Stream => socket.stream_error(error),
        Some(_) if error == Errno::NOTCONN => Errno::DESTADDRREQ,
        Some(socket) if error == Errno::CONNRESET => {
            socket.take_error().ok().flatten().unwrap_or(Errno::CONNREFUSED)
        }
        _ => error,
    }
}

/// # Safety
/// As sendto(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn sendto(
    fd: RawFd,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    let Some(next) = next_sendto() else { return missing() };
    // SAFETY: the program's pointers, as it must pass them to sendto(2).
    unsafe { netlink::note_sent(fd, data, size) };
    let socket = match address.is_null() {
        true => Ok(overlay(fd)),
        // SAFETY: the program's pointers, as it must pass them to sendto(2).
        false => unsafe { choose_by_remote(fd, address, length) },
    };
    // SAFETY: as above, of both.
    by_side(
        socket,
        || unsafe { next(fd, data, size, flags, address, length) },
        |socket| unsafe { bsd::sendto(socket, data, size, flags, address, length) },
    )
}

/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn recvfrom(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    let Some(next) = next_recvfrom() else { return missing() };
    if netlink::is_one(fd) {
        // SAFETY: the program's pointers, as it must pass them to recvfrom(2).
        return unsafe { netlink::receive_from(fd, buf, size, flags, address, length) };
    }
    let before = replaced::count();
    let Some(socket) = overlay(fd) else {
        // SAFETY: the program's pointers, as it must pass them to recvfrom(2).
        let room = if length.is_null() { 0 } else { unsafe { length.read_unaligned() } };
        // SAFETY: as above.
        let received = unsafe { next(fd, buf, size, flags, address, length) };
        if received != 0 || !is_replaced(fd, before) {
            return received;
        }
        if !length.is_null() {
            // SAFETY: as above.
            unsafe { length.write_unaligned(room) };
        }
        // SAFETY: as above.
        return unsafe { recvfrom(fd, buf, size, flags, address, length) };
    };
    let received = |flags| {
        // SAFETY: as above.
        hooked(|| unsafe { bsd::either::recvfrom(Some(&socket), fd, buf, size, flags, address, length) })
    };
    if socket.kind() != Kind::Stream {
        return receive(fd, flags, received);
    }
    if flags & (libc::MSG_TRUNC | libc::MSG_ERRQUEUE) != 0 || bsd::is_patient_peek(flags) {
        test_cancel();
        return received(flags);
    }
    let received = receive_all(&socket, flags, size, |received, flags| {
        let (rest, room) = (buf.wrapping_byte_add(received), size - received);
        // SAFETY: as above, less what has come already. TCP returns no address here.
        match unsafe { next(fd, rest, room, flags, NO_ADDRESS.0, NO_ADDRESS.1) } {
            -1 => Err(Errno::from_raw_os_error(errno())),
            received => Ok(received),
        }
    });
    let received = told(fd, hooked(|| received));
    if received >= 0 && !address.is_null() && !length.is_null() {
        // SAFETY: as above.
        unsafe { length.write_unaligned(0) };
    }
    received
}

/// Replaces recvfrom(2) for programs compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    if size > room {
        // The C library ends such a program.
        std::process::abort();
    }
    // SAFETY: the caller's.
    unsafe { recvfrom(fd, buf, size, flags, address, length) }
}

/// # Safety
/// As sendmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn sendmsg(fd: RawFd, message: *const msghdr, flags: c_int) -> ssize_t {
    let Some(next) = next_sendmsg() else { return missing() };
    // SAFETY: the program's pointers, as it must pass them to sendmsg(2).
    unsafe { netlink::note_message(fd, message) };
    // SAFETY: the program's pointers, as it must pass them to sendmsg(2).
    let socket = match unsafe { message.as_ref() } {
        // SAFETY: as above.
        Some(message) if !message.msg_name.is_null() => unsafe {
            choose_by_remote(fd, message.msg_name.cast(), message.msg_namelen)
        },
        _ => Ok(overlay(fd)),
    };
    // SAFETY: as above, of both.
    by_side(
        socket,
        || unsafe { next(fd, message, flags) },
        |socket| unsafe { bsd::sendmsg(socket, message, flags) },
    )
}

/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn recvmsg(fd: RawFd, message: *mut msghdr, flags: c_int) -> ssize_t {
    let Some(next) = next_recvmsg() else { return missing() };
    if netlink::is_one(fd) {
        // SAFETY: the program's pointers, as it must pass them to recvmsg(2).
        return unsafe { netlink::receive_message(fd, message, flags) };
    }
    let before = replaced::count();
    let Some(socket) = overlay(fd) else {
        // SAFETY: the program's pointer, as it must pass it to recvmsg(2).
        let room = unsafe { message.as_ref() }.map(|message| (message.msg_namelen, message.msg_controllen));
        // SAFETY: as above.
        let received = unsafe { next(fd, message, flags) };
        if received != 0 || !is_replaced(fd, before) {
            return received;
        }
        // SAFETY: as above.
        if let (Some(room), Some(message)) = (room, unsafe { message.as_mut() }) {
            (message.msg_namelen, message.msg_controllen) = room;
        }
        // SAFETY: as above.
        return unsafe { recvmsg(fd, message, flags) };
    };
    // SAFETY: as above.
    let received = |flags| hooked(|| unsafe { bsd::either::recvmsg(Some(&socket), fd, message, flags) });
    match socket.kind() {
        // The pending data may be only a part of the requested data.
        Kind::Stream if flags & libc::MSG_WAITALL != 0 => {
            test_cancel();
            received(flags)
        }
        _ => receive(fd, flags, received),
    }
}

/// # Safety
/// As sendmmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn sendmmsg(
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to sendmmsg(2).
    let first = if count == 0 { None } else { unsafe { messages.as_ref() } };
    let Some(next) = next_sendmmsg() else { return missing() };
    // SAFETY: the program's pointers, as it must pass them to sendmmsg(2).
    unsafe { netlink::note_messages(fd, messages, count) };
    let socket = match first {
        // SAFETY: as above.
        Some(first) if !first.msg_hdr.msg_name.is_null() => unsafe {
            choose_by_remote(fd, first.msg_hdr.msg_name.cast(), first.msg_hdr.msg_namelen)
        },
        _ => Ok(overlay(fd)),
    };
    // SAFETY: as above, of both.
    by_side(
        socket,
        || unsafe { next(fd, messages, count, flags) },
        |socket| unsafe { bsd::sendmmsg(socket, messages, count, flags) },
    )
}

/// # Safety
/// As recvmmsg(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn recvmmsg(
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let Some(next) = next_recvmmsg() else { return missing() };
    if count > 0 && !messages.is_null() && netlink::is_one(fd) {
        // SAFETY: the program's pointers, as it must pass them to recvmmsg(2).
        return unsafe { netlink::receive_first(fd, messages, flags) };
    }
    let before = replaced::count();
    let Some(socket) = overlay(fd) else {
        // SAFETY: the program's pointers, as it must pass them to recvmmsg(2).
        let received = unsafe { next(fd, messages, count, flags, timeout) };
        // The headers no longer have the room values that the kernel has overwritten.
        // SAFETY: as above, and at least one was received.
        if received > 0 && unsafe { (*messages).msg_len } == 0 && is_replaced(fd, before) {
            set_errno(libc::EINTR);
            return -1;
        }
        return received;
    };
    test_cancel();
    // SAFETY: as above.
    hooked(|| unsafe { bsd::either::recvmmsg(Some(&socket), fd, messages, count, flags, timeout) })
}
