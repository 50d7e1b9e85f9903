//! What the receiver has of a manifest, what it wants, and what is in the way.

use std::io::{self, Read as _};

use crate::error::ReceiveError;
use crate::folder::{Folder, Found, Part};
use crate::limits::{DATA_BYTES, PARTS};
use crate::manifest::{Entry, Kind, Manifest};
use crate::stream::Observer;
use crate::wire::Hash;

/// How many conflicts are named.
const NAMED: usize = 10;

#[derive(Default)]
pub(crate) struct Plan {
    /// Entries by their numbers, in order.
    pub(crate) folders: Vec<u32>,
    pub(crate) links: Vec<u32>,
    /// Files of the right length, with the hashes of what is there.
    pub(crate) compares: Vec<(u32, Hash)>,
    pub(crate) wants: Vec<Want>,
    /// Files that are the same already.
    pub(crate) there: u32,
    conflicts: Vec<String>,
    more_conflicts: usize,
    parts: usize,
}

/// A file that is to come.
pub(crate) struct Want {
    pub(crate) index: u32,
    pub(crate) offset: u64,
    pub(crate) hash: Hash,
    /// What has come of it already, and the state of its hash.
    pub(crate) part: Option<(Part, blake3::Hasher)>,
}

impl Plan {
    /// Looks what is in the folder.
    pub(crate) fn look(
        folder: &Folder,
        manifest: &Manifest,
        overwrite: bool,
        observer: &dyn Observer,
    ) -> Result<Plan, ReceiveError> {
        let mut plan = Plan::default();
        for (index, entry) in (0..).zip(manifest.entries()) {
            let found = folder.find(&entry.path).map_err(|error| ReceiveError::local(&entry.path, error))?;
            let can_replace = overwrite && matches!(found, Found::File { .. } | Found::Link { .. });
            match (&entry.kind, found) {
                (Kind::Folder, Found::Folder) => {}
                (Kind::Folder, Found::Nothing) => plan.folders.push(index),
                (Kind::File { size, .. }, Found::File { size: there }) if there == *size => {
                    match hash_file(folder, entry, observer) {
                        Ok(hash) => plan.compares.push((index, hash)),
                        Err(_) if overwrite => plan.want(folder, index, entry, observer)?,
                        Err(_) => plan.conflict(entry),
                    }
                }
                (Kind::File { .. }, Found::Nothing) => plan.want(folder, index, entry, observer)?,
                (Kind::File { .. }, _) if can_replace => plan.want(folder, index, entry, observer)?,
                (Kind::Link { target }, Found::Link { target: there })
                    if target.as_str().as_bytes() == there => {}
                (Kind::Link { .. }, Found::Nothing) => plan.links.push(index),
                (Kind::Link { .. }, _) if can_replace => plan.links.push(index),
                _ => plan.conflict(entry),
            }
        }
        Ok(plan)
    }

    /// Takes the answers to the comparisons.
    pub(crate) fn compared(
        &mut self,
        folder: &Folder,
        manifest: &Manifest,
        same: &[bool],
        overwrite: bool,
        observer: &dyn Observer,
    ) -> Result<(), ReceiveError> {
        for ((index, _), same) in std::mem::take(&mut self.compares).into_iter().zip(same) {
            let entry = &manifest.entries()[index as usize];
            match (same, overwrite) {
                (true, _) => self.there += 1,
                (false, true) => self.want(folder, index, entry, observer)?,
                (false, false) => self.conflict(entry),
            }
        }
        self.wants.sort_by_key(|want| want.index);
        Ok(())
    }

    /// Fails if something is in the way, or there is too little room.
    pub(crate) fn check(&self, folder: &Folder, manifest: &Manifest) -> Result<(), ReceiveError> {
        if !self.conflicts.is_empty() {
            let (named, more) = (self.conflicts.clone(), self.more_conflicts);
            return Err(ReceiveError::Conflicts { named, more });
        }
        let needed = self.bytes(manifest);
        // A file system that does not say how much room it has is tried.
        match folder.free_bytes() {
            Ok(free) if free < needed => Err(ReceiveError::Room { needed, free }),
            _ => Ok(()),
        }
    }

    /// How many bytes are to come.
    pub(crate) fn bytes(&self, manifest: &Manifest) -> u64 {
        let size = |want: &Want| manifest.entries()[want.index as usize].size();
        self.wants.iter().map(|want| size(want) - want.offset).sum()
    }

    fn conflict(&mut self, entry: &Entry) {
        match self.conflicts.len() < NAMED {
            true => self.conflicts.push(entry.path.to_string()),
            false => self.more_conflicts += 1,
        }
    }

    /// Wants a file, from where its partial file ends.
    fn want(
        &mut self,
        folder: &Folder,
        index: u32,
        entry: &Entry,
        observer: &dyn Observer,
    ) -> Result<(), ReceiveError> {
        let mut want = Want { index, offset: 0, hash: [0; 32], part: None };
        let local = |error| ReceiveError::local(&entry.path, error);
        let part = folder.find_part(&entry.path).map_err(local)?;
        let usable = |part: &Part| (1..=entry.size()).contains(&part.length);
        if let Some(mut part) = part.filter(usable).filter(|_| self.parts < PARTS) {
            let mut hasher = blake3::Hasher::new();
            part.length = hash_into(&mut hasher, &part.file, part.length, observer).map_err(local)?;
            want.offset = part.length;
            want.hash = *hasher.finalize().as_bytes();
            want.part = Some((part, hasher));
            self.parts += 1;
        }
        self.wants.push(want);
        Ok(())
    }
}

fn hash_file(folder: &Folder, entry: &Entry, observer: &dyn Observer) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let file = folder.read(&entry.path)?;
    hash_into(&mut hasher, &file, entry.size(), observer)?;
    Ok(*hasher.finalize().as_bytes())
}

/// Hashes up to `most` bytes of a file from where it is read; how many there were.
fn hash_into(
    hasher: &mut blake3::Hasher,
    file: &std::fs::File,
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
