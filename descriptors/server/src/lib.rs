//! Sockets of applications that are real file descriptors: the node's side of `peersock-fd`.
//!
//! * [`FdServer`]: serves the sockets of a node to those that may use it;
//! * [`Host`]: a node in threads of its own, in a program that knows nothing of it but its sockets.
//!
//! An [`FdServer`] answers the requests of applications (this process, its children, or others) and moves
//! data between the other ends of their AF_UNIX sockets and the node's connections. All of it runs in the
//! node's engine thread: what arrives passes from the UDP socket to the application's descriptor without a
//! thread being woken in between.

mod addresses;
mod ancillary;
mod application_fd;
mod attempts;
mod closings;
mod connecting;
mod connection_errors;
mod context;
mod datagram;
mod datagram_ends;
mod datagram_sockets;
mod end_index;
mod families;
mod host;
mod ipv4_aliases;
mod kernel_listener;
mod listeners;
mod listening;
mod name_holders;
mod options;
mod outbox;
mod passed_fds;
mod path_mtu;
mod private_name;
mod process;
mod refusals;
mod requester;
mod requests;
mod searches;
mod seldom;
mod server;
mod so_linger;
mod socket_option;
mod socket_table;
mod sockets;
mod state;
mod stream;
mod streams;
mod transport;
mod undelivered;
mod unix;
mod wakers;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use peersock::Node;
use peersock::attach::{Linger, NodeHandle, Patience, TaskUser};
use peersock_fd::{NodeTag, SocketId, Token};

pub use host::{Host, SecretMismatch};
use server::Server;
pub use undelivered::Outstanding;

/// The environment variable that tells a process its node.
pub const ENVIRONMENT: &str = "PEERSOCK_NODE";

/// Serves sockets as file descriptors, for as long as it lives.
///
/// Whoever runs as the node's user, or as root, may open sockets; others need the
/// [token](FdServer::environment).
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Node};
/// use peersock_descriptors::FdServer;
///
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let server = FdServer::start(&node)?;
/// let (tag, _secret) = FdServer::parse_environment(&server.environment()).expect("it reads what it writes");
/// assert_eq!(tag, server.tag());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FdServer {
    node: Node,
    handle: NodeHandle,
    server: Arc<Server>,
    /// Has the engine thread read the UDP sockets.
    _user: TaskUser,
}

impl FdServer {
    /// Starts to serve. A node has one server at a time.
    ///
    /// # Errors
    /// When the system refuses sockets or randomness.
    pub fn start(node: &Node) -> io::Result<FdServer> {
        let handle = NodeHandle::of(node);
        let server = Arc::new(Server::new(&handle)?);
        let user = handle.task_user();
        handle.attach(Some(server.clone()));
        Ok(FdServer { node: node.clone(), handle, server, _user: user })
    }

    /// Ends what processes wait for on the sockets of a node that is no more, as far as the system lets this
    /// process look: their calls fail with ENETDOWN. A node that ends in order does so itself. Returns the
    /// processes that have such sockets, connections included.
    pub fn end_sockets_of(tag: NodeTag) -> Vec<u32> {
        application_fd::shut_everywhere(tag)
    }

    /// What the names of its sockets call the node.
    pub fn tag(&self) -> NodeTag {
        self.server.tag()
    }

    /// The secret that lets processes of other users open sockets.
    pub fn token(&self) -> Token {
        self.server.token()
    }

    /// What [`ENVIRONMENT`] has to be for processes that use this node. It is a secret.
    pub fn environment(&self) -> String {
        environment(self.tag(), self.token())
    }

    /// Reads what [`FdServer::environment`] has made.
    pub fn parse_environment(text: &str) -> Option<(NodeTag, Token)> {
        let (tag, token) = text.split_once(':')?;
        Some((NodeTag(u32::from_str_radix(tag, 16).ok()?), Token(u128::from_str_radix(token, 16).ok()?)))
    }

    /// How many connections applications have made to open sockets: a look at whether anybody uses it.
    pub fn contacts(&self) -> Contacts {
        Contacts(Arc::clone(&self.server))
    }

    /// Texts for people, one for each port at which an application wants to listen and which no network
    /// allows, or to which it connects or sends though the network does not allow it. The application
    /// gets EACCES.
    pub fn refusals(&self) -> mpsc::Receiver<String> {
        self.server.refusals()
    }

