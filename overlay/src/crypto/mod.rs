//! The ciphers of the data packets, behind one small trait, and BLAKE2s.
//!
//! A [`Provider`] makes keys, and an [`AeadKey`] seals and opens. The handshake does not use them, because
//! its cipher is fixed.

#[cfg(feature = "aws-lc")]
mod aws_lc;
pub(crate) mod hash;
mod keys;
mod portable;
mod restricted;
mod suite;
#[cfg(test)]
mod tests;

#[cfg(feature = "aws-lc")]
pub use aws_lc::AwsLc;
pub use keys::{EntropySource, KeySource, NoEntropy};
pub use portable::Portable;
pub use restricted::Restricted;
pub use suite::{Suite, SuiteSet};

use std::sync::Arc;

use thiserror::Error;

/// Length of the authentication tag of every suite, in bytes.
pub(crate) const TAG: usize = 16;

/// Key of a data suite for one direction.
///
/// Both calls write to a separate buffer, so that moving a packet between buffers costs no copy besides the
/// cipher's own pass. There is no associated data.
///
/// ```
/// use peersock_overlay::{Portable, Provider, Suite};
///
/// let key = Portable.key(Suite::ChaCha20Poly1305, &[1; 32]).expect("always has it");
/// let mut sealed = [0; 5 + 16];
/// key.seal(0, b"hello", &mut sealed);
/// let mut opened = [0; 5];
/// key.open(0, &sealed, &mut opened)?;
/// assert_eq!(&opened, b"hello");
/// assert!(key.open(1, &sealed, &mut opened).is_err());
/// # Ok::<(), peersock_overlay::AeadError>(())
/// ```
pub trait AeadKey: Send + Sync {
    /// Encrypts `plaintext` and appends the tag. A counter must never be used twice with one key.
    ///
    /// # Panics
    /// Panics if `out` is not exactly 16 bytes longer than `plaintext`.
    fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]);

    /// Authenticates and decrypts.
    ///
    /// # Errors
    /// Returns an error if `sealed` was not made by the same key and counter, or is shorter than 16 bytes.
    /// The content of `out` is then unspecified.
    ///
    /// # Panics
    /// Panics if `out` is not exactly 16 bytes shorter than `sealed`.
    fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError>;
}

/// Implementation of data suites; see [`default_provider`].
pub trait Provider: Send + Sync {
    /// Returns its suites, and whether AES is fast.
    fn suites(&self) -> SuiteSet;

    /// Returns a key, or `None` for a missing suite. The caller erases its copy.
    fn key(&self, suite: Suite, key: &[u8; 32]) -> Option<Box<dyn AeadKey>>;
}

/// Returns the fastest compiled-in provider: [`AwsLc`] with the feature `aws-lc`, else [`Portable`].
pub fn default_provider() -> Arc<dyn Provider> {
    #[cfg(feature = "aws-lc")]
    return Arc::new(AwsLc);
    #[cfg(not(feature = "aws-lc"))]
    return Arc::new(Portable);
}

/// Error of a packet that is not authentic. It gives no detail, so that an attacker learns nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the packet is not authentic")]
pub struct AeadError;

/// Cipher below an [`AeadKey`], with any nonce and associated data, as published test vectors need.
trait NonceKey {
    /// Like [`AeadKey::seal`].
    fn seal_with(&self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8], out: &mut [u8]);

    /// Like [`AeadKey::open`].
    fn open_with(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError>;
}

/// Splits the tag off.
fn split_tag(sealed: &[u8]) -> Result<(&[u8], &[u8; TAG]), AeadError> {
    sealed.split_last_chunk().ok_or(AeadError)
}
