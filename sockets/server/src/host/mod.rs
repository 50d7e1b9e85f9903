//! A node inside a program that sees only its sockets, for C and Python programs.

mod events;
mod exit;
mod outer;
mod stdio;
mod thread;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use peersock::attach::{Linger, loss_text, say_loss};
use peersock::{Event, Node, NodeBuilder, StartError};
use peersock_fd::{NodeTag, Token};

use super::{FdServer, Unclosed};
pub use events::EventSource;
pub use outer::{Outer, SecretMismatch};
pub use thread::{Hosted, Resident};

/// A node that serves sockets as file descriptors to its own process, isolated from everything the process
/// does.
///
/// Its threads have a separate descriptor table and take no signals. So the process may close unknown
/// descriptors, fork, and run out of descriptors; its children inherit no descriptor of the node. Of the
/// process's own descriptors the node's threads share only standard input, output and error.
///
/// Starting a host raises the soft limit of descriptors to the hard limit for the whole process, because the
/// limit is not per thread.
///
/// The node can be used only on its threads: see [`Host::run`].
///
/// When the process returns from `main`, or calls exit(3) or quick_exit(3), the host delivers written data
/// for as long as peers accept it. A peer that accepts nothing has 30 seconds; one that answers nothing has
/// ten seconds and a round trip; all together have ten minutes. A line on stderr reports what is lost then,
/// or when a host is dropped, which waits five seconds without progress. The exit status is unchanged.
/// exec(3) ends the threads at once, so stop the host before it. In a forked child the parent's threads do
/// not exist, so every call fails with ENETDOWN at once. Sockets keep working there, with the parent's node.
///
/// ```
/// use std::time::Duration;
///
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_socket_server::Host;
///
/// let settings = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
/// let host = Host::start(settings)?;
/// let network = Network::ad_hoc("ff0001ffff000000".parse()?);
/// let address = host.run(|node| node.join(network).map(|joined| joined.address()))??;
/// println!("I am {address}");
/// // Sockets are opened by `peersock_fd::Client::new(host.tag(), host.token())`.
/// assert!(host.stop(Duration::from_secs(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Host {
    /// Taken only by `drop`.
    hosted: Option<Arc<Hosted<OwnNode>>>,
    tag: NodeTag,
    token: Token,
}

/// A node of this process, with its server.
struct OwnNode {
    node: Node,
    server: FdServer,
}

impl OwnNode {
    fn start(
        settings: NodeBuilder,
        prepare: fn(&FdServer),
    ) -> Result<(OwnNode, (NodeTag, Token)), StartError> {
        FdServer::raise_descriptor_limit();
        let node = settings.start()?;
        let server = FdServer::start(&node)?;
        prepare(&server);
        let names = (server.tag(), server.token());
        Ok((OwnNode { node, server }, names))
    }
}

impl Resident for OwnNode {
    type Shared = Node;

    fn shared(&self) -> &Node {
        &self.node
    }

    fn end(self, linger: Linger, unclosed: Unclosed, wait: impl FnOnce()) -> Option<u64> {
        let OwnNode { node, server } = self;
        let lost = server.end(linger, unclosed);
        drop(server);
        // Jobs that run apart hold the node, and with it the lock of its state directory.
        wait();
        drop(node);
        lost
    }
}

impl Host {
    /// Starts a node in dedicated threads.
    ///
    /// # Errors
    /// Errors of [`NodeBuilder::start`], or the system does not allow another descriptor table.
    pub fn start(settings: NodeBuilder) -> Result<Host, StartError> {
        Self::start_in(settings, |_| ())
    }

    /// Like [`Host::start`], for a process that reads and writes by direct kernel calls, as C programs do:
    /// see [`FdServer::note_unseen_calls`].
    ///
    /// # Errors
    /// Errors of [`Host::start`].
    pub fn start_with_unseen_calls(settings: NodeBuilder) -> Result<Host, StartError> {
        Self::start_in(settings, FdServer::note_unseen_calls)
    }

    fn start_in(settings: NodeBuilder, prepare: fn(&FdServer)) -> Result<Host, StartError> {
        let (hosted, (tag, token)) = Hosted::start(move || OwnNode::start(settings, prepare))?;
        Ok(Host { hosted: Some(hosted), tag, token })
    }

    /// Declares that this process makes the socket calls of programs that read and write by direct kernel
    /// calls: see [`FdServer::note_unseen_calls`].
    ///
    /// # Errors
    /// ENETDOWN if the node was stopped or this is a forked child.
    pub fn note_unseen_calls(&self) -> io::Result<()> {
        self.hosted().run(|own| own.server.note_unseen_calls())
    }

    /// Returns the tag that identifies the node in the names of its sockets.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// Returns the secret that lets processes of other users open sockets.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Returns the value of the environment variable [`ENVIRONMENT`](crate::ENVIRONMENT) for processes that
    /// use this node. It contains a secret.
    pub fn environment(&self) -> String {
        super::environment(self.tag(), self.token())
    }

