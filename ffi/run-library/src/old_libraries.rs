//! Libraries of other versions in the user's cache, which are removed after long disuse.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

/// Age at which the file of another version is removed, counted from its last use, if no program runs with
/// it.
const UNUSED_FILE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Precision with which the file's time shows its last use.
const USE_PRECISION: Duration = Duration::from_secs(24 * 3600);

/// Sets the file's time to now, so that others keep it although no process of ours holds its lock. Errors are
/// ignored, because a read-only file system keeps the file anyway.
pub(super) fn note_use(file: &File) {
    if age(file).is_none_or(|age| age > USE_PRECISION) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Removes unneeded files whose names begin with `prefix` from a folder: versions other than `name`, and
/// remains of interrupted writes.
pub(super) fn remove(directory: &OwnedFd, prefix: &str, name: &str) {
    let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return };
    // Listed once for all files, and only if there is one to remove.
    let mut mapped = None;
    for entry in entries.flatten() {
        let Ok(other) = entry.file_name().to_str() else { continue };
        if other == name || !other.trim_start_matches('.').starts_with(prefix) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(directory, other, flags, Mode::empty()).map(File::from) else {
            continue;
        };
        let is_old = || age(&file).is_some_and(|age| age > UNUSED_FILE_AGE);
        // Check the age again last, because a process that waits for the lock has noted its use first.
        if is_old()
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && !mapped.get_or_insert_with(|| mapped_names(prefix)).contains(other)
            && is_old()
        {
            let _ = rustix::fs::unlinkat(directory, other, AtFlags::empty());
        }
    }
}

/// Returns the time since a file was last provided.
fn age(file: &File) -> Option<Duration> {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
    SystemTime::now().duration_since(modified).ok()
}

/// Returns the names of mapped files that begin with `prefix`, or with dots before it, as far as this user
/// can see. A program whose launcher has ended passes the library on to its children.
fn mapped_names(prefix: &str) -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_number = |entry: &fs::DirEntry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
    let maps = processes.filter(is_number).map(|entry| fs::read(entry.path().join("maps")));
    let mut names = BTreeSet::new();
    for maps in maps.flatten() {
        let maps = String::from_utf8_lossy(&maps);
        // A file that was replaced meanwhile has ` (deleted)` behind its name.
        let files = maps.lines().filter_map(|line| line.rsplit('/').next()?.split(' ').next());
        let ours = files.filter(|name| name.trim_start_matches('.').starts_with(prefix));
        names.extend(ours.map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::thread;
    use std::time::Instant;

    use rustix::fs::FlockOperation;

    use super::*;

    const PREFIX: &str = "library-";

    /// Makes a file that was last used `days` days ago.
    fn make(folder: &Path, name: &str, days: u64) -> File {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(name));
        let file = file.unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
        file
    }

    #[test]
    fn files_of_other_versions_go_when_they_are_old_and_nobody_uses_them() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, days| make(folder.path(), name, days);
        let used = make("library-used.so", 100);
        rustix::fs::flock(&used, FlockOperation::LockShared).unwrap();
        make("library-old.so", 100);
        make(".library-old.so.0123", 100);
        make("library-new.so", 20);
        make("library-own.so", 100);
        make("another", 100);
        // A program has it loaded, and its launcher has ended.
        let library = include_bytes!(concat!(env!("OUT_DIR"), "/libpeersock_preload.so"));
        fs::write(folder.path().join("library-loaded.so"), library).unwrap();
        make("library-loaded.so", 100);
        let preload = folder.path().join("library-loaded.so");
        let mut program = Command::new("sleep").arg("1000").env("LD_PRELOAD", preload).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(100);
        while !mapped_names(PREFIX).contains("library-loaded.so") {
            assert!(Instant::now() < deadline, "it is not loaded");
            thread::sleep(Duration::from_millis(5));
        }
        let left = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut left: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            left.sort();
            left
        };
        let directory = OwnedFd::from(File::open(folder.path()).unwrap());
        remove(&directory, PREFIX, "library-own.so");
        let kept = ["another", "library-loaded.so", "library-new.so", "library-own.so", "library-used.so"];
        assert_eq!(left(), kept);
        program.kill().unwrap();
        program.wait().unwrap();
        remove(&directory, PREFIX, "library-own.so");
        assert_eq!(
            left(),
            kept.map(str::to_owned).into_iter().filter(|name| !name.contains("loaded")).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_file_that_is_used_again_is_not_old() {
        let folder = tempfile::tempdir().unwrap();
        let file = make(folder.path(), "library-used.so", 100);
        note_use(&file);
        assert!(age(&file).is_some_and(|age| age < USE_PRECISION));
    }
}
