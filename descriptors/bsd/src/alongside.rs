//! Sockets of both networks: the program's descriptor becomes the overlay's, and the kernel's socket goes to
//! the node, which passes the connections or the datagrams that come to it.
//!
//! Until a program listens its TCP socket is the kernel's, so that it may still connect to wherever it likes.
//! `counterpart` opens an overlay socket like a descriptor, `sets` finds the epoll sets that it is in: as in
//! [`convert`](crate::convert()).

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use libc::c_int;
use peersock_fd::{Client, Errno, Request, Socket};

use crate::EpollSets;
use crate::convert::replace;
use crate::kernel::borrow;
use crate::{Result, Rules, kernel};

/// Ports that are tried for a socket that wants one that is free on both networks.
const TRIES: usize = 16;

/// Has the node forget closed sockets that are bound to a port, so that it is free on the machine's network.
///
/// # Errors
/// ENETDOWN if the node is no more.
pub fn vacate(client: &Client, port: u16) -> Result<()> {
    ask(client, Request::Vacate(port), None)
}

/// bind(2) of a UDP socket.
///
/// # Errors
/// Those of bind(2) on either network, and as [`convert`](crate::convert()).
pub fn bind_datagrams(
    rules: &Rules,
    fd: RawFd,
    local: SocketAddr,
    counterpart: impl Fn(&Client, RawFd) -> Result<OwnedFd>,
    sets: impl Fn(RawFd) -> EpollSets,
) -> Result<c_int> {
    let new = bind_counterpart(&rules.client, fd, local, counterpart)?;
    hand_over(rules, fd, &new, sets)?;
    Ok(0)
}

/// Has a UDP socket of the kernel's that is bound to `local` be the overlay's as well.
///
/// # Errors
/// Those of bind(2) on the overlay, and as [`convert`](crate::convert()).
pub fn share_datagrams(
    rules: &Rules,
    fd: RawFd,
    local: SocketAddr,
    counterpart: impl Fn(&Client, RawFd) -> Result<OwnedFd>,
    sets: impl Fn(RawFd) -> EpollSets,
) -> Result<()> {
    let new = counterpart(&rules.client, fd)?;
    socket(&new)?.bind(local)?;
    hand_over(rules, fd, &new, sets)
}

/// listen(2) of a socket of the kernel's that is bound to `local`, or to no port yet.
///
/// # Errors
/// Those of bind(2) and listen(2) on either network, and as [`convert`](crate::convert()).
pub fn listen(
    rules: &Rules,
    fd: RawFd,
    local: SocketAddr,
    backlog: c_int,
    counterpart: impl Fn(&Client, RawFd) -> Result<OwnedFd>,
    sets: impl Fn(RawFd) -> EpollSets,
) -> Result<c_int> {
    let new = if local.port() == 0 {
        bind_counterpart(&rules.client, fd, local, counterpart)?
    } else {
        let new = counterpart(&rules.client, fd)?;
        socket(&new)?.bind(local)?;
        new
    };
    let private = socket(&new)?.private()?;
    let new = private.unwrap_or(new);
    let overlay = socket(&new)?;
    overlay.listen(backlog)?;
    // SAFETY: no pointers.
    unsafe { kernel::listen(fd, backlog) }?;
    hand_over(rules, fd, &new, sets)?;
    Ok(0)
}

/// Gives the kernel's socket to the node, and has its descriptor stand for the overlay's.
fn hand_over(rules: &Rules, fd: RawFd, new: &OwnedFd, sets: impl Fn(RawFd) -> EpollSets) -> Result<()> {
    ask(&rules.client, Request::Alongside(socket(new)?.opened()), borrow(fd))?;
    replace(fd, new, sets)
}

/// bind(2) of a socket of the kernel's to any port, one that is free on the overlay and allowed there, too:
/// the program may tell others the port before it is known which network the socket is for. The node keeps
/// the port until somebody else asks for it.
///
/// # Errors
/// Those of bind(2) on either network, and as [`convert`](crate::convert()).
pub fn bind_to_any(client: &Client, fd: RawFd, local: SocketAddr) -> Result<()> {
    bind_counterpart(client, fd, local, crate::counterpart).map(drop)
}

/// Binds the kernel's socket and a new one of the overlay to the same port.
fn bind_counterpart(
    client: &Client,
    fd: RawFd,
    local: SocketAddr,
    counterpart: impl Fn(&Client, RawFd) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
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
