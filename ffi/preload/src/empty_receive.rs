//! Meaning of an empty receive: a datagram without bytes, an end, or, on an overlay datagram socket, a
//! pending error of the node.

use std::os::fd::RawFd;

use libc::{c_int, sockaddr, socklen_t, ssize_t};
use peersock_bsd::{Errno, Socket, epoll_sets, last_error, replaced};
use peersock_fd::Kind;

use crate::hooks::overlay;
use crate::kernel::{hooked, int_option, quietly};

/// Buffer for the name of the AF_UNIX socket that has sent a datagram.
pub(crate) struct Sender {
    address: libc::sockaddr_un,
    length: socklen_t,
}

impl Sender {
    pub(crate) fn new() -> Sender {
        let address = libc::sockaddr_un { sun_family: 0, sun_path: [0; 108] };
        Sender { address, length: size_of::<libc::sockaddr_un>() as socklen_t }
    }

    pub(crate) fn room(&mut self) -> (*mut sockaddr, *mut socklen_t) {
        ((&raw mut self.address).cast(), &raw mut self.length)
    }

    /// Returns an abstract name, without its first zero.
    fn name(&self) -> Option<&[u8]> {
        let is_unix = i32::from(self.address.sun_family) == libc::AF_UNIX;
        let length = (self.length as usize).checked_sub(size_of::<libc::sa_family_t>())?;
        // SAFETY: the array consists of bytes.
        let path = unsafe { &*(&raw const self.address.sun_path).cast::<[u8; 108]>() };
        path.get(..length)?.strip_prefix(&[0]).filter(|_| is_unix)
    }
}

/// Returns true if another program of this machine has sent a datagram to an overlay socket, because any
/// program may send to an abstract name.
pub(crate) fn is_by_stranger(fd: RawFd, sender: &Sender) -> bool {
    let is_sent_by_other = || {
        let socket = overlay(fd).filter(|socket| socket.kind() != Kind::Stream);
        socket.is_some_and(|socket| !sender.name().is_some_and(|name| socket.is_end(name)))
    };
    quietly(|_| true, || is_datagram(fd) && is_sent_by_other())
}

/// Returns true if a call that has received nothing must be repeated, because another thread has turned its
/// kernel datagram socket into an overlay socket. `before` is the value of [`replaced::count`] before the
/// call.
pub(crate) fn is_replaced(fd: RawFd, before: u32) -> bool {
    replaced::count() != before && quietly(|_| true, || is_datagram(fd) && overlay(fd).is_some())
}

/// Meaning of an empty receive on a socket.
pub(crate) enum Nothing {
    /// A datagram without bytes, or the end of a stream.
    Datagram,
    /// The node's announcement of an error that another call has reported since, and no datagram.
    Notice,
    Error(Errno),
}

/// Returns the meaning of an empty receive from this sender.
pub(crate) fn meaning_of_nothing(fd: RawFd, sender: &Sender, flags: c_int) -> Nothing {
    let Some(socket) = overlay(fd).filter(|socket| socket.kind() != Kind::Stream) else {
        return Nothing::Datagram;
    };
    match sender.name() {
        Some(sender) if socket.is_notice(sender) => match flags & libc::MSG_PEEK {
            0 => socket.noticed().map_or(Nothing::Notice, Nothing::Error),
            _ => Nothing::Notice,
        },
        // A datagram socket whose node has ended stays readable without data forever.
        _ => end(&socket).map_or(Nothing::Datagram, Nothing::Error),
    }
}

/// Converts a result without information about the sender. On an overlay datagram socket, 0 may mean that the
/// node has an error to report.
pub(crate) fn told_without_sender(fd: RawFd, returned: ssize_t) -> ssize_t {
    // The end of files and streams is returned at once, also in signal handlers.
    if returned != 0 || !is_datagram(fd) {
        return returned;
    }
    let error = || {
        let socket = overlay(fd).filter(|socket| socket.kind() != Kind::Stream)?;
        end(&socket).or_else(|| socket.noticed())
    };
    hooked(|| error().map_or(Ok(0), Err))
}

fn end(socket: &Socket<'_>) -> Option<Errno> {
    socket.end().map(|error| last_error(socket, error, epoll_sets::find))
}

pub(crate) fn is_datagram(fd: RawFd) -> bool {
    matches!(int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE), Some(libc::SOCK_DGRAM | libc::SOCK_RAW))
}
