//! Identities of nodes and networks: keys, node IDs, network IDs and addresses.

mod blinded;
mod discovery;
mod identity;
mod network;
mod nickname;
mod node;
mod psk;

pub use blinded::BlindedKey;
pub use discovery::DiscoveryKey;
pub use identity::{Identity, ParseIdentityError, PublicIdentity};
pub use network::{NetworkId, NetworkKind, ParseNetworkIdError};
pub use nickname::{Nickname, NicknameText, ParseNicknameError};
pub use node::{NodeId, ParseNodeIdError};
pub use psk::Psk;
