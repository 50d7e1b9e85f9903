//! Threads that wait on a datagram socket of the kernel's while another one turns it into one of the
//! overlay's: they would wait on the old socket for ever.
//!
//! They are woken by shutdown(2) of the old one: their calls receive nothing, and those who make them look
//! here whether they are to try again. Who waits in poll(2) is woken, too, and goes on waiting: the kernel
//! then looks at what the descriptor stands for now, but waits on what it stood for.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use peersock_fd::{Identity, high_copy};
use rustix::net::Shutdown;

use crate::copies;
use crate::kernel::{borrow, int_option};

/// How many sockets were replaced so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A number that is another one after a call if a socket was replaced while it waited.
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// A copy of a datagram socket that is about to be replaced. It is not to be replaced itself.
pub struct Kept {
    fd: OwnedFd,
    identity: Identity,
}

impl Kept {
    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A copy of the datagram socket that `fd` is, which is about to be replaced. `None` if no thread can wait on
/// it: copies in other processes would hear the end of a socket that stays theirs.
pub fn keep(fd: RawFd) -> Option<Kept> {
    let is_stream = int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM);
    // A folder has a link for itself, one from above, and one from each folder in it: one for each thread
    // here.
    let is_alone = rustix::fs::stat("/proc/self/task").is_ok_and(|tasks| tasks.st_nlink <= 3);
    if is_stream || is_alone {
        return None;
    }
    let fd = high_copy(borrow(fd)?)?;
    let identity = copies::identity(fd.as_raw_fd())?;
    Some(Kept { fd, identity })
}

/// Wakes who waits on a socket that was replaced.
pub fn wake(old: &Kept) {
    // Another thread may have replaced the socket at the same time, and the copy with it: what stands there
    // now must go on receiving.
    if copies::identity(old.number()) != Some(old.identity) {
        return;
    }
    // Before they wake: they have to see it.
    COUNT.fetch_add(1, Ordering::Release);
    // That it is not connected is said afterwards.
    let _ = rustix::net::shutdown(&old.fd, Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::convert::replace_if;

    /// A bound socket that waits for so long at most.
    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Has the two sockets exchange a datagram.
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
