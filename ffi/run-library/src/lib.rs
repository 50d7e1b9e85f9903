//! The library that replaces socket calls: every launcher that depends on this crate contains it, and puts it
//! where programs can load it.
//!
//! It is written once, under a name that contains its hash, to a folder in which only this user can write. If
//! there is no such folder, it is kept in memory, under a descriptor of this process.

mod old_libraries;

use std::env;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use sha2::{Digest as _, Sha256};

use thiserror::Error;

/// The library, as `build.rs` has built it.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libpeersock_preload.so"));

/// Prefix of its files' names.
const PREFIX: &str = "libpeersock_preload-";

/// Number of attempts to find a file that other processes remove or replace meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// There is no place for the library.
#[derive(Debug, Error)]
#[error("the library that takes a program's socket calls cannot be written anywhere: {0}")]
pub struct NowhereError(pub io::Error);

/// The library where programs find it, valid while this exists.
///
/// ```no_run
/// let library = peersock_run_library::Library::provide()?;
/// let status = std::process::Command::new("ls").env("LD_PRELOAD", library.path()).status()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    name: String,
    /// Its lock keeps others from removing the file; or it is the memory that holds the library.
    _file: File,
}

impl Library {
    /// Puts the library into the first suitable folder, if it is not there yet, or else into memory. The file
    /// may be removed after this is dropped and no process has provided it for a month, unless a program has
    /// it loaded.
    /// Fails if there is no memory for it either.
    pub fn provide() -> Result<Library, NowhereError> {
        Self::provide_in(&folders())
    }

    fn provide_in(folders: &[PathBuf]) -> Result<Library, NowhereError> {
        let name = name();
        for folder in folders {
            match Self::place(folder, &name) {
                Ok(library) => return Ok(library),
                Err(error) => tracing::debug!("not in {}: {error}", folder.display()),
            }
        }
        Self::remember(&name).map_err(NowhereError)
    }

    /// Returns the value for LD_PRELOAD.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name by which a process that has loaded the library is recognized.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts it into a folder.
    fn place(folder: &Path, name: &str) -> io::Result<Library> {
        let path = folder.join(name);
        if path.as_os_str().as_bytes().iter().any(|byte| b" :$\n\t".contains(byte)) {
            return Err(io::Error::other("LD_PRELOAD cannot name it"));
        }
        let directory = private_directory(folder)?;
        for _ in 0..MAX_ATTEMPTS {
            if let Some(file) = lock_current(&directory, name)? {
                old_libraries::remove(&directory, PREFIX, name);
                return Ok(Library { path, name: name.to_owned(), _file: file });
            }
            write(&directory, name)?;
        }
        Err(io::Error::other("its file changes"))
    }

    /// Puts it into memory. Programs of this user open it through this process, while it runs.
    fn remember(name: &str) -> io::Result<Library> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
        file.write_all(LIBRARY)?;
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SEAL | SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW,
        )?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Ok(Library { path, name: name.to_owned(), _file: file })
    }
}

/// Returns the file's name, which contains a hash of the content.
fn name() -> String {
    let mut name = PREFIX.to_owned();
    for byte in &Sha256::digest(LIBRARY)[..16] {
        write!(name, "{byte:02x}").expect("a string takes everything");
    }
    name + ".so"
}

/// Returns folders for the library, the best first.
fn folders() -> Vec<PathBuf> {
    let named = |variable| env::var_os(variable).map(PathBuf::from);
    let mut bases = vec![named("XDG_CACHE_HOME")];
    if rustix::process::geteuid().is_root() {
        // A program started by root may become another user, who cannot read root's home.
        bases.extend([Some("/var/cache".into()), Some("/run".into())]);
    }
    bases.push(env::home_dir().map(|home| home.join(".cache")));
    bases.push(named("XDG_RUNTIME_DIR"));
    // The XDG base directory specification requires that relative paths are ignored.
    bases.into_iter().flatten().filter(|base| base.is_absolute()).map(|base| base.join("peersock")).collect()
}

/// Opens a folder and creates it if needed. Fails if other users can write to it, or programs cannot load
/// libraries from it.
fn private_directory(folder: &Path) -> io::Result<OwnedFd> {
    if let Some(parent) = folder.parent() {
        // An ordinary directory of the user; only the last one is ours to restrict.
        fs::create_dir_all(parent)?;
    }
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(folder, flags, Mode::empty())?;
    check_owner(&directory)?;
    check_way(folder)?;
    if rustix::fs::fstatvfs(&directory)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::Error::other("its file system is mounted noexec"));
    }
    Ok(directory)
}

/// Fails if a user other than root could replace this folder by way of its parents.
fn check_way(folder: &Path) -> io::Result<()> {
    for above in folder.canonicalize()?.ancestors().skip(1) {
        let metadata = fs::metadata(above)?;
        let is_trusted = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
        // In a sticky folder, like /tmp, only owners can replace their files.
        if !is_trusted || (metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0) {
            return Err(io::Error::other(format!("another user can replace {}", above.display())));
        }
    }
    Ok(())
}

