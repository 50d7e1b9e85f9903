//! The other end of a connection, as programs see it.

use std::io;
use std::net::IpAddr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use peersock_overlay::{NetworkId, NodeId, PeerDescription};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Node;
use super::status::text;
use crate::attach::NodeHandle;

/// Node at the other end of a connection, by which a program decides who may do something.
///
/// It is taken from the encrypted session that carried the handshake of the connection, so an address or a
/// name that the peer chooses for itself has no influence. In a managed network a controller has signed the
/// name, the tags and the claims; the label is the machine's own choice for its program. A static network's
/// file gives names. In an ad-hoc network anybody may be a member, and only the node ID says who it is.
///
/// It serializes to a JSON object of at most [`PeerIdentity::MAX_JSON`] bytes, which programs in other
/// languages get. The claims are hexadecimal digits there.
///
/// ```
/// use peersock::blocking::{TcpListener, TcpStream};
/// use peersock::{IdentitySource, Interfaces, Network, Node};
///
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let listener = TcpListener::bind_on(&node, "[::]:80")?;
/// let client = TcpStream::connect_on(&node, (network.address(), 80))?;
/// let (server, _) = listener.accept()?;
/// let peer = server.peer().expect("it is connected");
/// assert_eq!((peer.node, peer.network), (node.id(), network.id()));
/// assert!(peer.name.is_none() && !peer.has_tag("admin"));
/// # drop(client);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// Network of the connection.
    #[serde(with = "text")]
    pub network: NetworkId,
    /// ID of the node, which is the hash of its public keys.
    #[serde(with = "text")]
    pub node: NodeId,
    /// ID of the machine's node: another one than `node` if that is a program with its own keys.
    #[serde(with = "text")]
    pub machine: NodeId,
    /// True if the other end is a machine without peersock, for which this member forwards packets. The
    /// network knows the member alone.
    pub gateway: bool,
    /// Name of the machine, if the network gives it one.
    pub name: Option<String>,
    /// Label of such a program, under which it alone is addressed: `web` in `web.alpha`.
    pub label: Option<String>,
    /// Tags of the machine, in ascending order.
    pub tags: Vec<String>,
    /// Bytes for programs, which peersock does not read; at most 128.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub claims: Vec<u8>,
}

impl PeerIdentity {
    /// Maximum length of the JSON in bytes. Python's `getsockopt` takes no more.
    pub const MAX_JSON: usize = 1024;

    /// Returns true if the network gives the machine this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|one| one == tag)
    }

    /// Returns the name of the other end: `alpha`, or `web.alpha` for a program with a label. `None` in
    /// networks without names.
    pub fn full_name(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(self.label.as_ref().map_or_else(|| name.clone(), |label| format!("{label}.{name}")))
    }

    /// Returns the JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and lists can be written")
    }

    /// Reads the JSON object.
    ///
    /// # Errors
    /// Returns `InvalidData` if it is none of an identity.
    pub fn from_json(json: &[u8]) -> io::Result<PeerIdentity> {
        serde_json::from_slice(json).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl From<&PeerDescription> for PeerIdentity {
    fn from(described: &PeerDescription) -> Self {
        Self {
            network: described.network,
            node: described.node,
            machine: described.machine,
            gateway: described.is_gateway,
            name: described.name.clone(),
            label: described.label.as_ref().map(ToString::to_string),
            tags: described.tags.iter().map(ToString::to_string).collect(),
            claims: described.claims.clone(),
        }
    }
}

impl Node {
    /// Returns who has an address in one of the node's networks now: a peer that has proved its membership in
    /// a session, or this node. `None` for all others, and before a session exists.
    ///
    /// This is for datagrams. A connection has [`TcpStream::peer`](crate::TcpStream::peer), which stays the
    /// same when the address gets another owner.
    pub fn peer_at(&self, address: IpAddr) -> Option<PeerIdentity> {
        NodeHandle::of(self).peer_at(address).map(|described| PeerIdentity::from(&*described))
    }
}

fn to_hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&HEXLOWER.encode(bytes))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    HEXLOWER_PERMISSIVE.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_identity_fits_into_what_programs_can_ask_for() {
        let label = |last: char| Some(format!("{}{last}", "n".repeat(62)));
        let identity = PeerIdentity {
            network: NetworkId::new(0x8056_c2e2_1c00_0001).expect("a managed ID"),
            node: NodeId::from_bytes([255; 32]),
            machine: NodeId::from_bytes([254; 32]),
            gateway: false,
            name: label('a'),
            label: label('b'),
            // Each takes a byte for its length in the certificate, and three more characters in JSON.
            tags: (0..64).map(|number| char::from(b'0' + number % 10).to_string()).collect(),
            claims: vec![255; 128],
        };
        let json = identity.to_json();
        assert!(json.len() <= PeerIdentity::MAX_JSON, "{} bytes", json.len());
        assert_eq!(PeerIdentity::from_json(json.as_bytes()).expect("its own JSON"), identity);
        for wrong in ["f", "zz", "+1"] {
            let json = json.replacen(&"ff".repeat(128), wrong, 1);
            assert!(PeerIdentity::from_json(json.as_bytes()).is_err(), "{wrong}");
        }
    }
}
