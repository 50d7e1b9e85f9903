//! The kinds of network, and the decisions of each in one place.
//!
//! Networks differ in who may be a member, in the members' addresses and names, in the allowed ports, in the
//! required key, and in when a silent member is forgotten. Each kind answers these questions with a
//! [`Policy`]:
//!
//! | kind | who is admitted | addresses | names | ports |
//! |---|---|---|---|---|
//! | ad-hoc (`adhoc`) | any node that knows the ID, and the key if there is one | the self-certifying one | none | those in the ID |
//! | static (`fixed`) | whom the file lists, and their programs | also those that the file gives | those in the file | all |
//! | managed (`managed`) | who shows credentials | also those in its certificate | those in certificates | all |
//! | roots (`roots`) | the configured roots | none | none | none |
//!
//! The last one is hidden: it contains sessions with roots, and no node can join it.
//!
//! Code outside this module never matches on the kind: the endpoint, the node, the program, C and Python ask
//! the policy or a [`NetworkSummary`]. `cargo xtask test` checks that.
//!
//! # From a description to a policy
//!
//! A [`NetworkConfig`] is a user's description of a network: an ID with a key, or a list of members.
//! [`NetworkConfig::validate`] checks it, and [`NetworkConfig::policy`] makes a policy of it. The endpoint
//! keeps the policy while the network is joined. Programs that only need information about a network ask a
//! policy without joining.
//!
//! # A kind whose members change
//!
//! In a managed network ([`NetworkConfig::Managed`]) any node may have a session, in which both show their
//! [`Credentials`](crate::membership::Credentials). Until a peer's credentials are accepted nothing else
//! passes in either direction ([`Peer::is_admitted`](crate::Peer::is_admitted)), and it stops when they end.
//! The [`Membership`] in the policy has everything that changes: this node's credentials, the admitted peers,
//! the revocations, and the time. The endpoint asks the policy when it needs an answer, and stores only the
//! key and the discovery key.

mod adhoc;
mod description;
mod error;
mod exit;
mod fixed;
mod managed;
mod policy;
mod prefix;
mod programs;
mod roots;
mod used;

use std::net::{IpAddr, SocketAddr};

use crate::id::{DiscoveryKey, NetworkId, NetworkKind, NodeId, Psk};
use crate::membership::ProcessCertificate;
use crate::reach::is_discarded;

pub use description::PeerDescription;
pub use error::{NetworkConfigError, NetworkIdError};
pub use exit::Exit;
pub use fixed::{StaticMember, StaticNetwork, is_route};
pub(crate) use managed::{MAX_CONTROLLERS, digest};
pub use managed::{ManagedNetwork, Membership};
pub use policy::{NetworkSummary, Policy};
pub use prefix::Prefix;
pub use programs::Programs;
pub(crate) use roots::Roots as RootsPolicy;
pub use used::UsedMember;

use adhoc::AdHoc;
use fixed::Static;
use managed::Managed;

/// Handle of a joined network in this node. Never reused while the node runs, and meaningless elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkIndex(pub u32);

impl NetworkIndex {
    /// Hidden network of this node and its roots. Others are numbered from 0 on.
    pub(crate) const ROOTS: Self = Self(u32::MAX);
}

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
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum NetworkConfig {
    /// Open to every node that knows the ID, and the key if there is one.
    AdHoc {
        /// ID of kind [`NetworkKind::AdHoc`].
        id: NetworkId,
        /// Key that a node needs to complete a handshake; `None` admits everyone.
        psk: Option<Psk>,
    },
    /// Open to the listed members.
    Static(StaticNetwork),
    /// Open to whom a controller admits.
    Managed(Box<ManagedNetwork>),
}

impl NetworkConfig {
    /// Returns the network that an ID alone describes.
    ///
    /// ```
    /// use peersock_overlay::{NetworkConfig, NetworkIdError};
    ///
    /// let open = NetworkConfig::by_id("ff1f901f99000000".parse()?)?;
    /// assert!(!open.policy().summary().closed);
    /// let listed = NetworkConfig::by_id("fe00000000000001".parse()?);
    /// assert!(matches!(listed, Err(NetworkIdError::NeedsFile(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Returns a [`NetworkIdError`] if an ID alone is not enough.
    pub fn by_id(id: NetworkId) -> Result<Self, NetworkIdError> {
        match id.kind() {
            NetworkKind::AdHoc { .. } => Ok(Self::AdHoc { id, psk: None }),
            NetworkKind::Static => Err(NetworkIdError::NeedsFile(id)),
            NetworkKind::Managed if id == NetworkId::ROOTS => Err(NetworkIdError::Reserved(id)),
            NetworkKind::Managed => Ok(Self::Managed(Box::new(ManagedNetwork::new(id)))),
        }
    }

