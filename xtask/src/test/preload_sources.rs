//! Checks that the launchers' build script watches all sources of the preloaded library. Otherwise an old
//! library inside a new program would go unnoticed.

use std::collections::BTreeSet;
use std::fs;

use super::workspace::Workspace;
use crate::{Result, root};

/// The script, and the start and end of its list.
const SCRIPT: &str = "ffi/run-library/build.rs";
const LIST: (&str, &str) = ("const SOURCES", "];");

/// Package of the library.
const LIBRARY: &str = "peersock-preload";

/// Returns the library's packages that the script does not watch, and those it watches needlessly.
/// Fails if the script cannot be read.
pub(super) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let script = fs::read_to_string(root().join(SCRIPT))?;
    let Some(listed) = listed(&script) else { return Ok(vec![format!("{SCRIPT}: it has no list any more")]) };
    let folders: BTreeSet<String> = made_of(workspace)
        .into_iter()
        .filter_map(|name| workspace.package(name))
        .filter_map(|package| package.manifest.parent()?.strip_prefix(root()).ok()?.to_str())
        .map(str::to_owned)
        .collect();
    Ok(compare(&listed, &folders))
}

/// Returns the library's package and all packages of this workspace that it needs.
fn made_of(workspace: &Workspace) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut left = vec![LIBRARY];
    while let Some(name) = left.pop() {
        let Some(package) = workspace.package(name) else { continue };
        if found.insert(package.name.as_str()) {
            left.extend(package.dependencies.iter().map(String::as_str));
        }
    }
    found
}

/// Returns the quoted texts of the list.
fn listed(script: &str) -> Option<BTreeSet<String>> {
    let (_, rest) = script.split_once(LIST.0)?;
    let (list, _) = rest.split_once(LIST.1)?;
    Some(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

fn compare(listed: &BTreeSet<String>, folders: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut wanted: BTreeSet<String> = ["Cargo.toml", "Cargo.lock"].map(str::to_owned).into();
    for folder in folders {
        let parts = [format!("{folder}/Cargo.toml"), format!("{folder}/src")];
        if listed.contains(folder) {
            wanted.insert(folder.clone());
        } else {
            wanted.extend(parts);
        }
    }
    let missing = wanted.difference(listed);
    complaints.extend(missing.map(|source| format!("{SCRIPT}: the library is made of {source}, too")));
    let idle = listed.difference(&wanted);
    complaints.extend(idle.map(|source| format!("{SCRIPT}: the library is not made of {source}")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_package_is_listed_as_a_whole_or_in_parts() {
        let listed =
            listed("x; const SOURCES: [&str; 2] = [\n\"Cargo.toml\",\n\"Cargo.lock\", \"a\"];").unwrap();
        assert_eq!(listed, set(&["Cargo.toml", "Cargo.lock", "a"]));
        assert!(compare(&listed, &set(&["a"])).is_empty());
        assert_eq!(compare(&listed, &set(&["a", "b"])).len(), 2, "b/Cargo.toml and b/src");
        assert_eq!(compare(&listed, &set(&[])).len(), 1, "a");
        let parts = set(&["Cargo.toml", "Cargo.lock", "a/Cargo.toml", "a/src"]);
        assert!(compare(&parts, &set(&["a"])).is_empty());
    }
}
