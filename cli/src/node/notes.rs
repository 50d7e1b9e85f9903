//! Messages for attached programs. Lines for people are dropped while a program is stopped, so that the node
//! never waits for it.

use std::io::{self, BufRead as _, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use peersock_attach::{Connection, Reply};

/// Limit of lines that wait for one program, and of lines of the log before the first program.
const MAX_WAITING: usize = 64;

/// Messages on their way to one program. The last copy ends its thread.
#[derive(Clone)]
pub(super) struct Notes {
    sender: Sender<Reply>,
    /// Number of lines that wait.
    waiting: Arc<AtomicUsize>,
}

impl Notes {
    /// Starts the thread that sends them.
    pub(super) fn start(connection: Arc<Connection>) -> io::Result<Notes> {
        let (sender, receiver) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = Arc::clone(&waiting);
        let send = move || {
            for reply in receiver {
                let is_line = is_line(&reply);
                if connection.send(&reply).is_err() {
                    return;
                }
                sent.fetch_sub(usize::from(is_line), Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("notes".into()).spawn(send)?;
        Ok(Notes { sender, waiting })
    }

    /// Sends a line for people.
    pub(super) fn tell(&self, note: impl ToString) {
        self.send(Reply::Note(note.to_string()));
    }

    /// Sends a line of the log.
    pub(super) fn log(&self, line: String) {
        self.send(Reply::Log(line));
    }

    /// Sends a message. Returns false if the program has gone. The caller bounds the number of messages that
    /// are no lines.
    pub(super) fn send(&self, reply: Reply) -> bool {
        if is_line(&reply) && self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return true;
        }
        self.sender.send(reply).is_ok()
    }
}

fn is_line(reply: &Reply) -> bool {
    matches!(reply, Reply::Note(_) | Reply::Log(_))
}

/// The log of a node in the background, which is its standard error.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// Lines before somebody listens.
    before: Vec<String>,
    listener: Option<Box<dyn Fn(String) + Send>>,
}

impl Log {
    /// Makes standard error a pipe, and reads it until the process ends.
    pub(super) fn of_stderr() -> io::Result<Log> {
        let (reader, writer) = io::pipe()?;
        let log = Log::default();
        let its = log.clone();
        let read = move || {
            let lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
            lines.for_each(|line| its.take(String::from_utf8_lossy(&line).into_owned()));
        };
        // Before anything is written, because a full pipe would stop the node.
        thread::Builder::new().name("log".into()).spawn(read)?;
        rustix::stdio::dup2_stderr(writer)?;
        Ok(log)
    }

    fn take(&self, line: String) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &heard.listener {
            Some(listener) => listener(line),
            None if heard.before.len() < MAX_WAITING => heard.before.push(line),
            None => {}
        }
    }

    /// Passes all lines to `listener` from now on, and those so far.
    pub(super) fn pass_to(&self, listener: impl Fn(String) + Send + 'static) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut heard.before).into_iter().for_each(&listener);
        heard.listener = Some(Box::new(listener));
    }
}
