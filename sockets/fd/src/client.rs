//! An application's connections to its node's request socket.

use std::io::{Cursor, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::IpAddr;
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
    SocketFlags, SocketType, sockopt,
};
use rustix::process::Pid;

use crate::borrowed_memory::is_borrowed;
use crate::encoding::{Encoded, INLINE_BYTES, decode};
use crate::high_fd::high_copy;
use crate::known_clients::KnownClients;
use crate::known_sizes::KnownSizes;
use crate::name::{MAX_NAME, Name, NodeTag, Remote, SocketId};
use crate::proof::{NameKey, Token, admission_proof, is_admission_proof, is_proof};
use crate::requests::{Interface, MAX_MESSAGE, Message, Reply, Request, VERSION, Which};
use crate::sys::{Credentials, Identity, identity, peer_credentials};

/// Time for a node to prove its identity.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a node to accept a request, and to reply if the request does not wait for a peer. It counts as
/// ended afterwards. A busy node needs milliseconds, so it was stopped or hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval of the checks for a reply. A pause of this process counts as one interval, because the node may
/// have paused with it.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_TIMESPEC: Timespec = Timespec { tv_sec: CHECK_INTERVAL.as_secs() as i64, tv_nsec: 0 };

/// Maximum number of idle connections kept for later requests. Threads with concurrent requests have one
/// each.
const MAX_IDLE_CONNECTIONS: usize = 8;

/// All clients of this process.
static KNOWN: KnownClients = KnownClients::new();

/// A node as its applications see it.
///
/// Any thread may use it, and so may a forked child, which does not use connections of the parent.
#[derive(Debug)]
pub struct Client {
    tag: NodeTag,
    token: Token,
    /// The process and the user of the node in the form of [`pack`]; 0 until the first request.
    node: AtomicU64,
    /// The halves of the node's [`NameKey`], once it is known.
    name_key: [AtomicU64; 2],
    has_name_key: AtomicBool,
    idle: Mutex<Vec<Connection>>,
    known_sizes: Mutex<KnownSizes>,
}

/// A connection of an application that the node keeps, see [`Client::hold`].
#[derive(Debug)]
pub struct Held {
    connection: Connection,
    which: Which,
}

/// A connection to the request socket, with its owner.
#[derive(Debug)]
struct Connection {
    fd: Option<OwnedFd>,
    process: Pid,
    identity: Identity,
}

/// Longest wait for a name that controllers are asked about, and the interval of the questions to the node.
const SEARCH: Duration = Duration::from_secs(1);
const SEARCH_POLL: Duration = Duration::from_millis(10);

impl Client {
    /// Returns the client of a node, with the token that the node gave to this process.
    pub fn new(tag: NodeTag, token: Token) -> Arc<Self> {
        KNOWN.get_or_add(|known| known.tag == tag && known.token == token, || Self::unused(tag, token))
    }

    /// Returns the client of the node that this value of the environment variable `PEERSOCK_NODE` names, or
    /// `None` if it names none.
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

    /// Returns the client of the node that a socket belongs to.
    pub fn of(tag: NodeTag) -> Arc<Self> {
        KNOWN.get_or_add(|known| known.tag == tag, || Self::unused(tag, Token::NONE))
    }

    fn unused(tag: NodeTag, token: Token) -> Self {
        // Claim the memory for this process, unless it was checked before.
        is_borrowed();
        // Reserve the capacity now, because a signal handler that has interrupted malloc(3) must not grow it.
        let (idle, known_sizes) = (Mutex::new(Vec::with_capacity(MAX_IDLE_CONNECTIONS)), Mutex::default());
        let (name_key, has_name_key) = (Default::default(), AtomicBool::new(false));
        Self { tag, token, node: AtomicU64::new(0), name_key, has_name_key, idle, known_sizes }
    }

    /// Returns the node's tag.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// Returns the proof for `challenge` by which a program shows its launcher that it has the token, see
    /// [`admission_proof`].
    pub fn prove(&self, challenge: u128) -> u128 {
        admission_proof(self.token, challenge)
    }

