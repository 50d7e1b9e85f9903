//! Routing sockets (rtnetlink(7)): where the program reads the kernel's answer about interfaces or addresses,
//! it finds the networks in it.
//!
//! What it asks is noted when it sends. Each call that receives looks at the kernel's next datagram first. If
//! that ends an answer, the calls get the parts of [`Answer::in_place_of`], one each: the kernel's datagram
//! stays where it is until the last, so that poll(2) tells the truth all the time.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::{ptr, slice};

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};
use peersock_bsd::netlink::{Answer, Outcome, questions};
use peersock_bsd::{Errno, kernel};

use crate::fork_lock::ForkLock;
use crate::kernel::{cookie, hooked, int_option, quietly};
use crate::rules;
use crate::waits::{missing, next_recv, next_recvmsg};

/// Routing sockets that are known; beyond it the oldest sees the kernel's answers only.
const MOST_SOCKETS: usize = 32;

/// Answers that are waited for; beyond it the oldest is forgotten.
const MOST_ANSWERS: usize = 64;

/// What is looked at of one message that is sent, bytes.
const MOST_ASKED: usize = 64 << 10;

/// The program's routing sockets: one more than the number of a descriptor, or 0. The number may be another
/// file's by now.
static SOCKETS: [AtomicI32; MOST_SOCKETS] = [const { AtomicI32::new(0) }; MOST_SOCKETS];

/// Whether there ever was one: calls of other programs cost nothing.
static ANY: AtomicBool = AtomicBool::new(false);

/// Where the next one is noted.
static NEXT: AtomicUsize = AtomicUsize::new(0);

pub(crate) static PENDING: ForkLock<Vec<Pending>> = ForkLock::new(Vec::new());

/// What belongs into an answer that the program has not read to its end.
pub(crate) struct Pending {
    /// SO_COOKIE of its socket.
    socket: u64,
    answer: Answer,
    /// What it is to receive in place of the kernel's next datagram, the first last.
    parts: Vec<Vec<u8>>,
}

impl Pending {
    /// What it receives next, and whether the kernel's datagram is done with then.
    fn next_part(&self) -> Option<(Vec<u8>, bool)> {
        Some((self.parts.last()?.clone(), self.parts.len() == 1))
    }
}

/// Notes a socket that the program has opened.
pub(crate) fn note_socket(fd: RawFd, domain: c_int, protocol: c_int) {
    if (domain, protocol) == (libc::AF_NETLINK, libc::NETLINK_ROUTE) && fd >= 0 {
        let at = NEXT.fetch_add(1, Ordering::Relaxed) % MOST_SOCKETS;
        SOCKETS[at].store(fd.saturating_add(1), Ordering::Relaxed);
        ANY.store(true, Ordering::Relaxed);
    }
}

