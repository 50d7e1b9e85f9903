//! UDP sockets of the overlay and of the system, alike.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

/// No datagram is longer, bytes.
const LONGEST: usize = 1 << 16;

/// Errors in a row after which a socket is given up. Each may only say that an earlier datagram found nobody.
const MOST_ERRORS: u32 = 64;

thread_local! {
    /// Where all sockets of a thread receive to.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; LONGEST].into_boxed_slice());
}

/// A UDP socket.
#[derive(Debug)]
pub(crate) enum Datagrams {
    Overlay(peersock::UdpSocket),
    System(tokio::net::UdpSocket),
}

impl Datagrams {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Datagrams::Overlay(socket) => socket.local_addr(),
            Datagrams::System(socket) => socket.local_addr(),
        }
    }

    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<()> {
        match self {
            Datagrams::Overlay(socket) => socket.connect(to).await,
            Datagrams::System(socket) => socket.connect(to).await,
        }
    }

    /// Sends to the connected peer. What cannot be sent is lost, as any datagram may be.
    pub(crate) async fn send(&self, data: &[u8]) {
        let sent = match self {
            Datagrams::Overlay(socket) => socket.send(data).await,
            Datagrams::System(socket) => socket.send(data).await,
        };
        note(sent);
    }

    /// As [`Datagrams::send`], to an address.
    pub(crate) async fn send_to(&self, data: &[u8], to: SocketAddr) {
        let sent = match self {
            Datagrams::Overlay(socket) => socket.send_to(data, to).await,
            Datagrams::System(socket) => socket.send_to(data, to).await,
        };
        note(sent);
    }

    /// Waits for a datagram, and gives it and its sender.
    ///
    /// # Errors
    /// The socket's, if it goes on failing.
    pub(crate) async fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let mut errors = 0;
        loop {
            match poll_fn(|cx| self.poll_receive(cx)).await {
                Err(error) if error.kind() != io::ErrorKind::NetworkDown && errors < MOST_ERRORS => {
                    tracing::debug!(%error, "a datagram was not received");
                    errors += 1;
                }
                done => return done,
            }
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        SCRATCH.with_borrow_mut(|scratch| match self {
            Datagrams::Overlay(socket) => {
                // Nothing is taken before it is ready, and what it has registered stays.
                let (length, sender) = ready!(pin!(socket.recv_from(scratch)).poll(cx))?;
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
