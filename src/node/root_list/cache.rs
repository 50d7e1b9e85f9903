//! Last good list of a domain's roots, for use while the DNS does not answer.
//!
//! The user's cache directory has one file per domain: `peersock/roots-DOMAIN`, mode 0600, and
//! `roots-DOMAIN@SERVER` for the answer of a nameserver chosen by the user. They are separate, because a user
//! of the system's nameservers must not get another one's answer. The files contain only texts of roots. A
//! list that others could have written is not used, nor one in a directory that others can write to: they
//! could rename the list of one domain to that of another.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::config::{RootAddress, RootDomain};
use crate::state::{StateError, check_directory, read_regular_secret_file, write_atomically};

/// Age limit of a list; a user absent for longer must ask the one who set the program up.
const MAX_LIST_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Name of the lock file for writing.
const LOCK: &str = "roots.lock";

/// Number of attempts to lock, and the pause between them: another process holds the lock for one write.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Directory of the lists.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Returns `peersock` under `$XDG_CACHE_HOME` (if that is an absolute path) or `~/.cache`; `None` without
    /// either.
    pub(super) fn of_user() -> Option<Cache> {
        Cache::under(env::var_os("XDG_CACHE_HOME").map(PathBuf::from), env::home_dir())
    }

    fn under(cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<Cache> {
        // The XDG base directory specification requires relative paths to be ignored.
        let base = match cache_home {
            Some(path) if path.is_absolute() => path,
            _ => home.filter(|home| home.is_absolute())?.join(".cache"),
        };
        Some(Cache { directory: base.join("peersock") })
    }

    #[cfg(test)]
    pub(super) fn at(directory: PathBuf) -> Cache {
        Cache { directory }
    }

    /// Returns the roots that the domain listed last; empty if unknown.
    pub(super) fn read(&self, domain: &RootDomain) -> Vec<RootAddress> {
        let path = self.directory.join(name(domain));
        let is_recent = || -> io::Result<bool> {
            let age = SystemTime::now().duration_since(fs::symlink_metadata(&path)?.modified()?);
            // A clock that was set back must not invalidate a list.
            Ok(age.unwrap_or_default() < MAX_LIST_AGE)
        };
        if !is_recent().unwrap_or(false) {
            return Vec::new();
        }
        let text = check_directory(&self.directory).and_then(|()| read_regular_secret_file(&path));
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, "the list of roots that was kept is not used");
                return Vec::new();
            }
        };
        text.lines().filter_map(|line| line.parse().ok()).take(super::MAX_LISTED).collect()
    }

    /// Stores a domain's current list.
    pub(super) fn write(&self, domain: &RootDomain, roots: &[RootAddress]) -> Result<(), StateError> {
        let text: String = roots.iter().map(|root| format!("{root}\n")).collect();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(StateError::io("create", &self.directory))?;
        check_directory(&self.directory)?;
        let _lock = lock(&self.directory.join(LOCK))?;
        write_atomically(&self.directory, &name(domain), text.as_bytes())
    }
}

/// Serializes writes of the user's processes.
fn lock(path: &Path) -> Result<File, StateError> {
    let mut options = OpenOptions::new();
    // A separate file, because any reader of a directory can lock it, but others cannot open this file.
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(StateError::io("open", path))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(StateError::io("lock", path)(error)),
        }
    }
    Err(StateError::io("lock", path)(io::ErrorKind::WouldBlock.into()))
}

