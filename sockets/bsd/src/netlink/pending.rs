//! Answers that programs have not read completely, and the calls that read them.

use std::sync::{Mutex, PoisonError};
use std::{mem, ptr};

use libc::{c_int, iovec, msghdr, sockaddr_nl, socklen_t, ssize_t};
use peersock_fd::{Errno, Interface};

use super::{Answer, Outcome, questions};
use crate::{Result, kernel};

/// Maximum number of pending answers of one socket and of all; beyond it the oldest answer that was not begun
/// is forgotten.
const MAX_ANSWERS_PER_SOCKET: usize = 16;
const MAX_ANSWERS: usize = 256;

/// The pending answers of all routing sockets.
///
/// ```
/// use std::sync::Mutex;
/// use peersock_bsd::netlink::{PendingAnswers, note};
///
/// let pending = Mutex::new(PendingAnswers::new());
/// // A message that asks for no interfaces is not noted, and the closure is not called.
/// note(0, &pending, b"text", || unreachable!());
/// ```
#[derive(Debug, Default)]
pub struct PendingAnswers(Vec<Pending>);

/// Shared storage of pending answers; every call locks it for itself.
pub trait SharedAnswers {
    /// Locks the answers for `action`, which must not block.
    fn with<T>(&self, action: impl FnOnce(&mut PendingAnswers) -> T) -> T;
}

