//! TCP connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peersock::PeerIdentity;
use peersock_fd::option_table::{PEERSOCK_PEER, SOL_PEERSOCK};
use peersock_fd::{Broken, Errno, Family, Held, Kind, RecvFlags, Reply, Request, SendFlags, Socket, enlarge};
use rustix::event::PollFlags;
use rustix::net::sockopt::{self, Timeout};

use crate::member::Member;
use crate::sys;
use crate::tokio::in_place;

/// Intervals of checks whether the peer has everything: the first, and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Time without an end: the node takes no longer one.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Probes of keepalive without an answer, after which a connection fails.
const PROBES: i32 = 9;

/// Places in Linux's `struct tcp_info`: `tcpi_bytes_acked`, `tcpi_bytes_received`, `tcpi_snd_wnd`, its end.
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
const SND_WND: usize = 228;
const INFO_LENGTH: u32 = 232;

/// A TCP connection. Clones are the same connection, which is closed with the last of them.
#[derive(Debug, Clone)]
pub struct TcpStream(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    fd: OwnedFd,
    peer: SocketAddr,
    /// Number of bytes read, and the number after which no more are: see [`TcpStream::stop_receiving`].
    read: AtomicU64,
    limit: AtomicU64,
    /// Error that has ended the connection, 0 for none. The node and the kernel report it once.
    broken: AtomicI32,
    /// The node's part of the connection, once sending has ended.
    held: Mutex<Option<Held>>,
}

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Bytes that the peer has acknowledged.
    pub delivered: u64,
    /// Bytes that the node has received.
    pub received: u64,
    /// Bytes that the peer has room for.
    pub peer_window: u64,
}

impl TcpStream {
    /// Connects within a time.
    ///
    /// # Errors
    /// Errors of connect(2): `ConnectionRefused`, `HostUnreachable`, `PermissionDenied` (the network does not
    /// allow the port) and others; `TimedOut` after `within`, `NetworkDown` if the node has ended.
    pub fn connect(member: &Member, remote: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::begin(member, remote)?;
        if !sys::wait(stream.as_fd(), PollFlags::OUT, Some(within))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.finish_connecting()?;
        Ok(stream)
    }

    /// Begins to connect. The socket is writable when the outcome is known.
    pub(crate) fn begin(member: &Member, remote: SocketAddr) -> io::Result<TcpStream> {
        let fd = sys::open(member.client(), Family::of(remote.ip()), Kind::Stream)?;
        match sys::overlay(fd.as_fd())?.begin_connect(Some(remote)) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::new(member, fd, remote)),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn finish_connecting(&self) -> io::Result<()> {
        match self.socket()?.take_error()? {
            None => {}
            // It stood, and has been reset since: reading tells that, after what has come before.
            Some(Errno::CONNRESET) => drop(self.broke(Errno::CONNRESET)),
            Some(error) => return Err(error.into()),
        }
        // It was small while the connection was not there.
        enlarge(self.as_fd());
        Ok(())
    }

    pub(crate) fn new(member: &Member, fd: OwnedFd, peer: SocketAddr) -> TcpStream {
        let [read, limit] = [0, u64::MAX].map(AtomicU64::new);
        let inner =
            Arc::new(Inner { fd, peer, read, limit, broken: AtomicI32::new(0), held: Mutex::default() });
        member.remember(&inner);
        TcpStream(inner)
    }

    pub(crate) fn of(inner: Arc<Inner>) -> TcpStream {
        TcpStream(inner)
    }

