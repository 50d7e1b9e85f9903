//! Threads that wait on a kernel datagram socket while another thread turns it into an overlay socket. They
//! would wait on the old socket forever.
//!
//! shutdown(2) of the old socket wakes them: their calls receive nothing, and then check here if they must
//! try again. Threads in poll(2) are woken, too, and go on waiting. The kernel then checks the descriptor's
//! new file, but waits on the old one.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use peersock_fd::{Identity, high_copy};
use rustix::net::Shutdown;

use crate::copies;
use crate::kernel::{borrow, int_option};

/// Number of sockets replaced so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Returns a number that changes during a call if a socket was replaced while the call waited.
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// A copy of a datagram socket that is about to be replaced. The copy itself must not be replaced.
pub struct Kept {
    fd: OwnedFd,
    identity: Identity,
}

impl Kept {
    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Returns a copy of the datagram socket `fd`, which is about to be replaced. Returns `None` if no thread can
/// wait on it: copies in other processes would see the end of a socket that stays theirs.
pub fn keep(fd: RawFd) -> Option<Kept> {
    let is_stream = int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM);
    // A folder's link count is 2 plus the number of its subfolders, here one per thread.
    let is_alone = rustix::fs::stat("/proc/self/task").is_ok_and(|tasks| tasks.st_nlink <= 3);
    if is_stream || is_alone {
        return None;
    }
    let fd = high_copy(borrow(fd)?)?;
    let identity = copies::identity(fd.as_raw_fd())?;
    Some(Kept { fd, identity })
}

/// Wakes the threads that wait on a replaced socket.
pub fn wake(old: &Kept) {
    // Another thread may have replaced the socket concurrently, and this copy with it. Its new file must go
    // on receiving.
    if copies::identity(old.number()) != Some(old.identity) {
        return;
    }
    // Increment before the wake, because the woken threads must see it.
    COUNT.fetch_add(1, Ordering::Release);
    // On an unconnected socket the call reports an error although it works.
    let _ = rustix::net::shutdown(&old.fd, Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::convert::replace_if;

    /// Returns a bound socket with a receive timeout.
    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Makes the two sockets exchange a datagram.
    fn exchange(one: &UdpSocket, other: &UdpSocket) {
        one.send_to(b"x", other.local_addr().unwrap()).unwrap();
        assert_eq!(other.recv(&mut [0; 10]).unwrap(), 1);
    }

    #[test]
    fn what_takes_a_sockets_place_goes_on_receiving_when_those_are_woken_that_waited_on_the_old_one() {
        copies::note();
        let (socket, new, sender) = (bound(), bound(), bound());
        let copy = socket.try_clone().unwrap();
        // The test's own thread is a second one.
        let waiting = socket.try_clone().unwrap();
        let fd = socket.as_raw_fd();
        let (identity, kept) = (copies::identity(fd), keep(fd).unwrap());
        let new_fd = OwnedFd::from(new.try_clone().unwrap());
        replace_if(fd, identity, Some(&kept), &new_fd, |_| Vec::new()).unwrap();
        assert_eq!(copies::identity(kept.number()), identity);
        wake(&kept);
        for receiver in [&socket, &copy, &waiting] {
            exchange(&sender, receiver);
        }
    }

    #[test]
    fn a_kept_copy_that_another_thread_has_replaced_is_left_alone() {
        let (socket, new, sender) = (bound(), bound(), bound());
        let mut kept = keep(socket.as_raw_fd()).unwrap();
        rustix::io::dup3(&new, &mut kept.fd, rustix::io::DupFlags::CLOEXEC).unwrap();
        let before = count();
        wake(&kept);
        assert_eq!(count(), before);
        exchange(&sender, &new);
    }

    #[test]
    fn a_socket_that_another_thread_has_replaced_already_is_not_replaced_again() {
        let (socket, first, second) = (bound(), bound(), bound());
        let fd = socket.as_raw_fd();
        let identity = copies::identity(fd);
        let replace = |new: &UdpSocket| {
            replace_if(fd, identity, None, &OwnedFd::from(new.try_clone().unwrap()), |_| Vec::new())
        };
        replace(&first).unwrap();
        assert_eq!(replace(&second), Err(peersock_fd::Errno::BADF));
        assert_eq!(copies::identity(fd), copies::identity(first.as_raw_fd()));
    }
}
