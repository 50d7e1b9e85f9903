//! The receiver's folder, or a folder that is sent. Every path is opened step by step from the folder's
//! descriptor, without following symbolic links, so that concurrent changes cannot lead outside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::manifest::{Permissions, Time};
use crate::path::{EntryPath, PART_SUFFIX};

/// An open folder that no path can leave.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let folder = peersock_files::Folder::open(folder.path())?;
/// assert_ne!(folder.free_bytes()?, Some(0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

/// The kind of entry found at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Folder,
    File {
        size: u64,
    },
    Link {
        target: Vec<u8>,
    },
    /// A device, a pipe or a socket.
    Other,
}

/// A partial file. It stays locked while it is open, so no other receiver writes it or takes its name.
pub(crate) struct Part {
    pub(crate) file: File,
    pub(crate) length: u64,
    parent: OwnedFd,
    name: String,
}

/// The kind of entry found at a partial file's name.
enum AtPartName {
    Nothing,
    /// An entry that is not a partial file of this user: a link, a folder, another user's file, or a file
    /// with a second name.
    Other,
    Part(Part),
}

/// Permissions of a partial file. Others must not open it, because a lock of theirs blocks resuming.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Maximum number of attempts to open or create a part, which another receiver may finish or remove.
const MAX_ATTEMPTS: usize = 16;

/// Flags for regular files. NONBLOCK, because opening a pipe must not block.
const REGULAR: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

impl Folder {
    /// Opens a folder; `path` itself may go through symbolic links.
    ///
    /// # Errors
    /// Returns system errors.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns true if both descriptors refer to the same folder, even after a rename.
    pub(crate) fn is_same(&self, other: &Folder) -> bool {
        let number = |folder: &Folder| rustix::fs::fstat(&folder.fd).map(|stat| (stat.st_dev, stat.st_ino));
        number(self).is_ok_and(|this| number(other) == Ok(this))
    }

