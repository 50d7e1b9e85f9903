//! Routing sockets (rtnetlink(7)): when the program reads the kernel answer about interfaces or addresses,
//! the answer includes the networks.
//!
//! The program's requests are noted when it sends them. Each receiving call waits for the next datagram of
//! the kernel and inspects it first. If the datagram ends an answer, the calls get one part each of it, with
//! the networks between them. The kernel datagram stays in the queue until the last part, so that poll(2) is
//! always correct.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::{ptr, slice};

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use peersock_bsd::Errno;
use peersock_bsd::netlink::{self as routing, PendingAnswers, SharedAnswers};

use crate::fork_lock::ForkLock;
use crate::interfaces::networks;
use crate::kernel::{hooked, quietly};
use crate::rules;
use crate::waits::{missing, next_recv, next_recvmsg};

/// Maximum number of known routing sockets; beyond it the oldest gets only kernel answers.
const MAX_SOCKETS: usize = 32;

/// Maximum length inspected of one sent message, bytes.
const MAX_INSPECTED_BYTES: usize = 64 << 10;

/// The program's routing sockets: the descriptor number plus one, or 0. The number may be reused by now.
static SOCKETS: [AtomicI32; MAX_SOCKETS] = [const { AtomicI32::new(0) }; MAX_SOCKETS];

/// A bit for each number ever used, modulo 64, so that calls on other descriptors cost almost nothing.
static USED_NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Position for the next socket once all are used.
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

pub(crate) static PENDING_ANSWERS: ForkLock<PendingAnswers> = ForkLock::new(PendingAnswers::new());

impl SharedAnswers for ForkLock<PendingAnswers> {
    fn with<T>(&self, action: impl FnOnce(&mut PendingAnswers) -> T) -> T {
        action(&mut self.lock())
    }
}

/// Notes a socket that the program has opened.
pub(crate) fn note_socket(fd: RawFd, domain: c_int, protocol: c_int) {
    if domain == libc::AF_NETLINK && protocol == libc::NETLINK_ROUTE {
        let number = fd.saturating_add(1);
        let holds = |wanted| SOCKETS.iter().find(|known| known.load(Ordering::Relaxed) == wanted);
        let oldest = || &SOCKETS[NEXT_SLOT.fetch_add(1, Ordering::Relaxed) % MAX_SOCKETS];
        let place = holds(number).or_else(|| holds(0)).unwrap_or_else(oldest);
        place.store(number, Ordering::Relaxed);
        USED_NUMBERS.fetch_or(bit(fd), Ordering::Relaxed);
    }
}

/// Returns true if a descriptor is a routing socket of the program.
pub(crate) fn is_one(fd: RawFd) -> bool {
    USED_NUMBERS.load(Ordering::Relaxed) & bit(fd) != 0 && is_known(fd)
}

fn bit(fd: RawFd) -> u64 {
    1 << (fd & 63)
}

