//! The last good list of a domain's roots, for when the DNS does not answer.
//!
//! One file for each domain in the user's cache directory: `peersock/roots-DOMAIN`, mode 0600. Nothing but
//! texts of roots are in it. A list that others could have written is not used.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::RootAddress;
use crate::state::{StateError, read_regular_secret_file, write_atomically};

/// An older list is not used: who has not been there for so long asks whoever set the program up.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// Where lists are kept.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// `peersock` under `$XDG_CACHE_HOME` (if that is an absolute path) or `~/.cache`; `None` without either.
    pub(super) fn of_user() -> Option<Cache> {
        Cache::under(env::var_os("XDG_CACHE_HOME").map(PathBuf::from), env::home_dir())
    }

    fn under(cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<Cache> {
        // The XDG base directory specification tells us to ignore a relative path.
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

    /// The roots that the domain listed when it was last asked; none if that is not known.
    pub(super) fn read(&self, domain: &str) -> Vec<RootAddress> {
        let path = self.directory.join(name(domain));
        let is_recent = || -> io::Result<bool> {
            let age = SystemTime::now().duration_since(fs::symlink_metadata(&path)?.modified()?);
            // A clock that was set back makes no list bad.
            Ok(age.unwrap_or_default() < LIFETIME)
        };
        if !is_recent().unwrap_or(false) {
            return Vec::new();
        }
        let text = match read_regular_secret_file(&path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, "the list of roots that was kept is not used");
                return Vec::new();
            }
        };
        text.lines().filter_map(|line| line.parse().ok()).take(super::MAX_LISTED).collect()
    }

    /// Keeps what a domain lists now.
    pub(super) fn write(&self, domain: &str, roots: &[RootAddress]) -> Result<(), StateError> {
        let text: String = roots.iter().map(|root| format!("{root}\n")).collect();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(StateError::io("create", &self.directory))?;
        // Other processes of the user's may write at the same moment.
        let lock = File::open(&self.directory).and_then(|directory| directory.lock().map(|()| directory));
        let _lock = lock.map_err(StateError::io("lock", &self.directory))?;
        write_atomically(&self.directory, &name(domain), text.as_bytes())
    }
}

/// A domain's characters are those of host names, so it is no path.
fn name(domain: &str) -> String {
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
        assert!(cache.read("example.org").is_empty());
        let key = Identity::from_seed(&[7; 32]).public().to_string();
        let roots = RootAddress::parse_list(&format!("{key}@192.0.2.1:1 {key}@a.b:2")).expect("two roots");
        for list in [&roots[..1], &roots] {
            cache.write("example.org", list).expect("room");
            assert_eq!(cache.read("example.org"), list);
        }
        assert!(cache.read("example.com").is_empty());
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
        cache.write("a", &roots).expect("room");
        let path = place.path().join("roots-a");
        fs::set_permissions(&path, Permissions::from_mode(0o622)).expect("it is ours");
        assert!(cache.read("a").is_empty());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        assert_eq!(cache.read("a"), roots);
        let file = File::options().write(true).open(&path).expect("it is ours");
        file.set_modified(SystemTime::now() - LIFETIME).expect("it is ours");
        assert!(cache.read("a").is_empty());
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
