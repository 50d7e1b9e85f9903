//! Checks of untrusted texts before people see them.

/// Returns true for a character that controls terminals, ends a line, reorders other characters, or is
/// invisible, because it makes a text look like another one. These are control characters, the separators of
/// lines and paragraphs, the marks of direction (UAX #9), spaces and joiners without a width, and tags.
///
/// The two joiners that scripts and emoji need, U+200C and U+200D, are not deceptive.
pub fn is_deceptive(c: char) -> bool {
    let is_bidirectional =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_invisible = matches!(
        c,
        '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    c.is_control() || is_bidirectional || is_invisible || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_as_it_is_deceives_nobody() {
        for c in "aé漢א\u{200c}\u{200d}👩 -_.~\u{a0}".chars() {
            assert!(!is_deceptive(c), "{}", c.escape_unicode());
        }
        let controls = "\0\n\u{1b}\u{7f}\u{9b}\u{2028}";
        let directions = "\u{61c}\u{200f}\u{202e}\u{2069}";
        let invisible = "\u{200b}\u{2060}\u{206f}\u{feff}\u{e0020}";
        for c in [controls, directions, invisible].concat().chars() {
            assert!(is_deceptive(c), "{}", c.escape_unicode());
        }
    }
}
