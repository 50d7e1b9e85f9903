//! Attachment of this process to the node that programs share.

use std::io::{self, Write as _};
use std::time::Duration;

use peersock::Network;
use peersock_attach::{AttachError, Attached, NodeTag, Told, Wish, may_start_node};

use crate::args::{NodeArgs, SharedNodeArgs, persist_of_environment};
use crate::failure::{Failure, Outcome};
use crate::{in_use, log, node, stdio};

/// Attaches to the node that is shared in the state directory, and starts it if none runs. `name` is the one
/// for other users of the node. Waits no longer than `within` for an earlier node that ends. Returns `None`
/// if this process has to keep the node: because its user wants that, or because it may start none for
/// others.
pub(crate) fn open(
    node: &SharedNodeArgs,
    name: String,
    networks: &[Network],
    within: Duration,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Outcome<Option<Attached>> {
    if node.wants_own_node() {
        return Ok(None);
    }
    let attached = attach(node, (name, networks), || node.persist(), within, tell)?;
    attached.map_err(|error| not_attached(error, networks))
}

/// Attaches as [`open`] does, for a command that joins networks for other programs. Returns `None` also if a
/// process that shares no node uses the state directory.
pub(crate) fn open_to_join(node: &NodeArgs, name: String) -> Outcome<Option<Attached>> {
    let tell = |told| _ = show(told);
    match attach(node, (name, &[]), persist_of_environment, Duration::MAX, tell)? {
        Err(AttachError::InUse { .. }) => Ok(None),
        attached => attached.map_err(|error| not_attached(error, &[])),
    }
}

/// Shows this program's user what the shared node says. Returns the node's tag once it has ended.
pub(crate) fn show(told: Told) -> Option<NodeTag> {
    match told {
        Told::Note(note) => stdio::note(note),
        // If stderr is closed, no reader misses the log.
        Told::Log(line) => drop(writeln!(io::stderr(), "{line}")),
        Told::Lost(tag) => return Some(tag),
    }
    None
}

fn attach(
    node: &NodeArgs,
    (name, networks): (String, &[Network]),
    persist: impl Fn() -> Outcome<Duration>,
    within: Duration,
    tell: impl Fn(Told) + Send + Sync + 'static,
) -> Outcome<Result<Option<Attached>, AttachError>> {
    let state = node.state.path()?;
    // Before anything is read for the node: a pipe with a token can be read once.
    let may_start = may_start_node();
    if !may_start && !Attached::is_offered(&state) {
        return Ok(Ok(None));
    }
    let launch = may_start.then(|| node::launch(node)).transpose()?;
    let mut wish = wish(node, name, networks)?;
    wish.persist = persist()?;
    Ok(match Attached::open_within(&state, launch.as_ref(), wish, within, tell) {
        Err(AttachError::Absent) => Ok(None),
        attached => attached.map(Some),
    })
}

/// Returns the needs of a program with this name.
fn wish(node: &NodeArgs, name: String, networks: &[Network]) -> Outcome<Wish> {
    let of_files = networks.iter().flat_map(|network| network.roots().to_vec());
    let roots: Vec<_> = node.roots_with_tokens()?.into_iter().chain(of_files).collect();
    let mut wish = Wish::new(name);
    wish.networks = networks.iter().map(|network| network.to_portable().to_string()).collect();
    wish.roots = roots.iter().map(|root| root.to_portable().to_string()).collect();
    wish.has_empty_roots = node.has_empty_roots();
    wish.settings = node.named_settings()?;
    wish.is_verbose = log::is_asked_for();
    Ok(wish)
}

fn not_attached(error: AttachError, networks: &[Network]) -> Failure {
    match error {
        AttachError::Refused(refusal) => Failure::passed_on(refusal.status, refusal.message, refusal.hint),
        AttachError::InUse { path, holder } => in_use::by_unshared(&path, holder, networks),
        AttachError::Ending { .. } => Failure::new(
            format_args!("{error}"),
            "give a longer --timeout: its programs still deliver what they have sent; or end its process \
             (`peersock status` names it)",
        ),
        AttachError::Silent { process: Some(process), is_stopped: true, .. } => Failure::new(
            format_args!("{error}"),
            format_args!("run `kill -CONT {process}`, or end it (`kill -KILL {process}`)"),
        ),
        AttachError::Silent { .. } => Failure::new(
            format_args!("{error}"),
            "try again in a while, or give --state DIR: it has not answered in time",
        ),
        AttachError::Start(error) => Failure::new(
            format_args!("the node that programs share cannot be started: {error}"),
            "set higher limits (`ulimit -a` shows them), or give --own-node",
        ),
        error => Failure::new(
            format_args!("{error}"),
            "check that the directory belongs to you, or give another by --state DIR",
        ),
    }
}