/// Returns the file name of a domain's list. A domain has only characters of host names, and a server none
/// that are special in a path.
fn name(domain: &RootDomain) -> String {
    format!("roots-{domain}")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use peersock_overlay::Identity;

    use super::*;

    #[test]
    fn a_list_is_kept_privately_and_read_again() {
        let place = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(place.path().join("new/peersock"));
        assert!(cache.read(&domain("example.org")).is_empty());
        let key = Identity::from_seed(&[7; 32]).public().to_string();
        let roots = RootAddress::parse_list(&format!("{key}@192.0.2.1:1 {key}@a.b:2")).expect("two roots");
        for list in [&roots[..1], &roots] {
            cache.write(&domain("example.org"), list).expect("room");
            assert_eq!(cache.read(&domain("example.org")), list);
        }
        assert!(cache.read(&domain("example.com")).is_empty());
        let path = place.path().join("new/peersock/roots-example.org");
        let mode = |path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&place.path().join("new/peersock"))), (0o600, 0o700));
    }

    #[test]
    fn what_others_could_read_and_what_is_old_is_not_used() {
        let place = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(place.path().to_owned());
        let key = Identity::from_seed(&[7; 32]).public().to_string();
        let roots = RootAddress::parse_list(&format!("{key}@192.0.2.1:1")).expect("a root");
        cache.write(&domain("a"), &roots).expect("room");
        let path = place.path().join("roots-a");
        fs::set_permissions(&path, Permissions::from_mode(0o622)).expect("it is ours");
        assert!(cache.read(&domain("a")).is_empty());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        assert_eq!(cache.read(&domain("a")), roots);
        let file = File::options().write(true).open(&path).expect("it is ours");
        file.set_modified(SystemTime::now() - MAX_LIST_AGE).expect("it is ours");
        assert!(cache.read(&domain("a")).is_empty());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let place = tempfile::tempdir().expect("a folder");
        let (cache, roots) = (Cache::at(place.path().to_owned()), one_root());
        cache.write(&domain("theirs.example"), &roots).expect("room");
        // Without writing a list, others can rename one of this user's to another domain.
        for mode in [0o777, 0o720, 0o1777] {
            fs::set_permissions(place.path(), Permissions::from_mode(mode)).expect("it is ours");
            assert!(cache.read(&domain("theirs.example")).is_empty(), "{mode:o}");
            let refused = cache.write(&domain("theirs.example"), &roots);
            assert!(matches!(refused, Err(StateError::WritableByOthers { .. })), "{mode:o}");
        }
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("it is ours");
        assert_eq!(cache.read(&domain("theirs.example")), roots);
    }

    #[test]
    fn others_that_lock_what_they_can_open_hold_nobody() {
        let place = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(place.path().to_owned());
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("it is ours");
        cache.write(&domain("a"), &one_root()).expect("room");
        let directory = File::open(place.path()).expect("anybody can");
        directory.lock().expect("nobody has it");
        let (sender, written) = std::sync::mpsc::channel();
        let its = cache.clone();
        thread::spawn(move || sender.send(its.write(&domain("b"), &one_root()).is_ok()));
        assert_eq!(written.recv_timeout(Duration::from_secs(20)), Ok(true));
        // Other users can open none of the files.
        for entry in fs::read_dir(place.path()).expect("it is ours") {
            let metadata = entry.and_then(|entry| entry.metadata()).expect("it is there");
            assert_eq!(metadata.permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn what_is_no_list_or_too_long_is_not_used_and_holds_nobody() {
        let place = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(place.path().to_owned());
        let path = place.path().join("roots-a");
        let put = |content: &[u8]| {
            fs::write(&path, content).expect("room");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        };
        put(b"\xff\xfe\0no text");
        assert!(cache.read(&domain("a")).is_empty());
        put(&b"x".repeat((1 << 20) + 1));
        assert!(cache.read(&domain("a")).is_empty());
        let many = format!("nonsense\n{}\n", one_root()[0]).repeat(3000);
        put(many.as_bytes());
        assert_eq!(cache.read(&domain("a")).len(), super::super::MAX_LISTED);
        fs::remove_file(&path).expect("it is ours");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        assert!(cache.read(&domain("a")).is_empty(), "a pipe without a writer");
    }

    fn domain(text: &str) -> RootDomain {
        text.parse().expect("a domain")
    }

    fn one_root() -> Vec<RootAddress> {
        let key = Identity::from_seed(&[7; 32]).public().to_string();
        RootAddress::parse_list(&format!("{key}@192.0.2.1:1")).expect("a root")
    }

    #[test]
    fn the_directory_is_the_users() {
        let under = |cache: Option<&str>, home: Option<&str>| {
            Cache::under(cache.map(PathBuf::from), home.map(PathBuf::from)).map(|cache| cache.directory)
        };
        assert_eq!(under(Some("/c"), Some("/h")), Some("/c/peersock".into()));
        assert_eq!(under(Some("c"), Some("/h")), Some("/h/.cache/peersock".into()));
        assert_eq!(under(None, None), None);
    }
}
