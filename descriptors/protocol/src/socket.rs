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
use crate::name::{Accepted, Family, Kind, Name, NodeTag, Opened, SocketId};
use crate::pause;
use crate::requests::{Reply, Request, Which};

/// The kernel's buffer of each end, bytes, as far as the system allows so much (net.core.wmem_max).
pub const BUFFER: usize = 1 << 20;

/// The largest backlog: what net.core.somaxconn is unless somebody has changed it.
const MOST_BACKLOG: u32 = 4096;

/// How long shutdown(2) may wait for acknowledgements after the peer's end, and how often it looks.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);
const ACKNOWLEDGED_LOOK: Duration = Duration::from_millis(1);

/// How the library writes by itself to a descriptor of the application.
pub(crate) const UNSEEN: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A descriptor that is an overlay socket.
///
/// Reading, writing, polling, duplicating, passing and closing it are the kernel's own.
#[derive(Debug, Clone, Copy)]
pub struct Socket<'fd> {
    fd: BorrowedFd<'fd>,
    tag: NodeTag,
    opened: Opened,
    /// Nobody but the node can connect to it, see [`private`](Self::private).
    pub(crate) is_private: bool,
}

/// Opens a socket of a node, as socket(2).
///
/// # Errors
/// Those of socket(2), bind(2) and getrandom(2); for raw sockets also ENETDOWN and EPERM.
pub fn open(client: &Client, family: Family, kind: Kind, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let kernel = if kind == Kind::Stream { SocketType::STREAM } else { SocketType::DGRAM };
    let fd = rustix::net::socket_with(AddressFamily::UNIX, kernel, flags, None)?;
    if kind != Kind::Stream {
        // Every program of this machine may send to an abstract name: each datagram tells who did.
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
    if let Kind::Raw(_) = kind {
        let socket = Socket::of(fd.as_fd()).ok_or(Errno::PROTO)?;
        socket.introduce(Request::Open(socket.opened))?;
    }
    Ok(fd)
}

/// What an address of the kernel says, if it is one of ours.
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
    /// The overlay socket that `fd` is; `None` for every other descriptor.
    pub fn of(fd: BorrowedFd<'fd>) -> Option<Self> {
        let address = SocketAddrUnix::try_from(rustix::net::getsockname(fd).ok()?).ok()?;
        let Name::Opened(tag, opened) = named(&address)? else { return None };
        let is_private = address.abstract_name().is_none();
        Some(Self { fd, tag, opened, is_private })
    }

    /// The connection that it is, if the application has accepted it: the other end's name says so.
    ///
    /// # Errors
    /// ENOTCONN.
    fn accepted(&self) -> Result<Option<Accepted>, Errno> {
        match rustix::net::getpeername(self.fd)?.and_then(name_of) {
            Some(Name::Accepted(_, accepted)) if self.kind() == Kind::Stream => Ok(Some(accepted)),
            _ => Ok(None),
        }
    }

    /// Its address family.
    pub fn family(&self) -> Family {
        self.opened.family
    }

    /// What it carries.
    pub fn kind(&self) -> Kind {
        self.opened.kind
    }

    /// The name of the node that it belongs to.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// The node that it belongs to.
    pub fn client(&self) -> Arc<Client> {
        Client::of(self.tag)
    }

    /// What requests call it.
    pub fn which(&self) -> Which {
        self.which_connected().0
    }

    /// What requests call it, and whether its descriptor is connected.
    pub(crate) fn which_connected(&self) -> (Which, bool) {
        let accepted = self.accepted();
        let which = match accepted {
            Ok(Some(accepted)) => Which::Accepted(accepted.id),
            _ => Which::Opened(self.opened),
        };
        (which, accepted.is_ok())
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'fd> {
        self.fd
    }

    /// What its name says.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// bind(2).
    ///
    /// # Errors
    /// EADDRINUSE, EADDRNOTAVAIL, EACCES (the network does not allow the port), EINVAL (bound already, or an
    /// IPv6 socket and an IPv4 address), EAFNOSUPPORT.
    pub fn bind(&self, local: SocketAddr) -> Result<(), Errno> {
        self.check_structure(local)?;
        self.introduce(Request::Bind(self.opened, local)).map(drop)
    }

    /// listen(2): one connection more than `backlog` may wait to be accepted, 4,097 at most, which is also
    /// what a negative number means.
    ///
    /// # Errors
    /// EADDRINUSE, EACCES, EOPNOTSUPP (no stream), EINVAL (it is connected).
    pub fn listen(&self, backlog: i32) -> Result<(), Errno> {
        if self.kind() != Kind::Stream {
            return Err(Errno::OPNOTSUPP);
        }
        // As listen(2), to which a negative one is as many as can be.
        let most = (backlog as u32).min(MOST_BACKLOG);
        // First the application's end: the node connects to it at once if somebody is there.
        rustix::net::listen(self.fd, most as i32)?;
        let request = Request::Listen(self.opened, most);
        self.client().ask_with(request, Some(self.fd)).map(drop)
    }

    /// Returns the [events](events_of) of its descriptor.
    ///
    /// # Errors
    /// Those of poll(2), but not EINTR.
    pub fn events(&self, wanted: PollFlags) -> Result<PollFlags, Errno> {
        events_of(self.fd, wanted)
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN; ENETDOWN of what was connected, if the node is no more or has left the network.
    pub fn shutdown(&self, how: rustix::net::Shutdown) -> Result<(), Errno> {
        let is_stream = self.kind() == Kind::Stream;
        let is_connected = match is_stream {
            true => rustix::net::getpeername(self.fd).is_ok(),
            false => self.addresses()?.1.is_some(),
        };
        let is_listener = !is_connected && self.is_listener();
        if !is_connected && !is_stream {
            // It fails, as in Linux, and wakes those who wait for datagrams all the same.
            let _ = rustix::net::shutdown(self.fd, how);
        }
        // Only what is not both connected and writable may be connecting.
        if is_stream
            && !is_listener
            && !(is_connected && self.events(PollFlags::OUT)?.contains(PollFlags::OUT))
            && self.ask(Request::AbortConnecting(self.opened)).is_ok()
        {
            return Ok(());
        }
        if !(is_connected || is_listener) || self.is_broken() {
            return Err(if self.is_down() { Errno::NETDOWN } else { Errno::NOTCONN });
        }
        if is_stream && how != rustix::net::Shutdown::Read {
            self.await_acknowledgement()?;
        }
        if is_listener && how != rustix::net::Shutdown::Write {
            // The node sees nothing of it, and would go on taking connections.
            match self.end_at_node(None) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
        rustix::net::shutdown(self.fd, how)
    }

    /// Whether it is a stream that listens.
    pub fn is_listener(&self) -> bool {
        self.kind() == Kind::Stream && sockopt::socket_acceptconn(self.fd).unwrap_or(false)
    }

    /// Has the node know nothing more of a listener, of a stream whose attempt to connect has failed, or of a
    /// datagram socket. The successor has its address and port then: the kernel's AF_UNIX sockets listen and
    /// connect once, and what was shut down stays so.
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

    /// Waits for a moment, if the peer has ended its direction, until it has acknowledged what was written to
    /// it: one that has closed the connection resets it instead, and after the end nobody would hear of it.
    /// Where the kernel has both ends it happens at once.
    fn await_acknowledgement(&self) -> Result<(), Errno> {
        let has_ended = self.events(PollFlags::RDHUP)?.contains(PollFlags::RDHUP);
        if !has_ended || rustix::fs::fcntl_getfl(self.fd)?.contains(OFlags::NONBLOCK) {
            return Ok(());
        }
        let until = Instant::now() + ACKNOWLEDGED_WITHIN;
        loop {
            match self.unacknowledged() {
                Ok(1..) if Instant::now() < until => std::thread::sleep(ACKNOWLEDGED_LOOK),
                Err(Errno::NOTCONN) => return Err(Errno::NOTCONN),
                _ => return Ok(()),
            }
        }
    }

    /// How many bytes that were written to a stream are not acknowledged: what SIOCOUTQ says of TCP. The
    /// kernel's own answer counts memory of the descriptor, which is not 0 once something was written.
    ///
    /// # Errors
    /// ENOTCONN if it is not connected any more, ENETDOWN.
    pub fn unacknowledged(&self) -> Result<u32, Errno> {
        match self.ask(Request::Unacknowledged(self.which()))? {
            Reply::Count(bytes) => Ok(bytes),
            _ => Err(Errno::PROTO),
        }
    }

    /// Whether a stream's connection is no more, as the node says.
    fn is_broken(&self) -> bool {
        if self.kind() != Kind::Stream || rustix::net::getpeername(self.fd).is_err() {
            return false;
        }
        // The node is asked only where nothing can be written any more, because the direction has ended or
        // the node reads no more.
        let nothing = rustix::net::send(self.fd, &[], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        // What is asked for tells the node, too, that a call fails by the end of the connection. The addresses
        // do not: whoever describes a socket asks for them.
        nothing == Err(Errno::PIPE) && self.unacknowledged().is_err()
    }

    /// getsockname(2).
    ///
    /// # Errors
    /// ENETDOWN if the node is no more.
    pub fn local_addr(&self) -> Result<SocketAddr, Errno> {
        match self.accepted() {
            Ok(Some(accepted)) => Ok(accepted.local),
            _ => Ok(self.addresses()?.0),
        }
    }

    /// getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN, and ENETDOWN if the node is no more.
    pub fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        match self.accepted() {
            Ok(Some(accepted)) => Ok(accepted.peer),
            _ => self.addresses()?.1.ok_or(Errno::NOTCONN),
        }
    }

    pub(crate) fn addresses(&self) -> Result<(SocketAddr, Option<SocketAddr>), Errno> {
        match self.ask(Request::Addresses(self.which()))? {
            Reply::Addresses(local, peer) => Ok((local, peer)),
            _ => Err(Errno::PROTO),
        }
    }

    /// SO_ERROR: what went wrong, taken from the node and from the kernel.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn take_error(&self) -> Result<Option<Errno>, Errno> {
        // The node first: what it is about to do to its end when it is asked, it has done when it answers.
        let node = self.error_of_node();
        let kernel = sockopt::socket_error(self.fd)?.err();
        // The node may have ended the connection since its answer. The kernel knows only that it has.
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

    /// ENETDOWN if the node has ended the socket: it was stopped, or has left the network that the socket is
    /// bound to.
    /// `None` as long as there may be something to wait for, and after the application's own shutdown(2).
    /// A program that asks for the same again and again is held up, see the module `pause`.
    pub fn end(&self) -> Option<Errno> {
        if !self.is_shut() || !self.is_down() {
            return None;
        }
        pause::before_error();
        Some(Errno::NETDOWN)
    }

    /// Whether nothing more comes but what is there: it was shut down, by the application or by the node.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn has_ended(&self) -> Result<bool, Errno> {
        Ok(self.events(PollFlags::RDHUP)?.intersects(PollFlags::RDHUP | PollFlags::HUP))
    }

    /// The same, where it cannot be asked for false.
    pub(crate) fn is_shut(&self) -> bool {
        self.has_ended().unwrap_or(false)
    }

    /// What an error means that the kernel reports of a stream. It knows only that the node has closed its end,
    /// which is so after a reset by the peer, after all other errors of the connection, such as ETIMEDOUT, and
    /// when the session ends (ENETDOWN).
    pub fn stream_error(&self, error: Errno) -> Errno {
        match error {
            _ if self.kind() != Kind::Stream => return error,
            // What AF_UNIX says of a socket that is not connected to who receives, and to who sends.
            Errno::INVAL if rustix::net::getpeername(self.fd).is_err() => return Errno::NOTCONN,
            Errno::NOTCONN if rustix::net::getpeername(self.fd).is_err() => return Errno::PIPE,
            Errno::CONNRESET | Errno::PIPE => {}
            _ => return error,
        }
        match self.ask(Request::Ending(self.which())) {
            Ok(Reply::Error(errno)) if errno != 0 => {
                let meant = Errno::from_raw_os_error(errno);
                if error == Errno::PIPE && meant != Errno::NETDOWN {
                    // It is told by this call, and SO_ERROR would tell it again, as a reset.
                    let _ = sockopt::socket_error(self.fd);
                }
                meant
            }
            Err(Errno::NETDOWN) => Errno::NETDOWN,
            _ => error,
        }
    }

    /// Whether the node that the socket belongs to is no more, or has left its network.
    pub fn is_down(&self) -> bool {
        matches!(self.ask(Request::Addresses(self.which())), Err(Errno::NETDOWN))
    }

    /// Asks what may be the first that the node hears of a socket. A descriptor of it goes along, by which
    /// the node hears of its closing.
    pub(crate) fn introduce(&self, request: Request) -> Result<Reply, Errno> {
        self.client().ask_with(request, Some(self.fd))
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Reply, Errno> {
        self.client().ask(request)
    }

    /// As where a structure is read for another family's address: IPv4's is shorter than IPv6's, and too
    /// short.
    pub(crate) fn check_structure(&self, address: SocketAddr) -> Result<(), Errno> {
        match self.check_family(address) {
            Err(_) if self.family() == Family::V6 => Err(Errno::INVAL),
            checked => checked,
        }
    }

    /// An address where this socket sends to: UDP sockets of IPv6 take IPv4 addresses for mapped ones.
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

/// Returns those of these events that the kernel tells of a descriptor now, and those that it tells unasked.
///
/// # Errors
/// Those of poll(2), but not EINTR: it fails with that where a signal is pending, however short it waits.
pub fn events_of(fd: BorrowedFd<'_>, wanted: PollFlags) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, wanted)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))?;
    Ok(fds[0].revents())
}

/// Gives the kernel's side of a descriptor a large buffer, for bulk data.
pub fn enlarge(fd: BorrowedFd<'_>) {
    // What the system does not allow it clips.
    let _ = sockopt::set_socket_send_buffer_size(fd, BUFFER);
}
