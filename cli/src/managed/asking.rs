//! Question for a membership: by the node that runs with the state directory, or by one in this process.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use peersock::management::{self, JoinRequest, Joining, ManagementError};
use peersock::overlay::membership::{Credentials, NetworkKey};
use peersock::state::{MembershipRecord, StateDir, StateError};
use peersock::{Joined, Node, Standing};
use peersock_attach::{Attached, wants_own_node};

use crate::args::NodeArgs;
use crate::failure::{Failure, Outcome};
use crate::node::start_node;
use crate::{attachment, in_use, signals, stdio};

/// Time after which a command gives up to wait for another one that uses the state directory shortly.
const IN_USE_FOR: Duration = Duration::from_secs(3);

/// Interval of attempts meanwhile.
const RETRY: Duration = Duration::from_millis(20);

/// Time for which a node is drained at the end of a command.
const DRAIN: Duration = Duration::from_secs(2);

/// Node that asks, until dropped.
pub(super) enum Asking {
    /// The node that other programs use, too. The attachment keeps a shared one while this lives.
    Running { joining: Joining, _attached: Option<Attached> },
    /// A node of this process.
    Own { node: Node, joined: Joined, state: StateDir },
}

impl Asking {
    /// Begins to ask. Starts a node if none runs.
    pub(super) fn begin(args: &NodeArgs, path: &Path, request: &JoinRequest) -> Outcome<Asking> {
        let begun = Instant::now();
        loop {
            let is_shared = Attached::is_offered(path);
            // A node that shares itself with no other program is asked all the same.
            let attached = match is_shared || !wants_own_node() && !is_running(path) {
                true => attachment::open_to_join(args, "peersock join".to_owned())?,
                false => None,
            };
            let mut asked = request.clone();
            if attached.is_none() {
                asked.roots = args.roots_with_tokens()?;
            }
            match management::join(path, &asked) {
                Ok(joining) => {
                    check_settings(args, attached.is_some());
                    return Ok(Asking::Running { joining, _attached: attached });
                }
                Err(ManagementError::NotRunning { .. }) if attached.is_none() => {}
                Err(error) => return Err(refused(path, error)),
            }
            match StateDir::open(path) {
                Ok(state) => return Asking::own(args, state, request),
                // Its node, or the next one, can be asked soon.
                Err(StateError::InUse { .. }) if begun.elapsed() < IN_USE_FOR => thread::sleep(RETRY),
                Err(StateError::InUse { .. }) => in_use::open(path).map(drop)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins with a node in this process.
    fn own(args: &NodeArgs, state: StateDir, request: &JoinRequest) -> Outcome<Asking> {
        let node = start_node(args, &state)?;
        if let Some(invite) = &request.invite {
            node.add_roots(invite.roots().to_vec());
        }
        let joined = node.join(request.described()?)?;
        let ended = node.clone();
        signals::end_with(move |signal| {
            ended.shutdown(DRAIN);
            128 + signal
        })?;
        if let Some(invite) = &request.invite {
            let (joined, to) = (joined.clone(), invite.controller_address().into());
            // Its session shows the controller, and the roots know the way to it.
            thread::Builder::new()
                .name("controller".into())
                .spawn(move || joined.wait_peer(to, super::join::FIRST_ANSWER))?;
        }
        Ok(Asking::Own { node, joined, state })
    }

    /// Waits until the node is a member, and returns its standing then, or when `timeout` has passed.
    pub(super) fn wait_admitted(
        &mut self,
        timeout: Duration,
        mut told: impl FnMut(&Standing, Option<NetworkKey>),
    ) -> Outcome<Standing> {
        Ok(match self {
            Asking::Running { joining, .. } => joining.wait_admitted(timeout, told)?,
            Asking::Own { joined, .. } => {
                joined.wait_admitted(timeout, |standing| told(standing, key(joined)))?
            }
        })
    }

    /// Returns true if a controller has said last that this machine is no member.
    pub(super) fn is_denied(&self) -> bool {
        let standing = match self {
            Asking::Running { joining, .. } => Some(joining.standing().clone()),
            Asking::Own { joined, .. } => joined.membership().map(|known| known.standing),
        };
        matches!(standing, Some(Standing::Denied(_)))
    }

    /// Returns the network's key, once it is known.
    pub(super) fn key(&self) -> Option<NetworkKey> {
        match self {
            Asking::Running { joining, .. } => joining.key(),
            Asking::Own { joined, .. } => key(joined),
        }
    }

    /// Ends the question, after the answer is in the state directory if the machine is a member. Keeps the
    /// names and roots there, also while a request waits, which the same command repeats.
    pub(super) fn end(self, path: &Path, request: &JoinRequest, is_member: bool) -> Outcome {
        let Asking::Own { node, joined, state } = self else { return Ok(()) };
        if is_member {
            kept(path, &joined)?;
        }
        node.shutdown(DRAIN);
        if let Some(mut record) = StateDir::membership(path, request.network)?
            && request.note_in(&mut record)
        {
            state.keep_membership(&record)?;
        }
        Ok(())
    }
}

fn key(joined: &Joined) -> Option<NetworkKey> {
    joined.membership().and_then(|known| known.key)
}

/// Returns true if a node runs with the state directory, whoever has started it.
fn is_running(path: &Path) -> bool {
    management::status(path, 0).is_ok()
}

/// Says that a node which runs already has its own settings. One that is shared refuses others.
fn check_settings(args: &NodeArgs, is_attached: bool) {
    if !is_attached && args.named_settings().is_ok_and(|named| !named.is_empty()) {
        stdio::note("the node that runs with this state directory asks, with its own settings");
    }
}

fn refused(path: &Path, error: ManagementError) -> Failure {
    match error {
        ManagementError::Refused { error, .. } if error == "unknown request" => match in_use::open(path) {
            Err(failure) => failure,
            Ok(_) => Failure::new("the node of another version has just ended", "run the command again"),
        },
        ManagementError::Refused { error, .. } => Failure::new(
            format_args!("the node that runs here does not join: {error}"),
            "check the invite or the ID; `peersock networks` lists those of this machine",
        ),
        error => error.into(),
    }
}

/// Waits until the node's credentials are in the state directory, in place of earlier ones.
fn kept(path: &Path, joined: &Joined) -> Outcome {
    let begun = Instant::now();
    let end = joined.membership().and_then(|known| known.end);
    let end_of = |record: &MembershipRecord| record.credentials.as_ref().map(Credentials::end);
    while begun.elapsed() < DRAIN {
        let record = StateDir::membership(path, joined.id())?;
        if record.is_some_and(|record| record.denied.is_none() && end_of(&record) == end) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
