use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use thiserror::Error;

use crate::folder::{Folder, regular, size_of, time_of};
use crate::manifest::{Entry, Kind, Manifest, ManifestError, Permissions};
use crate::path::{EntryPath, LinkTarget, PathError};

/// Maximum number of left-out entries kept by name.
const MAX_NAMED_ENTRIES: usize = 100;

/// Files and folders to send, with their manifest.
#[derive(Debug)]
pub struct Source {
    manifest: Manifest,
    left_out: Vec<LeftOut>,
    left_out_count: u32,
    /// Places of the outermost entries, by name.
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Folder(Folder),
}

/// An entry that is not sent, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Path of the entry; characters that cannot be shown are escaped.
    pub path: String,
    /// Reason.
    pub why: String,
}

/// Error of a scan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The path has no name that the receiver could use.
    #[error("{} has no name to send it by: {why}", path.display())]
    NoName {
        /// The given path.
        path: PathBuf,
        /// Reason why the name is invalid.
        why: PathError,
    },
    /// Two of the paths end with the same name.
    #[error("two of the paths are called {name}")]
    SameName {
        /// The name.
        name: String,
    },
    /// The path is a pipe, a device or a socket.
    #[error("{} is neither a file nor a folder", path.display())]
    Special {
        /// The given path.
        path: PathBuf,
    },
    /// An entry cannot be read.
    #[error("{path} cannot be read: {source}")]
    Local {
        /// Path of the entry.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// The entries exceed a manifest's limits.
    #[error("it is too much to send at once: {0}")]
    Manifest(#[from] ManifestError),
}

impl Source {
    /// Scans files and folders. Each is sent under the last name of its path; a symbolic link given as a path
    /// is followed.
    ///
    /// Links in folders are sent as links if they stay in the same folder, without `..` after a name. Other
    /// links, pipes, devices, sockets and partial files are left out, as are names that are not UTF-8 or that
    /// [`EntryPath`] rejects.
    ///
    /// # Errors
    /// [`ScanError`]; unreadable entries are errors, not left out.
    pub fn scan(paths: &[PathBuf]) -> Result<Source, ScanError> {
        let mut named = BTreeMap::new();
        for path in paths {
            let (entry, name) = entry_for(path)?;
            if named.insert(name.clone(), (entry, path)).is_some() {
                return Err(ScanError::SameName { name });
            }
        }
        let mut source = Source {
            manifest: Manifest::default(),
            left_out: Vec::new(),
            left_out_count: 0,
            places: BTreeMap::new(),
        };
        for (name, (entry, path)) in named {
            let local = |error: io::Error| ScanError::local(path.display(), error);
            let metadata = std::fs::metadata(path).map_err(local)?;
            let place = if metadata.is_dir() {
                let folder = Folder::open(path).map_err(local)?;
                source.add_folder(folder.descriptor(), ".", &entry)?;
                Place::Folder(folder)
            } else if metadata.is_file() {
                let file = open_file(path).map_err(local)?;
                let (_, stat) = regular(file).map_err(local)?;
                source.manifest.push(file_entry(entry, &stat))?;
                Place::File(path.clone())
            } else {
                return Err(ScanError::Special { path: path.clone() });
            };
            source.places.insert(name, place);
        }
        Ok(source)
    }

    /// Returns true if another scan found the same entries in the same folders. An identical copy in place of
    /// a folder counts as different, because the old descriptor no longer leads to it.
    pub fn is_same(&self, other: &Source) -> bool {
        let is_same_place = |(one, next): (&Place, &Place)| match (one, next) {
            // A file is opened by its path on every read.
            (Place::File(one), Place::File(next)) => one == next,
            (Place::Folder(one), Place::Folder(next)) => one.is_same(next),
            _ => false,
        };
        self.manifest == other.manifest
            && self.left_out_count == other.left_out_count
            && self.places.len() == other.places.len()
            && self.places.values().zip(other.places.values()).all(is_same_place)
    }

    /// Returns the entries to send.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the first hundred entries that are not sent.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Returns the number of entries that are not sent.
    pub fn left_out_count(&self) -> u32 {
        self.left_out_count
    }

    /// Opens a file of the manifest and returns it with its metadata.
    pub(crate) fn open(&self, path: &EntryPath) -> io::Result<(File, Stat)> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let mut names = path.names();
        let file = match self.places.get(names.next().ok_or_else(gone)?).ok_or_else(gone)? {
            Place::File(path) => open_file(path)?,
            Place::Folder(folder) => {
                let inner: Vec<_> = names.collect();
                let inner = EntryPath::parse(&inner.join("/")).map_err(|_| gone())?;
                folder.read(&inner)?.into()
            }
        };
        regular(file)
    }

    /// Adds a folder with its content.
    fn add_folder(&mut self, at: BorrowedFd<'_>, name: &str, path: &EntryPath) -> Result<(), ScanError> {
        let local = |error: rustix::io::Errno| ScanError::local(path, error.into());
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(local)?;
        let stat = rustix::fs::fstat(&fd).map_err(local)?;
        self.manifest.push(entry(path.clone(), Kind::Folder, &stat))?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd).map_err(local)? {
            let entry = entry.map_err(local)?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.to_vec()),
            }
        }
        // Sorts names in `EntryPath`'s order.
        names.sort_unstable();
        for name in names {
            self.add(&fd, &name, path)?;
        }
        Ok(())
    }

    /// Adds an entry of a folder.
    fn add(&mut self, folder: &OwnedFd, name: &[u8], parent: &EntryPath) -> Result<(), ScanError> {
        let shown = || format!("{parent}/{}", name.escape_ascii());
        let Ok(name) = str::from_utf8(name) else {
            self.leave_out(shown(), "its name is not UTF-8");
            return Ok(());
        };
        let path = match parent.join(name) {
            Ok(path) => path,
            Err(PathError::Part) => {
                self.leave_out(shown(), "a file that has not been received in full");
                return Ok(());
            }
            Err(error) => {
                self.leave_out(shown(), error);
                return Ok(());
            }
        };
        let local = |error: rustix::io::Errno| ScanError::local(&path, error.into());
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            // The entry was removed after the folder was read.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            other => other.map_err(local)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.add_folder(folder.as_fd(), name, &path)?,
            FileType::RegularFile => {
                rustix::fs::accessat(folder, name, Access::READ_OK, AtFlags::empty()).map_err(local)?;
                self.manifest.push(file_entry(path, &stat))?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(local)?;
                match target.to_str().ok().and_then(|target| link_target(target, &path)) {
                    Some(target) => {
                        self.manifest.push(entry(path, Kind::Link { target }, &stat))?;
                    }
                    None => self.leave_out(path, "a symbolic link that leads elsewhere"),
                }
            }
            _ => self.leave_out(path, "a pipe, device or socket"),
        }
        Ok(())
    }

    fn leave_out(&mut self, path: impl ToString, why: impl ToString) {
        self.left_out_count = self.left_out_count.saturating_add(1);
        if self.left_out.len() < MAX_NAMED_ENTRIES {
            self.left_out.push(LeftOut { path: path.to_string(), why: why.to_string() });
        }
    }
}

