//! An application's connections to its node's request socket.

use std::io::{Cursor, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::process::Pid;

use crate::borrowed_memory::is_borrowed;
use crate::encoding::{Encoded, SHORT, decode};
use crate::high_fd::high_copy;
use crate::known_clients::KnownClients;
use crate::known_sizes::KnownSizes;
use crate::name::{MAX_NAME, Name, NodeTag, Remote, SocketId};
use crate::proof::{NameKey, Token, admission_proof, is_admission_proof, is_proof};
use crate::requests::{Interface, MAX_MESSAGE, Message, Reply, Request, VERSION, Which};
use crate::sys::{Credentials, Identity, identity, peer_credentials};

/// How long a node has to prove that it is the node.
const PROOF: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Connections that are kept for what is asked next: threads that ask at the same time have one each.
const MOST_IDLE: usize = 8;

/// The clients that there are.
static KNOWN: KnownClients = KnownClients::new();

/// A node as its applications see it.
///
/// It may be used by any thread, and in a forked child: connections of the parent are not used there.
#[derive(Debug)]
pub struct Client {
    tag: NodeTag,
    token: Token,
    /// The process and the user of the node, as [`pack`] has them; 0 until it was asked something.
    node: AtomicU64,
    /// The halves of the node's [`NameKey`], if it is there.
    name_key: [AtomicU64; 2],
    has_name_key: AtomicBool,
    idle: Mutex<Vec<Connection>>,
    known_sizes: Mutex<KnownSizes>,
}

/// A connection to the request socket, and whose it is.
#[derive(Debug)]
struct Connection {
    fd: Option<OwnedFd>,
    process: Pid,
    identity: Identity,
}

impl Client {
    /// The client of a node, with the token that the node gave to this process.
    pub fn new(tag: NodeTag, token: Token) -> Arc<Self> {
        KNOWN.get_or_add(|known| known.tag == tag && known.token == token, || Self::unused(tag, token))
    }

    /// The client of the node that the environment variable `PEERSOCK_NODE` names by this text; `None` if it
    /// names none.
    ///
    /// ```
    /// use peersock_fd::{Client, NodeTag};
    ///
    /// let client = Client::of_variable("0000002a:00000000000000000000000000000007");
    /// let client = client.expect("a tag and a token");
    /// assert_eq!(client.tag(), NodeTag(42));
    /// assert!(Client::of_variable("").is_none());
    /// ```
    pub fn of_variable(text: &str) -> Option<Arc<Self>> {
        let (tag, token) = text.split_once(':')?;
        let tag = NodeTag(u32::from_str_radix(tag, 16).ok()?);
        Some(Self::new(tag, Token(u128::from_str_radix(token, 16).ok()?)))
    }

    /// The client of the node that a socket belongs to.
    pub fn of(tag: NodeTag) -> Arc<Self> {
        KNOWN.get_or_add(|known| known.tag == tag, || Self::unused(tag, Token::NONE))
    }

    fn unused(tag: NodeTag, token: Token) -> Self {
        // The memory is this process's unless it was looked at before.
        is_borrowed();
        // It does not grow: a signal handler may have interrupted malloc(3).
        let (idle, known_sizes) = (Mutex::new(Vec::with_capacity(MOST_IDLE)), Mutex::default());
        let (name_key, has_name_key) = (Default::default(), AtomicBool::new(false));
        Self { tag, token, node: AtomicU64::new(0), name_key, has_name_key, idle, known_sizes }
    }

    /// The node that it is about.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// What a program that has the token says to its launcher about a number, see [`admission_proof`].
    pub fn prove(&self, challenge: u128) -> u128 {
        admission_proof(self.token, challenge)
    }

    /// Whether somebody has said what [`prove`](Self::prove) gives, in a time that does not depend on how
    /// much of it is right.
    pub fn is_proven(&self, challenge: u128, answer: u128) -> bool {
        is_admission_proof(self.token, challenge, answer)
    }

    /// Asks the node and waits for its reply.
    ///
    /// It is not interrupted: everything is answered at once but what `ask_waiting` asks.
    ///
    /// # Errors
    /// ENETDOWN if there is no such node any more, and what the node answers.
    pub fn ask(&self, request: Request) -> Result<Reply, Errno> {
        self.ask_with(request, None)
    }

    /// Asks the node, with a descriptor that goes along, and waits for its reply.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_with(&self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply, Errno> {
        let is_short = request.has_short_reply();
        let connection = self.send(request, fd)?;
        let reply = if is_short { connection.short_reply(false) } else { connection.reply() }?;
        self.put_back(connection);
        reply
    }

    /// Asks the node what may take long. A signal handler that runs meanwhile ends the wait, and not the
    /// question: there is one reply in any case, of which both sides know. True if there was a signal.
    ///
    /// # Errors
    /// ENETDOWN if there is no such node any more; within, what the node answers.
    pub(crate) fn ask_waiting(&self, request: Request) -> Result<(Result<Reply, Errno>, bool), Errno> {
        let connection = self.send(request, None)?;
        let (reply, is_interrupted) = match connection.short_reply(true) {
            Err(Errno::INTR) => {
                connection.send(&self.message(Request::StopWaiting))?;
                (connection.short_reply(false)?, true)
            }
            reply => (reply?, false),
        };
        self.put_back(connection);
        Ok((reply, is_interrupted))
    }

    /// The node's networks as interfaces; none if there is no such node any more.
    pub fn interfaces(&self) -> Vec<Interface> {
        match self.ask(Request::Interfaces) {
            Ok(Reply::Interfaces(interfaces)) => interfaces,
            _ => Vec::new(),
        }
    }

    /// Whether the node has joined the network with this ID with a secret. `None` if it has not joined it, or
    /// if there is no such node any more.
    pub fn has_secret(&self, network: u64) -> Option<bool> {
        match self.ask(Request::HasSecret(network)) {
            Ok(Reply::HasSecret(has_secret)) => has_secret,
            _ => None,
        }
    }

    /// Closes a socket by `close`, and waits up to `time` until what was written to it is acknowledged:
    /// SO_LINGER.
    ///
    /// # Errors
    /// The socket is closed all the same: those of connections if not everything was delivered, ETIMEDOUT if
    /// the time was over before, which the node goes on after; EINTR if a signal handler ran meanwhile;
    /// ENETDOWN.
    pub fn close_lingering<T>(
        &self,
        which: Which,
        time: Duration,
        close: impl FnOnce() -> T,
    ) -> (T, Result<(), Errno>) {
        let held = self.send(Request::Hold(which), None);
        let held = held.and_then(|connection| connection.short_reply(false)?.map(|_| connection));
        let closed = close();
        let delivered = held.and_then(|connection| {
            let message = self.message(Request::Linger(which, time));
            connection.send(&message)?;
            let reply = connection.short_reply(true)?;
            self.put_back(connection);
            reply.map(drop)
        });
        (closed, delivered)
    }

    /// Tells the node something that has no reply, perhaps with a descriptor.
    ///
    /// # Errors
    /// ENETDOWN if there is no such node any more.
    pub fn tell(&self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let connection = self.send(request, fd)?;
        self.put_back(connection);
        Ok(())
    }

    /// Whether the process at the other end of a connected socket is the node.
    pub fn is_node(&self, fd: BorrowedFd<'_>) -> bool {
        peer_credentials(fd).is_ok_and(|credentials| self.is_by_node(credentials))
    }

    /// Whether somebody, as the kernel names him here, is the node. A process of another PID namespace has the
    /// number 0, as all others there; then at least the user is the same.
    pub(crate) fn is_by_node(&self, credentials: Credentials) -> bool {
        if self.node.load(Ordering::Relaxed) == 0 {
            match self.connect() {
                Ok(connection) => self.put_back(connection),
                Err(_) => return false,
            }
        }
        pack(credentials) == self.node.load(Ordering::Relaxed)
    }

    /// Whether a datagram comes from the node's end that has this name. Where the sender's process cannot be
    /// seen, the name must be one that only the node and its applications know.
    pub(crate) fn is_end(&self, sender: Credentials, name: &Remote) -> bool {
        self.is_by_node(sender) && (sender.pid != 0 || self.name_key().is_ok_and(|key| key.has_sealed(name)))
    }

    /// The key of the names of the node's ends of datagram sockets.
    pub(crate) fn name_key(&self) -> Result<NameKey, Errno> {
        let [high, low] = &self.name_key;
        if !self.has_name_key.load(Ordering::Acquire) {
            let Reply::NameKey(NameKey(key)) = self.ask(Request::NameKey)? else { return Err(Errno::PROTO) };
            // Threads that do this at the same time store the same.
            high.store((key >> 64) as u64, Ordering::Relaxed);
            low.store(key as u64, Ordering::Relaxed);
            self.has_name_key.store(true, Ordering::Release);
        }
        Ok(NameKey(u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed))))
    }

    /// Whether the node has lately let a datagram pass that was at least as long. As above, a forked child
    /// may not know.
    pub(crate) fn has_passed(&self, to: (SocketId, SocketAddr), length: usize) -> bool {
        self.known_sizes.try_lock().is_ok_and(|sizes| sizes.contains(Instant::now(), to, length))
    }

    pub(crate) fn note_passed(&self, to: (SocketId, SocketAddr), length: usize) {
        if let Ok(mut sizes) = self.known_sizes.try_lock() {
            sizes.note(Instant::now(), to, length);
        }
    }

    pub(crate) fn forget_passed(&self) {
        if let Ok(mut sizes) = self.known_sizes.try_lock() {
            sizes.clear();
        }
    }

    fn send(&self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<Connection, Errno> {
        let message = self.message(request);
        let mut connection = self.connection()?;
        let (mut is_new, mut has_shown) = (false, false);
        loop {
            match retry_on_intr(|| send_with(connection.fd(), message.bytes(), fd, SendFlags::empty())) {
                Ok(()) => return Ok(connection),
                // The node takes no descriptors from those who have not shown that they may ask.
                Err(Errno::PERM) if fd.is_some() && !has_shown => {
                    self.show_token(&connection)?;
                    has_shown = true;
                }
                // The node has closed it; there may be another process by the same name.
                Err(Errno::PIPE | Errno::CONNRESET) if !is_new => {
                    connection = self.connect()?;
                    (is_new, has_shown) = (true, false);
                }
                Err(_) => return Err(Errno::NETDOWN),
            }
        }
    }

    /// Shows the node the token, on a connection to it that has asked nothing yet.
    fn show_token(&self, connection: &Connection) -> Result<(), Errno> {
        connection.send(&self.message(Request::Prove(0)))?;
        connection.short_reply(false)?.map(drop)
    }

    fn message(&self, request: Request) -> Encoded {
        Encoded::new(&Message { version: VERSION, token: self.token, request })
    }

    /// A connection that is idle, or a new one.
    fn connection(&self) -> Result<Connection, Errno> {
        let inherited = match self.idle() {
            Some(connection) if connection.is_usable() => return Ok(connection),
            inherited => inherited,
        };
        match (self.connect(), inherited) {
            // The node's name is not known in other network namespaces, which forked children enter that are
            // to reach nothing but what they were given.
            (Err(Errno::NETDOWN), Some(inherited)) => self.connect_through(&inherited),
            (connected, _) => connected,
        }
    }

    /// A connection of this process, or else one that it has from its parent, if there is one.
    fn idle(&self) -> Option<Connection> {
        // A child of vfork(2) has copies of its parent's descriptors: closing them here would have the parent
        // forget that it has them.
        if is_borrowed() {
            return None;
        }
        let mut idle = self.idle.try_lock().ok()?;
        let mut inherited = None;
        while let Some(connection) = idle.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
            if connection.is_own() {
                inherited = Some(connection);
            }
        }
        inherited
    }

    fn put_back(&self, connection: Connection) {
        // Nor has the parent what such a child opens.
        if is_borrowed() {
            return;
        }
        // A child that was forked while another thread held the lock opens a connection for each request.
        if let Ok(mut idle) = self.idle.try_lock()
            && idle.len() < MOST_IDLE
        {
            idle.push(connection);
        }
    }

    fn connect(&self) -> Result<Connection, Errno> {
        let fd =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // A program that has closed its standard streams, and may have few descriptors, must not find it there.
        let high = high_copy(fd.as_fd()).unwrap_or(fd);
        let node = address(&Name::Requests(self.tag));
        // Where the node's backlog is full it waits.
        retry_on_intr(|| rustix::net::connect(&high, &node)).map_err(|_| Errno::NETDOWN)?;
        let credentials = peer_credentials(high.as_fd())?;
        let (process, identity) = (rustix::process::getpid(), identity(high.as_fd())?);
        let connection = Connection { fd: Some(high), process, identity };
        self.check_node(&connection, credentials)?;
        if self.node.swap(pack(credentials), Ordering::Relaxed) != pack(credentials) {
            // Perhaps another node has the tag now.
            self.has_name_key.store(false, Ordering::Relaxed);
        }
        Ok(connection)
    }

    /// Has the node take one end of a new connection, by a connection of this process's parent. Nothing is
    /// answered on that: the parent may read there.
    fn connect_through(&self, inherited: &Connection) -> Result<Connection, Errno> {
        let (family, kind, flags) = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (own, theirs) = rustix::net::socketpair(family, kind, flags, None)?;
        let high = high_copy(own.as_fd()).unwrap_or(own);
        let message = self.message(Request::Adopt);
        send_with(inherited.fd(), message.bytes(), Some(theirs.as_fd()), SendFlags::empty())
            .map_err(|_| Errno::NETDOWN)?;
        drop(theirs);
        // As this process sees the node: it may be in another PID namespace than its parent.
        let credentials = peer_credentials(inherited.fd())?;
        let (process, identity) = (rustix::process::getpid(), identity(high.as_fd())?);
        let connection = Connection { fd: Some(high), process, identity };
        self.check_node(&connection, credentials)?;
        self.node.store(pack(credentials), Ordering::Relaxed);
        Ok(connection)
    }

    /// Makes sure that the node has answered, and nobody who took its name when it died.
    fn check_node(&self, connection: &Connection, credentials: Credentials) -> Result<(), Errno> {
        if self.token == Token::NONE {
            // Without a token only whose it is can be seen: the node trusts the same ones.
            let own = rustix::process::geteuid().as_raw();
            return if [0, own].contains(&credentials.uid) { Ok(()) } else { Err(Errno::NETDOWN) };
        }
        let mut challenge = [0; 16];
        getrandom::fill(&mut challenge).map_err(|_| Errno::IO)?;
        let challenge = u128::from_ne_bytes(challenge);
        let request = Request::Prove(challenge);
        connection.send(&Encoded::new(&Message { version: VERSION, token: Token::NONE, request }))?;
        let mut fds = [PollFd::from_borrowed_fd(connection.fd(), PollFlags::IN)];
        retry_on_intr(|| rustix::event::poll(&mut fds, Some(&PROOF)))?;
        if fds[0].revents().is_empty() {
            return Err(Errno::NETDOWN);
        }
        match connection.short_reply(false)? {
            Ok(Reply::Proof(answer)) if is_proof(self.token, challenge, answer) => Ok(()),
            _ => Err(Errno::NETDOWN),
        }
    }
}

