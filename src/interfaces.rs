//! Interfaces of the machine as an API: their addresses, the addresses that outsiders see, and the NAT in
//! front of them. See [`peersock_nat`] for the details.
//!
//! It contacts only servers that the user has named: see [`servers_of_environment`].

mod turn;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use thiserror::Error;

pub use peersock_nat::interfaces::*;
pub use peersock_nat::netcheck::{Target, Transport};
pub(crate) use turn::require_for_turn;
pub use turn::{LoadTurnError, TurnCheck, check_turn, load_turn_servers};

use crate::node::ask_lists;
use crate::settings::{VariableError, roots_of_environment, stun_of_environment};
use crate::{Interfaces, RootAddress, RootSource, RootTransport};

/// Returns the servers of the environment: STUN servers of `PEERSOCK_STUN`, unless `stun` has others, and the
/// roots of `PEERSOCK_ROOTS`, which are STUN servers, too. [`lists_of_environment`] finds roots that are in
/// lists.
///
/// # Errors
/// Fails if a variable is malformed.
pub fn servers_of_environment(stun: &[Target]) -> Result<Vec<Target>, VariableError> {
    let mut targets = stun.to_vec();
    if targets.is_empty() {
        targets = stun_of_environment()?;
    }
    targets.extend(targets_of_roots(&roots_of_environment()?));
    Ok(targets)
}

/// Result of querying a list of roots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootList {
    /// List, as it was written: `dns:DOMAIN`, or `lan`.
    pub source: String,
    /// Number of roots in it.
    pub roots: usize,
    /// Endpoints of its roots; at most 32 of all lists together.
    pub servers: Vec<Target>,
    /// Reason why it has none.
    pub error: Option<String>,
}

/// Returns the roots that lists in `PEERSOCK_ROOTS` name now. Queries domains, and listens for announcements
/// on the local networks of `allowed` at `discovery_port` (7473 unless roots use another). Blocks for up to
/// four seconds, with `lan` for up to five and a half, and not at all if the variable names no list. At most
/// four domains are queried.
///
/// # Errors
/// Fails if the variable is malformed.
pub fn lists_of_environment(
    allowed: &Interfaces,
    discovery_port: u16,
) -> Result<Vec<RootList>, VariableError> {
    Ok(lists_of(roots_of_environment()?, allowed, discovery_port))
}

/// Returns the roots that the lists among those sources name now; see [`lists_of_environment`].
pub(crate) fn lists_of(sources: Vec<RootSource>, allowed: &Interfaces, discovery_port: u16) -> Vec<RootList> {
    let mut room = MAX_LISTED;
    let list = |(source, found): (RootSource, io::Result<Vec<RootAddress>>)| {
        let error = found.as_ref().err().map(ToString::to_string);
        let roots = found.unwrap_or_default();
        // The author of a list must not decide how many servers are asked.
        let servers: Vec<_> = roots.iter().flat_map(targets_of).take(room).collect();
        room -= servers.len();
        RootList { source: source.to_string(), roots: roots.len(), servers, error }
    };
    ask_lists(sources, allowed, discovery_port).into_iter().map(list).collect()
}

/// Reads STUN servers: texts `HOST:PORT` separated by white space, as in `PEERSOCK_STUN`.
///
/// # Errors
/// Fails if a text is not `HOST:PORT`.
pub fn load_stun_servers(text: &str) -> Result<Vec<Target>, LoadStunError> {
    let target = |word: &str| {
        Target::parse(word, Transport::Udp).ok_or_else(|| LoadStunError { text: word.to_owned() })
    };
    text.split_whitespace().map(target).collect()
}

/// Error for a text that is no STUN server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{text}' is not HOST:PORT")]
pub struct LoadStunError {
    /// Text of the server.
    pub text: String,
}

/// Returns the addresses of the servers that are asked over UDP. Resolves names, which may block as long as
/// the system's resolver does; skips names without an address.
///
/// # Errors
/// Returns the last look-up's error if a look-up fails and no server has an address.
pub fn addresses_of(targets: &[Target]) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    let mut error = None;
    for target in targets.iter().filter(|target| target.transport == Transport::Udp) {
        match (target.host.as_str(), target.port).to_socket_addrs() {
            Ok(addresses) => found.extend(addresses),
            Err(failed) => error = Some(failed),
        }
    }
    error.filter(|_| found.is_empty()).map_or(Ok(found), Err)
}

/// Returns the endpoints of roots that are named by their keys, because lists take a while to query.
pub(crate) fn targets_of_roots(sources: &[RootSource]) -> Vec<Target> {
    let roots = sources.iter().filter_map(|source| match source {
        RootSource::Address(root) => Some(root),
        _ => None,
    });
    roots.flat_map(targets_of).collect()
}

fn targets_of(root: &RootAddress) -> impl Iterator<Item = Target> + '_ {
    root.endpoints().iter().map(|endpoint| Target {
        host: endpoint.host(),
        port: endpoint.port(),
        transport: match endpoint.transport {
            RootTransport::Udp => Transport::Udp,
            _ => Transport::Tcp,
        },
    })
}

/// Limit of servers of all lists.
const MAX_LISTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Identity;

    #[test]
    fn roots_are_targets_by_their_transport() {
        let key = Identity::from_seed(&[7; 32]).public().to_string();
        let sources = RootSource::load(&format!("{key}@192.0.2.1:7420,wss:root.example.org:443"));
        let targets = targets_of_roots(&sources.expect("a root"));
        let texts: Vec<_> = targets.iter().map(|target| (target.to_string(), target.transport)).collect();
        let expected =
            [("192.0.2.1:7420".into(), Transport::Udp), ("root.example.org:443".into(), Transport::Tcp)];
        assert_eq!(texts, expected);
    }

    #[test]
    fn stun_servers_are_separated_by_white_space() {
        let targets = load_stun_servers(" one.example:3478\n[2001:db8::1]:3478 ").expect("two servers");
        assert_eq!(targets.len(), 2);
        let error = load_stun_servers("one").expect_err("there is no port");
        assert_eq!(error.to_string(), "'one' is not HOST:PORT");
    }

    #[test]
    fn an_address_needs_no_resolver() {
        let targets = load_stun_servers("127.0.0.1:3478").expect("a server");
        assert_eq!(
            addresses_of(&targets).expect("it is one"),
            ["127.0.0.1:3478".parse().expect("an endpoint")]
        );
        assert_eq!(addresses_of(&[]).expect("there is nothing to look up"), []);
    }
}
