//! The outer node: the node of the process that started this one, as under `peersock run`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use peersock::{Network, NetworkId};
use peersock_fd::Client;

use crate::ENVIRONMENT;

/// The node that the environment named when this value was made.
#[derive(Debug)]
pub struct Outer(Option<Arc<Client>>);

impl Outer {
    /// Returns the node that [`ENVIRONMENT`] names now, if it names one.
    pub fn of_environment() -> Outer {
        Outer(std::env::var(ENVIRONMENT).ok().and_then(|text| Client::of_variable(&text)))
    }

    /// Checks whether the outer node is in another network with the same ID. A network with a secret has the
    /// same ID as the one without, and they have no member in common.
    ///
    /// # Errors
    /// Exactly one of the two networks has a secret. Two different secrets are not detected.
    pub fn check(&self, network: &Network) -> Result<(), SecretMismatch> {
        let Some(outer) = &self.0 else { return Ok(()) };
        let mismatch = SecretMismatch { network: network.id(), is_secret_here: network.summary().secret };
        match outer.has_secret(network.id().as_u64()) {
            Some(is_secret_there) if is_secret_there != mismatch.is_secret_here => Err(mismatch),
            _ => Ok(()),
        }
    }
}

/// The program is about to join a network with a secret, and the outer node is in the network of the same ID
/// without one, or the reverse. The program's sockets would be in one or the other, depending on which
/// library opens them.
///
/// ```
/// use peersock::Network;
/// use peersock_socket_server::Outer;
///
/// // This program was not started with a node.
/// let outer = Outer::of_environment();
/// let network = Network::ad_hoc("ff0001ffff000000".parse()?).with_passphrase("horse")?;
/// assert_eq!(outer.check(&network), Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretMismatch {
    /// ID of both networks.
    pub network: NetworkId,
    /// True if the program has the secret, false if the outer node has it.
    pub is_secret_here: bool,
}

impl fmt::Display for SecretMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (there, hint) = match self.is_secret_here {
            true => (
                "without a secret, and this program joins it with one",
                "give `run` the secret (--secret-file or PEERSOCK_SECRET), or leave it out here",
            ),
            false => (
                "with a secret, and this program joins it without one",
                "give the secret here, too, or leave it out there",
            ),
        };
        write!(
            f,
            "what has started this program (`peersock run`, or the process that {ENVIRONMENT} names) is in \
             network {} {there}: {hint}; a program that must not use that node is started with an empty \
             {ENVIRONMENT}",
            self.network
        )
    }
}

impl Error for SecretMismatch {}
