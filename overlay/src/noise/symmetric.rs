use std::fmt;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::{Suite, TAG, hash};

/// Full protocol name. It is longer than a hash, so its hash replaces it (Noise, section 5.2).
const PROTOCOL: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// Noise's SymmetricState, with its CipherState (Noise, sections 5.1 and 5.2).
///
/// In IKpsk2 there is a key from the first token on, so nothing is ever "encrypted" without one.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Symmetric {
    chaining_key: [u8; 32],
    hash: [u8; 32],
    key: [u8; 32],
    nonce: u64,
}

impl Symmetric {
    /// Performs InitializeSymmetric, MixHash(prologue) and MixHash of the pre-message `<- s`.
    pub(super) fn new(prologue: &[u8], responder: &[u8; 32]) -> Self {
        let name = hash::hash(&[PROTOCOL]);
        let mut state = Self { chaining_key: name, hash: name, key: [0; 32], nonce: 0 };
        state.mix_hash(prologue);
        state.mix_hash(responder);
        state
    }

    /// Performs MixHash(data).
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash::hash(&[&self.hash, data]);
    }

    /// Processes the token `e` in a handshake with a pre-shared key (Noise, section 9.2).
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    /// Processes the tokens `es`, `ss`, `ee` and `se`: MixKey(DH(secret, public)).
    pub(super) fn mix_dh(&mut self, secret: &StaticSecret, public: &[u8; 32]) -> Result<(), Unauthentic> {
        let shared = secret.diffie_hellman(&PublicKey::from(*public));
        // An all-zero result means that the other key is of low order, and the result no secret.
        if !shared.was_contributory() {
            return Err(Unauthentic);
        }
        self.mix_key(shared.as_bytes());
        Ok(())
    }

    /// Processes the token `psk`: MixKeyAndHash(psk).
    pub(super) fn mix_psk(&mut self, psk: &[u8; 32]) {
        let output = self.hkdf(psk);
        self.chaining_key = output[0];
        self.mix_hash(&output[1]);
        // Section 5.2: the key follows from the pre-shared one as well, so without it nothing further can be
        // read.
        self.set_key(&output[2]);
    }

    /// Performs EncryptAndHash: appends the ciphertext and its tag to `out`.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plaintext);
        let nonce = self.next_nonce();
        let tag = ChaCha20Poly1305::new((&self.key).into())
            // The transcript so far is the associated data, so a message fails if any earlier byte was
            // altered.
            .encrypt_inout_detached(&nonce.into(), &self.hash, (&mut out[start..]).into())
            .expect("sealing fails only beyond 256 GiB");
        out.extend_from_slice(&tag);
        self.mix_hash(&out[start..]);
    }

    /// Performs DecryptAndHash. `out` is 16 bytes shorter than `sealed`.
    pub(super) fn decrypt(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<(), Unauthentic> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(Unauthentic)?;
        let buffer = InOutBuf::new(ciphertext, out).map_err(|_| Unauthentic)?;
        let nonce = self.next_nonce();
        ChaCha20Poly1305::new((&self.key).into())
            .decrypt_inout_detached(&nonce.into(), &self.hash, buffer, tag.into())
            .map_err(|_| Unauthentic)?;
        self.mix_hash(sealed);
        Ok(())
    }

    /// Performs Split, with the handshake hash.
    pub(super) fn split(&self) -> Split {
        let output = self.hkdf(&[]);
        Split { initiator: output[0], responder: output[1], hash: self.hash }
    }

    /// Returns a key for other uses than the handshake's own messages, bound to everything mixed in so far.
    /// Also returns the transcript's hash, which serves as its associated data.
    pub(super) fn derive(&self, label: &[u8]) -> (Zeroizing<[u8; 32]>, &[u8; 32]) {
        // Only the two sides know the chaining key, and the label keeps this key apart from Noise's.
        (Zeroizing::new(hash::keyed(&self.chaining_key, &[label])), &self.hash)
    }

    fn mix_key(&mut self, input: &[u8]) {
        let output = self.hkdf(input);
        self.chaining_key = output[0];
        self.set_key(&output[1]);
    }

    fn set_key(&mut self, key: &[u8; 32]) {
        self.key = *key;
        self.nonce = 0;
    }

    fn next_nonce(&mut self) -> [u8; 12] {
        let nonce = Suite::ChaCha20Poly1305.nonce(self.nonce);
        self.nonce += 1;
        nonce
    }

    /// Returns HKDF(chaining_key, input, 3); its first two outputs equal HKDF(.., 2) (Noise, section 4.3).
    fn hkdf(&self, input: &[u8]) -> Zeroizing<[[u8; 32]; 3]> {
        let temp = Zeroizing::new(hash::hmac(&self.chaining_key, &[input]));
        let mut output = Zeroizing::new([[0; 32]; 3]);
        output[0] = hash::hmac(&temp, &[&[1]]);
        output[1] = hash::hmac(&temp, &[&output[0], &[2]]);
        output[2] = hash::hmac(&temp, &[&output[1], &[3]]);
        output
    }
}

/// Result of a finished Noise handshake. Erased on drop, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Split {
    /// Key for packets that the initiator sends.
    pub(super) initiator: [u8; 32],
    /// Key for packets that the responder sends.
    pub(super) responder: [u8; 32],
    /// Handshake hash: the same on both sides, and unique to this handshake.
    pub(super) hash: [u8; 32],
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Split([redacted])")
    }
}

/// A handshake message that is not authentic, or whose sender used an invalid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the handshake message is not authentic")]
pub(super) struct Unauthentic;
