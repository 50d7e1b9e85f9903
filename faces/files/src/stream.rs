use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::limits::{DATA_BYTES, DRAINED, FAREWELL};
use crate::manifest::Manifest;

/// A bidirectional connection of which several threads may have handles.
pub trait Stream: Read + Write + Send + Sized {
    /// Returns another handle of the same connection.
    ///
    /// # Errors
    /// Returns system errors, if no more handles can be opened.
    fn try_clone(&self) -> io::Result<Self>;

    /// Ends one direction or both. Threads that wait on the connection return.
    ///
    /// # Errors
    /// Fails if the connection has ended.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Sets the timeout of a read; it then fails with `WouldBlock` or `TimedOut`.
    ///
    /// # Errors
    /// Fails for a timeout of zero.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sets the timeout of a write without progress; it then fails with `WouldBlock`.
    ///
    /// # Errors
    /// Fails for a timeout of zero.
    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
}

macro_rules! streams {
    ($($stream:ty),+) => {$(
        impl Stream for $stream {
            fn try_clone(&self) -> io::Result<Self> {
                <$stream>::try_clone(self)
            }

            fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                <$stream>::shutdown(self, how)
            }

            fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                <$stream>::set_read_timeout(self, timeout)
            }

            fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                <$stream>::set_write_timeout(self, timeout)
            }
        }
    )+};
}

streams!(UnixStream, std::net::TcpStream, peersock::blocking::TcpStream);

/// An observer of a receipt, for progress. The transferring thread calls it, so calls must be short.
pub trait Observer: Sync {
    /// Reports the received manifest; `left_out` is the number of entries that the sender left out.
    fn announced(&self, manifest: &Manifest, left_out: u32) {
        let _ = (manifest, left_out);
    }

    /// Reports the start of the transfer. `bytes` and `files` count content without existing files.
    fn begins(&self, bytes: u64, files: u32) {
        let _ = (bytes, files);
    }

    /// Reports `bytes` more bytes of content that were sent or written.
    fn moved(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Reports `bytes` more bytes of existing content that were read for comparison.
    fn compared(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// A reader with a deadline: no read ends later, however slowly bytes arrive. It then fails with
/// `WouldBlock`.
pub(crate) struct Within<'a, S, R> {
    stream: &'a S,
    /// Reader on top of the stream.
    reader: &'a mut R,
    end: Instant,
}

impl<'a, S: Stream, R: Read> Within<'a, S, R> {
    pub(crate) fn new(stream: &'a S, reader: &'a mut R, time: Duration) -> Within<'a, S, R> {
        Within { stream, reader, end: Instant::now() + time }
    }
}

impl<S: Stream, R: Read> Read for Within<'_, S, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let late = || io::Error::new(io::ErrorKind::WouldBlock, "the other end has not answered in time");
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(late()),
            other => other,
        }
    }
}

/// Reads until the other end ends the stream, for at most [`FAREWELL`]. Closing a connection with unread data
/// resets it, and the other end might miss the last message.
pub(crate) fn drain<S: Stream>(stream: &S, reader: &mut impl Read) {
    let mut reader = Within::new(stream, reader, FAREWELL);
    let (mut drained, mut buffer) = (0, vec![0; DATA_BYTES]);
    while drained < DRAINED {
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => drained += count as u64,
        }
    }
}
