use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;

use crate::id::NetworkId;

/// Public key of a managed network. It signs [`Delegation`](super::Delegation)s and the
/// [`Succession`](super::Succession) of the next key, and nothing else.
///
/// Displays as 43 characters of unpadded base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkKey([u8; 32]);

impl NetworkKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Creates a key from its 32 bytes.
    ///
    /// # Errors
    /// Returns [`ParseNetworkKeyError::Key`] if the bytes are no curve point, or one of small order.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Result<Self, ParseNetworkKeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| ParseNetworkKeyError::Key)?;
        if key.is_weak() { Err(ParseNetworkKeyError::Key) } else { Ok(Self(bytes)) }
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns true if the network key has signed `message` (RFC 8032).
    pub(super) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            // Strict, because signatures with points of small order prove nothing.
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKey({self})")
    }
}

impl FromStr for NetworkKey {
    type Err = ParseNetworkKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 43 {
            return Err(ParseNetworkKeyError::Length(text.chars().count()));
        }
        let bytes = BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|error| ParseNetworkKeyError::Character(error.position))?;
        Self::from_bytes(bytes.try_into().expect("43 base64 characters are 32 bytes"))
    }
}

/// Reason why a text or 32 bytes are no network key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseNetworkKeyError {
    /// The text has this many characters instead of 43.
    #[error("a network key has 43 characters, this has {0}")]
    Length(usize),
    /// The byte at this offset is not base64url, or the last character has stray bits.
    #[error("a network key has only base64url characters, the one at offset {0} is wrong")]
    Character(usize),
    /// No signature by the key would prove anything.
    #[error("the network key is invalid")]
    Key,
}

/// Secret half of a network key. It is erased on drop and never printed.
///
/// Its holder can make issuers of the network. It is needed when an issuer is added or renewed, and can be
/// offline otherwise.
pub struct NetworkSecret(SigningKey);

impl NetworkSecret {
    /// Creates the key pair from 32 secret, uniformly random bytes. The caller erases its copy.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Returns the public half.
    pub fn public(&self) -> NetworkKey {
        NetworkKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkSecret({})", self.public())
    }
}

/// Returns the bytes that a signature covers: its purpose, the network, and the statement.
pub(super) fn signed_bytes(label: &[u8], network: NetworkId, body: &[u8]) -> Vec<u8> {
    [label, &network.as_u64().to_be_bytes(), body].concat()
}
