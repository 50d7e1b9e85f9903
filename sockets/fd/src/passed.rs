//! Connections of the machine's own network, which the node has accepted and passes to a listener.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::{DupFlags, Errno, retry_on_intr};
use rustix::net::SocketFlags;

use crate::client::receive;

/// Takes the connection that comes through `end`, and gives it the number of `end`, so that it has the lowest
/// free one. Returns `None` if the node could not pass it.
pub(crate) fn take(
    mut end: OwnedFd,
    flags: SocketFlags,
    peer: SocketAddr,
) -> Result<Option<(OwnedFd, SocketAddr)>, Errno> {
    // The node sends as soon as it is connected, or closes its end, so this is short.
    let mut fds = [PollFd::new(&end, PollFlags::IN)];
    retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    let Ok((_, Some(connection))) = receive(end.as_fd(), &mut [0]) else { return Ok(None) };
    if flags.contains(SocketFlags::NONBLOCK) {
        let status = rustix::fs::fcntl_getfl(&connection)?;
        rustix::fs::fcntl_setfl(&connection, status | OFlags::NONBLOCK)?;
    }
    // An IPv6 address may have a scope, which the name lacks. For a connection that is reset already only the
    // name has the address.
    let named = rustix::net::getpeername(&connection).ok().flatten();
    let peer = named.and_then(|named| SocketAddr::try_from(named).ok()).unwrap_or(peer);
    let flags = if flags.contains(SocketFlags::CLOEXEC) { DupFlags::CLOEXEC } else { DupFlags::empty() };
    rustix::io::dup3(&connection, &mut end, flags)?;
    Ok(Some((end, peer)))
}
