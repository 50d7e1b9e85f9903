//! Statements that nodes and roots sign, so that others can check them.

use std::net::SocketAddr;

use crate::id::{Identity, NodeId, PublicIdentity};
use crate::wire::{ParseError, Reader, write_address};

const REGISTRATION_LABEL: &[u8] = b"peersock registration v1";
const VOUCHER_LABEL: &[u8] = b"peersock voucher v1";
const TCP_VOUCHER_LABEL: &[u8] = b"peersock TCP voucher v1";

/// A node's signed statement that it can be found at a root. A root can neither make one, nor use one that
/// was made for another root.
///
/// The signature is over `"peersock registration v1" || node ID of the root || sequence || lifetime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Number that orders the registrations of one node, where the larger counts: milliseconds since the Unix
    /// epoch, or one more than the last.
    pub sequence: u64,
    /// Lifetime in seconds.
    pub lifetime: u32,
    /// Signature of the node.
    pub signature: [u8; 64],
}

impl Registration {
    /// Signs a registration of this node at a root.
    pub fn sign(node: &Identity, root: &NodeId, sequence: u64, lifetime: u32) -> Self {
        Self { sequence, lifetime, signature: node.sign(&Self::signed(root, sequence, lifetime)) }
    }

    /// Returns true if that node has signed it for that root.
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

/// A root's signed statement that a node receives at an address, as seen from the root. The node shows it to
/// its peers, which then send there the packets that open a NAT mapping. Without it anyone could direct such
/// packets at a victim.
///
/// The signature is over `"peersock voucher v1" || node ID || time || port || address`, or with `"peersock
/// TCP voucher v1"` if the address is the other end of a TCP connection. Neither can replace the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// Time of the sighting in seconds since the Unix epoch, by the root's clock.
    pub time: u64,
    /// Address at which the node receives.
    pub address: SocketAddr,
    /// Signature of the root.
    pub signature: [u8; 64],
}

impl Voucher {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 90;

    /// Signs a root's statement of where it has seen a node.
    pub fn sign(root: &Identity, node: &NodeId, time: u64, address: SocketAddr) -> Self {
        let signature = root.sign(&Self::signed(VOUCHER_LABEL, node, time, &address));
        Self { time, address, signature }
    }

    /// Signs a root's statement of where a node's TCP connection comes from.
    pub fn sign_tcp(root: &Identity, node: &NodeId, time: u64, address: SocketAddr) -> Self {
        let signature = root.sign(&Self::signed(TCP_VOUCHER_LABEL, node, time, &address));
        Self { time, address, signature }
    }

    /// Returns true if that root has signed it for that node.
    pub fn verify(&self, root: &PublicIdentity, node: &NodeId) -> bool {
        root.verify(&Self::signed(VOUCHER_LABEL, node, self.time, &self.address), &self.signature)
    }

    /// Returns true if that root has signed it for a TCP connection of that node.
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
