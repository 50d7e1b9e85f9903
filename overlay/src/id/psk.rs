use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A network's pre-shared key: 32 bytes that every member mixes into its handshakes.
///
/// It is uniformly random, or a passphrase already stretched by a password hash. Erased on drop, compared in
/// constant time, and never printed.
///
/// ```
/// use peersock_overlay::Psk;
///
/// let psk = Psk::new([9; 32]);
/// assert_eq!(format!("{psk:?}"), "Psk([redacted])");
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Psk {
    /// Takes the key.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// What an open network uses: 32 zero bytes.
    pub const fn open() -> Self {
        Self([0; 32])
    }

    /// The key itself, to mix it in.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
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
