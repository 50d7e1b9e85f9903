//! Settings of nodes, and descriptions of networks.

use std::fmt::Display;
use std::path::PathBuf;

use peersock::interfaces::{LoadTurnError, load_stun_servers};
use peersock::netcheck::NetcheckError;
use peersock::overlay::Psk;
use peersock::settings::{Refusal, SETTINGS};
use peersock::state::StateDir;
use peersock::{
    IdentitySource, Network, NetworkId, NetworkIdError, Node, NodeBuilder, NodeId, PublicIdentity,
    RootsError, Seed,
};
use peersock_socket_server::Host;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{described, invalid, io_error, state_error};

/// Settings of a node before its start.
#[pyclass(frozen, module = "peersock._peersock")]
pub(crate) struct Config {
    pub(crate) settings: NodeBuilder,
}

#[pymethods]
impl Config {
    /// Makes settings from a JSON object. With neither a directory nor a seed, the identity is a fresh one
    /// that is not kept. They are not in the object, because a path may not be UTF-8.
    #[new]
    #[pyo3(signature = (settings="{}", *, state=None, seed=None))]
    fn new(py: Python<'_>, settings: &str, state: Option<PathBuf>, seed: Option<&[u8]>) -> PyResult<Self> {
        let identity = match (state, seed) {
            (Some(_), Some(_)) => return Err(invalid("an identity is either in a directory or a seed's")),
            (Some(path), None) => IdentitySource::StateDir(path),
            (None, Some(seed)) => IdentitySource::Seed(read_seed(seed)?),
            (None, None) => IdentitySource::Ephemeral,
        };
        let values = serde_json::from_str(settings).map_err(invalid)?;
        let settings = Node::builder().identity(identity).settings(values);
        Ok(Self { settings: settings.map_err(|error| refused(py, &error.reason, &error))? })
    }

    /// Examines the network around a node with these settings, and returns JSON. The STUN servers, each
    /// `HOST:PORT`, replace those from the environment.
    fn netcheck(&self, py: Python<'_>, stun: Option<Vec<String>>) -> PyResult<String> {
        let mut check = self.settings.netcheck();
        if let Some(stun) = stun {
            check = check.stun(load_stun_servers(&stun.join(" ")).map_err(invalid)?);
        }
        let looked = py.detach(|| Host::without_node(move || check.run().map(|report| report.to_json())));
        looked.map_err(|error| io_error(py, error))?.map_err(|error| match error {
            NetcheckError::Variable(error) => refused(py, &error.reason, &error),
            NetcheckError::Io(error) => io_error(py, error),
            error @ NetcheckError::NoInterface(_) => described(py, libc::ENODEV, error),
            error => invalid(error),
        })
    }
}

/// Makes the exception of a refused setting: that of its file, or of its text.
fn refused(py: Python<'_>, reason: &Refusal, error: &dyn Display) -> PyErr {
    file_error(py, reason).unwrap_or_else(|| invalid(error))
}

/// Makes the exception of a file that a setting names, if that is the reason.
pub(crate) fn file_error(py: Python<'_>, reason: &Refusal) -> Option<PyErr> {
    match reason {
        Refusal::Roots(RootsError::State(error)) | Refusal::Turn(LoadTurnError::File(error)) => {
            Some(state_error(py, error))
        }
        _ => None,
    }
}

/// Returns the names of a node's settings.
#[pyfunction]
pub(crate) fn setting_names() -> Vec<&'static str> {
    SETTINGS.iter().map(|setting| setting.name).collect()
}

/// Returns the directory that keeps the identity of programs that name none.
#[pyfunction]
pub(crate) fn default_state(py: Python<'_>) -> PyResult<PathBuf> {
    StateDir::default_path().map_err(|error| state_error(py, &error))
}

/// Generates a secret seed, 32 bytes of the system's randomness.
#[pyfunction]
pub(crate) fn generate_seed(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    let seed = Seed::generate().map_err(|error| io_error(py, error))?;
    Ok(PyBytes::new(py, &seed.0))
}

/// Returns a seed's public key, as the file of a static network lists it.
#[pyfunction]
pub(crate) fn public_key(seed: &[u8]) -> PyResult<String> {
    Ok(read_seed(seed)?.public_identity().to_string())
}

/// Returns the ID of the node with this public key.
#[pyfunction]
pub(crate) fn node_id(public_key: &str) -> PyResult<String> {
    let key: PublicIdentity = public_key.parse().map_err(invalid)?;
    Ok(key.node_id().to_string())
}

/// Returns a node's self-certifying address in a network. No other node can have it.
#[pyfunction]
pub(crate) fn address_of(network: u64, id: &str) -> PyResult<String> {
    let id: NodeId = id.parse().map_err(invalid)?;
    Ok(NetworkId::new(network).map_err(invalid)?.address_of(&id).to_string())
}

fn read_seed(seed: &[u8]) -> PyResult<Seed> {
    Ok(Seed(seed.try_into().map_err(|_| invalid("a seed has 32 bytes"))?))
}

/// Returns the network with this ID.
pub(crate) fn by_id(id: u64) -> PyResult<Network> {
    let id = NetworkId::new(id).map_err(invalid)?;
    Network::by_id(id).map_err(|error| match error {
        NetworkIdError::NeedsFile(_) => invalid(format_args!("{error}: give the file instead of the ID")),
        _ => invalid(error),
    })
}

/// Returns the network that a file describes.
pub(crate) fn by_file(py: Python<'_>, path: PathBuf) -> PyResult<Network> {
    Network::from_file(path).map_err(|error| match error {
        peersock::ConfigError::File(error) => state_error(py, &error),
        peersock::ConfigError::Passphrase(error) => error.into(),
        other => invalid(other),
    })
}

/// Adds the secret of members to a network: a passphrase, or a key of 32 bytes.
pub(crate) fn with_secret(
    py: Python<'_>,
    network: Network,
    passphrase: Option<String>,
    key: Option<&[u8]>,
) -> PyResult<Network> {
    match (passphrase, key) {
        (Some(passphrase), None) if passphrase.is_empty() => Err(invalid("the passphrase is empty")),
        // Stretching the passphrase takes a while on purpose.
        (Some(passphrase), None) => Ok(py.detach(|| network.with_passphrase(&passphrase))?),
        (None, Some(key)) => {
            let key = key.try_into().map_err(|_| invalid("a network's key has 32 bytes"))?;
            Ok(network.with_psk(Psk::new(key)))
        }
        (None, None) => Ok(network),
        (Some(_), Some(_)) => Err(invalid("a network has either a passphrase or a key")),
    }
}
