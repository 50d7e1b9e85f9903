//! Checks that every place that takes the file of a static network explains how to make one, and where its
//! fields are described.
//!
//! The program's tests check its helps. This module checks the library, the C header, libzt's names, Python,
//! and the packages over the C library.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::sources::{files, rust_files};
use super::workspace::Workspace;
use crate::{Result, root};

/// Texts that each place must contain.
const NAMES: [&str; 2] = ["peersock network new", "docs/use/NETWORKS.md"];

/// Code that reads such a file in Rust.
const READS: &str = "Network::from_file(";

/// Code that reads such a file in other languages, over the C library.
const JOINS: [&str; 2] = ["peersock_join_file(", "peersock_open("];

/// Packages that read such a file, and the place below that users see.
const PACKAGES: [(&str, &str); 3] = [
    ("bindings/go", "bindings/go/node.go"),
    ("bindings/node", "bindings/node/index.d.ts"),
    ("ffi/compat", "ffi/compat/zts/network.h"),
];

/// Folders to search, and the endings of their files.
const OTHERS: [&str; 2] = ["bindings", "ffi/compat"];
const ENDINGS: [&str; 6] = ["c", "cpp", "go", "h", "js", "ts"];

/// Rust code that reads such a file, and the place below that users see. [`PROGRAM`] has the program's source
/// code.
const FACES: [(&str, &str); 2] = [
    ("ffi/lib/src", "ffi/lib/include/peersock.h"),
    ("bindings/python/src", "bindings/python/peersock/session.py"),
];

/// Source code of the program, whose helps `cli/src/main.rs` tests.
const PROGRAM: &str = "cli/src";

/// Files, each with two texts between which the names must occur.
const PLACES: [(&str, &str, &str); 11] = [
    ("src/config/mod.rs", "/// Reads a static network", "pub fn from_file"),
    ("ffi/lib/src/networks.rs", "/// Joins the static network", "fn peersock_join_file"),
    ("ffi/lib/include/peersock.h", "// Joins the static network", " peersock_join_file("),
    ("ffi/lib/include/peersock.h", "// - `network`: the ID", "// - `secret`:"),
    ("ffi/compat/zts/network.h", "/* A static network", " zts_join("),
    ("docs/use/LIBZT.md", "- `zts_net_join` joins", "\n## "),
    ("bindings/python/peersock/session.py", "net_id: The network", "secret: The passphrase"),
    ("bindings/python/peersock/__main__.py", "\"--network\"", "\"--secret-file\""),
    ("bindings/python/docs/tutorial.rst", "(a *static* network)", "\n\n"),
    ("bindings/go/node.go", "// Join joins an ad-hoc network", "func (n *Node) Join("),
    ("bindings/node/index.d.ts", "/** Joined at once:", "network?: string"),
];

/// Returns the places without the names, and the readers of such files without a place here.
/// Fails if a file cannot be read.
pub(super) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (file, from, to) in PLACES {
        let text = fs::read_to_string(root().join(file))?;
        complaints.extend(complaint(&text, from, to).map(|what| format!("{file}: {what}")));
    }
    let mut readers = BTreeSet::new();
    for package in &workspace.packages {
        let source = package.manifest.with_file_name("src");
        for file in rust_files(&source)? {
            let code = fs::read_to_string(&file)?;
            let calls = code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(READS));
            // The library itself, and this file, do not count.
            if calls && !matches!(package.name.as_str(), "peersock" | "xtask") {
                readers.insert(source.strip_prefix(root()).unwrap_or(&source).to_owned());
            }
        }
    }
    for reader in &readers {
        let is_known =
            reader == Path::new(PROGRAM) || FACES.iter().any(|(face, _)| reader == Path::new(face));
        if !is_known {
            complaints.push(format!(
                "{}: it takes files of networks: give it a place in network_files",
                reader.display()
            ));
        }
    }
    let mut users = BTreeSet::new();
    for folder in OTHERS {
        for file in files(&root().join(folder), &ENDINGS, &is_installed)? {
            let code = fs::read_to_string(&file)?;
            if JOINS.iter().any(|call| code.contains(call)) {
                users.insert(file.strip_prefix(root()).unwrap_or(&file).to_owned());
            }
        }
    }
    for user in &users {
        if !PACKAGES.iter().any(|(package, _)| user.starts_with(package)) {
            let user = user.display();
            complaints.push(format!("{user}: it takes files of networks: give it a place in network_files"));
        }
    }
    for (package, place) in PACKAGES {
        let is_user = users.iter().any(|user| user.starts_with(package));
        if !is_user || !PLACES.iter().any(|(file, _, _)| *file == place) {
            complaints.push(format!("{package}: it takes no files of networks any more"));
        }
    }
    for (face, place) in FACES {
        if !readers.contains(Path::new(face)) || !PLACES.iter().any(|(file, _, _)| *file == place) {
            complaints.push(format!("{face}: it takes no files of networks any more"));
        }
    }
    Ok(complaints)
}

/// Returns true for folders of package managers' files.
fn is_installed(path: &Path) -> bool {
    ["node_modules", "build", "test"].iter().any(|name| path.ends_with(name))
}

/// Returns the complaint about a place that lacks a name.
fn complaint(text: &str, from: &str, to: &str) -> Option<String> {
    let Some((_, rest)) = text.split_once(from) else { return Some(format!("it has no '{from}' any more")) };
    let Some((place, _)) = rest.split_once(to) else {
        return Some(format!("it has no '{to}' after '{from}' any more"));
    };
    // Ignore line breaks and comment prefixes.
    let words: Vec<_> =
        place.split_whitespace().filter(|word| !matches!(*word, "//" | "///" | "*" | "*/")).collect();
    let place = words.join(" ");
    let missing: Vec<_> = NAMES.into_iter().filter(|name| !place.contains(name)).collect();
    (!missing.is_empty()).then(|| format!("'{from}' does not name {}", missing.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_both_however_its_lines_are_broken() {
        let good =
            "/// Reads a file. `peersock\n    /// network new` makes one: docs/use/NETWORKS.md.\nfn read()";
        assert_eq!(complaint(good, "/// Reads", "fn read"), None);
        let without = complaint("// Reads a file. docs/use/NETWORKS.md\nread()", "// Reads", "read()");
        assert!(without.is_some_and(|said| said.contains("peersock network new")));
        assert!(complaint(good, "/// Writes", "fn").is_some_and(|said| said.contains("any more")));
        assert!(complaint(good, "/// Reads", "struct").is_some_and(|said| said.contains("any more")));
    }
}
