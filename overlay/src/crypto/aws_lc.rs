use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{AeadError, AeadKey, NonceKey, Provider, Suite, SuiteSet, TAG, split_tag};

/// Both suites from AWS-LC, in assembly. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl Provider for AwsLc {
    fn suites(&self) -> SuiteSet {
        let both = SuiteSet::AES_256_GCM | SuiteSet::CHACHA20_POLY1305;
        // AES without instructions is slower than ChaCha20, and its tables show the key to cache timing.
        if has_fast_aes() { both | SuiteSet::FAST_AES } else { both }
    }

    fn key(&self, suite: Suite, key: &[u8; 32]) -> Option<Box<dyn AeadKey>> {
        Some(Box::new(Key::new(suite, key)?))
    }
}

pub(super) struct Key {
    suite: Suite,
    key: LessSafeKey,
}

impl Key {
    pub(super) fn new(suite: Suite, key: &[u8; 32]) -> Option<Self> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        Some(Self { suite, key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?) })
    }
}

impl AeadKey for Key {
    fn seal(&self, counter: u64, plaintext: &[u8], out: &mut [u8]) {
        self.seal_with(self.suite.nonce(counter), &[], plaintext, out);
    }

    fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError> {
        self.open_with(self.suite.nonce(counter), &[], sealed, out)
    }
}

impl NonceKey for Key {
    fn seal_with(&self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        assert_eq!(out.len(), plaintext.len() + TAG, "room for the ciphertext and its tag");
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        // `LessSafeKey` leaves nonces to its caller. Here they are counters, which a session never repeats.
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(aad), plaintext, ciphertext, &[], tag)
            .expect("sealing fails only on wrong lengths");
    }

    fn open_with(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), AeadError> {
        let (ciphertext, tag) = split_tag(sealed)?;
        assert_eq!(out.len(), ciphertext.len(), "room for exactly the plaintext");
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out).map_err(|_| AeadError)
    }
}

/// Returns true if the processor has the instructions that make AES-GCM the faster suite.
fn has_fast_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
