//! Connecting sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket as System, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixDatagram, UnixStream};
use tokio::time::sleep;

use super::Socket;
use super::kernel_packets::{SEND_RETRY_INTERVAL, UdpPackets, UnixPackets};
use super::overlay::{OverlayPackets, OverlayStream};
use crate::members::{Members, is_members};

/// A connection, and the peer's address as the system reports it.
pub(crate) type Connected = (Box<dyn Socket>, SocketAddr);

/// Connects to an IP address, by TCP or UDP.
pub(crate) async fn connect_ip(
    members: Option<&Members>,
    is_stream: bool,
    local: Option<SocketAddr>,
    remote: SocketAddr,
) -> io::Result<Connected> {
    let overlay = match is_members(members, remote.ip())? {
        true => members,
        false => None,
    };
    let local = local.map(|local| suited(local, remote));
    match (overlay, is_stream) {
        (Some(members), true) => {
            let stream = OverlayStream::connect(members, local, remote).await?;
            let remote = stream.remote();
            Ok((Box::new(stream), remote))
        }
        (Some(members), false) => {
            let local = local.unwrap_or_else(|| wildcard(remote));
            let socket = OverlayPackets::bind(members, local).await?;
            socket.connect(remote).await?;
            Ok((Box::new(socket), remote))
        }
        (None, true) => {
            let stream = kernel_stream(local, remote).await?;
            let remote = stream.peer_addr()?;
            Ok((Box::new(stream), remote))
        }
        (None, false) => {
            let socket = UdpSocket::bind(local.unwrap_or_else(|| wildcard(remote))).await?;
            socket.connect(remote).await?;
            let remote = socket.peer_addr()?;
            Ok((Box::new(UdpPackets::new(socket)), remote))
        }
    }
}

async fn kernel_stream(local: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if let Some(local) = local {
        socket.set_reuseaddr(true)?;
        socket.bind(local)?;
    }
    socket.set_nodelay(true)?;
    let stream = socket.connect(remote).await?;
    // If no listener holds the remote port, the kernel may give this socket that port: it meets itself.
    let may_meet = local.is_some_and(|local| local.port() != 0);
    if !may_meet && stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(stream)
}

/// Returns the local address; an unspecified one gets the remote's family.
fn suited(local: SocketAddr, remote: SocketAddr) -> SocketAddr {
    if local.ip().is_unspecified() { SocketAddr::new(wildcard(remote).ip(), local.port()) } else { local }
}

fn wildcard(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() }
}

/// Connects to a Unix domain socket, from a local address if given. A failure removes its bound path.
pub(crate) async fn connect_unix(
    is_stream: bool,
    local: Option<(&SockAddr, Option<&Path>)>,
    remote: &SockAddr,
) -> io::Result<Box<dyn Socket>> {
    let socket = unix(is_stream)?;
    let bound = match local {
        None => None,
        Some((address, path)) => {
            socket.bind(address)?;
            path.map(Bound)
        }
    };
    loop {
        match socket.connect(remote) {
            // The listener's backlog is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(SEND_RETRY_INTERVAL).await,
            done => break done?,
        }
    }
    std::mem::forget(bound);
    of_unix(socket, is_stream)
}

/// A guard that removes a path when dropped, because a later attempt would find the path taken.
struct Bound<'a>(&'a Path);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// Returns a Unix domain datagram socket that is neither bound nor connected.
pub(crate) fn unbound_unixgram() -> io::Result<Box<dyn Socket>> {
    of_unix(unix(false)?, false)
}

pub(super) fn unix(is_stream: bool) -> io::Result<System> {
    let socket = System::new(Domain::UNIX, if is_stream { Type::STREAM } else { Type::DGRAM }, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn of_unix(socket: System, is_stream: bool) -> io::Result<Box<dyn Socket>> {
    let fd = OwnedFd::from(socket);
    Ok(match is_stream {
        true => Box::new(UnixStream::from_std(fd.into())?),
        false => Box::new(UnixPackets::new(UnixDatagram::from_std(fd.into())?)),
    })
}
