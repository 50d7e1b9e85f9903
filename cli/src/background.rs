//! Background threads.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// A thread that ends when this is dropped.
pub(crate) struct Background {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts a thread that must end once the receiver passed to `run` is disconnected. The receiver gets a
    /// message for each [`wake`](Background::wake).
    pub(crate) fn start(
        name: &str,
        run: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> io::Result<Background> {
        let (end, is_over) = mpsc::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || run(is_over))?;
        Ok(Background { end: Some(end), thread: Some(thread) })
    }

    /// Tells the thread that it has work.
    pub(crate) fn wake(&self) {
        // Fails if the thread has already ended, which is fine.
        let _ = self.end.as_ref().map(|thread| thread.send(()));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end = None;
        // A panic of the thread has no result to report.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
