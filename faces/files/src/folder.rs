//! The folder of the receiver, or one that is sent: everything in it is reached step by step from its
//! descriptor, without following symbolic links. So nothing that happens in it at the same time leads out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::manifest::Time;
use crate::path::{EntryPath, PART_SUFFIX};

/// A folder that is open, and out of which no path leads.
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

/// What is at a path.
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
    /// A device, a pipe, a socket.
    Other,
}

/// A partial file. While it is open it is locked, so no other receiver writes it or takes its name.
pub(crate) struct Part {
    pub(crate) file: File,
    pub(crate) length: u64,
    parent: OwnedFd,
    name: String,
}

/// What has the name of a partial file.
enum AtPartName {
    Nothing,
    /// A link, a folder, a file of somebody else or with another name: no partial file of this user.
    Other,
    Part(Part),
}

/// The permissions of a partial file: whoever could open it could lock it, and keep it from being gone on
/// with.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often a part is opened or made anew when another receiver finishes or removes it at that moment.
const TRIES: usize = 16;

/// A pipe must not keep who opens it waiting.
const REGULAR: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

impl Folder {
    /// Opens a folder; `path` itself may lead over symbolic links.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether both are open at the same folder, wherever it is now.
    pub(crate) fn is_same(&self, other: &Folder) -> bool {
        let number = |folder: &Folder| rustix::fs::fstat(&folder.fd).map(|stat| (stat.st_dev, stat.st_ino));
        number(self).is_ok_and(|this| number(other) == Ok(this))
    }

