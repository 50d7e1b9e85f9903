//! Location of a node's identity, and its option.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::ArgMatches;
use peersock::overlay::{Identity, PublicIdentity};
use peersock::state::StateDir;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Environment variable for `--state`.
pub(crate) const STATE_VARIABLE: &str = "PEERSOCK_STATE";

/// Location of the identity.
#[derive(clap::Args)]
pub(crate) struct StateArgs {
    /// Directory that holds this node's identity [env: PEERSOCK_STATE] [default: peersock under
    /// $XDG_STATE_HOME or ~/.local/state]
    // Not clap's `env`, because --ephemeral conflicts with an explicit option but overrides a variable.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Use a new identity and forget it on exit
    #[arg(long, conflicts_with = "state")]
    pub(crate) ephemeral: bool,
}

impl StateArgs {
    /// Returns the given directory, or the default one.
    pub(crate) fn path(&self) -> Outcome<PathBuf> {
        let of_environment =
            || env::var_os(STATE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let Some(path) = self.state.clone().or_else(of_environment) else {
            return Ok(StateDir::default_path()?);
        };
        match path.ancestors().find(|part| part.exists()).filter(|part| !part.is_dir()) {
            Some(file) => Err(Failure::new(
                format_args!("{} is a file, and a node's state is a directory", file.display()),
                "give the directory, as --state DIR or in PEERSOCK_STATE, such as /var/lib/peersock; it is \
                 created if missing",
            )),
            None => Ok(path),
        }
    }

    /// Returns the directory of a running node to query; see [`StateArgs::path`].
    pub(crate) fn path_to_ask(&self) -> Outcome<PathBuf> {
        if self.ephemeral {
            return Err(Failure::usage(
                "a node with an ephemeral identity cannot be queried",
                "start the node with --state DIR, and give the same here",
            ));
        }
        self.path()
    }

    /// Returns the public identity for use in a file, which an ephemeral one cannot serve; see
    /// [`StateArgs::public_identity`].
    pub(crate) fn lasting_identity(&self) -> Outcome<PublicIdentity> {
        if self.ephemeral {
            return Err(Failure::usage(
                "a member with an ephemeral identity could never take part",
                "give the command without --ephemeral, or the key of another node to `peersock network add`",
            ));
        }
        self.public_identity()
    }

    /// Returns this node's public keys; creates the identity if none exists. Works while a node is running.
    pub(crate) fn public_identity(&self) -> Outcome<PublicIdentity> {
        if self.ephemeral {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(Failure::no_randomness)?;
            return Ok(*Identity::from_seed(&seed).public());
        }
        let path = self.path()?;
        match StateDir::peek_identity(&path)? {
            Some(identity) => Ok(identity),
            None => Ok(*StateDir::open(&path)?.identity()?.public()),
        }
    }
}

/// State directory of this command, for names of networks in it.
static STATE: OnceLock<PathBuf> = OnceLock::new();

/// Notes the state directory that the command line names.
pub(crate) fn note_state(matches: &ArgMatches) {
    let named = matches.try_get_one::<PathBuf>("state").ok().flatten();
    if let Some(path) = named {
        set_state(path);
    }
    if let Some((_, inner)) = matches.subcommand() {
        note_state(inner);
    }
}

/// Sets the state directory whose managed networks have names, unless it is set.
pub(crate) fn set_state(path: &Path) {
    let _ = STATE.set(path.to_owned());
}

/// Returns the state directory whose managed networks have names. A machine without one has none.
pub(crate) fn managed_state() -> PathBuf {
    let of_environment = || env::var_os(STATE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let named = STATE.get().cloned().or_else(of_environment);
    named.or_else(|| StateDir::default_path().ok()).unwrap_or_default()
}
