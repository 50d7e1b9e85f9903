use std::fmt;
use std::io::{self, BufRead as _, BufReader, BufWriter, Error, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::mem;
use std::net::Shutdown;
use std::time::Duration;

use crate::error::ReceiveError;
use crate::folder::{Folder, Part};
use crate::limits::{DATA_BYTES, ENTRIES, GREETING, MESSAGE_BYTES, PARTS, SILENT, silent_within};
use crate::manifest::{Entry, Kind, Manifest, ManifestError};
use crate::plan::{Compare, Plan, Want};
use crate::stream::{Observer, Stream, Within, drain};
use crate::wire::{self, Frame, FromReceiver, FromSender, WireError, printable};

/// Up to this number of entries, each file is synced separately. Beyond it, only files of at least
/// [`LARGE_FILE_BYTES`] bytes are, and others are synced in groups of [`PARTS`] with the whole file system.
const MAX_SYNCED_EACH: usize = 64;
const LARGE_FILE_BYTES: u64 = 1 << 20;

/// Duration of a look whether the sender still waits.
const LOOK: Duration = Duration::from_millis(5);

/// Options of a receiver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// If true, differing files and links are replaced. Otherwise they are an error before any transfer.
    pub overwrite: bool,
    /// If true, only the manifest is requested.
    pub list_only: bool,
}

/// Result of a receipt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Number of files received.
    pub files: u32,
    /// Number of bytes received.
    pub bytes: u64,
    /// Number of files that were already there and identical.
    pub there: u32,
    /// Number of entries that the sender left out.
    pub left_out: u32,
}

/// Receives a sender's files into a folder: [`offered`], then [`Offered::receive`]. On return, all files are
/// verified, written and confirmed.
///
/// # Errors
/// [`ReceiveError`]. Received data is kept in partial files and resumed next time. The sender is told this
/// end's reason, but not the folder's content.
pub fn receive<S: Stream>(
    stream: &S,
    folder: &Folder,
    options: Options,
    observer: &dyn Observer,
) -> Result<Receipt, ReceiveError> {
    offered(stream)?.receive(folder, options, observer)
}

/// Greets a sender, and reads which files it offers. Nothing is written yet.
///
/// ```
/// use std::os::unix::net::UnixStream;
///
/// use peersock_files::{Observer, SendError, Source, offered, send};
///
/// struct Silent;
/// impl Observer for Silent {}
///
/// let from = tempfile::tempdir()?;
/// std::fs::write(from.path().join("file"), "content")?;
/// let source = Source::scan(&[from.path().join("file")])?;
/// let (here, there) = UnixStream::pair()?;
/// let sending = std::thread::spawn(move || send(&there, &source, &Silent));
/// let offered = offered(&here)?;
/// assert_eq!(offered.manifest().bytes(), 7);
/// offered.decline("nobody wants it");
/// assert!(matches!(sending.join().unwrap(), Err(SendError::Receiver { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As of [`receive`].
pub fn offered<S: Stream>(stream: &S) -> Result<Offered<'_, S>, ReceiveError> {
    let mut link = Link::new(stream)?;
    let greeted = link.greet().map_err(|error| cut_off(error.into()));
    match greeted.and_then(|()| link.begin().map_err(|error| link.explain(error))) {
        Ok((manifest, left_out)) => Ok(Offered { link, manifest, left_out }),
        Err(error) => Err(link.give_up(error)),
    }
}

/// Files that a sender offers. It waits for the answer as long as [`wanted_within`](crate::limits) says, so
/// a person can be asked.
#[derive(Debug)]
pub struct Offered<'a, S: Stream> {
    link: Link<'a, S>,
    manifest: Manifest,
    left_out: u32,
}

impl<S: Stream> Offered<'_, S> {
    /// Returns the offered entries.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns true once the sender does not wait for an answer any more. Takes a few milliseconds.
    pub fn has_ended(&mut self) -> bool {
        // A sender that waits has nothing to say but that it gives up.
        let look = self.link.stream.set_read_timeout(Some(LOOK)).and_then(|()| self.link.reader.fill_buf());
        !look.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Receives the files as [`receive`] does.
    ///
    /// # Errors
    /// As of [`receive`].
    pub fn receive(
        self,
        folder: &Folder,
        options: Options,
        observer: &dyn Observer,
    ) -> Result<Receipt, ReceiveError> {
        let Offered { link, manifest, left_out } = self;
        let mut receiver = Receiver { link, folder, options, observer, verified: Vec::new() };
        let received = receiver.run(&manifest, left_out);
        let Receiver { mut link, .. } = receiver;
        match received.map_err(|error| link.explain(error)) {
            Ok(receipt) => {
                link.end();
                Ok(receipt)
            }
            Err(error) => Err(link.give_up(error)),
        }
    }

    /// Tells the sender why nothing is received, and waits until it has read that, for at most
    /// [`FAREWELL`](crate::limits::FAREWELL).
    pub fn decline(mut self, reason: &str) {
        self.link.tell(&FromReceiver::Failed { reason: printable(reason) });
    }

    /// Tells the sender to come back later; see [`decline`](Self::decline).
    pub fn put_off(mut self) {
        self.link.tell(&FromReceiver::Busy);
    }
}