    /// Raises the process's soft limit of descriptors (RLIMIT_NOFILE) as far as the hard one allows: each
    /// connection takes one of the node's. What the process starts from then on has it as well.
    pub fn raise_descriptor_limit() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum
            && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
        }
    }

    /// Begins the end: takes what applications have written until now, and closes their connections in order.
    /// [`FdServer::undelivered`] tells how far that has come.
    pub fn begin_drain(&self) {
        self.server.begin_drain(Unclosed::Finish);
        self.handle.kick();
    }

    /// Says that the users of the sockets that this process has opened read and write by the kernel's own
    /// calls, without the library: C programs do, and those whose other calls this process makes for them.
    /// Whether a call has told them of a connection that broke while it was open is not known, and they are
    /// taken to have heard of it.
    pub fn note_unseen_calls(&self) {
        self.server.note_unseen_calls();
    }

    /// What has not been delivered yet, or never will be, of what applications have written.
    ///
    /// Of connections that ended before [`FdServer::begin_drain`] those are counted, by themselves, that the
    /// application had open when they broke, if no call has told it: none of its own has failed, and it has
    /// not asked SO_ERROR. What it had closed before is the peer's affair, as with the kernel.
    pub fn undelivered(&self) -> Outstanding {
        self.server.undelivered()
    }

    /// Takes what applications have written until now, closes their connections in order, and waits up to
    /// `patience` until everything is delivered. True if it was, and nothing was lost earlier without a call
    /// that has told of it. For the end of a process that has sockets open.
    pub fn drain(&self, patience: Duration) -> bool {
        self.end(Linger::Within(patience), Unclosed::Finish).is_none()
    }

    /// As [`drain`](FdServer::drain), but connections that applications still have open are reset, after what
    /// was written to them: neither end takes it for the end of what was to be said. For a node that ends
    /// before its process does.
    pub fn drain_and_reset(&self, patience: Duration) -> bool {
        self.end(Linger::Within(patience), Unclosed::Reset).is_none()
    }

    /// Ends the node. `None` if everything was delivered, else the bytes that were not acknowledged.
    fn end(&self, linger: Linger, unclosed: Unclosed) -> Option<u64> {
        let mut patience = Patience::new(linger, Instant::now());
        self.server.begin_drain(unclosed.clone());
        self.handle.kick();
        let taken = self.server.wait_drained(&mut patience);
        if unclosed != Unclosed::Finish {
            self.server.reset_streams(&unclosed);
        }
        if !taken {
            // What the applications have written counts no more there, which is no progress.
            patience = Patience::new(Linger::Within(Duration::ZERO), Instant::now());
        }
        let delivered = self.handle.shutdown(&mut patience);
        if delivered && taken && !self.server.has_losses() {
            return None;
        }
        // Streams that were reset are counted by the node, and the others by the server.
        Some(self.undelivered().loss().unwrap_or(0).max(self.node.undelivered().bytes))
    }
}

/// What becomes of the connections that applications have not closed when the node ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unclosed {
    /// They end in order, as the kernel does it for a process that exits.
    Finish,
    /// Those of these sockets end in order, and the others are reset: other processes have them.
    FinishOnly(Arc<BTreeSet<SocketId>>),
    /// They are reset.
    Reset,
}

impl Unclosed {
    /// Whether the connection of a socket that is still open then is reset.
    fn resets(&self, socket: SocketId) -> bool {
        match self {
            Unclosed::Finish => false,
            Unclosed::FinishOnly(own) => !own.contains(&socket),
            Unclosed::Reset => true,
        }
    }
}

/// Counts the connections that applications have made, see [`FdServer::contacts`].
#[derive(Clone)]
pub struct Contacts(Arc<Server>);

impl Contacts {
    /// So many.
    pub fn count(&self) -> u64 {
        self.0.contacts()
    }
}

impl fmt::Debug for Contacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contacts").field(&self.count()).finish()
    }
}

fn environment(tag: NodeTag, token: Token) -> String {
    format!("{:08x}:{:032x}", tag.0, token.0)
}

impl Drop for FdServer {
    fn drop(&mut self) {
        self.handle.attach(None);
        self.server.close();
    }
}

impl fmt::Debug for FdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdServer").field("tag", &self.tag()).finish_non_exhaustive()
    }
}
