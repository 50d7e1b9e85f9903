//! Kernel streams and listeners.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Acceptance, Accepted, Socket, TcpOption, poll_ready};
use crate::addr::Place;
use crate::network::Kind;
use crate::{Addr, UnixAddr};

impl Socket for TcpStream {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        poll_ready(cx, |cx| self.poll_read_ready(cx), || self.try_read(room)).map_ok(|n| (n, None))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], _: Option<&Place>) -> Poll<io::Result<usize>> {
        poll_ready(cx, |cx| self.poll_write_ready(cx), || self.try_write(data))
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(self).shutdown(how)
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(Addr::of_socket(Kind::Tcp, self.local_addr()?))
    }

    fn set(&self, option: TcpOption) -> io::Result<()> {
        let socket = SockRef::from(self);
        match option {
            TcpOption::NoDelay(flag) => socket.set_tcp_nodelay(flag),
            TcpOption::KeepAlive(flag) => socket.set_keepalive(flag),
            TcpOption::Linger(time) => socket.set_linger(time),
        }
    }
}

impl Socket for UnixStream {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        poll_ready(cx, |cx| self.poll_read_ready(cx), || self.try_read(room)).map_ok(|n| (n, None))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], _: Option<&Place>) -> Poll<io::Result<usize>> {
        poll_ready(cx, |cx| self.poll_write_ready(cx), || self.try_write(data))
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(self).shutdown(how)
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(UnixAddr::of_system(&SockRef::from(self).local_addr()?, true).into())
    }
}

impl Acceptance for TcpListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        loop {
            match ready!(TcpListener::poll_accept(self, cx)) {
                // The peer closed the connection before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok((stream, remote)) => {
                    // Accepted sockets get the same option as dialed ones. A failure is ignored: the
                    // connection may have been reset, which its reads report.
                    let _ = stream.set_nodelay(true);
                    return Poll::Ready(Ok((Box::new(stream), Addr::of_socket(Kind::Tcp, remote))));
                }
            }
        }
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(Addr::of_socket(Kind::Tcp, self.local_addr()?))
    }
}

impl Acceptance for UnixListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let (stream, remote) = ready!(UnixListener::poll_accept(self, cx))?;
        let remote = UnixAddr::of_tokio(&remote, true);
        Poll::Ready(Ok((Box::new(stream), remote.into())))
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(UnixAddr::of_system(&SockRef::from(self).local_addr()?, true).into())
    }
}
