//! Question for a membership: by the node that runs with the state directory, or by one in this process.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use peersock::management::{self, JoinRequest, Joining, ManagementError};
use peersock::overlay::membership::NetworkKey;
use peersock::state::{StateDir, StateError};
use peersock::{Joined, Node, Standing, Status};
use peersock_attach::{Attached, wants_own_node};

use crate::args::NodeArgs;
use crate::failure::{Failure, Outcome};
use crate::node::start_node;
use crate::{attachment, in_use, signals, stdio};

/// Time after which a command gives up to wait for another one that uses the state directory shortly.
const IN_USE_FOR: Duration = Duration::from_secs(3);

/// Time for which nodes of other commands may end before they answer.
const ENDS_FOR: Duration = Duration::from_secs(20);

/// Interval of attempts meanwhile.
const RETRY: Duration = Duration::from_millis(20);

/// Time for which a node is drained at the end of a command.
const DRAIN: Duration = Duration::from_secs(2);

/// Question of a command, until dropped.
pub(super) struct Asking<'a> {
    args: &'a NodeArgs,
    path: &'a Path,
    request: &'a JoinRequest,
    asker: Asker,
}

/// Node that asks.
enum Asker {
    /// The node that other programs use, too. The attachment keeps a shared one while this lives.
    Running { joining: Joining, _attached: Option<Attached> },
    /// A node of this process.
    Own { node: Node, joined: Joined, _state: StateDir },
}

/// Answer of the node that may run with a state directory.
pub(super) enum Answer<T> {
    Is(T),
    /// No node can be asked.
    Nobody,
    /// The node was about to end, as the node of another command does.
    Ended,
}

impl<T> Answer<T> {
    /// Returns the answer, unless an error says that there is no node.
    pub(super) fn of(asked: Result<T, ManagementError>) -> Result<Answer<T>, ManagementError> {
        match asked {
            Ok(answer) => Ok(Answer::Is(answer)),
            Err(ManagementError::NotRunning { .. }) => Ok(Answer::Nobody),
            Err(ManagementError::Io { source, .. }) if is_end(&source) => Ok(Answer::Ended),
            Err(error) => Err(error),
        }
    }
}

/// Either the answer of the node that runs with a state directory, or the directory.
pub(super) enum Reached<T> {
    Node(T),
    Directory(StateDir),
}

/// Asks the node that runs with a state directory, or opens the directory. Waits for other commands that use
/// the directory shortly.
pub(super) fn ask_or_open<T>(
    path: &Path,
    mut ask: impl FnMut() -> Outcome<Answer<T>>,
) -> Outcome<Reached<T>> {
    let begun = Instant::now();
    let mut waiting_since = begun;
    loop {
        match ask()? {
            Answer::Is(answer) => return Ok(Reached::Node(answer)),
            Answer::Ended if begun.elapsed() < ENDS_FOR => waiting_since = Instant::now(),
            Answer::Ended | Answer::Nobody => {}
        }
        match StateDir::open(path) {
            Ok(state) => return Ok(Reached::Directory(state)),
            // Its node, or the next one, can be asked soon.
            Err(StateError::InUse { .. }) if waiting_since.elapsed() < IN_USE_FOR => thread::sleep(RETRY),
            Err(StateError::InUse { .. }) => return in_use::open(path).map(Reached::Directory),
            Err(error) => return Err(error.into()),
        }
    }
}

