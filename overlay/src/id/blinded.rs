use std::fmt;

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::Sha512;

use super::{Identity, PublicIdentity};
use crate::crypto::hash;

const NONCE_LABEL: &[u8] = b"peersock blinded nonce v1";

/// Ed25519 key of an identity multiplied by a factor, as in version 3 of Tor's onion services.
///
/// Only the identity's owner can sign with it. With the factor, anyone can compute the public key from the
/// identity ([`PublicIdentity::blinded`]). Without it, the key shows neither its identity nor whether two
/// keys belong to one identity. Signatures are ordinary Ed25519 (RFC 8032). Erased on drop, never printed.
pub struct BlindedKey {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
}

impl BlindedKey {
    pub(super) fn new(secret: ExpandedSecretKey, factor: &[u8; 32]) -> Self {
        let scalar = secret.scalar * Scalar::from_bytes_mod_order(clamp_integer(*factor));
        // Another key needs other nonces, because one nonce under two keys would reveal both secrets.
        let hash_prefix = hash::keyed(&secret.hash_prefix, &[NONCE_LABEL, factor]);
        let secret = ExpandedSecretKey { scalar, hash_prefix };
        Self { public: VerifyingKey::from(&secret), secret }
    }

    /// Returns the public key.
    pub fn public(&self) -> &[u8; 32] {
        self.public.as_bytes()
    }

    /// Signs a message as RFC 8032 specifies.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        raw_sign::<Sha512>(&self.secret, message, &self.public).to_bytes()
    }
}

impl fmt::Debug for BlindedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindedKey([redacted])")
    }
}

impl Identity {
    /// Returns the Ed25519 key multiplied by `factor`. `factor` is 32 bytes derived from a secret of the
    /// nodes that may compute the public half.
    pub fn blinded(&self, factor: &[u8; 32]) -> BlindedKey {
        BlindedKey::new(self.expanded_ed25519(), factor)
    }
}

impl PublicIdentity {
    /// Returns the public half of [`Identity::blinded`] with the same factor.
    pub fn blinded(&self, factor: &[u8; 32]) -> [u8; 32] {
        let key = VerifyingKey::from_bytes(self.ed25519()).expect("an identity's key is a curve point");
        // The clamped factor is a multiple of 8, so the result has prime order whatever the key was.
        key.to_edwards().mul_clamped(*factor).compress().to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signature;

    use super::*;

    fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(public).expect("a curve point");
        key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    #[test]
    fn both_halves_agree_for_any_factor() {
        for i in 0..32 {
            let node = Identity::from_seed(&[i; 32]);
            let factor = hash::hash(&[b"factor", &[i]]);
            let blinded = node.blinded(&factor);
            assert_eq!(blinded.public(), &node.public().blinded(&factor));
            assert!(verify(blinded.public(), b"text", &blinded.sign(b"text")));
        }
    }

    #[test]
    fn signatures_fit_one_key_and_one_message() {
        let (node, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let (one, two) = (node.blinded(&[8; 32]), node.blinded(&[9; 32]));
        let signature = one.sign(b"text");
        assert!(!verify(one.public(), b"test", &signature));
        assert!(!verify(two.public(), b"text", &signature));
        assert!(!verify(other.blinded(&[8; 32]).public(), b"text", &signature));
        assert!(!verify(node.public().ed25519(), b"text", &signature));
        // R, the first half, is the public form of the nonce.
        assert_ne!(signature[..32], two.sign(b"text")[..32]);
    }

    #[test]
    fn debug_has_no_secret() {
        let key = Identity::from_seed(&[1; 32]).blinded(&[8; 32]);
        assert_eq!(format!("{key:?}"), "BlindedKey([redacted])");
    }
}
