//! Texts and bytes of anybody: nothing panics, and what is accepted has one form.

use crate::spec::{flow, spec};
use peersock_rules::{Compiled, RuleFile, RuleSet, Selector};
use proptest::prelude::*;

/// Pieces of files, so that random texts get beyond the first line.
const PIECES: [&str; 40] = [
    "default",
    "=",
    "\"deny\"",
    "\"allow\"",
    "\n",
    "[[rule]]",
    "[[test]]",
    "[rule]",
    "action",
    "from",
    "to",
    "via",
    "protocol",
    "ports",
    "port",
    "note",
    "expect",
    "\"*\"",
    "\"tag:a\"",
    "\"member:b\"",
    "\"10.0.0.0/8\"",
    "[",
    "]",
    ",",
    "\"tcp\"",
    "\"icmp\"",
    "80",
    "-1",
    "99999999999999999999",
    "\"1-9\"",
    "true",
    "1.5",
    "1979-05-27",
    "{",
    "}",
    "\"\\u0000\"",
    "'''",
    "#",
    "ü",
    "\"fd00::/8\"",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
        decode(&bytes);
    }

    #[test]
    fn random_pieces_are_no_panic(pieces in prop::collection::vec(0..PIECES.len(), 0..80)) {
        let text: Vec<_> = pieces.iter().map(|at| PIECES[*at]).collect();
        check(text.join(" ").as_bytes());
    }

    #[test]
    fn random_selectors_have_one_text(text in "(tag:|member:|node:|)[a-zA-Z0-9.:/-]{0,40}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_no_panic(spec in spec(1..6), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = spec.text().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(&bytes);
        bytes.truncate(at);
        check(&bytes);
    }

    #[test]
    fn damaged_encodings_are_no_panic(
        spec in spec(1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        flow in flow(),
    ) {
        let set = RuleFile::parse(spec.text().as_bytes()).expect("a valid file").rules;
        let mut bytes = set.encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(other) = decode(&bytes) {
            flow.with(|flow| Compiled::new(other).decide(&flow));
        }
    }
}

/// Reads a file, whose errors must lie in it, and whose rules must have an encoding.
fn check(bytes: &[u8]) {
    match RuleFile::parse(bytes) {
        Ok(file) => {
            assert_eq!(RuleSet::decode(&file.rules.encode()), Ok(file.rules.clone()));
            file.failures();
        }
        Err(problems) => {
            assert!((1..=20).contains(&problems.len()));
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            for problem in problems {
                assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem}");
                assert!(!problem.text.is_empty() && !problem.hint.is_empty());
                let is_harmless = |c: char| !c.is_control() || c == '\n';
                assert!(problem.to_string().chars().all(is_harmless), "{problem:?}");
            }
        }
    }
}

/// Decodes a set, which must have these bytes only.
fn decode(bytes: &[u8]) -> Option<RuleSet> {
    let set = RuleSet::decode(bytes).ok()?;
    assert_eq!(set.encode(), bytes);
    Some(set)
}
