//! The threads that answer calls.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use peersock_bsd::{self as bsd, Errno, Result, Rules};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::net::sockopt;
use rustix::process::Pid;
use seccompiler::BpfProgram;

use crate::call::{Call, Step};
use crate::images::Images;
use crate::listener::Listener;
use crate::sets::Sets;
use crate::target::Target;
use crate::waiting::Waiting;
use crate::{Context, admission, filter, target};

/// Number of threads that answer calls.
const THREADS: usize = 8;

/// A filter for a program's system calls, installed before the program runs.
///
/// ```no_run
/// use peersock_bsd::{Client, Rules};
/// use peersock_fd::{NodeTag, Token};
/// use peersock_seccomp::{Filter, Supervisor};
///
/// let rules = Rules::new(Client::new(NodeTag(42), Token(7)), "");
/// let mut supervisor = Supervisor::new(rules, None)?;
/// let filter = supervisor.filter();
/// // In a separate thread: the filter stays with the thread.
/// let child = std::thread::spawn(move || {
///     filter.install()?;
///     std::process::Command::new("/usr/bin/static-program").spawn()
/// });
/// let mut child = child.join().expect("it does not panic")?;
/// child.wait()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Filter {
    program: Option<BpfProgram>,
    listener: mpsc::Sender<Listener>,
}

impl Filter {
    /// Filters the system calls of the calling thread, and of all threads and processes it starts from now
    /// on, forever. They cannot gain privileges any more (PR_SET_NO_NEW_PRIVS), which the kernel requires.
    ///
    /// # Errors
    /// An error of the kind `Unsupported` on architectures whose calls are not known, and before Linux 5.14.
    /// EBUSY if a filter that notifies another process exists already, as in some containers. ENOSYS or
    /// EINVAL where the kernel has no such filters, EACCES or EPERM where a container forbids them.
    pub fn install(self) -> io::Result<()> {
        let program = self.program.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        // From here on the filter's calls need answers, by threads without the filter.
        let _ = self.listener.send(Listener::install(&program)?);
        Ok(())
    }
}

/// Answers the socket calls of programs with its filter, until all of them have ended or it is dropped. After
/// that the calls fail with ENOSYS.
pub struct Supervisor {
    filter: Option<Filter>,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) context: Context,
    pub(crate) supervised: Supervised,
    pub(crate) stopped: AtomicBool,
    pub(crate) stop: OwnedFd,
}

/// The processes that are about to become programs without the library, and whose calls are taken.
#[derive(Debug, Clone, Default)]
pub struct Supervised(Arc<Mutex<BTreeSet<i32>>>);

impl Supervised {
    /// Returns true if a process is one of them.
    pub fn has(&self, process: Pid) -> bool {
        self.0.lock().expect("no panic under this lock").contains(&process.as_raw_pid())
    }

    pub(crate) fn add(&self, process: i32) {
        self.0.lock().expect("no panic under this lock").insert(process);
    }
}

