//! Blocking sockets, with the signatures of [`std::net`].
//!
//! Each type has the constructors of its namesake, which use the process's node ([`node()`](crate::node())),
//! and others that end in `_on`, which take a [`Node`](crate::Node).

mod ping;
mod tcp;
mod udp;

pub use ping::{Ping, Pong};
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::node::Inner;
use crate::socket;
use crate::sync;
use peersock_primitives::wait::{Interest, Waiters};

/// Blocking mode and timeouts of one socket, shared by its clones, like the flags of a duplicated descriptor.
#[derive(Debug, Default)]
struct Mode {
    nonblocking: AtomicBool,
    timeouts: Mutex<[Option<Duration>; 2]>,
}

impl Mode {
    fn set_nonblocking(&self, on: bool) {
        self.nonblocking.store(on, Ordering::Relaxed);
    }

    fn timeout(&self, interest: Interest) -> Option<Duration> {
        sync::lock(&self.timeouts)[interest as usize]
    }

    fn set_timeout(&self, interest: Interest, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a timeout of zero"));
        }
        sync::lock(&self.timeouts)[interest as usize] = timeout;
        Ok(())
    }

    /// Runs an operation according to the socket's mode. A timeout is reported as `WouldBlock`, as by
    /// `std::net` on Unix.
    fn run<T>(
        &self,
        node: &Inner,
        waiters: &Waiters,
        interest: Interest,
        mut operation: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        if self.nonblocking.load(Ordering::Relaxed) {
            return operation();
        }
        let deadline = self.timeout(interest).map(|timeout| Instant::now() + timeout);
        match socket::block_on(node, waiters, interest, deadline, &mut operation) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && timed_out(deadline) => {
                // An error of the connection itself has an errno and is returned unchanged.
                match error.raw_os_error().is_none() && error.get_ref().is_none() {
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Err(error),
                }
            }
            result => result,
        }
    }
}

fn timed_out(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}