    /// Returns the same network with another pre-shared key.
    #[must_use]
    pub fn with_psk(mut self, key: Psk) -> Self {
        match &mut self {
            Self::AdHoc { psk, .. } | Self::Static(StaticNetwork { psk, .. }) => *psk = Some(key),
            Self::Managed(network) => network.psk = Some(key),
        }
        self
    }

    /// Returns the same network where this node reaches the Internet through `exit`, or is that node and
    /// leads others there. It is for networks that a device has, because members' addresses are then not the
    /// only ones.
    ///
    /// # Errors
    /// Returns [`NetworkConfigError::NoExits`] or [`NetworkConfigError::NotAnExit`] if the network's
    /// description does not allow it.
    pub fn with_exit(mut self, exit: NodeId) -> Result<Self, NetworkConfigError> {
        match &mut self {
            Self::AdHoc { id, .. } => return Err(NetworkConfigError::NoExits(*id)),
            Self::Managed(network) => return Err(NetworkConfigError::NoExits(network.id)),
            Self::Static(network) => {
                network.exit = Some(exit);
                network.validate()?;
            }
        }
        Ok(self)
    }

    /// Returns the same network where this node neither uses an exit nor is one.
    #[must_use]
    pub fn without_exit(mut self) -> Self {
        if let Self::Static(network) = &mut self {
            network.exit = None;
        }
        self
    }

    /// Makes this the network of a program's node, by a certificate of a listed member. Does nothing where
    /// the description lists no members.
    pub fn set_program(&mut self, certificate: ProcessCertificate) {
        if let Self::Static(network) = self {
            network.program = Some(Box::new(certificate));
        }
    }

    /// Returns the network's ID.
    pub fn id(&self) -> NetworkId {
        match self {
            Self::AdHoc { id, .. } => *id,
            Self::Static(network) => network.id,
            Self::Managed(network) => network.id,
        }
    }

    /// Returns the pre-shared key, if the network has one.
    pub fn psk(&self) -> Option<&Psk> {
        match self {
            Self::AdHoc { psk, .. } => psk.as_ref(),
            Self::Static(network) => network.psk.as_ref(),
            Self::Managed(network) => network.psk.as_ref(),
        }
    }

    /// Derives the key under which members find each other on a local network.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.policy().discovery_key()
    }

    /// Returns the members that the description lists, in its order; none if it lists none.
    pub fn members(&self) -> &[StaticMember] {
        match self {
            Self::AdHoc { .. } | Self::Managed(_) => &[],
            Self::Static(network) => &network.members,
        }
    }

    /// Checks the rules that the types alone cannot enforce.
    /// Returns a [`NetworkConfigError`].
    pub fn validate(&self) -> Result<(), NetworkConfigError> {
        if self.psk() == Some(&Psk::open()) {
            // In handshakes this key means an open network, so it would protect nothing.
            return Err(NetworkConfigError::OpenKey);
        }
        match (self, self.id().kind()) {
            (Self::AdHoc { .. }, NetworkKind::AdHoc { .. }) => Ok(()),
            (Self::Static(network), NetworkKind::Static) => network.validate(),
            (Self::Managed(network), NetworkKind::Managed) => match network.psk {
                Some(_) => Err(NetworkConfigError::NoSecret(network.id)),
                None => Ok(()),
            },
            _ => Err(NetworkConfigError::Kind(self.id())),
        }
    }

    /// Returns the decisions of such a network, joined or not.
    pub fn policy(&self) -> Box<dyn Policy> {
        match self {
            Self::AdHoc { id, psk } => Box::new(AdHoc::new(*id, psk.clone())),
            Self::Static(network) => Box::new(Static::new(network)),
            Self::Managed(network) => Box::new(Managed::new(network)),
        }
    }
}

/// Returns true if a datagram to `remote` goes to one host. That holds for members' endpoints, whether
/// written as addresses or found by a host name, because their author must not make a node send to many
/// hosts.
pub fn is_endpoint(remote: &SocketAddr) -> bool {
    let ip = remote.ip().to_canonical();
    let to_all = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    remote.port() != 0 && !(to_all || ip.is_unspecified() || ip.is_multicast() || is_discarded(&ip))
}

#[cfg(test)]
mod tests;