/// Tells a sender that has not greeted yet why it is refused. Waits until it has read that and ended the
/// stream, for at most [`FAREWELL`](crate::limits::FAREWELL).
pub fn decline<S: Stream>(stream: &S, reason: &str) {
    if let Ok(mut link) = Link::new(stream)
        && wire::write_greeting(&mut link.writer).is_ok()
    {
        link.tell(&FromReceiver::Failed { reason: printable(reason) });
    }
}

/// Connection with a sender.
struct Link<'a, S: Stream> {
    stream: &'a S,
    /// Timeout of the sender's next message.
    patience: Duration,
    reader: BufReader<S>,
    writer: BufWriter<S>,
}

impl<S: Stream> fmt::Debug for Link<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl<'a, S: Stream> Link<'a, S> {
    fn new(stream: &'a S) -> io::Result<Link<'a, S>> {
        Ok(Link {
            stream,
            patience: SILENT,
            reader: BufReader::with_capacity(DATA_BYTES, stream.try_clone()?),
            writer: BufWriter::with_capacity(MESSAGE_BYTES, stream.try_clone()?),
        })
    }

    /// Reads the manifest, after the greeting.
    fn begin(&mut self) -> Result<(Manifest, u32), ReceiveError> {
        // The sender may still be scanning its files.
        self.wait_for(SILENT)?;
        self.stream.set_write_timeout(Some(SILENT))?;
        self.manifest()
    }

    fn greet(&mut self) -> Result<(), WireError> {
        wire::write_greeting(&mut self.writer)?;
        self.writer.flush()?;
        wire::read_greeting(&mut Within::new(self.stream, &mut self.reader, GREETING))
    }

    fn say(&mut self, message: &FromReceiver) -> Result<(), ReceiveError> {
        Ok(wire::write_message(&mut self.writer, message)?)
    }

    /// Sends a last message, and ends the stream in order. Nothing can be done if that fails.
    fn tell(&mut self, message: &FromReceiver) {
        let told = wire::write_message(&mut self.writer, message);
        if told.and_then(|()| self.writer.flush()).is_ok() {
            self.end();
        }
    }

    fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        drain(self.stream, &mut self.reader);
    }

    /// Tells the sender why this end gives up, unless the sender has ended first. Returns the error.
    fn give_up(&mut self, error: ReceiveError) -> ReceiveError {
        if !matches!(error, ReceiveError::Wire(WireError::Stream(_)) | ReceiveError::Sender { .. }) {
            self.tell(&FromReceiver::Failed { reason: error.for_sender() });
        }
        error
    }

    /// Sets the timeout of the sender's messages from now on.
    fn wait_for(&mut self, patience: Duration) -> io::Result<()> {
        self.patience = patience;
        self.stream.set_read_timeout(Some(patience))
    }

    /// Replaces timeouts, and ends in the middle of a frame, by explanations.
    fn explain(&self, error: ReceiveError) -> ReceiveError {
        match error {
            ReceiveError::Wire(WireError::Stream(error)) if error.kind() == ErrorKind::WouldBlock => {
                ReceiveError::Silent(self.patience)
            }
            other => cut_off(other),
        }
    }

    fn hear(&mut self) -> Result<FromSender, ReceiveError> {
        match wire::read_message(&mut self.reader)? {
            FromSender::Failed { reason, again } => Err(ReceiveError::sender(&reason, again)),
            message => Ok(message),
        }
    }

    fn manifest(&mut self) -> Result<(Manifest, u32), ReceiveError> {
        let FromSender::Manifest { entries, left_out } = self.hear()? else {
            return Err(unexpected("a message came before the manifest"));
        };
        if entries > ENTRIES {
            return Err(malformed(ManifestError::Entries));
        }
        let mut manifest = Manifest::default();
        for _ in 0..entries {
            match self.hear()? {
                FromSender::Entry(entry) => manifest.push(entry).map_err(malformed)?,
                _ => return Err(unexpected("the manifest is shorter than it says")),
            }
        }
        Ok((manifest, left_out))
    }
}

