//! The user that `peersock up` changes to.

use std::path::PathBuf;
use std::{env, io};

use peersock::state::StateDir;
use peersock_tun::{User, is_privileged_for_all};
use rustix::process::geteuid;

use super::{PRIVILEGE, keeper};
use crate::args::{STATE_VARIABLE, StateArgs, set_state};
use crate::failure::{Failure, Outcome};
use crate::running::RunningNode;
use crate::{status, stdio};

/// The user who has called sudo, and who has chosen no state directory by a variable.
pub(crate) struct Caller {
    user: User,
    pub(crate) home: PathBuf,
}

impl Caller {
    /// Returns the user, if there is one.
    pub(crate) fn find() -> Outcome<Option<Caller>> {
        let is_set = |variable| env::var_os(variable).is_some_and(|text| !text.is_empty());
        let number =
            env::var("SUDO_UID").ok().and_then(|text| text.parse().ok()).filter(|number| *number != 0);
        let is_chosen = is_set(STATE_VARIABLE) || is_set("XDG_STATE_HOME");
        let Some(number) = number.filter(|_| !is_chosen && geteuid().is_root()) else { return Ok(None) };
        let found = User::numbered(number).map_err(|error| {
            Failure::new(
                format_args!("cannot look for the user {number}, who has called sudo: {error}"),
                "give the directory with the identity as --state DIR",
            )
        })?;
        // Newer versions of sudo name the home.
        let home = env::var_os("SUDO_HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        Ok(found.map(|(user, listed)| Caller { user, home: home.unwrap_or(listed) }))
    }

    /// Opens files as the user.
    pub(crate) fn acting<T>(self, open: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        GoesOnAs::Owner(self.user).acting(open)
    }
}

/// State directory for the command: as the options say, or that of the user who has called sudo.
///
/// root acts as that user to open it, so that files there stay the user's, and links that the user puts there
/// lead to nothing that the user may not open.
pub(super) struct OwnState {
    pub(super) state: StateArgs,
    /// The user who has called sudo.
    caller: Option<User>,
}

impl OwnState {
    /// Returns the directory that options or variables name. Without any, and without a `named` user, it is
    /// the one of the user who has called sudo: this user's identity is the member that a network's file
    /// lists.
    pub(super) fn of(named: Option<User>, state: &StateArgs) -> Outcome<OwnState> {
        let given = StateArgs { state: state.state.clone(), ephemeral: state.ephemeral };
        let is_chosen = named.is_some() || state.ephemeral || state.state.is_some();
        let Some(caller) = Caller::find()?.filter(|_| !is_chosen) else {
            return Ok(OwnState { state: given, caller: None });
        };
        let path = caller.home.join(".local/state/peersock");
        set_state(&path);
        stdio::note(format_args!(
            "reads files as user id {}, who has called sudo, with the identity in {} and the user's \
             settings, and goes on as that user; --state DIR chooses another identity",
            caller.user.id(),
            path.display()
        ));
        Ok(OwnState { state: StateArgs { state: Some(path), ephemeral: false }, caller: Some(caller.user) })
    }

    /// Fails if a node runs with the directory already, which serves one node at a time.
    pub(super) fn check_free(&self) -> Outcome {
        let Some(running) = RunningNode::find_quietly(&self.state) else { return Ok(()) };
        // A shared node that only waits for another program leaves the directory to this one.
        if running.has_left() || running.gives_way() {
            return Ok(());
        }
        Err(held(&running))
    }
}

/// Returns the failure if others hold the directory.
fn held(running: &RunningNode) -> Failure {
    let programs: Vec<_> = running.status.programs.iter().map(status::program).collect();
    let by = match &programs[..] {
        [] => String::new(),
        programs => format!(", used by {}", programs.join(", ")),
    };
    let what = match programs.is_empty() {
        true => "it with `peersock node --end`",
        false => "these programs",
    };
    Failure::new(
        format_args!(
            "a node runs with {} already{by}, and `peersock up` has to start the node itself",
            running.path.display()
        ),
        format_args!(
            "end {what} first, and start them again after this command, whose node they share then; or give \
             --state DIR with another member's identity"
        ),
    )
}

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
    pub(super) fn of(named: Option<User>, own: &OwnState) -> Outcome<GoesOnAs> {
        let state = &own.state;
        if let Some(user) = named.or(own.caller) {
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

    /// Opens a state directory, which the node may not be able to open later.
    pub(super) fn open_state(&self, state: &StateArgs) -> Outcome<StateDir> {
        let opened = StateDir::open(&state.path()?)?;
        match self {
            GoesOnAs::Unlisted(_) => {
                let keeper = keeper::start(opened.path())?;
                Ok(opened.for_later(keeper)?)
            }
            GoesOnAs::Itself | GoesOnAs::Owner(_) => Ok(opened),
        }
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
