//! Managed networks that this machine has joined, by their local names.

use std::path::Path;

use peersock::overlay::membership::CertifyRequest;
use peersock::state::StateDir;
use peersock::{Network, NetworkId};

use crate::failure::{Failure, Outcome};

/// Returns the managed network with a local name in a state directory, if one has it.
pub(crate) fn named(state: &Path, name: &str) -> Outcome<Option<NetworkId>> {
    let records = StateDir::memberships(state)?;
    Ok(records.into_iter().find(|record| record.name.as_deref() == Some(name)).map(|record| record.id))
}

/// Returns a managed network as it was joined with a state directory; `None` for another kind. Fails if it
/// was not joined, because a program cannot wait for a person.
pub(crate) fn check_joined(state: &Path, network: NetworkId) -> Outcome<Option<Network>> {
    if !network.is_managed() {
        return Ok(None);
    }
    match StateDir::membership(state, network)? {
        Some(record) if record.credentials.is_some() => {
            Ok(Some(Network::managed(record.network(CertifyRequest::default()))))
        }
        Some(_) => Err(Failure::usage(
            format_args!("no controller has admitted this machine to network {network} yet"),
            format_args!("wait with `peersock join {network}`, which shows the code to approve"),
        )),
        None => Err(Failure::usage(
            format_args!("this machine has not joined the managed network {network}"),
            format_args!("run `peersock join {network}` first, or `peersock join` with an invite"),
        )),
    }
}
