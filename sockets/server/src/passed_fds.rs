//! Unsolicited descriptors that other processes pass to the node's sockets (SCM_RIGHTS).
//!
//! The last close of a file may block: SO_LINGER of a TCP socket, or a file system served by a user. It must
//! not happen in the engine thread. Since Linux 6.16 sockets can refuse descriptors (SO_PASSRIGHTS); the
//! sender gets EPERM. On older kernels, strangers' connections are closed in another thread, because closing
//! a socket also closes the descriptors in its queue.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use peersock_fd::{Errno, RecvFlags};
use rustix::net::{RecvAncillaryBuffer, ReturnFlags};

use crate::process::set_pass_rights;

/// Maximum number of threads that close descriptors for the node.
const MAX_CLOSING_THREADS: usize = 256;

/// Number of such threads now.
static CLOSING_THREADS: AtomicUsize = AtomicUsize::new(0);

/// Makes a socket refuse descriptors, where the system supports it. A listener's setting applies to later
/// connections.
pub(crate) fn refuse(socket: BorrowedFd<'_>) {
    if let Err(error) = set_pass_rights(socket, false) {
        tracing::trace!(%error, "descriptors that are sent to a socket are not refused");
    }
}

/// Makes a trusted client's connection accept descriptors.
pub(crate) fn accept(socket: BorrowedFd<'_>) {
    let _ = set_pass_rights(socket, true);
}

/// Returns true if the next message carries descriptors. They stay in the queue.
pub(crate) fn has_some(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recvmsg(socket, &mut [], &mut RecvAncillaryBuffer::default(), flags)?;
    Ok(peeked.flags.contains(ReturnFlags::CTRUNC))
}

/// Closes a stranger's connection in a separate thread.
pub(crate) fn close_apart(fd: OwnedFd) {
    // Later messages are refused, and have no room.
    let _ = rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Both);
    if CLOSING_THREADS.fetch_add(1, Ordering::Relaxed) < MAX_CLOSING_THREADS {
        let close = Builder::new().name("peersock-close".into()).stack_size(64 << 10).spawn(|| {
            drop(fd);
            CLOSING_THREADS.fetch_sub(1, Ordering::Relaxed);
        });
        if close.is_ok() {
            return;
        }
    }
    CLOSING_THREADS.fetch_sub(1, Ordering::Relaxed);
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

    /// If this thread closed it, it would block for an hour.
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
