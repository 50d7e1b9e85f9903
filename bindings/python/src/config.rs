//! Settings of nodes, and descriptions of networks.

use std::path::PathBuf;

use peersock::interfaces::{LoadTurnError, load_stun_servers, load_turn_servers};
use peersock::netcheck::NetcheckError;
use peersock::overlay::Psk;
use peersock::{
    Dht, IdentitySource, Interfaces, Network, NetworkId, NetworkIdError, Node, NodeBuilder, NodeId,
    PublicIdentity, RootSource, RootsError, Seed,
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
    /// Makes settings. With neither a directory nor a seed, the identity is a fresh one that is not kept.
    /// `None` as interfaces means all, an empty list means loopback alone.
    #[new]
    #[pyo3(signature = (*, state=None, seed=None, interfaces=None, port=0, discovery=true, discovery_port=None, buffers=None))]
    fn new(
        state: Option<PathBuf>,
        seed: Option<&[u8]>,
        interfaces: Option<Vec<String>>,
        port: u16,
        discovery: bool,
        discovery_port: Option<u16>,
        buffers: Option<(usize, usize)>,
    ) -> PyResult<Self> {
        let identity = match (state, seed) {
            (Some(_), Some(_)) => return Err(invalid("an identity is either in a directory or a seed's")),
            (Some(path), None) => IdentitySource::StateDir(path),
            (None, Some(seed)) => IdentitySource::Seed(read_seed(seed)?),
            (None, None) => IdentitySource::Ephemeral,
        };
        let interfaces = match interfaces {
            None => Interfaces::All,
            Some(names) if names.is_empty() => Interfaces::Loopback,
            Some(names) => Interfaces::Named(names),
        };
        let mut settings =
            Node::builder().identity(identity).interfaces(interfaces).port(port).discovery(discovery);
        match discovery_port {
            Some(0) => return Err(invalid("discovery needs a port")),
            Some(port) if discovery => settings = settings.discovery_port(port),
            _ => {}
        }
        match buffers {
            Some((0, _) | (_, 0)) => return Err(invalid("a buffer of no bytes")),
            Some((send, receive)) => settings = settings.tcp_buffers(send, receive),
            None => {}
        }
        Ok(Self { settings })
    }

    /// Returns the same settings with these TURN servers, which replace those from the environment. Each text
    /// has the form of `PEERSOCK_TURN`.
    fn with_turn(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Self> {
        let mut all = Vec::new();
        for text in texts {
            all.extend(load_turn_servers(&text).map_err(|error| match error {
                LoadTurnError::File(error) => state_error(py, &error),
                other => invalid(other),
            })?);
        }
        Ok(Self { settings: self.settings.clone().turn(all) })
    }

    /// Returns the same settings with these STUN servers, which replace those from the environment. Each text
    /// has the form of `PEERSOCK_STUN`.
    fn with_stun(&self, texts: Vec<String>) -> PyResult<Self> {
        let servers = load_stun_servers(&texts.join(" ")).map_err(invalid)?;
        Ok(Self { settings: self.settings.clone().stun(servers) })
    }

    /// Returns the same settings with the DHT that the text names in the form of `PEERSOCK_DHT`.
    fn with_dht(&self, text: &str) -> PyResult<Self> {
        let dht: Dht = text.parse().map_err(invalid)?;
        Ok(Self { settings: self.settings.clone().dht(dht) })
    }

    /// Returns the same settings without port mapping by routers, or without the search for direct paths by
    /// many ports or by TCP.
    fn without(&self, port_mapping: bool, birthday: bool, tcp_punch: bool) -> Self {
        let mut settings = self.settings.clone();
        // Do not request what is on by default, because a build may lack it.
        if port_mapping {
            settings = settings.port_mapping(false);
        }
        if tcp_punch {
            settings = settings.tcp_punch(false);
        }
        Self { settings: settings.birthday(!birthday) }
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
            NetcheckError::Roots(RootsError::State(error)) => state_error(py, &error),
            NetcheckError::Io(error) => io_error(py, error),
            error @ NetcheckError::NoInterface(_) => described(py, libc::ENODEV, error),
            error => invalid(error),
        })
    }

    /// Returns the same settings with these roots, in the form of `PEERSOCK_ROOTS`, replacing the
    /// environment's roots.
    fn with_roots(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Self> {
        let mut all = Vec::new();
        for text in texts {
            all.extend(RootSource::load(&text).map_err(|error| match error {
                RootsError::State(error) => state_error(py, &error),
                other => invalid(other),
            })?);
        }
        Ok(Self { settings: self.settings.clone().roots(all) })
    }
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
        (Some(passphrase), None) => Ok(py.detach(|| network.with_passphrase(&passphrase))),
        (None, Some(key)) => {
            let key = key.try_into().map_err(|_| invalid("a network's key has 32 bytes"))?;
            Ok(network.with_psk(Psk::new(key)))
        }
        (None, None) => Ok(network),
        (Some(_), Some(_)) => Err(invalid("a network has either a passphrase or a key")),
    }
}