    /// Returns true if `answer` is the value of [`prove`](Self::prove). Compares in constant time.
    pub fn is_proven(&self, challenge: u128, answer: u128) -> bool {
        is_admission_proof(self.token, challenge, answer)
    }

    /// Sends a request to the node and waits for its reply.
    ///
    /// Signals do not interrupt it, because the node answers at once, except for requests of `ask_waiting`.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended, or has not answered for 30 seconds, and the errors of its reply.
    pub fn ask(&self, request: Request) -> Result<Reply, Errno> {
        self.ask_with(request, None)
    }

    /// Returns the addresses of the members with a name; none if no member has it, and the name may be
    /// another host's. Waits up to a second for the controllers of managed networks.
    ///
    /// # Errors
    /// ENOENT if no member has the name, which ends with a network's, such as `alpha.team`: no other host has
    /// it. EAGAIN if no controller has said who has such a name. And those of [`ask`](Self::ask).
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Errno> {
        let begun = Instant::now();
        loop {
            match self.ask(Request::Resolve(name.to_owned()))? {
                Reply::Resolved(found) => return Ok(found),
                Reply::Searching { .. } if begun.elapsed() < SEARCH => std::thread::sleep(SEARCH_POLL),
                Reply::Searching { is_of_network: false } => return Ok(Vec::new()),
                Reply::Searching { is_of_network: true } => return Err(Errno::AGAIN),
                Reply::Absent => return Err(Errno::NOENT),
                _ => return Err(Errno::PROTO),
            }
        }
    }

