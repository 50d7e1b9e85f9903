//! Accepting connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags};

use crate::name::{Kind, Name};
use crate::socket::{Socket, UNSEEN, enlarge, name_of};
use crate::{passed, private};

impl Socket<'_> {
    /// accept4(2). Gives the address of the other end.
    ///
    /// # Errors
    /// Those of accept(2); ENETDOWN if the node is no more, or has left the network.
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

    /// What a descriptor is that the kernel's accept4(2) has given, with these flags: the connection, and the
    /// address of its other end. `None` if it is to be closed, and the next one waited for.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
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
        // Every program of this machine may connect to an abstract name. Only the node is believed.
        match from.and_then(name_of).filter(|_| self.client().is_node(fd.as_fd())) {
            Some(name @ Name::Accepted(_, accepted)) => {
                enlarge(fd.as_fd());
                private::inherit(self.fd(), fd.as_fd())?;
                // As long as the node does not take it, its death is no end of the stream. It wakes the node,
                // so it comes last: what the program tells the node next may find it awake.
                let name = name.to_string();
                let written = rustix::net::send(&fd, name.as_bytes(), UNSEEN);
                if written == Err(Errno::PIPE) && self.is_down() {
                    return Err(Errno::NETDOWN);
                }
                Ok(Some((fd, accepted.peer)))
            }
            Some(Name::Passed(_, passed)) => passed::take(fd, flags, passed.peer),
            _ => Ok(None),
        }
    }

    /// What an error of the kernel's accept4(2) means.
    pub fn accept_error(&self, error: Errno) -> Errno {
        match error {
            // What a socket that was shut down gives, depending on whether it waits.
            Errno::AGAIN | Errno::INVAL => {
                let shut = if self.is_shut() { Errno::INVAL } else { error };
                self.end().unwrap_or(shut)
            }
            _ => error,
        }
    }
}