    fn socket(&self) -> Result<Socket<'_>, Errno> {
        sys::overlay(self.as_fd())
    }

    /// Reads as recv(2) does. The end of the stream is one only if the node confirms it.
    pub(crate) fn receive(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let left = self.0.limit.load(Ordering::SeqCst).saturating_sub(self.0.read.load(Ordering::SeqCst));
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if room == 0 {
            return Ok(0);
        }
        match rustix::net::recv(self.as_fd(), &mut buf[..room], flags) {
            Ok((0, _)) => self.end(),
            Ok((count, _)) => {
                self.0.read.fetch_add(count as u64, Ordering::SeqCst);
                Ok(count)
            }
            Err(error @ (Errno::AGAIN | Errno::INTR)) => Err(error.into()),
            Err(error) => Err(self.cause(error)),
        }
    }

    fn end(&self) -> io::Result<usize> {
        match self.0.broken.load(Ordering::SeqCst) {
            // What was not wanted any more is no loss.
            0 if self.0.limit.load(Ordering::SeqCst) != u64::MAX => Ok(0),
            // Without an answer, it may be anything but an end.
            0 => match self.why_broken() {
                Ok(None) => Ok(0),
                Ok(Some(Broken { errno, .. })) => Err(self.broke(Errno::from_raw_os_error(errno))),
                Err(error) => Err(self.broke(error)),
            },
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Returns the node's record of the end of the connection; `None` if it goes on, or has ended in order.
    fn why_broken(&self) -> Result<Option<Broken>, Errno> {
        let socket = self.socket()?;
        match in_place(|| socket.client().ask(Request::WhyBroken(socket.which())))? {
            Reply::Broken(broken) => Ok(broken),
            _ => Err(Errno::PROTO),
        }
    }

    /// Returns the error that has ended the connection. `seen` is the kernel's, which knows only that the
    /// node has closed its end, and tells each error once.
    fn cause(&self, seen: Errno) -> io::Error {
        let known = self.0.broken.load(Ordering::SeqCst);
        if known != 0 {
            return io::Error::from_raw_os_error(known);
        }
        self.broke(match self.why_broken() {
            Ok(Some(broken)) => Errno::from_raw_os_error(broken.errno),
            Ok(None) => seen,
            Err(error) => error,
        })
    }

    /// Writes as send(2) does.
    pub(crate) fn send(&self, data: &[u8], flags: SendFlags) -> io::Result<usize> {
        match rustix::net::send(self.as_fd(), data, flags | SendFlags::NOSIGNAL) {
            Ok(count) => Ok(count),
            Err(error @ (Errno::AGAIN | Errno::INTR)) => Err(error.into()),
            Err(error) => Err(self.cause(error)),
        }
    }

    /// Remembers the error that has ended the connection.
    fn broke(&self, error: Errno) -> io::Error {
        let errno = error.raw_os_error();
        let known = self.0.broken.compare_exchange(0, errno, Ordering::SeqCst, Ordering::SeqCst);
        io::Error::from_raw_os_error(known.map_or_else(|known| known, |_| errno))
    }

    /// Ends one direction, or both. The end of sending alone is regular, also if closing would
    /// [reset](Self::reset_on_close) the connection. The end of both is that of closing, which may be a
    /// reset.
    ///
    /// # Errors
    /// `NotConnected`, `NetworkDown`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let socket = self.socket()?;
        if how == Shutdown::Write {
            // The receiving direction may have ended, and a socket with both ended is closed to the node.
            self.reset_on_close(false)?;
        }
        Ok(socket.shutdown(match how {
            Shutdown::Read => peersock_fd::Shutdown::Read,
            Shutdown::Write => peersock_fd::Shutdown::Write,
            Shutdown::Both => peersock_fd::Shutdown::Both,
        })?)
    }

    /// Ends sending as [`shutdown`](Self::shutdown) does, and makes the node keep the connection for
    /// [`wait_delivered`](Self::wait_delivered). It takes a descriptor until then.
    ///
    /// # Errors
    /// As of `shutdown`.
    pub fn finish_sending(&self) -> io::Result<()> {
        {
            let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.is_none() {
                let socket = self.socket()?;
                *held = Some(socket.client().hold(socket.which())?);
            }
        }
        self.shutdown(Shutdown::Write)
    }

    /// Accepts no more data from the peer than the node has acknowledged by now, so that reading ends. A peer
    /// that sends more is reset when the connection is closed.
    pub fn stop_receiving(&self) {
        let received = self.info().map_or(0, |info| info.received);
        self.0.limit.store(received, Ordering::SeqCst);
        if self.0.read.load(Ordering::SeqCst) >= received {
            // Ends a read that waits.
            let _ = rustix::net::shutdown(self.as_fd(), peersock_fd::Shutdown::Read);
        }
    }

    /// Returns the number of written bytes that the peer has not acknowledged, or never will; 0 if the node
    /// has ended.
    pub fn unacked(&self) -> u64 {
        match self.socket().and_then(|socket| socket.unacknowledged()) {
            Ok(bytes) => bytes.into(),
            Err(_) => self.why_broken().ok().flatten().map_or(0, |broken| broken.lost),
        }
    }

    /// Returns true while the node has the connection.
    pub(crate) fn is_served(&self) -> bool {
        self.socket().is_ok_and(|socket| socket.unacknowledged().is_ok())
    }

    /// Returns the error that has ended the connection, if one has.
    pub fn broken(&self) -> Option<io::Error> {
        match self.socket().map(|socket| socket.unacknowledged()) {
            Ok(Ok(_)) => None,
            Ok(Err(Errno::NOTCONN)) => Some(self.cause(Errno::CONNRESET)),
            Ok(Err(error)) => Some(self.broke(error)),
            Err(error) => Some(error.into()),
        }
    }

    /// Waits until the peer has acknowledged everything that was written.
    ///
    /// # Errors
    /// The error that has ended the connection before that; `TimedOut` after `within`.
    pub fn wait_acknowledged(&self, within: Option<Duration>) -> io::Result<()> {
        let until = within.and_then(|within| Instant::now().checked_add(within));
        let mut pause = FIRST_LOOK;
        loop {
            match self.socket()?.unacknowledged() {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(Errno::NOTCONN) => return Err(self.cause(Errno::CONNRESET)),
                Err(error) => return Err(self.broke(error)),
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(pause);
            pause = LAST_LOOK.min(pause * 2);
        }
    }

    /// Waits until the peer has acknowledged everything and the end, after both directions have ended.
    ///
    /// # Errors
    /// The error that has ended the connection before that; `NotConnected` without
    /// [`finish_sending`](Self::finish_sending).
    pub fn wait_delivered(&self) -> io::Result<()> {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let held = held.ok_or(io::ErrorKind::NotConnected)?;
        self.socket()?.client().linger(held, FOR_EVER, false).map_err(|error| self.broke(error))
    }

    /// Makes closing reset the connection (SO_LINGER with a time of zero), or not.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn reset_on_close(&self, is_on: bool) -> io::Result<()> {
        let value = [i32::from(is_on).to_ne_bytes(), [0; 4]].concat();
        self.set(libc::SOL_SOCKET, libc::SO_LINGER, &value)
    }

    /// Resets the connection now.
    pub fn reset(&self) {
        // Fails if the connection has ended.
        let _ = self.reset_on_close(true);
        let _ = rustix::net::shutdown(self.as_fd(), peersock_fd::Shutdown::Both);
    }

    /// Sets TCP_NODELAY.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn set_nodelay(&self, is_on: bool) -> io::Result<()> {
        self.set_number(libc::IPPROTO_TCP, libc::TCP_NODELAY, is_on.into())
    }

    /// Makes the node probe a silent peer at this interval, rounded up to whole seconds. The connection fails
    /// after nine probes without an answer, or after [`set_user_timeout`](Self::set_user_timeout).
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn set_keepalive(&self, interval: Duration) -> io::Result<()> {
        let seconds = i32::try_from(interval.as_millis().div_ceil(1000)).unwrap_or(i32::MAX).clamp(1, 32767);
        self.set_number(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
        self.set_number(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds)?;
        self.set_number(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, PROBES)?;
        self.set_number(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
    }

    /// Sets TCP_USER_TIMEOUT.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        self.set_number(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds)
    }

    /// Sets the timeout of reads, which then fail with `WouldBlock`; `None` is for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(self.as_fd(), Timeout::Recv, timeout)?)
    }

    /// Sets the timeout of writes without progress; see [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    /// As of `set_read_timeout`.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(self.as_fd(), Timeout::Send, timeout)?)
    }

    fn set_number(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        self.set(level, name, &value.to_ne_bytes())
    }

    fn set(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        let socket = self.socket()?;
        // With an answer, so that what follows finds the option set.
        let request = Request::SetOption(socket.which(), level, name, value.to_vec());
        Ok(socket.client().ask(request).map(drop)?)
    }

    /// Returns who is at the other end, as of when the connection was established, also after its end.
    ///
    /// # Errors
    /// `NotConnected` before that, `NetworkDown`.
    pub fn peer(&self) -> io::Result<PeerIdentity> {
        let longest = PeerIdentity::MAX_JSON as u32;
        PeerIdentity::from_json(&self.socket()?.option(SOL_PEERSOCK, PEERSOCK_PEER, longest)?)
    }

    /// Returns the state of the connection.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn info(&self) -> io::Result<Info> {
        let bytes = self.socket()?.option(libc::IPPROTO_TCP, libc::TCP_INFO, INFO_LENGTH)?;
        let long = |at: usize| {
            let part = bytes.get(at..at + 8).and_then(|part| part.try_into().ok());
            part.map_or(0, u64::from_ne_bytes)
        };
        let window = bytes.get(SND_WND..SND_WND + 4).and_then(|part| part.try_into().ok());
        Ok(Info {
            delivered: long(BYTES_ACKED),
            received: long(BYTES_RECEIVED),
            peer_window: window.map_or(0, u32::from_ne_bytes).into(),
        })
    }

    /// Returns the peer's address, also after the connection has ended.
    pub fn peer_addr(&self) -> SocketAddr {
        self.0.peer
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket()?.local_addr()?)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, RecvFlags::empty())
    }
}

impl Write for &TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data, SendFlags::empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}
