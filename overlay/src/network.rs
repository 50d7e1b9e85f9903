mod prefix;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::id::{DiscoveryKey, NetworkId, NetworkKind, NodeId, Psk, PublicIdentity};

pub use prefix::Prefix;

/// This node's handle of a network it has joined. Never reused while the node runs, and meaningless elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkIndex(pub u32);

/// Everything a node must know to join a network.
///
/// ```
/// use peersock_overlay::{NetworkConfig, NetworkId, Psk};
///
/// let id = NetworkId::ad_hoc(4000..=4999)?;
/// let open = NetworkConfig::AdHoc { id, psk: None };
/// let secret = NetworkConfig::AdHoc { id, psk: Some(Psk::new([4; 32])) };
/// assert!(open.validate().is_ok() && secret.validate().is_ok());
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NetworkConfig {
    /// Whoever knows the ID, and the key if there is one, takes part.
    AdHoc {
        /// An ID of kind [`NetworkKind::AdHoc`].
        id: NetworkId,
        /// Only those who have the same key can complete a handshake; `None` lets everyone.
        psk: Option<Psk>,
    },
    /// The listed members take part.
    Static(StaticNetwork),
}

impl NetworkConfig {
    /// The network's ID.
    pub fn id(&self) -> NetworkId {
        match self {
            Self::AdHoc { id, .. } => *id,
            Self::Static(network) => network.id,
        }
    }

    /// The pre-shared key, if the network has one.
    pub fn psk(&self) -> Option<&Psk> {
        match self {
            Self::AdHoc { psk, .. } => psk.as_ref(),
            Self::Static(network) => network.psk.as_ref(),
        }
    }

    /// Derives the key under which members find each other on a local network.
    pub fn discovery_key(&self) -> DiscoveryKey {
        match self {
            Self::AdHoc { id, psk } => DiscoveryKey::new(*id, psk.as_ref(), None),
            Self::Static(network) => {
                let members: Vec<NodeId> = network.members.iter().map(|m| m.identity.node_id()).collect();
                DiscoveryKey::new(network.id, network.psk.as_ref(), Some(&members))
            }
        }
    }

    /// Checks what the types alone cannot rule out.
    ///
    /// # Errors
    /// See [`NetworkConfigError`].
    pub fn validate(&self) -> Result<(), NetworkConfigError> {
        if self.psk() == Some(&Psk::open()) {
            return Err(NetworkConfigError::OpenKey);
        }
        match (self, self.id().kind()) {
            (Self::AdHoc { .. }, NetworkKind::AdHoc { .. }) => Ok(()),
            (Self::Static(network), NetworkKind::Static) => network.validate(),
            _ => Err(NetworkConfigError::Kind(self.id())),
        }
    }
}

/// A network whose members are listed in a file.
#[derive(Debug, Clone)]
pub struct StaticNetwork {
    /// An ID of kind [`NetworkKind::Static`].
    pub id: NetworkId,
    /// Mixed into every handshake besides the members' own keys.
    pub psk: Option<Psk>,
    /// All members, this node included.
    pub members: Vec<StaticMember>,
}

impl StaticNetwork {
    fn validate(&self) -> Result<(), NetworkConfigError> {
        let mut nodes = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut names = BTreeSet::new();
        for member in &self.members {
            let id = member.identity.node_id();
            if !nodes.insert(id) {
                return Err(NetworkConfigError::DuplicateMember(id));
            }
            if let Some(name) = &member.name
                && !names.insert(name)
            {
                return Err(NetworkConfigError::DuplicateName(name.clone()));
            }
            for &address in &member.addresses {
                if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                    return Err(NetworkConfigError::UnusableAddress(address));
                }
                // The network's own prefix is self-certifying: no list can give it away.
                if matches!(address, IpAddr::V6(a) if a.octets()[..6] == self.id.prefix()) {
                    return Err(NetworkConfigError::CertifiedAddress(address));
                }
                if !addresses.insert(address) {
                    return Err(NetworkConfigError::DuplicateAddress(address));
                }
            }
        }
        Ok(())
    }
}

/// One member of a [`StaticNetwork`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMember {
    /// The member's keys.
    pub identity: PublicIdentity,
    /// A name for people, unique if given.
    pub name: Option<String>,
    /// Addresses besides the self-certifying one, IPv4 or IPv6.
    pub addresses: Vec<IpAddr>,
    /// Where to reach it on the underlying network, if that is known beforehand.
    pub endpoints: Vec<SocketAddr>,
}

/// Why a network's description makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkConfigError {
    /// The ID's first byte says another kind of network.
    #[error("network ID {0} is of another kind: ad-hoc IDs begin with ff, static ones with fe")]
    Kind(NetworkId),
    /// The pre-shared key is the one that everybody knows.
    #[error("a key of zeros is no secret: open networks have it")]
    OpenKey,
    /// A member is listed twice.
    #[error("node {0} is listed twice")]
    DuplicateMember(NodeId),
    /// Two members have one name.
    #[error("the name `{0}` is given twice")]
    DuplicateName(String),
    /// Two members claim one address.
    #[error("address {0} is given twice")]
    DuplicateAddress(IpAddr),
    /// The address is unspecified, loopback or multicast.
    #[error("address {0} cannot belong to a member")]
    UnusableAddress(IpAddr),
    /// The address lies in the network's self-certifying prefix.
    #[error("address {0} is in the network's own prefix, where every address follows from a node ID")]
    CertifiedAddress(IpAddr),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identity;

    fn member(seed: u8, addresses: &[&str]) -> StaticMember {
        StaticMember {
            identity: *Identity::from_seed(&[seed; 32]).public(),
            name: None,
            addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
            endpoints: Vec::new(),
        }
    }

    fn network(id: &str, members: Vec<StaticMember>) -> NetworkConfig {
        NetworkConfig::Static(StaticNetwork { id: id.parse().expect("an ID"), psk: None, members })
    }

    #[test]
    fn contradictions_are_refused() {
        let id = "fe00000000000001";
        let own = id.parse::<NetworkId>().expect("an ID").address_of(&NodeId::from_bytes([1; 32]));
        let good = network(id, vec![member(1, &["10.0.0.1", "fd00::1"]), member(2, &["10.0.0.2"])]);
        assert_eq!(good.validate(), Ok(()));
        let twice = network(id, vec![member(1, &[]), member(1, &[])]);
        assert!(matches!(twice.validate(), Err(NetworkConfigError::DuplicateMember(_))));
        let mut named = [member(1, &[]), member(2, &[])];
        named.iter_mut().for_each(|m| m.name = Some("twin".into()));
        assert!(matches!(network(id, named.into()).validate(), Err(NetworkConfigError::DuplicateName(_))));
        let shared = network(id, vec![member(1, &["10.0.0.1"]), member(2, &["10.0.0.1"])]);
        assert!(matches!(shared.validate(), Err(NetworkConfigError::DuplicateAddress(_))));
        let loopback = network(id, vec![member(1, &["127.0.0.1"])]);
        assert!(matches!(loopback.validate(), Err(NetworkConfigError::UnusableAddress(_))));
        let taken = network(id, vec![member(1, &[&own.to_string()])]);
        assert!(matches!(taken.validate(), Err(NetworkConfigError::CertifiedAddress(_))));
        let id = "ff00160016000000".parse().expect("an ID");
        let open_key = NetworkConfig::AdHoc { id, psk: Some(Psk::open()) };
        assert_eq!(open_key.validate(), Err(NetworkConfigError::OpenKey));
        let kind = network("ff00160016000000", vec![]);
        assert!(matches!(kind.validate(), Err(NetworkConfigError::Kind(_))));
    }
}
