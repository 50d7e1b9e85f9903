//! Overlay sockets.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use peersock::UdpSocket;
use peersock::attach::{Acceptor, Connection, NodeHandle, TaskUser};
use peersock::overlay::PeerDescription;
use peersock_primitives::wait::{Interest, Waiters};
use peersock_stack::{KeepAlive, TcpOptions};

use super::{Acceptance, Accepted, Socket, TcpOption};
use crate::Addr;
use crate::addr::Place;
use crate::members::Members;
use crate::network::Kind;

/// Backlog in connections.
const BACKLOG: usize = 128;

/// A TCP connection.
pub(super) struct OverlayStream {
    connection: Connection,
    _user: TaskUser,
}

impl OverlayStream {
    fn new(handle: &NodeHandle, connection: Connection) -> OverlayStream {
        OverlayStream { connection, _user: handle.task_user() }
    }

    /// Connects, from `local` if it is given.
    pub(super) async fn connect(
        members: &Members,
        local: Option<SocketAddr>,
        remote: SocketAddr,
    ) -> io::Result<OverlayStream> {
        members.handle.check_up()?;
        let options = TcpOptions { nodelay: true, reuse_address: true, ..TcpOptions::default() };
        let connection = members.handle.connect(None, local, remote, options);
        let connection = connection.map_err(|error| members.explain(error, remote.port()))?;
        let stream = OverlayStream::new(&members.handle, connection);
        std::future::poll_fn(|cx| {
            stream.poll(Interest::Write, cx, |connection| {
                members.handle.check_up()?;
                connection.check_connected()
            })
        })
        .await?;
        Ok(stream)
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.connection.flow().remote()
    }

    fn poll<T>(
        &self,
        interest: Interest,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&Connection) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        poll_io(self.connection.waiters(), interest, cx, || attempt(&self.connection))
    }
}

impl Socket for OverlayStream {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        self.poll(Interest::Read, cx, |connection| connection.read(room)).map_ok(|n| (n, None))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], _: Option<&Place>) -> Poll<io::Result<usize>> {
        self.poll(Interest::Write, cx, |connection| connection.write(data))
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.connection.shutdown(how)
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(Addr::of_socket(Kind::Tcp, self.connection.local_addr()))
    }

    fn peer(&self) -> Option<Arc<PeerDescription>> {
        self.connection.described()
    }

    fn set(&self, option: TcpOption) -> io::Result<()> {
        match option {
            TcpOption::NoDelay(flag) => self.connection.set_nodelay(flag),
            TcpOption::KeepAlive(on) => {
                self.connection.flow().set_keepalive(KeepAlive { on, ..KeepAlive::default() });
                // This crate always uses the default user timeout; setting it makes the flow's timer follow.
                self.connection.set_user_timeout(None)?;
            }
            TcpOption::Linger(time) => self.connection.set_linger(time),
        }
        Ok(())
    }
}

/// A TCP listener.
pub(super) struct OverlayListener {
    acceptor: Acceptor,
    handle: NodeHandle,
    _user: TaskUser,
}

impl OverlayListener {
    pub(super) fn bind(members: &Members, local: SocketAddr) -> io::Result<OverlayListener> {
        let handle = members.handle.clone();
        handle.check_up()?;
        // Reuses the address, as kernel listeners do, so that a restarted server can listen while its old
        // connections are in TIME-WAIT.
        let options = TcpOptions { nodelay: true, reuse_address: true, ..TcpOptions::default() };
        let acceptor = handle.reserve(None, local, options);
        let acceptor = acceptor.map_err(|error| members.explain(error, local.port()))?;
        let port = acceptor.local_addr().port();
        if !handle.datapath().stack().allows_port(&handle.scope(None), port) {
            return Err(members.explain(peersock_stack::Error::PermissionDenied, port));
        }
        acceptor.listen(BACKLOG);
        Ok(OverlayListener { acceptor, _user: handle.task_user(), handle })
    }
}

impl Acceptance for OverlayListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let accepted = poll_io(self.acceptor.waiters(), Interest::Read, cx, || {
            self.handle.check_up()?;
            self.acceptor.accept()
        });
        accepted.map_ok(|(connection, remote)| {
            let stream: Box<dyn Socket> = Box::new(OverlayStream::new(&self.handle, connection));
            (stream, Addr::of_socket(Kind::Tcp, remote))
        })
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(Addr::of_socket(Kind::Tcp, self.acceptor.local_addr()))
    }
}

/// A UDP socket.
pub(super) struct OverlayPackets {
    socket: UdpSocket,
    is_shut: AtomicBool,
}

impl OverlayPackets {
    pub(super) async fn bind(members: &Members, local: SocketAddr) -> io::Result<OverlayPackets> {
        let socket = UdpSocket::bind_on(&members.node, local).await?;
        Ok(OverlayPackets { socket, is_shut: AtomicBool::new(false) })
    }

    pub(super) async fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        self.socket.connect(remote).await
    }

    pub(super) fn is_v6(&self) -> bool {
        self.socket.local_addr().is_ok_and(|own| own.is_ipv6())
    }
}

impl Socket for OverlayPackets {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        // Dropping the future loses nothing: it takes no data before it is ready, and its waker stays.
        let (n, sender) = ready!(pin!(self.socket.recv_from(room)).poll(cx))?;
        Poll::Ready(Ok((n, Some(Addr::of_socket(Kind::Udp, sender)))))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Place>) -> Poll<io::Result<usize>> {
        if self.is_shut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EPIPE)));
        }
        match to {
            Some(Place::Ip(to)) => pin!(self.socket.send_to(data, *to)).poll(cx),
            _ => match self.socket.peer_addr() {
                Ok(_) => pin!(self.socket.send(data)).poll(cx),
                Err(_) => Poll::Ready(Err(io::Error::from_raw_os_error(libc::EDESTADDRREQ))),
            },
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.peer_addr()?;
        self.is_shut.fetch_or(how != Shutdown::Read, Ordering::Relaxed);
        Ok(())
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(Addr::of_socket(Kind::Udp, self.socket.local_addr()?))
    }
}

/// Tries an operation. If it would block, registers the task to be woken when a retry is worthwhile.
fn poll_io<T>(
    waiters: &Waiters,
    interest: Interest,
    cx: &Context<'_>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    let mut unless_blocked = || match attempt() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        done => Some(done),
    };
    if let Some(done) = unless_blocked() {
        return Poll::Ready(done);
    }
    waiters.register(interest, cx.waker());
    // Tries again, because an event before the registration woke no task.
    unless_blocked().map_or(Poll::Pending, Poll::Ready)
}
