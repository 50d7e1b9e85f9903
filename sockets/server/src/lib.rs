//! Sockets of applications that are real file descriptors: the node's side of `peersock-fd`.
//!
//! * [`FdServer`]: serves a node's sockets to the processes allowed to use them;
//! * [`Host`]: runs a node in dedicated threads, inside a program that sees only its sockets.
//!
//! An [`FdServer`] answers the requests of applications (this process, its children, or other processes). It
//! moves data between the node's ends of their AF_UNIX socket pairs and the node's connections. Everything
//! runs in the node's engine thread, so data passes from the UDP socket to the application's descriptor
//! without waking another thread.

mod abandoned;
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
mod ended_peers;
mod families;
mod host;
mod ipv4_aliases;
mod kernel_listener;
mod listeners;
mod listening;
mod log_limit;
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
mod resets;
mod searches;
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
mod usage;
mod wakers;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use peersock::attach::{Attached, Linger, NodeHandle, Patience, TaskUser};
use peersock::overlay::NetworkId;
use peersock::{Network, Node};
use peersock_fd::{NodeTag, SocketId, Token};
use serde::{Deserialize, Serialize};

use application_fd::Holder;
pub use host::{EventSource, Host, Hosted, Outer, Resident, SecretMismatch};
pub use process::{is_secure_execution, leave_descriptors, unblock_signals};
use resets::Resets;
pub use resets::{Launcher, PendingReset, Shown};
use server::Server;
pub use undelivered::Outstanding;
pub use usage::{Meter, Usage};

/// Environment variable that tells a process which node to use.
pub const ENVIRONMENT: &str = "PEERSOCK_NODE";

/// Serves sockets as file descriptors until dropped.
///
/// Processes of the node's user and of root may open sockets; others need the [token](FdServer::environment).
///
/// ```
/// use peersock::{IdentitySource, Interfaces, Node};
/// use peersock_socket_server::FdServer;
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
    /// Makes the engine thread read the UDP sockets.
    _user: TaskUser,
    /// True if all processes are searched for the sockets that end with the server.
    searches_all: AtomicBool,
}

impl FdServer {
    /// Starts serving all networks of a node.
    ///
    /// # Errors
    /// The system refuses sockets or randomness.
    pub fn start(node: &Node) -> io::Result<FdServer> {
        FdServer::start_for(node, NodeHandle::of(node), std::process::id(), Resets::default())
    }

    /// Starts serving some networks of a node, which must be joined, for the programs that the process
    /// `launcher` starts. Other networks do not exist for them. A node can have any number of servers: their
    /// programs share its addresses and ports. If the launcher is another process, `asked` passes requests to
    /// it.
    ///
    /// # Errors
    /// The system refuses sockets or randomness.
    pub fn start_within(
        node: &Node,
        networks: &[NetworkId],
        launcher: u32,
        asked: Option<Arc<dyn Launcher>>,
    ) -> io::Result<FdServer> {
        FdServer::start_for(node, NodeHandle::of(node).within(networks), launcher, Resets::new(asked))
    }

    fn start_for(node: &Node, handle: NodeHandle, launcher: u32, resets: Resets) -> io::Result<FdServer> {
        let server = Arc::new(Server::new(&handle, launcher.cast_signed(), resets)?);
        let user = handle.task_user();
        handle.attach(server.clone());
        Ok(FdServer { node: node.clone(), handle, server, _user: user, searches_all: AtomicBool::new(false) })
    }

    /// Ends pending calls on the sockets of a node that has died: they fail with ENETDOWN. Reaches only
    /// processes whose descriptors the system lets this process inspect. A node that is stopped in order does
    /// this itself. Returns the processes that hold such sockets, connections included.
    pub fn end_sockets_of(tag: NodeTag) -> Vec<u32> {
        application_fd::shut_everywhere(tag)
    }

