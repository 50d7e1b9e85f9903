//! BLAKE2s in the three forms the protocol uses: plain, keyed and as HMAC.

use blake2::digest::consts::{U16, U32};
use blake2::digest::{Digest, FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use zeroize::Zeroize;

/// Returns BLAKE2s-256 of the concatenated `parts` (RFC 7693).
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    state.finalize().into()
}

/// Returns keyed BLAKE2s with 32 bytes of output over the concatenated `parts`.
pub(crate) fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2sMac::<U32>::new(key.into());
    for part in parts {
        state.update(part);
    }
    state.finalize_fixed().into()
}

/// Returns keyed BLAKE2s with 16 bytes of output over the concatenated `parts`.
pub(crate) fn mac16(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // Keys are 16 bytes (cookies) or 32 (everything else); 32 is the limit of BLAKE2s.
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("a BLAKE2s key has at most 32 bytes");
    for part in parts {
        state.update(part);
    }
    state.finalize_fixed().into()
}

/// Returns HMAC-BLAKE2s (RFC 2104), which Noise uses instead of BLAKE2's own keyed mode.
pub(crate) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut pad = [0x36; BLOCK];
    pad.iter_mut().zip(key).for_each(|(p, k)| *p ^= k);
    let mut inner = Blake2s256::new();
    Digest::update(&mut inner, pad);
    for part in parts {
        Digest::update(&mut inner, part);
    }
    // Converts the inner pad to the outer one.
    pad.iter_mut().for_each(|p| *p ^= 0x36 ^ 0x5c);
    let outer = hash(&[&pad, &inner.finalize()]);
    pad.zeroize();
    outer
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn blake2s_matches_rfc_7693() {
        // RFC 7693, appendix B.
        let expected = hex!("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
        assert_eq!(hash(&[b"abc"]), expected);
        assert_eq!(hash(&[b"a", b"", b"bc"]), expected);
    }

    #[test]
    fn keyed_blake2s_matches_the_reference_vectors() {
        // BLAKE2 reference package, blake2s-kat.txt: key 00..1f, empty input and input 00.
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(
            keyed(&key, &[]),
            hex!("48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49")
        );
        assert_eq!(
            keyed(&key, &[&[0]]),
            hex!("40d15fee7c328830166ac3f918650f807e7e01e177258cdc0a39b11f598066f1")
        );
    }

    #[test]
    fn mac16_is_not_a_truncated_mac32() {
        // The output length is part of BLAKE2's parameter block.
        assert_ne!(mac16(&[7; 32], &[b"x"]), keyed(&[7; 32], &[b"x"])[..16]);
    }
}