/// Whether a descriptor is a routing socket of the program.
pub(crate) fn is_one(fd: RawFd) -> bool {
    if !ANY.load(Ordering::Relaxed) || fd < 0 {
        return false;
    }
    let number = fd.saturating_add(1);
    let Some(known) = SOCKETS.iter().find(|known| known.load(Ordering::Relaxed) == number) else {
        return false;
    };
    let option = |name| int_option(fd, libc::SOL_SOCKET, name);
    let is_one = quietly(
        |_| true,
        || {
            option(libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
                && option(libc::SO_PROTOCOL) == Some(libc::NETLINK_ROUTE)
        },
    );
    if !is_one {
        // The program has closed it, and opened something else.
        let _ = known.compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
    is_one
}

/// Notes what the program is about to ask, if the descriptor is such a socket.
///
/// # Safety
/// `data` points to `size` bytes.
pub(crate) unsafe fn note_sent(fd: RawFd, data: *const c_void, size: size_t) {
    if is_one(fd) && !data.is_null() {
        // SAFETY: the caller's.
        note(fd, unsafe { slice::from_raw_parts(data.cast(), size.min(MOST_ASKED)) });
    }
}

/// The same of several pieces.
///
/// # Safety
/// `pieces` points to so many, which are valid.
pub(crate) unsafe fn note_pieces(fd: RawFd, pieces: *const iovec, count: usize) {
    if !is_one(fd) {
        return;
    }
    let mut sent = Vec::new();
    for at in 0..if pieces.is_null() { 0 } else { count.min(libc::UIO_MAXIOV as usize) } {
        // SAFETY: the caller's.
        let iovec { iov_base, iov_len } = unsafe { *pieces.add(at) };
        let length = iov_len.min(MOST_ASKED - sent.len());
        if !iov_base.is_null() {
            // SAFETY: as above.
            sent.extend_from_slice(unsafe { slice::from_raw_parts(iov_base.cast::<u8>(), length) });
        }
    }
    note(fd, &sent);
}

/// The same of a message.
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

/// The same of several messages.
///
/// # Safety
/// `messages` is null or points to so many.
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
    // What it costs the program is not its errno.
    quietly(
        |()| true,
        || {
            let strictly = || int_option(fd, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK) == Some(1);
            let asked = questions(sent, strictly);
            let (Some(rules), Some(socket), false) = (rules(), cookie(fd), asked.is_empty()) else { return };
            let interfaces = rules.client.interfaces();
            for answer in asked.iter().filter_map(|question| question.answer(&interfaces)) {
                let mut pending = PENDING.lock();
                // The same question once more: what was sent before has failed.
                pending.retain(|old| {
                    old.socket != socket
                        || old.answer.sequence() != answer.sequence()
                        || !old.parts.is_empty()
                });
                if pending.len() >= MOST_ANSWERS {
                    pending.remove(0);
                }
                pending.push(Pending { socket, answer, parts: Vec::new() });
            }
        },
    );
}

/// recv(2) and read(2) of such a socket.
///
/// # Safety
/// As recv(2).
pub(crate) unsafe fn receive(fd: RawFd, buf: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    let none = ptr::null_mut();
    // SAFETY: the caller's.
    unsafe { receive_from(fd, buf, size, flags, none, ptr::null_mut()) }
}

/// recvfrom(2) of such a socket.
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

/// readv(2) of such a socket.
///
/// # Safety
/// As readv(2).
pub(crate) unsafe fn receive_pieces(fd: RawFd, pieces: *const iovec, count: c_int) -> ssize_t {
    let mut message = empty();
    (message.msg_iov, message.msg_iovlen) = (pieces.cast_mut(), usize::try_from(count).unwrap_or(usize::MAX));
    // SAFETY: the caller's.
    unsafe { receive_message(fd, &raw mut message, 0) }
}

/// recvmmsg(2) of such a socket: one message at a time.
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

/// recvmsg(2) of such a socket.
///
/// # Safety
/// As recvmsg(2).
pub(crate) unsafe fn receive_message(fd: RawFd, message: *mut msghdr, flags: c_int) -> ssize_t {
    let (Some(look), Some(next)) = (next_recv(), next_recvmsg()) else { return missing() };
    loop {
        // Waits as the program's call would, and is a cancellation point as that is.
        let looking = libc::MSG_PEEK | libc::MSG_TRUNC | flags & libc::MSG_DONTWAIT;
        // SAFETY: there is room for nothing.
        let length = unsafe { look(fd, ptr::null_mut(), 0, looking) };
        if length < 0 {
            return length;
        }
        // SAFETY: the caller's.
        match quietly(|_| true, || unsafe { receive_part(fd, length as usize, message, flags) }) {
            // SAFETY: as above.
            None => return unsafe { next(fd, message, flags) },
            // Another thread has taken it meanwhile.
            Some(Err(Errno::AGAIN)) => {}
            Some(received) => return hooked(|| received),
        }
    }
}

/// The next part of an answer that the networks belong into; `None` if the kernel's next datagram, which has
/// so many bytes, is to be received as it is.
///
/// # Safety
/// As recvmsg(2).
unsafe fn receive_part(
    fd: RawFd,
    length: usize,
    message: *mut msghdr,
    flags: c_int,
) -> Option<Result<ssize_t, Errno>> {
    let socket = cookie(fd)?;
    let (part, is_last) = next_part(fd, socket, length)?;
    let stays = if is_last { 0 } else { libc::MSG_PEEK };
    // The sender, and what else comes with it, is the kernel's datagram's.
    // SAFETY: the caller's.
    if let Err(error) = unsafe { kernel::recvmsg(fd, message, flags | stays | libc::MSG_DONTWAIT) } {
        if error == Errno::AGAIN {
            forget_parts(socket);
        }
        return Some(Err(error));
    }
    // SAFETY: the kernel has taken it.
    let message = unsafe { &mut *message };
    // SAFETY: as above.
    let copied = unsafe { fill(message, &part) };
    message.msg_flags &= !libc::MSG_TRUNC;
    if copied < part.len() {
        message.msg_flags |= libc::MSG_TRUNC;
    }
    if flags & libc::MSG_PEEK == 0 {
        forget_part(socket);
    }
    Some(Ok(if flags & libc::MSG_TRUNC != 0 { part.len() } else { copied } as ssize_t))
}

fn next_part(fd: RawFd, socket: u64, length: usize) -> Option<(Vec<u8>, bool)> {
    let begun =
        |pending: &[Pending]| pending.iter().filter(|one| one.socket == socket).find_map(Pending::next_part);
    {
        let pending = PENDING.lock();
        if let Some(part) = begun(&pending) {
            return Some(part);
        }
        pending.iter().find(|one| one.socket == socket)?;
    }
    let datagram = first_datagram(fd, length)?;
    let mut pending = PENDING.lock();
    // Another thread may have looked at it, too.
    if let Some(part) = begun(&pending) {
        return Some(part);
    }
    let mut at = 0;
    while let Some(one) = pending.get_mut(at) {
        match one.answer.in_place_of(&datagram) {
            Outcome::Instead(mut parts) if one.socket == socket => {
                parts.reverse();
                one.parts = parts;
                return one.next_part();
            }
            Outcome::Over if one.socket == socket => drop(pending.remove(at)),
            _ => at += 1,
        }
    }
    None
}

/// The datagram that comes first, if it is the kernel's.
fn first_datagram(fd: RawFd, length: usize) -> Option<Vec<u8>> {
    let mut datagram = vec![0_u8; length];
    // SAFETY: zeros are an address.
    let mut sender: sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut sender_length = size_of::<sockaddr_nl>() as socklen_t;
    let (to, flags) = (datagram.as_mut_ptr().cast(), libc::MSG_PEEK | libc::MSG_DONTWAIT);
    let (from, from_length) = ((&raw mut sender).cast(), &raw mut sender_length);
    // SAFETY: there is room for as much as is said.
    let received = unsafe { kernel::recvfrom(fd, to, length, flags, from, from_length) }.ok()?;
    datagram.truncate(received as usize);
    (sender.nl_pid == 0).then_some(datagram)
}

/// The program has received a part.
fn forget_part(socket: u64) {
    let mut pending = PENDING.lock();
    let Some(at) = pending.iter().position(|one| one.socket == socket && !one.parts.is_empty()) else {
        return;
    };
    pending[at].parts.pop();
    if pending[at].parts.is_empty() {
        pending.remove(at);
    }
}

/// The datagram whose parts these are is not there any more.
fn forget_parts(socket: u64) {
    PENDING.lock().retain(|one| one.socket != socket || one.parts.is_empty());
}

/// Copies as much as there is room for.
///
/// # Safety
/// The message's pieces are valid.
unsafe fn fill(message: &msghdr, part: &[u8]) -> usize {
    let mut left = part;
    for at in 0..message.msg_iovlen {
        // SAFETY: the caller's.
        let iovec { iov_base, iov_len } = unsafe { *message.msg_iov.add(at) };
        let fits = if iov_base.is_null() { 0 } else { iov_len.min(left.len()) };
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(left.as_ptr(), iov_base.cast(), fits) };
        left = &left[fits..];
    }
    part.len() - left.len()
}
