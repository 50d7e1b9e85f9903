//! Each cipher against Project Wycheproof's vectors, and the providers against each other.

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
#[cfg(feature = "aws-lc")]
use proptest::prelude::*;
use wycheproof::aead::{TestGroup, TestName, TestSet};

use super::*;

#[test]
fn portable_chacha20_poly1305_passes_wycheproof() {
    let run = check_wycheproof(TestName::ChaCha20Poly1305, portable::Key::new);
    assert!(run > 250, "only {run} vectors ran");
}

#[cfg(feature = "aws-lc")]
#[test]
fn aws_lc_passes_wycheproof() {
    for (name, suite) in
        [(TestName::AesGcm, Suite::Aes256Gcm), (TestName::ChaCha20Poly1305, Suite::ChaCha20Poly1305)]
    {
        let run = check_wycheproof(name, |key| aws_lc::Key::new(suite, key).expect("has both suites"));
        assert!(run > 60, "only {run} vectors of {suite} ran");
    }
}

// The cipher of hellos and cookies.
#[test]
fn xchacha20_poly1305_passes_wycheproof() {
    let mut run = 0;
    for group in groups(TestName::XChaCha20Poly1305, 192) {
        for test in &group.tests {
            let key: &[u8; 32] = test.key[..].try_into().expect("a 256-bit key");
            let nonce: &[u8; 24] = test.nonce[..].try_into().expect("a 192-bit nonce");
            let tag: &[u8; TAG] = test.tag[..].try_into().expect("a 128-bit tag");
            let mut text = test.ct.to_vec();
            let result = XChaCha20Poly1305::new(key.into()).decrypt_inout_detached(
                nonce.into(),
                &test.aad,
                (&mut text[..]).into(),
                tag.into(),
            );
            assert_eq!(result.is_ok(), !test.result.must_fail(), "test {}: {}", test.tc_id, test.comment);
            assert!(test.result.must_fail() || text == test.pt[..], "test {}", test.tc_id);
            run += 1;
        }
    }
    assert!(run > 250, "only {run} vectors ran");
}

#[cfg(feature = "aws-lc")]
proptest! {
    #[test]
    fn providers_open_what_the_other_sealed(
        key: [u8; 32], counter: u64, plaintext in prop::collection::vec(any::<u8>(), 0..3000)
    ) {
        let suite = Suite::ChaCha20Poly1305;
        let keys = [&AwsLc as &dyn Provider, &Portable].map(|p| p.key(suite, &key).expect("both have it"));
        for (one, other) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])] {
            let mut sealed = vec![0; plaintext.len() + TAG];
            one.seal(counter, &plaintext, &mut sealed);
            let mut opened = vec![0; plaintext.len()];
            prop_assert_eq!(other.open(counter, &sealed, &mut opened), Ok(()));
            prop_assert_eq!(&opened, &plaintext);
        }
    }
}

#[test]
fn any_flipped_bit_and_any_other_counter_is_refused() {
    let provider = default_provider();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().filter(|s| provider.suites().has(*s))
    {
        let key = provider.key(suite, &[3; 32]).expect("it says it has it");
        let mut sealed = [0; 20 + TAG];
        key.seal(7, &[5; 20], &mut sealed);
        let mut out = [0; 20];
        assert_eq!(key.open(7, &sealed, &mut out), Ok(()));
        assert_eq!(key.open(8, &sealed, &mut out), Err(AeadError));
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(7, &sealed, &mut out), Err(AeadError), "{suite}, bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(key.open(7, &sealed[..TAG - 1], &mut []), Err(AeadError));
    }
}

/// Runs all vectors with 256-bit keys, 96-bit nonces and 128-bit tags, and returns their number.
fn check_wycheproof<K: NonceKey>(name: TestName, make: impl Fn(&[u8; 32]) -> K) -> usize {
    let mut run = 0;
    for group in groups(name, 96) {
        for test in &group.tests {
            let context = format!("{name:?} test {}: {}", test.tc_id, test.comment);
            let key = make(test.key[..].try_into().expect("a 256-bit key"));
            let nonce: [u8; 12] = test.nonce[..].try_into().expect("a 96-bit nonce");
            let sealed = [&test.ct[..], &test.tag[..]].concat();

            let mut opened = vec![0; test.ct.len()];
            let result = key.open_with(nonce, &test.aad, &sealed, &mut opened);
            if test.result.must_fail() {
                assert_eq!(result, Err(AeadError), "{context}");
            } else {
                assert_eq!(result, Ok(()), "{context}");
                assert_eq!(opened, test.pt[..], "{context}");
                let mut made = vec![0; sealed.len()];
                key.seal_with(nonce, &test.aad, &test.pt, &mut made);
                assert_eq!(made, sealed, "{context}");
            }
            run += 1;
        }
    }
    run
}

fn groups(name: TestName, nonce_bits: usize) -> impl Iterator<Item = TestGroup> {
    let set = TestSet::load(name).expect("the package contains its own vectors");
    set.test_groups
        .into_iter()
        .filter(move |group| (group.key_size, group.nonce_size, group.tag_size) == (256, nonce_bits, TAG * 8))
}
