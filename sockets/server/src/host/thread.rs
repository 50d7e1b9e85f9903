//! The thread that owns the node, and the jobs it runs.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use peersock::attach::Linger;
use peersock::{Node, NodeBuilder, StartError};
use peersock_fd::{NodeTag, Token};
use peersock_primitives::sync;
use rustix::process::Pid;

use crate::process;
use crate::{FdServer, Unclosed};

/// Time for which a stopping host waits for the jobs that run apart. They end when the node is shut down.
const APART_PATIENCE: Duration = Duration::from_secs(2);

/// A host's thread as other threads see it.
pub(super) struct Hosted {
    /// The process that the thread belongs to.
    pub(super) process: Pid,
    pub(super) tag: NodeTag,
    pub(super) token: Token,
    pub(super) jobs: mpsc::Sender<Job>,
    own: Pid,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Set once the process's exit does not wait for this host's deliveries.
    pub(super) given_up: AtomicBool,
    /// Set once the thread has begun to end the node, at anyone's request.
    pub(super) is_ending: Arc<AtomicBool>,
}

/// A request to the thread.
pub(super) enum Job {
    Run(Box<Work>),
    NoteUnseenCalls,
    /// Ends the thread and reports the progress.
    Stop(Linger, Unclosed, mpsc::SyncSender<Ending>),
}

/// Progress of a node's end.
pub(super) enum Ending {
    /// The thread has begun it.
    Begun,
    /// The node has ended. `None` if everything was delivered, else the number of unacknowledged bytes.
    Over(Option<u64>),
}

/// A job that uses the node.
type Work = dyn FnOnce(&Node, &Apart) + Send;

/// Starts the thread, and waits until the node is up.
pub(super) fn start(settings: NodeBuilder, prepare: fn(&FdServer)) -> Result<Arc<Hosted>, StartError> {
    let (jobs, todo) = mpsc::channel();
    let (started, result) = mpsc::sync_channel(1);
    let is_ending = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&is_ending);
    let thread = Builder::new().name("peersock-host".into()).spawn(move || {
        // Block signals first, because the program's handlers must not run with a separate descriptor table.
        process::block_signals();
        match process::leave_descriptors().map_err(StartError::Io).and_then(|()| open(settings)) {
            Ok((node, server)) => {
                prepare(&server);
                let _ = started.send(Ok((rustix::thread::gettid(), server.tag(), server.token())));
                serve(node, server, &todo, &ending);
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    let (own, tag, token) = match result.recv() {
        Ok(result) => result?,
        Err(_) => return Err(StartError::Io(io::Error::other("the node's thread has panicked"))),
    };
    let thread = Mutex::new(Some(thread));
    let (process, given_up) = (rustix::process::getpid(), AtomicBool::new(false));
    Ok(Arc::new(Hosted { process, tag, token, jobs, own, thread, given_up, is_ending }))
}

/// Runs a job on such a thread, without a node. The outer result is that of joining the thread.
pub(super) fn run_alone<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::Result<io::Result<T>>> {
    let thread = Builder::new().name("peersock-alone".into()).spawn(move || {
        process::block_signals();
        process::leave_descriptors()?;
        Ok(job())
    })?;
    Ok(thread.join())
}

fn open(settings: NodeBuilder) -> Result<(Node, FdServer), StartError> {
    FdServer::raise_descriptor_limit();
    let node = settings.start()?;
    let server = FdServer::start(&node)?;
    Ok((node, server))
}

fn serve(node: Node, server: FdServer, todo: &mpsc::Receiver<Job>, is_ending: &AtomicBool) {
    let apart = Apart::default();
    for job in todo {
        match job {
            Job::Run(job) => job(&node, &apart),
            Job::NoteUnseenCalls => server.note_unseen_calls(),
            Job::Stop(linger, unclosed, done) => {
                is_ending.store(true, Ordering::Relaxed);
                let _ = done.try_send(Ending::Begun);
                let lost = server.end(linger, unclosed);
                drop(server);
                // Jobs that run apart hold the node, and with it the lock of its state directory.
                apart.wait(APART_PATIENCE);
                drop(node);
                let _ = done.try_send(Ending::Over(lost));
                return;
            }
        }
    }
}

impl Hosted {
    /// Returns true if the calling thread is the host's.
    pub(super) fn is_own_thread(&self) -> bool {
        rustix::thread::gettid() == self.own
    }

    /// Stops the node and waits for its end. Returns `None` if everything was delivered, else the number of
    /// unacknowledged bytes.
    pub(super) fn stop(&self, linger: Linger, unclosed: Unclosed) -> Option<u64> {
        if self.is_own_thread() {
            return Some(0);
        }
        let lost = self.begin_stop(linger, unclosed).and_then(|stop| {
            let over = stop.iter().find_map(|ending| match ending {
                Ending::Begun => None,
                Ending::Over(lost) => Some(lost),
            });
            over.flatten()
        });
        let thread = sync::lock(&self.thread).take();
        if let Some(thread) = thread {
            // Jobs that panic are caught.
            let _ = thread.join();
        }
        lost
    }

    /// Asks the thread to stop the node and returns the channel of its progress, or `None` if it has stopped
    /// already.
    pub(super) fn begin_stop(&self, linger: Linger, unclosed: Unclosed) -> Option<mpsc::Receiver<Ending>> {
        // Room for both messages, so the thread never waits for a receiver.
        let (done, result) = mpsc::sync_channel(2);
        self.jobs.send(Job::Stop(linger, unclosed, done)).ok().map(|()| result)
    }
}

/// The jobs that run in separate threads.
#[derive(Default)]
pub(super) struct Apart {
    running: Arc<Running>,
}

#[derive(Default)]
struct Running {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Apart {
    /// Runs a job in a separate thread. If no thread can be started the job is dropped.
    pub(super) fn spawn(&self, node: &Node, job: impl FnOnce(&Node) + Send + 'static) {
        let entry = Running::enter(&self.running);
        let node = node.clone();
        let spawned = Builder::new().name("peersock-apart".into()).spawn(move || {
            job(&node);
            drop(node);
            drop(entry);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for what has to wait");
        }
    }

    fn wait(&self, patience: Duration) {
        let count = sync::lock(&self.running.count);
        let is_running = |count: &mut usize| *count > 0;
        let _ = self.running.ended.wait_timeout_while(count, patience, is_running);
    }
}

impl Running {
    fn enter(this: &Arc<Running>) -> Entry {
        *sync::lock(&this.count) += 1;
        Entry(Arc::clone(this))
    }
}

/// Counts one job until dropped.
struct Entry(Arc<Running>);

impl Drop for Entry {
    fn drop(&mut self) {
        *sync::lock(&self.0.count) -= 1;
        self.0.ended.notify_all();
    }
}
