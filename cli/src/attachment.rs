//! Attachment of this process to the node that programs share.

use std::env;
use std::time::Duration;

use peersock::Network;
use peersock_attach::{AttachError, Attached, Told, Wish};
use rustix::process::{Resource, child_subreaper, geteuid, getpid, getrlimit};

use crate::args::SharedNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::{in_use, log, node};

/// Limit of processes below which this process starts no node for others, which takes threads for each.
const MIN_PROCESSES: u64 = 1024;

/// Limit of descriptors below which this process starts no node for others.
const MIN_DESCRIPTORS: u64 = 1024;

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
    let state = node.state.path()?;
    // Before anything is read for the node: a pipe with a token can be read once.
    let may_start = may_start_node();
    if !may_start && !Attached::is_offered(&state) {
        return Ok(None);
    }
    let launch = may_start.then(|| node::launch(node)).transpose()?;
    match Attached::open_within(&state, launch.as_ref(), wish(node, name, networks)?, within, tell) {
        Err(AttachError::Absent) => Ok(None),
        attached => attached.map(Some).map_err(|error| not_attached(error, networks)),
    }
}

/// Returns true if this process may start a node for others. The limits of one program would end it, and an
/// outer `peersock run`, or this process if it adopts orphans, would wait for it.
fn may_start_node() -> bool {
    let limits = [Resource::Cpu, Resource::As, Resource::Data, Resource::Fsize];
    let has_descriptors = getrlimit(Resource::Nofile).maximum.is_none_or(|limit| limit >= MIN_DESCRIPTORS);
    let has_processes = getrlimit(Resource::Nproc).current.is_none_or(|limit| limit >= MIN_PROCESSES);
    let adopts = getpid().is_init() || child_subreaper().is_ok_and(|reaper| reaper.is_some());
    !adopts
        && has_descriptors
        && (has_processes || geteuid().is_root())
        && limits.into_iter().all(|limit| getrlimit(limit).current.is_none())
        && env::var_os(peersock_socket_server::ENVIRONMENT).is_none_or(|value| value.is_empty())
}

/// Returns the needs of a program with this name.
fn wish(node: &SharedNodeArgs, name: String, networks: &[Network]) -> Outcome<Wish> {
    let of_files = networks.iter().flat_map(|network| network.roots().to_vec());
    let roots: Vec<_> = node.roots_with_tokens()?.into_iter().chain(of_files).collect();
    let mut wish = Wish::new(name);
    wish.networks = networks.iter().map(|network| network.to_portable().to_string()).collect();
    wish.roots = roots.iter().map(|root| root.to_portable().to_string()).collect();
    wish.has_empty_roots = node.has_empty_roots();
    wish.settings = node.named_settings()?;
    wish.is_verbose = log::is_asked_for();
    wish.persist = node.persist()?;
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
        AttachError::Silent { .. } => Failure::new(
            format_args!("{error}"),
            "end its process (`peersock status` names it), or give --state DIR",
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
