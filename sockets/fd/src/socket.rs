//! The application's end of an overlay socket.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::client::{Client, address};
use crate::error_delay;
use crate::name::{Accepted, Family, Kind, Name, NodeTag, Opened, SocketId};
use crate::requests::{Reply, Request, Unacknowledged, Which};

/// Buffer size of each end in the kernel, bytes, within the system's limit (net.core.wmem_max).
pub const BUFFER: usize = 1 << 20;

/// The largest backlog, the default of net.core.somaxconn.
const MAX_BACKLOG: u32 = 4096;

/// Time for which shutdown(2) may wait for acknowledgements after the peer's end, and interval of the checks.
const ACKNOWLEDGEMENT_TIMEOUT: Duration = Duration::from_millis(500);
const ACKNOWLEDGEMENT_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Flags with which the library itself writes to a descriptor of the application.
pub(crate) const QUIET_SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A descriptor of an overlay socket.
///
/// Reading, writing, polling, duplicating, passing and closing it are plain kernel operations.
#[derive(Debug, Clone, Copy)]
pub struct Socket<'fd> {
    fd: BorrowedFd<'fd>,
    tag: NodeTag,
    opened: Opened,
    /// True if only the node can connect to it, see [`private`](Self::private).
    pub(crate) is_private: bool,
}

/// Opens a socket of a node, as socket(2) does.
///
/// # Errors
/// Errors of socket(2), bind(2) and getrandom(2); for raw sockets also ENETDOWN and EPERM.
pub fn open(client: &Client, family: Family, kind: Kind, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let kernel = if kind == Kind::Stream { SocketType::STREAM } else { SocketType::DGRAM };
    let fd = rustix::net::socket_with(AddressFamily::UNIX, kernel, flags, None)?;
    if kind != Kind::Stream {
        // Each datagram must carry its sender, because every program of this machine may send to an abstract
        // name.
        sockopt::set_socket_passcred(&fd, true)?;
    }
    loop {
        let id = SocketId::new(getrandom::u64().map_err(|_| Errno::IO)?);
        let name = Name::Opened(client.tag(), Opened { family, kind, id });
        match rustix::net::bind(&fd, &address(&name)) {
            Ok(()) => break,
            // Another socket has these 48 bits.
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error),
        }
    }
    client.prepare();
    if let Kind::Raw(_) = kind {
        let socket = Socket::of(fd.as_fd()).ok_or(Errno::PROTO)?;
        socket.introduce(Request::Open(socket.opened))?;
    }
    Ok(fd)
}

/// Parses the name in a kernel address, if it is a peersock name.
pub fn name_of(address: SocketAddrAny) -> Option<Name> {
    named(&SocketAddrUnix::try_from(address).ok()?)
}

fn named(address: &SocketAddrUnix) -> Option<Name> {
    match address.abstract_name() {
        Some(name) => Name::parse(name),
        None => Name::of_path(address.path_bytes()?),
    }
}

impl<'fd> Socket<'fd> {
    /// Returns the overlay socket of `fd`, or `None` for every other descriptor.
    pub fn of(fd: BorrowedFd<'fd>) -> Option<Self> {
        let address = SocketAddrUnix::try_from(rustix::net::getsockname(fd).ok()?).ok()?;
        let Name::Opened(tag, opened) = named(&address)? else { return None };
        let is_private = address.abstract_name().is_none();
        Some(Self { fd, tag, opened, is_private })
    }

    /// Returns the connection if the application has accepted one, which the peer's name shows.
    ///
    /// # Errors
    /// ENOTCONN.
    fn accepted(&self) -> Result<Option<Accepted>, Errno> {
        match rustix::net::getpeername(self.fd)?.and_then(name_of) {
            Some(Name::Accepted(_, accepted)) if self.kind() == Kind::Stream => Ok(Some(accepted)),
            _ => Ok(None),
        }
    }

