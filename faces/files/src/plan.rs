//! The receiver's plan for a manifest: files it has, files it wants, and conflicts.

use std::fs::File;
use std::io::{self, Read as _};

use crate::error::ReceiveError;
use crate::folder::{Folder, Found, Part};
use crate::limits::{DATA_BYTES, PARTS};
use crate::manifest::{Entry, Kind, Manifest};
use crate::stream::Observer;
use crate::wire::Hash;

/// Maximum number of conflicts that are named.
const MAX_NAMED_CONFLICTS: usize = 10;

#[derive(Default)]
pub(crate) struct Plan {
    /// Numbers of missing folders' entries, in order.
    pub(crate) folders: Vec<u32>,
    pub(crate) links: Vec<u32>,
    pub(crate) compares: Vec<Compare>,
    pub(crate) wants: Vec<Want>,
    /// Number of files that are already identical.
    pub(crate) there: u32,
    conflicts: Vec<String>,
    more_conflicts: usize,
    parts: usize,
}

/// Local content that may equal the sender's.
pub(crate) struct Compare {
    pub(crate) index: u32,
    /// Number of bytes present.
    pub(crate) length: u64,
    /// The partial file that holds the bytes; `None` for a whole file.
    part: Option<Part>,
}

/// A file to receive.
pub(crate) struct Want {
    pub(crate) index: u32,
    pub(crate) offset: u64,
    /// Part with the content so far, and its hash state. If the offset is 0, the content is discarded.
    pub(crate) part: Option<(Part, blake3::Hasher)>,
}

impl Plan {
    /// Compares the folder with the manifest.
    pub(crate) fn look(folder: &Folder, manifest: &Manifest, overwrite: bool) -> Result<Plan, ReceiveError> {
        let mut plan = Plan::default();
        for (index, entry) in (0..).zip(manifest.entries()) {
            let local = |error| ReceiveError::local(&entry.path, error);
            let found = folder.find(&entry.path).map_err(local)?;
            let can_replace = overwrite && matches!(found, Found::File { .. } | Found::Link { .. });
            match (&entry.kind, found) {
                (Kind::Folder, Found::Folder) => {}
                (Kind::Folder, Found::Nothing) => plan.folders.push(index),
                (Kind::File { size }, Found::File { size: there }) if there == *size => {
                    // Compares a file once. If it is being replaced, the part is compared instead. A part
                    // that another receiver is writing matters only if the file differs.
                    let part = if overwrite { plan.part(folder, entry).unwrap_or(None) } else { None };
                    let length = part.as_ref().map_or(*size, |part| part.length);
                    plan.compares.push(Compare { index, length, part });
                }
                (Kind::File { .. }, Found::Nothing) => plan.want(folder, index, entry).map_err(local)?,
                (Kind::File { .. }, _) if can_replace => plan.want(folder, index, entry).map_err(local)?,
                (Kind::Link { target }, Found::Link { target: there })
                    if target.as_str().as_bytes() == there => {}
                (Kind::Link { .. }, Found::Nothing) => plan.links.push(index),
                (Kind::Link { .. }, _) if can_replace => plan.links.push(index),
                _ => plan.conflict(entry),
            }
        }
        Ok(plan)
    }

    /// Records the comparison of a local hash with the sender's.
    pub(crate) fn compared(
        &mut self,
        manifest: &Manifest,
        compare: Compare,
        own: Option<blake3::Hasher>,
        theirs: Option<Hash>,
        overwrite: bool,
    ) {
        let Compare { index, length, part } = compare;
        // Needs no constant-time comparison, because the sender learns the result at once.
        let same = own.filter(|own| theirs == Some(*own.finalize().as_bytes()));
        match (part, same) {
            (Some(part), Some(hasher)) => {
                self.wants.push(Want { index, offset: length, part: Some((part, hasher)) });
            }
            // The content is discarded when the file arrives.
            (Some(part), None) => {
                self.wants.push(Want { index, offset: 0, part: Some((part, blake3::Hasher::new())) });
            }
            (None, Some(_)) => self.there += 1,
            (None, None) if overwrite => self.wants.push(Want { index, offset: 0, part: None }),
            (None, None) => self.conflict(&manifest.entries()[index as usize]),
        }
    }

    /// Fails on conflicts, or if the disk has too little room.
    pub(crate) fn check(&self, folder: &Folder, manifest: &Manifest) -> Result<(), ReceiveError> {
        if !self.conflicts.is_empty() {
            let (named, more) = (self.conflicts.clone(), self.more_conflicts);
            return Err(ReceiveError::Conflicts { named, more });
        }
        let needed = self.bytes(manifest);
        // A file system that does not report its free space is tried.
        match folder.free_bytes() {
            Ok(Some(free)) if free < needed => Err(ReceiveError::Room { needed, free }),
            _ => Ok(()),
        }
    }

    /// Returns the number of bytes to receive.
    pub(crate) fn bytes(&self, manifest: &Manifest) -> u64 {
        let size = |want: &Want| manifest.entries()[want.index as usize].size();
        self.wants.iter().map(|want| size(want) - want.offset).sum()
    }

    fn conflict(&mut self, entry: &Entry) {
        match self.conflicts.len() < MAX_NAMED_CONFLICTS {
            true => self.conflicts.push(entry.path.to_string()),
            false => self.more_conflicts += 1,
        }
    }

    /// Adds a file to receive; a matching partial file is resumed from its end.
    fn want(&mut self, folder: &Folder, index: u32, entry: &Entry) -> io::Result<()> {
        match self.part(folder, entry)? {
            Some(part) => self.compares.push(Compare { index, length: part.length, part: Some(part) }),
            None => self.wants.push(Want { index, offset: 0, part: None }),
        }
        Ok(())
    }

    /// Returns the partial file of a file, if it can be resumed.
    fn part(&mut self, folder: &Folder, entry: &Entry) -> io::Result<Option<Part>> {
        let usable = |part: &Part| (1..=entry.size()).contains(&part.length);
        let part = folder.find_part(&entry.path)?.filter(usable).filter(|_| self.parts < PARTS);
        self.parts += usize::from(part.is_some());
        Ok(part)
    }
}

impl Compare {
    /// Hashes the local bytes; returns `None` if they can no longer be read as found.
    pub(crate) fn hash(
        &self,
        folder: &Folder,
        manifest: &Manifest,
        observer: &dyn Observer,
    ) -> Result<Option<blake3::Hasher>, ReceiveError> {
        let path = &manifest.entries()[self.index as usize].path;
        let mut hasher = blake3::Hasher::new();
        let mut read = |file: &File| hash_into(&mut hasher, file, self.length, observer);
        let read = match &self.part {
            Some(part) => Some(read(&part.file).map_err(|error| ReceiveError::local(path, error))?),
            // An unreadable file counts as different.
            None => folder.read(path).and_then(|file| read(&file)).ok(),
        };
        Ok((read == Some(self.length)).then_some(hasher))
    }
}

/// Hashes up to `most` bytes from the file's current position. Returns the number of bytes.
fn hash_into(
    hasher: &mut blake3::Hasher,
    file: &File,
    most: u64,
    observer: &dyn Observer,
) -> io::Result<u64> {
    let mut buffer = vec![0; DATA_BYTES.min(usize::try_from(most).unwrap_or(DATA_BYTES))];
    let (mut file, mut read) = (file.take(most), 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(read),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                read += count as u64;
                observer.compared(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
