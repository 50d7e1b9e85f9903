//! Lines for the users of attached programs: they are dropped while a program is stopped, so that the node
//! never waits for it.

use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use peersock_attach::{Connection, Reply};

/// Limit of lines that wait for one program.
const MAX_WAITING: usize = 64;

/// Lines on their way to one program. The last copy ends its thread.
#[derive(Clone)]
pub(super) struct Notes(SyncSender<Reply>);

impl Notes {
    /// Starts the thread that sends them.
    pub(super) fn start(connection: Arc<Connection>) -> io::Result<Notes> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let send = move || receiver.iter().all(|reply| connection.send(&reply).is_ok());
        thread::Builder::new().name("notes".into()).spawn(send)?;
        Ok(Notes(sender))
    }

    /// Sends a line for people.
    pub(super) fn tell(&self, note: impl ToString) {
        self.send(Reply::Note(note.to_string()));
    }

    /// Sends a line of the log.
    pub(super) fn log(&self, line: String) {
        self.send(Reply::Log(line));
    }

    fn send(&self, reply: Reply) {
        // A full queue belongs to a stopped program, and a closed one to a program that has gone.
        let (Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = self.0.try_send(reply);
    }
}

/// The log of a node in the background: the other end of its standard error.
pub(super) struct Log(PipeReader);

impl Log {
    /// Makes standard error a pipe.
    pub(super) fn of_stderr() -> io::Result<Log> {
        let (reader, writer) = io::pipe()?;
        rustix::stdio::dup2_stderr(writer)?;
        Ok(Log(reader))
    }

    /// Passes on each line, until the process ends.
    pub(super) fn follow(self, each: impl Fn(String) + Send + 'static) -> io::Result<()> {
        let lines = BufReader::new(self.0);
        let read = move || {
            lines.split(b'\n').map_while(Result::ok).for_each(|line| {
                each(String::from_utf8_lossy(&line).into_owned());
            })
        };
        thread::Builder::new().name("log".into()).spawn(read).map(drop)
    }
}
