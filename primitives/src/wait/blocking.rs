//! Blocking work of tasks, on threads whose start may fail.
//!
//! Tokio's `spawn_blocking` and `lookup_host` panic if the system refuses the first thread of their pool.
//! With a runtime of several threads, they wait for ever if the runtime lacks one of its threads.

use std::collections::VecDeque;
use std::future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread::{self, Builder};

use crate::sync::{self, Mutex};

/// Limit of threads at a time, as tokio's.
const MAX_THREADS: usize = 512;
/// Bytes of each thread's stack, as the standard library's default.
const STACK: usize = 2 << 20;

static POOL: Pool = Pool::new(MAX_THREADS, STACK);

/// Does blocking work on another thread. If the system refuses one more, the work waits for one that runs.
/// The work is done even if the task stops waiting. A panic of the work continues in the task.
///
/// # Errors
/// There is no thread, and the system refuses one (a limit on processes or memory).
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    POOL.run(work).await
}

/// Returns the addresses of a host, which the system resolves unless the text is an address.
///
/// # Errors
/// The errors of the system's resolver, and of [`blocking`].
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    blocking(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await?
}

type Work = Box<dyn FnOnce() + Send>;

struct Pool {
    jobs: Mutex<Jobs>,
    max_threads: usize,
    stack: usize,
}

struct Jobs {
    threads: usize,
    waiting: VecDeque<Work>,
}

/// Result on its way from a thread to a task.
struct Slot<T> {
    result: Option<thread::Result<T>>,
    waker: Option<Waker>,
}

impl Pool {
    const fn new(max_threads: usize, stack: usize) -> Pool {
        Pool { jobs: Mutex::new(Jobs { threads: 0, waiting: VecDeque::new() }), max_threads, stack }
    }

    async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let slot = Arc::new(Mutex::new(Slot { result: None, waker: None }));
        let its = Arc::clone(&slot);
        self.begin(Box::new(move || {
            let result = panic::catch_unwind(AssertUnwindSafe(work));
            let mut slot = sync::lock(&its);
            slot.result = Some(result);
            let waker = slot.waker.take();
            drop(slot);
            waker.into_iter().for_each(Waker::wake);
        }))?;
        let result = future::poll_fn(|context| {
            let mut slot = sync::lock(&slot);
            match slot.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        result.await.or_else(|panic| panic::resume_unwind(panic))
    }

    fn begin(&'static self, work: Work) -> io::Result<()> {
        let mut jobs = sync::lock(&self.jobs);
        if jobs.threads < self.max_threads {
            let builder = Builder::new().name("peersock-block".into()).stack_size(self.stack);
            match builder.spawn(|| self.serve()) {
                Ok(_) => jobs.threads += 1,
                // Without the error's kind, because EAGAIN would be read as "try again once it is readable".
                Err(error) if jobs.threads == 0 => {
                    let text = format!("no thread can be started ({error}): raise the limit (`ulimit -u`)");
                    return Err(io::Error::other(text));
                }
                Err(_) => {}
            }
        }
        jobs.waiting.push_back(work);
        Ok(())
    }

    fn serve(&self) {
        loop {
            let mut jobs = sync::lock(&self.jobs);
            let Some(work) = jobs.waiting.pop_front() else {
                jobs.threads -= 1;
                return;
            };
            drop(jobs);
            work();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Wake};

    use super::*;

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait_for<T>(task: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut task = pin!(task);
        loop {
            match task.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn work_is_done_on_another_thread_and_its_panic_continues_here() {
        let own = thread::current().id();
        let other = wait_for(blocking(|| thread::current().id())).expect("a thread");
        assert_ne!(own, other);
        let panics = || wait_for(blocking(|| panic!("on purpose")));
        let panic = panic::catch_unwind(panics).expect_err("it panics here, too");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    }

    #[test]
    fn a_host_has_its_addresses() {
        let found = wait_for(resolve("::1", 7)).expect("an address needs no resolver");
        assert_eq!(found, [SocketAddr::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 7)]);
        let found = wait_for(resolve("localhost", 7)).expect("each system knows it");
        assert!(!found.is_empty() && found.iter().all(|found| found.ip().is_loopback()), "{found:?}");
    }

    #[test]
    fn a_refused_first_thread_is_an_error() {
        // No address space has room for such a stack.
        static REFUSED: Pool = Pool::new(1, 1 << 60);
        let error = wait_for(REFUSED.run(|| ())).expect_err("there is no thread");
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert!(error.to_string().contains("ulimit -u"), "{error}");
    }

    #[test]
    fn without_one_more_thread_work_waits_for_one_that_runs() {
        static ONE: Pool = Pool::new(1, STACK);
        let (go, gone) = mpsc::channel::<()>();
        let first = ONE.run(move || {
            gone.recv().expect("the other end exists");
            thread::current().id()
        });
        let second = ONE.run(|| thread::current().id());
        wait_for(async {
            let (mut first, mut second) = (pin!(first), pin!(second));
            // The first poll begins the work.
            future::poll_fn(|context| {
                assert!(first.as_mut().poll(context).is_pending());
                assert!(second.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            go.send(()).expect("it waits");
            assert_eq!(first.await.expect("a thread"), second.await.expect("the same"));
        });
    }
}
