use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::hazmat::ExpandedSecretKey;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::NodeId;
use crate::crypto::hash;

const X25519_LABEL: &[u8] = b"peersock x25519 v1";
const ED25519_LABEL: &[u8] = b"peersock ed25519 v1";

/// Secret of a node: the key pairs for handshakes (X25519) and for signatures (Ed25519).
///
/// Both come from one 32-byte seed, so a node is saved and restored by its seed alone. The secrets are erased
/// from memory on drop, and `Debug` shows only the public half.
///
/// ```
/// use peersock_overlay::Identity;
///
/// let node = Identity::from_seed(&[7; 32]);
/// assert_eq!(node.public(), Identity::from_seed(&[7; 32]).public());
/// ```
pub struct Identity {
    x25519: StaticSecret,
    ed25519: SigningKey,
    public: PublicIdentity,
}

impl Identity {
    /// Derives both key pairs from 32 secret, uniformly random bytes. The caller erases its copy of the seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        // Two keys from one seed by labels, so that neither algorithm sees the other's secret.
        let x25519 = StaticSecret::from(*Zeroizing::new(hash::keyed(seed, &[X25519_LABEL])));
        let ed25519 = SigningKey::from_bytes(&Zeroizing::new(hash::keyed(seed, &[ED25519_LABEL])));
        let public = PublicIdentity {
            x25519: x25519_dalek::PublicKey::from(&x25519).to_bytes(),
            ed25519: ed25519.verifying_key().to_bytes(),
        };
        Self { x25519, ed25519, public }
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// Returns the node ID of the public half.
    pub fn node_id(&self) -> NodeId {
        self.public.node_id()
    }

    /// Signs a message with the Ed25519 key (RFC 8032). The message must begin with its purpose, because a
    /// signature made for one purpose could otherwise serve another.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.ed25519.sign(message).to_bytes()
    }

    /// Returns the Ed25519 secret as a scalar and the secret of its nonces (RFC 8032, 5.1.5).
    pub(super) fn expanded_ed25519(&self) -> ExpandedSecretKey {
        ExpandedSecretKey::from(self.ed25519.as_bytes())
    }

    /// Returns the key for the handshake's Diffie-Hellman.
    pub(crate) fn x25519(&self) -> &StaticSecret {
        &self.x25519
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured by name, so that a new secret field is not printed by accident.
        let Self { x25519: _, ed25519: _, public } = self;
        f.debug_struct("Identity").field("public", public).field("secret", &"[redacted]").finish()
    }
}

/// Both public keys of a node, which it gives to others.
///
/// Displays as 86 characters of unpadded base64url: the X25519 key, then the Ed25519 key.
///
/// ```
/// use peersock_overlay::{Identity, PublicIdentity};
///
/// let node = Identity::from_seed(&[7; 32]);
/// let text = node.public().to_string();
/// assert_eq!(text.len(), 86);
/// assert_eq!(&text.parse::<PublicIdentity>()?, node.public());
/// # Ok::<(), peersock_overlay::ParseIdentityError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicIdentity {
    x25519: [u8; 32],
    ed25519: [u8; 32],
}

impl PublicIdentity {
    /// Length of [`Self::to_bytes`], in bytes.
    pub const LEN: usize = 64;

    /// Creates an identity from the X25519 key followed by the Ed25519 key.
    ///
    /// # Errors
    /// Returns [`ParseIdentityError::Key`] if either key proves nothing: an X25519 key that is zero, or an
    /// Ed25519 key that is no curve point or of small order.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, ParseIdentityError> {
        let (x25519, ed25519) = bytes.split_at(32);
        Self::from_keys(
            x25519.try_into().expect("split at half of 64"),
            ed25519.try_into().expect("split at half of 64"),
        )
    }

    /// Creates an identity from the two keys; like [`Self::from_bytes`].
    pub(crate) fn from_keys(x25519: [u8; 32], ed25519: [u8; 32]) -> Result<Self, ParseIdentityError> {
        let verifying = VerifyingKey::from_bytes(&ed25519).map_err(|_| ParseIdentityError::Key)?;
        // Other low-order X25519 points need no check here, because the handshake refuses a zero result.
        if verifying.is_weak() || x25519 == [0; 32] {
            return Err(ParseIdentityError::Key);
        }
        Ok(Self { x25519, ed25519 })
    }

    /// Returns the X25519 key followed by the Ed25519 key.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.x25519);
        bytes[32..].copy_from_slice(&self.ed25519);
        bytes
    }

    /// Returns the X25519 public key, for handshakes.
    pub fn x25519(&self) -> &[u8; 32] {
        &self.x25519
    }

    /// Returns the Ed25519 public key, for signatures.
    pub fn ed25519(&self) -> &[u8; 32] {
        &self.ed25519
    }

    /// Returns true if [`Identity::sign`] made `signature` for this message.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.ed25519)
            // Strict, because signatures with points of small order prove nothing.
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// Returns the hash of both keys, which names the node.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.x25519, &self.ed25519)
    }
}