/// The slow part of [`is_one`].
#[cold]
fn is_known(fd: RawFd) -> bool {
    let number = fd.saturating_add(1);
    let Some(known) = SOCKETS.iter().find(|known| known.load(Ordering::Relaxed) == number) else {
        return false;
    };
    let is_one = quietly(|_| true, || routing::is_routing_socket(fd));
    if !is_one {
        // The program has closed it, and opened something else.
        let _ = known.compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
    is_one
}

/// Notes the program's request before it is sent, if the descriptor is such a socket.
///
/// # Safety
/// `data` points to `size` bytes.
pub(crate) unsafe fn note_sent(fd: RawFd, data: *const c_void, size: size_t) {
    if is_one(fd) && !data.is_null() {
        // SAFETY: the caller's.
        note(fd, unsafe { slice::from_raw_parts(data.cast(), size.min(MAX_INSPECTED_BYTES)) });
    }
}

/// Does the same for several pieces.
///
/// # Safety
/// `pieces` points to `count` pieces, which are valid.
pub(crate) unsafe fn note_pieces(fd: RawFd, pieces: *const iovec, count: usize) {
    if !is_one(fd) {
        return;
    }
    let mut sent = Vec::new();
    for at in 0..if pieces.is_null() { 0 } else { count.min(libc::UIO_MAXIOV as usize) } {
        // SAFETY: the caller's.
        let iovec { iov_base, iov_len } = unsafe { *pieces.add(at) };
        let length = iov_len.min(MAX_INSPECTED_BYTES - sent.len());
        if !iov_base.is_null() {
            // SAFETY: as above.
            sent.extend_from_slice(unsafe { slice::from_raw_parts(iov_base.cast::<u8>(), length) });
        }
    }
    note(fd, &sent);
}

/// Does the same for a message.
///
/// # Safety
/// `message` is null or points to a message that can be sent.
pub(crate) unsafe fn note_message(fd: RawFd, message: *const msghdr) {
    // SAFETY: the caller's.
    if let Some(message) = unsafe { message.as_ref() } {
        // SAFETY: as above.
        unsafe { note_pieces(fd, message.msg_iov, message.msg_iovlen) };
    }
}

/// Does the same for several messages.
///
/// # Safety
/// `messages` is null or points to `count` messages.
pub(crate) unsafe fn note_messages(fd: RawFd, messages: *const mmsghdr, count: u32) {
    if messages.is_null() || !is_one(fd) {
        return;
    }
    for at in 0..count.min(libc::UIO_MAXIOV as u32) {
        // SAFETY: the caller's.
        unsafe { note_message(fd, &raw const (*messages.add(at as usize)).msg_hdr) };
    }
}

fn note(fd: RawFd, sent: &[u8]) {
    if rules().is_some() {
        // Errors here must not change the program's errno.
        quietly(|()| true, || routing::note(fd, &PENDING_ANSWERS, sent, networks));
    }
}

/// Handles recv(2) and read(2) of such a socket.
///
/// # Safety
/// As recv(2).
pub(crate) unsafe fn receive(fd: RawFd, buf: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    let none = ptr::null_mut();
    // SAFETY: the caller's.
    unsafe { receive_from(fd, buf, size, flags, none, ptr::null_mut()) }
}

/// Handles recvfrom(2) of such a socket.
///
/// # Safety
/// As recvfrom(2).
pub(crate) unsafe fn receive_from(
    fd: RawFd,
    buf: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    let mut piece = iovec { iov_base: buf, iov_len: size };
    let has_address = !address.is_null() && !length.is_null();
    let mut message = empty();
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    if has_address {
        // SAFETY: the caller's.
        (message.msg_name, message.msg_namelen) = (address.cast(), unsafe { length.read_unaligned() });
    }
    // SAFETY: as above.
    let received = unsafe { receive_message(fd, &raw mut message, flags) };
    if received >= 0 && has_address {
        // SAFETY: as above.
        unsafe { length.write_unaligned(message.msg_namelen) };
    }
    received
}

/// Returns true if the pieces of readv(2) have room. Without room the kernel handles the call, which returns
/// nothing or an error.
///
/// # Safety
/// As readv(2).
pub(crate) unsafe fn has_room(pieces: *const iovec, count: c_int) -> bool {
    let count = usize::try_from(count).ok().filter(|count| *count <= libc::UIO_MAXIOV as usize);
    // SAFETY: the caller's.
    !pieces.is_null() && (0..count.unwrap_or(0)).any(|at| unsafe { (*pieces.add(at)).iov_len } > 0)
}

/// Handles readv(2) of such a socket.
///
/// # Safety
/// As readv(2).
pub(crate) unsafe fn receive_pieces(fd: RawFd, pieces: *const iovec, count: c_int) -> ssize_t {
    let mut message = empty();
    (message.msg_iov, message.msg_iovlen) = (pieces.cast_mut(), usize::try_from(count).unwrap_or(usize::MAX));
    // SAFETY: the caller's.
    unsafe { receive_message(fd, &raw mut message, 0) }
}

/// Handles recvmmsg(2) of such a socket: one message at a time.
///
/// # Safety
/// As recvmmsg(2).
pub(crate) unsafe fn receive_first(fd: RawFd, messages: *mut mmsghdr, flags: c_int) -> c_int {
    let flags = flags & !libc::MSG_WAITFORONE;
    // SAFETY: the caller's.
    let received = unsafe { receive_message(fd, &raw mut (*messages).msg_hdr, flags) };
    if received < 0 {
        return -1;
    }
    // SAFETY: as above.
    unsafe { (*messages).msg_len = received as u32 };
    1
}

fn empty() -> msghdr {
    // SAFETY: zeros are null pointers and no lengths.
    unsafe { std::mem::zeroed() }
}

/// Handles recvmsg(2) of such a socket.
///
/// # Safety
/// As recvmsg(2).
pub(crate) unsafe fn receive_message(fd: RawFd, message: *mut msghdr, flags: c_int) -> ssize_t {
    let (Some(look), Some(next)) = (next_recv(), next_recvmsg()) else { return missing() };
    loop {
        // Blocks as the program's call would, and is a cancellation point like it.
        let looking = libc::MSG_PEEK | libc::MSG_TRUNC | flags & libc::MSG_DONTWAIT;
        // SAFETY: there is room for nothing.
        let length = unsafe { look(fd, ptr::null_mut(), 0, looking) };
        if length < 0 {
            return length;
        }
        // SAFETY: the caller's.
        match quietly(|_| true, || unsafe { routing::receive(fd, &PENDING_ANSWERS, message, flags) }) {
            // SAFETY: as above.
            None => return unsafe { next(fd, message, flags) },
            // Another thread has taken it meanwhile.
            Some(Err(Errno::AGAIN)) => {}
            Some(received) => return hooked(|| received),
        }
    }
}