    /// Returns the same socket with another descriptor of it.
    pub(crate) fn with_fd<'copy>(&self, fd: BorrowedFd<'copy>) -> Socket<'copy> {
        let Self { tag, opened, is_private, .. } = *self;
        Socket { fd, tag, opened, is_private }
    }

    /// Returns its address family.
    pub fn family(&self) -> Family {
        self.opened.family
    }

    /// Returns its type.
    pub fn kind(&self) -> Kind {
        self.opened.kind
    }

    /// Returns the tag of the node that it belongs to.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// Returns the node that it belongs to.
    pub fn client(&self) -> Arc<Client> {
        Client::of(self.tag)
    }

    /// Returns its identifier in requests.
    pub fn which(&self) -> Which {
        self.which_connected().0
    }

    /// Returns its identifier in requests, and true if its descriptor is connected.
    pub(crate) fn which_connected(&self) -> (Which, bool) {
        let accepted = self.accepted();
        let which = match accepted {
            Ok(Some(accepted)) => Which::Accepted(accepted.id),
            _ => Which::Opened(self.opened),
        };
        (which, accepted.is_ok())
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> BorrowedFd<'fd> {
        self.fd
    }

    /// Returns the content of its name.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Binds it, as bind(2) does.
    ///
    /// # Errors
    /// EADDRINUSE, EADDRNOTAVAIL, EACCES (the network does not allow the port), EINVAL (bound already, or an
    /// IPv6 socket and an IPv4 address), EAFNOSUPPORT.
    pub fn bind(&self, local: SocketAddr) -> Result<(), Errno> {
        self.check_structure(local)?;
        self.introduce(Request::Bind(self.opened, local)).map(drop)
    }

    /// Listens, as listen(2) does. `backlog` plus one connections may wait to be accepted, 4,097 at most,
    /// which is also the meaning of a negative number.
    ///
    /// # Errors
    /// EADDRINUSE, EACCES, EOPNOTSUPP (no stream), EINVAL (it is connected).
    pub fn listen(&self, backlog: i32) -> Result<(), Errno> {
        if self.kind() != Kind::Stream {
            return Err(Errno::OPNOTSUPP);
        }
        // As listen(2), which takes a negative number for the maximum.
        let most = (backlog as u32).min(MAX_BACKLOG);
        // The application's end listens first, because the node connects to it at once if a connection is
        // waiting.
        rustix::net::listen(self.fd, most as i32)?;
        let request = Request::Listen(self.opened, most);
        self.client().ask_with(request, Some(self.fd)).map(drop)
    }

    /// Returns the [events](events_of) of its descriptor.
    ///
    /// # Errors
    /// Errors of poll(2), but not EINTR.
    pub fn events(&self, wanted: PollFlags) -> Result<PollFlags, Errno> {
        events_of(self.fd, wanted)
    }

    /// Shuts it down, as shutdown(2) does.
    ///
    /// # Errors
    /// ENOTCONN; ENETDOWN for a formerly connected socket, if the node has ended or has left the network.
    pub fn shutdown(&self, how: rustix::net::Shutdown) -> Result<(), Errno> {
        let is_stream = self.kind() == Kind::Stream;
        let is_connected = match is_stream {
            true => rustix::net::getpeername(self.fd).is_ok(),
            false => self.addresses()?.1.is_some(),
        };
        let is_listener = !is_connected && self.is_listener();
        if !is_connected && !is_stream {
            // It fails, as in Linux, but wakes the threads that wait for datagrams.
            let _ = rustix::net::shutdown(self.fd, how);
        }
        if is_stream && !is_listener && (!is_connected || self.may_be_pending()?) {
            match self.ask(Request::AbortConnecting(self.opened)) {
                Ok(_) => return Ok(()),
                // The connection, once it is established, sends what the descriptor has taken, and the end.
                Err(Errno::INPROGRESS) => return rustix::net::shutdown(self.fd, how),
                Err(_) => {}
            }
        }
        if !(is_connected || is_listener) || self.is_broken() {
            return Err(if self.is_down() { Errno::NETDOWN } else { Errno::NOTCONN });
        }
        if is_stream && how != rustix::net::Shutdown::Read {
            self.await_acknowledgement()?;
        }
        if is_listener && how != rustix::net::Shutdown::Write {
            // The node cannot see the shutdown, and would go on accepting connections.
            match self.end_at_node(None) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
        if is_stream && is_connected && how != rustix::net::Shutdown::Write {
            // Without it, the end of both directions looks like closing.
            let _ = self.introduce(Request::ShutDown(self.which()));
        }
        rustix::net::shutdown(self.fd, how)
    }

    /// Returns true if it is a listening stream.
    pub fn is_listener(&self) -> bool {
        self.kind() == Kind::Stream && sockopt::socket_acceptconn(self.fd).unwrap_or(false)
    }

    /// Makes the node forget a listener, a stream whose attempt to connect has failed, or a datagram socket.
    /// The successor takes over its address and port. It exists because AF_UNIX sockets listen and connect
    /// only once, and a shutdown is permanent.
    ///
    /// # Errors
    /// EINVAL if it is another socket or the successor was used already, ENETDOWN.
    pub fn hand_over(&self, successor: &Socket<'_>) -> Result<(), Errno> {
        self.end_at_node(Some(successor.opened))
    }

    fn end_at_node(&self, successor: Option<Opened>) -> Result<(), Errno> {
        let request = Request::End { socket: self.opened, successor };
        self.client().ask_with(request, Some(self.fd)).map(drop)
    }

    /// Waits briefly for the acknowledgement of written data, if the peer has ended its direction. A peer
    /// that has closed the connection sends a reset instead, which no call would report after the end. Where
    /// the kernel has both ends this happens at once.
    fn await_acknowledgement(&self) -> Result<(), Errno> {
        let has_ended = self.events(PollFlags::RDHUP)?.contains(PollFlags::RDHUP);
        if !has_ended || rustix::fs::fcntl_getfl(self.fd)?.contains(OFlags::NONBLOCK) {
            return Ok(());
        }
        let until = Instant::now() + ACKNOWLEDGEMENT_TIMEOUT;
        loop {
            match self.unacknowledged() {
                Ok(1..) if Instant::now() < until => std::thread::sleep(ACKNOWLEDGEMENT_CHECK_INTERVAL),
                Err(Errno::NOTCONN) => return Err(Errno::NOTCONN),
                _ => return Ok(()),
            }
        }
    }

    /// Returns the number of bytes written to a stream and not acknowledged. The kernel itself would count
    /// memory of the descriptor, which is not 0 once anything was written.
    ///
    /// # Errors
    /// ENOTCONN if it is no longer connected, ENETDOWN.
    pub fn unacknowledged(&self) -> Result<u32, Errno> {
        self.take_stock().map(|found| found.bytes)
    }

    /// Returns the value of SIOCOUTQ. As in Linux, an end that is not acknowledged counts as one byte.
    ///
    /// # Errors
    /// As of [`unacknowledged`](Self::unacknowledged).
    pub fn outq(&self) -> Result<u32, Errno> {
        self.take_stock().map(|found| found.bytes.saturating_add(found.has_end.into()))
    }

    fn take_stock(&self) -> Result<Unacknowledged, Errno> {
        match self.ask(Request::Unacknowledged(self.which()))? {
            Reply::Unacknowledged(found) => Ok(found),
            _ => Err(Errno::PROTO),
        }
    }

    /// Returns true if the node says that a stream's connection has ended.
    fn is_broken(&self) -> bool {
        if self.kind() != Kind::Stream || rustix::net::getpeername(self.fd).is_err() {
            return false;
        }
        // Ask the node only if nothing can be written any more, because the direction has ended or the node
        // no longer reads.
        let nothing = rustix::net::send(self.fd, &[], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        // This request also tells the node that a call fails because of the connection's end. A request for
        // the addresses does not, because any description of a socket makes it.
        nothing == Err(Errno::PIPE)
            && (self.unacknowledged().is_err() || self.peer_addr() == Err(Errno::NOTCONN))
    }

    /// Returns the local address, as getsockname(2) does.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended.
    pub fn local_addr(&self) -> Result<SocketAddr, Errno> {
        match self.accepted() {
            Ok(Some(accepted)) => Ok(accepted.local),
            _ => Ok(self.addresses()?.0),
        }
    }

    /// Returns the peer's address, as getpeername(2) does.
    ///
    /// # Errors
    /// ENOTCONN, and ENETDOWN if the node has ended.
    pub fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        match self.accepted() {
            // The kernel knows the address, but not that the connection has ended.
            Ok(Some(accepted)) if !self.events(PollFlags::empty())?.contains(PollFlags::HUP) => {
                Ok(accepted.peer)
            }
            _ => self.addresses()?.1.ok_or(Errno::NOTCONN),
        }
    }

    pub(crate) fn addresses(&self) -> Result<(SocketAddr, Option<SocketAddr>), Errno> {
        match self.ask(Request::Addresses(self.which()))? {
            Reply::Addresses(local, peer) => Ok((local, peer)),
            _ => Err(Errno::PROTO),
        }
    }

    /// Takes the pending error (SO_ERROR) from the node and from the kernel.
    ///
    /// # Errors
    /// Errors of getsockopt(2).
    pub fn take_error(&self) -> Result<Option<Errno>, Errno> {
        // Ask the node first: once it answers, anything it was about to do to its end is done.
        let node = self.error_of_node();
        let kernel = sockopt::socket_error(self.fd)?.err();
        // The node may have ended the connection since its answer, and the kernel knows only the fact.
        let node = node.or_else(|| kernel.and_then(|_| self.error_of_node()));
        Ok(node.or(kernel))
    }

    fn error_of_node(&self) -> Option<Errno> {
        match self.ask(Request::TakeError(self.which())) {
            Ok(Reply::Error(errno)) if errno != 0 => Some(Errno::from_raw_os_error(errno)),
            Err(Errno::NETDOWN) => Some(Errno::NETDOWN),
            _ => None,
        }
    }

    /// Returns ENETDOWN if the node has ended the socket: it was stopped, or has left the network that the
    /// socket is bound to. Returns `None` while there may be something to wait for, and after the
    /// application's own shutdown(2). Delays a program that asks repeatedly, see the module `error_delay`.
    pub fn end(&self) -> Option<Errno> {
        if !self.is_shut() || !self.is_down() {
            return None;
        }
        error_delay::before_error();
        Some(Errno::NETDOWN)
    }

    /// Returns true if only pending data can be received: the socket was shut down, by the application or by
    /// the node.
    ///
    /// # Errors
    /// Errors of poll(2).
    pub fn has_ended(&self) -> Result<bool, Errno> {
        Ok(self.events(PollFlags::RDHUP)?.intersects(PollFlags::RDHUP | PollFlags::HUP))
    }

    /// Does the same, but returns false on an error.
    pub(crate) fn is_shut(&self) -> bool {
        self.has_ended().unwrap_or(false)
    }

    /// Converts an error that the kernel reports on a stream. The kernel knows only that the node has closed
    /// its end. That happens after a reset by the peer, after all other errors of the connection, such as
    /// ETIMEDOUT, and when the session ends (ENETDOWN).
    pub fn stream_error(&self, error: Errno) -> Errno {
        match error {
            _ if self.kind() != Kind::Stream => return error,
            // Errors of AF_UNIX for an unconnected socket, when receiving and when sending.
            Errno::INVAL if rustix::net::getpeername(self.fd).is_err() => return Errno::NOTCONN,
            Errno::NOTCONN if rustix::net::getpeername(self.fd).is_err() => return Errno::PIPE,
            Errno::CONNRESET | Errno::PIPE => {}
            _ => return error,
        }
        match self.ask(Request::Ending(self.which())) {
            Ok(Reply::Error(errno)) if errno != 0 => {
                let meant = Errno::from_raw_os_error(errno);
                if error == Errno::PIPE && meant != Errno::NETDOWN {
                    // This call returns the error, and SO_ERROR would report it again, as a reset.
                    let _ = sockopt::socket_error(self.fd);
                }
                meant
            }
            Err(Errno::NETDOWN) => Errno::NETDOWN,
            _ => error,
        }
    }

    /// Returns true if the socket's node has ended, or has left its network.
    pub fn is_down(&self) -> bool {
        matches!(self.ask(Request::Addresses(self.which())), Err(Errno::NETDOWN))
    }

    /// Sends a request that may introduce a socket to the node. A descriptor of the socket goes along, which
    /// lets the node detect its closing.
    pub(crate) fn introduce(&self, request: Request) -> Result<Reply, Errno> {
        self.client().ask_with(request, Some(self.fd))
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Reply, Errno> {
        self.client().ask(request)
    }

    /// Checks the family as a reader of the address structure does: an IPv4 structure is too short for IPv6.
    pub(crate) fn check_structure(&self, address: SocketAddr) -> Result<(), Errno> {
        match self.check_family(address) {
            Err(_) if self.family() == Family::V6 => Err(Errno::INVAL),
            checked => checked,
        }
    }

    /// Converts a destination for this socket: UDP sockets of IPv6 map IPv4 addresses.
    pub(crate) fn destination(&self, remote: SocketAddr) -> Result<SocketAddr, Errno> {
        match remote {
            SocketAddr::V4(v4) if (self.family(), self.kind()) == (Family::V6, Kind::Datagram) => {
                Ok(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            _ => self.check_family(remote).map(|()| remote),
        }
    }

    pub(crate) fn check_family(&self, address: SocketAddr) -> Result<(), Errno> {
        if Family::of(address.ip()) == self.family() { Ok(()) } else { Err(Errno::AFNOSUPPORT) }
    }
}

/// Returns the events among `wanted` that a descriptor has now, and the events that poll(2) always reports.
///
/// # Errors
/// Errors of poll(2). On EINTR it tries again, because a pending signal causes that even with a zero timeout.
pub fn events_of(fd: BorrowedFd<'_>, wanted: PollFlags) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, wanted)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))?;
    Ok(fds[0].revents())
}

/// Enlarges the send buffer of a descriptor, for bulk data.
pub fn enlarge(fd: BorrowedFd<'_>) {
    // The system clamps excessive sizes.
    let _ = sockopt::set_socket_send_buffer_size(fd, BUFFER);
}
