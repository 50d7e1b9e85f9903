//! Referrals: the place of a node that is registered at another root.

use std::net::{IpAddr, SocketAddr};

use super::Registration;
use crate::crypto::hash;
use crate::id::{Identity, NodeId, PublicIdentity};
use crate::network::is_endpoint;
use crate::wire::{ParseError, Reader};

const RECORD_LABEL: &[u8] = b"peersock root record v1";
const PASS_LABEL: &[u8] = b"peersock pass v1";

/// Port where roots listen unless they name another.
const PORT: u16 = 7420;

/// A root's signed statement of where it listens.
///
/// The signature is the root's over `"peersock root record v1" || time || endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecord {
    /// Keys of the root.
    pub identity: PublicIdentity,
    /// Time of signing in seconds since the Unix epoch, by the root's clock.
    pub time: u64,
    /// Endpoints, as behind the `@` of the root's text; at most [`Self::MAX_ENDPOINTS`] bytes.
    pub endpoints: String,
    /// Signature of the root.
    pub signature: [u8; 64],
}

impl RootRecord {
    /// Maximum length of the endpoints in bytes, with which a referral fits into any datagram.
    pub const MAX_ENDPOINTS: usize = 600;

    /// Signs a root's endpoints; returns `None` if they are too long.
    pub fn sign(root: &Identity, time: u64, endpoints: &str) -> Option<Self> {
        let signature = root.sign(&Self::signed(time, endpoints));
        let identity = *root.public();
        let record = Self { identity, time, endpoints: endpoints.to_owned(), signature };
        (endpoints.len() <= Self::MAX_ENDPOINTS).then_some(record)
    }

    /// Returns true if that root has signed the record.
    pub fn verify(&self) -> bool {
        self.identity.verify(&Self::signed(self.time, &self.endpoints), &self.signature)
    }

    /// Returns the endpoints that are UDP addresses: at most eight, and only ones that a datagram can reach.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let parse = |text: &str| {
            let address = text.parse().ok();
            address.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT)))
        };
        let addresses = self.endpoints.split(',').filter_map(|text| parse(text.trim()));
        // Bounded, because each address that is tried costs packets to a host that may be a victim.
        addresses.filter(is_endpoint).take(8).collect()
    }

    /// Returns the ways by streams that name an address: at most eight, in the order of the text. Leaves out
    /// host names, because the author of a forged record could make others look up any name.
    pub fn streams(&self) -> Vec<StreamWay> {
        let parse = |text: &str| {
            let (kind, address) = text.trim().split_once(':')?;
            Some(StreamWay { kind: StreamKind::named(kind)?, address: address.parse().ok()? })
        };
        let ways = self.endpoints.split(',').filter_map(parse);
        ways.filter(|way| is_endpoint(&way.address)).take(8).collect()
    }

    fn signed(time: u64, endpoints: &str) -> Vec<u8> {
        // The label keeps the signature from being used for another kind of message.
        [RECORD_LABEL, &time.to_be_bytes(), endpoints.as_bytes()].concat()
    }

    /// Parses the bytes of [`Self::emit`]; ignores what follows.
    ///
    /// # Errors
    /// Returns [`ParseError::Length`] if it is cut off or too long, and [`ParseError::Value`] for invalid
    /// keys or text.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::read(&mut Reader(bytes))
    }

    /// Appends the record to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&(self.endpoints.len() as u16).to_be_bytes());
        out.extend_from_slice(self.endpoints.as_bytes());
        out.extend_from_slice(&self.signature);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let identity = PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?;
        let (time, len) = (reader.u64()?, usize::from(reader.u16()?));
        // Before the text is copied, because the length is the sender's.
        if len > Self::MAX_ENDPOINTS {
            return Err(ParseError::Length);
        }
        let text = reader.0.get(..len).ok_or(ParseError::Length)?;
        reader.0 = &reader.0[len..];
        let endpoints = std::str::from_utf8(text).map_err(|_| ParseError::Value)?.to_owned();
        Ok(Self { identity, time, endpoints, signature: *reader.array()? })
    }
}

/// Transport of datagrams to a root in place of UDP; see [`RootRecord::streams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StreamKind {
    /// TCP.
    Tcp,
    /// TLS.
    Tls,
    /// A WebSocket inside TLS.
    WebSocket,
}

impl StreamKind {
    /// Returns the kind with this name in the text of a root.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tcp" => Some(Self::Tcp),
            "tls" => Some(Self::Tls),
            "wss" => Some(Self::WebSocket),
            _ => None,
        }
    }
}

/// Way to a root by a stream; see [`RootRecord::streams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamWay {
    /// Transport of the datagrams.
    pub kind: StreamKind,
    /// Address where the root listens for it.
    pub address: SocketAddr,
}

/// Node registered at another root, with that root's addresses. Two signatures bind it: the node's, that it
/// is at that root, and the root's, where it listens. So anyone that passes a referral on, or stores it, can
/// withhold but not forge it.
///
/// ```
/// use peersock_overlay::wire::{Referral, Registration, RootRecord};
/// use peersock_overlay::Identity;
///
/// let (node, root) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
/// let referral = Referral {
///     identity: *node.public(),
///     registration: Registration::sign(&node, &root.node_id(), 1_800_000_000_000, 600),
///     root: RootRecord::sign(&root, 1_800_000_000, "192.0.2.1:7420").expect("short"),
/// };
/// assert!(referral.verify());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referral {
    /// Keys of the node.
    pub identity: PublicIdentity,
    /// Registration that it has signed for that root.
    pub registration: Registration,
    /// Record of that root.
    pub root: RootRecord,
}

impl Referral {
    /// Returns true if both signatures are good.
    pub fn verify(&self) -> bool {
        self.registration.verify(&self.identity, &self.root.identity.node_id()) && self.root.verify()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let identity = PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?;
        let registration = Registration::read(reader)?;
        Ok(Self { identity, registration, root: RootRecord::read(reader)? })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.to_bytes());
        self.registration.write(out);
        self.root.emit(out);
    }
}

/// Returns the pass that a referred node shows at another root, in place of the access token that the roots
/// of a set share. The token itself must not go to a root that only a referral names.
///
/// The pass is for one node, one root and one hour since the Unix epoch.
pub fn access_pass(token: &[u8], node: &NodeId, root: &NodeId, hour: u64) -> [u8; 32] {
    let key = hash::hash(&[PASS_LABEL, token]);
    hash::keyed(&key, &[node.as_bytes(), root.as_bytes(), &hour.to_be_bytes()])
}
