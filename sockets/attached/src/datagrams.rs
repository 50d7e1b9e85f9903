//! UDP sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use peersock_fd::{Errno, Kind, RecvFlags, SendFlags, Socket};
use rustix::net::sockopt::{self, Timeout};

use crate::member::Member;
use crate::sys;

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket(OwnedFd);

impl UdpSocket {
    /// Binds a socket to an address of the node. Port 0 is a free one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `NetworkDown`.
    pub fn bind(member: &Member, local: SocketAddr) -> io::Result<UdpSocket> {
        sys::bound(member.client(), local, Kind::Datagram).map(UdpSocket)
    }

    /// Makes a socket to send to addresses of the family of `like`, with any port.
    ///
    /// # Errors
    /// `AddrNotAvailable` if the node has no such address, `NetworkDown`.
    pub fn client(member: &Member, like: IpAddr) -> io::Result<UdpSocket> {
        let any = SocketAddr::new(if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
        UdpSocket::bind(member, any)
    }

    fn socket(&self) -> Result<Socket<'_>, Errno> {
        sys::overlay(self.0.as_fd())
    }

    /// Sends to, and receives from, this address only.
    ///
    /// # Errors
    /// Errors of connect(2).
    pub fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        Ok(self.socket()?.connect(Some(remote))?)
    }

    /// Sends a datagram to the connected address.
    ///
    /// # Errors
    /// Errors of send(2), also of earlier datagrams.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.send_with(data, SendFlags::empty())
    }

    pub(crate) fn send_with(&self, data: &[u8], flags: SendFlags) -> io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        Ok(sys::retry(|| self.socket()?.send(&[IoSlice::new(data)], flags, None))?)
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// Errors of sendto(2), also of earlier datagrams.
    pub fn send_to(&self, data: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.send_to_with(data, remote, SendFlags::empty())
    }

    pub(crate) fn send_to_with(
        &self,
        data: &[u8],
        remote: SocketAddr,
        flags: SendFlags,
    ) -> io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        Ok(sys::retry(|| self.socket()?.send_to(&[IoSlice::new(data)], flags, remote, None))?)
    }

    /// Receives a datagram. Returns its length and its sender.
    ///
    /// # Errors
    /// Errors of recvfrom(2), also of earlier datagrams; `WouldBlock` after the timeout, `NetworkDown` if the
    /// node has ended.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from_with(buf, RecvFlags::empty())
    }

    pub(crate) fn recv_from_with(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<(usize, SocketAddr)> {
        let received = self.socket()?.recv_from(&mut [IoSliceMut::new(buf)], flags)?;
        // A socket without a sender was shut down.
        let remote = received.remote.ok_or(io::ErrorKind::NetworkDown)?;
        Ok((received.length, remote))
    }

    /// Sets the timeout of [`recv_from`](Self::recv_from); `None` is for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(&self.0, Timeout::Recv, timeout)?)
    }

    /// Returns its address.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket()?.local_addr()?)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
