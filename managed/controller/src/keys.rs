//! Secrets of a controller: what it derives from its identity's seed, and the network key.

use std::fmt;
use std::str::FromStr;

use bip39::{Language, Mnemonic};
use blake2::Blake2sMac;
use blake2::digest::consts::U32;
use blake2::digest::{FixedOutput, Update};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use peersock_overlay::membership::{Code, NetworkSecret};
use peersock_overlay::{Identity, NodeId};
use rand::CryptoRng;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const SEAL_LABEL: &[u8] = b"peersock controller seal v1";
const CODE_LABEL: &[u8] = b"peersock approval code v1";
const NETWORK_LABEL: &[u8] = b"peersock network key v1";

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2sMac::<U32>::new(key.into());
    parts.iter().for_each(|part| state.update(part));
    state.finalize_fixed().into()
}

/// Keys that follow from the seed of the controller's identity. Erased on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Keys {
    seal: [u8; 32],
    code: [u8; 32],
}

impl Keys {
    /// Derives the keys and the identity.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> (Self, Identity) {
        let keys = Self { seal: keyed(seed, &[SEAL_LABEL]), code: keyed(seed, &[CODE_LABEL]) };
        (keys, Identity::from_seed(seed))
    }

    /// Returns the code of a node: always the same one. Without the key no attacker finds node keys for a
    /// code.
    pub(crate) fn code(&self, node: &NodeId, attempt: u32) -> Code {
        let hash = keyed(&self.code, &[node.as_bytes(), &attempt.to_be_bytes()]);
        Code::from_bits(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }

    /// Encrypts the entropy of a network key for the store.
    pub(crate) fn seal(&self, words: &RecoveryWords, rng: &mut dyn CryptoRng) -> Vec<u8> {
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let cipher = XChaCha20Poly1305::new(&self.seal.into());
        let payload = Payload { msg: &words.0, aad: SEAL_LABEL };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        [nonce.as_slice(), &sealed].concat()
    }

    /// Decrypts what [`Self::seal`] has encrypted. `None` if another identity has sealed it.
    pub(crate) fn unseal(&self, sealed: &[u8]) -> Option<RecoveryWords> {
        let (nonce, sealed) = sealed.split_first_chunk::<24>()?;
        let cipher = XChaCha20Poly1305::new(&self.seal.into());
        let payload = Payload { msg: sealed, aad: SEAL_LABEL };
        let opened = Zeroizing::new(cipher.decrypt(&XNonce::from(*nonce), payload).ok()?);
        Some(RecoveryWords(opened.as_slice().try_into().ok()?))
    }
}

/// Secret of a network on paper: 16 random bytes, shown as 12 English words (BIP 39) with a checksum. It is
/// erased on drop; `Debug` does not print it, and `Display` does.
///
/// The holder of the words controls the network, because they make issuers of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryWords([u8; 16]);

impl RecoveryWords {
    /// Draws new words.
    pub fn draw(rng: &mut dyn CryptoRng) -> Self {
        let mut entropy = [0; 16];
        rng.fill_bytes(&mut entropy);
        Self(entropy)
    }

    /// Returns the network key that follows from the words.
    pub fn secret(&self) -> NetworkSecret {
        // The label is the key, because the entropy is shorter than one.
        let mut label = [0; 32];
        label[..NETWORK_LABEL.len()].copy_from_slice(NETWORK_LABEL);
        NetworkSecret::from_seed(&Zeroizing::new(keyed(&label, &[&self.0])))
    }
}

impl fmt::Display for RecoveryWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Mnemonic::from_entropy_in(Language::English, &self.0).map_err(|_| fmt::Error)?;
        for (at, word) in words.words().enumerate() {
            write!(f, "{}{word}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RecoveryWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryWords([redacted])")
    }
}

impl FromStr for RecoveryWords {
    type Err = ParseWordsError;

    /// Reads words as people type them: in any case, with any white space between.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = Zeroizing::new(text.to_ascii_lowercase());
        let found: Vec<&str> = text.split_whitespace().collect();
        if found.len() != 12 {
            return Err(ParseWordsError::Count(found.len()));
        }
        let known = Language::English;
        if let Some(at) = found.iter().position(|word| known.find_word(word).is_none()) {
            return Err(ParseWordsError::Word(at + 1));
        }
        let joined = Zeroizing::new(found.join(" "));
        let mut words =
            Mnemonic::parse_in_normalized(known, &joined).map_err(|_| ParseWordsError::Checksum)?;
        let (mut entropy, _) = words.to_entropy_array();
        let read = entropy.first_chunk().copied().map(Self).ok_or(ParseWordsError::Checksum);
        entropy.zeroize();
        words.zeroize();
        read
    }
}

/// Reason why a text is no recovery words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseWordsError {
    /// The text has this many words instead of 12.
    #[error("there are 12 recovery words, these are {0}")]
    Count(usize),
    /// The word with this number, from 1 on, is not in the list.
    #[error("word {0} is none of the list")]
    Word(usize),
    /// A word is another one of the list, or two have changed places.
    #[error("the words do not belong together: one is wrong, or in another place")]
    Checksum,
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;

    #[test]
    fn words_are_read_as_they_are_shown() {
        // BIP 39's own test vectors.
        let first = format!("{}about", "abandon ".repeat(11));
        assert_eq!(RecoveryWords([0; 16]).to_string(), first);
        assert_eq!(RecoveryWords([0xff; 16]).to_string(), format!("{}wrong", "zoo ".repeat(11)));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let words = RecoveryWords::draw(&mut rng);
        let typed = format!("  {} ", words.to_string().to_uppercase().replace(' ', "\n  "));
        assert_eq!(typed.parse::<RecoveryWords>().map(|read| read.0), Ok(words.0));
        assert!(!format!("{words:?}").contains(' '));
        assert_eq!("zoo".parse::<RecoveryWords>().err(), Some(ParseWordsError::Count(1)));
        let wrong = first.replace("about", "abuot");
        assert_eq!(wrong.parse::<RecoveryWords>().err(), Some(ParseWordsError::Word(12)));
        let wrong = first.replace("about", "zoo");
        assert_eq!(wrong.parse::<RecoveryWords>().err(), Some(ParseWordsError::Checksum));
    }

    #[test]
    fn sealed_words_open_with_the_same_identity_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let words = RecoveryWords::draw(&mut rng);
        let (keys, _) = Keys::from_seed(&[1; 32]);
        let (others, _) = Keys::from_seed(&[2; 32]);
        let sealed = keys.seal(&words, &mut rng);
        assert_eq!(keys.unseal(&sealed).map(|opened| opened.0), Some(words.0));
        assert!(others.unseal(&sealed).is_none());
        assert!(keys.unseal(&sealed[..sealed.len() - 1]).is_none() && keys.unseal(&[]).is_none());
        assert!(!sealed.windows(8).any(|window| words.0.starts_with(window)));
    }
}
