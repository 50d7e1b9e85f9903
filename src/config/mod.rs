//! Descriptions of networks: by ID, by ID and passphrase, or by a file.

mod argon2id;
mod dht;
mod endpoint;
mod error;
mod feature;
mod invite;
mod managed;
pub mod packed;
mod passphrase;
mod portable;
mod root;
mod root_source;
#[cfg_attr(not(feature = "static-networks"), path = "no_static_file.rs")]
mod static_file;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use peersock_overlay::membership::MemberName;
use peersock_overlay::{
    DiscoveryKey, NetworkConfig, NetworkConfigError, NetworkId, NetworkIdError, NetworkSummary, NodeId, Psk,
    PublicIdentity, StaticMember,
};

use zeroize::Zeroizing;

use crate::state::{check_secret_file, check_trusted_file, read_text_file};

pub use dht::{Dht, ParseDhtError};
pub use endpoint::{HostEndpoint, ParseEndpointError};
pub use error::ConfigError;
pub(crate) use feature::Feature;
pub use feature::MissingFeature;
pub use invite::{Invite, ParseInviteError};
pub use managed::network_id;
pub use root::{ParseRootError, RootAddress, RootEndpoint, RootTransport};
#[cfg(feature = "dns")]
pub(crate) use root_source::LABEL as ROOTS_LABEL;
pub(crate) use root_source::require_for_roots;
pub use root_source::{RootDomain, RootSource, RootsError};

/// Network to join, and the secret that proves membership.
///
/// ```
/// use peersock::Network;
///
/// // Everybody can join; TCP and UDP ports 1 to 0xffff are allowed.
/// let open = Network::ad_hoc("ff0001ffff000000".parse()?);
/// // The same, and a passphrase as well.
/// let secret = Network::ad_hoc("ff0001ffff000000".parse()?).with_passphrase("correct horse")?;
/// assert!(!open.is_secret() && secret.is_secret());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    config: NetworkConfig,
    /// Endpoints of the members that are host names.
    hosts: BTreeMap<NodeId, Vec<HostEndpoint>>,
    /// Roots that the file names.
    roots: Vec<RootSource>,
    /// Text that describes it, a static network's file or an invite, which may hold a secret.
    text: Option<Arc<Zeroizing<String>>>,
    /// Address of the controller that an invite names.
    guide: Option<Ipv6Addr>,
    /// Name that this machine gives to the network.
    local_name: Option<MemberName>,
}

/// Compares what networks are: members decide, not the text of a file.
impl PartialEq for Network {
    fn eq(&self, other: &Network) -> bool {
        (&self.config, &self.hosts) == (&other.config, &other.hosts)
    }
}

/// Member with endpoints that are host names.
pub(crate) struct MemberHosts {
    pub(crate) node: NodeId,
    /// Endpoints that are addresses.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) hosts: Vec<HostEndpoint>,
}

impl Network {
    /// Returns a network without a file.
    fn of(config: NetworkConfig) -> Network {
        let (hosts, roots) = (BTreeMap::new(), Vec::new());
        Network { config, hosts, roots, text: None, guide: None, local_name: None }
    }

    /// Returns an ad-hoc network: no controller, no state, IPv6 only. Its ID `ffSSSSEEEE000000` contains the
    /// TCP and UDP ports that are allowed in it: SSSS to EEEE.
    ///
    /// Joining refuses an ID of another kind.
    pub fn ad_hoc(id: NetworkId) -> Network {
        Network::of(NetworkConfig::AdHoc { id, psk: None })
    }

    /// Returns the network that an ID alone describes, of whatever kind.
    ///
    /// # Errors
    ///
    /// Returns a [`NetworkIdError`] if more than the ID is needed, or networks of that kind cannot be joined.
    pub fn by_id(id: NetworkId) -> Result<Network, NetworkIdError> {
        Ok(Network::of(NetworkConfig::by_id(id)?))
    }

