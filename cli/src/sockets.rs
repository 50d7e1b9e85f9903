//! Sockets of a command: of a node in this process, or of the node that programs share.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use peersock::{PeerIdentity, blocking};
use peersock_attached as attached;

/// A TCP connection.
pub(crate) enum Stream {
    Own(blocking::TcpStream),
    Shared(attached::TcpStream),
}

/// State of a connection.
pub(crate) struct Info {
    pub(crate) delivered: u64,
    pub(crate) unacked: u64,
    pub(crate) peer_window: u64,
}

impl Stream {
    /// Returns a copy of a connection of a node in this process.
    pub(crate) fn own(stream: &blocking::TcpStream) -> io::Result<Stream> {
        stream.try_clone().map(Stream::Own)
    }

    /// Takes a connection of the shared node. It is reset if this process ends before it is
    /// [delivered](Self::wait_delivered), because the peer must not consider it complete.
    pub(crate) fn shared(stream: attached::TcpStream) -> io::Result<Stream> {
        stream.reset_on_close(true)?;
        Ok(Stream::Shared(stream))
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Stream::Shared(_))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Own(stream) => Stream::Own(stream.try_clone()?),
            Stream::Shared(stream) => Stream::Shared(stream.clone()),
        })
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Own(stream) => stream.peer_addr(),
            Stream::Shared(stream) => Ok(stream.peer_addr()),
        }
    }

    /// Returns who is at the other end.
    pub(crate) fn peer(&self) -> Option<PeerIdentity> {
        match self {
            Stream::Own(stream) => stream.peer(),
            Stream::Shared(stream) => stream.peer().ok(),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.shutdown(how),
            Stream::Shared(stream) if how == Shutdown::Write => stream.finish_sending(),
            Stream::Shared(stream) => stream.shutdown(how),
        }
    }

    /// Makes the connection end with a reset when it is closed.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.set_linger(Some(Duration::ZERO)),
            Stream::Shared(stream) => stream.reset_on_close(true),
        }
    }

    /// Accepts no more data than the node has acknowledged by now.
    pub(crate) fn stop_receiving(&self) {
        match self {
            Stream::Own(stream) => drop(stream.stop_receiving()),
            Stream::Shared(stream) => stream.stop_receiving(),
        }
    }

    /// Returns the number of bytes that the peer has not acknowledged.
    pub(crate) fn unacked(&self) -> u64 {
        match self {
            Stream::Own(stream) => stream.unacked(),
            Stream::Shared(stream) => stream.unacked(),
        }
    }

    /// Returns the error that has ended the connection, if one has. It shows also where nothing is read or
    /// written.
    pub(crate) fn broken(&self) -> Option<io::Error> {
        match self {
            Stream::Own(stream) => stream.take_error().ok().flatten(),
            Stream::Shared(stream) => stream.broken(),
        }
    }

    /// Waits until the peer has acknowledged what was written.
    pub(crate) fn wait_acknowledged(&self, within: Duration) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.wait_delivered(Some(within)),
            Stream::Shared(stream) => stream.wait_acknowledged(Some(within)),
        }
    }

    /// Waits until the peer has acknowledged everything and the end, after both directions have ended.
    pub(crate) fn wait_delivered(&self) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.wait_delivered(None),
            Stream::Shared(stream) => stream.wait_delivered(),
        }
    }

    pub(crate) fn set_keepalive(&self, interval: Duration) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.set_keepalive(Some(interval)),
            Stream::Shared(stream) => stream.set_keepalive(interval),
        }
    }

    pub(crate) fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.set_user_timeout(Some(timeout)),
            Stream::Shared(stream) => stream.set_user_timeout(timeout),
        }
    }

    pub(crate) fn info(&self) -> io::Result<Info> {
        match self {
            Stream::Own(stream) => {
                let peersock::TcpInfo { delivered, unacked, peer_window, .. } = stream.info()?;
                Ok(Info { delivered, unacked, peer_window })
            }
            Stream::Shared(stream) => {
                let attached::Info { delivered, peer_window, .. } = stream.info()?;
                Ok(Info { delivered, unacked: stream.unacked(), peer_window })
            }
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Own(stream) => (&mut &*stream).read(buf),
            Stream::Shared(stream) => (&mut &*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Own(stream) => (&mut &*stream).write(data),
            Stream::Shared(stream) => (&mut &*stream).write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl peersock_files::Stream for Stream {
    fn try_clone(&self) -> io::Result<Stream> {
        Stream::try_clone(self)
    }

    /// Ends it without a descriptor for [`Stream::wait_delivered`], because a transfer has its own answer.
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.shutdown(how),
            Stream::Shared(stream) => stream.shutdown(how),
        }
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.set_read_timeout(timeout),
            Stream::Shared(stream) => stream.set_read_timeout(timeout),
        }
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Own(stream) => stream.set_write_timeout(timeout),
            Stream::Shared(stream) => stream.set_write_timeout(timeout),
        }
    }
}

/// A listener for TCP connections.
pub(crate) enum Listener {
    Own(blocking::TcpListener),
    Shared(attached::TcpListener),
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Own(listener) => listener.accept().map(|(stream, peer)| (Stream::Own(stream), peer)),
            Listener::Shared(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::shared(stream)?, peer))
            }
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Listener::Own(listener) => listener.close(),
            Listener::Shared(listener) => listener.close(),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Own(listener) => listener.local_addr(),
            Listener::Shared(listener) => listener.local_addr(),
        }
    }
}

/// A UDP socket.
pub(crate) enum Datagrams {
    Own(blocking::UdpSocket),
    Shared(attached::UdpSocket),
}

impl Datagrams {
    pub(crate) fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        match self {
            Datagrams::Own(socket) => socket.connect(remote),
            Datagrams::Shared(socket) => socket.connect(remote),
        }
    }

    pub(crate) fn send_to(&self, data: &[u8], remote: SocketAddr) -> io::Result<usize> {
        match self {
            Datagrams::Own(socket) => socket.send_to(data, remote),
            Datagrams::Shared(socket) => socket.send_to(data, remote),
        }
    }

    pub(crate) fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Datagrams::Own(socket) => socket.recv_from(buf),
            Datagrams::Shared(socket) => socket.recv_from(buf),
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Datagrams::Own(socket) => socket.set_read_timeout(timeout),
            Datagrams::Shared(socket) => socket.set_read_timeout(timeout),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Datagrams::Own(socket) => socket.local_addr(),
            Datagrams::Shared(socket) => socket.local_addr(),
        }
    }
}