    /// Returns the number of bytes that this user may still write to the file system, or `None` if the file
    /// system has no size (ramfs, and others that report no blocks at all).
    ///
    /// # Errors
    /// Those of the system.
    pub fn free_bytes(&self) -> io::Result<Option<u64>> {
        let stat = rustix::fs::fstatvfs(&self.fd)?;
        Ok((stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Opens what is at the end of some folders' names.
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

    /// What is at a path. What is behind a file or a link is nothing.
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

    /// Opens a regular file to read it.
    pub(crate) fn read(&self, path: &EntryPath) -> io::Result<File> {
        let parent = self.parent_of(path)?;
        let file = rustix::fs::openat(&parent, path.name(), OFlags::RDONLY | REGULAR, Mode::empty())?;
        regular(file).map(|(file, _)| file)
    }

    /// Makes a folder, unless it is there.
    pub(crate) fn make_folder(&self, path: &EntryPath) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        match rustix::fs::mkdirat(&parent, path.name(), Mode::from_raw_mode(0o777)) {
            Err(Errno::EXIST) if matches!(self.find(path)?, Found::Folder) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Makes a link, in the place of another one or of a file if that is to be.
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

    /// Sets when a folder was changed.
    pub(crate) fn set_time(&self, path: &EntryPath, time: Time) -> io::Result<()> {
        Ok(rustix::fs::futimens(self.walk(path.names())?, &timestamps(time))?)
    }

    /// The partial file for a path, if there is one to go on with.
    pub(crate) fn find_part(&self, path: &EntryPath) -> io::Result<Option<Part>> {
        let parent = match self.parent_of(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other?,
        };
        match at_part_name(&parent, &part_name(path.name()))? {
            AtPartName::Part(part) => Ok(Some(part)),
            // Something else has that name, and is removed when the part is made.
            AtPartName::Nothing | AtPartName::Other => Ok(None),
        }
    }

    /// Makes an empty partial file for a path, in the place of one that nobody is writing.
    ///
    /// # Errors
    /// `ResourceBusy` if another receiver is writing it, and those of the system.
    pub(crate) fn make_part(&self, path: &EntryPath) -> io::Result<Part> {
        let parent = self.parent_of(path)?;
        let name = part_name(path.name());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | REGULAR;
        for _ in 0..TRIES {
            free_name(&parent, &name)?;
            let file = match rustix::fs::openat(&parent, &name, flags, PRIVATE) {
                // Another receiver has been faster.
                Err(Errno::EXIST) => continue,
                other => other?,
            };
            if let Some(part) = Part::hold(file.into(), &parent, &name)? {
                return Ok(part);
            }
        }
        Err(busy())
    }

    /// Writes the names in the folder that a path is in to the disk.
    pub(crate) fn sync_parent(&self, path: &EntryPath) -> io::Result<()> {
        let parent = self.parent_of(path)?;
        // Some file systems have nothing to write.
        match rustix::fs::fsync(parent) {
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Writes all that the file system has in memory to the disk, other programs' files as well.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }
}

/// Opens what has the name of a partial file, and holds it if it is one.
fn at_part_name(parent: &OwnedFd, name: &str) -> io::Result<AtPartName> {
    for _ in 0..TRIES {
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
        // Who had the lock may have written until now.
        let stat = rustix::fs::fstat(&part.file)?;
        part.length = size_of(&stat);
        // Under another name it could be a file that must not change. Who finishes a part may give it two
        // names for a moment, but has the lock then.
        return match stat.st_nlink {
            1 => {
                // One that was about to get its name, or is of an earlier version, may be open to others.
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

/// Removes what has the name of a partial file, unless another receiver is writing it.
fn free_name(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match at_part_name(parent, name)? {
        AtPartName::Nothing => Ok(()),
        AtPartName::Other => remove(parent, name),
        // Its lock is held until its name is gone, so who waits for the lock finds another file, or none.
        AtPartName::Part(part) => part.remove(),
    }
}

/// What the process takes from the permissions of new files. A call that tells it would set it, for all
/// threads; where the kernel does not say it (before Linux 4.7), nobody else gets any.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o077)
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another program is receiving the same file here")
}

impl Part {
    /// Locks an open file. `None` if it lost its name before the lock was there: another receiver has
    /// finished it, so that it is not to be written any more, or has removed it.
    fn hold(file: File, parent: &OwnedFd, name: &str) -> io::Result<Option<Part>> {
        // Some file systems have no locks; then nobody is kept from writing.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(busy());
        }
        let part = Part { file, length: 0, parent: parent.try_clone()?, name: name.to_owned() };
        Ok(part.has_its_name()?.then_some(part))
    }

    /// Whether the name still is that of the file that is open.
    fn has_its_name(&self) -> io::Result<bool> {
        let open = rustix::fs::fstat(&self.file)?;
        let named = match rustix::fs::statat(&self.parent, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        Ok((named.st_dev, named.st_ino) == (open.st_dev, open.st_ino))
    }

    /// Forgets what it has.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.file.set_len(0)?;
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(0))?;
        Ok(())
    }

    /// Gives the file its name, time and the permissions of new files, once its content is on the disk if it
    /// is to `sync`. Nothing else loses its name unless that is to be.
    ///
    /// # Errors
    /// `ResourceBusy` if another program has taken the name of the partial file, and those of the system.
    pub(crate) fn finish(
        self,
        path: &EntryPath,
        executable: bool,
        time: Time,
        overwrite: bool,
        sync: bool,
    ) -> io::Result<()> {
        let usual = 0o666 & !umask();
        // Who may read it may run it, as the user's umask has it.
        let mode = if executable { usual | (usual & 0o444) >> 2 } else { usual };
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))?;
        rustix::fs::futimens(&self.file, &timestamps(time))?;
        if sync {
            self.file.sync_data()?;
        }
        // The system renames whatever has the name, and only this file was verified.
        if !self.has_its_name()? {
            let what = "another program has replaced what had come of it";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        if overwrite {
            return Ok(rustix::fs::renameat(&self.parent, &self.name, &self.parent, path.name())?);
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.parent, &self.name, &self.parent, path.name(), flags) {
            // Not every file system knows that; a link to what is there fails everywhere.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let (parent, name) = (&self.parent, &self.name);
                rustix::fs::linkat(parent, name, parent, path.name(), AtFlags::empty())?;
                Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
            }
            other => Ok(other?),
        }
    }

    /// Removes what has come.
    pub(crate) fn remove(self) -> io::Result<()> {
        match self.has_its_name()? {
            true => remove(&self.parent, &self.name),
            false => Ok(()),
        }
    }
}

/// A regular file and what the system says of it.
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
    // The system's nanoseconds are below a second.
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// The name of the partial file beside a file. Always the same, so that it is found again.
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
