//! The thread that owns a node, or an attachment to one, and the jobs it runs.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use peersock::Event;
use peersock::attach::Linger;
use peersock_primitives::sync;
use rustix::process::Pid;

use super::events::{self, EventSource};
use super::exit::Stops as _;
use super::{down, exit, received};
use crate::Unclosed;
use crate::process;

/// Time for which a stopping host waits for the jobs that run apart. They end when the node is shut down.
const SEPARATE_JOBS_TIMEOUT: Duration = Duration::from_secs(2);

/// Owner of a program's sockets, which lives in threads with a separate descriptor table, without signals.
pub trait Resident: Sized + 'static {
    /// The part that jobs in other threads use.
    type Shared: Clone + Send + 'static;

    /// Returns that part.
    fn shared(&self) -> &Self::Shared;

    /// Delivers what the program has sent, and ends its sockets. Calls `wait` when jobs that run apart must
    /// have ended. Returns `None` if everything was delivered, else the number of unacknowledged bytes.
    fn end(self, linger: Linger, unclosed: Unclosed, wait: impl FnOnce()) -> Option<u64>;
}

/// A resident as the program's threads see it.
///
/// It ends as with [`Hosted::stop`] when the process returns from `main`, or calls exit(3) or quick_exit(3).
pub struct Hosted<R: Resident> {
    /// The process that the thread belongs to.
    process: Pid,
    jobs: mpsc::Sender<Job<R>>,
    own: Pid,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Set once the process's exit does not wait for this host's deliveries.
    given_up: AtomicBool,
    /// Set once the thread has begun to end the resident, at anyone's request.
    is_ending: Arc<AtomicBool>,
}

/// A request to the thread.
enum Job<R> {
    Run(Box<Work<R>>),
    /// Ends the thread and reports the progress.
    Stop(Linger, Unclosed, mpsc::SyncSender<Ending>),
}

/// A job that uses the resident.
type Work<R> = dyn FnOnce(&R, &Apart) + Send;

/// Progress of a node's end.
pub(super) enum Ending {
    /// The thread has begun it.
    Begun,
    /// The node has ended. `None` if everything was delivered, else the number of unacknowledged bytes.
    Over(Option<u64>),
}

impl<R: Resident> Hosted<R> {
    /// Starts the thread, in which `open` makes the resident, and waits for it.
    ///
    /// # Errors
    /// Errors of `open`; the system refuses a thread, or another descriptor table.
    pub fn start<I, E>(
        open: impl FnOnce() -> Result<(R, I), E> + Send + 'static,
    ) -> Result<(Arc<Hosted<R>>, I), E>
    where
        I: Send + 'static,
        E: From<io::Error> + Send + 'static,
    {
        let (jobs, todo) = mpsc::channel();
        let (started, result) = mpsc::sync_channel(1);
        let is_ending = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&is_ending);
        let thread = Builder::new().name("peersock-host".into()).spawn(move || {
            // Block signals first, because the program's handlers must not run with a separate descriptor
            // table.
            process::block_signals();
            match process::leave_descriptors().map_err(E::from).and_then(|()| open()) {
                Ok((resident, about)) => {
                    let _ = started.send(Ok((rustix::thread::gettid(), about)));
                    serve(resident, &todo, &ending);
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        let (own, about) = match result.recv() {
            Ok(result) => result?,
            Err(_) => return Err(io::Error::other("the node's thread has panicked").into()),
        };
        let thread = Mutex::new(Some(thread));
        let (process, given_up) = (rustix::process::getpid(), AtomicBool::new(false));
        let hosted = Arc::new(Hosted { process, jobs, own, thread, given_up, is_ending });
        exit::remember(&hosted);
        Ok((hosted, about))
    }

    /// Returns true in the process that has started the thread, false in its children.
    pub fn is_here(&self) -> bool {
        self.process == rustix::process::getpid()
    }

    /// Calls `job` with the resident on its thread and returns its result. Jobs run one after the other.
    ///
    /// # Errors
    /// ENETDOWN if it was stopped or this is a forked child; EDEADLK inside another job.
    ///
    /// # Panics
    /// If `job` panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&R) -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        self.send(move |resident, _| {
            let _ = done.send(catch_unwind(AssertUnwindSafe(|| job(resident))));
        })?;
        received(&result)
    }

