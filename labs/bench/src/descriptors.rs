//! peersock sockets as real file descriptors. The work is that of [`crate::overlay`], with the system calls
//! read and write on descriptors that the node in this process pumps.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use peersock::Network;
use peersock_fd::{Client, Errno, Family, Kind, Socket, SocketFlags};
use peersock_socket_server::Host;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};

use crate::overlay::NodeOptions;
use crate::workload::{Datagrams, Listener, Stream, Transport, User};

/// A node that serves descriptors, with a separate table of descriptors like that of a C program.
pub(crate) struct Descriptors {
    address: IpAddr,
    client: Arc<Client>,
    _host: Host,
}

impl Descriptors {
    /// Starts the node, joins and serves.
    /// Fails if the node cannot start or the network cannot be joined.
    pub(crate) fn start(options: &NodeOptions) -> io::Result<Descriptors> {
        let host = Host::start(options.builder())?;
        let network = Network::ad_hoc(options.network());
        let address = host.run(|node| node.join(network).map(|joined| joined.address()))?;
        let address = address.map_err(io::Error::other)?.into();
        let client = Client::new(host.tag(), host.token());
        Ok(Descriptors { address, client, _host: host })
    }

    fn socket(&self, kind: Kind) -> io::Result<OwnedFd> {
        Ok(peersock_fd::open(&self.client, Family::V6, kind, SocketFlags::CLOEXEC)?)
    }
}

impl Transport for Descriptors {
    type Stream = FdStream;
    type Listener = FdListener;
    type Datagrams = FdDatagrams;

    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<FdStream> {
        let fd = self.socket(Kind::Stream)?;
        set_socket_timeout(&fd, Timeout::Send, Some(timeout))?;
        match overlay(&fd)?.connect(Some(address)) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
        set_socket_timeout(&fd, Timeout::Send, None)?;
        Ok(FdStream(fd.into()))
    }

    fn listen(&self, address: SocketAddr) -> io::Result<FdListener> {
        let fd = self.socket(Kind::Stream)?;
        let socket = overlay(&fd)?;
        socket.bind((Ipv6Addr::UNSPECIFIED, address.port()).into())?;
        socket.listen(128)?;
        let address = SocketAddr::new(self.address, socket.local_addr()?.port());
        Ok(FdListener { fd, address })
    }

    fn bind(&self, address: SocketAddr) -> io::Result<FdDatagrams> {
        let fd = self.socket(Kind::Datagram)?;
        overlay(&fd)?.bind(address)?;
        Ok(FdDatagrams(fd))
    }

    fn swallow(&self, _: SocketAddr, _: User<FdStream>) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "not measured with descriptors"))
    }
}

/// A listening descriptor, and the address that clients use.
pub(crate) struct FdListener {
    fd: OwnedFd,
    address: SocketAddr,
}

impl Listener for FdListener {
    type Stream = FdStream;

    fn accept(&self) -> io::Result<FdStream> {
        let (fd, _) = overlay(&self.fd)?.accept(SocketFlags::CLOEXEC)?;
        Ok(FdStream(fd.into()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connected descriptor.
pub(crate) struct FdStream(File);

impl Read for FdStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for FdStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for FdStream {
    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        // These are IPPROTO_TCP and TCP_NODELAY.
        Ok(overlay(&self.0)?.set_option(6, 1, &i32::from(on).to_ne_bytes())?)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, timeout)?)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write)?)
    }
}

/// A datagram descriptor.
pub(crate) struct FdDatagrams(OwnedFd);

impl Datagrams for FdDatagrams {
    fn send_to(&self, datagram: &[u8], address: SocketAddr) -> io::Result<()> {
        let data = [IoSlice::new(datagram)];
        Ok(overlay(&self.0)?.send_to(&data, SendFlags::empty(), address, None).map(drop)?)
    }

    fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = overlay(&self.0)?.recv_from(&mut [IoSliceMut::new(buf)], RecvFlags::empty())?;
        let remote = received.remote.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((received.length, remote))
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, timeout)?)
    }
}

fn overlay(fd: &impl AsFd) -> io::Result<Socket<'_>> {
    Socket::of(fd.as_fd()).ok_or_else(|| io::Error::other("no overlay socket"))
}