impl ScanError {
    fn local(path: impl ToString, source: io::Error) -> ScanError {
        ScanError::Local { path: path.to_string(), source }
    }
}

/// Returns the path under which a given path is sent, and its name.
fn entry_for(path: &Path) -> Result<(EntryPath, String), ScanError> {
    let no_name = |why| ScanError::NoName { path: path.to_owned(), why };
    // Resolves `.` and `..`, because they have other names.
    let full = match path.file_name() {
        Some(_) => path.to_owned(),
        None => std::fs::canonicalize(path).map_err(|error| ScanError::local(path.display(), error))?,
    };
    let name = full.file_name().ok_or_else(|| no_name(PathError::Empty))?;
    let name = name.to_str().ok_or_else(|| no_name(PathError::Character))?;
    let entry = EntryPath::parse(name).map_err(no_name)?;
    Ok((entry, name.to_owned()))
}

/// Opens a given file; NONBLOCK, because a pipe in its place must not block.
fn open_file(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn file_entry(path: EntryPath, stat: &Stat) -> Entry {
    entry(path, Kind::File { size: size_of(stat) }, stat)
}

fn entry(path: EntryPath, kind: Kind, stat: &Stat) -> Entry {
    Entry { path, kind, permissions: Permissions::of_mode(stat.st_mode), time: time_of(stat) }
}

/// Returns a link's target without empty names and `.`; `None` if it could leave the outermost folder.
fn link_target(target: &str, path: &EntryPath) -> Option<LinkTarget> {
    if target.starts_with('/') {
        return None;
    }
    let names: Vec<_> = target.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    LinkTarget::parse(&names.join("/")).ok().filter(|target| target.stays_inside(path))
}
