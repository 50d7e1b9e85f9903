//! Interfaces of the machine as an API: their addresses, the addresses that outsiders see, and the NAT in
//! front of them. See [`peersock_nat`] for the details.
//!
//! It contacts only servers that the user has named: see [`servers_of_environment`].

mod turn;

use std::env;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use thiserror::Error;

pub use peersock_nat::interfaces::*;
pub use peersock_nat::netcheck::{Target, Transport};
pub(crate) use turn::require_for_turn;
pub use turn::{LoadTurnError, TURN_VARIABLE, TurnCheck, check_turn, load_turn_servers, turn_of_environment};

use crate::node::ask_lists;
use crate::{Interfaces, RootAddress, RootSource, RootTransport};

/// Environment variable with STUN servers as `HOST:PORT`, separated by white space.
pub const STUN_VARIABLE: &str = "PEERSOCK_STUN";

/// Environment variable with roots, as [`RootSource::load`] reads them; [`lists_of_environment`] finds roots
/// of lists.
pub const ROOTS_VARIABLE: &str = "PEERSOCK_ROOTS";

/// Error in a variable that names servers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable}: {reason}")]
pub struct ServersError {
    /// Name of the variable.
    pub variable: &'static str,
    /// Reason.
    pub reason: String,
}

/// Returns the servers of the environment: STUN servers of `PEERSOCK_STUN`, unless `stun` has others, and the
/// roots of `PEERSOCK_ROOTS`, which are STUN servers, too. [`lists_of_environment`] finds roots that are in
/// lists.
///
/// # Errors
/// Fails if a variable is malformed.
pub fn servers_of_environment(stun: &[Target]) -> Result<Vec<Target>, ServersError> {
    let read = |variable| env::var(variable).unwrap_or_default();
    let mut targets = stun.to_vec();
    if targets.is_empty() {
        targets = parse_stun(&read(STUN_VARIABLE))?;
    }
    targets.extend(parse_roots(&read(ROOTS_VARIABLE))?);
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
) -> Result<Vec<RootList>, ServersError> {
    let sources = load_roots(&env::var(ROOTS_VARIABLE).unwrap_or_default())?;
    Ok(lists_of(sources, allowed, discovery_port))
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

/// Returns the STUN servers of the environment.
pub(crate) fn stun_of_environment() -> Result<Vec<Target>, ServersError> {
    parse_stun(&env::var(STUN_VARIABLE).unwrap_or_default())
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

fn parse_stun(text: &str) -> Result<Vec<Target>, ServersError> {
    let wrong = |error: LoadStunError| ServersError { variable: STUN_VARIABLE, reason: error.to_string() };
    load_stun_servers(text).map_err(wrong)
}

fn parse_roots(text: &str) -> Result<Vec<Target>, ServersError> {
    Ok(targets_of_roots(&load_roots(text)?))
}

/// Returns the endpoints of roots that are named by their keys, because lists take a while to query.
pub(crate) fn targets_of_roots(sources: &[RootSource]) -> Vec<Target> {
    let roots = sources.iter().filter_map(|source| match source {
        RootSource::Address(root) => Some(root),
        _ => None,
    });
    roots.flat_map(targets_of).collect()
}

fn load_roots(text: &str) -> Result<Vec<RootSource>, ServersError> {
    let wrong =
        |error: crate::RootsError| ServersError { variable: ROOTS_VARIABLE, reason: error.to_string() };
    RootSource::load(text).map_err(wrong)
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
        let targets = parse_roots(&format!("{key}@192.0.2.1:7420,wss:root.example.org:443")).expect("a root");
        let texts: Vec<_> = targets.iter().map(|target| (target.to_string(), target.transport)).collect();
        let expected =
            [("192.0.2.1:7420".into(), Transport::Udp), ("root.example.org:443".into(), Transport::Tcp)];
        assert_eq!(texts, expected);
        assert!(parse_roots("nonsense").is_err());
    }

    #[test]
    fn stun_servers_are_separated_by_white_space() {
        let targets = parse_stun(" one.example:3478\n[2001:db8::1]:3478 ").expect("two servers");
        assert_eq!(targets.len(), 2);
        let error = parse_stun("one").expect_err("there is no port");
        assert_eq!(error.to_string(), "PEERSOCK_STUN: 'one' is not HOST:PORT");
    }

    #[test]
    fn an_address_needs_no_resolver() {
        let targets = parse_stun("127.0.0.1:3478").expect("a server");
        assert_eq!(
            addresses_of(&targets).expect("it is one"),
            ["127.0.0.1:3478".parse().expect("an endpoint")]
        );
        assert_eq!(addresses_of(&[]).expect("there is nothing to look up"), []);
    }
}
