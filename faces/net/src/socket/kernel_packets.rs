//! Datagrams over the kernel.

use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use peersock_primitives::sync;
use socket2::{SockAddr, SockRef};
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::time::{Sleep, sleep};

use super::{Socket, poll_ready};
use crate::addr::Place;
use crate::network::Kind;
use crate::{Addr, UnixAddr};

/// How long to wait where the system cannot say when there is room.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// A UDP socket.
pub(super) struct UdpPackets {
    socket: Arc<UdpSocket>,
    /// What ends when the system has an error to tell, such as that nobody is there; for connected sockets
    /// only, since no others are told. To tokio, epoll(7)'s EPOLLERR alone makes nothing readable.
    errors: Option<Mutex<Errors>>,
}

type Errors = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

impl UdpPackets {
    pub(super) fn new(socket: UdpSocket) -> UdpPackets {
        let socket = Arc::new(socket);
        let errors = socket.peer_addr().ok().map(|_| Mutex::new(next_error(&socket)));
        UdpPackets { socket, errors }
    }

    fn poll_error(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(errors) = &self.errors else { return Poll::Pending };
        let mut errors = sync::lock(errors);
        loop {
            let ready = ready!(errors.as_mut().poll(cx));
            *errors = next_error(&self.socket);
            let told = ready.and_then(|()| {
                let take = || self.socket.take_error()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
                self.socket.try_io(Interest::ERROR, take)
            });
            match told {
                // A send has told it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(error) | Err(error) => return Poll::Ready(error),
            }
        }
    }
}

fn next_error(socket: &Arc<UdpSocket>) -> Errors {
    let socket = Arc::clone(socket);
    Box::pin(async move { socket.ready(Interest::ERROR).await.map(drop) })
}

impl Socket for UdpPackets {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        let socket = &self.socket;
        let received = poll_ready(cx, |cx| socket.poll_recv_ready(cx), || socket.try_recv_from(room));
        match received {
            Poll::Pending => self.poll_error(cx).map(Err),
            received => received.map_ok(|(n, sender)| (n, Some(Addr::of_socket(Kind::Udp, sender)))),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Place>) -> Poll<io::Result<usize>> {
        let socket = &self.socket;
        let is_v6 = socket.local_addr()?.is_ipv6();
        let send = || match to {
            Some(Place::Ip(to)) => socket.try_send_to(data, of_family(*to, is_v6)),
            _ => socket.try_send(data),
        };
        poll_ready(cx, |cx| socket.poll_send_ready(cx), send)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&*self.socket).shutdown(how)
    }

    fn set_broadcast(&self, flag: bool) -> io::Result<()> {
        self.socket.set_broadcast(flag)
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(Addr::of_socket(Kind::Udp, self.socket.local_addr()?))
    }
}

/// An address for a socket of IPv6, in whose form those of IPv4 are reached.
fn of_family(to: SocketAddr, is_v6: bool) -> SocketAddr {
    match to {
        SocketAddr::V4(to) if is_v6 => {
            let ip: Ipv6Addr = to.ip().to_ipv6_mapped();
            SocketAddrV6::new(ip, to.port(), 0, 0).into()
        }
        to => to,
    }
}

/// A Unix domain socket for datagrams.
pub(super) struct UnixPackets {
    socket: UnixDatagram,
    /// Until a receiver that is not connected is asked again.
    pause: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl UnixPackets {
    pub(super) fn new(socket: UnixDatagram) -> UnixPackets {
        UnixPackets { socket, pause: Mutex::default() }
    }

    /// Sends to an address. To poll(2), a socket that is not connected always has room.
    fn poll_send_to(&self, cx: &mut Context<'_>, data: &[u8], to: &SockAddr) -> Poll<io::Result<usize>> {
        let mut pause = sync::lock(&self.pause);
        loop {
            if let Some(pause) = &mut *pause {
                ready!(pause.as_mut().poll(cx));
            }
            *pause = None;
            match SockRef::from(&self.socket).send_to(data, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *pause = Some(Box::pin(sleep(PAUSE)));
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl Socket for UnixPackets {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        let ready = |cx: &mut Context<'_>| self.socket.poll_recv_ready(cx);
        let (n, sender) = ready!(poll_ready(cx, ready, || self.socket.try_recv_from(room)))?;
        Poll::Ready(Ok((n, Some(UnixAddr::of_tokio(&sender, false).into()))))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Place>) -> Poll<io::Result<usize>> {
        match to {
            Some(Place::Unix(to)) => self.poll_send_to(cx, data, to),
            _ => poll_ready(cx, |cx| self.socket.poll_send_ready(cx), || self.socket.try_send(data)),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    fn local(&self) -> io::Result<Addr> {
        Ok(UnixAddr::of_system(&SockRef::from(&self.socket).local_addr()?, false).into())
    }
}
