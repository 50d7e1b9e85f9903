//! Small parts of texts for people.

use std::fmt;

/// Returns the word that is meant by a mistyped one: one that it begins, or the nearest with at most two
/// changes.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer words are far from all that are known, and comparing them would take long.
    if word.len() > 20 {
        return None;
    }
    let word = word.to_lowercase();
    let is_beginning = |known: &&&str| word.len() > 2 && known.starts_with(&word);
    if let Some(known) = known.iter().find(is_beginning) {
        return Some(known);
    }
    let near = known.iter().map(|known| (distance(&word, known), *known)).min()?;
    // A word of two or three letters is as near to every other one of them.
    let most = near.1.len().min(word.len()).div_ceil(3).min(2);
    (near.0 <= most).then_some(near.1)
}

/// Returns the number of letters to insert, remove, replace or exchange with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

/// Number of items that a list in an explanation names.
const LISTED: usize = 4;

/// Returns a list as text, with the number of items behind the first ones.
pub(crate) fn listed<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    let shown = if items.len() == LISTED + 1 { LISTED + 1 } else { LISTED };
    let mut text = items.iter().take(shown).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > shown {
        text += &format!(" and {} others", items.len() - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_words_are_recognised() {
        let known = ["from", "to", "protocol", "ports", "note", "action", "via"];
        for (word, meant) in [
            ("form", Some("from")),
            ("port", Some("ports")),
            ("prots", Some("ports")),
            ("Protocols", Some("protocol")),
            ("proto", Some("protocol")),
            ("acton", Some("action")),
            ("vai", Some("via")),
            ("source", None),
            ("xx", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
    }

    #[test]
    fn long_lists_end_with_a_number() {
        assert_eq!(listed([1, 2]), "1, 2");
        assert_eq!(listed(1..=5), "1, 2, 3, 4, 5");
        assert_eq!(listed(1..=9), "1, 2, 3, 4 and 5 others");
    }
}
