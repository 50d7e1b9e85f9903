//! Composite sockets, reached at every local address, by both families and from both sides.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::kernel_packets::UdpPackets;
use super::overlay::OverlayPackets;
use super::{Acceptance, Accepted, Socket};
use crate::Addr;
use crate::addr::Place;
use crate::members::{Members, is_members};

/// Listeners at one port. They are polled in turn, so that none starves the others.
pub(super) struct Listeners {
    all: Vec<Box<dyn Acceptance>>,
    turn: AtomicUsize,
}

impl Listeners {
    pub(super) fn new(all: Vec<Box<dyn Acceptance>>) -> Listeners {
        Listeners { all, turn: AtomicUsize::new(0) }
    }
}

impl Acceptance for Listeners {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        first_ready(&self.all, &self.turn, |listener| listener.poll_accept(cx))
    }

    fn local(&self) -> io::Result<Addr> {
        self.all[0].local()
    }
}

/// UDP sockets at one port: a kernel socket, which may serve both families, and one overlay socket per
/// family.
pub(super) struct WildcardPackets {
    kernel: Option<UdpPackets>,
    overlay: Vec<OverlayPackets>,
    members: Option<Members>,
    turn: AtomicUsize,
}

impl WildcardPackets {
    pub(super) fn new(
        kernel: Option<UdpPackets>,
        overlay: Vec<OverlayPackets>,
        members: Option<Members>,
    ) -> WildcardPackets {
        WildcardPackets { kernel, overlay, members, turn: AtomicUsize::new(0) }
    }

    fn all(&self) -> Vec<&dyn Socket> {
        let kernel = self.kernel.iter().map(|socket| socket as &dyn Socket);
        kernel.chain(self.overlay.iter().map(|socket| socket as &dyn Socket)).collect()
    }

    /// Returns the socket that leads to an address.
    fn towards(&self, to: &Place) -> io::Result<&dyn Socket> {
        let unreachable = || io::Error::from_raw_os_error(libc::ENETUNREACH);
        let Place::Ip(to) = to else { return Err(unreachable()) };
        let ip = to.ip().to_canonical();
        let found = if is_members(self.members.as_ref(), ip)? {
            let mut sockets = self.overlay.iter();
            sockets.find(|socket| socket.is_v6() == ip.is_ipv6()).map(|socket| socket as &dyn Socket)
        } else {
            self.kernel.as_ref().map(|socket| socket as &dyn Socket)
        };
        found.ok_or_else(unreachable)
    }
}

impl Socket for WildcardPackets {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>> {
        first_ready(&self.all(), &self.turn, |socket| socket.poll_read(cx, room))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Place>) -> Poll<io::Result<usize>> {
        match to {
            Some(to) => self.towards(to)?.poll_write(cx, data, Some(to)),
            None => Poll::Ready(Err(io::Error::from_raw_os_error(libc::EDESTADDRREQ))),
        }
    }

    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOTCONN))
    }

    fn set_broadcast(&self, flag: bool) -> io::Result<()> {
        self.all().into_iter().try_for_each(|socket| socket.set_broadcast(flag))
    }

    fn local(&self) -> io::Result<Addr> {
        self.all()[0].local()
    }
}

/// Polls each socket, starting with a different one each time.
fn first_ready<S, T>(
    sockets: &[S],
    turn: &AtomicUsize,
    mut ask: impl FnMut(&S) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    let (before, behind) = sockets.split_at(turn.fetch_add(1, Ordering::Relaxed) % sockets.len().max(1));
    let ready = behind.iter().chain(before).find_map(|socket| match ask(socket) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    });
    ready.map_or(Poll::Pending, Poll::Ready)
}