    /// Reads a static network from a TOML file, or from a pipe. `peersock network new` makes such a file;
    /// every field is described in `docs/use/NETWORKS.md`.
    ///
    /// ```toml
    /// network = "fe00000000000001"      # begins with fe; any 14 digits after it
    /// passphrase = "correct horse"      # optional; or psk = "64 hexadecimal digits"
    /// roots = ["dns:example.org"]       # optional: roots that every member uses
    ///
    /// [[member]]                        # at least one; every member has the same file
    /// key = "…86 characters…"           # as printed by `peersock id`
    /// name = "alpha"                    # optional: letters, digits, hyphens
    /// addresses = ["10.7.0.1"]          # optional: IPv4 or IPv6, besides the one that belongs to the key
    /// endpoints = ["192.0.2.7:7420", "alpha.example.org:7420"] # optional: where its UDP socket may be found
    /// ```
    ///
    /// Unknown fields, and keys, names, addresses or endpoints given twice, are refused, and so are roots
    /// with access tokens.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::File`] if the file cannot be read, is writable by everybody, or holds a
    /// passphrase or psk and is readable by other users; [`ConfigError::InvalidFile`] with the line if its
    /// text describes no network; and [`ConfigError::Passphrase`] as `with_passphrase` does.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Network, ConfigError> {
        let path = path.as_ref();
        Feature::StaticNetworks.require(format_args!("the network of {}", path.display()))?;
        let (text, metadata) = read_text_file(path)?;
        // Before parsing: a file that anybody can change could add members.
        check_trusted_file(path, &metadata)?;
        let network = Network::parse_toml(&text).map_err(|error| match error {
            ConfigError::Invalid { line, what } => ConfigError::InvalidFile { path: path.into(), line, what },
            other => other,
        })?;
        // A file without a secret may be readable by others.
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
    /// Returns [`ConfigError::Invalid`] with the line and the reason, and [`ConfigError::Passphrase`] as
    /// `with_passphrase` does.
    pub fn parse_toml(text: &str) -> Result<Network, ConfigError> {
        let (network, hosts, roots) = static_file::parse(text)?;
        require_for_roots(&roots)?;
        let text = Some(Arc::new(Zeroizing::new(text.to_owned())));
        Ok(Network { hosts, roots, text, ..Network::of(NetworkConfig::Static(network)) })
    }

    /// Requires a passphrase: only nodes that know it can complete a handshake in this network, or even
    /// recognise its beacons.
    ///
    /// Stretches the passphrase with Argon2id at once, which takes some tens of milliseconds and, for that
    /// time, 19 MiB. The passphrase itself is not kept. Replaces an earlier passphrase. An empty one is no
    /// secret, so [`Node::join`](crate::Node::join) then refuses the network.
    ///
    /// # Errors
    ///
    /// Returns an error of the kind `OutOfMemory` if the system refuses the memory.
    pub fn with_passphrase(self, passphrase: &str) -> io::Result<Network> {
        let key = match passphrase {
            // The all-zero key is refused wherever it comes from.
            "" => Psk::new([0; 32]),
            _ => passphrase::stretch(self.id(), passphrase)?,
        };
        Ok(self.with_psk(key))
    }

    /// Requires a secret like [`with_passphrase`](Network::with_passphrase), but a random 32-byte key.
    #[must_use]
    pub fn with_psk(self, key: Psk) -> Network {
        Network { config: self.config.with_psk(key), ..self }
    }

