use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{ENTRIES, FILE_BYTES, TEXT_BYTES};
use crate::path::{EntryPath, LinkTarget};

/// Modification time as the sender's system reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970; negative before that.
    pub seconds: i64,
    /// Nanoseconds to add, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Permission bits of a file or folder: read, write and execute for the owner, the group and others. The bits
/// that change a program's user or group are never sent.
///
/// ```
/// use peersock_files::Permissions;
///
/// let private = Permissions::of_mode(0o100_600);
/// assert_eq!(private.bits(), 0o600);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Permissions(u16);

impl Permissions {
    /// Returns the permission bits of `st_mode`, see inode(7).
    pub fn of_mode(mode: u32) -> Self {
        Self((mode & 0o777) as u16)
    }

    /// Returns the bits, at most 0o777.
    pub fn bits(self) -> u32 {
        self.0.into()
    }
}

impl TryFrom<u16> for Permissions {
    type Error = &'static str;

    fn try_from(bits: u16) -> Result<Self, Self::Error> {
        if bits <= 0o777 { Ok(Self(bits)) } else { Err("more than permission bits") }
    }
}

impl From<Permissions> for u16 {
    fn from(permissions: Permissions) -> u16 {
        permissions.0
    }
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A folder, which may be empty.
    Folder,
    /// A symbolic link to a target within the sent files.
    Link {
        /// Target of the link.
        target: LinkTarget,
    },
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path.
    pub path: EntryPath,
    /// Kind.
    pub kind: Kind,
    /// Permissions at the sender; without meaning for links.
    pub permissions: Permissions,
    /// Modification time of the content.
    pub time: Time,
}

impl Entry {
    /// Returns the size in bytes; 0 if the entry is not a file.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }
}

/// All entries to send, ordered by path, each after the folder that contains it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
    bytes: u64,
    text_bytes: u64,
    files: u32,
}

impl Manifest {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`ManifestError`] if the entry does not belong there; the manifest is then unchanged.
    pub fn push(&mut self, entry: Entry) -> Result<(), ManifestError> {
        if self.entries.len() >= ENTRIES as usize {
            return Err(ManifestError::Entries);
        }
        let last = self.entries.last();
        if last.is_some_and(|last| last.path >= entry.path) {
            return Err(ManifestError::Order);
        }
        // In this order, the folder of an entry is the last entry or one of the folders that contain it.
        let is_in_folder = entry.path.parent().is_none_or(|parent| {
            last.is_some_and(|last| match last.path.as_str() {
                path if path == parent => last.kind == Kind::Folder,
                path => path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/')),
            })
        });
        if !is_in_folder {
            return Err(ManifestError::NoFolder);
        }
        let mut text_bytes = self.text_bytes + entry.path.as_str().len() as u64;
        if let Kind::Link { target } = &entry.kind {
            text_bytes += target.as_str().len() as u64;
            if !target.stays_inside(&entry.path) {
                return Err(ManifestError::LinkLeavesFolder);
            }
        }
        if text_bytes > TEXT_BYTES {
            return Err(ManifestError::Text);
        }
        if entry.time.nanoseconds >= 1_000_000_000 {
            return Err(ManifestError::Time);
        }
        let bytes = self.bytes.checked_add(entry.size()).filter(|bytes| *bytes <= FILE_BYTES);
        self.bytes = bytes.ok_or(ManifestError::Size)?;
        self.text_bytes = text_bytes;
        self.files += u32::from(matches!(entry.kind, Kind::File { .. }));
        self.entries.push(entry);
        Ok(())
    }

    /// Returns all entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the number of files.
    pub fn files(&self) -> u32 {
        self.files
    }

    /// Returns the total size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the entries at the outermost level.
    pub fn outermost(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.path.parent().is_none())
    }

    /// Returns the file entry with this number, and the file's length.
    pub(crate) fn file(&self, index: u32) -> Option<(&Entry, u64)> {
        let entry = self.entries.get(index as usize)?;
        match entry.kind {
            Kind::File { size } => Some((entry, size)),
            _ => None,
        }
    }
}

/// Reason why an entry does not belong in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// There are too many entries.
    #[error("there are more than {ENTRIES} files and folders")]
    Entries,
    /// The total length of all paths is too large.
    #[error("all paths together have more than 32 MiB")]
    Text,
    /// The entry does not sort after the previous one, or is a duplicate.
    #[error("the paths are not in order")]
    Order,
    /// The parent of the entry is not a folder of the manifest.
    #[error("a path is in no folder")]
    NoFolder,
    /// A link leads outside the sent files.
    #[error("a symbolic link leads out of the sent folder")]
    LinkLeavesFolder,
    /// The total size exceeds any disk.
    #[error("the files are too large")]
    Size,
    /// The time is invalid.
    #[error("a time has too many nanoseconds")]
    Time,
}
