//! Sealing: every stored value has 640 bytes that only members can read.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};

use crate::keys::keyed;

/// Length of the plaintext in bytes, including zeros at the end. It is constant, so that lengths reveal
/// nothing.
pub const PLAIN_LEN: usize = 600;

/// Length of a stored value in bytes: nonce, ciphertext, tag.
///
/// Its bencoding has 644 bytes; BEP 44 allows 1000.
pub const SEALED_LEN: usize = NONCE + PLAIN_LEN + TAG;

const NONCE: usize = 24;
const TAG: usize = 16;

/// Seals a plaintext for the place `public`, with 32 random bytes.
pub(crate) fn seal(
    key: &[u8; 32],
    public: &[u8; 32],
    plain: &[u8; PLAIN_LEN],
    random: &[u8; 32],
) -> [u8; SEALED_LEN] {
    // The nonce depends on the plaintext too. If the randomness repeats, as in a cloned machine, the nonce
    // still differs.
    let nonce = keyed(key, b"peersock dht nonce v1", &[random, public, plain]);
    let mut out = [0; SEALED_LEN];
    out[..NONCE].copy_from_slice(&nonce[..NONCE]);
    out[NONCE..NONCE + PLAIN_LEN].copy_from_slice(plain);
    let (head, tail) = out.split_at_mut(NONCE);
    let (text, tag) = tail.split_at_mut(PLAIN_LEN);
    let nonce: &[u8; NONCE] = (&*head).try_into().expect("split there");
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(nonce.into(), public, InOutBuf::from(text))
        .expect("600 bytes are no limit");
    tag.copy_from_slice(&sealed);
    out
}

/// Opens a value that [`seal`] made for that place, or returns `None`.
pub(crate) fn open(key: &[u8; 32], public: &[u8; 32], sealed: &[u8]) -> Option<[u8; PLAIN_LEN]> {
    let sealed: &[u8; SEALED_LEN] = sealed.try_into().ok()?;
    let nonce: &[u8; NONCE] = sealed.first_chunk()?;
    let tag: &[u8; TAG] = sealed.last_chunk()?;
    let mut plain: [u8; PLAIN_LEN] = sealed[NONCE..NONCE + PLAIN_LEN].try_into().ok()?;
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(nonce.into(), public, InOutBuf::from(&mut plain[..]), tag.into())
        .ok()?;
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_and_the_place_open_it() {
        let plain = [5; PLAIN_LEN];
        let sealed = seal(&[1; 32], &[2; 32], &plain, &[3; 32]);
        assert_eq!(open(&[1; 32], &[2; 32], &sealed), Some(plain));
        assert_eq!(open(&[9; 32], &[2; 32], &sealed), None);
        assert_eq!(open(&[1; 32], &[9; 32], &sealed), None);
        assert_eq!(open(&[1; 32], &[2; 32], &sealed[1..]), None);
        assert_eq!(open(&[1; 32], &[2; 32], &[]), None);
        for at in [0, NONCE, SEALED_LEN - 1] {
            let mut bad = sealed;
            bad[at] ^= 1;
            assert_eq!(open(&[1; 32], &[2; 32], &bad), None, "byte {at}");
        }
    }

    #[test]
    fn another_plaintext_has_another_nonce_even_with_the_same_randomness() {
        let one = seal(&[1; 32], &[2; 32], &[5; PLAIN_LEN], &[3; 32]);
        let two = seal(&[1; 32], &[2; 32], &[6; PLAIN_LEN], &[3; 32]);
        assert_ne!(one[..NONCE], two[..NONCE]);
    }
}
