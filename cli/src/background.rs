//! Threads that run beside what the program does.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// A thread that ends when this is dropped.
pub(crate) struct Background {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts a thread. It is to end as soon as the receiver that `run` gets is disconnected, which has a
    /// message for each [`wake`](Background::wake).
    pub(crate) fn start(
        name: &str,
        run: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> io::Result<Background> {
        let (end, is_over) = mpsc::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || run(is_over))?;
        Ok(Background { end: Some(end), thread: Some(thread) })
    }

    /// Tells the thread that there is something to do.
    pub(crate) fn wake(&self) {
        // Nobody waits if it has ended by itself.
        let _ = self.end.as_ref().map(|thread| thread.send(()));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end = None;
        // It has nothing to say if it has panicked.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
