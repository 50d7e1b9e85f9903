//! A node inside a program that knows nothing of it but its sockets: C's and Python's.

mod events;
mod exit;
mod outer;
mod stdio;
mod thread;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use peersock::attach::{Linger, loss_text, say_loss};
use peersock::{Event, Network, Node, NodeBuilder, StartError};
use peersock_fd::{Client, NodeTag, Token};

use super::{FdServer, Unclosed};
pub use outer::SecretMismatch;
use thread::{Hosted, Job};

/// A node that serves sockets as file descriptors to the process it is in, out of the way of everything the
/// process does.
///
/// Its threads have a table of descriptors of their own, and take no signals. So the process may close
/// descriptors that it does not know, fork, and run out of descriptors; its children hold nothing of the
/// node's open. Of the process's own descriptors the node's threads have standard input, output and error
/// only.
///
/// The soft limit of descriptors becomes the hard one, for the whole process: it cannot be raised for some
/// threads alone.
///
/// The node can be used on its threads only: see [`Host::run`].
///
/// When the process returns from `main`, or calls exit(3) or quick_exit(3), what was written is delivered,
/// for as long as peers take it: one that takes nothing has 30 seconds, one that answers nothing ten and a
/// round trip, and all together have ten minutes. What is lost then, or when a host is dropped, which waits
/// five seconds without progress, is a line on stderr; the exit status stays. Who executes another program in
/// the process's place (exec(3)) ends the threads at once, so a host is to be stopped before. In a forked
/// child there are no threads of the parent: every call fails with ENETDOWN at once. Sockets go on working
/// there, with the parent's node.
///
/// ```
/// use std::time::Duration;
///
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_descriptors::Host;
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
    /// Only `drop` takes it.
    hosted: Option<Arc<Hosted>>,
    /// The node that the environment named when this one was started.
    outer: Option<Arc<Client>>,
}

impl Host {
    /// Starts a node in threads of its own.
    ///
    /// # Errors
    /// Those of [`NodeBuilder::start`], and when the system does not allow another table of descriptors.
    pub fn start(settings: NodeBuilder) -> Result<Host, StartError> {
        Self::start_in(settings, |_| ())
    }

    /// As [`Host::start`], for a process that reads and writes by the kernel's own calls, as C programs do:
    /// see [`FdServer::note_unseen_calls`].
    ///
    /// # Errors
    /// Those of [`Host::start`].
    pub fn start_with_unseen_calls(settings: NodeBuilder) -> Result<Host, StartError> {
        Self::start_in(settings, FdServer::note_unseen_calls)
    }

    fn start_in(settings: NodeBuilder, prepare: fn(&FdServer)) -> Result<Host, StartError> {
        let outer = outer::client();
        let hosted = thread::start(settings, prepare)?;
        exit::remember(&hosted);
        Ok(Host { hosted: Some(hosted), outer })
    }

    /// Says that this process makes the socket calls of programs that read and write by the kernel's own
    /// calls: see [`FdServer::note_unseen_calls`].
    ///
    /// # Errors
    /// ENETDOWN if the node was stopped or this is a forked child.
    pub fn note_unseen_calls(&self) -> io::Result<()> {
        self.send(Job::NoteUnseenCalls)
    }

    /// What the names of its sockets call the node.
    pub fn tag(&self) -> NodeTag {
        self.hosted().tag
    }

    /// The secret that lets processes of other users open sockets.
    pub fn token(&self) -> Token {
        self.hosted().token
    }

    /// What the environment variable [`ENVIRONMENT`](crate::ENVIRONMENT) has to be for processes that shall
    /// use this node. It is a secret.
    pub fn environment(&self) -> String {
        super::environment(self.tag(), self.token())
    }

    /// Looks, before a network is joined, whether whoever has started this process is in the same one: the
    /// node that [`ENVIRONMENT`](crate::ENVIRONMENT) named when this host was started, as under `peersock
    /// run`.
    ///
    /// # Errors
    /// One of the two has a secret. Whether two secrets are the same is not known.
    pub fn check_outer(&self, network: &Network) -> Result<(), SecretMismatch> {
        self.outer.as_ref().map_or(Ok(()), |outer| outer::check(outer, network))
    }

    /// Whether this is the process that has the node, not a child of it.
    pub fn is_here(&self) -> bool {
        self.hosted().process == rustix::process::getpid()
    }

    /// Whether calls can succeed: the node was not stopped, and this is the process that has it.
    pub fn is_running(&self) -> bool {
        self.run(|_| ()).is_ok()
    }