impl Connection {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is taken only where the connection is dropped").as_fd()
    }

    /// Sends what needs no descriptor.
    ///
    /// # Errors
    /// ENETDOWN.
    fn send(&self, message: &Encoded) -> Result<(), Errno> {
        let send = || send_with(self.fd(), message.bytes(), None, SendFlags::empty());
        retry_on_intr(send).map_err(|_| Errno::NETDOWN)
    }

    /// Waits for the reply to what was sent.
    ///
    /// After an error it may still come: the connection must not be used again.
    ///
    /// # Errors
    /// Those of recv(2), and ENETDOWN. Within, what the node answers.
    fn reply(&self) -> Result<Result<Reply, Errno>, Errno> {
        let mut reply = Vec::with_capacity(MAX_MESSAGE);
        self.receive(false, || rustix::net::recv(self.fd(), spare_capacity(&mut reply), RecvFlags::empty()))?;
        meaning(&reply)
    }

    /// The same of one that takes no memory from the heap, see [`Request::has_short_reply`].
    ///
    /// # Errors
    /// As [`reply`](Self::reply), and EINTR if it `waits` for something that may take long.
    fn short_reply(&self, waits: bool) -> Result<Result<Reply, Errno>, Errno> {
        let mut reply = [0; SHORT];
        let length =
            self.receive(waits, || rustix::net::recv(self.fd(), &mut reply[..], RecvFlags::empty()))?;
        meaning(reply.get(..length.0).unwrap_or_default())
    }

    fn receive<T>(&self, waits: bool, mut receive: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            match receive() {
                Err(Errno::INTR) if !waits => {}
                // The node has gone away without reading the request.
                Err(Errno::CONNRESET) => return Err(Errno::NETDOWN),
                received => return received,
            }
        }
    }

    /// Whether it is still what it was: programs close descriptors that they do not know, and children have
    /// their parents'.
    fn is_usable(&self) -> bool {
        self.is_own() && self.process == rustix::process::getpid()
    }

    /// Whether the number is not somebody else's by now.
    fn is_own(&self) -> bool {
        self.fd.as_ref().is_some_and(|fd| identity(fd.as_fd()) == Ok(self.identity))
    }
}