    /// Returns the number of bytes that this user may still write to the file system. Returns `None` if the
    /// file system has no size (ramfs, and others that report no blocks).
    ///
    /// # Errors
    /// Returns system errors.
    pub fn free_bytes(&self) -> io::Result<Option<u64>> {
        let stat = rustix::fs::fstatvfs(&self.fd)?;
        Ok((stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Opens the folder that these names lead to.
    fn walk<'a>(&self, names: impl Iterator<Item = &'a str>) -> rustix::io::Result<OwnedFd> {
        let open = |at: BorrowedFd<'_>, name| rustix::fs::openat(at, name, FOLDER, Mode::empty());
        let mut here = open(self.fd.as_fd(), ".")?;
        for name in names {
            here = open(here.as_fd(), name)?;
        }
        Ok(here)
    }

    fn parent_of(&self, path: &EntryPath) -> rustix::io::Result<OwnedFd> {
        self.walk(path.parent().into_iter().flat_map(|parent| parent.split('/')))
    }

    /// Returns the kind of entry at a path. A path below a file or a link counts as `Nothing`.
    pub(crate) fn find(&self, path: &EntryPath) -> io::Result<Found> {
        let parent = match self.parent_of(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Nothing),
            other => other?,
        };
        let stat = match rustix::fs::statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            other => other?,
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Folder,
            FileType::RegularFile => Found::File { size: size_of(&stat) },
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&parent, path.name(), Vec::new())?;
                Found::Link { target: target.into_bytes() }
            }
            _ => Found::Other,
        })
    }

    /// Opens a regular file for reading.
    pub(crate) fn read(&self, path: &EntryPath) -> io::Result<File> {
        let parent = self.parent_of(path)?;
        let file = rustix::fs::openat(&parent, path.name(), OFlags::RDONLY | REGULAR, Mode::empty())?;
        regular(file).map(|(file, _)| file)
    }

    /// Creates a folder unless it exists. Its owner may do everything, because later receipts add to it.
    pub(crate) fn make_folder(&self, path: &EntryPath, permissions: Permissions) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        let mode = Mode::from_raw_mode(permissions.bits()) | Mode::RWXU;
        match rustix::fs::mkdirat(&parent, path.name(), mode) {
            Err(Errno::EXIST) if matches!(self.find(path)?, Found::Folder) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Creates a link. With `overwrite`, it replaces an existing link or file.
    pub(crate) fn make_link(&self, path: &EntryPath, target: &str, overwrite: bool) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        match rustix::fs::symlinkat(target, &parent, path.name()) {
            Err(Errno::EXIST) if overwrite => {
                let part = part_name(path.name());
                free_name(&parent, &part)?;
                rustix::fs::symlinkat(target, &parent, &part)?;
                Ok(rustix::fs::renameat(&parent, &part, &parent, path.name())?)
            }
            other => Ok(other?),
        }
    }

    /// Sets a folder's modification time.
    pub(crate) fn set_time(&self, path: &EntryPath, time: Time) -> io::Result<()> {
        Ok(rustix::fs::futimens(self.walk(path.names())?, &timestamps(time))?)
    }

    /// Opens the partial file of a path, if one exists that can be resumed.
    pub(crate) fn find_part(&self, path: &EntryPath) -> io::Result<Option<Part>> {
        let parent = match self.parent_of(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other?,
        };
        match at_part_name(&parent, &part_name(path.name()))? {
            AtPartName::Part(part) => Ok(Some(part)),
            // Another entry has the name; creating the part removes it.
            AtPartName::Nothing | AtPartName::Other => Ok(None),
        }
    }

    /// Creates an empty partial file for a path, replacing one that no receiver is writing.
    ///
    /// # Errors
    /// `ResourceBusy` if another receiver is writing the part; system errors.
    pub(crate) fn make_part(&self, path: &EntryPath) -> io::Result<Part> {
        let parent = self.parent_of(path)?;
        let name = part_name(path.name());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | REGULAR;
        for _ in 0..MAX_ATTEMPTS {
            free_name(&parent, &name)?;
            let file = match rustix::fs::openat(&parent, &name, flags, PRIVATE) {
                // Another receiver has created the part first.
                Err(Errno::EXIST) => continue,
                other => other?,
            };
            if let Some(part) = Part::hold(file.into(), &parent, &name)? {
                return Ok(part);
            }
        }
        Err(busy())
    }

    /// Syncs the folder that contains a path.
    pub(crate) fn sync_parent(&self, path: &EntryPath) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        // Some file systems have nothing to sync and return EINVAL.
        match rustix::fs::fsync(parent) {
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Syncs the whole file system, including other programs' files.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }
}

/// Opens the entry with a partial file's name, and locks it if it is a partial file.
fn at_part_name(parent: &OwnedFd, name: &str) -> io::Result<AtPartName> {
    for _ in 0..MAX_ATTEMPTS {
        let file = match rustix::fs::openat(parent, name, OFlags::RDWR | REGULAR, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(AtPartName::Nothing),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::ACCESS) => return Ok(AtPartName::Other),
            other => other?,
        };
        let Ok((file, stat)) = regular(file) else { return Ok(AtPartName::Other) };
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(AtPartName::Other);
        }
        let Some(mut part) = Part::hold(file, parent, name)? else { continue };
        // The previous holder of the lock may have written until now.
        let stat = rustix::fs::fstat(&part.file)?;
        part.length = size_of(&stat);
        // A file with a second name could be one that must not change. A receiver that finishes a part may
        // give it two names for a moment, but then it holds the lock.
        return match stat.st_nlink {
            1 => {
                // A part of an earlier version, or one about to be renamed, may be accessible to others.
                if Mode::from_raw_mode(stat.st_mode & 0o777) != PRIVATE {
                    rustix::fs::fchmod(&part.file, PRIVATE)?;
                }
                Ok(AtPartName::Part(part))
            }
            _ => Ok(AtPartName::Other),
        };
    }
    Err(busy())
}

