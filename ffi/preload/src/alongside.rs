//! Sockets of both networks: the program's descriptor becomes the overlay's, and the kernel's socket goes to the node, which
//! passes the connections or the datagrams that come to it.
//!
//! Until a program listens its TCP socket is the kernel's, so that it may still connect to wherever it likes.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use libc::{c_int, sockaddr, socklen_t};
use peersock_bsd::kernel::borrow;
use peersock_bsd::{Errno, Rules, Socket, kernel, replace};
use peersock_fd::{Client, Request};
use rustix::io::Result;

use crate::convert::counterpart;
use crate::epoll;

/// Ports that are tried for a socket that wants one that is free on both networks.
const TRIES: usize = 16;

/// bind(2) of the kernel. The port may be that of a socket that is closed, and that the node still has.
///
/// # Safety
/// As bind(2).
pub(crate) unsafe fn bind(
    rules: &Rules,
    fd: RawFd,
    address: *const sockaddr,
    length: socklen_t,
    port: u16,
) -> Result<c_int> {
    // SAFETY: the caller's.
    match unsafe { kernel::bind(fd, address, length) } {
        Err(Errno::ADDRINUSE) => {
            ask(&rules.client, Request::Vacate(port), None)?;
            // SAFETY: the caller's.
            unsafe { kernel::bind(fd, address, length) }
        }
        result => result,
    }
}

/// bind(2) of a UDP socket.
pub(crate) fn bind_datagrams(rules: &Rules, fd: RawFd, local: SocketAddr) -> Result<c_int> {
    let new = bind_counterpart(&rules.client, fd, local)?;
    ask(&rules.client, Request::Alongside(socket(&new)?.opened()), borrow(fd))?;
    replace(fd, &new, epoll::take)?;
    Ok(0)
}

/// listen(2) of a socket of the kernel's that is bound to `local`, or to no port yet.
pub(crate) fn listen(rules: &Rules, fd: RawFd, local: SocketAddr, backlog: c_int) -> Result<c_int> {
    let new = if local.port() == 0 {
        bind_counterpart(&rules.client, fd, local)?
    } else {
        let new = counterpart(&rules.client, fd)?;
        socket(&new)?.bind(local)?;
        new
    };
    let overlay = socket(&new)?;
    overlay.listen(backlog)?;
    // SAFETY: no pointers.
    unsafe { kernel::listen(fd, backlog) }?;
    ask(&rules.client, Request::Alongside(overlay.opened()), borrow(fd))?;
    replace(fd, &new, epoll::take)?;
    Ok(0)
}

/// Binds the kernel's socket and a new one of the overlay to the same port.
fn bind_counterpart(client: &Client, fd: RawFd, local: SocketAddr) -> Result<OwnedFd> {
    let mut tries = TRIES;
    loop {
        let new = counterpart(client, fd)?;
        socket(&new)?.bind(local)?;
        let chosen = SocketAddr::new(local.ip(), socket(&new)?.local_addr()?.port());
        match bind_kernels(fd, chosen) {
            Ok(()) => return Ok(new),
            Err(Errno::ADDRINUSE) if tries > 1 => {
                // It may be that of a socket that is closed, and that the node still has.
                ask(client, Request::Vacate(chosen.port()), None)?;
                tries = if local.port() == 0 { tries - 1 } else { 1 };
            }
            Err(error) => return Err(error),
        }
    }
}

fn bind_kernels(fd: RawFd, local: SocketAddr) -> Result<()> {
    rustix::net::bind(borrow(fd).ok_or(Errno::BADF)?, &local)
}

/// Asks the node, with a descriptor that goes along.
fn ask(client: &Client, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    client.ask_with(request, fd).map(drop)
}

fn socket(fd: &OwnedFd) -> Result<Socket<'_>> {
    Socket::of(fd.as_fd()).ok_or(Errno::NOTSOCK)
}
