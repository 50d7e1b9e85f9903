//! Sockets of both networks. The program's descriptor becomes an overlay socket, and the kernel socket goes
//! to the node, which passes the kernel socket's connections or datagrams to the overlay socket.
//!
//! Until a program listens, its TCP socket remains a kernel socket, so that it may still connect anywhere.
//! `counterpart` opens an overlay socket like a descriptor, and `sets` finds the descriptor's epoll sets, as
//! in [`convert`](crate::convert()).

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use libc::c_int;
use peersock_fd::{Client, Errno, Request, Socket};

use crate::EpollSets;
use crate::convert::replace;
use crate::kernel::borrow;
use crate::{Result, Rules, kernel};

/// Number of attempts to find a port that is free on both networks.
const MAX_PORT_ATTEMPTS: usize = 16;

/// Makes the node forget closed sockets bound to a port, so that it is free on the machine's network.
/// Errors: ENETDOWN if the node has ended.
pub fn vacate(client: &Client, port: u16) -> Result<()> {
    ask(client, Request::Vacate(port), None)
}

/// Binds a UDP socket on both networks.
/// Fails with the errors of bind(2) on either network, and of [`convert`](crate::convert()).
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

/// Makes a kernel UDP socket that is bound to `local` an overlay socket as well.
/// Fails with the errors of bind(2) on the overlay, and of [`convert`](crate::convert()).
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

/// Listens on both networks with a kernel socket that is bound to `local`, or to no port yet.
/// Fails with the errors of bind(2) and listen(2) on either network, and of [`convert`](crate::convert()).
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

/// Gives the kernel socket to the node, and replaces it by the overlay socket under the same descriptor.
fn hand_over(rules: &Rules, fd: RawFd, new: &OwnedFd, sets: impl Fn(RawFd) -> EpollSets) -> Result<()> {
    ask(&rules.client, Request::Alongside(socket(new)?.opened()), borrow(fd))?;
    replace(fd, new, sets)
}

/// Binds a kernel socket to any port that is also free and allowed on the overlay. The program may tell
/// others the port before the socket's network is known. The node keeps the port until another program asks
/// for it.
/// Fails with the errors of bind(2) on either network, and of [`convert`](crate::convert()).
pub fn bind_to_any(client: &Client, fd: RawFd, local: SocketAddr) -> Result<()> {
    bind_counterpart(client, fd, local, crate::counterpart).map(drop)
}

/// Binds the kernel socket and a new overlay socket to the same port.
fn bind_counterpart(
    client: &Client,
    fd: RawFd,
    local: SocketAddr,
    counterpart: impl Fn(&Client, RawFd) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let mut tries = MAX_PORT_ATTEMPTS;
    loop {
        let new = counterpart(client, fd)?;
        socket(&new)?.bind(local)?;
        let chosen = SocketAddr::new(local.ip(), socket(&new)?.local_addr()?.port());
        match bind_kernels(fd, chosen) {
            Ok(()) => return Ok(new),
            Err(Errno::ADDRINUSE) if tries > 1 => {
                // The port may belong to a closed socket that the node still has.
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

/// Sends a request to the node, optionally with a descriptor.
fn ask(client: &Client, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    client.ask_with(request, fd).map(drop)
}

fn socket(fd: &OwnedFd) -> Result<Socket<'_>> {
    Socket::of(fd.as_fd()).ok_or(Errno::NOTSOCK)
}
