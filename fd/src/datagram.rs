//! Datagram sockets: the node has a socket for each remote address, whose name is what the application's end sends to
//! and receives from.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, sendmsg_addr,
};

use crate::client::address;
use crate::control::Request;
use crate::name::{Details, Kind, Name, Remote};
use crate::socket::{Socket, name_of};

/// A datagram as the application gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were copied; with MSG_TRUNC the datagram's length.
    pub length: usize,
    /// Whether the datagram was longer than the buffer.
    pub truncated: bool,
    /// Who sent it; `None` for what did not come from the overlay.
    pub remote: Option<SocketAddr>,
    /// What its IP header says, if the socket asked for it.
    pub details: Option<Details>,
}

impl Socket<'_> {
    /// connect(2) of a datagram socket.
    pub(crate) fn associate(&self, remote: Option<SocketAddr>) -> Result<(), Errno> {
        self.ask(Request::Associate(self.opened(), remote))?;
        match remote {
            Some(remote) => rustix::net::connect(self.fd(), &self.remote_name(remote, None)),
            None => rustix::net::connect_unspec(self.fd()),
        }
    }

    /// sendto(2) and sendmsg(2), with an address.
    ///
    /// # Errors
    /// EMSGSIZE, EINVAL (port 0), EACCES, ENETUNREACH, EAGAIN, and those of sendmsg(2).
    pub fn send_to(
        &self,
        data: &[IoSlice<'_>],
        flags: SendFlags,
        remote: SocketAddr,
        details: Option<Details>,
    ) -> Result<usize, Errno> {
        self.check_family(remote)?;
        if remote.port() == 0 && self.kind() == Kind::Datagram {
            return Err(Errno::INVAL);
        }
        let name = self.remote_name(remote, details);
        let send = || sendmsg_addr(self.fd(), &name, data, &mut SendAncillaryBuffer::default(), flags);
        match send() {
            // The node has no such socket, or none any more.
            Err(Errno::CONNREFUSED | Errno::NOENT) => {
                self.ask(Request::Reach(self.opened(), remote, details))?;
                send()
            }
            result => result,
        }
    }

    /// recvfrom(2) and recvmsg(2).
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub fn recv_from(&self, buf: &mut [IoSliceMut<'_>], flags: RecvFlags) -> Result<Received, Errno> {
        let received = rustix::net::recvmsg(self.fd(), buf, &mut RecvAncillaryBuffer::default(), flags)?;
        let remote = match received.address.and_then(name_of) {
            Some(Name::Remote(_, remote)) => Some(remote),
            _ => None,
        };
        Ok(Received {
            length: received.bytes,
            truncated: received.flags.contains(ReturnFlags::TRUNC),
            remote: remote.map(|remote| remote.address),
            details: remote.and_then(|remote| remote.details),
        })
    }

    fn remote_name(&self, remote: SocketAddr, details: Option<Details>) -> SocketAddrUnix {
        let remote = Remote { id: self.opened().id, address: remote, details };
        address(&Name::Remote(self.client().tag(), remote))
    }
}
