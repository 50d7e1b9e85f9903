//! Descriptors that others pass to the node's sockets (SCM_RIGHTS), unasked.
//!
//! Whoever is the last to close a file waits as the file wants: SO_LINGER of a TCP socket, or a file system
//! of a user's own. It must not be the engine thread. Linux has sockets refuse descriptors since 6.16
//! (SO_PASSRIGHTS): the sender gets EPERM. Before that, what strangers have connected is closed in another
//! thread, because closing a socket closes what nobody has read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use peersock_fd::{Errno, RecvFlags};
use rustix::net::{RecvAncillaryBuffer, ReturnFlags};

use crate::process::set_pass_rights;

/// Threads that close for the node, at most.
const MOST: usize = 256;

/// Threads that close now.
static CLOSING: AtomicUsize = AtomicUsize::new(0);

/// Has a socket take no descriptors, where the system knows how; what a listener is told holds for what
/// connects from then on.
pub(crate) fn refuse(socket: BorrowedFd<'_>) {
    if let Err(error) = set_pass_rights(socket, false) {
        tracing::trace!(%error, "descriptors that are sent to a socket are not refused");
    }
}

/// Has a connection of somebody who is trusted take descriptors.
pub(crate) fn accept(socket: BorrowedFd<'_>) {
    let _ = set_pass_rights(socket, true);
}

/// Whether the next message has descriptors with it. They stay where they are.
pub(crate) fn has_some(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recvmsg(socket, &mut [], &mut RecvAncillaryBuffer::default(), flags)?;
    Ok(peeked.flags.contains(ReturnFlags::CTRUNC))
}

/// Closes what a stranger has connected, in a thread of its own.
pub(crate) fn close_apart(fd: OwnedFd) {
    // What comes later is refused, and has no room.
    let _ = rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Both);
    if CLOSING.fetch_add(1, Ordering::Relaxed) < MOST {
        let close = Builder::new().name("peersock-close".into()).stack_size(64 << 10).spawn(|| {
            drop(fd);
            CLOSING.fetch_sub(1, Ordering::Relaxed);
        });
        if close.is_ok() {
            return;
        }
    }
    CLOSING.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    };

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).unwrap()
    }

    fn send(to: &OwnedFd, along: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        peersock_fd::send_with(to.as_fd(), b"x", along, SendFlags::DONTWAIT)
    }

    #[test]
    fn descriptors_are_seen_before_they_are_taken() {
        let (own, other) = pair();
        assert_eq!(has_some(own.as_fd()), Err(Errno::AGAIN));
        send(&other, None).unwrap();
        send(&other, Some(own.as_fd())).unwrap();
        assert_eq!(has_some(own.as_fd()), Ok(false));
        rustix::io::read(&own, &mut [0; 1]).unwrap();
        assert_eq!((has_some(own.as_fd()), has_some(own.as_fd())), (Ok(true), Ok(true)));
    }

    #[test]
    fn descriptors_are_refused_where_the_system_knows_how() {
        let (own, other) = pair();
        refuse(own.as_fd());
        let refused = match set_pass_rights(own.as_fd(), false) {
            Ok(()) => Err(Errno::PERM),
            Err(_) => Ok(()),
        };
        assert_eq!(send(&other, Some(own.as_fd())), refused);
        accept(own.as_fd());
        assert_eq!(send(&other, Some(own.as_fd())), Ok(()));
    }

    /// Where this thread closed it, it would wait for an hour.
    #[test]
    fn what_waits_when_it_is_closed_holds_up_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        slow.set_nonblocking(true).unwrap();
        let mut writer = &slow;
        while writer.write(&[0; 1 << 16]).is_ok() {}
        slow.set_nonblocking(false).unwrap();
        rustix::net::sockopt::set_socket_linger(&slow, Some(Duration::from_secs(3600))).unwrap();
        let (own, stranger) = pair();
        let fds = [slow.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&stranger, &[IoSlice::new(b"x")], &mut along, SendFlags::empty()).unwrap();
        drop(slow);
        close_apart(own);
        // It is closed all the same, once everything has been read.
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    }
}
