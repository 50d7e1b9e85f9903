//! How a node proves to an application that it is the one which gave it its token: names in the abstract
//! namespace are free again when a node dies, and then any user of the machine may take them.

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use subtle::ConstantTimeEq;

use crate::requests::Token;

/// Says what the hash is for.
const CONTEXT: &[u8] = b"peersock descriptors: the node's proof";

/// What only those who know the token can say about a number: keyed BLAKE2s (RFC 7693) of 16 bytes.
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
    let key = token.0.to_le_bytes();
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).expect("a key may have 16 bytes");
    mac.update(CONTEXT);
    mac.update(&challenge.to_le_bytes());
    u128::from_le_bytes(mac.finalize_fixed().into())
}

/// Whether it is the proof, in a time that does not depend on how much of it is right.
pub(crate) fn is_proof(token: Token, challenge: u128, answer: u128) -> bool {
    proof(token, challenge).to_le_bytes().ct_eq(&answer.to_le_bytes()).into()
}
