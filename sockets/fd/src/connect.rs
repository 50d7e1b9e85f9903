//! connect(2) of a socket, and the wait for its outcome.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt;

use crate::client::address;
use crate::filling::Filling;
use crate::high_fd::high_copy;
use crate::name::{Kind, Name};
use crate::requests::{Reply, Request};
use crate::socket::{QUIET_SEND, Socket, enlarge};

/// Smallest SO_SNDBUF, which a socket has while it connects, so that it is soon full.
const MIN_SEND_BUFFER: usize = 1;

/// SO_SNDBUF of a socket that does not connect is larger, and the smallest that the kernel grants is not.
const MAX_PENDING_BUFFER: usize = 16 << 10;

/// Time for the node to close its end of an attempt that has failed before it began.
const CLOSE_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Number of attempts, 1 ms apart, while the node is too busy to accept another connection.
const BUSY_ATTEMPTS: u32 = 1000;

impl Socket<'_> {
    /// Connects as connect(2) does. `None` dissolves a datagram socket's association (AF_UNSPEC).
    ///
    /// # Errors
    /// ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EINPROGRESS, EALREADY, EISCONN, EACCES,
    /// EADDRINUSE, EINTR, EINVAL (an IPv6 stream and an IPv4 address), EAFNOSUPPORT.
    pub fn connect(&self, remote: Option<SocketAddr>) -> Result<(), Errno> {
        self.connect_with(remote, || Ok(!rustix::fs::fcntl_getfl(self.fd())?.contains(OFlags::NONBLOCK)))
    }

    /// Connects as on a non-blocking socket, in either mode, for callers that wait in another way until the
    /// socket is writable.
    ///
    /// # Errors
    /// Like [`connect`](Self::connect).
    pub fn begin_connect(&self, remote: Option<SocketAddr>) -> Result<(), Errno> {
        self.connect_with(remote, || Ok(false))
    }

    /// Returns true if a stream's attempt that began with [`begin_connect`](Self::begin_connect) has led to a
    /// connection, which may have been broken since. The caller tells the program so.
    ///
    /// # Errors
    /// ENETDOWN.
    pub fn has_connected(&self) -> Result<bool, Errno> {
        if self.kind() != Kind::Stream {
            return Ok(false);
        }
        match self.ask(Request::ConnectAgain { socket: self.opened(), wait: false, timeout: None }) {
            Ok(Reply::Stands) | Err(Errno::ISCONN | Errno::CONNABORTED) => Ok(true),
            Err(Errno::NETDOWN) => Err(Errno::NETDOWN),
            _ => Ok(false),
        }
    }

    fn connect_with(
        &self,
        remote: Option<SocketAddr>,
        waits: impl FnOnce() -> Result<bool, Errno>,
    ) -> Result<(), Errno> {
        if self.kind() != Kind::Stream {
            return self.associate(remote.map(|remote| self.destination(remote)).transpose()?);
        }
        let remote = remote.ok_or(Errno::AFNOSUPPORT)?;
        self.check_structure(remote)?;
        let wait = waits()?;
        // Another thread may close the descriptor during the wait, and open another file by the same number.
        // A call keeps its socket until it returns, as in the kernel. Without a free number it goes on.
        let held = wait.then(|| high_copy(self.fd())).flatten();
        let held = held.as_ref().map_or(*self, |held| self.with_fd(held.as_fd()));
        held.connect_stream(remote, wait)
    }

    fn connect_stream(&self, remote: SocketAddr, wait: bool) -> Result<(), Errno> {
        if !self.is_new()? {
            if rustix::net::getpeername(self.fd()).is_ok() {
                return self.connect_again(wait);
            }
            if sockopt::socket_acceptconn(self.fd())? {
                return Err(Errno::ISCONN);
            }
        }
        let timeout = sockopt::socket_timeout(self.fd(), sockopt::Timeout::Send)?;
        let request = Request::Connect { socket: self.opened(), remote, wait, timeout };
        // The node acts on the content of the reply alone, regardless of the request or an interruption.
        let (reply, is_interrupted) = self.client().ask_waiting(request, timeout.is_some())?;
        match reply {
            Ok(Reply::Stands) => Ok(()),
            Ok(Reply::Established(first)) => {
                enlarge(self.fd());
                self.attach()?;
                self.write_first(first);
                Ok(())
            }
            // A caller that looks at the descriptor finds room, the end and the error there, as in Linux.
            Ok(Reply::Error(_)) => {
                let left = self.leave_pending(Errno::INPROGRESS);
                if left == Err(Errno::INPROGRESS) {
                    let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::empty())];
                    // After a signal the outcome is visible a moment later.
                    let _ = rustix::event::poll(&mut fds, Some(&CLOSE_TIMEOUT));
                }
                left
            }
            // As with TCP, an interrupted or overdue attempt goes on.
            Ok(_) => self.leave_pending(Errno::INPROGRESS),
            Err(Errno::INPROGRESS) if wait && is_interrupted => self.leave_pending(Errno::INTR),
            Err(Errno::INPROGRESS) if wait => self.leave_pending(Errno::INPROGRESS),
            // Another thread, or another process, has begun it.
            Err(Errno::ALREADY) if is_interrupted => Err(Errno::INTR),
            Err(error) => Err(error),
        }
    }

    /// Returns true if the socket is certainly neither connected nor listening, by a single query. The kernel
    /// reports exactly these events for no other AF_UNIX stream. False may mean that it was shut down.
    fn is_new(&self) -> Result<bool, Errno> {
        let asked = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
        Ok(self.events(asked)? == PollFlags::OUT | PollFlags::HUP)
    }

    /// Handles a repeated connect(2) of a socket that is connecting or connected.
    fn connect_again(&self, wait: bool) -> Result<(), Errno> {
        let timeout = sockopt::socket_timeout(self.fd(), sockopt::Timeout::Send)?;
        let request = Request::ConnectAgain { socket: self.opened(), wait, timeout };
        let (reply, is_interrupted) = match self.take_failure() {
            Ok(()) => self.client().ask_waiting(request, timeout.is_some())?,
            Err(error) => (Err(error), false),
        };
        match reply {
            Ok(_) => Ok(()),
            Err(Errno::ALREADY) if is_interrupted => Err(Errno::INTR),
            Err(error @ (Errno::ALREADY | Errno::ISCONN)) => Err(error),
            Err(error) => {
                // This call returns the error, and SO_ERROR would report it again, as a reset.
                let kernels = sockopt::socket_error(self.fd())?.err();
                if !matches!(error, Errno::CONNABORTED | Errno::NOTCONN) {
                    return Err(error);
                }
                // It was established, and has broken before any call looked, as can happen to TCP sockets.
                self.take_failure()?;
                Err(kernels.unwrap_or(Errno::CONNABORTED))
            }
        }
    }

    /// Takes the socket's pending error from the node, once.
    fn take_failure(&self) -> Result<(), Errno> {
        match self.ask(Request::TakeError(self.which()))? {
            Reply::Error(0) => Ok(()),
            Reply::Error(errno) => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::PROTO),
        }
    }

    /// Makes the socket unwritable until the attempt has an outcome.
    fn leave_pending(&self, error: Errno) -> Result<(), Errno> {
        sockopt::set_socket_send_buffer_size(self.fd(), MIN_SEND_BUFFER)?;
        let filling = Filling::new()?;
        self.attach()?;
        // Send piece by piece: the node takes all but the last byte, and only a message that was read whole
        // makes room.
        while retry_on_intr(|| rustix::net::send(self.fd(), &filling.bytes(), QUIET_SEND)).is_ok() {}
        self.client().tell(Request::Filled(self.opened(), filling), Some(self.fd()))?;
        Err(error)
    }

    /// Returns true if the socket, whose descriptor is connected to the node, may still wait for the outcome
    /// of an attempt. It is writable for a moment while another thread fills it.
    pub(crate) fn may_be_pending(&self) -> Result<bool, Errno> {
        Ok(!self.events(PollFlags::OUT)?.contains(PollFlags::OUT)
            || sockopt::socket_send_buffer_size(self.fd())? <= MAX_PENDING_BUFFER)
    }

    /// Writes the library's piece. Until the node takes it, the node's death does not look like the end of
    /// the stream.
    fn write_first(&self, piece: Filling) {
        let send = || rustix::net::send(self.fd(), &piece.bytes(), QUIET_SEND);
        // Other threads may have written until the descriptor was full. The piece is not needed if the
        // connection has ended already.
        while retry_on_intr(send) == Err(Errno::AGAIN) {
            let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::OUT)];
            let _ = retry_on_intr(|| rustix::event::poll(&mut fds, None));
        }
    }

    /// Connects the application's end to the node.
    fn attach(&self) -> Result<(), Errno> {
        let node = address(&Name::Data(self.tag()));
        for _ in 0..BUSY_ATTEMPTS {
            match rustix::net::connect(self.fd(), &node) {
                Ok(()) => return Ok(()),
                // Its backlog is full.
                Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(1)),
                Err(Errno::CONNREFUSED) => return Err(Errno::NETDOWN),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NETDOWN)
    }
}