/// What the node answers by these bytes.
fn meaning(reply: &[u8]) -> Result<Result<Reply, Errno>, Errno> {
    Ok(match decode(reply).ok_or(Errno::NETDOWN)? {
        Reply::Failed(errno) => Err(Errno::from_raw_os_error(errno)),
        reply => Ok(reply),
    })
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_own() {
            std::mem::forget(self.fd.take());
        }
    }
}

/// A process and its user in one number, which is not 0: a process that cannot be seen from here has the
/// number 0, and its user may be root.
fn pack(credentials: Credentials) -> u64 {
    const KNOWN: u64 = 1 << 63;
    KNOWN | u64::from(credentials.pid.unsigned_abs()) << 32 | u64::from(credentials.uid)
}

/// Sends one packet, with a descriptor if there is one; never raises SIGPIPE.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_with(
    socket: BorrowedFd<'_>,
    data: &[u8],
    fd: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(data)], &mut ancillary, flags | SendFlags::NOSIGNAL).map(drop)
}

/// The abstract address of a name.
pub fn address(name: &Name) -> SocketAddrUnix {
    // Not on the heap: a signal handler may have interrupted malloc(3).
    let mut text = Cursor::new([0; MAX_NAME]);
    let address = write!(text, "{name}").map(|()| {
        let length = text.position() as usize;
        SocketAddrUnix::new_abstract_name(&text.get_ref()[..length])
    });
    address.ok().and_then(Result::ok).expect("names fit, as the tests of them show")
}

/// Receives what [`send_with`] has sent, without waiting.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut ancillary, flags)?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((received.bytes, fd))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    impl Client {
        pub(crate) fn token(&self) -> Token {
            self.token
        }
    }

    #[test]
    fn a_number_that_the_program_has_given_to_another_file_is_not_closed() {
        let (own, _other_end) = std::io::pipe().expect("a pipe");
        let other = std::fs::File::open("/proc/self/exe").expect("the test itself");
        let (process, identity) = (rustix::process::getpid(), identity(own.as_fd()).expect("it is open"));
        let number = own.as_raw_fd();
        let mut connection = Connection { fd: Some(own.into()), process, identity };
        assert!(connection.is_usable());
        // As a program does that has closed all descriptors, and opens its own.
        rustix::io::dup2(&other, connection.fd.as_mut().expect("it is there")).expect("the number is open");
        assert!(!connection.is_usable());
        drop(connection);
        let file = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
        assert_eq!(file(number), file(other.as_raw_fd()), "another's file was closed");
    }
}
