//! Accepting connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags};

use crate::name::{Kind, Name};
use crate::socket::{QUIET_SEND, Socket, enlarge, name_of};
use crate::{passed, private};

impl Socket<'_> {
    /// Accepts a connection as accept4(2) does. Returns its descriptor and the peer's address.
    ///
    /// # Errors
    /// Errors of accept(2); ENETDOWN if the node has ended, or has left the network.
    pub fn accept(&self, flags: SocketFlags) -> Result<(OwnedFd, SocketAddr), Errno> {
        if self.kind() != Kind::Stream {
            return Err(Errno::OPNOTSUPP);
        }
        loop {
            let (fd, from) =
                rustix::net::acceptfrom_with(self.fd(), flags).map_err(|error| self.accept_error(error))?;
            if let Some(accepted) = self.take_accepted_from(fd, from, flags)? {
                return Ok(accepted);
            }
        }
    }

    /// Interprets a descriptor that accept4(2) of the kernel has returned with these flags. Returns the
    /// connection and the peer's address, or `None` if the descriptor must be closed and the next one
    /// awaited.
    ///
    /// # Errors
    /// Like [`accept`](Self::accept).
    pub fn take_accepted(
        &self,
        fd: OwnedFd,
        flags: SocketFlags,
    ) -> Result<Option<(OwnedFd, SocketAddr)>, Errno> {
        let from = rustix::net::getpeername(&fd).ok().flatten();
        self.take_accepted_from(fd, from, flags)
    }

    fn take_accepted_from(
        &self,
        fd: OwnedFd,
        from: Option<SocketAddrAny>,
        flags: SocketFlags,
    ) -> Result<Option<(OwnedFd, SocketAddr)>, Errno> {
        // Every program of this machine may connect to an abstract name, so trust only the node.
        match from.and_then(name_of).filter(|_| self.client().is_node(fd.as_fd())) {
            Some(name @ Name::Accepted(_, accepted)) => {
                enlarge(fd.as_fd());
                private::inherit(self.fd(), fd.as_fd())?;
                // Until the node takes this mark, the node's death does not look like the end of the stream.
                // The write wakes the node, so it comes last: the program's next message may then find the
                // node awake.
                let name = name.to_string();
                let written = rustix::net::send(&fd, name.as_bytes(), QUIET_SEND);
                if written == Err(Errno::PIPE) && self.is_down() {
                    return Err(Errno::NETDOWN);
                }
                Ok(Some((fd, accepted.peer)))
            }
            Some(Name::Passed(_, passed)) => passed::take(fd, flags, passed.peer),
            _ => Ok(None),
        }
    }

    /// Converts an error of accept4(2) of the kernel.
    pub fn accept_error(&self, error: Errno) -> Errno {
        match error {
            // A socket that was shut down returns one of these, depending on whether it blocks.
            Errno::AGAIN | Errno::INVAL => {
                let shut = if self.is_shut() { Errno::INVAL } else { error };
                self.end().unwrap_or(shut)
            }
            _ => error,
        }
    }
}