    /// Sends a request to the node together with a descriptor, and waits for its reply.
    ///
    /// # Errors
    /// Like [`ask`](Self::ask).
    pub fn ask_with(&self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply, Errno> {
        self.ask_within(ANSWER_TIMEOUT, request, fd)
    }

    fn ask_within(
        &self,
        time: Duration,
        request: Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, Errno> {
        let is_short = request.has_short_reply();
        let connection = self.send(request, fd)?;
        connection.await_reply(time)?;
        let reply = if is_short { connection.short_reply(false) } else { connection.reply() }?;
        self.put_back(connection);
        reply
    }

    /// Sends a request whose reply may take long. A signal handler that runs meanwhile ends the wait but not
    /// the request: there is one reply in any case, which both sides know. Returns true if there was a
    /// signal. With a time limit (SO_SNDTIMEO), handlers end the wait even if they restart calls: signal(7).
    ///
    /// # Errors
    /// ENETDOWN if the node has ended; the inner error is the node's reply.
    pub(crate) fn ask_waiting(
        &self,
        request: Request,
        has_limit: bool,
    ) -> Result<(Result<Reply, Errno>, bool), Errno> {
        let connection = self.send(request, None)?;
        let mut fds = [PollFd::from_borrowed_fd(connection.fd(), PollFlags::IN)];
        // The kernel never restarts poll(2).
        let waited = if has_limit { rustix::event::poll(&mut fds, None).map(drop) } else { Ok(()) };
        let (reply, is_interrupted) = match waited.and_then(|()| connection.short_reply(true)) {
            Err(Errno::INTR) => {
                connection.send(&self.message(Request::StopWaiting))?;
                (connection.quick_reply()?, true)
            }
            reply => (reply?, false),
        };
        self.put_back(connection);
        Ok((reply, is_interrupted))
    }

    /// Returns the node's networks as interfaces; none if the node has ended.
    pub fn interfaces(&self) -> Vec<Interface> {
        match self.ask(Request::Interfaces) {
            Ok(Reply::Interfaces(interfaces)) => interfaces,
            _ => Vec::new(),
        }
    }

    /// Returns true if the node has joined the network with this ID with a secret. Returns `None` if it has
    /// not joined it, or if the node has ended.
    pub fn has_secret(&self, network: u64) -> Option<bool> {
        match self.ask(Request::HasSecret(network)) {
            Ok(Reply::HasSecret(has_secret)) => has_secret,
            _ => None,
        }
    }

    /// Closes a socket with `close`, and waits up to `time` until everything written to it is acknowledged
    /// (SO_LINGER).
    ///
    /// # Errors
    /// The socket is closed even then. Returns the connection's error if not everything was delivered.
    /// Returns ETIMEDOUT if the time was over first (the node continues), EINTR if a signal handler ran
    /// meanwhile, and ENETDOWN.
    pub fn close_lingering<T>(
        &self,
        which: Which,
        time: Duration,
        close: impl FnOnce() -> T,
    ) -> (T, Result<(), Errno>) {
        let held = self.hold(which);
        let closed = close();
        (closed, held.and_then(|held| self.linger(held, time, true)))
    }

    /// Makes the node keep a connection for [`linger`](Self::linger), which its end does not outlive
    /// otherwise.
    ///
    /// # Errors
    /// ENETDOWN.
    pub fn hold(&self, which: Which) -> Result<Held, Errno> {
        let connection = self.send(Request::Hold(which), None)?;
        connection.quick_reply()??;
        Ok(Held { connection, which })
    }

    /// Waits up to `time` until everything written to a held connection, which was closed or has ended in
    /// both directions, is acknowledged. A signal handler ends the wait if `is_interrupted`.
    ///
    /// # Errors
    /// As of [`close_lingering`](Self::close_lingering).
    pub fn linger(&self, held: Held, time: Duration, is_interrupted: bool) -> Result<(), Errno> {
        let Held { connection, which } = held;
        connection.send(&self.message(Request::Linger(which, time)))?;
        let reply = connection.short_reply(is_interrupted)?;
        self.put_back(connection);
        reply.map(drop)
    }

    /// Sends the node a request without a reply, optionally with a descriptor.
    ///
    /// # Errors
    /// ENETDOWN if the node has ended.
    pub fn tell(&self, request: Request, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let connection = self.send(request, fd)?;
        self.put_back(connection);
        Ok(())
    }

    /// Returns true if the process at the other end of a connected socket is the node.
    pub fn is_node(&self, fd: BorrowedFd<'_>) -> bool {
        peer_credentials(fd).is_ok_and(|credentials| self.is_by_node(credentials))
    }

    /// Returns true if these credentials, as the kernel shows them here, are the node's. A process of another
    /// PID namespace has the ID 0, like all processes there; then at least the user is compared.
    pub(crate) fn is_by_node(&self, credentials: Credentials) -> bool {
        if self.node.load(Ordering::Relaxed) == 0 {
            match self.connect() {
                Ok(connection) => self.put_back(connection),
                Err(_) => return false,
            }
        }
        pack(credentials) == self.node.load(Ordering::Relaxed)
    }

    /// Returns true if a datagram comes from the node's end that has this name. If the sender's process is
    /// invisible, the name must be one that only the node and its applications know.
    pub(crate) fn is_end(&self, sender: Credentials, name: &Remote) -> bool {
        self.is_by_node(sender) && (sender.pid != 0 || self.name_key().is_ok_and(|key| key.has_sealed(name)))
    }

    /// Returns the key of the names of the node's ends of datagram sockets.
    pub(crate) fn name_key(&self) -> Result<NameKey, Errno> {
        let [high, low] = &self.name_key;
        if !self.has_name_key.load(Ordering::Acquire) {
            let Reply::NameKey(NameKey(key)) = self.ask(Request::NameKey)? else { return Err(Errno::PROTO) };
            // Concurrent threads store the same value.
            high.store((key >> 64) as u64, Ordering::Relaxed);
            low.store(key as u64, Ordering::Relaxed);
            self.has_name_key.store(true, Ordering::Release);
        }
        Ok(NameKey(u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed))))
    }

