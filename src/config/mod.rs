//! Descriptions of networks: by ID, by ID and passphrase, or by a file.

mod dht;
mod endpoint;
mod error;
mod feature;
mod passphrase;
mod root;
mod root_source;
#[cfg_attr(not(feature = "static-networks"), path = "no_static_file.rs")]
mod static_file;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use peersock_overlay::{
    NetworkConfig, NetworkConfigError, NetworkId, NetworkIdError, NetworkSummary, NodeId, Psk,
    PublicIdentity, StaticMember,
};

use crate::state::{check_secret_file, check_trusted_file, read_text_file};

pub use dht::{Dht, ParseDhtError};
pub use endpoint::{HostEndpoint, ParseEndpointError};
pub use error::ConfigError;
pub(crate) use feature::Feature;
pub use feature::MissingFeature;
pub use root::{ParseRootError, RootAddress, RootEndpoint, RootTransport};
#[cfg(feature = "dns")]
pub(crate) use root_source::LABEL as ROOTS_LABEL;
pub(crate) use root_source::require_for_roots;
pub use root_source::{RootDomain, RootSource, RootsError};

/// A network to join, and what proves that this node may.
///
/// ```
/// use peersock::Network;
///
/// // Whoever knows the ID is in; TCP and UDP ports 1 to 0xffff are allowed.
/// let open = Network::ad_hoc("ff0001ffff000000".parse()?);
/// // The same, and a passphrase as well.
/// let secret = Network::ad_hoc("ff0001ffff000000".parse()?).with_passphrase("correct horse");
/// assert!(!open.is_secret() && secret.is_secret());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    config: NetworkConfig,
    /// The members' endpoints that are host names.
    hosts: BTreeMap<NodeId, Vec<HostEndpoint>>,
}

/// A member with endpoints that are host names.
pub(crate) struct MemberHosts {
    pub(crate) node: NodeId,
    /// Its endpoints that are addresses.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) hosts: Vec<HostEndpoint>,
}

impl Network {
    /// An ad-hoc network: no controller, no state, IPv6 only. Its ID `ffSSSSEEEE000000` also says which TCP
    /// and UDP ports are allowed in it: SSSS to EEEE.
    ///
    /// An ID of another kind is refused on joining.
    pub fn ad_hoc(id: NetworkId) -> Network {
        Network { config: NetworkConfig::AdHoc { id, psk: None }, hosts: BTreeMap::new() }
    }

    /// The network that an ID alone describes, of whatever kind.
    ///
    /// ```
    /// use peersock::Network;
    ///
    /// let network = Network::by_id("ff0001ffff000000".parse()?)?;
    /// assert_eq!(network.summary().kind, "ad-hoc");
    /// let refused = Network::by_id("fe00000000000001".parse()?).unwrap_err();
    /// assert!(refused.to_string().ends_with("only its TOML file says who is in it"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NetworkIdError`] where more than the ID is needed, or networks of that kind cannot be joined.
    pub fn by_id(id: NetworkId) -> Result<Network, NetworkIdError> {
        Ok(Network { config: NetworkConfig::by_id(id)?, hosts: BTreeMap::new() })
    }

