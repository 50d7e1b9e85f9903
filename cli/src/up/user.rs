//! The user that `peersock up` changes to.

use std::io;

use peersock::PublicIdentity;
use peersock::state::StateDir;
use peersock_tun::{User, is_privileged_for_all};
use rustix::process::geteuid;

use super::PRIVILEGE;
use crate::args::StateArgs;
use crate::failure::{Failure, Outcome};
use crate::stdio;

/// The user that the program changes to once the interfaces exist. It does not stay root, because root
/// without capabilities still owns the system's files.
pub(super) enum GoesOnAs {
    /// The user that started the program, which is not root.
    Itself,
    /// The named user, or the state's owner; files are opened as that user.
    Owner(User),
    /// A user that owns nothing; files are opened as root before.
    Unlisted(User),
}

impl GoesOnAs {
    /// Returns the `named` user, else the owner of the state, or an unlisted user if that is root.
    pub(super) fn of(named: Option<User>, state: &StateArgs) -> Outcome<GoesOnAs> {
        if let Some(user) = named {
            return Ok(GoesOnAs::Owner(user));
        }
        if !geteuid().is_root() {
            return Ok(GoesOnAs::Itself);
        }
        if !state.ephemeral
            && let Ok(owner) = User::owner_of(&state.path()?)
            && !owner.is_root()
        {
            return Ok(GoesOnAs::Owner(owner));
        }
        let unlisted = User::unlisted().map_err(|error| {
            Failure::new(
                format_args!("cannot look for a user that is in no list: {error}"),
                "name one with --user, such as one that `useradd --system peersock` has made",
            )
        })?;
        Ok(match unlisted {
            Some(user) => GoesOnAs::Unlisted(user),
            None => {
                stdio::note("continues as root: this user namespace has no other users (--user names one)");
                GoesOnAs::Itself
            }
        })
    }

    /// Returns the user to change to, if it is another one.
    pub(super) fn goes_on_as(&self) -> Option<User> {
        match self {
            GoesOnAs::Itself => None,
            GoesOnAs::Owner(user) | GoesOnAs::Unlisted(user) => Some(*user),
        }
    }

    /// Opens files as the user who owns them.
    pub(super) fn acting<T>(&self, open: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let GoesOnAs::Owner(user) = self else { return open() };
        let acting = user.act().map_err(|error| {
            Failure::new(
                format_args!(
                    "cannot become the user that --user names, or that the state belongs to: {error}"
                ),
                "run it as root, or as that user with CAP_NET_ADMIN",
            )
        })?;
        let opened = open();
        drop(acting);
        opened
    }

    /// Returns the identity in a state directory, and the directory if the node could not open it later.
    pub(super) fn open_state(&self, state: &StateArgs) -> Outcome<(PublicIdentity, Option<StateDir>)> {
        let GoesOnAs::Unlisted(_) = self else { return Ok((state.public_identity()?, None)) };
        let opened = StateDir::open(&state.path()?)?.for_later()?;
        Ok((*opened.identity()?.public(), Some(opened)))
    }

    pub(super) fn become_it(&self) -> io::Result<()> {
        self.goes_on_as().map_or(Ok(()), |user| user.become_it())
    }
}

/// Fails if the program's file gives its capability to all users of this machine.
pub(super) fn check_file() -> Outcome {
    match is_privileged_for_all() {
        false => Ok(()),
        true => Err(Failure::new(
            "the program's file has CAP_NET_ADMIN and everybody may run it: any user of this machine could \
             redirect the traffic of all users",
            PRIVILEGE,
        )),
    }
}
