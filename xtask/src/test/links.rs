//! Links of the documents lead to files that are there, and their anchors to headings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::prose;
use crate::{Result, root};

/// Returns the links of documents that lead nowhere.
/// Fails if a document cannot be read.
pub(super) fn complaints() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut known = BTreeMap::new();
    for document in prose::documents()? {
        let text = fs::read_to_string(&document)?;
        let name = document.strip_prefix(root()).unwrap_or(&document).display();
        for link in links(&text).filter(|link| !leads_somewhere(&document, link, &mut known)) {
            complaints.push(format!("{name}: the link '{link}' leads nowhere"));
        }
    }
    Ok(complaints)
}

/// Returns the targets of a document's links, but for those on the web.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://") && !target.contains(' '))
}

/// Returns true if a link of a document has its file, and its anchor a heading there. `known` keeps the
/// anchors of files.
fn leads_somewhere(document: &Path, link: &str, known: &mut BTreeMap<PathBuf, BTreeSet<String>>) -> bool {
    let (file, place) = link.split_once('#').unwrap_or((link, ""));
    let path = match file {
        "" => document.to_owned(),
        file => document.parent().unwrap_or(document).join(file),
    };
    if place.is_empty() {
        return path.exists();
    }
    let there = known
        .entry(path)
        .or_insert_with_key(|path| fs::read_to_string(path).map(|text| anchors(&text)).unwrap_or_default());
    there.contains(place)
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.filter_map(|line| line.trim_start_matches('#').strip_prefix(' ')).map(anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_followed() {
        let text = "# A page\n\n[one](a.md#x) and ![two](b.svg), [web](https://example.org/), `f[0](a, b)`\n";
        assert_eq!(links(text).collect::<Vec<_>>(), ["a.md#x", "b.svg"]);
        let document = root().join("README.md");
        let mut known = BTreeMap::new();
        for (link, is_good) in [
            ("docs/use/README.md", true),
            ("docs/use/NOWHERE.md", false),
            ("#security", true),
            ("#nothing", false),
            ("docs/use/INSTALL.md#removal", true),
            ("docs/use/INSTALL.md#arrival", false),
        ] {
            assert_eq!(leads_somewhere(&document, link, &mut known), is_good, "{link}");
        }
    }

    #[test]
    fn anchors_are_made_of_headings() {
        let text = "# One: `two`, three-four_5\n### A (b)\ntext\n#include <x>\n";
        let wanted = ["one-two-three-four_5", "a-b"].map(str::to_owned);
        assert_eq!(anchors(text), BTreeSet::from(wanted));
    }
}
