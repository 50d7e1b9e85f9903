//! Messages for attached programs. Lines for people are dropped while a program is stopped, so that the node
//! never waits for it.

use std::io::{self, BufRead as _, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use peersock_attach::{Connection, Reply};

/// Limit of lines that wait for one program, and of lines of the log before the first program.
const MAX_LINES: usize = 64;

/// Limit of events that wait for one program.
const MAX_EVENTS: usize = 1024;

/// Limit of questions that wait for one program.
const MAX_QUESTIONS: usize = 1024;

/// Messages on their way to one program. The last copy ends its thread.
#[derive(Clone)]
pub(super) struct Notes {
    sender: Sender<Reply>,
    waiting: Arc<Waiting>,
}

/// Numbers of messages that wait.
#[derive(Default)]
struct Waiting {
    lines: AtomicUsize,
    events: AtomicUsize,
    questions: AtomicUsize,
}

impl Waiting {
    /// Returns the counter of messages of this kind, and its limit.
    fn of(&self, reply: &Reply) -> (&AtomicUsize, usize) {
        match reply {
            Reply::Note(_) | Reply::Log(_) => (&self.lines, MAX_LINES),
            Reply::Event(_) => (&self.events, MAX_EVENTS),
            _ => (&self.questions, MAX_QUESTIONS),
        }
    }
}

/// Messages that wait until their program is attached, and nothing else is sent.
pub(super) struct Unsent(Receiver<Reply>, Arc<Waiting>);

impl Notes {
    pub(super) fn new() -> (Notes, Unsent) {
        let ((sender, receiver), waiting) = (channel(), Arc::<Waiting>::default());
        (Notes { sender, waiting: Arc::clone(&waiting) }, Unsent(receiver, waiting))
    }

    /// Sends a line for people.
    pub(super) fn tell(&self, note: impl ToString) {
        self.send(Reply::Note(note.to_string()));
    }

    /// Sends a line of the log.
    pub(super) fn log(&self, line: String) {
        self.send(Reply::Log(line));
    }

    /// Sends a message. Returns false if the program has gone, or is stopped and has not read earlier ones.
    pub(super) fn send(&self, reply: Reply) -> bool {
        let (waiting, limit) = self.waiting.of(&reply);
        if waiting.fetch_add(1, Ordering::Relaxed) >= limit {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.sender.send(reply).is_ok()
    }
}

impl Unsent {
    /// Starts the thread that sends them.
    pub(super) fn start(self, connection: Arc<Connection>) -> io::Result<()> {
        let send = move || {
            for reply in &self.0 {
                if connection.send(&reply).is_err() {
                    return;
                }
                self.1.of(&reply).0.fetch_sub(1, Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("notes".into()).spawn(send).map(drop)
    }
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
            None if heard.before.len() < MAX_LINES => heard.before.push(line),
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