/// Fails unless a file or folder belongs to this user, and no other user can write to it.
fn check_owner(file: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is another user's"));
    }
    match Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        true => Err(io::Error::other("other users can write to it")),
        false => Ok(()),
    }
}

/// Opens the library's file if it is correct, and keeps others from removing it.
fn lock_current(directory: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || stat.st_size as usize != LIBRARY.len()
        || check_owner(&file).is_err()
    {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(LIBRARY.len());
    file.read_to_end(&mut content)?;
    if content != LIBRARY {
        return Ok(None);
    }
    old_libraries::note_use(&file);
    // A process that checks if the file is old holds the lock briefly. Some network file systems have no
    // locks; nothing is removed from them either.
    let _ = rustix::fs::flock(&file, FlockOperation::LockShared);
    // Its last link may have gone before it was locked.
    Ok((rustix::fs::fstat(&file)?.st_nlink > 0).then_some(file))
}

/// Writes the file so that others see all of it or nothing.
fn write(directory: &OwnedFd, name: &str) -> io::Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let temporary = format!(".{name}.{:016x}", u64::from_ne_bytes(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, &*temporary, flags, Mode::RUSR | Mode::WUSR)?);
    // The umask may deny access to users that a program becomes.
    let mode = Mode::RUSR | Mode::XUSR | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    let written = rustix::fs::fchmod(&file, mode)
        .map_err(io::Error::from)
        .and_then(|()| file.write_all(LIBRARY))
        .and_then(|()| Ok(rustix::fs::renameat(directory, &*temporary, directory, name)?));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, &*temporary, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// The C library takes this memory from the stack of each thread, which may have only 16 KiB.
    #[test]
    fn it_has_little_thread_local_memory() {
        const TLS: u32 = 7;
        let word = |at: usize| u64::from_le_bytes(*LIBRARY[at..].first_chunk().unwrap()) as usize;
        let half = |at: usize| usize::from(u16::from_le_bytes(*LIBRARY[at..].first_chunk().unwrap()));
        // ELF64: position, length and number of the program headers.
        let (table, size, count) = (word(32), half(54), half(56));
        let headers = LIBRARY[table..table + size * count].chunks_exact(size);
        let is_tls = |header: &[u8]| u32::from_le_bytes(*header.first_chunk().unwrap()) == TLS;
        let bytes = headers.filter(|header| is_tls(header));
        let bytes: u64 = bytes.map(|header| u64::from_le_bytes(*header[40..].first_chunk().unwrap())).sum();
        assert!((1..=512).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn it_is_written_once_and_found_again() {
        let home = folder();
        let folder = home.path().join("deep/peersock");
        let first = Library::provide_in(std::slice::from_ref(&folder)).unwrap();
        assert_eq!(fs::read(first.path()).unwrap(), LIBRARY);
        let inode = fs::metadata(first.path()).unwrap().ino();
        let second = Library::provide_in(std::slice::from_ref(&folder)).unwrap();
        assert_eq!(fs::metadata(second.path()).unwrap().ino(), inode);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
        let wanted = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, wanted);
    }

    #[test]
    fn what_is_not_its_content_is_replaced() {
        let folder = folder();
        let path = folder.path().join(name());
        fs::write(&path, vec![0; LIBRARY.len()]).unwrap();
        assert_eq!(fs::read(Library::place(folder.path(), &name()).unwrap().path()).unwrap(), LIBRARY);
        fs::remove_file(&path).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, LIBRARY).unwrap();
        symlink(&elsewhere, &path).unwrap();
        Library::place(folder.path(), &name()).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "a link is not followed");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        Library::place(folder.path(), &name()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o022, 0);
    }

    #[test]
    fn a_folder_that_will_not_do_is_passed_over() {
        let home = folder();
        let (open, spaced, file) =
            (home.path().join("open"), home.path().join("a b"), home.path().join("file"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(&file, "").unwrap();
        for folder in [&open, &spaced, &file] {
            Library::place(folder, &name()).map(|_| ()).unwrap_err();
        }
        let library = Library::provide_in(&[open, spaced, file]).unwrap();
        assert!(library.path().starts_with("/proc"));
        assert_eq!(fs::read(library.path()).unwrap(), LIBRARY);
        fs::OpenOptions::new()
            .write(true)
            .open(library.path())
            .and_then(|mut f| f.write_all(b"x"))
            .unwrap_err();
    }

    #[test]
    fn a_folder_that_others_can_replace_is_passed_over() {
        let home = folder();
        let shared = home.path().join("shared");
        fs::create_dir_all(shared.join("peersock")).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        Library::place(&shared.join("peersock"), &name()).map(|_| ()).unwrap_err();
        // In a sticky folder only owners can replace their files.
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        Library::place(&shared.join("peersock"), &name()).unwrap();
    }
}
