use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read as _, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Stat;

use crate::error::SendError;
use crate::folder::{size_of, time_of};
use crate::greeting::{Greeted, end, greet, say_failure};
use crate::limits::{DATA_BYTES, FAREWELL, STALLED, wanted_within};
use crate::manifest::Entry;
use crate::scan::Source;
use crate::stream::{Observer, Stream, Within};
use crate::wire::{self, FromReceiver, FromSender, HEADER, Hash, WireError, printable};

/// Result of a successful receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The receiver has all files, verified and written.
    Received {
        /// Content bytes that were sent.
        bytes: u64,
        /// Files that the receiver did not have.
        files: u32,
    },
    /// The receiver requested only the manifest.
    Listed,
}

/// A file that a receiver wants.
struct Want {
    index: u32,
    offset: u64,
}

/// Reason why sending stops.
enum Stop {
    /// The receiver sent a message before all files were sent, or disconnected.
    Receiver,
    Failed(SendError),
}

impl<E: Into<SendError>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

/// Sends the files of `source` to one receiver and waits for its confirmation that they are written:
/// [`greet`], then [`Greeted::send`].
///
/// # Errors
/// [`SendError`]. The receiver is told this end's reason.
pub fn send<S: Stream>(stream: &S, source: &Source, observer: &dyn Observer) -> Result<Sent, SendError> {
    greet(stream)?.send(source, observer)
}

impl<S: Stream> Greeted<'_, S> {
    /// Sends the files of `source` and waits for the receiver's confirmation that they are written.
    ///
    /// # Errors
    /// [`SendError`]. The receiver is told this end's reason.
    pub fn send(mut self, source: &Source, observer: &dyn Observer) -> Result<Sent, SendError> {
        let wants = match ask(self.stream, &mut self.reader, &mut self.writer, source) {
            Ok(Some(wants)) => wants,
            Ok(None) => return Ok(Sent::Listed),
            Err(error) => {
                self.give_up(&error);
                return Err(error);
            }
        };
        let Greeted { stream, mut reader, mut writer } = self;
        let is_stopped = AtomicBool::new(false);
        let (said, verdict) = mpsc::channel();
        thread::scope(|scope| {
            let is_stopped = &is_stopped;
            let listening = thread::Builder::new().name("verdict".into()).spawn_scoped(scope, move || {
                let message = wire::read_message::<FromReceiver>(&mut reader);
                is_stopped.store(true, Ordering::Relaxed);
                // The channel may be gone, because `conclude` stops waiting after `FAREWELL`.
                let _ = said.send(message);
            });
            if let Err(source) = listening {
                let error = SendError::Thread { source };
                if let (true, Ok(mut reader)) = (say_failure(&mut writer, &error), stream.try_clone()) {
                    end(stream, &mut reader);
                }
                return Err(error);
            }
            let sent = send_files(&mut writer, source, &wants, is_stopped, observer);
            // The receiver may first write all content to its disk.
            let patience = wanted_within(wants.len(), *sent.as_ref().unwrap_or(&0));
            let ended = conclude(stream, &mut writer, sent, &verdict, patience);
            if ended.is_err() {
                // Ends the thread, which may still wait for a silent receiver.
                let _ = stream.shutdown(Shutdown::Both);
            }
            ended.map(|bytes| Sent::Received { bytes, files: wants.len() as u32 })
        })
    }
}

