//! Sockets of the kernel and of the overlay, as connections use them. None of them waits itself.

mod dial;
mod kernel;
mod kernel_packets;
mod listen;
mod overlay;
mod wildcard;

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) use dial::{connect_ip, connect_unix, unbound_unixgram};
pub(crate) use listen::{Wanted, bind_udp, bind_unixgram, listen_tcp, listen_unix};

use peersock::overlay::NodeId;

use crate::Addr;
use crate::addr::Place;

/// A socket that reads and writes: a stream, or one of datagrams. What is pending wakes the task.
pub(crate) trait Socket: Send + Sync {
    /// Takes what is there: some bytes, or one datagram, of which what has no room is cut off, and its
    /// sender.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>>;

    /// Sends what there is room for, or one datagram.
    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Place>) -> Poll<io::Result<usize>>;

    /// shutdown(2).
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// The own address.
    fn local(&self) -> io::Result<Addr>;

    /// The member at the other end, of a connection over the overlay.
    fn member(&self) -> Option<NodeId> {
        None
    }

    /// SO_BROADCAST. Where there is no broadcast, that is no error.
    fn set_broadcast(&self, flag: bool) -> io::Result<()> {
        let _ = flag;
        Ok(())
    }

    /// Sets an option of TCP.
    fn set(&self, option: TcpOption) -> io::Result<()> {
        let _ = option;
        Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT))
    }
}

/// An option of TCP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TcpOption {
    NoDelay(bool),
    KeepAlive(bool),
    Linger(Option<Duration>),
}

/// A connection that was accepted, and its other end's address.
pub(crate) type Accepted = (Box<dyn Socket>, Addr);

/// A socket that listens.
pub(crate) trait Acceptance: Send + Sync {
    /// Takes a connection.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>>;

    /// The own address.
    fn local(&self) -> io::Result<Addr>;
}

/// Repeats an attempt as long as the socket claims to be ready.
fn poll_ready<T>(
    cx: &mut Context<'_>,
    ready: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        std::task::ready!(ready(cx))?;
        match attempt() {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return Poll::Ready(done),
        }
    }
}
