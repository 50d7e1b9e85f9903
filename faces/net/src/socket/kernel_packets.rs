//! Kernel datagram sockets.

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

/// Retry interval where the system cannot report free space.
pub(super) const SEND_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// A UDP socket.
pub(super) struct UdpPackets {
    socket: Arc<UdpSocket>,
    /// Future that completes when the socket has an error, such as an unreachable port. Only connected
    /// sockets have one, because the kernel reports errors to no others. EPOLLERR of epoll(7) alone does not
    /// make a socket readable to tokio.
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
                // A send has already reported the error.
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

/// Converts an IPv4 address to IPv4-mapped form if the socket is IPv6.
fn of_family(to: SocketAddr, is_v6: bool) -> SocketAddr {
    match to {
        SocketAddr::V4(to) if is_v6 => {
            let ip: Ipv6Addr = to.ip().to_ipv6_mapped();
            SocketAddrV6::new(ip, to.port(), 0, 0).into()
        }
        to => to,
    }
}

/// A Unix domain datagram socket.
pub(super) struct UnixPackets {
    socket: UnixDatagram,
    /// Pause before the next attempt to send to a full receiver from an unconnected socket.
    pause: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl UnixPackets {
    pub(super) fn new(socket: UnixDatagram) -> UnixPackets {
        UnixPackets { socket, pause: Mutex::default() }
    }

    /// Sends to an address, retrying at intervals, because poll(2) always reports room if unconnected.
    fn poll_send_to(&self, cx: &mut Context<'_>, data: &[u8], to: &SockAddr) -> Poll<io::Result<usize>> {
        let mut pause = sync::lock(&self.pause);
        loop {
            if let Some(pause) = &mut *pause {
                ready!(pause.as_mut().poll(cx));
            }
            *pause = None;
            match SockRef::from(&self.socket).send_to(data, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *pause = Some(Box::pin(sleep(SEND_RETRY_INTERVAL)));
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