struct Receiver<'a, S: Stream> {
    link: Link<'a, S>,
    folder: &'a Folder,
    options: Options,
    observer: &'a dyn Observer,
    /// Files that are received but not yet on disk; they get their names after the sync.
    verified: Vec<(Entry, Part)>,
}

impl<S: Stream> Receiver<'_, S> {
    fn run(&mut self, manifest: &Manifest, left_out: u32) -> Result<Receipt, ReceiveError> {
        self.observer.announced(manifest, left_out);
        if self.options.list_only {
            self.link.say(&FromReceiver::Listed)?;
            self.link.writer.flush()?;
            return Ok(Receipt { left_out, ..Receipt::default() });
        }
        let plan = self.plan(manifest)?;
        let (bytes, there) = (plan.bytes(manifest), plan.there);
        let files = plan.wants.len() as u32;
        self.observer.begins(bytes, files);
        for want in &plan.wants {
            let Want { index, offset, .. } = *want;
            self.link.say(&FromReceiver::Want { index, offset })?;
        }
        self.link.say(&FromReceiver::Wanted)?;
        self.link.writer.flush()?;
        self.take(plan, manifest)?;
        self.link.say(&FromReceiver::Received)?;
        self.link.writer.flush()?;
        Ok(Receipt { files, bytes, there, left_out })
    }

    /// Determines the files to receive. The sender learns which files are compared, but no hash of them,
    /// because a hash reveals a file with guessable content.
    fn plan(&mut self, manifest: &Manifest) -> Result<Plan, ReceiveError> {
        let Options { overwrite, .. } = self.options;
        let mut plan = Plan::look(self.folder, manifest, overwrite)?;
        for &Compare { index, length, .. } in &plan.compares {
            self.link.say(&FromReceiver::Compare { index, length })?;
        }
        self.link.say(&FromReceiver::Compared)?;
        if !plan.compares.is_empty() {
            self.link.writer.flush()?;
            for compare in mem::take(&mut plan.compares) {
                // The sender hashes its files in parallel.
                let own = compare.hash(self.folder, manifest, self.observer)?;
                self.link.wait_for(silent_within(compare.length))?;
                match self.link.hear()? {
                    FromSender::Hash(theirs) => plan.compared(manifest, compare, own, theirs, overwrite),
                    _ => return Err(unexpected("a message came in place of a comparison")),
                }
            }
            plan.wants.sort_by_key(|want| want.index);
        }
        self.link.wait_for(SILENT)?;
        plan.check(self.folder, manifest)?;
        Ok(plan)
    }

    /// Receives all files, then creates the links, so that no path to a file goes through a link.
    fn take(&mut self, plan: Plan, manifest: &Manifest) -> Result<(), ReceiveError> {
        let Plan { folders, links, wants, .. } = plan;
        let entry = |index: u32| &manifest.entries()[index as usize];
        for Entry { path, permissions, .. } in folders.iter().copied().map(entry) {
            let made = self.folder.make_folder(path, *permissions);
            made.map_err(|error| ReceiveError::local(path, error))?;
        }
        let mut buffer = vec![0; DATA_BYTES];
        let is_few = folders.len() + links.len() + wants.len() <= MAX_SYNCED_EACH;
        let written: Vec<_> = wants.iter().map(|want| want.index).collect();
        let mut taken = Ok(());
        for want in wants {
            let at = entry(want.index);
            taken = self.take_file(at, want, &mut buffer, is_few || at.size() >= LARGE_FILE_BYTES);
            if taken.is_err() {
                break;
            }
        }
        // Names verified files even if the connection broke, so that they need not be sent again.
        let named = self.name_verified();
        taken.and(named)?;
        match self.link.hear()? {
            FromSender::Complete => {}
            _ => return Err(unexpected("a message came in place of the end")),
        }
        for Entry { path, kind, .. } in links.iter().copied().map(entry) {
            let Kind::Link { target } = kind else { continue };
            let made = self.folder.make_link(path, target.as_str(), self.options.overwrite);
            made.map_err(|error| ReceiveError::local(path, error))?;
        }
        // Includes folders from an earlier attempt. Another user's folder keeps its time.
        let all = manifest.entries().iter().filter(|entry| entry.kind == Kind::Folder);
        for Entry { path, time, .. } in all {
            let _ = self.folder.set_time(path, *time);
        }
        if !is_few {
            return self.folder.sync_all().map_err(|error| ReceiveError::local("the folder", error));
        }
        for path in [folders, links, written].concat().into_iter().map(|index| &entry(index).path) {
            self.folder.sync_parent(path).map_err(|error| ReceiveError::local(path, error))?;
        }
        Ok(())
    }

    fn take_file(
        &mut self,
        entry: &Entry,
        want: Want,
        buffer: &mut [u8],
        sync: bool,
    ) -> Result<(), ReceiveError> {
        let local = |error| ReceiveError::local(&entry.path, error);
        let Kind::File { size } = entry.kind else {
            return Err(unexpected("an entry is no file"));
        };
        // The sender reads again the bytes that are already here.
        self.link.wait_for(silent_within(want.offset))?;
        let FromSender::Begin { index, offset } = self.link.hear()? else {
            return Err(unexpected("a message came in place of a file"));
        };
        if (index, offset) != (want.index, want.offset) {
            return Err(unexpected("a file came that is not wanted, or not from there on"));
        }
        let (mut part, mut hasher) = match want.part {
            Some((mut part, hasher)) if offset > 0 => {
                part.file.seek(SeekFrom::Start(offset)).map_err(local)?;
                (part, hasher)
            }
            Some((mut part, _)) => {
                part.clear().map_err(local)?;
                (part, blake3::Hasher::new())
            }
            None => (self.folder.make_part(&entry.path).map_err(local)?, blake3::Hasher::new()),
        };
        self.link.wait_for(SILENT)?;
        let mut left = size - offset;
        let hash = loop {
            match wire::read_frame(&mut self.link.reader, buffer)? {
                Frame::Content(count) => {
                    let Some(rest) = left.checked_sub(count as u64) else {
                        part.remove().map_err(local)?;
                        return Err(unexpected("a file is longer than it was announced"));
                    };
                    part.file.write_all(&buffer[..count]).map_err(local)?;
                    hasher.update(&buffer[..count]);
                    self.observer.moved(count as u64);
                    left = rest;
                }
                Frame::Message(FromSender::End { hash }) if left == 0 => break hash,
                Frame::Message(FromSender::End { .. }) => {
                    return Err(unexpected("a file is shorter than it was announced"));
                }
                Frame::Message(FromSender::Failed { reason, again }) => {
                    return Err(ReceiveError::sender(&reason, again));
                }
                Frame::Message(_) => return Err(unexpected("a message came in the middle of a file")),
            }
        };
        // Needs no constant-time comparison, because the hash is not secret.
        if *hasher.finalize().as_bytes() != hash {
            part.remove().map_err(local)?;
            return Err(ReceiveError::Hash { path: entry.path.to_string() });
        }
        if sync {
            return part
                .finish(&entry.path, entry.permissions, entry.time, self.options.overwrite, true)
                .map_err(local);
        }
        self.verified.push((entry.clone(), part));
        match self.verified.len() < PARTS {
            true => Ok(()),
            false => self.name_verified(),
        }
    }

    /// Syncs verified files before they get their names, so no named file is empty after a power failure.
    fn name_verified(&mut self) -> Result<(), ReceiveError> {
        if self.verified.is_empty() {
            return Ok(());
        }
        self.folder.sync_all().map_err(|error| ReceiveError::local("the folder", error))?;
        for (Entry { path, permissions, time, .. }, part) in mem::take(&mut self.verified) {
            part.finish(&path, permissions, time, self.options.overwrite, false)
                .map_err(|error| ReceiveError::local(&path, error))?;
        }
        Ok(())
    }
}

/// Replaces an end in the middle of a frame by an explanation.
fn cut_off(error: ReceiveError) -> ReceiveError {
    match error {
        ReceiveError::Wire(WireError::Stream(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            let text = "the sender has ended the connection before everything had come, which it does \
                        when nothing is taken for 5 minutes";
            Error::new(ErrorKind::UnexpectedEof, text).into()
        }
        other => other,
    }
}

fn malformed(error: ManifestError) -> ReceiveError {
    let what = match error {
        ManifestError::Entries => "the manifest has too many entries",
        ManifestError::Text => "the paths of the manifest are too long",
        ManifestError::Order => "the paths of the manifest are not in order",
        ManifestError::NoFolder => "a path of the manifest is in no folder of it",
        ManifestError::LinkLeavesFolder => "a symbolic link of the manifest leads out of it",
        ManifestError::Size => "the files of the manifest are too large",
        ManifestError::Time => "a time of the manifest is none",
    };
    unexpected(what)
}

fn unexpected(what: &'static str) -> ReceiveError {
    WireError::Unexpected(what).into()
}
