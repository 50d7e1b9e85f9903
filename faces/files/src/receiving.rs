use std::io::{self, BufReader, BufWriter, Error, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::mem;
use std::net::Shutdown;
use std::time::Duration;

use crate::error::ReceiveError;
use crate::folder::{Folder, Part};
use crate::limits::{DATA_BYTES, ENTRIES, GREETING, MESSAGE_BYTES, PARTS, SILENT, silent_within};
use crate::manifest::{Entry, Kind, Manifest, ManifestError};
use crate::plan::{Compare, Plan, Want};
use crate::stream::{Observer, Stream, Within, drain};
use crate::wire::{self, Frame, FromReceiver, FromSender, WireError};

/// So many entries are written to the disk one by one. Of more, only files of [`LARGE`] bytes are, and the
/// others [`PARTS`] at once, with all that the file system has.
const FEW: usize = 64;
const LARGE: u64 = 1 << 20;

/// How a receiver wants it.
///
/// ```
/// let options = peersock_files::Options { overwrite: true, ..Default::default() };
/// assert!(!options.list_only);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Files and links that are there already and different are replaced. Otherwise they are an error before
    /// anything is transferred.
    pub overwrite: bool,
    /// Only the manifest is wanted.
    pub list_only: bool,
}

/// What a receiver has.
///
/// ```
/// let receipt = peersock_files::Receipt::default();
/// assert_eq!(receipt.files + receipt.there, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Files that came.
    pub files: u32,
    /// Bytes that came.
    pub bytes: u64,
    /// Files that were there already, and are the same.
    pub there: u32,
    /// Entries that the sender has left out.
    pub left_out: u32,
}

