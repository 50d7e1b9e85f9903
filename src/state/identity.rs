//! Text form of an identity on disk.
//!
//! ```text
//! # Anyone who can read this file can act as this node. Keep it secret; keep a backup.
//! peersock-identity 1 4f0c…(64 hexadecimal digits)
//! ```
//!
//! The number is the version of the form. Empty lines and lines that begin with `#` are skipped.

use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use zeroize::Zeroizing;

use super::StateError;

const COMMENT: &str =
    "# Anyone who can read this file can act as this node. Keep it secret; keep a backup.\n";
const MAGIC: &str = "peersock-identity";
const VERSION: u32 = 1;

/// Secret seed of a node; wiped from memory when dropped.
pub(super) type Seed = Zeroizing<[u8; 32]>;

pub(super) fn generate() -> std::io::Result<Seed> {
    let mut seed = Seed::default();
    getrandom::fill(seed.as_mut_slice()).map_err(std::io::Error::other)?;
    Ok(seed)
}

pub(super) fn emit(seed: &Seed) -> Zeroizing<String> {
    // Large enough for all, because growing would leave an unwiped copy of the seed behind.
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str(COMMENT);
    text.push_str(MAGIC);
    text.push_str(" 1 ");
    HEX.encode_append(seed.as_slice(), &mut text);
    text.push('\n');
    text
}

/// Parses the text form. `path` is only for the error's text.
pub(super) fn parse(path: &Path, text: &str) -> Result<Seed, StateError> {
    let malformed = |what| StateError::Malformed { path: path.into(), what };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next().ok_or_else(|| malformed("it is empty"))?;

    let mut words = line.split_ascii_whitespace();
    if words.next() != Some(MAGIC) {
        return Err(malformed("it does not begin with `peersock-identity`"));
    }
    match words.next().map(str::parse::<u32>) {
        Some(Ok(VERSION)) => {}
        Some(Ok(version)) if version > VERSION => return Err(StateError::TooNew { path: path.into() }),
        _ => return Err(malformed("its version is not a number")),
    }
    let digits = words.next().ok_or_else(|| malformed("the seed is missing"))?;
    if words.next().is_some() || lines.next().is_some() {
        return Err(malformed("something follows the seed"));
    }
    // `decode_mut` panics for another length.
    if digits.len() != 64 {
        return Err(malformed("the seed is not 64 digits long"));
    }
    let mut seed = Seed::default();
    // Decoded in place, so that no unwiped copy is left.
    HEX.decode_mut(digits.as_bytes(), seed.as_mut_slice())
        .map_err(|_| malformed("the seed has a character that is not a hexadecimal digit"))?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_malformed_file_is_refused_without_quoting_it() {
        let digits = "ab".repeat(32);
        let cases = [
            String::new(),
            "# only a comment\n".into(),
            digits.clone(),
            "peersock-identity".into(),
            format!("peersock-identity {digits}"),
            format!("peersock-identity x {digits}"),
            format!("peersock-identity 0 {digits}"),
            "peersock-identity 1".into(),
            format!("peersock-identity 1 {}", &digits[1..]),
            format!("peersock-identity 1 {digits}0"),
            format!("peersock-identity 1 {}g", &digits[1..]),
            format!("peersock-identity 1 {digits} more"),
            format!("peersock-identity 1 {digits}\npeersock-identity 1 {digits}"),
        ];
        for text in cases {
            let error = parse(Path::new("identity.key"), &text).unwrap_err();
            assert!(matches!(error, StateError::Malformed { .. }), "{text:?}: {error}");
            assert!(!error.to_string().contains("abab"), "{error}");
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let error = parse(Path::new("identity.key"), "peersock-identity 2 anything at all").unwrap_err();
        assert!(matches!(error, StateError::TooNew { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn emit_then_parse_is_the_identity(seed in any::<[u8; 32]>()) {
            let seed = Seed::new(seed);
            let text = emit(&seed);
            prop_assert_eq!(&*parse(Path::new("x"), &text).unwrap(), &*seed);
            let upper = text.to_uppercase().replace("PEERSOCK-IDENTITY", MAGIC);
            let upper = upper.lines().last().unwrap();
            prop_assert_eq!(&*parse(Path::new("x"), upper).unwrap(), &*seed);
        }

        #[test]
        fn parse_never_panics(text in ".{0,200}") {
            let _ = parse(Path::new("x"), &text);
        }
    }
}