impl SharedAnswers for Mutex<PendingAnswers> {
    fn with<T>(&self, action: impl FnOnce(&mut PendingAnswers) -> T) -> T {
        action(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Pending {
    /// SO_COOKIE of its socket.
    socket: u64,
    answer: Answer,
    /// The datagrams that replace the next kernel datagram, in reverse order.
    parts: Vec<Vec<u8>>,
}

/// The part that a program receives next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    bytes: Vec<u8>,
    /// True if the kernel datagram is consumed with it.
    is_last: bool,
}

impl Pending {
    fn next_part(&self) -> Option<Part> {
        Some(Part { bytes: self.parts.last()?.clone(), is_last: self.parts.len() == 1 })
    }
}

impl PendingAnswers {
    /// Creates an empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, socket: u64, answer: Answer) {
        // A repeated request replaces an earlier one whose sending has failed.
        let is_same = |old: &Pending| old.socket == socket && old.answer.sequence() == answer.sequence();
        self.0.retain(|old| !is_same(old) || !old.parts.is_empty());
        let own = self.0.iter().filter(|old| old.socket == socket).count();
        let may_go =
            |old: &Pending| old.parts.is_empty() && (own < MAX_ANSWERS_PER_SOCKET || old.socket == socket);
        if own >= MAX_ANSWERS_PER_SOCKET || self.0.len() >= MAX_ANSWERS {
            // If all have been begun, the program does not read on, so drop this answer.
            let Some(oldest) = self.0.iter().position(may_go) else { return };
            self.0.remove(oldest);
        }
        self.0.push(Pending { socket, answer, parts: Vec::new() });
    }

    fn has(&self, socket: u64) -> bool {
        self.0.iter().any(|one| one.socket == socket)
    }

    /// Returns the next part of a datagram that the program has begun to receive.
    fn begun(&self, socket: u64) -> Option<Part> {
        self.0.iter().filter(|one| one.socket == socket).find_map(Pending::next_part)
    }

    /// Returns the first part of a datagram that ends an answer.
    fn begin(&mut self, socket: u64, datagram: &[u8]) -> Option<Part> {
        // Another thread may have inspected it, too.
        if let Some(part) = self.begun(socket) {
            return Some(part);
        }
        let mut at = 0;
        while let Some(one) = self.0.get_mut(at) {
            match one.answer.in_place_of(datagram) {
                Outcome::Instead(mut parts) if one.socket == socket => {
                    parts.reverse();
                    one.parts = parts;
                    return one.next_part();
                }
                Outcome::Over if one.socket == socket => drop(self.0.remove(at)),
                _ => at += 1,
            }
        }
        None
    }

    /// Notes that the program has received a part.
    fn end_part(&mut self, socket: u64) {
        let is_begun = |one: &Pending| one.socket == socket && !one.parts.is_empty();
        if let Some(at) = self.0.iter().position(is_begun) {
            self.0[at].parts.pop();
            if self.0[at].parts.is_empty() {
                self.0.remove(at);
            }
        }
    }

    /// Drops the parts of a datagram that is no longer in the queue.
    fn forget_begun(&mut self, socket: u64) {
        self.0.retain(|one| one.socket != socket || one.parts.is_empty());
    }
}

/// Returns true if a descriptor is a routing socket.
pub fn is_routing_socket(fd: c_int) -> bool {
    let option = |name| kernel::int_option(fd, libc::SOL_SOCKET, name);
    option(libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
        && option(libc::SO_PROTOCOL) == Some(libc::NETLINK_ROUTE)
}

/// Notes the requests that a program is about to send on a routing socket.
pub fn note(
    fd: c_int,
    pending: &impl SharedAnswers,
    sent: &[u8],
    interfaces: impl FnOnce() -> Vec<Interface>,
) {
    let strictly = || kernel::int_option(fd, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK) == Some(1);
    let asked = questions(sent, strictly);
    let (false, Some(socket)) = (asked.is_empty(), kernel::cookie(fd)) else { return };
    let interfaces = interfaces();
    for answer in asked.iter().filter_map(|question| question.answer(&interfaces)) {
        pending.with(|pending| pending.add(socket, answer));
    }
}

/// Receives as recvmsg(2) on a routing socket, without blocking, if an answer that involves the networks is
/// next. Returns `None` if the next datagram must be received unchanged, or there is none.
///
/// # Safety
/// As recvmsg(2).
pub unsafe fn receive(
    fd: c_int,
    pending: &impl SharedAnswers,
    message: *mut msghdr,
    flags: c_int,
) -> Option<Result<ssize_t>> {
    let socket = kernel::cookie(fd)?;
    let (is_waited_for, begun) = pending.with(|pending| (pending.has(socket), pending.begun(socket)));
    if !is_waited_for {
        return None;
    }
    let part = match begun {
        Some(part) => Some(part),
        None => match first_datagram(fd) {
            Ok(datagram) => pending.with(|all| all.begin(socket, &datagram?)),
            // The kernel reports it only once.
            Err(error) => return Some(Err(error)),
        },
    };
    let Part { bytes, is_last } = part?;
    let stays = if is_last { 0 } else { libc::MSG_PEEK };
    // The sender and the ancillary data come from the kernel datagram.
    // SAFETY: the caller's.
    if let Err(error) = unsafe { kernel::recvmsg(fd, message, flags | stays | libc::MSG_DONTWAIT) } {
        if error == Errno::AGAIN {
            pending.with(|pending| pending.forget_begun(socket));
        }
        return Some(Err(error));
    }
    // SAFETY: the kernel has accepted it.
    let message = unsafe { &mut *message };
    // SAFETY: as above.
    let copied = unsafe { fill(message, &bytes) };
    message.msg_flags &= !libc::MSG_TRUNC;
    if copied < bytes.len() {
        message.msg_flags |= libc::MSG_TRUNC;
    }
    if flags & libc::MSG_PEEK == 0 {
        pending.with(|pending| pending.end_part(socket));
    }
    Some(Ok(if flags & libc::MSG_TRUNC != 0 { bytes.len() } else { copied } as ssize_t))
}

/// Returns the first datagram in the queue, if there is one, and the kernel sent it.
fn first_datagram(fd: c_int) -> Result<Option<Vec<u8>>> {
    let look = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let (none, no_length) = (ptr::null_mut(), ptr::null_mut());
    // More room would make the next kernel datagrams longer than the program's own calls do.
    // SAFETY: there is room for nothing.
    let length = unsafe { kernel::recvfrom(fd, ptr::null_mut(), 0, look | libc::MSG_TRUNC, none, no_length) };
    let length = match length {
        Err(Errno::AGAIN) => return Ok(None),
        length => length?,
    };
    let mut datagram = vec![0_u8; length as usize];
    // SAFETY: zeros are an address.
    let mut sender: sockaddr_nl = unsafe { mem::zeroed() };
    let mut sender_length = size_of::<sockaddr_nl>() as socklen_t;
    let (from, from_length) = ((&raw mut sender).cast(), &raw mut sender_length);
    let to = datagram.as_mut_ptr().cast();
    // SAFETY: there is as much room as given.
    let received = match unsafe { kernel::recvfrom(fd, to, datagram.len(), look, from, from_length) } {
        // Another thread has taken it.
        Err(Errno::AGAIN) => return Ok(None),
        received => received?,
    };
    datagram.truncate(received as usize);
    Ok((sender.nl_pid == 0).then_some(datagram))
}

/// Copies as much as fits and returns the number of bytes copied.
///
/// # Safety
/// The message's pieces are valid.
unsafe fn fill(message: &msghdr, part: &[u8]) -> usize {
    let mut left = part;
    // The field's type differs between C libraries.
    #[allow(clippy::unnecessary_cast)]
    for at in 0..message.msg_iovlen as usize {
        // SAFETY: the caller's.
        let iovec { iov_base, iov_len } = unsafe { *message.msg_iov.add(at) };
        let fits = if iov_base.is_null() { 0 } else { iov_len.min(left.len()) };
        if fits > 0 {
            // SAFETY: as above.
            unsafe { ptr::copy_nonoverlapping(left.as_ptr(), iov_base.cast(), fits) };
            left = &left[fits..];
        }
    }
    part.len() - left.len()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::interface::tests::networks;

    /// Returns a request for all interfaces.
    fn asked(sequence: u32) -> Vec<u8> {
        super::super::message(libc::RTM_GETLINK, 0x301, sequence, &[0; 16])
    }

    fn message(pieces: &mut [iovec]) -> msghdr {
        // SAFETY: zeros are a message of nothing.
        let mut message: msghdr = unsafe { mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (pieces.as_mut_ptr(), pieces.len() as _);
        message
    }

    /// Receives one datagram, as a program does.
    fn receive_one(
        fd: c_int,
        pending: &Mutex<PendingAnswers>,
        flags: c_int,
        room: usize,
    ) -> (Vec<u8>, usize) {
        let mut bytes = vec![0; room];
        let mut pieces = [iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: room }];
        let mut message = message(&mut pieces);
        // SAFETY: the message and its piece are live.
        let received = unsafe { receive(fd, pending, &raw mut message, flags) };
        // SAFETY: as above.
        let received = received.unwrap_or_else(|| unsafe { kernel::recvmsg(fd, &raw mut message, flags) });
        let received = received.expect("there is a datagram") as usize;
        bytes.truncate(received);
        (bytes, received)
    }

    #[test]
    fn a_dump_is_received_with_the_networks_before_its_end() {
        use rustix::net::{AddressFamily, SocketType};
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).expect("netlink");
        let (fd, pending) = (socket.as_raw_fd(), Mutex::new(PendingAnswers::new()));
        assert!(is_routing_socket(fd) && !is_routing_socket(0));
        note(fd, &pending, &asked(3), networks);
        rustix::net::send(&socket, &asked(3), rustix::net::SendFlags::empty()).expect("it is sent");
        let mut names = Vec::new();
        loop {
            let (peeked, whole) = receive_one(fd, &pending, libc::MSG_PEEK | libc::MSG_TRUNC, 16);
            assert!(peeked.len() == 16 && whole >= 16);
            let (bytes, length) = receive_one(fd, &pending, 0, 1 << 16);
            assert_eq!((length, &bytes[..16]), (whole, &peeked[..]), "what was looked at comes");
            for (_, one) in super::super::messages(&bytes) {
                let mut attributes = super::super::attributes(one.payload().get(16..).unwrap_or_default());
                names.extend(attributes.find(|one| one.kind() == 3).map(|name| name.value().to_vec()));
            }
            let is_end = |kind: u16| c_int::from(kind) == libc::NLMSG_DONE;
            if super::super::messages(&bytes).any(|(_, one)| is_end(one.message_type())) {
                break;
            }
        }
        assert!(names.ends_with(&[b"ps1\0".to_vec(), b"ps2\0".to_vec()]), "{names:?}");
        assert!(names.contains(&b"lo\0".to_vec()));
        assert!(!pending.with(|pending| pending.has(kernel::cookie(fd).expect("it is a socket"))));
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let mut pending = PendingAnswers::new();
        for sequence in 0..3 * MAX_ANSWERS as u32 {
            let [question] = &questions(&asked(sequence), || false)[..] else { panic!() };
            pending.add(1, question.answer(&networks()).expect("there are networks"));
            pending.add(1, question.answer(&networks()).expect("there are networks"));
        }
        assert_eq!(pending.0.len(), MAX_ANSWERS_PER_SOCKET);
        for socket in 0..2 * MAX_ANSWERS as u64 {
            let [question] = &questions(&asked(1), || false)[..] else { panic!() };
            pending.add(socket, question.answer(&networks()).expect("there are networks"));
        }
        assert_eq!(pending.0.len(), MAX_ANSWERS);
    }
}
