//! UDP sockets of the overlay and of the system, with one interface.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use peersock_attached::tokio as attached;
use tokio::io::ReadBuf;

/// Longest datagram in bytes.
const MAX_DATAGRAM_BYTES: usize = 1 << 16;

/// Limit of consecutive errors of a socket. An error may mean only that an earlier datagram found no
/// receiver.
const MAX_CONSECUTIVE_ERRORS: u32 = 64;

thread_local! {
    /// Receive buffer shared by all sockets of a thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice());
}

/// A UDP socket.
#[derive(Debug)]
pub enum Datagrams {
    /// On the overlay.
    Overlay(peersock::UdpSocket),
    /// On the overlay, by the node that programs share.
    Shared(attached::UdpSocket),
    /// On the system's network.
    System(tokio::net::UdpSocket),
}

impl Datagrams {
    /// Returns true if it is a socket of the overlay.
    pub(crate) fn is_overlay(&self) -> bool {
        !matches!(self, Datagrams::System(_))
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Datagrams::Overlay(socket) => socket.local_addr(),
            Datagrams::Shared(socket) => socket.local_addr(),
            Datagrams::System(socket) => socket.local_addr(),
        }
    }

    /// Sends to, and receives from, this address only.
    ///
    /// # Errors
    /// Errors of connect(2).
    pub async fn connect(&self, to: SocketAddr) -> io::Result<()> {
        match self {
            Datagrams::Overlay(socket) => socket.connect(to).await,
            Datagrams::Shared(socket) => socket.connect(to),
            Datagrams::System(socket) => socket.connect(to).await,
        }
    }

    /// Sends to the connected peer. A datagram that cannot be sent is lost, like any other.
    pub(crate) async fn send(&self, data: &[u8]) {
        note(self.try_send(data, None).await);
    }

    /// Sends to an address as [`Datagrams::send`] does.
    pub(crate) async fn send_to(&self, data: &[u8], to: SocketAddr) {
        note(self.try_send(data, Some(to)).await);
    }

    /// Sends to an address, or to the connected peer.
    ///
    /// # Errors
    /// Errors of send(2), also of earlier datagrams.
    pub async fn try_send(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        match (self, to) {
            (Datagrams::Overlay(socket), None) => socket.send(data).await,
            (Datagrams::Overlay(socket), Some(to)) => socket.send_to(data, to).await,
            (Datagrams::Shared(socket), to) => socket.send(data, to).await,
            (Datagrams::System(socket), None) => socket.send(data).await,
            (Datagrams::System(socket), Some(to)) => socket.send_to(data, to).await,
        }
    }

    /// Waits for a datagram. Returns it with its sender.
    ///
    /// # Errors
    /// The socket's error, if it keeps failing.
    pub(crate) async fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let mut errors = 0;
        loop {
            match poll_fn(|cx| self.poll_receive(cx)).await {
                Err(error)
                    if error.kind() != io::ErrorKind::NetworkDown && errors < MAX_CONSECUTIVE_ERRORS =>
                {
                    tracing::debug!(%error, "a datagram was not received");
                    errors += 1;
                }
                done => return done,
            }
        }
    }

    /// Receives a datagram. Returns it with its sender.
    ///
    /// # Errors
    /// Errors of recv(2), also of earlier datagrams.
    pub fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        SCRATCH.with_borrow_mut(|scratch| match self {
            Datagrams::Overlay(socket) => {
                // The call takes no datagram before one is ready, and its registered waker stays.
                let (length, sender) = ready!(pin!(socket.recv_from(scratch)).poll(cx))?;
                Poll::Ready(Ok((scratch[..length].to_vec(), sender)))
            }
            Datagrams::Shared(socket) => {
                let (length, sender) = ready!(socket.poll_recv_from(cx, scratch))?;
                Poll::Ready(Ok((scratch[..length].to_vec(), sender)))
            }
            Datagrams::System(socket) => {
                let mut room = ReadBuf::new(scratch);
                let sender = ready!(socket.poll_recv_from(cx, &mut room))?;
                Poll::Ready(Ok((room.filled().to_vec(), sender)))
            }
        })
    }
}

fn note(sent: io::Result<usize>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "a datagram was not sent");
    }
}