    /// Shows a reset to the program that this process, its launcher, has started: for
    /// [`Launcher::show`]. Returns true if it has.
    pub fn show_reset(shown: &Shown) -> bool {
        let holder = Holder { process: shown.process, launcher: std::process::id().cast_signed() };
        application_fd::poison_named(&shown.names, holder)
    }

    /// Makes the programs of a server see that its node ends: for [`Launcher::break_all`]. The node must not
    /// read from their connections any more.
    pub fn break_sockets_of(tag: NodeTag) {
        application_fd::break_everywhere(tag);
    }

    /// Ends the server's connections and sockets while its launcher still answers, see
    /// [`Launcher::break_all`].
    pub fn reset(&self) {
        self.server.reset_streams(&Unclosed::Reset);
    }

    /// Returns the processes that hold sockets of a node, as far as the system lets this process inspect
    /// them.
    pub fn holders_of(tag: NodeTag) -> Vec<u32> {
        application_fd::holders(tag)
    }

    /// Makes the server's end search all processes, because the launcher was killed and ends no sockets.
    pub fn end_everywhere(&self) {
        self.searches_all.store(true, Ordering::SeqCst);
    }

    /// Returns the tag that identifies the node in the names of its sockets.
    pub fn tag(&self) -> NodeTag {
        self.server.tag()
    }

    /// Returns the secret that lets processes of other users open sockets.
    pub fn token(&self) -> Token {
        self.server.token()
    }

    /// Returns the value of [`ENVIRONMENT`] for processes that use this node. It contains a secret.
    pub fn environment(&self) -> String {
        environment(self.tag(), self.token())
    }

    /// Parses a value made by [`FdServer::environment`].
    pub fn parse_environment(text: &str) -> Option<(NodeTag, Token)> {
        let (tag, token) = text.split_once(':')?;
        Some((NodeTag(u32::from_str_radix(tag, 16).ok()?), Token(u128::from_str_radix(token, 16).ok()?)))
    }

    /// Returns a counter of the connections applications have made to open sockets, which shows whether the
    /// server is used.
    pub fn contacts(&self) -> Contacts {
        Contacts(Arc::clone(&self.server))
    }

    /// Returns the source of the server's use by programs, which costs nothing until it is asked.
    pub fn meter(&self) -> Meter {
        Meter::of(&self.server)
    }

    /// Returns messages for people about ports that no network allows. There is one per port on which an
    /// application tries to listen, or to which it connects or sends. The application's call fails with
    /// EACCES.
    pub fn refusals(&self) -> mpsc::Receiver<String> {
        self.server.refusals()
    }

