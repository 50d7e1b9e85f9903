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
/// assert!(folder.free_bytes()? > 0);
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

/// A partial file, which nobody else of this program writes.
pub(crate) struct Part {
    pub(crate) file: File,
    pub(crate) length: u64,
    parent: OwnedFd,
    name: String,
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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

    /// How many bytes this user may still write to the file system.
    ///
    /// # Errors
    /// Those of the system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.fd)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
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
                remove(&parent, &part)?;
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
        let name = part_name(path.name());
        match rustix::fs::openat(&parent, &name, OFlags::RDWR | REGULAR, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            // Something else has that name, and is removed when the part is made.
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(file) => Part::take_up(file, parent, name),
        }
    }

    /// Makes an empty partial file for a path, in the place of one that is there.
    pub(crate) fn make_part(&self, path: &EntryPath) -> io::Result<Part> {
        let parent = self.parent_of(path)?;
        let name = part_name(path.name());
        remove(&parent, &name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | REGULAR;
        let file = rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o666))?;
        Part::lock(file.into(), 0, parent, name)
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

impl Part {
    /// Takes a file that is there if it is regular, this user's, and has no other name, under which it could
    /// be a file that must not change.
    fn take_up(file: OwnedFd, parent: OwnedFd, name: String) -> io::Result<Option<Part>> {
        let Ok((file, stat)) = regular(file) else { return Ok(None) };
        if stat.st_nlink != 1 || stat.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        Part::lock(file, size_of(&stat), parent, name).map(Some)
    }

    fn lock(file: File, length: u64, parent: OwnedFd, name: String) -> io::Result<Part> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let what = "another program is receiving the same file here";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, what))
            }
            // Some file systems have no locks; then nobody is kept from writing.
            _ => Ok(Part { file, length, parent, name }),
        }
    }

    /// Forgets what it has.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.file.set_len(0)?;
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(0))?;
        Ok(())
    }

    /// Gives the file its name, time and permissions, once its content is on the disk if it is to `sync`.
    /// Nothing else loses its name unless that is to be.
    pub(crate) fn finish(
        self,
        path: &EntryPath,
        executable: bool,
        time: Time,
        overwrite: bool,
        sync: bool,
    ) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.file)?;
        // Who may read it may run it, as the user's umask has it.
        let mode = match executable {
            true => stat.st_mode | (stat.st_mode & 0o444) >> 2,
            false => stat.st_mode & !0o111,
        };
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode & 0o777))?;
        rustix::fs::futimens(&self.file, &timestamps(time))?;
        if sync {
            self.file.sync_data()?;
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
        remove(&self.parent, &self.name)
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
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text).unwrap()
    }

    #[test]
    fn links_are_not_followed() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("file"), "secret").unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink(outside.path().join("file"), inside.path().join("file")).unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        assert!(folder.read(&path("out/file")).is_err());
        assert!(folder.read(&path("file")).is_err());
        assert!(folder.make_part(&path("out/new")).is_err());
        assert!(folder.make_folder(&path("out/new")).is_err());
        assert!(folder.make_link(&path("out/new"), "file", true).is_err());
        assert!(folder.make_folder(&path("out")).is_err(), "a link to a folder is none");
        assert_eq!(folder.find(&path("out/file")).unwrap(), Found::Nothing);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_part_that_is_a_link_to_something_else_is_replaced() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        let link = |name: &str| inside.path().join(format!(".{name}{PART_SUFFIX}"));
        symlink(&secret, link("symbolic")).unwrap();
        std::fs::hard_link(&secret, link("hard")).unwrap();
        for name in ["symbolic", "hard"] {
            assert!(folder.find_part(&path(name)).unwrap().is_none(), "{name}");
            folder.make_part(&path(name)).unwrap();
        }
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
        assert_eq!(std::fs::metadata(&secret).unwrap().nlink(), 1);
    }

    #[test]
    fn two_programs_do_not_write_the_same_part() {
        let inside = tempfile::tempdir().unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        let _first = folder.make_part(&path("x")).unwrap();
        let second = folder.find_part(&path("x")).map(drop).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn what_appears_meanwhile_is_not_overwritten() {
        let inside = tempfile::tempdir().unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        let time = Time { seconds: 5, nanoseconds: 0 };
        for (overwrite, left) in [(false, "mine"), (true, "")] {
            let part = folder.make_part(&path("x")).unwrap();
            std::fs::write(inside.path().join("x"), "mine").unwrap();
            assert_eq!(part.finish(&path("x"), true, time, overwrite, true).is_ok(), overwrite);
            assert_eq!(std::fs::read_to_string(inside.path().join("x")).unwrap(), left);
        }
        let metadata = std::fs::metadata(inside.path().join("x")).unwrap();
        assert_eq!((metadata.mtime(), metadata.mode() & 0o100), (5, 0o100));
    }

    #[test]
    fn names_of_parts_are_never_too_long() {
        assert_eq!(part_name("a"), ".a.peersock-part");
        let (one, other) = (part_name(&"x".repeat(255)), part_name(&"x".repeat(254)));
        assert!(one.len() <= 255 && one != other && one.ends_with(PART_SUFFIX));
    }
}
