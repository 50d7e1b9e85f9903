//! Proofs that only a node and its applications can make. They share the abstract namespace with all users of
//! the machine. Any user may take a free name there, before the node does or after it has died.
//!
//! A node [proves](proof()) to an application that it is the one which issued its token. A program
//! [proves](admission_proof) to its launcher that it has the token. The names of a node's ends of datagram
//! sockets are [sealed](NameKey).

use std::fmt;
use std::net::SocketAddr;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::encoding::encode;
use crate::headers::Header;
use crate::name::{Details, Remote, SocketId};

/// Contexts that separate the uses of the hash.
const NODE_CONTEXT: &[u8] = b"peersock descriptors: the node's proof";
const ADMISSION_CONTEXT: &[u8] = b"peersock descriptors: a program's proof to its launcher";
const DIGEST_CONTEXT: &[u8] = b"peersock descriptors: extension headers of a datagram";
const SEAL_CONTEXT: &[u8] = b"peersock descriptors: the seal of a name";

/// A secret that a node gives to its processes, so that a process that has changed its user may go on using
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub u128);

impl Token {
    /// The public token, sufficient for processes of the node's own user.
    pub const NONE: Self = Self(0);
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// Returns the proof for a number, which requires the token: keyed BLAKE2s (RFC 7693) of 16 bytes.
///
/// # Examples
/// ```
/// use peersock_fd::{Token, proof};
/// let token = Token(7);
/// assert_eq!(proof(token, 1), proof(token, 1));
/// assert_ne!(proof(token, 1), proof(token, 2));
/// assert_ne!(proof(token, 1), proof(Token(8), 1));
/// ```
pub fn proof(token: Token, challenge: u128) -> u128 {
    mac(token.0, NODE_CONTEXT, &challenge.to_le_bytes())
}

/// Like [`proof`], for a program that wants its launcher to take calls. It is a different hash, so a proof
/// that strangers get from a node is worthless here.
///
/// # Examples
/// ```
/// use peersock_fd::{Token, admission_proof, proof};
/// let token = Token(7);
/// assert_eq!(admission_proof(token, 1), admission_proof(token, 1));
/// assert_ne!(admission_proof(token, 1), proof(token, 1));
/// assert_ne!(admission_proof(token, 1), admission_proof(Token(8), 1));
/// ```
pub fn admission_proof(token: Token, challenge: u128) -> u128 {
    mac(token.0, ADMISSION_CONTEXT, &challenge.to_le_bytes())
}

fn mac(key: u128, context: &[u8], data: &[u8]) -> u128 {
    let mut mac =
        <Blake2sMac<U16> as KeyInit>::new_from_slice(&key.to_le_bytes()).expect("a key may have 16 bytes");
    mac.update(context);
    mac.update(data);
    u128::from_le_bytes(mac.finalize_fixed().into())
}

/// A key that a node gives to authorized clients, so that they know the names of its ends of datagram
/// sockets.
///
/// ```
/// use peersock_fd::{NameKey, SocketId};
///
/// let (id, address) = (SocketId::new(1), "[fd00::1]:53".parse().unwrap());
/// let name = NameKey(7).remote(id, address, None);
/// assert!(NameKey(7).has_sealed(&name));
/// assert!(!NameKey(8).has_sealed(&name));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NameKey(pub u128);

impl NameKey {
    /// Returns the sealed name of the node's end of a datagram socket for one remote address. The seal is 64
    /// bits of keyed BLAKE2s. An attacker can only try seals one by one at the kernel.
    pub fn remote(self, id: SocketId, address: SocketAddr, details: Option<Details>) -> Remote {
        let rest = encode(&(id, address, details));
        let seal = mac(self.0, SEAL_CONTEXT, &rest) as u64;
        Remote { id, address, details, seal }
    }

    /// Returns the digest that a name contains for extension headers and all other settings of a datagram: 64
    /// bits of keyed BLAKE2s. Only the node's own applications could find a collision, and would gain nothing
    /// from it.
    ///
    /// ```
    /// use peersock_fd::{Header, HeaderKind, NameKey};
    ///
    /// let header = |fill| Header { kind: HeaderKind::Destination, bytes: vec![0, 0, 1, 4, fill, 0, 0, 0] };
    /// assert_eq!(NameKey(7).digest(None, &[header(0)]), NameKey(7).digest(None, &[header(0)]));
    /// assert_ne!(NameKey(7).digest(None, &[header(0)]), NameKey(7).digest(None, &[header(1)]));
    /// ```
    pub fn digest(self, details: Option<Details>, headers: &[Header]) -> u64 {
        mac(self.0, DIGEST_CONTEXT, &encode(&(details, headers))) as u64
    }

    /// Returns true if [`remote`](Self::remote) has made the name.
    pub fn has_sealed(self, name: &Remote) -> bool {
        let made = self.remote(name.id, name.address, name.details);
        made.seal.to_le_bytes().ct_eq(&name.seal.to_le_bytes()).into()
    }
}

impl fmt::Debug for NameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameKey([redacted])")
    }
}

/// Returns true if `answer` is the node's proof.
pub(crate) fn is_proof(token: Token, challenge: u128, answer: u128) -> bool {
    are_same(proof(token, challenge), answer)
}

/// Returns true if `answer` is a program's proof.
pub(crate) fn is_admission_proof(token: Token, challenge: u128, answer: u128) -> bool {
    are_same(admission_proof(token, challenge), answer)
}

/// Compares in constant time.
fn are_same(wanted: u128, answer: u128) -> bool {
    wanted.to_le_bytes().ct_eq(&answer.to_le_bytes()).into()
}
