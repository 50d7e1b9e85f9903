//! The user that a program goes on as.

use std::io;

use nix::unistd;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user of this machine.
///
/// ```
/// use peersock_tun::User;
///
/// let root = User::named("root")?.expect("every system has it");
/// assert!(root.is_root());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    user: Uid,
    group: Gid,
}

impl User {
    /// The user of that name; `None` if there is none.
    ///
    /// # Errors
    /// What the system's list of users says (getpwnam(3)).
    pub fn named(name: &str) -> io::Result<Option<User>> {
        let found = unistd::User::from_name(name)?;
        Ok(found.map(|found| User {
            user: Uid::from_raw(found.uid.as_raw()),
            group: Gid::from_raw(found.gid.as_raw()),
        }))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.user.as_raw()
    }

    /// Whether it is the system's administrator.
    pub fn is_root(&self) -> bool {
        self.user.is_root()
    }

    /// Opens files as this user until the result is dropped, on the calling thread: call it before there are
    /// others. Groups besides the user's own are given up for good.
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

    /// Becomes this user for good, on the calling thread and on those that it starts from now on: call it
    /// before there are others. Capabilities are lost, unless the program was this user already.
    ///
    /// # Errors
    /// As [`User::act`].
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

/// While this is there, files are opened as another user; see [`User::act`].
#[must_use = "files are opened as the other user until this is dropped"]
#[derive(Debug)]
pub struct Acting {
    before: (Uid, Gid),
}

impl Drop for Acting {
    fn drop(&mut self) {
        let (user, group) = self.before;
        if geteuid() != user {
            // The saved user is the one before, to which the kernel always lets a thread go back.
            set_thread_res_uid(None, user, None).expect("the saved user may be taken again");
            set_thread_res_gid(None, group, None).expect("the saved group may be taken again");
        }
    }
}