/// Receives what a sender sends into a folder. When this returns, everything is verified, written to the disk
/// and confirmed.
///
/// # Errors
/// [`ReceiveError`]. What has come is kept as partial files, and gone on with the next time; the sender is
/// told the reason if that is this end's, but not what is in the folder.
pub fn receive<S: Stream>(
    stream: &S,
    folder: &Folder,
    options: Options,
    observer: &dyn Observer,
) -> Result<Receipt, ReceiveError> {
    let mut receiver = Receiver {
        stream,
        patience: SILENT,
        reader: BufReader::with_capacity(DATA_BYTES, stream.try_clone()?),
        writer: BufWriter::with_capacity(MESSAGE_BYTES, stream.try_clone()?),
        folder,
        options,
        observer,
        verified: Vec::new(),
    };
    let greeted = receiver.greet().map_err(|error| cut_off(error.into()));
    let received = greeted.and_then(|()| receiver.run().map_err(|error| receiver.explain(error)));
    match &received {
        Ok(_) => {
            let _ = stream.shutdown(Shutdown::Write);
        }
        Err(ReceiveError::Wire(WireError::Stream(_)) | ReceiveError::Sender { .. }) => return received,
        Err(error) => {
            let reason = error.for_sender();
            let told = wire::write_message(&mut receiver.writer, &FromReceiver::Failed { reason });
            if told.and_then(|()| receiver.writer.flush()).is_err() {
                return received;
            }
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
    drain(stream, &mut receiver.reader);
    received
}

struct Receiver<'a, S: Stream> {
    stream: &'a S,
    /// How long the sender may say nothing now.
    patience: Duration,
    reader: BufReader<S>,
    writer: BufWriter<S>,
    folder: &'a Folder,
    options: Options,
    observer: &'a dyn Observer,
    /// Files that have come and are not on the disk yet: they get their names when they are.
    verified: Vec<(Entry, Part)>,
}

impl<S: Stream> Receiver<'_, S> {
    fn greet(&mut self) -> Result<(), WireError> {
        wire::write_greeting(&mut self.writer)?;
        self.writer.flush()?;
        wire::read_greeting(&mut Within::new(self.stream, &mut self.reader, GREETING))
    }

    fn run(&mut self) -> Result<Receipt, ReceiveError> {
        // The sender may look through what it sends now.
        self.wait_for(SILENT)?;
        self.stream.set_write_timeout(Some(SILENT))?;
        let (manifest, left_out) = self.manifest()?;
        self.observer.announced(&manifest, left_out);
        if self.options.list_only {
            self.say(&FromReceiver::Listed)?;
            self.writer.flush()?;
            return Ok(Receipt { left_out, ..Receipt::default() });
        }
        let plan = self.plan(&manifest)?;
        let (bytes, there) = (plan.bytes(&manifest), plan.there);
        let files = plan.wants.len() as u32;
        self.observer.begins(bytes, files);
        for want in &plan.wants {
            let Want { index, offset, .. } = *want;
            self.say(&FromReceiver::Want { index, offset })?;
        }
        self.say(&FromReceiver::Wanted)?;
        self.writer.flush()?;
        self.take(plan, &manifest)?;
        self.say(&FromReceiver::Received)?;
        self.writer.flush()?;
        Ok(Receipt { files, bytes, there, left_out })
    }

    fn say(&mut self, message: &FromReceiver) -> Result<(), ReceiveError> {
        Ok(wire::write_message(&mut self.writer, message)?)
    }

    /// The sender may say nothing for so long from now on.
    fn wait_for(&mut self, patience: Duration) -> io::Result<()> {
        self.patience = patience;
        self.stream.set_read_timeout(Some(patience))
    }

    /// Says what the end of a wait, and an end in the middle of a frame, mean.
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

    /// Finds out what is to come. The sender hears which files are compared, but no hash of them: whoever
    /// has the hash of a file can find out what is in it, if it can be guessed.
    fn plan(&mut self, manifest: &Manifest) -> Result<Plan, ReceiveError> {
        let Options { overwrite, .. } = self.options;
        let mut plan = Plan::look(self.folder, manifest, overwrite)?;
        for &Compare { index, length, .. } in &plan.compares {
            self.say(&FromReceiver::Compare { index, length })?;
        }
        self.say(&FromReceiver::Compared)?;
        if !plan.compares.is_empty() {
            self.writer.flush()?;
            for compare in mem::take(&mut plan.compares) {
                // The sender hashes its files meanwhile.
                let own = compare.hash(self.folder, manifest, self.observer)?;
                self.wait_for(silent_within(compare.length))?;
                match self.hear()? {
                    FromSender::Hash(theirs) => plan.compared(manifest, compare, own, theirs, overwrite),
                    _ => return Err(unexpected("a message came in place of a comparison")),
                }
            }
            plan.wants.sort_by_key(|want| want.index);
        }
        self.wait_for(SILENT)?;
        plan.check(self.folder, manifest)?;
        Ok(plan)
    }

    /// Takes all files, then makes the links, so that no path to a file leads over one of them.
    fn take(&mut self, plan: Plan, manifest: &Manifest) -> Result<(), ReceiveError> {
        let Plan { folders, links, wants, .. } = plan;
        let entry = |index: u32| &manifest.entries()[index as usize];
        for path in folders.iter().map(|index| &entry(*index).path) {
            self.folder.make_folder(path).map_err(|error| ReceiveError::local(path, error))?;
        }
        let mut buffer = vec![0; DATA_BYTES];
        let is_few = folders.len() + links.len() + wants.len() <= FEW;
        let written: Vec<_> = wants.iter().map(|want| want.index).collect();
        let mut taken = Ok(());
        for want in wants {
            let at = entry(want.index);
            taken = self.take_file(at, want, &mut buffer, is_few || at.size() >= LARGE);
            if taken.is_err() {
                break;
            }
        }
        // Also if the connection broke: what is verified need not come again.
        let named = self.name_verified();
        taken.and(named)?;
        match self.hear()? {
            FromSender::Complete => {}
            _ => return Err(unexpected("a message came in place of the end")),
        }
        for Entry { path, kind, .. } in links.iter().copied().map(entry) {
            let Kind::Link { target } = kind else { continue };
            let made = self.folder.make_link(path, target.as_str(), self.options.overwrite);
            made.map_err(|error| ReceiveError::local(path, error))?;
        }
        // Also of those that an earlier attempt has made. A folder of somebody else keeps its time.
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
        let Kind::File { size, executable } = entry.kind else {
            return Err(unexpected("an entry is no file"));
        };
        // The sender reads again what is here already.
        self.wait_for(silent_within(want.offset))?;
        let FromSender::Begin { index, offset } = self.hear()? else {
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
        self.wait_for(SILENT)?;
        let mut left = size - offset;
        let hash = loop {
            match wire::read_frame(&mut self.reader, buffer)? {
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
        // No secret is compared.
        if *hasher.finalize().as_bytes() != hash {
            part.remove().map_err(local)?;
            return Err(ReceiveError::Hash { path: entry.path.to_string() });
        }
        if sync {
            return part
                .finish(&entry.path, executable, entry.time, self.options.overwrite, true)
                .map_err(local);
        }
        self.verified.push((entry.clone(), part));
        match self.verified.len() < PARTS {
            true => Ok(()),
            false => self.name_verified(),
        }
    }

    /// Writes what is verified to the disk, then gives it its names: after a power failure, no file that has
    /// its name is empty.
    fn name_verified(&mut self) -> Result<(), ReceiveError> {
        if self.verified.is_empty() {
            return Ok(());
        }
        self.folder.sync_all().map_err(|error| ReceiveError::local("the folder", error))?;
        for (Entry { path, kind, time }, part) in mem::take(&mut self.verified) {
            let executable = matches!(kind, Kind::File { executable: true, .. });
            part.finish(&path, executable, time, self.options.overwrite, false)
                .map_err(|error| ReceiveError::local(&path, error))?;
        }
        Ok(())
    }
}

/// Says what an end in the middle of a frame means.
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
