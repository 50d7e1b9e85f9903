//! Comparison of a terminal's lines with a page's text.
//!
//! A page's text has two kinds of placeholders. A name in angle brackets matches text without spaces, the
//! same wherever the tour repeats the name. A `…` matches any text, or alone in a line any lines.

use std::collections::BTreeMap;

/// Names that a tour has used, and the texts in their places.
pub(super) type Names = BTreeMap<String, String>;

/// Placeholder for any text.
const ANYTHING: char = '…';

/// Degree to which the actual text matches the expected one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Match {
    /// All of it matches. Holds all names known so far.
    Whole(Names),
    /// The actual text matches the beginning, and more has to come.
    Beginning,
    /// It does not match.
    No,
}

/// Compares lines.
pub(super) fn compare(expected: &[String], actual: &[String], names: &Names) -> Match {
    let Some((first, rest)) = expected.split_first() else {
        return if actual.is_empty() { Match::Whole(names.clone()) } else { Match::No };
    };
    if *first == ANYTHING.to_string() {
        let ways = (0..=actual.len()).map(|skipped| compare(rest, &actual[skipped..], names));
        return best(ways);
    }
    let Some((line, others)) = actual.split_first() else { return Match::Beginning };
    best(compare_line(first, line, names).into_iter().map(|names| compare(rest, others, &names)))
}

/// Replaces the known names in a text. Unknown names stay.
pub(super) fn fill_in(text: &str, names: &Names) -> String {
    let mut filled = text.to_owned();
    for (name, value) in names {
        filled = filled.replace(&format!("<{name}>"), value);
    }
    filled
}

fn best(ways: impl Iterator<Item = Match>) -> Match {
    let mut found = Match::No;
    for way in ways {
        match way {
            Match::Whole(_) => return way,
            Match::Beginning => found = way,
            Match::No => {}
        }
    }
    found
}

/// Returns the names after each way in which a line matches: none if it does not. Shorter texts in the places
/// of names come first.
fn compare_line(expected: &str, actual: &str, names: &Names) -> Vec<Names> {
    if let Some(rest) = expected.strip_prefix(ANYTHING) {
        let tails = actual.char_indices().map(|(at, _)| &actual[at..]).chain([""]);
        return tails.flat_map(|tail| compare_line(rest, tail, names)).take(1).collect();
    }
    if let Some((name, rest)) = leading_name(expected) {
        if let Some(value) = names.get(name) {
            return actual.strip_prefix(value).map_or_else(Vec::new, |tail| compare_line(rest, tail, names));
        }
        let word = actual.find(char::is_whitespace).unwrap_or(actual.len());
        let ends = actual[..word].char_indices().map(|(at, c)| at + c.len_utf8());
        let with = |end| {
            let mut names = names.clone();
            names.insert(name.to_owned(), actual[..end].to_owned());
            compare_line(rest, &actual[end..], &names)
        };
        return ends.flat_map(with).take(1).collect();
    }
    let mut characters = (expected.chars(), actual.chars());
    match (characters.0.next(), characters.1.next()) {
        (None, None) => vec![names.clone()],
        (Some(one), Some(other)) if one == other => {
            compare_line(characters.0.as_str(), characters.1.as_str(), names)
        }
        _ => Vec::new(),
    }
}

/// Splits a text into a leading `<name>` and the rest.
fn leading_name(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix('<')?.split_once('>')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    is_name.then_some((name, rest))
}

/// Returns a line's visible text on a terminal, without colours and overwritten text.
pub(super) fn shown(line: &str) -> String {
    let mut shown = String::new();
    let mut characters = line.trim_end_matches('\r').chars();
    while let Some(c) = characters.next() {
        match c {
            // An escape sequence ends with a letter. This one erases the line.
            '\x1b' => {
                let mut sequence = String::new();
                for c in characters.by_ref() {
                    sequence.push(c);
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
                if sequence == "[2K" {
                    shown.clear();
                }
            }
            '\r' => shown.clear(),
            _ => shown.push(c),
        }
    }
    shown.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn outcome(expected: &str, actual: &str) -> Match {
        compare(&lines(expected), &lines(actual), &Names::new())
    }

    fn is_whole(expected: &str, actual: &str) -> bool {
        matches!(outcome(expected, actual), Match::Whole(_))
    }

    #[test]
    fn lines_are_compared_one_by_one() {
        assert!(is_whole("", ""));
        assert!(is_whole("one\ntwo", "one\ntwo"));
        assert_eq!(outcome("one\ntwo", "one"), Match::Beginning);
        assert_eq!(outcome("one\ntwo", "one\nthree"), Match::No);
        assert_eq!(outcome("one", "one\ntwo"), Match::No);
        assert_eq!(outcome("", "one"), Match::No);
        assert_eq!(outcome("one", "on"), Match::No);
    }

    #[test]
    fn names_stand_for_words_and_keep_what_they_stood_for() {
        let Match::Whole(names) = outcome("at [<address>]:<port> in <time>", "at [fd00::1]:7 in 5") else {
            panic!("it is the same");
        };
        assert_eq!(fill_in("dial [<address>]:<port> <other>", &names), "dial [fd00::1]:7 <other>");
        assert!(is_whole("<a>\n<b>\n<a>", "x\ny\nx"));
        assert_eq!(outcome("<a>\n<b>\n<a>", "x\ny\nz"), Match::No);
        assert_eq!(outcome("<a>", "two words"), Match::No);
        assert_eq!(outcome("[<a>]", "[]"), Match::No);
        assert!(is_whole("<a>.<b>.", "1.2.3."));
        assert!(is_whole("<Not a name>", "<Not a name>"));
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        assert!(is_whole("a … z", "a b c z"));
        assert!(is_whole("a…", "a"));
        assert_eq!(outcome("a … z", "a b"), Match::No);
        assert!(is_whole("first\n…\nlast", "first\n1\n2\nlast"));
        assert!(is_whole("…\nlast", "last"));
        assert_eq!(outcome("…\nlast", "first"), Match::Beginning);
        assert!(is_whole("…", "any\nlines"));
    }

    #[test]
    fn lines_of_a_terminal_are_what_is_left_of_them() {
        assert_eq!(shown("\x1b[1;31merror\x1b[0m: no\r"), "error: no");
        assert_eq!(shown("10 %\r\x1b[2K50 %\r\x1b[2Kdone"), "done");
        assert_eq!(shown("10 %\r\x1b[2K"), "");
        assert_eq!(shown("a line that is too long\x1b[1A\x1b[2K\x1b[1B\x1b[2K\x1b[1Adone"), "done");
    }
}
