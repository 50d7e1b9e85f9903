use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Pre-shared key of a network: 32 bytes that every member mixes into its handshakes.
///
/// It is uniformly random, or a passphrase already stretched by a password hash. Erased on drop, compared in
/// constant time, and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Psk {
    /// Creates a key from its bytes.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Returns the key of an open network: 32 zero bytes.
    pub const fn open() -> Self {
        Self([0; 32])
    }

    /// Returns the key itself, for mixing it in, or for another process of this user.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Psk {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Psk {}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk([redacted])")
    }
}