    /// Returns true if the node has recently accepted a datagram that was at least as long. As above, a
    /// forked child may not know.
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
                // The node refuses descriptors from clients that have not shown their authorization.
                Err(Errno::PERM) if fd.is_some() && !has_shown => {
                    self.show_token(&connection)?;
                    has_shown = true;
                }
                // The node has closed the connection; another process may have its name now.
                Err(Errno::PIPE | Errno::CONNRESET) if !is_new => {
                    connection = self.connect()?;
                    (is_new, has_shown) = (true, false);
                }
                Err(_) => return Err(Errno::NETDOWN),
            }
        }
    }

    /// Shows the node the token, on a connection that has sent no request yet.
    fn show_token(&self, connection: &Connection) -> Result<(), Errno> {
        connection.send(&self.message(Request::Prove(0)))?;
        connection.quick_reply()?.map(drop)
    }

    fn message(&self, request: Request) -> Encoded {
        Encoded::new(&Message { version: VERSION, token: self.token, request })
    }

    /// Connects to the node if this process has no connection yet, so that later requests need no further
    /// descriptor. An error shows at the first request.
    pub(crate) fn prepare(&self) {
        if !is_borrowed()
            && self.idle.try_lock().is_ok_and(|idle| !idle.iter().any(Connection::is_usable))
            && let Ok(connection) = self.connection()
        {
            self.put_back(connection);
        }
    }

    /// Returns an idle connection, or a new one.
    fn connection(&self) -> Result<Connection, Errno> {
        let inherited = match self.idle() {
            Some(connection) if connection.is_usable() => return Ok(connection),
            inherited => inherited,
        };
        match (self.connect(), inherited) {
            // The node's name is unknown in other network namespaces. Forked children enter such namespaces
            // to be confined to the descriptors they were given.
            (Err(Errno::NETDOWN), Some(inherited)) => self.connect_through(&inherited),
            (connected, _) => connected,
        }
    }

    /// Returns an idle connection of this process, otherwise one inherited from its parent, if there is one.
    fn idle(&self) -> Option<Connection> {
        // A child of vfork(2) has copies of its parent's descriptors. Closing them here would make the parent
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
        // Likewise the parent does not have descriptors that such a child opens.
        if is_borrowed() {
            return;
        }
        // A child that was forked while another thread held the lock opens a connection for each request.
        if let Ok(mut idle) = self.idle.try_lock()
            && idle.len() < MAX_IDLE_CONNECTIONS
        {
            idle.push(connection);
        }
    }

    fn connect(&self) -> Result<Connection, Errno> {
        let fd =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Use a high number, because a program that has closed its standard streams, or expects low numbers,
        // must not find it there.
        let high = high_copy(fd.as_fd()).unwrap_or(fd);
        limit_sending(high.as_fd())?;
        let node = address(&Name::Requests(self.tag));
        // This blocks while the node's backlog is full.
        retry_on_intr(|| rustix::net::connect(&high, &node)).map_err(|_| Errno::NETDOWN)?;
        let credentials = peer_credentials(high.as_fd())?;
        let (process, identity) = (rustix::process::getpid(), identity(high.as_fd())?);
        let connection = Connection { fd: Some(high), process, identity };
        self.check_node(&connection, credentials)?;
        if self.node.swap(pack(credentials), Ordering::Relaxed) != pack(credentials) {
            // Another node may have the tag now.
            self.has_name_key.store(false, Ordering::Relaxed);
        }
        Ok(connection)
    }

    /// Gives the node one end of a new connection, through a connection of this process's parent. The node
    /// sends no reply on that, because the parent may read there.
    fn connect_through(&self, inherited: &Connection) -> Result<Connection, Errno> {
        let (family, kind, flags) = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (own, theirs) = rustix::net::socketpair(family, kind, flags, None)?;
        let high = high_copy(own.as_fd()).unwrap_or(own);
        limit_sending(high.as_fd())?;
        let message = self.message(Request::Adopt);
        send_with(inherited.fd(), message.bytes(), Some(theirs.as_fd()), SendFlags::empty())
            .map_err(|_| Errno::NETDOWN)?;
        drop(theirs);
        // Read the credentials as this process sees them, because it may be in another PID namespace than its
        // parent.
        let credentials = peer_credentials(inherited.fd())?;
        let (process, identity) = (rustix::process::getpid(), identity(high.as_fd())?);
        let connection = Connection { fd: Some(high), process, identity };
        self.check_node(&connection, credentials)?;
        self.node.store(pack(credentials), Ordering::Relaxed);
        Ok(connection)
    }

    /// Checks that the node has answered, and not a process that took its name when it died.
    fn check_node(&self, connection: &Connection, credentials: Credentials) -> Result<(), Errno> {
        if self.token == Token::NONE {
            // Without a token only the owner can be checked: the node trusts the same users.
            let own = rustix::process::geteuid().as_raw();
            return if [0, own].contains(&credentials.uid) { Ok(()) } else { Err(Errno::NETDOWN) };
        }
        let mut challenge = [0; 16];
        getrandom::fill(&mut challenge).map_err(|_| Errno::IO)?;
        let challenge = u128::from_ne_bytes(challenge);
        let request = Request::Prove(challenge);
        connection.send(&Encoded::new(&Message { version: VERSION, token: Token::NONE, request }))?;
        connection.await_reply(PROOF_TIMEOUT)?;
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

    /// Sends a message without a descriptor.
    ///
    /// # Errors
    /// ENETDOWN.
    fn send(&self, message: &Encoded) -> Result<(), Errno> {
        let send = || send_with(self.fd(), message.bytes(), None, SendFlags::empty());
        retry_on_intr(send).map_err(|_| Errno::NETDOWN)
    }

    /// Waits until there is a reply to the last request, or the end of the connection.
    ///
    /// # Errors
    /// ENETDOWN after `time`.
    fn await_reply(&self, time: Duration) -> Result<(), Errno> {
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
        let mut waited = Duration::ZERO;
        while waited < time {
            let begin = Instant::now();
            match rustix::event::poll(&mut fds, Some(&CHECK_TIMESPEC)) {
                Ok(0) | Err(Errno::INTR) => waited += begin.elapsed().min(CHECK_INTERVAL),
                ready => return ready.map(drop),
            }
        }
        Err(Errno::NETDOWN)
    }

    /// Waits for the short reply to a request that the node answers at once.
    ///
    /// # Errors
    /// Like [`reply`](Self::reply).
    fn quick_reply(&self) -> Result<Result<Reply, Errno>, Errno> {
        self.await_reply(ANSWER_TIMEOUT)?;
        self.short_reply(false)
    }

    /// Waits for the reply to the last request.
    ///
    /// After an error the reply may still come, so the connection must not be used again.
    ///
    /// # Errors
    /// Errors of recv(2), and ENETDOWN. The inner error is the node's reply.
    fn reply(&self) -> Result<Result<Reply, Errno>, Errno> {
        let mut reply = Vec::with_capacity(MAX_MESSAGE);
        self.receive(false, || rustix::net::recv(self.fd(), spare_capacity(&mut reply), RecvFlags::empty()))?;
        meaning(&reply)
    }

    /// Does the same for a reply that needs no heap memory, see [`Request::has_short_reply`].
    ///
    /// # Errors
    /// Like [`reply`](Self::reply), and EINTR if `waits` is true, for requests that may take long.
    fn short_reply(&self, waits: bool) -> Result<Result<Reply, Errno>, Errno> {
        let mut reply = [0; INLINE_BYTES];
        let length =
            self.receive(waits, || rustix::net::recv(self.fd(), &mut reply[..], RecvFlags::empty()))?;
        meaning(reply.get(..length.0).unwrap_or_default())
    }

    fn receive<T>(&self, waits: bool, mut receive: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            match receive() {
                Err(Errno::INTR) if !waits => {}
                // The node has gone without reading the request.
                Err(Errno::CONNRESET) => return Err(Errno::NETDOWN),
                received => return received,
            }
        }
    }

    /// Returns true if this process can use the connection. Programs close descriptors they do not know, and
    /// children have their parent's.
    fn is_usable(&self) -> bool {
        self.is_own() && self.process == rustix::process::getpid()
    }

    /// Returns true if the descriptor number still refers to this connection.
    fn is_own(&self) -> bool {
        self.fd.as_ref().is_some_and(|fd| identity(fd.as_fd()) == Ok(self.identity))
    }
}