    /// Like [`Hosted::run`], in a separate thread, so other jobs run meanwhile.
    ///
    /// # Errors
    /// Errors of [`Hosted::run`], and ENETDOWN if no thread can be started.
    ///
    /// # Panics
    /// If `job` panics.
    pub fn run_apart<T: Send + 'static>(
        &self,
        job: impl FnOnce(&R::Shared) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        self.send(move |resident, apart| {
            apart.spawn(resident.shared(), move |shared| {
                let _ = done.send(catch_unwind(AssertUnwindSafe(|| job(shared))));
            });
        })?;
        received(&result)
    }

    /// Returns a descriptor of the caller's from which `events` of the resident can be read: see
    /// [`Host::event_socket`](crate::Host::event_socket).
    ///
    /// # Errors
    /// Errors of [`Hosted::run_apart`], of socket(2), and of `events`.
    pub fn event_socket<S: EventSource>(
        &self,
        events: impl FnOnce(&R::Shared) -> io::Result<S> + Send + 'static,
        encode: impl Fn(&Event) -> Vec<u8> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        events::socket(self, events, encode)
    }

    /// Sends a job, which may begin others apart.
    pub(super) fn send(&self, job: impl FnOnce(&R, &Apart) + Send + 'static) -> io::Result<()> {
        // Check this first, because no lock may be touched in a child.
        if !self.is_here() {
            return Err(down());
        }
        if self.is_own_thread() {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        self.jobs.send(Job::Run(Box::new(job))).map_err(|_| down())
    }

    /// Ends the resident as a process does that exits: connections that it has not closed end in order, and
    /// those that another process holds too are reset.
    pub fn finish(&self, linger: Linger) -> Option<u64> {
        self.stop(linger, Unclosed::of_exit())
    }

    /// Makes the process's exit no longer wait for this host.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Ends the resident and waits for it. Returns `None` if everything was delivered, else the number of
    /// unacknowledged bytes. Must not be called in a forked child.
    pub fn stop(&self, linger: Linger, unclosed: Unclosed) -> Option<u64> {
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
}

impl<R: Resident> exit::Stops for Hosted<R> {
    fn process(&self) -> Pid {
        self.process
    }

    fn is_own_thread(&self) -> bool {
        rustix::thread::gettid() == self.own
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn is_ending(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_ending)
    }

    fn begin_stop(&self, linger: Linger, unclosed: Unclosed) -> Option<mpsc::Receiver<Ending>> {
        // Room for both messages, so the thread never waits for a receiver.
        let (done, result) = mpsc::sync_channel(2);
        self.jobs.send(Job::Stop(linger, unclosed, done)).ok().map(|()| result)
    }
}

impl<R: Resident> fmt::Debug for Hosted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("process", &self.process).finish_non_exhaustive()
    }
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

fn serve<R: Resident>(resident: R, todo: &mpsc::Receiver<Job<R>>, is_ending: &AtomicBool) {
    let apart = Apart::default();
    for job in todo {
        match job {
            Job::Run(job) => job(&resident, &apart),
            Job::Stop(linger, unclosed, done) => {
                is_ending.store(true, Ordering::Relaxed);
                let _ = done.try_send(Ending::Begun);
                let lost = resident.end(linger, unclosed, || apart.wait(SEPARATE_JOBS_TIMEOUT));
                let _ = done.try_send(Ending::Over(lost));
                return;
            }
        }
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
    pub(super) fn spawn<S: Clone + Send + 'static>(&self, shared: &S, job: impl FnOnce(&S) + Send + 'static) {
        let entry = Running::enter(&self.running);
        let shared = shared.clone();
        let spawned = Builder::new().name("peersock-apart".into()).spawn(move || {
            job(&shared);
            drop(shared);
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
