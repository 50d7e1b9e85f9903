//! The address text of a node: its key, its addresses in the overlay and below it, and its NATs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use flate2::bufread::ZlibDecoder;
use flate2::{Compression, write::ZlibEncoder};
use peersock::interfaces::Interface;
use peersock::overlay::PublicIdentity;
use peersock::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Beginning of a text; the number is the version of the form.
const PREFIX: &str = "peersock-node:1:";
/// Limits of a text, and of the dictionary in it, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 10;
const MAX_DICTIONARY_BYTES: usize = 64 << 10;
/// Limit of the entries of a list.
const MAX_LIST_ENTRIES: usize = 64;

/// The address of a node. Only the key determines the identity. Overlay addresses follow from it, so a forged
/// text leads to no other node.
///
/// The text is one line of ASCII: `peersock-node:1:` and a JSON dictionary, compressed by zlib and encoded in
/// URL-safe Base64 without padding. It is the same in Python.
///
/// ```
/// use peersock_pipe::NodeAddress;
///
/// let error = "10.77.0.1:80".parse::<NodeAddress>().expect_err("it is no such text");
/// assert!(error.to_string().contains("peersock-node:1:"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeAddress {
    /// The node's ID.
    pub id: NodeId,
    /// Its public key, from which the ID follows.
    pub public_key: PublicIdentity,
    /// Its networks, with its addresses there, the self-certifying one first. At most 64 networks, and 64
    /// addresses in each.
    pub networks: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// The port that accepts connections.
    pub port: u16,
    /// The endpoints at which its UDP sockets are or can be reached, the best first, at most 64.
    pub candidates: Vec<SocketAddr>,
    /// Its interfaces, each with the routes (internal and external addresses) and the NAT with its delta. At
    /// most 64, and limited by the length of the text.
    pub interfaces: Vec<Interface>,
    /// The roots at which it can be found, at most 64.
    pub roots: Vec<NodeId>,
}

/// Error: a text is no node's address.
///
/// ```
/// use peersock_pipe::NodeAddress;
///
/// assert!("peersock-node:1:AAAA".parse::<NodeAddress>().is_err_and(|error| !error.to_string().is_empty()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeAddressError {
    /// The text has another prefix, or is too long.
    #[error("a node's address begins with {PREFIX} and has at most {MAX_TEXT_BYTES} characters")]
    Form,
    /// The text is cut off, or contains wrong characters.
    #[error("the node's address is damaged: copy the whole line once more")]
    Damaged,
    /// The content is no address of a node.
    #[error("the node's address makes no sense: {0}")]
    Content(&'static str),
}

/// The dictionary in the text.
#[derive(Serialize, Deserialize)]
struct Dict {
    id: String,
    public_key: String,
    networks: BTreeMap<String, Vec<String>>,
    port: u16,
    candidates: Vec<String>,
    interfaces: Vec<BTreeMap<String, Value>>,
    roots: Vec<String>,
}

impl NodeAddress {
    /// Limits all lists to the sizes that others accept, and drops interfaces until the text fits.
    pub(super) fn bounded(mut self) -> NodeAddress {
        let mut seen = std::collections::HashSet::new();
        self.candidates.retain(|candidate| seen.insert(*candidate));
        self.candidates.truncate(MAX_LIST_ENTRIES);
        self.interfaces.truncate(MAX_LIST_ENTRIES);
        self.roots.truncate(MAX_LIST_ENTRIES);
        while self.networks.len() > MAX_LIST_ENTRIES {
            self.networks.pop_last();
        }
        self.networks.values_mut().for_each(|addresses| addresses.truncate(MAX_LIST_ENTRIES));
        while !self.has_room() && self.interfaces.pop().is_some() {}
        if !self.has_room() {
            // The first address follows from the key, and connections use it.
            self.networks.values_mut().for_each(|addresses| addresses.truncate(1));
        }
        self
    }

    /// Returns true if the text is short enough for others.
    fn has_room(&self) -> bool {
        let json = self.json().ok().filter(|json| json.len() <= MAX_DICTIONARY_BYTES);
        json.and_then(|json| packed(&json).ok()).is_some_and(|text| text.len() <= MAX_TEXT_BYTES)
    }

