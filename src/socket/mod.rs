//! Common code of the asynchronous and the blocking sockets: one operation of the stack each, and the sending
//! that follows.

mod address;
mod options;
mod ping;
mod tcp;
mod udp;

pub use address::ToSocketAddrs;
pub(crate) use address::resolve;
pub(crate) use options::tcp_options;
pub(crate) use ping::Ping;
pub use tcp::{Acceptor, Connection, Place};
pub(crate) use udp::Datagrams;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use peersock_stack::{Error, InterfaceId};

use crate::node::Inner;
use peersock_datapath::{JoinedNetwork, SocketState};
use peersock_primitives::wait::{Interest, Waiters};

/// Returns the interface of a local address to bind; `None` for the wildcard address, which means all.
fn interface_of(node: &Inner, local: SocketAddr) -> io::Result<Option<InterfaceId>> {
    node.check_up()?;
    if local.ip().is_unspecified() {
        return Ok(None);
    }
    match owner(node, local.ip()) {
        Some(interface) => Ok(Some(interface)),
        None => Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!("{} is not an address of this node in any network it has joined", local.ip()),
        )),
    }
}

/// Returns the interface that has an own address.
fn owner(node: &Inner, local: IpAddr) -> Option<InterfaceId> {
    let networks = node.driver.datapath.networks();
    networks.iter().find(|network| network.addresses.contains(&local)).map(|network| network.interface)
}

/// Explains an error: names the allowed ports if `port` was refused, and reports that a port is taken.
fn explain(error: Error, port: u16, networks: &[JoinedNetwork]) -> io::Error {
    let message = match error {
        Error::PermissionDenied => port_refusal_text(port, networks),
        Error::AddrInUse => format!("port {port} is in use by another socket of this node; choose another"),
        _ => return error.into(),
    };
    io::Error::new(error.kind(), message)
}

/// Returns the reason why a listener at `port` is unreachable, with the ports that the networks allow.
pub fn port_refusal_text(port: u16, networks: &[JoinedNetwork]) -> String {
    let allowed = networks.iter().map(|JoinedNetwork { id, ports, .. }| {
        format!("network {id} allows ports {} to {}", ports.start(), ports.end())
    });
    format!("port {port} is not allowed: {}", allowed.collect::<Vec<_>>().join(", "))
}

/// Repeats a non-blocking operation until it does not block; returns `TimedOut` at `deadline`.
pub(crate) fn block_on<T>(
    node: &Inner,
    waiters: &Waiters,
    interest: Interest,
    deadline: Option<Instant>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let done = node.driver.wait(waiters, interest, deadline, || unless_blocked(node, operation()));
    match done {
        Some(result) => result,
        None => {
            node.check_up()?;
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// Returns `None` for an operation that would block, unless the node is down: then waiting is pointless.
fn unless_blocked<T>(node: &Inner, result: io::Result<T>) -> Option<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => node.check_up().err().map(Err),
        result => Some(result),
    }
}

/// Socket of the stack that threads or tasks may wait for.
pub trait Waited: Send + Sync {
    /// Returns its waiters.
    fn waiters(&self) -> &Waiters;
}

macro_rules! waited {
    ($($socket:ty),*) => {$(
        impl Waited for $socket {
            fn waiters(&self) -> &Waiters {
                SocketState::of(self.context()).waiters()
            }
        }
    )*};
}

waited!(
    peersock_stack::Flow,
    peersock_stack::Listener,
    peersock_stack::UdpSocket,
    peersock_stack::IcmpSocket,
    peersock_stack::RawSocket
);

/// Tries a non-blocking operation; if it would block, the task is woken when it is worth repeating.
pub(crate) fn poll_io<T>(
    node: &Inner,
    waiters: &Waiters,
    interest: Interest,
    cx: &mut Context<'_>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    let mut attempt = || unless_blocked(node, operation());
    if let Some(result) = attempt() {
        return Poll::Ready(result);
    }
    waiters.register(interest, cx.waker());
    // An event before the registration woke no waiter, so try again.
    match attempt() {
        Some(result) => Poll::Ready(result),
        None => Poll::Pending,
    }
}

/// Counter of sockets whose users wait as tasks: while there is one, the engine thread reads the UDP sockets.
/// [`NodeHandle::task_user`](crate::attach::NodeHandle::task_user) returns one; an example is in
/// [`attach`](crate::attach).
#[derive(Debug)]
pub struct TaskUser {
    node: Arc<Inner>,
}

impl TaskUser {
    pub(crate) fn new(node: &Arc<Inner>) -> TaskUser {
        if node.driver.role.add_task() {
            node.driver.kick();
        }
        TaskUser { node: Arc::clone(node) }
    }
}

impl Drop for TaskUser {
    fn drop(&mut self) {
        self.node.driver.role.remove_task();
    }
}
