//! The ciphers of the data packets, behind one small trait, and BLAKE2s.
//!
//! A [`Provider`] makes keys, an [`AeadKey`] seals and opens. The handshake does not use them: it has one
//! fixed cipher of its own.

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

/// One direction's key of a data suite.
///
/// Both calls are out of place, so that moving a packet from one buffer to another costs no copy besides the
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
    /// If `out` is not exactly 16 bytes longer than `plaintext`.
    fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]);

    /// Authenticates and decrypts.
    ///
    /// # Errors
    /// If `sealed` was not made by the same key and counter, or is shorter than 16 bytes. What `out` then
    /// holds is unspecified.
    ///
    /// # Panics
    /// If `out` is not exactly 16 bytes shorter than `sealed`.
    fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError>;
}

/// An implementation of data suites; see [`default_provider`].
pub trait Provider: Send + Sync {
    /// The suites it has, and whether AES is fast.
    fn suites(&self) -> SuiteSet;

    /// Makes a key, or `None` for a suite that it lacks. The caller erases its copy.
    fn key(&self, suite: Suite, key: &[u8; 32]) -> Option<Box<dyn AeadKey>>;
}

/// The fastest provider that is compiled in: [`AwsLc`] with the feature `aws-lc`, else [`Portable`].
pub fn default_provider() -> Arc<dyn Provider> {
    #[cfg(feature = "aws-lc")]
    return Arc::new(AwsLc);
    #[cfg(not(feature = "aws-lc"))]
    return Arc::new(Portable);
}

/// A packet that is not authentic. It says no more, so that nobody learns more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the packet is not authentic")]
pub struct AeadError;

/// The cipher below an [`AeadKey`], with any nonce and associated data, as published test vectors need it.
trait NonceKey {
    /// Like [`AeadKey::seal`].
    fn seal_with(&self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8], out: &mut [u8]);

    /// Like [`AeadKey::open`].
    fn open_with(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError>;
}

/// Cuts the tag off.
fn split_tag(sealed: &[u8]) -> Result<(&[u8], &[u8; TAG]), AeadError> {
    sealed.split_last_chunk().ok_or(AeadError)
}