    /// Reads a static network from a TOML file, or from a pipe. `peersock network new` makes such a file;
    /// every field is described in `docs/use/NETWORKS.md`.
    ///
    /// ```toml
    /// network = "fe00000000000001"      # begins with fe; any 14 digits after it
    /// passphrase = "correct horse"      # optional; or psk = "64 hexadecimal digits"
    ///
    /// [[member]]                        # at least one; every member has the same file
    /// key = "…86 characters…"           # as printed by `peersock id`
    /// name = "alpha"                    # optional: letters, digits, hyphens
    /// addresses = ["10.7.0.1"]          # optional: IPv4 or IPv6, besides the one that belongs to the key
    /// endpoints = ["192.0.2.7:7420", "alpha.example.org:7420"] # optional: where its UDP socket may be found
    /// ```
    ///
    /// Unknown fields, and keys, names, addresses or endpoints given twice, are refused.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if the file cannot be read, could be changed by everybody, or holds a passphrase
    /// or psk and is readable by other users; [`ConfigError::InvalidFile`] with the line otherwise.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Network, ConfigError> {
        let path = path.as_ref();
        Feature::StaticNetworks.require(format_args!("the network of {}", path.display()))?;
        let (text, metadata) = read_text_file(path)?;
        check_trusted_file(path, &metadata)?;
        let network = Network::parse_toml(&text).map_err(|error| match error {
            ConfigError::Invalid { line, what } => ConfigError::InvalidFile { path: path.into(), line, what },
            other => other,
        })?;
        if network.is_secret() {
            check_secret_file(path, &metadata)?;
        }
        Ok(network)
    }

    /// Parses the text of a static network's file; see [`from_file`](Network::from_file) for its form.
    ///
    /// ```
    /// # use peersock::{Network, overlay::Identity};
    /// let key = Identity::from_seed(&[1; 32]).public().to_string();
    /// let network = Network::parse_toml(&format!(
    ///     r#"
    ///     network = "fe00000000000001"
    ///     [[member]]
    ///     key = "{key}"
    ///     addresses = ["10.7.0.1"]
    ///     "#
    /// ))?;
    /// assert_eq!(network.id().to_string(), "fe00000000000001");
    /// # Ok::<(), peersock::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the line and what is wrong with it.
    pub fn parse_toml(text: &str) -> Result<Network, ConfigError> {
        let (network, hosts) = static_file::parse(text)?;
        Ok(Network { config: NetworkConfig::Static(network), hosts })
    }

    /// Requires a passphrase: only those who know it can complete a handshake in this network, or even
    /// recognise its beacons.
    ///
    /// Stretches the passphrase with Argon2id at once, which takes some tens of milliseconds and, for that
    /// time, 19 MiB; the passphrase itself is not kept. Replaces a passphrase given before. An empty one is
    /// no secret: [`Node::join`](crate::Node::join) refuses the network then.
    #[must_use]
    pub fn with_passphrase(self, passphrase: &str) -> Network {
        let key = match passphrase {
            // The key that is refused wherever it comes from.
            "" => Psk::new([0; 32]),
            _ => passphrase::stretch(self.id(), passphrase),
        };
        self.with_psk(key)
    }

    /// As [`with_passphrase`](Network::with_passphrase), with a random 32-byte key instead.
    #[must_use]
    pub fn with_psk(self, key: Psk) -> Network {
        Network { config: self.config.with_psk(key), ..self }
    }

    /// The network's ID.
    pub fn id(&self) -> NetworkId {
        self.config.id()
    }

    /// What people and scripts are told of the network: its kind, ports and prefixes, and what joining it
    /// takes.
    pub fn summary(&self) -> NetworkSummary {
        self.config.policy().summary()
    }

    /// The addresses that a node has in the network, the self-certifying one first; `None` if the network
    /// does not admit it.
    ///
    /// ```
    /// # use peersock::{Network, overlay::Identity};
    /// let identity = *Identity::from_seed(&[1; 32]).public();
    /// let network = Network::ad_hoc("ff0001ffff000000".parse()?);
    /// assert_eq!(network.addresses_of(&identity).map(|addresses| addresses.len()), Some(1));
    /// # Ok::<(), peersock::overlay::ParseNetworkIdError>(())
    /// ```
    pub fn addresses_of(&self, member: &PublicIdentity) -> Option<Vec<IpAddr>> {
        let (policy, node) = (self.config.policy(), member.node_id());
        policy.admits(&node).then(|| policy.addresses_of(&node))
    }

    /// The addresses of the member that has a name, the self-certifying one first; none if nobody has it.
    /// Upper and lower case are the same. Sockets of a node that has joined the network know the same names.
    pub fn addresses_named(&self, name: &str) -> Vec<IpAddr> {
        let policy = self.config.policy();
        policy.node_named(name).map(|node| policy.addresses_of(&node)).unwrap_or_default()
    }

    /// Whether a passphrase or pre-shared key is needed to take part.
    pub fn is_secret(&self) -> bool {
        self.config.psk().is_some()
    }

    /// The members that the network's file lists; none without a file.
    pub fn members(&self) -> &[StaticMember] {
        self.config.members()
    }

    /// The same network where this node reaches the Internet by way of a member, or is that member and leads
    /// others there: for [`Node::join_device`](crate::Node::join_device), and not for sockets, which take
    /// the addresses of the network's members for the overlay's, and no others.
    ///
    /// ```
    /// # use peersock::{Network, overlay::Identity};
    /// let exit = *Identity::from_seed(&[1; 32]).public();
    /// let text = format!("network = 'fe00000000000001'\n[[member]]\nkey = '{exit}'\nroutes = ['0.0.0.0/0']");
    /// let network = Network::parse_toml(&text)?;
    /// assert!(network.clone().with_exit(&exit).is_ok());
    /// let other = *Identity::from_seed(&[2; 32]).public();
    /// assert!(network.with_exit(&other).is_err());
    /// # Ok::<(), peersock::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`NetworkConfigError`] unless the network's file gives that member a default route (0.0.0.0/0, ::/0).
    pub fn with_exit(self, member: &PublicIdentity) -> Result<Network, NetworkConfigError> {
        Ok(Network { config: self.config.with_exit(member.node_id())?, ..self })
    }

    /// The endpoints of a member that are host names; those that are addresses are in
    /// [`StaticMember::endpoints`].
    pub fn host_endpoints(&self, member: &PublicIdentity) -> &[HostEndpoint] {
        self.hosts.get(&member.node_id()).map_or(&[], Vec::as_slice)
    }

    /// The endpoints of a member as texts: those that are addresses, then those that are host names.
    pub fn endpoints_of(&self, member: &PublicIdentity) -> Vec<String> {
        let listed = self.members().iter().filter(|listed| listed.identity == *member);
        let addresses = listed.flat_map(|listed| &listed.endpoints).map(ToString::to_string);
        addresses.chain(self.host_endpoints(member).iter().map(ToString::to_string)).collect()
    }

    /// The members whose names are to be resolved, without `own`.
    pub(crate) fn hosts_of_others(&self, own: &PublicIdentity) -> Vec<MemberHosts> {
        let others = self.members().iter().filter(|member| member.identity != *own);
        let hosts = others.filter_map(|member| {
            let hosts = self.hosts.get(&member.identity.node_id())?.clone();
            Some(MemberHosts { node: member.identity.node_id(), addresses: member.endpoints.clone(), hosts })
        });
        hosts.collect()
    }

    /// What the overlay's core takes. Endpoints that are host names are not in it: the core resolves none.
    pub fn into_config(self) -> NetworkConfig {
        self.config
    }
}

#[cfg(all(test, feature = "static-networks"))]
mod tests;
