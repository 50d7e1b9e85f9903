//! Managed networks that this machine has joined, by their local names.

use std::path::Path;

use peersock::NetworkId;
use peersock::overlay::NetworkKind;
use peersock::state::StateDir;

use crate::failure::{Failure, Outcome};

/// Returns the managed network with a local name in a state directory, if one has it.
pub(crate) fn named(state: &Path, name: &str) -> Outcome<Option<NetworkId>> {
    let records = StateDir::memberships(state)?;
    Ok(records.into_iter().find(|record| record.name.as_deref() == Some(name)).map(|record| record.id))
}

/// Fails if a managed network was not joined with a state directory: a program cannot wait for a person.
pub(crate) fn check_joined(state: &Path, network: NetworkId) -> Outcome {
    if network.kind() != NetworkKind::Managed {
        return Ok(());
    }
    match StateDir::membership(state, network)? {
        Some(record) if record.credentials.is_some() => Ok(()),
        Some(_) => Err(Failure::new(
            format_args!("no controller has admitted this machine to network {network} yet"),
            format_args!("wait with `peersock join {network}`, which shows the code to approve"),
        )),
        None => Err(Failure::new(
            format_args!("this machine has not joined the managed network {network}"),
            format_args!("join it with `peersock join {network}`, or with an invite"),
        )),
    }
}
