//! Managed networks: commands of the machine that runs a controller, and of machines that join.

mod admin;
mod asking;
mod clashes;
mod clock;
mod create;
mod delete;
mod domains;
mod duration;
mod hook;
mod install;
mod invited;
mod join;
mod kept;
mod known;
mod limited_program;
mod network_key;
mod place;
mod rekey;
mod restore;
mod rules;
mod serve;
mod stores;
mod visits;
mod why;
mod words;

pub(crate) use admin::{
    ApproveArgs, ChangeArgs, DenyArgs, InviteArgs, InvitesArgs, ListArgs, ReserveArgs, RevokeArgs,
    SettingsArgs, UninviteArgs, UnreserveArgs, approve, change, deny, invite, invites, list, reserve, revoke,
    settings, uninvite, unreserve,
};
pub(crate) use clock::{AcceptClockArgs, accept_clock};
pub(crate) use create::{CreateArgs, create};
pub(crate) use delete::{DeleteArgs, delete};
pub(crate) use invited::{INVITE_VARIABLE, invited, join_invited};
pub(crate) use join::{JoinArgs, LeaveArgs, NetworksArgs, join, leave, networks};
pub(crate) use kept::kept;
pub(crate) use known::{
    check_joined, explained, named, on_removal, removal, told, words_of_certificate, words_of_clock,
    words_of_ending,
};
pub(crate) use network_key::{RekeyArgs, rekey as rekey_network};
pub(crate) use rekey::rekey;
pub(crate) use restore::{BackupArgs, RenewArgs, RestoreArgs, backup, renew, restore};
pub(crate) use rules::{RulesArgs, rules, since};
pub(crate) use serve::{ControllerArgs, serve, serve_until};
pub(crate) use stores::is_controller_of;
pub(crate) use why::{WhyArgs, why};

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use peersock::NetworkId;
use peersock::overlay::ParseNetworkIdError;
use peersock::overlay::membership::{NetworkKey, UnixTime};

use crate::args::{NodeArgs, StateArgs};
use crate::failure::{Failure, Outcome};

/// Parses the ID of a network, also in groups with hyphens as `create` shows it.
fn parse_id(text: &str) -> Result<NetworkId, ParseNetworkIdError> {
    text.trim().replace('-', "").parse()
}

/// State directory of a command that starts no node.
#[derive(clap::Args)]
struct DirectoryArgs {
    /// Directory that holds this node's identity [env: PEERSOCK_STATE] [default: peersock under
    /// $XDG_STATE_HOME or ~/.local/state]
    #[arg(long = "state", value_name = "DIR")]
    state: Option<PathBuf>,
}

impl DirectoryArgs {
    fn path(&self) -> Outcome<PathBuf> {
        StateArgs { state: self.state.clone(), ephemeral: false }.path()
    }
}

/// Returns the state directory of a command whose node has to be found again.
fn lasting_path(args: &NodeArgs) -> Outcome<PathBuf> {
    match args.state.ephemeral {
        true => Err(Failure::usage(
            "a machine with an ephemeral identity is a member only while its node runs",
            "leave --ephemeral out, or give --state DIR",
        )),
        false => args.state.path(),
    }
}

/// Returns a network's key in the form that two people compare: its first 80 bits. A search for another key
/// with the same ID and form takes longer than any attacker has.
fn comparable(key: &NetworkKey) -> String {
    let pairs = key.as_bytes()[..10].chunks(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
    pairs.collect::<Vec<_>>().join("-")
}

fn right_has_ended() -> Failure {
    Failure::new(
        "the controller's right to issue certificates has ended",
        "run `peersock network renew`, and give the recovery words",
    )
}

/// Returns the system's time.
fn now() -> UnixTime {
    UnixTime::from(UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// Returns the person who acts, for the log of changes.
fn who() -> String {
    let named =
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    // Neither is set in a container or under cron, as a rule.
    named.unwrap_or_else(|| format!("user {}", rustix::process::getuid()))
}
