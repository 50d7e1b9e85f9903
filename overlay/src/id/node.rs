use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

use crate::crypto::hash;

const LABEL: &[u8] = b"peersock node id v1";

/// 32-byte name of a node: a hash of both of its public keys.
///
/// Code never indexes, authenticates or overwrites by less than all 32 bytes. Displays as 64 lower-case hex
/// digits; `Debug` shows the first eight only.
///
/// ```
/// use peersock_overlay::{Identity, NodeId};
///
/// let id = Identity::from_seed(&[1; 32]).public().node_id();
/// assert_eq!(id.to_string().parse::<NodeId>()?, id);
/// # Ok::<(), peersock_overlay::ParseNodeIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// Hashes the two public keys.
    pub(super) fn of(x25519: &[u8; 32], ed25519: &[u8; 32]) -> Self {
        // Over both keys, so that a node cannot take another signing key under the same ID.
        Self(hash::hash(&[LABEL, x25519, ed25519]))
    }

    /// Creates an ID from 32 bytes, for example from a file that was written with [`Self::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Four bytes tell nodes apart in a test's output, which shows many of them.
        write!(f, "NodeId({}..)", HEXLOWER.encode(&self.0[..4]))
    }
}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 64 {
            return Err(ParseNodeIdError::Length(s.chars().count()));
        }
        let bytes =
            HEXLOWER_PERMISSIVE.decode(s.as_bytes()).map_err(|e| ParseNodeIdError::Digit(e.position))?;
        Ok(Self(bytes.try_into().expect("64 hex digits are 32 bytes")))
    }
}

/// Reason why a string is not a node ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseNodeIdError {
    /// The string has this many characters instead of 64.
    #[error("a node ID has 64 hex digits, this has {0} characters")]
    Length(usize),
    /// The byte at this offset is not a hex digit.
    #[error("a node ID has only hex digits, the character at offset {0} is none")]
    Digit(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_either_case() {
        let id = NodeId([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn bad_text_names_what_is_wrong() {
        assert_eq!("ab".parse::<NodeId>(), Err(ParseNodeIdError::Length(2)));
        let mut text = "0".repeat(64);
        text.replace_range(9..10, "x");
        assert!(matches!(text.parse::<NodeId>(), Err(ParseNodeIdError::Digit(8..=9))));
        // 64 bytes that are not ASCII.
        assert!("é".repeat(32).parse::<NodeId>().is_err());
    }

    #[test]
    fn debug_is_short() {
        assert_eq!(format!("{:?}", NodeId([0xab; 32])), "NodeId(abababab..)");
    }
}
