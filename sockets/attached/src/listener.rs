//! TCP listeners.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use peersock_fd::{Kind, Request, SocketFlags, Which};

use crate::member::Member;
use crate::stream::TcpStream;
use crate::sys;

/// Limit of connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A listener for TCP connections.
#[derive(Debug)]
pub struct TcpListener {
    fd: OwnedFd,
    member: Member,
}

impl TcpListener {
    /// Listens at an address of the node. Port 0 is a free one.
    ///
    /// # Errors
    /// `AddrInUse`, also if another program of the node has the port; `AddrNotAvailable`, `PermissionDenied`
    /// (the network does not allow the port), `NetworkDown`.
    pub fn bind(member: &Member, local: SocketAddr) -> io::Result<TcpListener> {
        let fd = sys::bound(member.client(), local, Kind::Stream)?;
        sys::overlay(fd.as_fd())?.listen(BACKLOG)?;
        Ok(TcpListener { fd, member: member.clone() })
    }

    /// Waits for a connection. Returns it with the peer's address.
    ///
    /// # Errors
    /// `InvalidInput` once it is closed, `NetworkDown` if the node has ended, errors of accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = sys::retry(|| sys::overlay(self.fd.as_fd())?.accept(SocketFlags::CLOEXEC))?;
        Ok((TcpStream::new(&self.member, fd, peer), peer))
    }

    /// Refuses further connections, and ends calls that wait for one.
    pub fn close(&self) {
        let _ = sys::overlay(self.fd.as_fd()).map(|socket| socket.shutdown(peersock_fd::Shutdown::Both));
    }

    /// Returns its address.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(sys::overlay(self.fd.as_fd())?.local_addr()?)
    }
}

impl Drop for TcpListener {
    /// Refuses further connections at once. The node notices the end of the descriptor a moment later.
    fn drop(&mut self) {
        let which = sys::overlay(self.fd.as_fd()).map(|socket| socket.which());
        self.close();
        if let Ok(Which::Opened(opened)) = which {
            let _ = self.member.client().ask(Request::Closed(opened));
        }
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
