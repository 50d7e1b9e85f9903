//! Checks the claims of docs/reference/FACES.md about other projects' interfaces. Each of their features has
//! a row, and each test that a row names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{Result, root};

/// The features of each list, by the number of the last one.
const LISTS: [(&str, u32); 5] = [("S1", 90), ("S2", 35), ("S3", 26), ("S4", 18), ("S5", 10)];

/// Folders without our tests.
const OTHERS: [&str; 4] = ["target", "node_modules", "corpus", ".git"];

/// Returns the claims that no longer hold.
/// Fails if a file cannot be read.
pub(super) fn complaints() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/reference/FACES.md"))?;
    let mut tests = BTreeSet::new();
    collect(root(), &mut tests)?;
    let missing = missing(&text).into_iter().map(|id| format!("docs/reference/FACES.md has no row for {id}"));
    let stale = named(&text).into_iter().filter(|name| !tests.contains(*name));
    Ok(missing.chain(stale.map(|name| format!("docs/reference/FACES.md: there is no test {name}"))).collect())
}

/// Returns the features without a row.
fn missing(text: &str) -> Vec<String> {
    let rows: BTreeSet<String> = cells(text).flat_map(|(first, _)| ids(first)).collect();
    let all = LISTS.iter().flat_map(|(list, last)| (1..=*last).map(move |at| format!("{list}.{at}")));
    all.filter(|id| !rows.contains(id)).collect()
}

/// Returns the tests that the tables name. A single word may be a module, and is not searched for.
fn named(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (_, last) in cells(text) {
        // Text between backticks names files and options.
        for prose in last.split('`').step_by(2) {
            let words = prose.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            names.extend(words.filter(|word| word.contains('_')));
        }
    }
    names
}

/// Returns the first and the last cell of each row.
fn cells(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some((row.split(" | ").next()?, row.rsplit(" | ").next()?))
    })
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

/// Collects the functions of all Rust files, and the tests of all Python files, below a folder.
fn collect(folder: &Path, tests: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !OTHERS.iter().any(|other| path.ends_with(other)) {
                collect(&path, tests)?;
            }
            continue;
        }
        let mark = match path.extension().and_then(|ending| ending.to_str()) {
            Some("rs") => "fn ",
            Some("py") => "def test_",
            _ => continue,
        };
        let code = fs::read_to_string(&path)?;
        for line in code.lines() {
            let Some((_, rest)) = line.split_once(mark) else { continue };
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            tests.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    Ok(())
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

    #[test]
    fn tests_are_named_outside_of_code() {
        let text =
            "| S2.1 | `a_b`, c_d | `file_of`: one_two, three (`max_size`); `x`: four_five |\nsix_seven\n";
        assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["four_five", "one_two"]);
    }
}