impl Supervisor {
    /// Starts the threads. `rules` assign sockets to the overlay. Calls of programs whose memory map shows
    /// the name of a preloaded `library` are left to the library.
    ///
    /// # Errors
    /// The system has no more threads or descriptors. An error of the kind `PermissionDenied` if the system
    /// does not let this process inspect its children (ptrace(2)).
    pub fn new(rules: Rules, library: Option<String>) -> io::Result<Self> {
        target::check_access()?;
        let (listener, installed) = mpsc::channel::<Listener>();
        let filter = Filter { program: filter::program(rules.only), listener };
        let (images, sets, waiting) = (Images::new(library), Sets::start()?, Arc::new(Waiting::new()?));
        let shared = Arc::new(Shared {
            context: Context {
                rules,
                images,
                sets,
                waiting,
                any_ports: Mutex::default(),
                answers: Mutex::default(),
            },
            supervised: Supervised::default(),
            stopped: AtomicBool::new(false),
            stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        let serving = Arc::clone(&shared);
        thread::Builder::new().name("waiting calls".into()).spawn(move || {
            serving.context.waiting.serve(&serving.context, || serving.stopped.load(Ordering::Relaxed));
        })?;
        let answering = Arc::clone(&shared);
        thread::Builder::new().name("socket calls".into()).spawn(move || {
            // Without a filter there is nothing to do.
            if let Ok(listener) = installed.recv() {
                answering.serve(&Arc::new(listener), THREADS);
            }
        })?;
        Ok(Self { filter: Some(filter), shared })
    }

    /// Admits further programs: those that programs with the preloaded library are about to start, and that
    /// the library does not reach. Each gets the filter before it runs.
    ///
    /// # Errors
    /// An error of the kind `Unsupported` on architectures whose calls are not known; the system has no more
    /// threads or descriptors.
    pub fn admit(&self) -> io::Result<()> {
        admission::start(&self.shared)
    }

    /// Returns the processes that were [admitted](Self::admit).
    pub fn supervised(&self) -> Supervised {
        self.shared.supervised.clone()
    }

    /// Takes the filter for the supervised programs.
    ///
    /// # Panics
    /// On the second call, because there is one filter.
    pub fn filter(&mut self) -> Filter {
        self.filter.take().expect("it was not taken yet")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.filter = None;
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        // The threads end soon, and `drop` does not wait for them, because kernels before 6.6 may hold one
        // that waits for a call.
        self.shared.context.waiting.wake();
    }
}

impl Shared {
    /// Answers a program's calls until it and all its descendants have ended. Uses this thread and others,
    /// `threads` in all, or fewer if the system has no more.
    pub(crate) fn serve(&self, listener: &Arc<Listener>, threads: usize) {
        let receiving = Mutex::default();
        thread::scope(|scope| {
            for _ in 1..threads {
                let builder = thread::Builder::new().name("socket calls".into());
                let spawned = builder.spawn_scoped(scope, || self.answer(listener, &receiving));
                if let Err(error) = spawned {
                    tracing::debug!(%error, "fewer threads answer a program's calls");
                    break;
                }
            }
            self.answer(listener, &receiving);
        });
    }

    /// Answers calls until no process is left to make them.
    fn answer(&self, listener: &Arc<Listener>, receiving: &Mutex<()>) {
        while let Some(target) = self.next(listener, receiving) {
            let mut call = Call::new(target);
            match call.attempt(&self.context) {
                Ok(Step::Wait(wait)) => self.context.waiting.add(call, wait),
                result => call.finish(result),
            }
        }
    }

    /// Receives the next call, or `None` at the end. Only one thread waits at a time, because receiving a
    /// call that another thread has received would block forever.
    fn next(&self, listener: &Arc<Listener>, receiving: &Mutex<()>) -> Option<Target> {
        let _receiving = receiving.lock().expect("no panic under this lock");
        loop {
            let mut fds = [
                PollFd::new(&**listener, PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            let (calls, stop) = (fds[0].revents(), fds[1].revents());
            if !stop.is_empty() {
                return None;
            }
            if calls.contains(PollFlags::IN) {
                // The call may have been interrupted meanwhile.
                if let Ok(notice) = listener.receive() {
                    return Some(Target { listener: Arc::clone(listener), notice });
                }
            // ERR does not concern the listener: a signal came while the kernel checked.
            } else if calls.intersects(PollFlags::HUP | PollFlags::NVAL) {
                return None;
            }
        }
    }
}

impl Call {
    /// Gives the call its result.
    pub(crate) fn finish(self, result: Result<Step>) {
        match result {
            Ok(Step::Value(value)) => self.target.answer(Ok(value)),
            Ok(Step::Descriptor(fd, close_on_exec)) => {
                self.target.answer_with(&fd, close_on_exec);
            }
            Ok(Step::Connection(fd, close_on_exec)) => {
                if !self.target.answer_with(&fd, close_on_exec) {
                    // The peer must not mistake it for an orderly end. If the node is gone, the connection is
                    // gone.
                    let _ = match bsd::overlay(fd.as_raw_fd()) {
                        Some(socket) => bsd::reset_on_close(&socket),
                        None => sockopt::set_socket_linger(&fd, Some(Duration::ZERO)),
                    };
                }
            }
            Ok(Step::GoOn) => self.target.go_on(),
            Ok(Step::Wait(_)) => unreachable!("who waits has no result"),
            // Received messages would be lost.
            Err(_) if self.received > 0 => self.target.answer(Ok(self.received)),
            // The kernel knows the exact error for a bad descriptor.
            Err(Errno::BADF) => self.target.go_on(),
            Err(error) => self.target.answer(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use peersock_bsd::Client;
    use peersock_fd::{NodeTag, Token};

    use super::*;

    /// Returns a supervisor without a node.
    fn supervisor(words: &str) -> Supervisor {
        Supervisor::new(Rules::new(Client::new(NodeTag(0x5ecc), Token(1)), words), None).unwrap()
    }

    /// Runs `run` in a thread that has the filter. Returns `None` if the system does not allow that.
    fn filtered<T: Send + 'static>(words: &str, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut supervisor = supervisor(words);
        let filter = supervisor.filter();
        let thread = thread::spawn(move || match filter.install() {
            Ok(()) => Some(run()),
            Err(error) => {
                eprintln!("SKIP: the system allows no such filter: {error}");
                None
            }
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_is_the_kernels_works_as_ever_and_what_may_be_the_overlays_fails_without_a_node() {
        filtered("bind=kernel", || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let stream = TcpStream::connect(address).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!((stream.local_addr().unwrap(), accepted.local_addr().unwrap()), (peer, address));
            stream.set_nodelay(true).unwrap();
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            udp.send_to(b"own", udp.local_addr().unwrap()).unwrap();
            assert_eq!(udp.recv_from(&mut [0; 10]).unwrap(), (3, udp.local_addr().unwrap()));
            let error = TcpStream::connect("192.0.2.1:80").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
        });
    }

    #[test]
    fn where_only_the_overlay_is_allowed_no_socket_is_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        filtered("only", move || {
            // A listener exists there, but is not reached.
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
            std::os::unix::net::UnixDatagram::pair().unwrap();
        });
    }

    #[test]
    fn a_second_filter_that_notifies_is_refused_as_busy() {
        let other = supervisor("").filter();
        let refused = filtered("", move || other.install().unwrap_err().kind());
        assert!(matches!(refused, None | Some(io::ErrorKind::ResourceBusy)), "{refused:?}");
    }
}
