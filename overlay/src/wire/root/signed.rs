//! What nodes and roots sign, so that others can check it.

use std::net::SocketAddr;

use crate::id::{Identity, NodeId, PublicIdentity};
use crate::wire::{ParseError, Reader, write_address};

const REGISTRATION_LABEL: &[u8] = b"peersock registration v1";
const VOUCHER_LABEL: &[u8] = b"peersock voucher v1";
const TCP_VOUCHER_LABEL: &[u8] = b"peersock TCP voucher v1";

/// A node's word that it is to be found at a root. No root can make one, and none can use one that was made
/// for another root.
///
/// The signature is over `"peersock registration v1" || node ID of the root || sequence || lifetime`.
///
/// ```
/// use peersock_overlay::wire::Registration;
/// use peersock_overlay::Identity;
///
/// let (node, root) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]).node_id());
/// let registration = Registration::sign(&node, &root, 1_800_000_000_000, 600);
/// assert!(registration.verify(node.public(), &root));
/// assert!(!registration.verify(node.public(), &node.node_id()), "it is for another root");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Of two registrations of one node the one with the larger sequence counts: milliseconds since the Unix
    /// epoch, or one more than the last.
    pub sequence: u64,
    /// How long it is good for, in seconds.
    pub lifetime: u32,
    /// The node's signature.
    pub signature: [u8; 64],
}

impl Registration {
    /// Signs a registration of this node at a root.
    pub fn sign(node: &Identity, root: &NodeId, sequence: u64, lifetime: u32) -> Self {
        Self { sequence, lifetime, signature: node.sign(&Self::signed(root, sequence, lifetime)) }
    }

    /// Whether that node has signed it for that root.
    pub fn verify(&self, node: &PublicIdentity, root: &NodeId) -> bool {
        node.verify(&Self::signed(root, self.sequence, self.lifetime), &self.signature)
    }

    fn signed(root: &NodeId, sequence: u64, lifetime: u32) -> Vec<u8> {
        [REGISTRATION_LABEL, root.as_bytes(), &sequence.to_be_bytes(), &lifetime.to_be_bytes()].concat()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { sequence: reader.u64()?, lifetime: reader.u32()?, signature: *reader.array()? })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.lifetime.to_be_bytes());
        out.extend_from_slice(&self.signature);
    }
}

/// A root's word that a node receives at an address, as seen from the root. The node shows it to its peers,
/// so that these send there what opens a NAT box's mapping: without it anybody could have packets sent to
/// whomever he names.
///
/// The signature is over `"peersock voucher v1" || node ID || time || port || address`, or with
/// `"peersock TCP voucher v1"` if the address is the other end of a TCP connection: neither can be shown for
/// the other.
///
/// ```
/// use peersock_overlay::wire::Voucher;
/// use peersock_overlay::Identity;
///
/// let (node, root) = (Identity::from_seed(&[1; 32]).node_id(), Identity::from_seed(&[2; 32]));
/// let voucher = Voucher::sign(&root, &node, 1_800_000_000, "192.0.2.1:4000".parse()?);
/// assert!(voucher.verify(root.public(), &node));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// When the root has seen it, in seconds since the Unix epoch, by the root's clock.
    pub time: u64,
    /// Where the node receives.
    pub address: SocketAddr,
    /// The root's signature.
    pub signature: [u8; 64],
}

impl Voucher {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 90;

    /// A root says where it has seen a node.
    pub fn sign(root: &Identity, node: &NodeId, time: u64, address: SocketAddr) -> Self {
        let signature = root.sign(&Self::signed(VOUCHER_LABEL, node, time, &address));
        Self { time, address, signature }
    }

    /// A root says where a node's TCP connection comes from.
    ///
    /// ```
    /// use peersock_overlay::wire::Voucher;
    /// use peersock_overlay::Identity;
    ///
    /// let (node, root) = (Identity::from_seed(&[1; 32]).node_id(), Identity::from_seed(&[2; 32]));
    /// let voucher = Voucher::sign_tcp(&root, &node, 1_800_000_000, "192.0.2.1:4000".parse()?);
    /// assert!(voucher.verify_tcp(root.public(), &node) && !voucher.verify(root.public(), &node));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn sign_tcp(root: &Identity, node: &NodeId, time: u64, address: SocketAddr) -> Self {
        let signature = root.sign(&Self::signed(TCP_VOUCHER_LABEL, node, time, &address));
        Self { time, address, signature }
    }

    /// Whether that root has said it of that node.
    pub fn verify(&self, root: &PublicIdentity, node: &NodeId) -> bool {
        root.verify(&Self::signed(VOUCHER_LABEL, node, self.time, &self.address), &self.signature)
    }

    /// Whether that root has said it of a TCP connection of that node.
    pub fn verify_tcp(&self, root: &PublicIdentity, node: &NodeId) -> bool {
        root.verify(&Self::signed(TCP_VOUCHER_LABEL, node, self.time, &self.address), &self.signature)
    }

    fn signed(label: &[u8], node: &NodeId, time: u64, address: &SocketAddr) -> Vec<u8> {
        let mut text = [label, node.as_bytes(), &time.to_be_bytes()].concat();
        write_address(address, &mut text);
        text
    }

    pub(in crate::wire) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let (time, address) = (reader.u64()?, reader.address()?);
        Ok(Self { time, address, signature: *reader.array()? })
    }

    pub(in crate::wire) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_be_bytes());
        write_address(&self.address, out);
        out.extend_from_slice(&self.signature);
    }
}
