//! The user that a program continues as.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The users that systemd assigns to services without one.
const UNLISTED: Range<u32> = 61_184..65_520;

/// Limit of attempts that hit a listed user, or one outside the namespace.
const MAX_ATTEMPTS: u32 = 64;

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    user: Uid,
    group: Gid,
}

impl User {
    /// Returns the user of that name; `None` if there is none.
    ///
    /// # Errors
    /// The error of the system's list of users (getpwnam(3)).
    pub fn named(name: &str) -> io::Result<Option<User>> {
        let found = unistd::User::from_name(name)?;
        Ok(found.map(|found| User {
            user: Uid::from_raw(found.uid.as_raw()),
            group: Gid::from_raw(found.gid.as_raw()),
        }))
    }

    /// Returns the user with a number, and its home folder; `None` if no list has it.
    ///
    /// # Errors
    /// The error of the system's list of users (getpwuid(3)).
    pub fn numbered(number: u32) -> io::Result<Option<(User, PathBuf)>> {
        let found = unistd::User::from_uid(unistd::Uid::from_raw(number))?;
        let user = |found: &unistd::User| User {
            user: Uid::from_raw(found.uid.as_raw()),
            group: Gid::from_raw(found.gid.as_raw()),
        };
        Ok(found.map(|found| (user(&found), found.dir)))
    }

    /// Returns the owner of a file or folder, with its group.
    ///
    /// # Errors
    /// The error of stat(2).
    pub fn owner_of(path: &Path) -> io::Result<User> {
        let metadata = std::fs::metadata(path)?;
        Ok(User { user: Uid::from_raw(metadata.uid()), group: Gid::from_raw(metadata.gid()) })
    }

    /// Returns a user that no list has, and that most probably no other process uses. It is one of those that
    /// systemd assigns to services without a user (`DynamicUser`, 61184 to 65519). `None` in a user namespace
    /// without such users.
    ///
    /// # Errors
    /// The error of the system's list of users (getpwuid(3)).
    pub fn unlisted() -> io::Result<Option<User>> {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let groups = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
        let random = RandomState::new();
        for attempt in 0..MAX_ATTEMPTS {
            let number =
                UNLISTED.start + (random.hash_one(attempt) % u64::from(UNLISTED.end - UNLISTED.start)) as u32;
            let is_listed = unistd::User::from_uid(unistd::Uid::from_raw(number))?.is_some();
            if !is_listed && holds(&map, number) && holds(&groups, number) {
                return Ok(Some(User { user: Uid::from_raw(number), group: Gid::from_raw(number) }));
            }
        }
        Ok(None)
    }

    /// Returns the user's number.
    pub fn id(&self) -> u32 {
        self.user.as_raw()
    }

    /// Returns true if the user is root.
    pub fn is_root(&self) -> bool {
        self.user.is_root()
    }

    /// Opens files as this user until the result is dropped, on the calling thread; call it before other
    /// threads exist. Supplementary groups are given up permanently.
    ///
    /// # Errors
    /// `PermissionDenied` if the program is neither root nor this user.
    pub fn act(&self) -> io::Result<Acting> {
        let before = (geteuid(), getegid());
        if before.0 != self.user {
            set_thread_groups(&[])?;
            set_thread_res_gid(None, self.group, None)?;
            set_thread_res_uid(None, self.user, None)?;
        }
        Ok(Acting { before })
    }

    /// Becomes this user permanently, on the calling thread and its future threads; call it before other
    /// threads exist. Capabilities are lost, unless the program was already this user.
    /// Fails with the errors of [`User::act`].
    pub fn become_it(&self) -> io::Result<()> {
        if geteuid() == self.user {
            return Ok(());
        }
        set_thread_groups(&[])?;
        set_thread_res_gid(self.group, self.group, self.group)?;
        set_thread_res_uid(self.user, self.user, self.user)?;
        Ok(())
    }
}

/// Returns true if a user namespace contains a number, by its map (user_namespaces(7)). Without a map it
/// contains all.
fn holds(map: &str, number: u32) -> bool {
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().ok();
    let holds = |line: &str| {
        numbers(line).is_some_and(|of| of.len() == 3 && number >= of[0] && number - of[0] < of[2])
    };
    map.trim().is_empty() || map.lines().any(holds)
}

/// While this exists, files are opened as another user; see [`User::act`].
#[must_use = "files are opened as the other user until this is dropped"]
#[derive(Debug)]
pub struct Acting {
    before: (Uid, Gid),
}

impl Drop for Acting {
    fn drop(&mut self) {
        let (user, group) = self.before;
        if geteuid() != user {
            // The saved user is the previous one, to which the kernel always lets a thread return.
            set_thread_res_uid(None, user, None).expect("the saved user may be taken again");
            set_thread_res_gid(None, group, None).expect("the saved group may be taken again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_the_users_of_its_map() {
        assert!(holds("", 61_184) && holds("         0          0 4294967295\n", 61_184));
        assert!(!holds("0 1000 1\n", 61_184));
        assert!(holds("0 1000 1\n1 100000 65536\n", 65_519) && !holds("0 100000 61184\n", 61_184));
    }
}
