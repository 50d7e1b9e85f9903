//! Attachment of this process to the node that programs share.

use peersock::Network;
use peersock_attach::{AttachError, Attached, Namespaces, Told, VERSION, Wish, may_start_node};

use crate::args::SharedNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::{config, log, node};

/// Attaches to the node that is shared in the state directory, and starts it if none runs. `name` is the one
/// for other users of the node. Returns `None` if this process has to keep the node: because its user wants
/// that, or because it may start none for others.
pub(crate) fn open(
    node: &SharedNodeArgs,
    name: String,
    networks: &[Network],
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
    match Attached::open(&state, launch.as_ref(), wish(node, name, networks)?, tell) {
        Err(AttachError::Absent) => Ok(None),
        attached => attached.map(Some).map_err(not_attached),
    }
}

/// Returns the needs of a program with this name.
fn wish(node: &SharedNodeArgs, name: String, networks: &[Network]) -> Outcome<Wish> {
    let of_files = networks.iter().flat_map(|network| network.roots().to_vec());
    let roots: Vec<_> = node.roots_with_tokens()?.into_iter().chain(of_files).collect();
    Ok(Wish {
        version: VERSION,
        package: env!("CARGO_PKG_VERSION").to_owned(),
        name,
        networks: networks.iter().map(|network| network.to_portable().to_string()).collect(),
        roots: roots.iter().map(|root| root.to_portable().to_string()).collect(),
        settings: node.named_settings()?,
        is_verbose: log::is_asked_for(),
        persist: node.persist()?,
        namespaces: Namespaces::own(),
    })
}

fn not_attached(error: AttachError) -> Failure {
    match error {
        AttachError::Refused(refusal) => {
            let hint = config::with_origin(&refusal.message, refusal.hint);
            Failure::passed_on(refusal.status, refusal.message, hint)
        }
        AttachError::InUse { .. } => Failure::new(
            format_args!("{error}"),
            "end that process, start `peersock node`, which programs share, and then both; or give --state DIR",
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
