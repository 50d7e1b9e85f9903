//! Checks the claims of docs/reference/FACES.md about other projects' interfaces: each feature has a row.

use std::collections::BTreeSet;
use std::fs;

use crate::{Result, root};

/// The features of each list, by the number of the last one.
const LISTS: [(&str, u32); 5] = [("S1", 90), ("S2", 35), ("S3", 26), ("S4", 18), ("S5", 10)];

/// Returns the claims that no longer hold.
/// Fails if a file cannot be read.
pub(super) fn complaints() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/reference/FACES.md"))?;
    Ok(missing(&text).into_iter().map(|id| format!("docs/reference/FACES.md has no row for {id}")).collect())
}

/// Returns the features without a row.
fn missing(text: &str) -> Vec<String> {
    let rows: BTreeSet<String> = first_cells(text).flat_map(ids).collect();
    let all = LISTS.iter().flat_map(|(list, last)| (1..=*last).map(move |at| format!("{list}.{at}")));
    all.filter(|id| !rows.contains(id)).collect()
}

/// Returns the first cell of each row.
fn first_cells(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
}

/// Returns the features that a cell names, singly or as a range.
fn ids(cell: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for part in cell.split(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '-')) {
        let ends: Vec<_> = part.split('-').filter_map(id).collect();
        if let (Some((list, first)), Some((_, last))) = (ends.first(), ends.last()) {
            ids.extend((*first..=*last).map(|at| format!("{list}.{at}")));
        }
    }
    ids
}

fn id(text: &str) -> Option<(&str, u32)> {
    let (list, at) = text.split_once('.')?;
    Some((LISTS.iter().find(|(name, _)| *name == list)?.0, at.trim_end_matches('.').parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_for_what_they_name() {
        assert_eq!(ids("S2.33"), ["S2.33"]);
        assert_eq!(ids("S3.1, S3.26"), ["S3.1", "S3.26"]);
        assert_eq!(ids("S2.10-S2.12"), ["S2.10", "S2.11", "S2.12"]);
        assert_eq!(ids("S3.25: every route of P2PD, by its examples; `curl`"), ["S3.25"]);
        assert!(ids("item, S9.1, half-closed, S3.x").is_empty());
        assert_eq!(ids("S1.1-S1.3, S1.90"), ["S1.1", "S1.2", "S1.3", "S1.90"]);
        let all = "| S1.1-S1.90, S5.1-S5.10, S2.1-S2.35 | what | a |\n| S3.1-S3.25, S4.1-S4.18 | what | a |\n\
                    S3.26 is no row\n";
        assert_eq!(missing(all), ["S3.26"]);
    }
}