    /// Gives the network a name on this machine.
    ///
    /// A node that has joined it takes `alpha.office` for the member `alpha` of the network `office`, as it
    /// takes `alpha.fe00000000000001`, and asks no other source for such a name. Of two networks with one
    /// name, the one that was joined first has it. The name has no effect on sockets in ad-hoc networks,
    /// which have no names of members, and in managed ones, which `peersock join` names.
    ///
    /// ```
    /// # use peersock::{Network, overlay::Identity};
    /// let key = Identity::from_seed(&[1; 32]).public().to_string();
    /// let text = format!("network = 'fe00000000000001'\n[[member]]\nkey = '{key}'\nname = 'alpha'");
    /// let network = Network::parse_toml(&text)?.with_local_name("office".parse()?);
    /// assert_eq!(network.addresses_named("alpha.office"), network.addresses_named("alpha"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_local_name(self, name: MemberName) -> Network {
        Network { local_name: Some(name), ..self }
    }

    /// Returns the name of [`with_local_name`](Network::with_local_name).
    pub fn local_name(&self) -> Option<&MemberName> {
        self.local_name.as_ref()
    }

    /// Returns the network's ID.
    pub fn id(&self) -> NetworkId {
        self.config.id()
    }

    /// Returns a summary for people and scripts: the network's kind, ports and prefixes, and what joining it
    /// requires.
    pub fn summary(&self) -> NetworkSummary {
        self.config.policy().summary()
    }

    /// Returns the addresses that a node has in the network, the self-certifying one first; `None` if the
    /// network does not admit it.
    pub fn addresses_of(&self, member: &PublicIdentity) -> Option<Vec<IpAddr>> {
        let (policy, node) = (self.config.policy(), member.node_id());
        policy.admits(&node).then(|| policy.addresses_of(&node))
    }

    /// Returns the addresses of the member with a name, the self-certifying one first; none if no member has
    /// it. Case does not matter. The name may end with the network's local name or ID. Sockets of a node that
    /// has joined the network resolve the same names.
    pub fn addresses_named(&self, name: &str) -> Vec<IpAddr> {
        let is_own = |end: &str| {
            let local = self.local_name().map(MemberName::as_str);
            local.is_some_and(|local| local.eq_ignore_ascii_case(end)) || end.parse() == Ok(self.id())
        };
        let name = name.rsplit_once('.').filter(|(_, end)| is_own(end)).map_or(name, |(member, _)| member);
        let policy = self.config.policy();
        policy.nodes_named(name).iter().flat_map(|node| policy.addresses_of(node)).collect()
    }

    /// Returns true if a passphrase or pre-shared key is needed to take part.
    pub fn is_secret(&self) -> bool {
        self.config.psk().is_some()
    }

    /// Returns the members that the network's file lists; none without a file.
    pub fn members(&self) -> &[StaticMember] {
        self.config.members()
    }

    /// Returns the roots that the network's file names. A node that joins the network uses them, too.
    pub fn roots(&self) -> &[RootSource] {
        &self.roots
    }

    /// Returns the address of the controller that an invite names, which a node that joins by it looks for.
    pub(crate) fn guide(&self) -> Option<Ipv6Addr> {
        self.guide
    }

    /// Returns the same network where this node reaches the Internet by way of a member, or is that member
    /// and serves others as the exit. For [`Node::join_device`](crate::Node::join_device) only, because
    /// sockets use the overlay just for addresses of the network's members.
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
    /// Returns a [`NetworkConfigError`] unless the network's file gives that member a default route
    /// (0.0.0.0/0, ::/0).
    pub fn with_exit(self, member: &PublicIdentity) -> Result<Network, NetworkConfigError> {
        Ok(Network { config: self.config.with_exit(member.node_id())?, ..self })
    }

    /// Returns the endpoints of a member that are host names; endpoints that are addresses are in
    /// [`StaticMember::endpoints`].
    pub fn host_endpoints(&self, member: &PublicIdentity) -> &[HostEndpoint] {
        self.hosts.get(&member.node_id()).map_or(&[], Vec::as_slice)
    }

    /// Returns the endpoints of a member as texts: first the addresses, then the host names.
    pub fn endpoints_of(&self, member: &PublicIdentity) -> Vec<String> {
        let listed = self.members().iter().filter(|listed| listed.identity == *member);
        let addresses = listed.flat_map(|listed| &listed.endpoints).map(ToString::to_string);
        addresses.chain(self.host_endpoints(member).iter().map(ToString::to_string)).collect()
    }

    /// Derives the key that depends on the network's ID, secret and members.
    pub(crate) fn discovery_key(&self) -> DiscoveryKey {
        self.config.discovery_key()
    }

    /// Returns the members whose names must be resolved, without `own`.
    pub(crate) fn hosts_of_others(&self, own: &PublicIdentity) -> Vec<MemberHosts> {
        let others = self.members().iter().filter(|member| member.identity != *own);
        let hosts = others.filter_map(|member| {
            let hosts = self.hosts.get(&member.identity.node_id())?.clone();
            Some(MemberHosts { node: member.identity.node_id(), addresses: member.endpoints.clone(), hosts })
        });
        hosts.collect()
    }

    /// Returns the configuration for the overlay's core, without endpoints that are host names, because the
    /// core resolves none.
    pub fn into_config(self) -> NetworkConfig {
        self.config
    }
}

#[cfg(all(test, feature = "static-networks"))]
mod tests;
