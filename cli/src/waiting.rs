//! Says what is waited for while a peer is looked for: on a terminal as a line that goes away, elsewhere
//! once, after a while.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::stdio;

/// Most peers are found before this.
const SHOW_AFTER: Duration = Duration::from_millis(500);

/// After this time somebody who reads a log is told.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(250);

/// Says so until it is dropped.
pub(crate) struct Waiting {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Begins to wait for what `text` says when it is asked.
    pub(crate) fn start(text: impl FnOnce() -> String + Send + 'static) -> io::Result<Waiting> {
        let (end, is_over) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("waiting".into()).spawn(move || {
            let on_terminal = io::stderr().is_terminal();
            let patience = if on_terminal { SHOW_AFTER } else { SAY_AFTER };
            if is_over.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if !on_terminal {
                return stdio::note(text());
            }
            let style = ProgressStyle::with_template("peersock: {msg}: {elapsed}");
            let line = ProgressBar::new_spinner().with_message(text());
            line.set_style(style.expect("the template is well-formed"));
            line.enable_steady_tick(TICK);
            let _ = is_over.recv();
            line.finish_and_clear();
        })?;
        Ok(Waiting { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end = None;
        // It has nothing to say if it has panicked.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