/// Sends the manifest and returns the receiver's requests; `None` if it wants only the manifest.
fn ask<S: Stream>(
    stream: &S,
    reader: &mut BufReader<S>,
    writer: &mut BufWriter<S>,
    source: &Source,
) -> Result<Option<Vec<Want>>, SendError> {
    let manifest = source.manifest();
    let entries = manifest.entries().len() as u32;
    wire::write_message(writer, &FromSender::Manifest { entries, left_out: source.left_out_count() })?;
    for entry in manifest.entries() {
        wire::write_message(writer, &FromSender::Entry(entry.clone()))?;
    }
    writer.flush()?;

    // Bounds the time that a silent receiver can block this sender.
    let mut left = wanted_within(manifest.entries().len(), manifest.bytes());
    // The receiver reads hashes only after computing its own.
    stream.set_write_timeout(Some(left))?;
    let mut compares = Vec::new();
    let mut next = 0;
    loop {
        match hear(stream, reader, &mut left)? {
            FromReceiver::Compare { index, length } => {
                let (_, size) = file(source, index, &mut next)?;
                if length > size {
                    return Err(WireError::Unexpected("a file is compared behind its end").into());
                }
                compares.push((index, length));
            }
            FromReceiver::Compared => break,
            FromReceiver::Listed => return Ok(None),
            other => return Err(unexpected(other)),
        }
    }
    // Sends no hash before all comparisons are read, because a receiver does not read while it writes.
    for (index, length) in compares {
        let (entry, _) = source.manifest().file(index).expect("it was checked");
        let hash = hash_of(source, entry, length)?;
        wire::write_message(writer, &FromSender::Hash(hash))?;
        // Flushes, so that a disconnected receiver is noticed before the next large file is read.
        if length >= DATA_BYTES as u64 {
            writer.flush()?;
        }
    }
    writer.flush()?;

    let mut wants = Vec::new();
    let mut next = 0;
    loop {
        match hear(stream, reader, &mut left)? {
            FromReceiver::Want { index, offset } => {
                let (_, size) = file(source, index, &mut next)?;
                if offset > size {
                    return Err(WireError::Unexpected("a file is wanted from behind its end").into());
                }
                wants.push(Want { index, offset });
            }
            FromReceiver::Wanted => break,
            other => return Err(unexpected(other)),
        }
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(Some(STALLED))?;
    Ok(Some(wants))
}

/// Reads a message of the receiver, within the time left for all its messages.
fn hear<S: Stream>(
    stream: &S,
    reader: &mut BufReader<S>,
    left: &mut Duration,
) -> Result<FromReceiver, WireError> {
    let begin = Instant::now();
    let heard = wire::read_message(&mut Within::new(stream, reader, *left));
    *left = left.saturating_sub(begin.elapsed());
    match heard {
        Err(WireError::Stream(error)) if error.kind() == ErrorKind::WouldBlock || left.is_zero() => {
            Err(WireError::Unexpected("the receiver has not said in time which files it wants"))
        }
        other => other,
    }
}

/// Returns the file with the number the receiver sent. Numbers must grow, which bounds their count by the
/// number of entries.
fn file<'a>(source: &'a Source, index: u32, next: &mut u32) -> Result<(&'a Entry, u64), WireError> {
    let found = source.manifest().file(index).filter(|_| index >= *next);
    *next = index.saturating_add(1);
    found.ok_or(WireError::Unexpected("a file is named that is none, or out of order"))
}

fn unexpected(message: FromReceiver) -> SendError {
    match message {
        FromReceiver::Failed { reason } => SendError::Receiver { reason: printable(&reason) },
        FromReceiver::Busy => SendError::Busy,
        _ => WireError::Unexpected("a message came at the wrong time").into(),
    }
}

/// Returns the hash of the first bytes of a file; `None` if the file's length differs from the manifest.
fn hash_of(source: &Source, entry: &Entry, length: u64) -> Result<Option<Hash>, SendError> {
    let (file, stat) = open(source, entry)?;
    if size_of(&stat) != entry.size() {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(length)).map_err(|error| local(entry, error))?;
    // The file may have become shorter meanwhile.
    Ok((hasher.count() == length).then(|| *hasher.finalize().as_bytes()))
}

/// Sends all requested files; returns the number of content bytes.
fn send_files(
    writer: &mut impl Write,
    source: &Source,
    wants: &[Want],
    is_stopped: &AtomicBool,
    observer: &dyn Observer,
) -> Result<u64, Stop> {
    let size = |want: &Want| source.manifest().file(want.index).map_or(0, |(_, size)| size);
    let bytes = wants.iter().map(|want| size(want) - want.offset).sum();
    observer.begins(bytes, wants.len() as u32);
    let mut buffer = vec![0; HEADER + DATA_BYTES];
    let mut sent = 0;
    for want in wants {
        let (entry, _) = source.manifest().file(want.index).expect("it was checked");
        sent += send_file(writer, source, entry, want, &mut buffer, is_stopped, observer)?;
    }
    wire::write_message(writer, &FromSender::Complete)?;
    writer.flush()?;
    Ok(sent)
}

fn send_file(
    writer: &mut impl Write,
    source: &Source,
    entry: &Entry,
    want: &Want,
    buffer: &mut [u8],
    is_stopped: &AtomicBool,
    observer: &dyn Observer,
) -> Result<u64, Stop> {
    let (mut file, stat) = open(source, entry)?;
    check_unchanged(entry, &stat)?;
    let mut hasher = blake3::Hasher::new();
    // Hashes the prefix again even if it was compared, because the final hash covers the file as it is now.
    let Want { index, offset } = *want;
    hash_prefix(&mut file, offset, &mut hasher, buffer, is_stopped, entry)?;
    wire::write_message(writer, &FromSender::Begin { index, offset })?;
    let mut left = entry.size() - offset;
    while left > 0 {
        let content = &mut buffer[HEADER..];
        let count = read(&mut file, content, left, entry)?;
        stop_if(is_stopped)?;
        hasher.update(&content[..count]);
        wire::write_content(writer, buffer, count)?;
        observer.moved(count as u64);
        left -= count as u64;
    }
    // Checks the modification time, which shows changes after the manifest was made.
    let stat = rustix::fs::fstat(&file).map_err(|error| local(entry, error))?;
    check_unchanged(entry, &stat)?;
    wire::write_message(writer, &FromSender::End { hash: *hasher.finalize().as_bytes() })?;
    Ok(entry.size() - offset)
}