    /// Calls `job` with the node on a thread of the node's, and waits for what it returns. Jobs run one after
    /// the other.
    ///
    /// Descriptors that are opened there are not the caller's: nothing that has one may be returned, and so
    /// no [`Node`]. For what waits there is [`Host::run_apart`].
    ///
    /// # Errors
    /// ENETDOWN if the node was stopped or this is a forked child; EDEADLK inside another job.
    ///
    /// # Panics
    /// If `job` does.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&Node) -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        self.send(Job::Run(Box::new(move |node, _| {
            let _ = done.send(catch_unwind(AssertUnwindSafe(|| job(node))));
        })))?;
        received(&result)
    }

    /// As [`Host::run`], in a thread of its own: other jobs run meanwhile.
    ///
    /// [`Host::stop`] waits for it: it should end when the node is shut down, as everything in this library
    /// does.
    ///
    /// # Errors
    /// Those of [`Host::run`], and ENETDOWN if no thread can be started.
    ///
    /// # Panics
    /// If `job` does.
    pub fn run_apart<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        self.send(Job::Run(Box::new(move |node, apart| {
            apart.spawn(node, move |node| {
                let _ = done.send(catch_unwind(AssertUnwindSafe(|| job(node))));
            });
        })))?;
        received(&result)
    }

    /// Calls `job` on a thread that has a table of descriptors of its own and takes no signals, as a node's
    /// threads are, and waits for what it returns. There is no node; nothing that has a descriptor may be
    /// returned. Threads that `job` starts are the same.
    ///
    /// ```
    /// use peersock_descriptors::Host;
    ///
    /// let port = Host::without_node(|| std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr())??.port();
    /// assert_ne!(port, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The system refuses a thread, or another table of descriptors.
    ///
    /// # Panics
    /// If `job` does.
    pub fn without_node<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        thread::run_alone(job)?.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// A descriptor of the caller's from which the events from now on can be read: one read(2) gives what
    /// `encode` has made of one event. It is a non-blocking SOCK_SEQPACKET socket, closed on exec.
    ///
    /// Its end, a read of nothing, says that the node was stopped. Events that find no room in the kernel's
    /// buffer are lost.
    ///
    /// # Errors
    /// Those of [`Host::run`] and of socket(2).
    pub fn event_socket(&self, encode: impl Fn(&Event) -> Vec<u8> + Send + 'static) -> io::Result<OwnedFd> {
        events::socket(self, encode)
    }

    /// Takes what was written until now, waits up to `linger` until everything is delivered, and ends the
    /// node. True if it was delivered, and nothing was lost earlier without a call that has told of it. After
    /// that a host can be started anew.
    ///
    /// Connections that the process has not closed are reset, after what was written to them: a peer does not
    /// take a node that goes away for the end of what was to be said. Calls that wait, and later ones, fail
    /// with ENETDOWN, those on connections once.
    ///
    /// Calling it again, or in a forked child, does nothing.
    pub fn stop(&self, linger: Duration) -> bool {
        self.is_here() && self.hosted().stop(Linger::Within(linger), Unclosed::Reset).is_none()
    }

    /// As [`Host::stop`], for a process that is about to exit: connections that it has not closed end in
    /// order, as the kernel does it, but for those that another process has, too, which are reset. Without a
    /// time it waits as the process's exit does. What is returned says what was lost, in words; `None` if
    /// nothing was.
    pub fn finish(&self, linger: Option<Duration>) -> Option<String> {
        if !self.is_here() {
            return None;
        }
        let linger = linger.map_or(Linger::Exit, Linger::Within);
        self.hosted().stop(linger, Unclosed::of_exit()).map(loss_text)
    }

    /// Has the process's exit wait no longer for anything of this host.
    pub fn give_up(&self) {
        self.hosted().given_up.store(true, Ordering::Relaxed);
    }

    fn hosted(&self) -> &Hosted {
        self.hosted.as_ref().expect("only `drop` takes it")
    }

    fn send(&self, job: Job) -> io::Result<()> {
        // First of all: in a child no lock may be touched.
        if !self.is_here() {
            return Err(down());
        }
        if self.hosted().is_own_thread() {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        self.hosted().jobs.send(job).map_err(|_| down())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.is_here() {
            // In a forked child locks inside may be held for ever.
            std::mem::forget(self.hosted.take());
        } else if !self.hosted().is_own_thread()
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