    /// Raises the process's soft limit of descriptors (RLIMIT_NOFILE) to the hard limit, because each
    /// connection takes one of the node's descriptors. Processes started later inherit the limit.
    pub fn raise_descriptor_limit() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum
            && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
        }
    }

    /// Begins the shutdown: takes what applications have written so far and closes their connections in
    /// order. [`FdServer::undelivered`] reports the progress.
    pub fn begin_drain(&self) {
        self.begin_drain_with(Unclosed::Finish);
    }

    /// Begins the shutdown like [`FdServer::begin_drain`], with a choice for connections that applications
    /// have not closed. Those that are reset are reset by [`FdServer::reset`], or by dropping the server.
    pub fn begin_drain_with(&self, unclosed: Unclosed) {
        self.server.begin_drain(unclosed);
        self.handle.kick();
    }

    /// Replaces the names that the programs of a server that [serves some](FdServer::start_within) networks
    /// give to them.
    pub fn set_local_names<'a>(&self, networks: impl IntoIterator<Item = &'a Network>) {
        self.handle.set_local_names(networks);
    }

    /// Replaces the networks of a server that [serves some](FdServer::start_within). Its open sockets follow.
    /// Connections in networks that are not among them any more are reset.
    pub fn set_networks(&self, networks: &[NetworkId]) {
        let mut left = self.handle.networks().to_vec();
        left.retain(|network| networks.contains(&network.id));
        // First, because a reset needs the network.
        self.server.abort_outside(&left);
        self.handle.set_networks(networks);
        // Connections that were made meanwhile.
        self.server.abort_outside(&self.handle.networks());
        self.handle.kick();
    }

    /// Declares that the users of the launcher's sockets read and write by direct kernel calls, without the
    /// library. That holds for C programs and for programs whose other calls the launcher makes for them. The
    /// server cannot tell whether such a call reported a connection that broke while open, so it assumes that
    /// it did.
    pub fn note_unseen_calls(&self) {
        self.server.note_unseen_calls();
    }

    /// Returns the amount of application data that is not delivered yet, or never will be.
    ///
    /// Connections that ended before [`FdServer::begin_drain`] are counted separately, if no call reported
    /// that. A call reports it by failing, or by reading SO_ERROR. They are connections that the application
    /// had open when they broke, and connections that it had made and closed before the peer had every byte.
    pub fn undelivered(&self) -> Outstanding {
        self.server.undelivered()
    }

    /// Takes what applications have written so far, closes their connections in order, and waits up to
    /// `patience` until everything is delivered. Returns true if everything was delivered and nothing was
    /// lost earlier without an error to the application. For the end of a process that has open sockets.
    pub fn drain(&self, patience: Duration) -> bool {
        self.end(Linger::Within(patience), Unclosed::Finish).is_none()
    }

    /// Like [`drain`](FdServer::drain), but resets connections that applications still have open, after the
    /// data written to them. Neither end then mistakes the reset for a regular end of data. For a node that
    /// ends before its process does.
    pub fn drain_and_reset(&self, patience: Duration) -> bool {
        self.end(Linger::Within(patience), Unclosed::Reset).is_none()
    }

    /// Ends the node. Returns `None` if everything was delivered, else the number of unacknowledged bytes.
    fn end(&self, linger: Linger, unclosed: Unclosed) -> Option<u64> {
        let mut patience = Patience::new(linger, Instant::now());
        self.server.begin_drain(unclosed.clone());
        self.handle.kick();
        let taken = self.server.wait_drained(&mut patience);
        if unclosed != Unclosed::Finish {
            self.server.reset_streams(&unclosed);
        }
        if !taken {
            // The applications' remaining data no longer counts there. That decrease is not progress, so do
            // not wait.
            patience = Patience::new(Linger::Within(Duration::ZERO), Instant::now());
        }
        let delivered = self.handle.shutdown(&mut patience);
        if delivered && taken && !self.server.has_losses() {
            return None;
        }
        // The node counts streams that were reset; the server counts the others.
        Some(self.undelivered().loss().unwrap_or(0).max(self.node.undelivered().bytes))
    }
}

/// Treatment, at the node's end, of connections that applications have not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unclosed {
    /// All end in order, as the kernel ends them for a process that exits.
    Finish,
    /// The connections of these sockets end in order. The others are reset because other processes hold them
    /// too.
    FinishOnly(BTreeSet<SocketId>),
    /// All are reset.
    Reset,
}

impl Unclosed {
    /// Returns true if the connection of a socket that is still open then is reset.
    fn resets(&self, socket: SocketId) -> bool {
        match self {
            Unclosed::Finish => false,
            Unclosed::FinishOnly(own) => !own.contains(&socket),
            Unclosed::Reset => true,
        }
    }
}

/// Counter of the connections applications have made, see [`FdServer::contacts`].
#[derive(Clone)]
pub struct Contacts(Arc<Server>);

impl Contacts {
    /// Returns the number of connections so far.
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
        let attached: Arc<dyn Attached> = self.server.clone();
        self.handle.detach(&attached);
        self.server.close(self.searches_all.load(Ordering::SeqCst));
    }
}

impl fmt::Debug for FdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdServer").field("tag", &self.tag()).finish_non_exhaustive()
    }
}
