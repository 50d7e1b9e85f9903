//! The greeting between a sender and a receiver, before the sender knows its files.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::Shutdown;

use crate::error::SendError;
use crate::limits::{GREETING, MESSAGE_BYTES, STALLED};
use crate::stream::{Stream, Within, drain};
use crate::wire::{self, FromSender, WireError, printable};

/// Buffer size in bytes: small files and messages are sent together in batches of this size; larger content
/// is sent at once.
const BATCH: usize = 64 << 10;

/// A receiver that has greeted. It waits for the manifest, so the sender can scan its files now.
///
/// ```
/// use std::os::unix::net::UnixStream;
///
/// use peersock_files::{Folder, Observer, Options, Sent, Source, greet, receive};
///
/// struct Silent;
/// impl Observer for Silent {}
///
/// let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// std::fs::write(from.path().join("file"), "content")?;
/// let folder = Folder::open(to.path())?;
/// let (here, there) = UnixStream::pair()?;
/// std::thread::spawn(move || receive(&there, &folder, Options::default(), &Silent));
/// let receiver = greet(&here)?;
/// let source = Source::scan(&[from.path().join("file")])?;
/// assert_eq!(receiver.send(&source, &Silent)?, Sent::Received { bytes: 7, files: 1 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Greeted<'a, S: Stream> {
    pub(crate) stream: &'a S,
    pub(crate) reader: BufReader<S>,
    pub(crate) writer: BufWriter<S>,
}

/// Greets a receiver and waits for its greeting.
///
/// # Errors
/// [`SendError::Wire`]: the receiver does not greet within [`GREETING`], is another program, speaks another
/// version, or the stream failed. The receiver is told about protocol errors.
pub fn greet<S: Stream>(stream: &S) -> Result<Greeted<'_, S>, SendError> {
    let mut greeted = Greeted {
        stream,
        reader: BufReader::with_capacity(MESSAGE_BYTES, stream.try_clone()?),
        writer: BufWriter::with_capacity(BATCH, stream.try_clone()?),
    };
    match greeted.exchange() {
        Ok(()) => Ok(greeted),
        Err(error) => {
            greeted.give_up(&error);
            Err(error)
        }
    }
}

impl<S: Stream> Greeted<'_, S> {
    fn exchange(&mut self) -> Result<(), SendError> {
        self.stream.set_write_timeout(Some(STALLED))?;
        wire::write_greeting(&mut self.writer)?;
        self.writer.flush()?;
        wire::read_greeting(&mut Within::new(self.stream, &mut self.reader, GREETING))?;
        Ok(self.stream.set_read_timeout(None)?)
    }

    /// Tells the receiver why it gets nothing, and whether it should come back soon. Waits until the receiver
    /// has read that, as [`refuse()`] does.
    pub fn refuse(mut self, reason: &str, again: bool) {
        let reason = printable(reason);
        let told = wire::write_message(&mut self.writer, &FromSender::Failed { reason, again });
        if told.and_then(|()| self.writer.flush()).is_ok() {
            end(self.stream, &mut self.reader);
        }
    }

    /// Tells the receiver why this end gives up, and waits until the receiver has read that.
    pub(crate) fn give_up(&mut self, error: &SendError) {
        if say_failure(&mut self.writer, error) {
            end(self.stream, &mut self.reader);
        } else if matches!(error, SendError::Stalled) {
            // Shuts down, because flushing the writer's remaining bytes would wait for another timeout.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Tells a receiver that has not greeted yet why it is refused, and whether it should come back soon. Waits
/// until it has read that and ended the stream, for at most [`FAREWELL`](crate::limits::FAREWELL).
pub fn refuse<S: Stream>(stream: &mut S, reason: &str, again: bool) {
    let reason = printable(reason);
    let told = wire::write_greeting(stream)
        .and_then(|()| wire::write_message(stream, &FromSender::Failed { reason, again }))
        .and_then(|()| stream.flush());
    if let (Ok(()), Ok(mut reader)) = (told, stream.try_clone()) {
        end(stream, &mut reader);
    }
}

/// Ends the stream in order, after the last message.
pub(crate) fn end<S: Stream>(stream: &S, reader: &mut impl Read) {
    let _ = stream.shutdown(Shutdown::Write);
    drain(stream, reader);
}

/// Tells the receiver why this end gives up, if the connection still works. Returns true if sent.
pub(crate) fn say_failure(writer: &mut impl Write, error: &SendError) -> bool {
    let again = matches!(error, SendError::Thread { .. });
    let reason = match error {
        // A frame is incomplete.
        SendError::Stalled => return false,
        SendError::Wire(WireError::Stream(_)) | SendError::Receiver { .. } | SendError::Busy => return false,
        error => printable(&error.to_string()),
    };
    let told = wire::write_message(writer, &FromSender::Failed { reason, again });
    told.and_then(|()| writer.flush()).is_ok()
}
