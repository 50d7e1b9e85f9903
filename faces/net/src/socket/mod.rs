//! Kernel and overlay sockets, as connections use them. No method here blocks.

mod dial;
mod kernel;
mod kernel_packets;
mod listen;
mod overlay;
mod wildcard;

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) use dial::{connect_ip, connect_unix, unbound_unixgram};
pub(crate) use listen::{Wanted, bind_udp, bind_unixgram, listen_tcp, listen_unix};

use peersock::overlay::PeerDescription;

use crate::Addr;
use crate::addr::Place;

/// A stream or datagram socket. A pending method wakes the task when a retry is worthwhile.
pub(crate) trait Socket: Send + Sync {
    /// Receives available bytes, or one datagram truncated to `room`, with its sender.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, Option<Addr>)>>;

    /// Sends as many bytes as there is room for, or one datagram.
    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Place>) -> Poll<io::Result<usize>>;

    /// Shuts down a direction, as shutdown(2) does.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Returns the local address.
    fn local(&self) -> io::Result<Addr>;

    /// Returns who is at the other end of an overlay connection.
    fn peer(&self) -> Option<Arc<PeerDescription>> {
        None
    }

    /// Sets SO_BROADCAST. A socket without broadcast ignores it without an error.
    fn set_broadcast(&self, flag: bool) -> io::Result<()> {
        let _ = flag;
        Ok(())
    }

    /// Sets a TCP option.
    fn set(&self, option: TcpOption) -> io::Result<()> {
        let _ = option;
        Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT))
    }
}

/// A TCP option.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TcpOption {
    NoDelay(bool),
    KeepAlive(bool),
    Linger(Option<Duration>),
}

/// An accepted connection, and its peer's address.
pub(crate) type Accepted = (Box<dyn Socket>, Addr);

/// A listening socket.
pub(crate) trait Acceptance: Send + Sync {
    /// Accepts a connection.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>>;

    /// Returns the local address.
    fn local(&self) -> io::Result<Addr>;
}

/// Repeats an attempt while the socket claims to be ready.
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