/// Decodes a reply of the node.
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

/// Packs a process and its user into one number, which is never 0. An invisible process has ID 0, and its
/// user may be root.
fn pack(credentials: Credentials) -> u64 {
    const KNOWN: u64 = 1 << 63;
    KNOWN | u64::from(credentials.pid.unsigned_abs()) << 32 | u64::from(credentials.uid)
}

/// Limits the time in which a socket connects and sends (unix(7)).
fn limit_sending(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(ANSWER_TIMEOUT))
}

/// Sends one packet, optionally with a descriptor; never raises SIGPIPE.
///
/// # Errors
/// Errors of sendmsg(2).
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

/// Returns the abstract address of a name.
pub fn address(name: &Name) -> SocketAddrUnix {
    // Avoid the heap, because a signal handler may have interrupted malloc(3).
    let mut text = Cursor::new([0; MAX_NAME]);
    let address = write!(text, "{name}").map(|()| {
        let length = text.position() as usize;
        SocketAddrUnix::new_abstract_name(&text.get_ref()[..length])
    });
    address.ok().and_then(Result::ok).expect("names fit, as the tests of them show")
}

/// Receives a packet of [`send_with`], without blocking.
///
/// # Errors
/// Errors of recvmsg(2).
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

    /// Listens as a node does. No thread accepts connections, as while a node is stopped.
    fn stopped_node(tag: NodeTag, backlog: i32) -> OwnedFd {
        let kind = SocketType::SEQPACKET;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let fd = fd.expect("a socket");
        rustix::net::bind(&fd, &address(&Name::Requests(tag))).expect("a free name");
        rustix::net::listen(&fd, backlog).expect("it listens");
        fd
    }

    #[test]
    fn a_node_that_is_stopped_counts_as_ended_after_a_while() {
        let tag = NodeTag(std::process::id());
        let _stopped = stopped_node(tag, 8);
        let client = Client::of(tag);
        for request in [Request::Routes, Request::Resolve("alpha".into()), Request::MayListen(80)] {
            let asked = client.ask_within(Duration::from_millis(1), request, None);
            assert_eq!(asked, Err(Errno::NETDOWN));
        }
        // A late reply is no later request's: the connections are not used again.
        assert!(client.idle.lock().expect("no panic").is_empty());
    }

    #[test]
    fn requests_do_not_wait_for_ever_for_room() {
        let (family, kind, flags) = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (own, _its) = rustix::net::socketpair(family, kind, flags, None).expect("a pair");
        limit_sending(own.as_fd()).expect("an option");
        let limit = sockopt::socket_timeout(&own, sockopt::Timeout::Send).expect("an option");
        assert_eq!(limit, Some(ANSWER_TIMEOUT));
        let short = Some(Duration::from_millis(10));
        sockopt::set_socket_timeout(&own, sockopt::Timeout::Send, short).expect("an option");
        let (process, identity) = (rustix::process::getpid(), identity(own.as_fd()).expect("it is open"));
        let connection = Connection { fd: Some(own), process, identity };
        let message = Client::of(NodeTag(1)).message(Request::StopWaiting);
        let sent = (0..100_000).find_map(|_| connection.send(&message).err());
        assert_eq!(sent, Some(Errno::NETDOWN));
    }

    #[test]
    fn a_number_that_the_program_has_given_to_another_file_is_not_closed() {
        let (own, _other_end) = std::io::pipe().expect("a pipe");
        let other = std::fs::File::open("/proc/self/exe").expect("the test itself");
        let (process, identity) = (rustix::process::getpid(), identity(own.as_fd()).expect("it is open"));
        let number = own.as_raw_fd();
        let mut connection = Connection { fd: Some(own.into()), process, identity };
        assert!(connection.is_usable());
        // As a program that closes all descriptors and then opens new ones.
        rustix::io::dup2(&other, connection.fd.as_mut().expect("it is there")).expect("the number is open");
        assert!(!connection.is_usable());
        drop(connection);
        let file = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
        assert_eq!(file(number), file(other.as_raw_fd()), "another's file was closed");
    }
}