    /// Returns true in the process that started the node, false in its children.
    pub fn is_here(&self) -> bool {
        self.hosted().is_here()
    }

    /// Returns true if calls can succeed: the node was not stopped, and this is the process that started it.
    pub fn is_running(&self) -> bool {
        self.run(|_| ()).is_ok()
    }

    /// Calls `job` with the node on the node's thread and returns its result. Jobs run one after the other.
    ///
    /// Descriptors opened in a job belong to the node's table, so `job` must return nothing that contains
    /// one, and so no [`Node`]. Use [`Host::run_apart`] for jobs that wait.
    ///
    /// # Errors
    /// ENETDOWN if the node was stopped or this is a forked child; EDEADLK inside another job.
    ///
    /// # Panics
    /// If `job` panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&Node) -> T + Send + 'static) -> io::Result<T> {
        self.hosted().run(|own| job(&own.node))
    }

    /// Like [`Host::run`], in a separate thread, so other jobs run meanwhile.
    ///
    /// [`Host::stop`] waits for `job`, which should end when the node is shut down, as everything in this
    /// library does.
    ///
    /// # Errors
    /// Errors of [`Host::run`], and ENETDOWN if no thread can be started.
    ///
    /// # Panics
    /// If `job` panics.
    pub fn run_apart<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> io::Result<T> {
        self.hosted().run_apart(job)
    }

    /// Calls `job` on a thread with a separate descriptor table and no signals, like a node's threads, and
    /// returns its result. No node is involved; `job` must return nothing that contains a descriptor. Threads
    /// that `job` starts have the same properties.
    ///
    /// ```
    /// use peersock_socket_server::Host;
    ///
    /// let port = Host::without_node(|| std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr())??.port();
    /// assert_ne!(port, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The system refuses a thread, or another descriptor table.
    ///
    /// # Panics
    /// If `job` panics.
    pub fn without_node<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        thread::run_alone(job)?.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Returns a descriptor of the caller's from which future events can be read: each read(2) returns one
    /// event as encoded by `encode`. It is a non-blocking SOCK_SEQPACKET socket, closed on exec.
    ///
    /// A read of zero bytes means that the node was stopped. Events that do not fit in the kernel buffer are
    /// lost.
    ///
    /// # Errors
    /// Errors of [`Host::run`] and of socket(2).
    pub fn event_socket(&self, encode: impl Fn(&Event) -> Vec<u8> + Send + 'static) -> io::Result<OwnedFd> {
        self.hosted().event_socket(|node| Ok(node.events()), encode)
    }

    /// Takes what was written so far, waits up to `linger` until everything is delivered, and ends the node.
    /// Returns true if everything was delivered and nothing was lost earlier without an error to the
    /// application. After that a host can be started anew.
    ///
    /// Connections that the process has not closed are reset after the data written to them. Otherwise a peer
    /// would mistake the node's end for a regular end of data. Pending and later calls fail with ENETDOWN;
    /// those on connections fail once.
    ///
    /// A second call, or a call in a forked child, does nothing.
    pub fn stop(&self, linger: Duration) -> bool {
        self.is_here() && self.hosted().stop(Linger::Within(linger), Unclosed::Reset).is_none()
    }

    /// Like [`Host::stop`], for a process that is about to exit: connections that it has not closed end in
    /// order, as with the kernel. Connections that another process holds too are reset. With `linger` `None`
    /// it waits as long as the process's exit does. Returns a text that describes the loss, or `None` if
    /// nothing was lost.
    pub fn finish(&self, linger: Option<Duration>) -> Option<String> {
        if !self.is_here() {
            return None;
        }
        let linger = linger.map_or(Linger::Exit, Linger::Within);
        self.hosted().finish(linger).map(loss_text)
    }

    /// Makes the process's exit no longer wait for anything of this host.
    pub fn give_up(&self) {
        self.hosted().give_up();
    }

    fn hosted(&self) -> &Hosted<OwnNode> {
        self.hosted.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.is_here() {
            // In a forked child, locks inside may be held forever.
            std::mem::forget(self.hosted.take());
        } else if !exit::Stops::is_own_thread(self.hosted())
            && let Some(lost) = self.hosted().stop(Linger::Drop, Unclosed::Reset)
        {
            say_loss(lost);
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("tag", &self.tag()).finish_non_exhaustive()
    }
}

fn received<T>(result: &mpsc::Receiver<std::thread::Result<T>>) -> io::Result<T> {
    match result.recv() {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => resume_unwind(panic),
        // The job was dropped without being run.
        Err(_) => Err(down()),
    }
}

fn down() -> io::Error {
    io::Error::from_raw_os_error(libc::ENETDOWN)
}
