//! `TcpListener`.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::TcpStream;
use crate::node::{self, Node};
use crate::socket::{Acceptor, TaskUser, ToSocketAddrs, poll_io, resolve};
use peersock_primitives::wait::Interest;

/// TCP listener on the overlay, as `tokio::net::TcpListener`. Its backlog holds up to 128 connections.
///
/// ```no_run
/// use peersock::TcpListener;
///
/// # async fn example() -> std::io::Result<()> {
/// let listener = TcpListener::bind("[::]:80").await?;
/// loop {
///     let (stream, from) = listener.accept().await?;
///     println!("connection from {from}");
/// #   drop(stream);
/// }
/// # }
/// ```
pub struct TcpListener {
    acceptor: Acceptor,
    _user: TaskUser,
}

impl TcpListener {
    /// Listens through the process's node: on one of its addresses, or with `[::]` on all of them, in every
    /// network it joins.
    ///
    /// # Errors
    /// Returns `AddrInUse`, `AddrNotAvailable` (not this node's address), `PermissionDenied` (the network
    /// does not allow the port), and the errors of [`node()`](crate::node()).
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        TcpListener::bind_on(&node::node()?, addr).await
    }

    /// Listens like [`TcpListener::bind`], through `node`.
    /// Errors: see [`TcpListener::bind`].
    pub async fn bind_on(node: &Node, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for addr in resolve(&node.inner, &addr)? {
            match Acceptor::bind(node, addr) {
                Ok(acceptor) => return Ok(TcpListener { acceptor, _user: TaskUser::new(&node.inner) }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("resolve gives at least one address"))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// Returns `NetworkDown` when the node is shut down.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Returns a connection, or wakes the task when one arrives.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let Acceptor { node, .. } = &self.acceptor;
        poll_io(node, self.acceptor.waiters(), Interest::Read, cx, || self.acceptor.accept())
            .map_ok(|(connection, remote)| (TcpStream::new(connection), remote))
    }

    /// Returns the listening address.
    /// Never fails at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.acceptor.local_addr())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.acceptor.local_addr()).finish()
    }
}
