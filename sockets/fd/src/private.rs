//! Streams to which only the node can connect, because other users of the machine could fill a listener's
//! backlog.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::name::Kind;
use crate::requests::Request;
use crate::socket::Socket;
use crate::sys;

impl Socket<'_> {
    /// Opens a replacement kernel socket for this stream, with its flags and options, to which only the node
    /// can connect. It should take the descriptor's place when the stream is bound, before the stream listens
    /// and before it is passed to other processes.
    ///
    /// Returns `None` if the stream is such a socket already, has connected or listens, or if the node cannot
    /// make one. In the last case other users of the machine can fill its backlog.
    ///
    /// # Errors
    /// Errors of socket(2) and fcntl(2), ENETDOWN.
    pub fn private(&self) -> Result<Option<OwnedFd>, Errno> {
        let has_begun =
            || Ok(sockopt::socket_acceptconn(self.fd())? || rustix::net::getpeername(self.fd()).is_ok());
        if self.kind() != Kind::Stream || self.is_private || has_begun()? {
            return Ok(None);
        }
        let flags = SocketFlags::CLOEXEC;
        let new = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match self.client().ask_with(Request::MakePrivate(self.opened()), Some(new.as_fd())) {
            Ok(_) => {}
            Err(Errno::NETDOWN) => return Err(Errno::NETDOWN),
            Err(_) => return Ok(None),
        }
        inherit_status(self.fd(), new.as_fd())?;
        inherit(self.fd(), new.as_fd())?;
        Ok(Some(new))
    }
}

/// Copies the fcntl(2) state of a descriptor to another: O_NONBLOCK, and O_ASYNC with the receiver of SIGIO.
///
/// # Errors
/// Errors of fcntl(2).
pub fn inherit_status(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> Result<(), Errno> {
    // The owner may be gone.
    let _ = sys::inherit_owner(old, new);
    let kept = OFlags::NONBLOCK | OFlags::from_bits_retain(libc::O_ASYNC as u32);
    rustix::fs::fcntl_setfl(new, rustix::fs::fcntl_getfl(old)? & kept)
}

/// Copies options that the kernel keeps from one socket to another. A connection gets them from its listener,
/// as with TCP.
pub(crate) fn inherit(listener: BorrowedFd<'_>, connection: BorrowedFd<'_>) -> Result<(), Errno> {
    if let Ok(Some(linger)) = sockopt::socket_linger(listener) {
        sockopt::set_socket_linger(connection, Some(linger))?;
    }
    for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        if let Ok(Some(time)) = sockopt::socket_timeout(listener, direction) {
            sockopt::set_socket_timeout(connection, direction, Some(time))?;
        }
    }
    for (option, usual) in [(libc::SO_RCVLOWAT, 1), (libc::SO_PEEK_OFF, -1)] {
        let value = sys::int_option(listener, option)?;
        if value != usual {
            sys::set_int_option(connection, option, value)?;
        }
    }
    Ok(())
}