impl<'a> Asking<'a> {
    /// Begins to ask. Starts a node if none runs.
    pub(super) fn begin(args: &'a NodeArgs, path: &'a Path, request: &'a JoinRequest) -> Outcome<Asking<'a>> {
        Ok(Asking { args, path, request, asker: Asker::begin(args, path, request)? })
    }

    /// Waits until the node is a member, and returns its standing then, or when `timeout` has passed. Asks by
    /// another node if this one ends.
    pub(super) fn wait_admitted(
        &mut self,
        timeout: Duration,
        mut told: impl FnMut(&Standing, Option<NetworkKey>),
    ) -> Outcome<Standing> {
        let waited = match &mut self.asker {
            Asker::Running { joining, .. } => joining.wait_admitted(timeout, told),
            Asker::Own { joined, .. } => joined.wait_admitted(timeout, |standing| {
                // First, because this process may be killed while it waits.
                joined.keep_names(self.request);
                told(standing, key(joined));
            }),
        };
        match (waited, &self.asker) {
            (Err(error), Asker::Running { .. }) if is_end(&error) => {
                self.asker = Asker::begin(self.args, self.path, self.request)?;
                Ok(Standing::Asking)
            }
            (waited, _) => Ok(waited?),
        }
    }

    /// Waits until the node that asks has kept the removals that a controller knows, for a time at most.
    /// Returns false if it has not, or has ended.
    pub(super) fn wait_up_to_date(&mut self, timeout: Duration) -> bool {
        let waited = match &mut self.asker {
            Asker::Running { joining, .. } => joining.wait_up_to_date(timeout),
            Asker::Own { joined, .. } => joined.wait_up_to_date(timeout),
        };
        // Its membership is kept all the same, so this is no error of the command.
        waited.unwrap_or(false)
    }

    /// Returns true if a controller has said last that this machine is no member.
    pub(super) fn is_denied(&self) -> bool {
        let standing = match &self.asker {
            Asker::Running { joining, .. } => Some(joining.standing().clone()),
            Asker::Own { joined, .. } => joined.membership().map(|known| known.standing),
        };
        matches!(standing, Some(Standing::Denied(_)))
    }

    /// Returns true if the machine asks with an invite.
    pub(super) fn has_invite(&self) -> bool {
        self.request.invite.is_some()
    }

    /// Returns the network's key, once it is known.
    pub(super) fn key(&self) -> Option<NetworkKey> {
        match &self.asker {
            Asker::Running { joining, .. } => joining.key(),
            Asker::Own { joined, .. } => key(joined),
        }
    }

    /// Returns where another node with this machine's identity was seen, if one was.
    pub(super) fn elsewhere(&self) -> Option<SocketAddr> {
        let status = match &self.asker {
            Asker::Running { .. } => {
                let text = management::status(self.path, 0).ok()?;
                serde_json::from_str::<Status>(&text).ok()?
            }
            Asker::Own { node, .. } => node.status(),
        };
        status.conflict.map(|other| other.remote)
    }

    /// Ends the question. The node has written its answer before it told it.
    pub(super) fn end(self) {
        if let Asking { request, asker: Asker::Own { node, joined, _state }, .. } = self {
            joined.keep_names(request);
            node.shutdown(DRAIN);
        }
    }
}

impl Asker {
    fn begin(args: &NodeArgs, path: &Path, request: &JoinRequest) -> Outcome<Asker> {
        let reached = ask_or_open(path, || {
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
            let answer = Answer::of(management::join(path, &asked)).map_err(|error| refused(path, error))?;
            Ok(match answer {
                Answer::Is(joining) => {
                    check_settings(args, attached.is_some());
                    Answer::Is(Asker::Running { joining, _attached: attached })
                }
                // It was there a moment ago.
                Answer::Nobody if attached.is_none() => Answer::Nobody,
                Answer::Nobody | Answer::Ended => Answer::Ended,
            })
        });
        match reached? {
            Reached::Node(asker) => Ok(asker),
            Reached::Directory(state) => Asker::own(args, state, request),
        }
    }

    /// Begins with a node in this process.
    fn own(args: &NodeArgs, state: StateDir, request: &JoinRequest) -> Outcome<Asker> {
        let node = start_node(args, &state)?;
        let joined = node.join(request.described()?)?;
        let ended = node.clone();
        signals::end_with(move |signal| {
            ended.shutdown(DRAIN);
            128 + signal
        })?;
        Ok(Asker::Own { node, joined, _state: state })
    }
}

fn key(joined: &Joined) -> Option<NetworkKey> {
    joined.membership().and_then(|known| known.key)
}

/// Returns true if a node runs with the state directory, whichever program has started it.
fn is_running(path: &Path) -> bool {
    management::status(path, 0).is_ok()
}

/// Returns true if the asked node has ended before its answer.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NetworkDown};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NetworkDown)
}

/// Says that a node which runs already has its own settings. One that is shared refuses others.
fn check_settings(args: &NodeArgs, is_attached: bool) {
    if !is_attached && args.named_settings().is_ok_and(|named| !named.is_empty()) {
        stdio::note("the node that runs with this state directory asks, with its own settings");
    }
}

fn refused(path: &Path, error: ManagementError) -> Failure {
    match error {
        ManagementError::Refused { error, .. } if error == "unknown request" => older(path),
        ManagementError::Refused { error, .. } => Failure::new(
            format_args!("the node that runs here does not join: {error}"),
            "check the invite or the ID; `peersock networks` lists those of this machine",
        ),
        error => error.into(),
    }
}

/// Returns the failure of a node that does not know a request.
pub(super) fn older(path: &Path) -> Failure {
    match in_use::open(path) {
        Err(failure) => failure,
        Ok(_) => Failure::new("the node of another version has just ended", "run the command again"),
    }
}