impl fmt::Display for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64URL_NOPAD.encode(&self.to_bytes()))
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({:?})", self.node_id())
    }
}

impl FromStr for PublicIdentity {
    type Err = ParseIdentityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        // Before the decoding, whose error would name a position in a text of any length.
        if s.len() != 86 {
            return Err(ParseIdentityError::Length(s.chars().count()));
        }
        let bytes =
            BASE64URL_NOPAD.decode(s.as_bytes()).map_err(|e| ParseIdentityError::Character(e.position))?;
        Self::from_bytes(&bytes.try_into().expect("86 base64 characters are 64 bytes"))
    }
}

/// Reason why a string or 64 bytes are not a public identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseIdentityError {
    /// The string has this many characters instead of 86.
    #[error("a public identity has 86 characters, this has {0}")]
    Length(usize),
    /// The byte at this offset is not base64url, or the last character has stray bits.
    #[error("a public identity has only base64url characters, the one at offset {0} is wrong")]
    Character(usize),
    /// A key in it cannot belong to any node.
    #[error("the public identity contains an invalid key")]
    Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_seeds_share_no_key() {
        let (a, b) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        assert_ne!(a.public().x25519(), b.public().x25519());
        assert_ne!(a.public().ed25519(), b.public().ed25519());
        assert_ne!(a.node_id(), b.node_id());
    }

    #[test]
    fn only_the_signer_and_the_message_verify() {
        let (a, b) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let signature = a.sign(b"for a test");
        assert!(a.public().verify(b"for a test", &signature));
        assert!(!a.public().verify(b"for a text", &signature));
        assert!(!b.public().verify(b"for a test", &signature));
    }

    #[test]
    fn debug_has_no_secret() {
        let seed = [0x5a; 32];
        let text = format!("{:?}", Identity::from_seed(&seed));
        assert!(text.contains("[redacted]"), "{text}");
        assert!(text.len() < 120, "{text}");
    }

    #[test]
    fn bad_text_names_what_is_wrong() {
        let good = Identity::from_seed(&[3; 32]).public().to_string();
        assert_eq!(good[1..].parse::<PublicIdentity>(), Err(ParseIdentityError::Length(85)));
        let mut bad = good.clone();
        bad.replace_range(4..5, "*");
        assert_eq!(bad.parse::<PublicIdentity>(), Err(ParseIdentityError::Character(4)));
        // 86 characters carry 516 bits. The four extra bits must be zero, or one key would have 16 spellings.
        let mut loose = good;
        loose.replace_range(85..86, "_");
        assert_eq!(loose.parse::<PublicIdentity>(), Err(ParseIdentityError::Character(85)));
    }

    #[test]
    fn keys_that_prove_nothing_are_refused() {
        let good = Identity::from_seed(&[3; 32]).public().to_bytes();
        let mut zero_x25519 = good;
        zero_x25519[..32].fill(0);
        assert_eq!(PublicIdentity::from_bytes(&zero_x25519), Err(ParseIdentityError::Key));
        // The Ed25519 identity element, encoded as y = 1.
        let mut weak_ed25519 = good;
        weak_ed25519[32..].fill(0);
        weak_ed25519[32] = 1;
        assert_eq!(PublicIdentity::from_bytes(&weak_ed25519), Err(ParseIdentityError::Key));
    }
}