fn hash_prefix(
    file: &mut File,
    mut left: u64,
    hasher: &mut blake3::Hasher,
    buffer: &mut [u8],
    is_stopped: &AtomicBool,
    entry: &Entry,
) -> Result<(), Stop> {
    while left > 0 {
        let count = read(file, buffer, left, entry)?;
        stop_if(is_stopped)?;
        hasher.update(&buffer[..count]);
        left -= count as u64;
    }
    Ok(())
}

/// Reads part of the remaining bytes, at least one.
fn read(file: &mut File, buffer: &mut [u8], left: u64, entry: &Entry) -> Result<usize, SendError> {
    let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    loop {
        match file.read(&mut buffer[..most]) {
            Ok(0) => return Err(changed(entry)),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(local(entry, error)),
        }
    }
}

fn stop_if(is_stopped: &AtomicBool) -> Result<(), Stop> {
    match is_stopped.load(Ordering::Relaxed) {
        true => Err(Stop::Receiver),
        false => Ok(()),
    }
}

fn open(source: &Source, entry: &Entry) -> Result<(File, Stat), SendError> {
    source.open(&entry.path).map_err(|error| local(entry, error))
}

fn check_unchanged(entry: &Entry, stat: &Stat) -> Result<(), SendError> {
    match size_of(stat) == entry.size() && time_of(stat) == entry.time {
        true => Ok(()),
        false => Err(changed(entry)),
    }
}

fn changed(entry: &Entry) -> SendError {
    SendError::Changed { path: entry.path.to_string() }
}

fn local(entry: &Entry, source: impl Into<std::io::Error>) -> SendError {
    SendError::Local { path: entry.path.to_string(), source: source.into() }
}

/// Waits for the receiver's verdict, or tells the receiver why sending failed.
fn conclude<S: Stream>(
    stream: &S,
    writer: &mut BufWriter<S>,
    sent: Result<u64, Stop>,
    verdict: &Receiver<Result<FromReceiver, WireError>>,
    patience: Duration,
) -> Result<u64, SendError> {
    let judge = |verdict| match verdict {
        Ok(FromReceiver::Failed { reason }) => Err(SendError::Receiver { reason: printable(&reason) }),
        Ok(FromReceiver::Received) => Ok(()),
        Ok(_) => Err(WireError::Unexpected("a message came at the wrong time").into()),
        Err(error) => Err(SendError::from(error)),
    };
    match sent {
        Ok(bytes) => match verdict.recv_timeout(patience) {
            Ok(verdict) => judge(verdict).map(|()| bytes),
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread says something before it ends"),
            Err(RecvTimeoutError::Timeout) => {
                let error = WireError::Unexpected("the receiver has not said in time that it has everything");
                let error = error.into();
                stream.set_write_timeout(Some(FAREWELL))?;
                say_failure(writer, &error);
                Err(error)
            }
        },
        Err(Stop::Receiver) => {
            let verdict = verdict.recv().expect("the thread has stopped this one");
            judge(verdict)?;
            Err(WireError::Unexpected("it claims to have data that was not sent yet").into())
        }
        Err(Stop::Failed(error)) => {
            if say_failure(writer, &error) {
                let _ = stream.shutdown(Shutdown::Write);
            }
            match verdict.recv_timeout(FAREWELL) {
                // The receiver's failure explains the write error.
                Ok(Ok(FromReceiver::Failed { reason })) => {
                    Err(SendError::Receiver { reason: printable(&reason) })
                }
                _ => Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_never_says_that_it_has_everything_is_let_go() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut writer = BufWriter::new(here.try_clone().unwrap());
        let (_said, verdict) = mpsc::channel();
        let error = conclude(&here, &mut writer, Ok(7), &verdict, Duration::ZERO).unwrap_err();
        let reason = "the receiver has not said in time that it has everything";
        assert_eq!(error.to_string(), reason);
        drop((here, writer));
        let mut said = Vec::new();
        there.read_to_end(&mut said).unwrap();
        assert_eq!(said, FromSender::Failed { reason: reason.into(), again: false }.to_frame());
    }
}