    /// Encodes the dictionary.
    fn json(&self) -> Result<Vec<u8>, fmt::Error> {
        let texts = |ips: &Vec<IpAddr>| ips.iter().map(IpAddr::to_string).collect();
        let networks = self.networks.iter().map(|(id, ips)| (id.to_string(), texts(ips)));
        let interfaces = self.interfaces.iter().map(|interface| serde_json::from_str(&interface.to_json()));
        let dict = Dict {
            id: self.id.to_string(),
            public_key: self.public_key.to_string(),
            networks: networks.collect(),
            port: self.port,
            candidates: self.candidates.iter().map(SocketAddr::to_string).collect(),
            interfaces: interfaces.collect::<Result<_, _>>().map_err(|_| fmt::Error)?,
            roots: self.roots.iter().map(NodeId::to_string).collect(),
        };
        serde_json::to_vec(&dict).map_err(|_| fmt::Error)
    }

    fn checked(dict: Dict) -> Result<NodeAddress, NodeAddressError> {
        use NodeAddressError::Content;

        let lists = [dict.candidates.len(), dict.interfaces.len(), dict.roots.len(), dict.networks.len()];
        let longest = lists.into_iter().chain(dict.networks.values().map(Vec::len)).max();
        if longest.is_some_and(|longest| longest > MAX_LIST_ENTRIES) {
            return Err(Content("a list has more than 64 entries"));
        }
        let id: NodeId = exact(&dict.id).ok_or(Content("its id is none"))?;
        let public_key: PublicIdentity = exact(&dict.public_key).ok_or(Content("its key is none"))?;
        if public_key.node_id() != id {
            return Err(Content("the key is that of another node"));
        }
        let mut networks = BTreeMap::new();
        for (network, ips) in &dict.networks {
            let network: NetworkId = exact(network).ok_or(Content("a network's ID is none"))?;
            let ips: Option<Vec<IpAddr>> = ips.iter().map(|ip| ip.parse().ok()).collect();
            networks.insert(network, ips.ok_or(Content("an address in a network is none"))?);
        }
        if networks.values().all(Vec::is_empty) {
            return Err(Content("it has no network"));
        }
        if dict.port == 0 {
            return Err(Content("its port is none"));
        }
        if !dict.candidates.iter().all(|text| is_candidate(text)) {
            return Err(Content("a candidate has characters that cannot be there"));
        }
        let roots: Option<_> = dict.roots.iter().map(|root| exact(root)).collect();
        // A later version may have candidates and interfaces in other forms; skip these.
        let candidates = dict.candidates.iter().filter_map(|text| text.parse().ok()).collect();
        let interface = |dict: &BTreeMap<String, Value>| {
            serde_json::to_string(dict).ok().and_then(|json| Interface::from_json(&json).ok())
        };
        Ok(NodeAddress {
            id,
            public_key,
            networks,
            port: dict.port,
            candidates,
            interfaces: dict.interfaces.iter().filter_map(interface).collect(),
            roots: roots.ok_or(Content("a root's ID is none"))?,
        })
    }
}

/// Parses a text if it is the canonical form of its value.
fn exact<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text)
}

/// Encodes the text with this dictionary.
fn packed(json: &[u8]) -> Result<String, fmt::Error> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    let packed = packer.write_all(json).and_then(|()| packer.finish()).map_err(|_| fmt::Error)?;
    Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&packed)))
}

fn is_candidate(text: &str) -> bool {
    let is_known = |c: char| c.is_alphanumeric() || ":.[]%_".contains(c);
    (3..=64).contains(&text.chars().count()) && text.chars().all(is_known)
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&packed(&self.json()?)?)
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    /// Parses a text, with optional white space around it. Unknown keys of the dictionary are ignored.
    fn from_str(text: &str) -> Result<NodeAddress, NodeAddressError> {
        let packed =
            text.trim().strip_prefix(PREFIX).filter(|rest| PREFIX.len() + rest.len() <= MAX_TEXT_BYTES);
        let packed = packed.ok_or(NodeAddressError::Form)?;
        let packed = BASE64URL_NOPAD.decode(packed.as_bytes()).map_err(|_| NodeAddressError::Damaged)?;
        let mut unpacker = ZlibDecoder::new(&packed[..]).take(MAX_DICTIONARY_BYTES as u64 + 1);
        let mut json = Vec::new();
        unpacker.read_to_end(&mut json).map_err(|_| NodeAddressError::Damaged)?;
        let is_whole = unpacker.into_inner().into_inner().is_empty();
        if json.len() > MAX_DICTIONARY_BYTES || !is_whole {
            return Err(NodeAddressError::Damaged);
        }
        let value: Value = serde_json::from_slice(&json).map_err(|_| NodeAddressError::Damaged)?;
        let dict = serde_json::from_value(value);
        NodeAddress::checked(dict.map_err(|_| NodeAddressError::Content("it is of another form"))?)
    }
}