/// Removes the entry with a partial file's name, unless another receiver is writing it.
fn free_name(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match at_part_name(parent, name)? {
        AtPartName::Nothing => Ok(()),
        AtPartName::Other => remove(parent, name),
        // Holds the lock until the name is removed, so that a process that waits for it finds another file.
        AtPartName::Part(part) => part.remove(),
    }
}

/// Returns the process's umask, read from /proc because umask(2) would change it for all threads. Before
/// Linux 4.7 the kernel does not report it; then other users get no permissions.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o077)
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another program is receiving the same file here")
}

impl Part {
    /// Locks an open file. Returns `None` if the file lost its name before it was locked: another receiver
    /// has finished it, so it must not be written, or removed it.
    fn hold(file: File, parent: &OwnedFd, name: &str) -> io::Result<Option<Part>> {
        // Some file systems have no locks; there, parallel receivers are not kept from writing.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(busy());
        }
        let part = Part { file, length: 0, parent: parent.try_clone()?, name: name.to_owned() };
        Ok(part.has_its_name()?.then_some(part))
    }

    /// Returns true if the name still refers to the open file.
    fn has_its_name(&self) -> io::Result<bool> {
        let open = rustix::fs::fstat(&self.file)?;
        let named = match rustix::fs::statat(&self.parent, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        Ok((named.st_dev, named.st_ino) == (open.st_dev, open.st_ino))
    }

    /// Discards the content.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.file.set_len(0)?;
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(0))?;
        Ok(())
    }

    /// Gives the file its name, its time and its permissions within the umask, after syncing its content if
    /// `sync` is set. Replaces another entry only with `overwrite`.
    ///
    /// # Errors
    /// `ResourceBusy` if another program has taken the partial file's name; system errors.
    pub(crate) fn finish(
        self,
        path: &EntryPath,
        permissions: Permissions,
        time: Time,
        overwrite: bool,
        sync: bool,
    ) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(permissions.bits() & !umask()))?;
        rustix::fs::futimens(&self.file, &timestamps(time))?;
        if sync {
            self.file.sync_data()?;
        }
        // Checks the name, because renameat acts on whatever file has it, and only this file was verified.
        if !self.has_its_name()? {
            let what = "another program has replaced its partial file";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        if overwrite {
            return Ok(rustix::fs::renameat(&self.parent, &self.name, &self.parent, path.name())?);
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.parent, &self.name, &self.parent, path.name(), flags) {
            // Some file systems lack RENAME_NOREPLACE; link(2) fails everywhere if the target exists.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let (parent, name) = (&self.parent, &self.name);
                rustix::fs::linkat(parent, name, parent, path.name(), AtFlags::empty())?;
                Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
            }
            other => Ok(other?),
        }
    }

    /// Removes the partial file.
    pub(crate) fn remove(self) -> io::Result<()> {
        match self.has_its_name()? {
            true => remove(&self.parent, &self.name),
            false => Ok(()),
        }
    }
}

/// Returns a regular file and its metadata, or an error for other kinds.
pub(crate) fn regular(file: OwnedFd) -> io::Result<(File, Stat)> {
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((file.into(), stat)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

pub(crate) fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(crate) fn time_of(stat: &Stat) -> Time {
    // The system's nanoseconds are less than a second.
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// Returns the name of the partial file beside a file. The name is fixed, so that a later receipt finds it.
fn part_name(name: &str) -> String {
    let plain = format!(".{name}{PART_SUFFIX}");
    match plain.len() <= crate::limits::NAME_BYTES {
        true => plain,
        false => format!(".{}{PART_SUFFIX}", &blake3::hash(name.as_bytes()).to_hex()[..32]),
    }
}

fn remove(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

fn timestamps(time: Time) -> Timestamps {
    let unchanged = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let changed = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: unchanged, last_modification: changed }
}

#[cfg(test)]
mod tests;
