//! peersock's sockets as real file descriptors: the same work as [`crate::overlay`], with the kernel's read
//! and write on descriptors that the node in this process pumps.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use peersock::Network;
use peersock_descriptors::Host;
use peersock_fd::{Client, Errno, Family, Kind, Socket, SocketFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::overlay::NodeOptions;
use crate::workload::{Listener, Stream, Transport};

/// A node that serves descriptors, with a table of descriptors of its own as in a program in C.
pub(crate) struct Descriptors {
    address: IpAddr,
    client: Arc<Client>,
    _host: Host,
}

impl Descriptors {
    /// Starts the node, joins and serves.
    ///
    /// # Errors
    ///
    /// When the node cannot start or the network cannot be joined.
    pub(crate) fn start(options: &NodeOptions) -> io::Result<Descriptors> {
        let host = Host::start(options.builder())?;
        let network = Network::ad_hoc(options.network());
        let address = host.run(|node| node.join(network).map(|joined| joined.address()))?;
        let address = address.map_err(io::Error::other)?.into();
        let client = Client::new(host.tag(), host.token());
        Ok(Descriptors { address, client, _host: host })
    }

    fn socket(&self) -> io::Result<OwnedFd> {
        Ok(peersock_fd::open(&self.client, Family::V6, Kind::Stream, SocketFlags::CLOEXEC)?)
    }
}

impl Transport for Descriptors {
    type Stream = FdStream;
    type Listener = FdListener;

    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<FdStream> {
        let fd = self.socket()?;
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
        let fd = self.socket()?;
        let socket = overlay(&fd)?;
        socket.bind((Ipv6Addr::UNSPECIFIED, address.port()).into())?;
        socket.listen(128)?;
        let address = SocketAddr::new(self.address, socket.local_addr()?.port());
        Ok(FdListener { fd, address })
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
        // IPPROTO_TCP and TCP_NODELAY.
        Ok(overlay(&self.0)?.set_option(6, 1, &i32::from(on).to_ne_bytes())?)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, timeout)?)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write)?)
    }
}

fn overlay(fd: &impl AsFd) -> io::Result<Socket<'_>> {
    Socket::of(fd.as_fd()).ok_or_else(|| io::Error::other("no overlay socket"))
}
