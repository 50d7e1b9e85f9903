//! The node's side of a program's connection.

use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use peersock::management::{foreign_peer, has_hung_up};

use crate::frame;
use crate::messages::{Ask, Reply, Wish};

/// Timeout of a program's first message.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A program's connection to the node. The program is of the node's user, or of root.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    process: u32,
    /// Held while a message is written, because several threads write.
    writing: Mutex<()>,
}

impl Connection {
    /// Takes an accepted connection.
    ///
    /// # Errors
    /// `PermissionDenied` if the program is another user's.
    pub fn new(stream: UnixStream) -> io::Result<Connection> {
        if foreign_peer(&stream)?.is_some() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let process = peersock_fd::peer_credentials(stream.as_fd())?.pid.unsigned_abs();
        Ok(Connection { stream, process, writing: Mutex::default() })
    }

    /// Returns the process that connected; 0 if it is in another PID namespace.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Returns true if the program has ended, or has closed the connection.
    pub fn has_hung_up(&self) -> bool {
        has_hung_up(&self.stream)
    }

    /// Waits for the first message.
    ///
    /// # Errors
    /// `InvalidData` if it is another message, and errors of the stream.
    pub fn wish(&self) -> io::Result<Wish> {
        let mut stream = Until { stream: &self.stream, end: Instant::now() + TIMEOUT };
        let wish = match frame::read(&mut stream)? {
            Some(Ask::Attach(wish)) => wish,
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        self.stream.set_read_timeout(None)?;
        Ok(wish)
    }

    /// Waits for the next message; `None` once the program has gone.
    ///
    /// # Errors
    /// Errors of the stream, and `InvalidData`.
    pub fn ask(&self) -> io::Result<Option<Ask>> {
        frame::read(&mut &self.stream)
    }

    /// Ends the connection: [`Connection::ask`] returns the end.
    pub fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Sends a message. Waits while the program is stopped and its messages have filled the stream.
    ///
    /// # Errors
    /// Errors of the stream.
    pub fn send(&self, reply: &Reply) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = frame::write(&mut &self.stream, reply);
        if sent.is_err() {
            // A message may have been cut, so that nothing later could be read.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
        sent
    }
}

/// A stream that is read until a time, however slowly bytes come.
struct Until<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buf)
    }
}
