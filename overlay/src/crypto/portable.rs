use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use super::{AeadError, AeadKey, NonceKey, Provider, Suite, SuiteSet, TAG, split_tag};

/// ChaCha20-Poly1305 in plain Rust, for every target. Slower than [`AwsLc`](crate::AwsLc).
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl Provider for Portable {
    fn suites(&self) -> SuiteSet {
        SuiteSet::CHACHA20_POLY1305
    }

    fn key(&self, suite: Suite, key: &[u8; 32]) -> Option<Box<dyn AeadKey>> {
        match suite {
            Suite::Aes256Gcm => None,
            Suite::ChaCha20Poly1305 => Some(Box::new(Key::new(key))),
        }
    }
}

pub(super) struct Key(ChaCha20Poly1305);

impl Key {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }
}

impl AeadKey for Key {
    fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        self.seal_with(Suite::ChaCha20Poly1305.nonce(counter), &[], plaintext, out);
    }

    fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError> {
        self.open_with(Suite::ChaCha20Poly1305.nonce(counter), &[], sealed, out)
    }
}

impl NonceKey for Key {
    fn seal_with(&self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        assert_eq!(out.len(), plaintext.len() + TAG, "room for the ciphertext and its tag");
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        let buffer = InOutBuf::new(plaintext, ciphertext).expect("equal lengths");
        let made = self
            .0
            .encrypt_inout_detached(&nonce.into(), aad, buffer)
            .expect("sealing fails only beyond 256 GiB");
        tag.copy_from_slice(&made);
    }

    fn open_with(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError> {
        let (ciphertext, tag) = split_tag(sealed)?;
        let buffer = InOutBuf::new(ciphertext, out).expect("room for exactly the plaintext");
        self.0.decrypt_inout_detached(&nonce.into(), aad, buffer, tag.into()).map_err(|_| AeadError)
    }
}
