//! Commands that act on the store of a controller, whether it runs or not.

mod change;
mod claims;
mod decisions;
mod invites;
mod local_time;
mod members;
mod outlive;
mod reach;
mod removal;
mod reservations;
mod rules;
mod settings;

pub(crate) use change::{ChangeArgs, change};
pub(crate) use decisions::{ApproveArgs, DenyArgs, approve, deny};
pub(crate) use invites::{InviteArgs, InvitesArgs, UninviteArgs, invite, invites, uninvite};
pub(super) use local_time::{shown, until};
pub(crate) use members::{ListArgs, list};
pub(crate) use removal::{RevokeArgs, revoke};
pub(crate) use reservations::{ReserveArgs, UnreserveArgs, reserve, unreserve};
pub(crate) use rules::{ApplyArgs, ClearArgs, ShowArgs, apply, clear, show};
pub(crate) use settings::{SettingsArgs, block, on_clone, settings};

use std::fs::File;

use peersock::management::{self, ManagementError};
use peersock::state::StateDir;
use peersock::{NetworkId, NodeId, Status};
use peersock_controller::{ChangeError, Controller, Member};

use super::{DirectoryArgs, clock, stores};
use crate::failure::{Failure, Outcome};
use crate::status;

/// Network whose controller is on this machine.
#[derive(clap::Args)]
pub(super) struct OfNetwork {
    /// Network whose controller is here, by its name or ID [default: the only one]
    #[arg(short = 'n', value_name = "NETWORK")]
    network: Option<String>,

    #[command(flatten)]
    state: DirectoryArgs,
}

impl OfNetwork {
    pub(super) fn open(&self) -> Outcome<Controller> {
        let mut controller = self.open_quietly()?;
        clock::tell(&mut controller);
        Ok(controller)
    }

    /// Opens the controller for a command that signs by this machine's clock.
    pub(super) fn open_by_clock(&self) -> Outcome<Controller> {
        let mut controller = self.open_quietly()?;
        clock::check(&mut controller)?;
        Ok(controller)
    }

    /// Opens the controller without a word about the clock.
    pub(super) fn open_quietly(&self) -> Outcome<Controller> {
        stores::open(&self.state.path()?, self.network.as_deref())
    }

    /// Opens it while no other command changes the machine's identity, which lasts until the file is dropped.
    pub(super) fn open_in_turn(&self) -> Outcome<(Controller, File)> {
        let turn = stores::turn(&self.state.path()?)?;
        Ok((self.open()?, turn))
    }

    /// Tells a controller of the network's keys that its machine has learned as a member.
    pub(super) fn learn_keys(&self, controller: &mut Controller) -> Outcome {
        stores::learn_keys(&self.state.path()?, controller)
    }

    /// Opens the controller of a network that another argument names, unless one is named by -n.
    fn open_for(&self, network: Option<NetworkId>) -> Outcome<Controller> {
        let of_text = network.map(|id| id.to_string());
        stores::open(&self.state.path()?, self.network.as_deref().or(of_text.as_deref()))
    }

    /// Returns the controller's own node, if its identity exists.
    fn own(&self) -> Outcome<Option<NodeId>> {
        Ok(StateDir::peek_identity(&self.state.path()?)?.map(|own| own.node_id()))
    }

    /// Asks the node here for its status, with all its peers.
    fn look(&self) -> Outcome<Here> {
        Ok(match management::status(&self.state.path()?, usize::MAX) {
            Ok(text) => status::parse(&text).map_or(Here::Nobody, |status| Here::Runs(Box::new(status))),
            Err(error @ ManagementError::Silent { .. }) => Here::Silent(error.to_string()),
            Err(_) => Here::Nobody,
        })
    }
}

/// Node and controller of a network on the controller's machine.
pub(super) enum Here {
    Nobody,
    /// A node or a controller whose process is stopped, or very busy; for people.
    Silent(String),
    Runs(Box<Status>),
}

/// Looks at the node that serves the network here, as far as it shows, and at its controller.
pub(super) fn served(of: &OfNetwork, controller: &Controller) -> Outcome<Here> {
    let network = controller.network();
    // Other programs' nodes are in the network, too.
    let is_served =
        |status: &Status| status.networks.iter().any(|joined| joined.id == network && joined.serves);
    let process = stores::served_by(&of.state.path()?, network);
    Ok(match (of.look()?, process) {
        (Here::Runs(status), _) if !is_served(&status) => Here::Nobody,
        (Here::Runs(_), Some(process)) if management::is_stopped(process) => {
            Here::Silent(format!("the controller with process {process} is stopped"))
        }
        (here, _) => here,
    })
}

/// Returns a member's name with its addresses.
pub(super) fn described(member: &Member) -> String {
    let addresses: Vec<_> = member.grant.addresses().map(|one| one.to_string()).collect();
    match addresses.is_empty() {
        true => member.grant.name.to_string(),
        false => format!("{} ({})", member.grant.name, addresses.join(", ")),
    }
}

/// Returns the failure of a change.
pub(in crate::managed) fn refused(error: impl Into<ChangeError>) -> Failure {
    let error = error.into();
    let hint = match &error {
        ChangeError::NotFound(_) => "list names, codes and addresses with `peersock network members`",
        ChangeError::Ambiguous { .. } => {
            "give more digits of the node ID, or all 64, or a code with its hyphen"
        }
        ChangeError::Mass { .. } => "give --yes-all-of-them if that is meant",
        ChangeError::Restored(_) => {
            "wait until `peersock network members` shows that a member was heard; if that machine's key may be \
             stolen, give --yes-all-of-them"
        }
        ChangeError::OwnNode => {
            "choose another member: to remove, rename or replace this machine, restore the network on another \
             one first"
        }
        ChangeError::Issuer(_) => {
            "remove it with `peersock network revoke`, and give its name by `peersock network invite --name`"
        }
        ChangeError::Replaced(_) => {
            "name the member that has its place now: `peersock network members` lists them"
        }
        ChangeError::NameTaken(_) => "choose another name: `peersock network members` lists those in use",
        ChangeError::Grant(_) => "give fewer or shorter tags, or shorter claims",
        ChangeError::FewDigits(_) => {
            "list names and addresses with `peersock network members`, IDs with --json"
        }
        ChangeError::NotInPool(_) => "choose an address of a pool: `peersock network settings` lists them",
        ChangeError::Unassignable(_) => "choose another address of the pool",
        ChangeError::AddressTaken(..) => {
            "choose a free address: `peersock network members` lists those in use"
        }
        ChangeError::Reserved(..) => {
            "choose another address, or end the reservation with `peersock network unreserve`"
        }
        ChangeError::Decided(_) => {
            "look with `peersock network members` which decision that was, and decide again if it was wrong"
        }
        ChangeError::TooManySpares => {
            "end the right of another member first, with `--spare no`: `peersock network members` lists them"
        }
        ChangeError::EphemeralSpare(_) => "choose a member that lasts: `peersock network members` lists them",
        ChangeError::KeyElsewhere => {
            "run it where the network's key is; a network made with --offline has no such members"
        }
        ChangeError::NotReserved(_) => "list the reserved addresses with `peersock network settings`",
        _ => "list the members with `peersock network members`",
    };
    Failure::new(format_args!("nothing is changed: {error}"), hint)
}
